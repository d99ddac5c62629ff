"""Look-ups for anyone: is this model's interpretability still trustworthy? Light: no torch, no Kafka, no numpy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from redis.exceptions import RedisError

from stream_interp.status.connection import address, connect, explain
from stream_interp.status.judge import Held, LaneEntry, ModelStatus, judge, newest_revision, read_entry, unknown
from stream_interp.status.keys import lanes_key, status_key


class StatusClient:
    """Reads the status of models from Redis.

    Args:
        url: Redis address.
        password: if not in the address.
        clock: seconds since the Unix epoch.
        timeout_s: for connecting, and for each of at most two answers.

    Raises:
        UsageError: not a Redis address.
    """

    def __init__(
        self,
        url: str,
        *,
        password: str | None = None,
        clock: Callable[[], float] = time.time,
        timeout_s: float = 1.0,
    ) -> None:
        self._address, self._timeout_s, self._clock = address(url), timeout_s, clock
        self._redis = connect(url, password=password, timeout_s=timeout_s)

    def get(
        self, model_id: str, *, tenant: str = "default", model_revision: str | None = None, hook_name: str | None = None
    ) -> ModelStatus:
        """The status of a model: its worst lane. Never raises for Redis: then the answer is `unknown`.

        Args:
            model_id: the model.
            tenant: whose model.
            model_revision: None for the newest, the one whose first lane was created last (of this hook, if given).
            hook_name: only the lanes of this hook.
        """
        try:
            entries = self._entries(tenant, model_id, hook_name)
            if not entries:
                at = f"hook {hook_name} of model {model_id}" if hook_name else f"model {model_id}"
                return self._unknown(tenant, model_id, model_revision, f"nothing is known of {at} (tenant {tenant})")
            revision = model_revision or newest_revision(entries)
            lanes = [entry for entry in entries if entry.lane.model_revision == revision]
            if not lanes:
                known = ", ".join(sorted({entry.lane.model_revision for entry in entries}))
                return self._unknown(tenant, model_id, revision, f"no revision {revision}, only {known}")
            return judge(lanes, self._held(lanes), self._clock() * 1000)
        except RedisError as error:
            return self._unknown(tenant, model_id, model_revision, explain(error, self._timeout_s))

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()

    def __enter__(self) -> StatusClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _unknown(self, tenant: str, model_id: str, model_revision: str | None, reason: str) -> ModelStatus:
        return unknown(tenant, model_id, model_revision, f"Redis at {self._address}: {reason}")

    def _entries(self, tenant: str, model_id: str, hook_name: str | None) -> list[LaneEntry]:
        index: Any = self._redis.hgetall(lanes_key(tenant, model_id))
        entries = [entry for value in index.values() if (entry := read_entry(value))]
        return [
            entry
            for entry in entries
            if (entry.lane.tenant, entry.lane.model_id) == (tenant, model_id)
            and hook_name in (None, entry.lane.hook_name)
        ]

    def _held(self, entries: Sequence[LaneEntry]) -> dict[str, Held]:
        lane_ids = [entry.lane.lane_id for entry in entries]
        pipeline = self._redis.pipeline(transaction=False)
        for lane_id in lane_ids:
            pipeline.hmget(status_key(lane_id), "json", "stale_after_ms")
        rows: list[list[bytes | None]] = pipeline.execute()
        return {
            lane_id: Held(json, int(stale) if stale is not None else None)
            for lane_id, (json, stale) in zip(lane_ids, rows, strict=True)
        }
