"""The open window of one lane on one input partition: sums that grow, and the record they become at a cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stream_interp.encode.encoder import SUMS, RequestStats
from stream_interp.encode.requests import LaneShape
from stream_interp.records.arrays import Arrays
from stream_interp.records.lengths import BINS, length_bin
from stream_interp.records.moments import Moments
from stream_interp.records.window import SCORES, CutRef, LaneSums, Window, WindowHeader


class OpenWindow:
    """Sums of the requests counted so far. One per (lane, input partition), dropped on revoke."""

    def __init__(self, shape: LaneShape, acts_dtype: str, d_in: int, d_sae: int) -> None:
        self.shape, self.d_in, self.d_sae, self.acts_dtype = shape, d_in, d_sae, acts_dtype
        self.requests = self.tokens = 0
        self.not_counted: Counter[str] = Counter()
        self._fired = np.zeros(d_sae, np.int32)
        self._tokens_fired = np.zeros(d_sae, np.int64)
        self._sums = np.zeros((3, d_sae))  # act, act², magnitude
        self._maximum = np.zeros(d_sae, np.float32)
        self._lane_sums = np.zeros(len(SUMS))
        self._x_sum = np.zeros(d_in)
        self._lengths = np.zeros(BINS, np.int64)
        self._scores: list[NDArray[np.float32]] = []
        self._moments: Moments | None = None

    @property
    def empty(self) -> bool:
        """Nothing to say about the lane at this cut."""
        return not self.requests and not self.not_counted.total()

    def add(self, stats: Sequence[RequestStats]) -> None:
        """Counts requests, in log order. Requests below unit_tokens enter the account and the length histogram only."""
        counted = [s for s in stats if not s.too_short]
        self.not_counted["too_short"] += len(stats) - len(counted)
        for s in stats:
            self._lengths[length_bin(s.tokens)] += 1
        for s in counted:
            self.requests += 1
            self.tokens += s.tokens
            ids = s.feature_ids  # unique within a request, so plain indexing adds
            self._fired[ids] += s.fired
            self._tokens_fired[ids] += s.tokens_fired
            self._sums[:, ids] += (s.act_sum, s.act_sq_sum, s.magnitude)
            self._maximum[ids] = np.maximum(self._maximum[ids], s.maximum)
            self._lane_sums += s.sums
            self._x_sum += s.x_sum
            self._scores.append(s.scores)
        self._add_moments([s.moments for s in counted if s.moments is not None])

    def _add_moments(self, parts: list[torch.Tensor]) -> None:
        """All requests at once: the r² work of a merge is done once a batch, not once a request."""
        if not parts:
            return
        x = torch.cat(parts)
        self._moments = self._moments or Moments(x.shape[1])
        if len(x):
            centred = x - x.double().mean(0).to(x)
            scatter = (centred.T @ centred).double().cpu().numpy()
            self._moments.merge(len(x), x.double().sum(0).cpu().numpy(), scatter)

    def close(self, cut: CutRef, closed_at_ms: int) -> Window:
        """The window's record at the cut that ends it."""
        sums: dict[str, Any] = {
            name: int(total) if name.endswith("tokens") else float(total)
            for name, total in zip(SUMS, self._lane_sums, strict=True)
        }
        header = WindowHeader(
            lane=self.shape.lane, cut=cut, requests=self.requests, tokens=self.tokens,
            not_counted=dict(+self.not_counted), closed_at_ms=closed_at_ms, acts_dtype=self.acts_dtype,
            projector_version=self.shape.projector_version, unit_tokens=self.shape.unit_tokens,
            tier="T2" if self.d_sae else "T0", d_in=self.d_in, d_sae=self.d_sae,
            sums=LaneSums(fit_tokens=self._moments.n if self._moments else 0, **sums),
        )  # fmt: skip
        return Window(header, self._arrays())

    def _arrays(self) -> Arrays:
        ids = np.flatnonzero(self._tokens_fired).astype(np.int32)
        arrays: Arrays = {
            "feature_ids": ids,
            "requests_fired": self._fired[ids],
            "tokens_fired": self._tokens_fired[ids],
            "act_sum": self._sums[0, ids],
            "act_sq_sum": self._sums[1, ids],
            "mag_sum": self._sums[2, ids],
            "request_max": self._maximum[ids],
            "request_scores": np.array(self._scores, np.float32).reshape(-1, len(SCORES)),
            "x_sum": self._x_sum,
            "length_histogram": self._lengths,
        }
        if self._moments:
            arrays |= {"fit_sum": self._moments.total, "fit_scatter": self._moments.packed()}
        return arrays
