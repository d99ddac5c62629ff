"""Tables of bounded size: names are the producers', and whoever can write to a topic makes up more of them."""

from __future__ import annotations

from typing import TypeVar

from stream_interp.errors import IntegrityError
from stream_interp.records.lane import Lane

MAX_NAMED = 10_000  # lanes of one table
LONGEST_NAME = 16_384  # characters; ENCODE takes far shorter ones from producers, and pages cut them

Value = TypeVar("Value")


def put(table: dict[str, Value], key: str, value: Value, limit: int = MAX_NAMED) -> Value | None:
    """The newest entry of a table; what goes for it, which is what had no news for longest."""
    table.pop(key, None)
    table[key] = value
    return table.pop(next(iter(table))) if len(table) > limit else None


def sane(lane: Lane) -> Lane:
    """A lane with names that are no attack on memory. Raises IntegrityError."""
    longest = max(map(len, (lane.tenant, lane.model_id, lane.model_revision, lane.hook_name, lane.sae_fingerprint)))
    if longest > LONGEST_NAME:
        raise IntegrityError(f"a lane with a name of {longest:,} characters; expected at most {LONGEST_NAME:,}")
    return lane
