"""`examples`: requests in which the features of a lane fired, as ENCODE tells of them where that is switched on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from stream_interp.cli.configuration import load_settings
from stream_interp.cli.finding import cut, find_lane
from stream_interp.cli.options import BootstrapOption, ConfigOption, JsonOption, SetOption, flags
from stream_interp.cli.output import emit_json, emit_table, emit_text, notice, warn
from stream_interp.errors import IntegrityError, UsageError
from stream_interp.kafka.client import consumer_config, require_kafka
from stream_interp.kafka.read import read_topic_to_end
from stream_interp.records.envelope import read_json, rfc3339
from stream_interp.records.example import Example
from stream_interp.records.lane import Lane
from stream_interp.records.snapshot import MAX_NAME_CHARS

TOPIC = "interp.examples"


def examples(
    lane: Annotated[str, typer.Argument(help="Its id, the beginning of it, or its model; see `status --json`.")],
    feature: Annotated[int | None, typer.Option("--feature", min=0, metavar="N", help="Only this feature.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many, the newest.")] = 50,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """Per feature the newest request in which it fired strongest of its cut; needs the setting sites.examples."""
    kafka = load_settings(config, flags(sets, bootstrap=bootstrap)).kafka
    require_kafka(kafka)
    messages = read_topic_to_end(consumer_config(kafka, "examples"), kafka.topic_prefix + TOPIC)
    lanes, found, unreadable = newest((message.value() for message in messages), lane, feature)
    if not lanes:
        raise UsageError(
            f'{kafka.topic_prefix}{TOPIC} is empty: no site has sites.examples = "hashed" or "plain", or ENCODE has '
            "counted nothing since, or the topic's retention has passed"
        )
    lane_id = find_lane(lane, lanes, "lane with examples (sites.examples is hashed or plain)").lane_id
    shown = [example for example in found if example.lane.lane_id == lane_id]
    if unreadable:
        warn(f"{unreadable} records of {TOPIC} cannot be read and were left out; did another program write them?")
    if json:
        emit_json({"schema_version": 1, "lane_id": lane_id, "examples": shown[:limit], "total": len(shown)})
    else:
        _show(shown, limit, feature)


def newest(values: Iterable[bytes | None], lane: str, feature: int | None) -> tuple[list[Lane], list[Example], int]:
    """All lanes that have examples; of those that `lane` may mean the last example of each feature; unreadable.

    Args:
        values: of the records, in log order.
        lane: beginning of the id, or the model.
        feature: None for all.

    Returns:
        Examples with the newest first.
    """
    lanes: dict[str, Lane] = {}
    last: dict[tuple[str, int], Example] = {}
    unreadable = 0
    for value in values:
        try:
            example = read_json(value, Example)
        except IntegrityError:
            unreadable += 1
            continue
        lane_id = example.lane.lane_id
        lanes[lane_id] = example.lane
        if (lane_id.startswith(lane) or example.lane.model_id == lane) and feature in (None, example.feature):
            last[lane_id, example.feature] = example
    return list(lanes.values()), sorted(last.values(), key=lambda e: (-e.at_ms, e.feature)), unreadable


def _show(found: list[Example], limit: int, feature: int | None) -> None:
    if not found:
        emit_text("no example" if feature is None else f"no example of feature {feature} yet")
        return
    rows: list[list[object]] = [
        [e.feature, cut(e.request_id, MAX_NAME_CHARS), f"{e.activation:.4g}", rfc3339(e.at_ms)] for e in found[:limit]
    ]
    emit_table("", ["feature", "request", "activation", "window closed at"], rows)
    if any(example.hashed for example in found[:limit]):
        notice("requests are hex HMAC-SHA256 of their ids, with the key of examples.key_file")
    if len(found) > limit:
        notice(f"{len(found) - limit} more; see them with --limit {len(found)}")
