from __future__ import annotations

import numpy as np
import pytest

from stream_interp.cli import main
from stream_interp.cli.produce import paced
from stream_interp.records.arrays import write_tensors


@pytest.fixture
def words(tmp_path) -> list[str]:
    path = tmp_path / "a.safetensors"
    path.write_bytes(write_tensors({"acts": np.ones((4, 2), np.float16), "doc_id": np.array([0, 0, 1, 1])}))
    return ["produce", "--from", str(path), "--model-id", "m", "--hook", "h", "--json"]


def test_a_bad_file_is_exit_2_before_kafka_is_asked(words, tmp_path, capfd):
    (tmp_path / "a.safetensors").write_bytes(b"no")
    assert main(words) == 2
    assert "not a safetensors file" in capfd.readouterr().err.replace("\n", " ")


def test_pace_is_an_absolute_schedule():
    now_s = [100.0]

    def sleep(seconds: float) -> None:
        now_s[0] += seconds

    times_s = []
    for i in paced(iter(range(6)), 10.0, lambda: now_s[0], sleep):
        times_s.append(round(now_s[0] - 100, 6))
        now_s[0] += 0.25 if i == 1 else 0.01  # one late request
    assert times_s == [0.0, 0.1, 0.35, 0.36, 0.4, 0.5]


def test_without_rate_nothing_waits():
    assert list(paced(iter(range(3)), None, lambda: 0.0, lambda _: pytest.fail("slept"))) == [0, 1, 2]
