"""What people are told: one notification, however many events it covers."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from stream_interp.records.alert import Alert, Severity

Kind = Literal["alert", "annotation", "repeat", "silent", "digest", "flapping", "test"]
Phase = Literal["firing", "acknowledged", "resolved"]


class Notification(Struct, frozen=True, kw_only=True):
    """Everything a sink may show. All text is plain and may hold untrusted names: each sink escapes for its own format.

    Attributes:
        id: `event_id` of the newest event it covers; the same on every try, so that a receiver can drop repeats.
        story: what it is about, the same for all notifications of one incident (Alertmanager fingerprint, PagerDuty
            dedup_key).
        phase: of the story, after this.
        event_ids: of all alerts and annotations that are told by this.
        links: by name, `ui` and `runbook`; absent where no address is configured.
        alert: the newest of them, where there is one.
    """

    id: str
    kind: Kind
    story: str
    phase: Phase
    severity: Severity
    title: str  # one line
    text: str
    at_ms: int
    started_at_ms: int
    event_ids: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    alert: Alert | None = None
