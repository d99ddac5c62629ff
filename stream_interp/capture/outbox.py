"""Between the model's threads and the worker: a byte-bounded queue that counts every request once."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream_interp.capture.tensors import Owned

REQUEST_OVERHEAD_BYTES = 1024  # headers and objects of one request, so that tiny snapshots are bounded too


@dataclass(frozen=True)
class ProducerCounts:
    """Requests × hooks so far. Always `sent = delivered + pending + sum(dropped.values())`.

    Attributes:
        sent: offered by the model, accepted or not.
        delivered: acknowledged by Kafka with all chunks.
        pending: waiting here or on their way.
        dropped: by reason: queue_full, closed, forked, delivery_failed, encode_error, and those of `instrument`.
        last_error: what the last error said, empty if there was none.
    """

    sent: int
    delivered: int
    pending: int
    dropped: dict[str, int]
    last_error: str = ""


@dataclass
class Parcel:
    """What one `send` or one hook call puts on the queue: the activations of B requests.

    Attributes:
        arrays: by name `acts [B, T, d_in]`, `acts_out [B, T, d_out]`, `positions [B, T]`, `special_mask [B, T]`,
            and `keep [B, T]` bool, false for padding.
        request_ids, group_keys, segments: [B]; an empty key: no group; an empty segment: none.
        time_ms: when it was captured, Unix epoch.
        cost_bytes: what it takes from the queue until its last request is delivered or dropped.
        requests_left: requests neither delivered nor dropped yet.
    """

    hook_name: str
    request_ids: list[str]
    group_keys: list[str]
    segments: list[str]
    time_ms: int
    cost_bytes: int
    arrays: dict[str, Owned] = field(default_factory=dict)
    requests_left: int = field(init=False)

    def __post_init__(self) -> None:
        self.requests_left = len(self.request_ids)


class Outbox:
    """Thread-safe. Nothing here takes longer than a few assignments, except where a timeout is given."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._queue: deque[Parcel] = deque()
        self._used_bytes = self._sent = self._delivered = self._pending = 0
        self._dropped: Counter[str] = Counter()
        self._refuse_reason = self._last_error = ""
        self.stopped = False

    def reserve(self, parcel: Parcel, timeout_s: float) -> bool:
        """Takes room for a parcel; without room within `timeout_s` its requests are counted as dropped."""
        n = len(parcel.request_ids)
        with self._changed:
            self._sent += n
            if timeout_s > 0:
                never = parcel.cost_bytes > self._max_bytes
                self._changed.wait_for(lambda: never or self._refuse_reason or self._has_room(parcel), timeout_s)
            if self._refuse_reason or not self._has_room(parcel):
                self._dropped[self._refuse_reason or "queue_full"] += n
                return False
            self._used_bytes += parcel.cost_bytes
            self._pending += n
            return True

    def _has_room(self, parcel: Parcel) -> bool:
        return self._used_bytes + parcel.cost_bytes <= self._max_bytes

    def put(self, parcel: Parcel) -> None:
        """Hands a reserved parcel to the worker."""
        with self._changed:
            self._queue.append(parcel)
            self._changed.notify_all()

    def take(self, busy_s: float, idle_s: float) -> Parcel | None:
        """The next parcel; None after `busy_s` while requests are on their way, else after `idle_s`."""
        with self._changed:
            if not self._queue and not self.stopped:
                self._changed.wait(busy_s if self._pending else idle_s)
            return self._queue.popleft() if self._queue else None

    def finish(self, parcel: Parcel, dropped: str = "", detail: str = "", requests: int = 1) -> None:
        """Counts requests of a parcel as delivered, or as dropped for a reason."""
        with self._changed:
            if self.stopped:  # already counted by `stop`
                return
            self._pending -= requests
            if dropped:
                self._dropped[dropped] += requests
                self._last_error = detail or self._last_error
            else:
                self._delivered += requests
            parcel.requests_left -= requests
            if parcel.requests_left == 0:
                self._used_bytes -= parcel.cost_bytes
            self._changed.notify_all()

    def drop(self, reason: str, detail: str = "", requests: int = 1) -> None:
        """Counts requests that never became a parcel."""
        with self._changed:
            self._sent += requests
            self._dropped[reason] += requests
            self._last_error = detail or self._last_error

    def wait_empty(self, timeout_s: float) -> int:
        """Waits until nothing is pending; the number that still is."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending == 0, timeout_s)
            return self._pending

    def refuse(self, reason: str) -> None:
        """From now on every parcel is dropped for this reason."""
        with self._changed:
            self._refuse_reason = reason
            self._changed.notify_all()

    def stop(self, reason: str) -> None:
        """Counts whatever is pending as dropped and lets the worker end."""
        with self._changed:
            self._refuse_reason = reason
            if self._pending:
                self._dropped[reason] += self._pending
            self._pending = self._used_bytes = 0
            self._queue.clear()
            self.stopped = True
            self._changed.notify_all()

    def counts(self) -> ProducerCounts:
        """A consistent copy."""
        with self._changed:
            return ProducerCounts(self._sent, self._delivered, self._pending, dict(self._dropped), self._last_error)
