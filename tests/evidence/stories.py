"""Stories of incidents made by hand, as `collect` would find them on the topics."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np
from msgspec import structs

from stream_interp.detect.alerts import incident_id
from stream_interp.detect.checkpoint import Checkpoints, Saved
from stream_interp.detect.partition import Told, WindowsPartition
from stream_interp.evidence.story import Story
from stream_interp.records.annotation import Annotation
from stream_interp.records.checkpoint import incident_checkpoint
from stream_interp.records.consumed import Consumed
from stream_interp.records.control import Marker, Order, Versioned, make_control, make_order
from stream_interp.records.cut import Cut, LaneCount
from stream_interp.records.envelope import Envelope
from tests.detect.lanes import Driver, requests
from tests.detect.log import LANE, SETTINGS, consumed, marker_record, story, window_records

HOSTILE = "<script>alert(1)</script>\x1b[31m\n" + "x" * 10_000


def made_story(
    log: Iterable[Envelope], saved_at: int, controls: tuple[Versioned, ...] = (), incident: int = 1
) -> Story:
    """The story of an incident in a log that was read in two polls, with a checkpoint in between."""
    records = consumed(log)
    topic, partition, checkpoints = dict[str, bytes](), WindowsPartition(0, [], 0, -1, SETTINGS), Checkpoints(Saved())
    baselines = {(c.manifest.version, c.manifest.sha256): c for c in controls}
    alerts, emitted = [], list[Versioned]()
    for begin, end in ((0, saved_at), (saved_at, len(records))):
        told = Told()
        for record in records[begin:end]:
            partition.take(record, lambda marker: baselines.get((marker.version, marker.sha256)), told)
        written = [*checkpoints.of_incidents(partition, told.alerts), *checkpoints.of_all(partition)]
        topic |= {record.key.decode(): record.value or b"" for record in written}
        alerts += told.alerts
        emitted += told.controls
    copy = incident_checkpoint(LANE.lane_id, incident, topic)
    assert copy is not None
    first, covered = copy.manifest.read_from, copy.manifest.covered.offset
    order = Order(kind="resolve", lane=LANE, version=5, incident_id=incident_id(LANE, incident))
    return Story(
        incident_id=incident_id(LANE, incident), checkpoint=copy, records=tuple(records[first:]),
        alerts=tuple(a for a in alerts if a.position.offset > covered),
        annotations=(Annotation(event_id="e", lane=LANE, kind="ack", author="ann", reason="mine", at_ms=7),),
        controls=(*controls, *emitted), orders=(make_order(order, "bob", "over"),),
        cuts=tuple(_cut(record) for record in records[first : first + 3]), end=records[-1].offset, complete=True,
    )  # fmt: skip


def _cut(record: Consumed) -> Cut:
    return Cut(
        topic="interp.activations", partition=0, a=record.offset, b=record.offset + 1, read_from=record.offset + 1,
        closed_at_ms=record.timestamp_ms, records=9, counted_records=8, pending_records=0, not_counted={"late": 1},
        lanes={LANE.lane_id: LaneCount(lane=LANE, requests=8, tokens=48)},
    )  # fmt: skip


@cache
def drifted() -> Story:
    """A lane that was calm, drifted and recovered."""
    return made_story(window_records(story().windows), saved_at=70)


@cache
def under_a_promoted_baseline() -> Story:
    """A lane that an operator gave another baseline between the checkpoint and the drift."""
    driver = story()
    held = driver.state.baseline
    assert held is not None
    record = make_control("baseline", structs.replace(held.header, version=10**9), held.arrays, "ann", "approved")
    m = record.manifest
    marker = Marker(kind="baseline", lane=LANE, version=m.version, sha256=m.sha256, drift=SETTINGS.drift)
    log = window_records(driver.windows)
    return made_story([*log[:82], marker_record(marker), *log[82:]], saved_at=78, controls=(record,))


@cache
def after_a_relearn() -> Story:
    """A lane that was told to learn again, and drifted from what it then learned."""
    rng, before = np.random.default_rng(3), Driver()
    before.learn(rng)
    before.feed(requests(rng, 40))
    again = Driver()
    again.offset = before.offset
    again.learn(rng)
    again.feed(requests(rng, 80))
    again.feed(requests(rng, 80, shift=1.5))
    marker = Marker(
        kind="relearn", lane=LANE, version=before.state.closed_at_ms + 1, drift=SETTINGS.drift, author="ann",
        reason="new product", baseline_requests=600,
    )  # fmt: skip
    log = [*window_records(before.windows), marker_record(marker), *window_records(again.windows)]
    return made_story(log, saved_at=len(before.windows) - 2)


def hostile() -> Story:
    """Names that others chose, where they can be chosen."""
    lane = structs.replace(LANE, model_id=HOSTILE, hook_name=HOSTILE)
    calm = drifted()
    told = tuple(
        structs.replace(a, lane=lane, note=HOSTILE, features=[structs.replace(f, label=HOSTILE) for f in a.features])
        for a in calm.alerts
    )
    said = tuple(structs.replace(a, author=HOSTILE, reason=HOSTILE) for a in calm.annotations)
    manifest = structs.replace(calm.checkpoint.manifest, lane=lane)
    return Story(
        incident_id=calm.incident_id, checkpoint=structs.replace(calm.checkpoint, manifest=manifest),
        records=calm.records, alerts=told, annotations=said, controls=calm.controls, orders=calm.orders,
        cuts=calm.cuts, end=calm.end, complete=False,
    )  # fmt: skip


__all__ = ["HOSTILE", "after_a_relearn", "drifted", "hostile", "under_a_promoted_baseline"]
