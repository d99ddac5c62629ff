"""Prometheus itself, for the tests of rules and dashboards: Debian's package `prometheus`."""

from __future__ import annotations

import os
import shutil

import pytest


def found(program: str) -> str:
    """Its path; where it is missing the test is skipped, in CI it fails."""
    if path := shutil.which(program):
        return path
    reason = f"{program} is not installed: apt-get install prometheus"
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def promtool() -> str:
    return found("promtool")


@pytest.fixture
def prometheus() -> str:
    return found("prometheus")
