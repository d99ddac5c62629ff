"""Tells when the features that interpretability systems rely on no longer behave as they did, and says so plainly.

Importing this imports neither torch nor Kafka; each name below loads its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stream_interp import sae as sae
    from stream_interp.capture.instrument import instrument as instrument
    from stream_interp.capture.producer import SnapshotProducer as SnapshotProducer
    from stream_interp.kafka.subscribe import AlertSubscriber as AlertSubscriber
    from stream_interp.status.client import StatusClient as StatusClient

_HOME = {
    "AlertSubscriber": "stream_interp.kafka.subscribe",
    "SnapshotProducer": "stream_interp.capture.producer",
    "StatusClient": "stream_interp.status.client",
    "instrument": "stream_interp.capture.instrument",
}

__all__ = ["AlertSubscriber", "SnapshotProducer", "StatusClient", "instrument", "sae"]


def __getattr__(name: str) -> Any:
    if name == "sae":
        return import_module("stream_interp.sae")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
