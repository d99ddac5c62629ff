"""The key names of the Redis view. Nothing else spells them."""

from __future__ import annotations

PREFIX = "stream_interp:v1"


def status_key(lane_id: str) -> str:
    """Hash of one lane's status; it expires, and then the lane is unknown."""
    return f"{PREFIX}:status:{lane_id}"


def lanes_key(tenant: str, model_id: str) -> str:
    """Hash lane_id → `LaneEntry`: which lanes a model has. Names with `/` may share one; entries tell them apart."""
    return f"{PREFIX}:lanes:{tenant}/{model_id}"
