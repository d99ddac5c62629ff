import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.deployed import UNITS, address, unit

MAX_EXPOSURE = 20  # tenths, of `systemd-analyze security`
systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


def _installed(path: Path, folder: Path) -> Path:
    """As instance 0, with a program that is there."""
    copy = folder / path.name.replace("@.", "@0.")
    copy.write_text(path.read_text().replace("/opt/stream-interp/bin/stream-interp", sys.executable))
    return copy


@pytest.fixture(params=UNITS, ids=lambda path: path.name)
def path(request: pytest.FixtureRequest) -> Path:
    assert isinstance(request.param, Path)
    return request.param


@systemd
def test_systemd_finds_no_fault(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", _installed(path, tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


@systemd
def test_systemd_calls_it_hardened(path: Path, tmp_path: Path) -> None:
    line = ["systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", _installed(path, tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_it_has_what_every_unit_of_ours_has(path: Path) -> None:
    found = unit(path)
    assert set(found) == {"Unit", "Service", "Install"}
    service = {name: values[-1] for name, values in found["Service"].items()}
    assert found["Service"]["ExecStart"][0].startswith("/opt/stream-interp/bin/stream-interp ")
    assert service["NoNewPrivileges"] == service["DynamicUser"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"].split() == ["2", "6"]
    credential, _, file = service["LoadCredential"].partition(":")
    assert file.startswith("/etc/stream-interp/")
    assert f"STREAM_INTERP_KAFKA__PASSWORD_FILE=%d/{credential}" in found["Service"]["Environment"]


def test_each_listens_on_loopback_at_a_port_of_its_own() -> None:
    addresses = [address(unit(path)["Service"]["ExecStart"][0].split()) for path in UNITS]
    assert all(address.startswith("127.0.0.1:") for address in addresses)
    assert len(set(addresses)) == len(UNITS)


def test_instances_are_instances_for_kafka() -> None:
    for path in UNITS:
        assert ("@" in path.name) == ("kafka.instance=0" in unit(path)["Service"]["ExecStart"][0])
