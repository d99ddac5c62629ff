"""The open window of one lane on one input partition: sums that grow, and the record they become at a cut."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch

from stream_interp.encode.open_groups import OpenGroups
from stream_interp.encode.open_stratum import OpenStratum
from stream_interp.encode.requests import LaneShape, moment_coordinates
from stream_interp.encode.statistics import SUMS, SpanStatistics, Statistics
from stream_interp.records import segments
from stream_interp.records.arrays import Arrays
from stream_interp.records.lengths import BINS, length_bins
from stream_interp.records.moments import Moments
from stream_interp.records.window import FIT, CutRef, LaneSums, Window, WindowHeader, named, stratum_names


class OpenWindow:
    """Sums of the requests counted so far. One per (lane, input partition), dropped on revoke.

    Attributes:
        proposed_dtype: what a fit window says of it.
    """

    def __init__(self, shape: LaneShape, acts_dtype: str, d_in: int, d_sae: int, d_out: int = 0) -> None:
        self.shape, self.d_in, self.d_sae, self.acts_dtype = shape, d_in, d_sae, acts_dtype
        self.tokens = 0
        self.not_counted: Counter[str] = Counter()
        self.proposed_dtype = ""
        self._unit = OpenStratum(d_sae, shape.cap)
        self._strata: dict[int, OpenStratum] = {}  # by place in `stratum_names`; without the unit
        self._tokens_fired = np.zeros(d_sae, np.int64)
        self._act_sum, self._act_sq_sum = np.zeros((2, d_sae))
        self._maximum = np.zeros(d_sae, np.float32)
        self._lane_sums = np.zeros(len(SUMS))
        self._target_sum = np.zeros(d_out or d_in)
        self._lengths, self._starts = np.zeros((2, BINS), np.int64)
        self._segments: dict[str, int] = {}
        self._moments: Moments | None = None
        self._groups = OpenGroups(d_sae)

    @property
    def requests(self) -> int:
        """Counted so far: those that have a unit."""
        return self._unit.requests

    @property
    def empty(self) -> bool:
        """Nothing to say about the lane at this cut."""
        return not self.requests and not self.not_counted.total()

    def add(self, stats: Statistics) -> None:
        """Counts requests, in log order. Those below unit_tokens enter the account, the histograms and their stratum.

        Every sum grows by one entry after the other, so how requests come in batches changes nothing but the last
        bits of the fit moments.
        """
        counted = ~stats.too_short
        self.not_counted["too_short"] += int(stats.too_short.sum())
        np.add.at(self._lengths, length_bins(stats.tokens), 1)
        np.add.at(self._starts, length_bins(stats.starts[stats.starts >= 0]), 1)
        self._segments = segments.added(self._segments, segments.counted(stats.segments))
        self.tokens += int(stats.tokens[counted].sum())
        _, feature, act = stats.firings.only(counted)
        np.add.at(self._tokens_fired, feature, 1)
        np.add.at(self._act_sum, feature, act)
        np.add.at(self._act_sq_sum, feature, np.square(act))
        self._add_spans(stats.spans)
        if self.shape.projector_version != FIT:
            self._groups.add(stats.buckets[counted], stats.spans.only(0)[1])
        for sums in stats.sums[counted]:
            self._lane_sums += sums
        for target_sum in stats.target_sum[counted] if stats.target_sum.shape[1] else ():
            self._target_sum += target_sum
        if self.shape.projector_version == FIT:
            self._add_moments(moment_coordinates(stats.fit_x, self.shape.lane))

    def _add_spans(self, spans: SpanStatistics) -> None:
        scores, maxima = spans.only(0)
        self._unit.add(scores, maxima)
        np.maximum.at(self._maximum, maxima.feature, maxima.value)
        for stratum in np.unique(spans.stratum[spans.stratum > 0]).tolist():
            if stratum not in self._strata:
                self._strata[stratum] = OpenStratum(self.d_sae, self.shape.cap)
            self._strata[stratum].add(*spans.only(stratum))

    def _add_moments(self, x: torch.Tensor) -> None:
        """All requests at once: the r² work of a merge is done once a batch, not once a request."""
        if not self._moments:
            self._moments = Moments(x.shape[1])
        if len(x):
            centred = x - x.double().mean(0).to(x)
            scatter = (centred.T @ centred).double().numpy()
            self._moments.merge(len(x), x.double().sum(0).numpy(), scatter)

    def close(self, cut: CutRef, closed_at_ms: int) -> Window:
        """The window's record at the cut that ends it."""
        sums: dict[str, Any] = {
            name: int(total) if name.endswith("tokens") else float(total)
            for name, total in zip(SUMS, self._lane_sums, strict=True)
        }
        header = WindowHeader(
            lane=self.shape.lane, cut=cut, requests=self.requests, tokens=self.tokens,
            not_counted=dict(+self.not_counted), closed_at_ms=closed_at_ms, acts_dtype=self.acts_dtype,
            compute_dtype=self.shape.compute_dtype, proposed_dtype=self.proposed_dtype,
            projector_version=self.shape.projector_version, unit_tokens=self.shape.unit_tokens,
            tier="T2" if self.d_sae else "T0", d_in=self.d_in, d_sae=self.d_sae,
            sums=LaneSums(fit_tokens=self._moments.n if self._moments else 0, **sums),
            strata={name: stratum.requests for name, stratum in self._by_name()}, segments=self._segments,
        )  # fmt: skip
        return Window(header, self._arrays())

    def _by_name(self) -> list[tuple[str, OpenStratum]]:
        names = stratum_names(self.shape.blocks)
        return [(names[number], stratum) for number, stratum in sorted(self._strata.items())]

    def _arrays(self) -> Arrays:
        ids = np.flatnonzero(self._tokens_fired).astype(np.int32)
        arrays: Arrays = {
            **self._unit.arrays(ids),
            "tokens_fired": self._tokens_fired[ids],
            "act_sum": self._act_sum[ids],
            "act_sq_sum": self._act_sq_sum[ids],
            "request_max": self._maximum[ids],
            "x_sum": self._target_sum,
            "length_histogram": self._lengths,
            "start_histogram": self._starts,
        }
        for name, stratum in self._by_name():
            arrays |= {named(name, array): values for array, values in stratum.arrays(stratum.fired()).items()}
        arrays |= self._groups.arrays()
        if self._moments:
            arrays |= {"fit_sum": self._moments.total, "fit_scatter": self._moments.packed()}
        return arrays
