import hashlib
from pathlib import Path

import pytest

from stream_interp.embedded import jars
from stream_interp.errors import DependencyUnreachable, IntegrityError, UsageError

CONTENT = {"org.example:one:1.0": b"first jar", "org.example:two:2.1": b"second jar"}
LOCK = {coordinate: hashlib.sha256(content).hexdigest() for coordinate, content in CONTENT.items()}


def fetch(coordinate: str, scratch: Path) -> Path:
    path = scratch / jars.jar_name(coordinate)
    path.write_bytes(CONTENT[coordinate])
    return path


def no_network(coordinate: str, scratch: Path) -> Path:
    raise ConnectionError("Name or service not known")


def test_the_committed_lock_names_kafka_and_a_sha256_for_every_jar() -> None:
    lock = jars.read_lock()
    assert "org.apache.kafka:kafka_2.13:4.4.0" in lock
    assert len({jars.jar_name(coordinate) for coordinate in lock}) == len(lock) == 45
    assert all(len(bytes.fromhex(sha256)) == 32 for sha256 in lock.values())


def test_install_puts_exactly_the_locked_jars_and_leaves_no_scratch(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "kafka"
    jars.install(target, LOCK, fetch)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        "one-1.0.jar": b"first jar",
        "two-2.1.jar": b"second jar",
    }
    assert list(target.parent.iterdir()) == [target]


def test_a_second_process_that_was_faster_is_no_error(tmp_path: Path) -> None:
    jars.install(tmp_path / "kafka", LOCK, fetch)
    jars.install(tmp_path / "kafka", LOCK, fetch)
    jars.verify(tmp_path / "kafka", LOCK)


@pytest.mark.parametrize("content", [b"tampered", b"", None])
def test_a_jar_that_is_not_the_locked_one_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    jars.install(tmp_path / "kafka", LOCK, fetch)
    victim = tmp_path / "kafka" / "two-2.1.jar"
    victim.unlink() if content is None else victim.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"two-2\.1\.jar.*expected " + LOCK["org.example:two:2.1"]) as caught:
        jars.verify(tmp_path / "kafka", LOCK)
    assert caught.value.exit_code == 6


def test_a_wrong_download_never_reaches_the_cache(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"one-1\.0\.jar"):
        jars.install(tmp_path / "kafka", {**LOCK, "org.example:one:1.0": "0" * 64}, fetch)
    assert list(tmp_path.iterdir()) == []


def test_without_jars_and_network_the_error_names_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "fetch_jar", no_network)
    with pytest.raises(DependencyUnreachable) as caught:
        jars.kafka_classpath({"STREAM_INTERP_CACHE": str(tmp_path / "cache")})
    for way_out in ("--bootstrap", "KAFKA_HOME", str(tmp_path / "cache"), "Name or service not known"):
        assert way_out in str(caught.value)
    assert caught.value.exit_code == 5
    assert list((tmp_path / "cache").iterdir()) == []


def test_jgo_without_network_becomes_the_same_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jgo.util import http

    def refuse(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(http, "request", refuse)
    with pytest.raises(DependencyUnreachable, match="no route to host"):
        jars.install(tmp_path / "kafka", LOCK, jars.fetch_jar)
    assert list(tmp_path.iterdir()) == []


def test_kafka_home_is_honoured_and_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="KAFKA_HOME"):
        jars.kafka_classpath({"KAFKA_HOME": str(tmp_path)})
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs" / "kafka_2.13-4.4.0.jar").touch()
    assert jars.kafka_classpath({"KAFKA_HOME": str(tmp_path)}) == str(tmp_path / "libs" / "*")


def test_where_the_cache_is() -> None:
    assert jars.cache_dir({"STREAM_INTERP_CACHE": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert jars.cache_dir({"XDG_CACHE_HOME": "/b"}) == Path("/b/stream-interp")
    assert jars.cache_dir({}) == Path.home() / ".cache" / "stream-interp"
