"""The whole story of an incident as it lies on the topics: all that a pack, a replay or a chart is made from."""

from __future__ import annotations

from dataclasses import dataclass

from stream_interp.records.alert import Alert
from stream_interp.records.annotation import Annotation
from stream_interp.records.checkpoint import Checkpoint
from stream_interp.records.consumed import Consumed
from stream_interp.records.control import Versioned
from stream_interp.records.cut import Cut
from stream_interp.records.lane import Lane


@dataclass(frozen=True, kw_only=True)
class Story:
    """One incident of a lane. All of it is what someone else wrote.

    Attributes:
        checkpoint: the lane before the change, as copied when the incident opened; `manifest.before_change` is False
            where none so old was kept.
        records: the lane's windows and markers from there to `end`, in log order, as they lay on `interp.windows`.
        alerts: the lane's transitions at positions behind the checkpoint and up to `end`, of this incident and others.
        annotations: acks and silences of the incident and the lane.
        controls: baselines and projectors in effect in the range.
        orders: what operators asked of the lane since the range began.
        cuts: the cuts that hold the windows, without the other lanes' counts and the keys of requests.
        end: last offset of the windows partition that the story covers.
        complete: False where the windows beyond `end` were left out because they are too large.
    """

    incident_id: str
    checkpoint: Checkpoint
    records: tuple[Consumed, ...]
    alerts: tuple[Alert, ...]
    annotations: tuple[Annotation, ...]
    controls: tuple[Versioned, ...]
    orders: tuple[Versioned, ...]
    cuts: tuple[Cut, ...]
    end: int
    complete: bool

    @property
    def lane(self) -> Lane:
        """Whose incident it is."""
        return self.checkpoint.manifest.lane

    @property
    def transitions(self) -> tuple[Alert, ...]:
        """The transitions of this incident, in order."""
        return tuple(alert for alert in self.alerts if alert.incident_id == self.incident_id)
