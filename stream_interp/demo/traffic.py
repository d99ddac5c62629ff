"""The model at work: applications through real forward passes, paced, watched by `instrument`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from stream_interp.capture import SnapshotProducer, instrument
from stream_interp.demo.applications import Rows, after_market_shift
from stream_interp.demo.credit_model import HOOK, CreditRisk

BATCH = 10  # applications in one forward pass
RATE = 250.0  # applications per second
MAX_AHEAD = 500  # applications that DETECT has not reported yet; beyond it the stream waits
_MAX_DEBT_S = 0.2  # of pauses to catch up on


class Traffic:
    """Applications numbered from 1 in the order they are streamed.

    Args:
        batches: [BATCH, 9] each.
        clock: monotonic seconds.
    """

    def __init__(
        self, model: CreditRisk, producer: SnapshotProducer, batches: Iterator[Rows], clock: Callable[[], float]
    ) -> None:
        self.sent = 0
        self.planted_at_request: int | None = None
        self.planted_at_s = 0.0
        self._model, self._producer, self._batches, self._clock = model, producer, batches, clock
        self._next_s = clock()

    def plant(self) -> None:
        """From the next application on the market has shifted."""
        self.planted_at_request, self.planted_at_s = self.sent + 1, self._clock()

    def send_due(self, reported: int) -> None:
        """Streams what is due by now, unless DETECT has `reported` too few of what went before."""
        now_s = self._clock()
        self._next_s = max(self._next_s, now_s - _MAX_DEBT_S)
        while self._next_s <= now_s and self.sent - reported < MAX_AHEAD:
            self._send()
            self._next_s += BATCH / RATE

    @torch.inference_mode()
    def _send(self) -> None:
        rows = next(self._batches)
        if self.planted_at_request is not None:
            rows = after_market_shift(rows)
        ids = [f"application-{self.sent + i:07}" for i in range(1, len(rows) + 1)]
        with instrument(self._model, hooks=[HOOK], producer=self._producer, request_ids=ids):
            self._model(torch.from_numpy(rows).float())
        self.sent += len(rows)
