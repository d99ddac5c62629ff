"""Real servers for integration tests: given by address, else the embedded pair, one for the whole run.

`STREAM_INTERP_TEST_BOOTSTRAP` and `STREAM_INTERP_TEST_REDIS_URL` name running servers. Where the embedded ones cannot
start, tests that need them are skipped with the reason, in CI (`CI=true`) they fail. `STREAM_INTERP_FULL=1` runs the
full forms of statistical tests, too.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from stream_interp.embedded import EmbeddedKafka, EmbeddedValkey
from stream_interp.errors import DependencyUnreachable

SERVER_FIXTURES = frozenset({"kafka_bootstrap", "redis_url"})
Server = TypeVar("Server", EmbeddedKafka, EmbeddedValkey)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for a server is an integration test; these run after all others, in their own order."""
    for item in items:
        if item.get_closest_marker("full") and os.environ.get("STREAM_INTERP_FULL") != "1":
            item.add_marker(pytest.mark.skip("full form: STREAM_INTERP_FULL=1 runs it"))
        if SERVER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.integration)
    items.sort(key=lambda item: item.get_closest_marker("integration") is not None)


@contextmanager
def started(server: Server) -> Iterator[Server]:
    """The running server; where it cannot start the test is skipped, in CI it fails."""
    try:
        server.start()
    except DependencyUnreachable as error:
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            raise
        pytest.skip(f"no server for integration tests: {error}")
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def kafka_bootstrap() -> Iterator[str]:
    """Address of a Kafka with one broker at least; use `topic_prefix` for fresh topics."""
    if given := os.environ.get("STREAM_INTERP_TEST_BOOTSTRAP"):
        yield given
        return
    with started(EmbeddedKafka()) as kafka:
        yield kafka.bootstrap


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Address of a Redis or Valkey."""
    if given := os.environ.get("STREAM_INTERP_TEST_REDIS_URL"):
        yield given
        return
    with started(EmbeddedValkey()) as valkey:
        yield valkey.url


@pytest.fixture
def topic_prefix() -> str:
    """`settings.kafka.topic_prefix` of this test alone; also fit for group and key names."""
    return f"t{secrets.token_hex(3)}."
