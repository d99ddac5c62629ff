"""Redis as a read model of `interp.status`: what DETECT writes (design §2). Losing it never stops the stream."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
from redis.exceptions import NoScriptError, RedisError

from stream_interp.records.status import Status
from stream_interp.status.connection import address, connect, explain
from stream_interp.status.judge import LaneEntry
from stream_interp.status.keys import lanes_key, status_key

log = logging.getLogger(__name__)

STALE_INTERVALS = 3  # a status older than this many intervals is unknown
LANE_MEMORY_S = 24 * 3600  # a silent lane makes its model unknown for so long, then it has left the model
TIMEOUT_S = 0.025  # one for connecting, one for the answer: a dead Redis costs a poll of DETECT 50 ms
FIRST_PAUSE_S = 0.5

# A zombie's position is older than its successor's: the first field that differs decides, equal ones are a repeat.
WRITE_STATUS = """
local fields = {'partition', 'offset', 'sequence', 'as_of_ms'}
local held = redis.call('HMGET', KEYS[1], unpack(fields))
for i = 1, #fields do
  local was, now = tonumber(held[i] or ''), tonumber(ARGV[i + 1])
  if was == nil or now > was then break end
  if now < was then return 0 end
end
redis.call('HSET', KEYS[1], unpack(ARGV, 6))
for i = 1, #fields do redis.call('HSET', KEYS[1], fields[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
"""

# The earliest creation ever seen stays; lanes not seen for the memory are dropped.
WRITE_LANES = """
local horizon = tonumber(ARGV[2]) - tonumber(ARGV[1])
for i = 3, #ARGV, 2 do
  local entry, held = cjson.decode(ARGV[i + 1]), redis.call('HGET', KEYS[1], ARGV[i])
  if held then entry.created_ms = math.min(entry.created_ms, cjson.decode(held).created_ms) end
  redis.call('HSET', KEYS[1], ARGV[i], cjson.encode(entry))
end
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if cjson.decode(all[i + 1]).seen_ms < horizon then redis.call('HDEL', KEYS[1], all[i]) end
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
"""


@dataclass
class ViewCounters:
    """What became of the calls of `RedisView.publish`, in statuses."""

    written: int = 0
    refused: int = 0  # Redis held a newer position: we are a zombie, or have just taken the lane over
    lost: int = 0  # Redis failed, or was being left alone after a failure


class RedisView:
    """Writes statuses; never raises for Redis, and costs at most some 50 ms a call while it is dead.

    After a failure Redis is left alone for 0.5 s, doubling up to one status interval.

    Args:
        url: Redis address.
        status_interval_s: how often each lane is published; a status lives three of these.
        password: if not in the address.
        clock: monotonic seconds.

    Raises:
        UsageError: not a Redis address.
    """

    def __init__(
        self,
        url: str,
        status_interval_s: float,
        *,
        password: str | None = None,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters = ViewCounters()
        self._address, self._timeout_s, self._clock = address(url), timeout_s, clock
        self._redis = connect(url, password=password, timeout_s=timeout_s)
        self._interval_s = status_interval_s
        self._pause_s, self._resume_at_s = 0.0, 0.0

    def publish(self, statuses: Sequence[Status]) -> bool:
        """Write each lane's status, then the index of its model. False if Redis did not take them."""
        if not statuses:
            return True
        if self._clock() < self._resume_at_s:
            self.counters.lost += len(statuses)
            return False
        try:
            self._write(statuses)
        except RedisError as error:
            self._failed(error, len(statuses))
            return False
        if self._pause_s:
            log.warning("Redis at %s is back", self._address)
            self._pause_s = 0.0
        return True

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()

    def _write(self, statuses: Sequence[Status]) -> None:
        calls = _calls(statuses, round(self._interval_s * STALE_INTERVALS * 1000))
        try:
            answers = self._execute(calls)
        except NoScriptError:  # Redis was restarted or flushed its scripts
            for script in (WRITE_STATUS, WRITE_LANES):
                self._redis.script_load(script)
            answers = self._execute(calls)
        written = sum(answers[: len(statuses)])
        self.counters.written += written
        self.counters.refused += len(statuses) - written

    def _execute(self, calls: list[tuple[str, str, list[str | int]]]) -> list[int]:
        pipeline = self._redis.pipeline(transaction=False)
        for script, key, arguments in calls:
            pipeline.evalsha(_sha(script), 1, key, *arguments)
        return [int(answer) for answer in pipeline.execute()]

    def _failed(self, error: RedisError, n: int) -> None:
        if not self._pause_s:
            log.warning("Redis at %s: %s; the stream goes on", self._address, explain(error, self._timeout_s))
        self.counters.lost += n
        self._pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), self._interval_s)
        self._resume_at_s = self._clock() + self._pause_s


def _sha(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def _calls(statuses: Sequence[Status], stale_after_ms: int) -> list[tuple[str, str, list[str | int]]]:
    """(script, key, arguments): all statuses, then the indexes."""
    by_model: dict[str, list[Status]] = defaultdict(list)
    for status in statuses:
        by_model[lanes_key(status.lane.tenant, status.lane.model_id)].append(status)
    return [
        *((WRITE_STATUS, status_key(s.lane.lane_id), _status_arguments(s, stale_after_ms)) for s in statuses),
        *((WRITE_LANES, key, _lane_arguments(group)) for key, group in by_model.items()),
    ]


def _status_arguments(status: Status, stale_after_ms: int) -> list[str | int]:
    position, lane = status.position, status.lane
    fields: dict[str, str | int] = {
        "state": status.state,
        "tenant": lane.tenant,
        "model_id": lane.model_id,
        "hook_name": lane.hook_name,
        "model_revision": lane.model_revision,
        "stale_after_ms": stale_after_ms,
        "json": msgspec.json.encode(status).decode(),
    }
    guard = [position.partition, position.offset, status.sequence, status.as_of_ms]
    return [stale_after_ms, *guard, *(part for field in fields.items() for part in field)]


def _lane_arguments(statuses: Sequence[Status]) -> list[str | int]:
    arguments: list[str | int] = [LANE_MEMORY_S * 1000, max(s.as_of_ms for s in statuses)]
    for s in statuses:
        entry = LaneEntry(lane=s.lane, created_ms=s.created_ms or s.closed_at_ms, seen_ms=s.as_of_ms)
        arguments += [s.lane.lane_id, msgspec.json.encode(entry).decode()]
    return arguments
