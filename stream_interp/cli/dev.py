"""`stream-interp dev`: the embedded pair in the foreground, for the tour and for development."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.panel import Panel

from stream_interp.cli.interrupts import interrupted_by_sigterm
from stream_interp.cli.options import JsonOption
from stream_interp.cli.output import emit_json, err, out
from stream_interp.embedded import EmbeddedPair
from stream_interp.settings import KafkaSettings, RedisSettings

POLL_S = 0.5
DEFAULT_KAFKA_PORT = int(KafkaSettings().bootstrap.rpartition(":")[2])
DEFAULT_REDIS_PORT = int(RedisSettings().url.rpartition(":")[2].partition("/")[0])
NOT_FOR_PRODUCTION = (
    "Not for production: plaintext, no passwords, this machine's loopback interface only. "
    "For development, the tour and tests. {data}"
)


def dev(
    data_dir: Annotated[
        Path | None, typer.Option(help="Keep the servers' data here; default: lost at the end.")
    ] = None,
    nodes: Annotated[int, typer.Option(help="1 broker, or 3 with replication 3.")] = 1,
    kafka_port: Annotated[
        int, typer.Option(min=1, max=65_535, help="Port of the first broker; the others follow.")
    ] = DEFAULT_KAFKA_PORT,
    redis_port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of Valkey.")] = DEFAULT_REDIS_PORT,
    as_json: JsonOption = False,
) -> None:
    """Start a real Kafka and a real Valkey on this machine, until Ctrl-C."""
    notices = err if as_json else out
    kept = f"Data is kept in {data_dir}." if data_dir else "All data is gone when it ends; --data-dir keeps it."
    notices.print(Panel(NOT_FOR_PRODUCTION.format(data=kept), title="stream-interp dev"), soft_wrap=False)
    with interrupted_by_sigterm():
        try:
            with EmbeddedPair(data_dir, nodes=nodes, kafka_port=kafka_port, redis_port=redis_port) as pair:
                _announce(pair, notices, as_json=as_json)
                _wait_for_an_end(pair)
        except KeyboardInterrupt:
            notices.print("Stopped.")


def _announce(pair: EmbeddedPair, notices: Console, *, as_json: bool) -> None:
    if as_json:
        emit_json({"bootstrap": pair.bootstrap, "redis_url": pair.redis_url})
    lines = (
        f"Kafka  {pair.bootstrap}",
        f"Valkey {pair.redis_url}",
        "In the other terminals:",
        f"  export STREAM_INTERP_KAFKA__BOOTSTRAP={pair.bootstrap}",
        f"  export STREAM_INTERP_REDIS__URL={pair.redis_url}",
        "Ctrl-C ends both.",
    )
    notices.print("\n".join(lines), highlight=False, soft_wrap=True)


def _wait_for_an_end(pair: EmbeddedPair) -> None:
    """Raises DependencyUnreachable when a server ends by itself."""
    while (failure := pair.ended()) is None:
        time.sleep(POLL_S)
    raise failure
