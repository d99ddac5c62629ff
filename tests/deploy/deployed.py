"""Reads the files of `deploy/` and `docker-compose.yml`, and finds every command line in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = ROOT / "docker-compose.yml"
GPU = DEPLOY / "docker-compose.gpu.yml"
DOCKERFILE = DEPLOY / "Dockerfile"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^{}]*))?\}")


class Line(NamedTuple):
    """One command line of ours, and where it stands."""

    where: str
    words: list[str]


def compose(path: Path = COMPOSE, **variables: str) -> dict[str, Any]:
    """A compose file, its variables filled in from `variables` or their defaults, as compose does it: after YAML."""
    document: dict[str, Any] = _filled(yaml.safe_load(path.read_text()), variables)
    return document


def _filled(value: Any, variables: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(item, variables) for name, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, variables) for item in value]
    if not isinstance(value, str):
        return value
    return _VARIABLE.sub(lambda match: variables.get(match[1], match[2] or ""), value)


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a manifest."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def kind(name: str) -> list[dict[str, Any]]:
    """All manifests of one kind."""
    return [document for path in MANIFESTS for document in documents(path) if document["kind"] == name]


def workloads() -> list[dict[str, Any]]:
    """What runs pods."""
    return kind("StatefulSet") + kind("Deployment")


def container(workload: dict[str, Any]) -> dict[str, Any]:
    """The one container of a workload."""
    [one] = workload["spec"]["template"]["spec"]["containers"]
    assert isinstance(one, dict)
    return one


def unit(path: Path) -> dict[str, dict[str, list[str]]]:
    """Section → setting → values in order, specifiers of instances filled in."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in path.read_text().replace("%i", "0").splitlines():
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = sections.setdefault(header[1], {})
        elif line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            assert equals, f"{path.name}: {line}"
            section.setdefault(name, []).append(value)
    return sections


def instructions(path: Path = DOCKERFILE) -> list[tuple[str, str]]:
    """(instruction, rest) of a Dockerfile, comments left out and continued lines joined."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def address(words: list[str]) -> str:
    """Where a process answers for its health, of its command line: `--listen` of the page, else `--http`."""
    [found] = re.findall(r"--(?:http|listen)[ =](\S+)", " ".join(words))
    return str(found)


def command_lines() -> list[Line]:
    """Every command line of ours in these files, comments included."""
    image = ["stream-interp"]
    found = [
        Line(f"{path.name}: {name}", image + service["command"])
        for path in (COMPOSE, GPU)
        for name, service in compose(path)["services"].items()
        if service.get("image", "").startswith("stream-interp") and "command" in service
    ]
    found += [Line(f"kubernetes: {w['metadata']['name']}", image + container(w)["args"]) for w in workloads()]
    found += [Line(path.name, shlex.split(unit(path)["Service"]["ExecStart"][0])) for path in UNITS]
    [command] = [yaml.safe_load(rest) for name, rest in instructions() if name == "CMD"]
    found.append(Line("Dockerfile", image + command))
    for path in (COMPOSE, GPU, DOCKERFILE, *UNITS, *MANIFESTS):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if line.lstrip().startswith("#"):
                spans = re.findall(r"`(stream-interp [^`]+)`", line)
                spans += re.findall(r"#\s+(stream-interp [\w ]+?)(?:;|$)", line)
                found += [Line(f"{path.name}:{number}", shlex.split(span)) for span in spans]
    return found
