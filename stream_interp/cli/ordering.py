"""What all commands that order something share: who signs and why, versions that only grow, DETECT's answer."""

from __future__ import annotations

import getpass
import re
import time
import unicodedata
from collections.abc import Callable, Iterable
from typing import Annotated, NamedTuple

import typer

from stream_interp.cli.events import event_subscriber
from stream_interp.errors import BlindError, IntegrityError, UsageError
from stream_interp.kafka.control import newest_version, publish_controls
from stream_interp.kafka.follow import TopicFollower
from stream_interp.records.alert import Alert
from stream_interp.records.annotation import Annotation, make_annotation
from stream_interp.records.consumed import Consumed
from stream_interp.records.control import Order, OrderKind, Versioned, make_order, read_order
from stream_interp.records.envelope import read_json
from stream_interp.records.lane import Lane
from stream_interp.records.status import Status
from stream_interp.settings import KafkaSettings

MAX_AUTHOR_CHARS, MAX_REASON_CHARS = 100, 500
WAIT_S = 10.0
OWN_AUTHOR = "detect"  # DETECT takes records of this author for its own
_REFUSED = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})  # Unicode categories that no terminal should obey
_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000}

AuthorOption = Annotated[
    str | None, typer.Option("--author", help="Who says so; shown as claimed (default: the login name).")
]
WhyOption = Annotated[str, typer.Option("--reason", help="Why, for those who read it later.")]
NoWaitOption = Annotated[bool, typer.Option("--no-wait", help="Do not wait for DETECT to take it in.")]


class Signature(NamedTuple):
    """Who asks, as claimed, and why."""

    author: str
    reason: str


def signature(author: str | None, reason: str, *, required: bool = True) -> Signature:
    """Both in the form that may lie on Kafka. Raises UsageError."""
    who = author if author is not None else _login_name()
    if not who.strip() or who.strip() == OWN_AUTHOR:
        raise UsageError(f"--author {who!r}: expected a person's name; {OWN_AUTHOR!r} and nobody are not one")
    if required and not reason.strip():
        raise UsageError("--reason is empty; expected why, in a few words: it is all that a reader later has")
    return Signature(
        _plain("--author", who.strip(), MAX_AUTHOR_CHARS), _plain("--reason", reason.strip(), MAX_REASON_CHARS)
    )


def duration_ms(text: str, option: str = "--for") -> int:
    """Milliseconds of `90m`, `2h`, `1d12h`. Raises UsageError."""
    parts = re.findall(r"(\d{1,5})([dhms])", text)
    total_ms = sum(int(count) * _UNITS_MS[unit] for count, unit in parts)
    if "".join(count + unit for count, unit in parts) != text or not total_ms:
        raise UsageError(f"{option} {text[:40]!r}: expected a duration such as 90m, 2h or 1d12h")
    return total_ms


def next_version(kafka: KafkaSettings, lane_id: str) -> int:
    """Unix epoch ms now, or one more than the newest version of the lane: two never collide, none is outdated."""
    return max(now_ms(), newest_version(kafka, lane_id) + 1)


def now_ms() -> int:
    """Unix epoch ms."""
    return time.time_ns() // 1_000_000


def make(
    kafka: KafkaSettings,
    kind: OrderKind,
    lane: Lane,
    signed: Signature,
    *,
    incident_id: str = "",
    until_ms: int = 0,
    baseline_version: int = 0,
) -> Versioned:
    """The order as a control record, not yet published."""
    order = Order(
        kind=kind, lane=lane, version=next_version(kafka, lane.lane_id), incident_id=incident_id, until_ms=until_ms,
        baseline_version=baseline_version,
    )  # fmt: skip
    return make_order(order, signed.author, signed.reason)


def publish_and_hear(kafka: KafkaSettings, record: Versioned, *, wait: bool) -> bool:
    """Publishes an order; True once DETECT has answered it on `interp.alerts`, False if it has not within 10 s.

    Raises:
        DependencyUnreachable: Kafka does not answer.
    """
    if not wait:
        publish_controls(kafka, [record])
        return False
    is_answer = answer_to(record)
    with event_subscriber(kafka) as events:  # open before it is published, so that no answer is missed
        publish_controls(kafka, [record])
        deadline_s = time.monotonic() + WAIT_S
        while (left_s := deadline_s - time.monotonic()) > 0:
            event = events.poll(left_s)
            if event is not None and is_answer(event):
                return True
    return False


def publish_and_see(
    kafka: KafkaSettings, records: Iterable[Versioned], holds: Callable[[Status], bool], *, wait: bool
) -> bool:
    """Publishes; True once a new status on `interp.status` shows the effect, False if none has within 10 s."""
    if not wait:
        publish_controls(kafka, records)
        return False
    follower = TopicFollower(kafka, "interp.status")
    try:
        follower.to_end()
        publish_controls(kafka, records)
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            if any(holds(status) for status in map(_status, follower.poll(0.2)) if status is not None):
                return True
    finally:
        follower.close()
    return False


def answer_to(record: Versioned) -> Callable[[Alert | Annotation], bool]:
    """Whether an event is what DETECT says to this order."""
    order = read_order(record)
    if order.kind == "resolve":
        ended = (order.incident_id, "resolved")
        return lambda event: isinstance(event, Alert) and (event.incident_id, event.transition) == ended
    expected = make_annotation(record, order).event_id
    return lambda event: isinstance(event, Annotation) and event.event_id == expected


def unanswered(what: str) -> BlindError:
    """What is raised after an order that lies on Kafka and that no DETECT has confirmed."""
    return BlindError(
        f"{what} is published, but no DETECT has confirmed it within {WAIT_S:g} s. It takes effect as soon as the "
        "DETECT of its lane runs and has caught up; look whether one does with `stream-interp status`"
    )


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        raise UsageError("this process has no login name; say who you are with --author NAME") from None


def _plain(option: str, text: str, limit: int) -> str:
    if len(text) > limit:
        raise UsageError(f"{option} has {len(text):,} characters; expected at most {limit}")
    for place, character in enumerate(text, 1):
        if unicodedata.category(character) in _REFUSED:
            raise UsageError(
                f"{option}: character {place} is U+{ord(character):04X}, which does not print; expected one line of "
                "plain text without control characters"
            )
    return text


def _status(record: Consumed) -> Status | None:
    try:
        return read_json(record.value, Status) if record.value is not None else None
    except IntegrityError:
        return None  # another lane's business: DETECT writes its own in a form that can be read
