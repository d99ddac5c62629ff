"""What a process shows of itself: /livez, /readyz, /metrics, structured logs.

A process takes a `Board` and calls `board.turn(describe)` in each turn of its loop, where `describe` returns a
`Snapshot`: conditions of readiness that do not hold yet, and readings of metrics in `catalogue.METRICS`.
A command calls `configure_logs`, and wraps the process in `serving`.
"""

from stream_interp.observe.board import Board, Distribution, Reading, Snapshot
from stream_interp.observe.distributions import Distributions

__all__ = ["Board", "Distribution", "Distributions", "Reading", "Snapshot"]
