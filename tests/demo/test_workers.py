import pytest

from stream_interp.cli.configuration import load
from stream_interp.demo import workers
from stream_interp.errors import StreamInterpError

OUTER = {"PATH": "/bin", "STREAM_INTERP_DRIFT__TOLERANCE": "9", "stream_interp_redis__url": "redis://elsewhere"}


def test_the_users_settings_do_not_reach_the_workers(tmp_path):
    env = workers.environment(OUTER, "127.0.0.1:1", "redis://127.0.0.1:2/0")
    assert env["PATH"] == "/bin"
    settings = load(None, {}, env, tmp_path).settings
    assert settings.kafka.bootstrap == "127.0.0.1:1"
    assert settings.redis.url == "redis://127.0.0.1:2/0"
    assert settings.drift.tolerance == load(None, {}, {}, tmp_path).settings.drift.tolerance
    assert settings.baseline.requests == workers.BASELINE_REQUESTS


@pytest.mark.integration  # no server, but seconds of imports and of waiting for one
def test_a_worker_that_ends_is_named_with_its_last_words(tmp_path):
    env = workers.environment({}, "127.0.0.1:1", "redis://127.0.0.1:2/0")
    with workers.running(tmp_path, tmp_path / "no-sae", env) as started:
        for process in started:
            process.wait(60)
        with pytest.raises(StreamInterpError, match=r"(?s)encode ended by itself with code 5.*127\.0\.0\.1:1"):
            workers.check(started)
