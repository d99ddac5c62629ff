"""The part of an open window about groups of requests: in how many requests of each bucket which features fired."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_interp.encode.statistics import PerFeature
from stream_interp.records.arrays import Arrays
from stream_interp.records.group_keys import BUCKETS, NO_GROUP, looked_at, stride


class OpenGroups:
    """Counts over the requests that have a group."""

    def __init__(self, d_sae: int) -> None:
        self._stride, self._features = stride(d_sae), looked_at(d_sae)
        self._requests = np.zeros(BUCKETS, np.int64)
        self._cells: list[NDArray[np.int64]] = []  # bucket · features + feature, one for each request

    def add(self, buckets: NDArray[np.int64], maxima: PerFeature) -> None:
        """Counts requests: the bucket of each, [n], and the features that fired in it."""
        if (buckets == NO_GROUP).all():
            return  # as of most producers: nothing here may cost them
        np.add.at(self._requests, buckets[buckets != NO_GROUP], 1)
        bucket, feature = np.repeat(buckets, np.diff(maxima.bounds)), maxima.feature
        own = (bucket != NO_GROUP) & (feature % self._stride == 0)
        self._cells.append(bucket[own] * self._features + feature[own] // self._stride)

    def arrays(self) -> Arrays:
        """Nothing where no request has a group."""
        if not self._requests.any():
            return {}
        cells, fired = np.unique(np.concatenate(self._cells), return_counts=True)
        return {
            "group_requests": self._requests,
            "group_cells": cells.astype(np.int32),
            "group_fired": fired.astype(np.int32),
        }
