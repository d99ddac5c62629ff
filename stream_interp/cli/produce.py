"""`produce`: an activation file → `interp.activations`, one snapshot per request, at full speed or a given rate."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stream_interp.capture.files import ActivationFile, FileRequest, read_activation_file
from stream_interp.capture.producer import MAX_MESSAGE_BYTES, TOPIC, SnapshotProducer
from stream_interp.cli.configuration import load_settings
from stream_interp.cli.options import BootstrapOption, ConfigOption, JsonOption, SetOption, flags
from stream_interp.cli.output import emit_json, err, fail, notice
from stream_interp.kafka.client import require_kafka
from stream_interp.kafka.produce import TopicProducer, require_topic
from stream_interp.settings import KafkaSettings

_ROOM_S = 60.0  # longer than a record may wait for Kafka, so that its error is seen first
_FLUSH_S = 60.0


@dataclass(frozen=True)
class Site:
    """Where the activations are said to come from."""

    model_id: str
    hook: str
    revision: str
    tenant: str


def produce(
    source: Annotated[
        Path,
        typer.Option(
            "--from",
            metavar="FILE",
            help="safetensors: acts (tokens × width), doc_id or request_id per token; optional position, special_mask, "
            "group_id (of requests that hang together), segment_id (a part of the traffic).",
        ),
    ],
    model_id: Annotated[str, typer.Option("--model-id", help="Name of the model.")],
    hook: Annotated[str, typer.Option("--hook", help="Where in the model, such as layer.15.")],
    revision: Annotated[str, typer.Option("--revision", help="Revision of the model.")] = "unversioned",
    tenant: Annotated[str, typer.Option("--tenant", help="Tenant of the site.")] = "default",
    rate: Annotated[
        float | None,
        typer.Option("--rate", min=0.001, help="Requests per second (default: as fast as Kafka can)."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many requests.")] = None,
    request_prefix: Annotated[
        str | None,
        typer.Option(
            "--request-prefix",
            help="Request ids are this and the id in the file (default: the file's name and a random run id, so that "
            "replaying a file again makes new requests; with a fixed prefix they may be counted as duplicates).",
        ),
    ] = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """Replay a file of activations into Kafka; waits rather than drops, stops and exits 1 if Kafka refuses one."""
    file = read_activation_file(source)
    settings = load_settings(config, flags(sets, bootstrap=bootstrap))
    require_kafka(settings.kafka)
    require_topic(settings.kafka, TOPIC)
    prefix = request_prefix if request_prefix is not None else f"{source.stem}-{uuid.uuid4().hex[:8]}-"
    n_requests = min(file.requests, limit or file.requests)
    site = Site(model_id, hook, revision, tenant)
    with _progress() as progress:
        task = progress.add_task(source.name, total=n_requests)
        summary = replay(settings.kafka, file, site, prefix, n_requests, rate, lambda: progress.advance(task))
    if json:
        emit_json({"schema_version": 1, **summary})
    else:
        notice(" · ".join(f"{name} {value}" for name, value in summary.items() if value != ""))
    if summary["dropped"]:
        fail(f"{summary['dropped']} of {n_requests} requests were not delivered: {summary['last_error']}")
        raise typer.Exit(1)


def replay(
    kafka: KafkaSettings,
    file: ActivationFile,
    site: Site,
    prefix: str,
    n_requests: int,
    rate: float | None,
    on_request: Callable[[], None],
) -> dict[str, object]:
    """Sends the first `n_requests` of a file, waits for Kafka's word on each, stops at the first that is lost.

    Args:
        kafka: how to reach Kafka.
        file: what to send.
        site: whose it is.
        prefix: of the request ids.
        n_requests: how many.
        rate: requests per second; None: no pause.
        on_request: called after each.

    Returns:
        requests and chunks delivered; tokens sent; seconds; requests dropped or left out; last_error.
    """
    transport = TopicProducer(kafka, TOPIC, MAX_MESSAGE_BYTES)
    producer = SnapshotProducer(
        model_id=site.model_id, model_revision=site.revision, tenant=site.tenant, transport=transport
    )
    started_s = time.monotonic()
    n_tokens = 0
    with producer:
        for request in paced(islice(file.iter_requests(), n_requests), rate):
            if not _send(producer, site.hook, prefix, request):
                break
            n_tokens += len(request.acts)
            on_request()
        producer.flush(_FLUSH_S)
    counts = producer.counts
    return {
        "requests": counts.delivered,
        "chunks": transport.delivered,
        "tokens": n_tokens,
        "seconds": round(time.monotonic() - started_s, 3),
        "dropped": n_requests - counts.delivered,
        "last_error": counts.last_error,
    }


def paced(
    requests: Iterator[FileRequest],
    rate: float | None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[FileRequest]:
    """The requests, the i-th not before i / rate seconds after the first: a late one does not delay the others."""
    start_s = clock()
    for i, request in enumerate(requests):
        if rate is not None and (wait_s := start_s + i / rate - clock()) > 0:
            sleep(wait_s)
        yield request


def _send(producer: SnapshotProducer, hook: str, prefix: str, request: FileRequest) -> bool:
    accepted = producer.send(
        hook,
        prefix + request.request_id,
        request.acts,
        positions=request.positions,
        special_mask=request.special_mask,
        group_key=request.group_key,
        segment=request.segment,
        timeout_s=_ROOM_S,
    )
    return accepted and not producer.counts.dropped


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err)
