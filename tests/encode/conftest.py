from __future__ import annotations

from pathlib import Path

import pytest

from tests.encode.workers import Bench, integer_sae


@pytest.fixture
def bench(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> Bench:
    integer_sae(tmp_path / "sae")
    return Bench(kafka_bootstrap, topic_prefix, tmp_path, {"sae": str(tmp_path / "sae"), "window.min_age_s": "0.1"})
