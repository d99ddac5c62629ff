"""The image and the compose file on a real engine. Where there is none these are skipped; pytest prints how many."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import docker
import pytest
from docker.errors import ContainerError, DockerException
from testcontainers.compose import DockerCompose
from testcontainers.core.image import DockerImage

from tests.deploy.deployed import DOCKERFILE, ROOT, container, workloads

BUILD_S, STORY_S = 1800, 600


def _no_engine() -> bool:
    try:
        return not docker.from_env(timeout=5).ping()
    except DockerException:
        return True


pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(BUILD_S + STORY_S),
    pytest.mark.skipif("_no_engine()", reason="needs a Docker engine"),
]


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    arguments = {"TORCH_INDEX_URL": os.environ.get("TORCH_INDEX_URL", "")}
    with DockerImage(ROOT, tag="stream-interp:test", dockerfile_path=str(DOCKERFILE), buildargs=arguments) as built:
        yield str(built)


def _run(image: str, *words: str, entrypoint: str | None = None) -> str:
    """As the compose file and the manifests run it."""
    out = docker.from_env().containers.run(
        image, list(words), entrypoint=entrypoint, remove=True, read_only=True, tmpfs={"/tmp": ""}, cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"], network_mode="none",
    )  # fmt: skip
    return str(out.decode())


def test_it_runs_without_rights_on_a_read_only_root(image: str) -> None:
    assert json.loads(_run(image, "version", "--json"))["schema_version"] == 1
    user = container(workloads()[0])["securityContext"] | workloads()[0]["spec"]["template"]["spec"]["securityContext"]
    assert _run(image, "-u", entrypoint="id").strip() == str(user["runAsUser"])


def test_it_trains_and_writes_where_it_may_and_nowhere_else(image: str) -> None:
    assert "sae" in _run(image, "demo", "--files", "/tmp/credit", "--json")
    with pytest.raises(ContainerError, match="cannot be written"):
        _run(image, "config", "init", "/etc/stream-interp/x.toml")


def test_the_demo_profile_ends_critical() -> None:
    with DockerCompose(
        ROOT, compose_file_name="docker-compose.yml", profiles=["demo"], build=True, wait=False
    ) as stack:
        line = ["stream-interp", "status", "credit-risk", "--fail-on", "critical"]
        code = None
        for _ in range(STORY_S // 5):
            done = subprocess.run([*stack.docker_compose_command(), "exec", "-T", "ui", *line], cwd=ROOT, timeout=60)
            code = done.returncode
            if code == 3:
                break
        assert code == 3, stack.get_logs()
