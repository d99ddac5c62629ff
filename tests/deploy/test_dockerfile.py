import re
import tomllib

from tests.deploy.deployed import ROOT, compose, instructions

FOUND = instructions()
KNOWN = {"FROM", "ARG", "WORKDIR", "RUN", "COPY", "USER", "ENV", "HEALTHCHECK", "STOPSIGNAL", "ENTRYPOINT", "CMD"}
LAST_STAGE = FOUND[max(k for k, (name, _) in enumerate(FOUND) if name == "FROM") :]


def _last(name: str) -> str:
    return next(rest for found, rest in reversed(LAST_STAGE) if found == name)


def test_every_line_is_an_instruction() -> None:
    assert {name for name, _ in FOUND} <= KNOWN


def test_two_stages_on_a_python_that_we_support() -> None:
    images = [rest.split()[0] for name, rest in FOUND if name == "FROM"]
    assert len(images) == 2
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    assert all(image == f"python:{needed}-slim" for image in images)
    assert not any(name == "RUN" and "pip" in rest for name, rest in LAST_STAGE)


def test_it_runs_as_somebody_without_rights() -> None:
    assert re.fullmatch(r"[1-9]\d{3,}", _last("USER"))
    [own] = [rest for name, rest in LAST_STAGE if name == "RUN"]
    assert f"--uid {_last('USER')}" in own
    assert [name for name, _ in LAST_STAGE].index("USER") > [name for name, _ in LAST_STAGE].index("RUN")


def test_a_read_only_root_is_enough() -> None:
    environment = dict(pair.split("=", 1) for pair in _last("ENV").split())
    assert environment["HOME"] == "/tmp"
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"


def test_health_is_asked_where_the_default_command_answers() -> None:
    port = re.search(r"127\.0\.0\.1:(\d+)/livez", _last("HEALTHCHECK"))
    assert port is not None
    assert f'"--http", "127.0.0.1:{port[1]}"' in _last("CMD")
    assert _last("STOPSIGNAL") == "SIGTERM"
    assert _last("ENTRYPOINT") == '["stream-interp"]'


def test_what_is_copied_is_there_and_not_ignored() -> None:
    allowed = (ROOT / ".dockerignore").read_text().split()
    copied = [word for name, rest in FOUND if name == "COPY" and "--from" not in rest for word in rest.split()[:-1]]
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name.removeprefix('./')}" in allowed, name


def test_the_build_argument_is_the_one_that_compose_gives() -> None:
    arguments = {rest.partition("=")[0] for name, rest in FOUND if name == "ARG"}
    assert set(compose()["services"]["encode"]["build"]["args"]) == arguments
