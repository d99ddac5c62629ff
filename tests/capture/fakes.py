from __future__ import annotations

import threading
import time

from stream_interp.records.envelope import Envelope
from stream_interp.records.snapshot import Snapshot, decode_snapshot

MAX_BYTES = 64 * 1024 * 1024


class FakeTransport:
    """Kafka as the worker sees it: keeps the records, acknowledges at the next poll."""

    def __init__(self, error: str | None = None, full_times: int = 0) -> None:
        self.records: list[Envelope] = []
        self.closed = self.disowned = False
        self.error, self.full_times = error, full_times
        self._due: list = []

    def produce(self, record, on_done) -> None:
        if self.full_times:
            self.full_times -= 1
            raise BufferError
        self.records.append(record)
        self._due.append(on_done)

    def poll(self, timeout_s: float) -> None:
        due, self._due = self._due, []
        for on_done in due:
            on_done(self.error)

    def close(self) -> None:
        self.closed = True

    def disown(self) -> None:
        self.disowned = True

    def snapshots(self) -> list[Snapshot]:
        return [decode_snapshot(r.key, r.headers, r.value, MAX_BYTES) for r in self.records]


class HangingTransport(FakeTransport):
    """A Kafka client stuck inside `produce` until `release`."""

    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()

    def produce(self, record, on_done) -> None:
        self.release.wait()
        super().produce(record, on_done)


class SilentTransport(FakeTransport):
    """Kafka is down: takes records into its buffer, acknowledges none until `up`."""

    up = False

    def poll(self, timeout_s: float) -> None:
        if self.up:
            super().poll(timeout_s)


class FakeProducer:
    """Keeps what `instrument` sends."""

    def __init__(self) -> None:
        self.batches: list = []
        self.group_keys: list = []
        self.segments: list = []
        self.drops: list[tuple[str, str, int]] = []

    def send_batch(self, hook_name, request_ids, arrays, *, group_keys=None, segments=None) -> bool:
        self.group_keys.append(group_keys)
        self.segments.append(segments)
        self.batches.append((hook_name, list(request_ids), {k: _numpy(v) for k, v in arrays.items()}))
        return True

    def drop(self, reason, detail="", requests=1) -> None:
        self.drops.append((reason, detail, requests))

    def named(self, hook_name):
        return [batch for batch in self.batches if batch[0] == hook_name]


def _numpy(array):
    return array.clone().numpy() if hasattr(array, "clone") else array.copy()


def until(condition, timeout_s: float = 5.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "not in time"
        time.sleep(0.005)
