"""What one transaction of DETECT holds, as records for their topics. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from stream_interp.detect.operators import Operators
from stream_interp.detect.partition import Told
from stream_interp.detect.state import LaneState
from stream_interp.records.alert import Alert, alert_state, encode_alert, encode_alert_state
from stream_interp.records.annotation import Annotation, encode_annotation
from stream_interp.records.control import MARKER_TYPE, Marker, encode_control
from stream_interp.records.envelope import Envelope, json_record
from stream_interp.records.status import Status, encode_status

WINDOWS, STATE, CONTROL = "interp.windows", "interp.state", "interp.control"
ALERTS, ALERT_STATE, STATUS = "interp.alerts", "interp.alert-state", "interp.status"


@dataclass(frozen=True)
class Outgoing:
    """What a poll leads to.

    Attributes:
        markers: each with its windows partition.
        annotated: states of the lanes that annotations are of, where DETECT knows them.
        heard_to: first offset on `interp.control` that `annotations` does not reach; 0 where none were looked for.
    """

    told: Told = field(default_factory=Told)
    markers: list[tuple[int, Marker]] = field(default_factory=list)
    statuses: list[Status] = field(default_factory=list)
    annotations: list[Annotation] = field(default_factory=list)
    annotated: list[LaneState] = field(default_factory=list)
    heard_to: int = 0

    def __bool__(self) -> bool:
        return bool(self.told.partitions or self.markers or self.statuses or self.annotations)


def records_of(
    out: Outgoing, operators: Operators, decorated: Callable[[Alert], Alert], now_ms: int
) -> Iterator[tuple[str, Envelope, int | None]]:
    """(topic, record, partition or None for the key's) in the order of writing.

    `decorated` adds what `step` does not know: labels of features, and what was found after the alarm.
    """

    def states(alerts: Iterable[Alert]) -> Iterator[tuple[str, Envelope, None]]:
        for alert in map(decorated, alerts):
            silence = operators.silence_on(alert, now_ms)
            yield ALERT_STATE, encode_alert_state(alert_state(alert, operators.ack_of(alert), silence)), None

    yield from ((ALERTS, encode_alert(decorated(alert)), None) for alert in out.told.alerts)
    yield from states(out.told.alerts)
    yield from ((ALERTS, encode_annotation(annotation), None) for annotation in out.annotations)
    for state in out.annotated:  # what is open there now reads otherwise
        yield from states(state.stories.values())
    yield from ((CONTROL, record, None) for control in out.told.controls for record in encode_control(control))
    yield from ((STATUS, encode_status(status), None) for status in out.statuses)
    for partition, marker in out.markers:
        yield WINDOWS, json_record(marker.lane.lane_id, MARKER_TYPE, marker), partition
