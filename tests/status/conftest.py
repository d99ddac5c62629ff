from __future__ import annotations

from collections.abc import Callable

import pytest

from stream_interp.records.alert import Position
from stream_interp.records.lane import Lane
from stream_interp.records.status import Status

AS_OF_MS = 1_800_000_000_000


@pytest.fixture
def make_status() -> Callable[..., Status]:
    def make(state: str = "ok", *, hook: str = "layer.15", offset: int = 0, **fields: object) -> Status:
        lane = Lane(
            tenant=str(fields.pop("tenant", "default")),
            model_id=str(fields.pop("model_id", "credit")),
            hook_name=hook,
            model_revision=str(fields.pop("revision", "v1")),
        )
        position = Position(partition=int(fields.pop("partition", 0)), offset=offset)  # type: ignore[call-overload]
        defaults = {"as_of_ms": AS_OF_MS, "closed_at_ms": AS_OF_MS - 1000, "sequence": 0}
        return Status(lane=lane, state=state, position=position, **(defaults | fields))  # type: ignore[arg-type]

    return make
