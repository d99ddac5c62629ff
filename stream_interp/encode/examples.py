"""Live examples: for a fixed number of features a cut, the request in which each fired strongest. Pure.

Which features: of those that fired in the cut, the ones told of longest ago. So every feature that fires has its turn,
a common one again and again, and one that fires rarely or for the first time, which is what drift looks like, comes
before all of them, in the first cut that it fires in. The order is kept in memory: a restart begins a new round.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_interp.encode.statistics import PerFeature
from stream_interp.records.example import Example
from stream_interp.records.lane import Lane
from stream_interp.records.snapshot import MAX_NAME_CHARS

TURNS_BYTES = 64 * 1024 * 1024
_EXAMPLE_BYTES = 4 * MAX_NAME_CHARS + 128  # the longest request id, and what Python adds


class Turns:
    """Lane by lane the order of its features [d_sae] int64: distinct numbers, the smallest is next.

    The lanes used last are kept, as many as 64 MiB hold; a lane let go only begins a new round.
    """

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[np.int64]] = {}
        self._bytes = 0

    def of(self, lane_id: str, d_sae: int) -> NDArray[np.int64]:
        """The order now. The array never changes: an open cut goes by the order it began with."""
        found = self._kept.get(lane_id)
        return self._keep(lane_id, np.arange(d_sae) if found is None else found)

    def told(self, lane_id: str, d_sae: int, features: NDArray[np.int32]) -> None:
        """These features had their turn: they go to the end, in the order given."""
        turns = self.of(lane_id, d_sae).copy()
        turns[features] = turns.max() + 1 + np.arange(len(features))
        self._keep(lane_id, turns)

    def _keep(self, lane_id: str, turns: NDArray[np.int64]) -> NDArray[np.int64]:
        before = self._kept.pop(lane_id, None)
        self._bytes += turns.nbytes - (0 if before is None else before.nbytes)
        self._kept[lane_id] = turns
        while len(self._kept) > 1 and self._bytes > TURNS_BYTES:
            self._bytes -= self._kept.pop(next(iter(self._kept))).nbytes
        return turns


@dataclass(frozen=True)
class ExampleRule:
    """How examples of a site are made.

    Attributes:
        features: told of in one cut, at most.
        key: of the HMAC that stands for a request id; None: the id itself, in plain.
        turns: shared by all sites of the process.
    """

    features: int
    key: bytes | None
    turns: Turns

    def window_bytes(self, d_sae: int) -> int:
        """What the examples of one open window hold, at most."""
        return 8 * d_sae + self.features * _EXAMPLE_BYTES

    def named(self, request_id: str) -> str:
        """The request as it stands on the topic: hex HMAC-SHA256 of its id, or the id."""
        return request_id if self.key is None else hmac.digest(self.key, request_id.encode(), "sha256").hex()


class OpenExamples:
    """The examples of one lane in one open cut of an input partition.

    At most `rule.features` are held. That is exact: the order stands still while the cut is open, so a feature that is
    among the first of all that fired in the cut was among the first from its first request on, and was never let go.
    """

    def __init__(self, lane: Lane, d_sae: int, rule: ExampleRule) -> None:
        self._lane, self._d_sae, self._rule = lane, d_sae, rule
        self._turns = rule.turns.of(lane.lane_id, d_sae)
        self._features, self._activations = np.zeros(0, np.int32), np.zeros(0, np.float32)
        self._requests: list[str] = []

    def add(self, requests: Sequence[str], maxima: PerFeature) -> None:
        """Takes in request ids and their features' maxima in log order; of equal maxima the first stays."""
        feature = np.concatenate([self._features, maxima.feature.astype(np.int32)])
        activation = np.concatenate([self._activations, maxima.value.astype(np.float32)])
        lengths = np.concatenate([np.ones(len(self._features), np.int64), np.diff(maxima.bounds)])
        request = np.repeat(np.arange(len(lengths)), lengths)
        slot = self._slots(feature[activation > 0])[feature]
        held = np.flatnonzero((slot >= 0) & (activation > 0))
        order = held[np.lexsort((-activation[held], slot[held]))]  # stable
        best = order[np.flatnonzero(np.diff(slot[order], prepend=-1))]
        names = [*self._requests, *requests]
        self._features, self._activations = feature[best], activation[best]
        self._requests = [names[k] for k in request[best]]

    def close(self, at_ms: int) -> list[Example]:
        """The examples of the cut, by feature; these features have had their turn."""
        self._rule.turns.told(self._lane.lane_id, self._d_sae, self._features)
        return [
            Example(
                lane=self._lane, feature=int(feature), request_id=self._rule.named(request_id),
                hashed=self._rule.key is not None, activation=float(activation), at_ms=at_ms,
            )
            for feature, request_id, activation in zip(self._features, self._requests, self._activations, strict=True)
        ]  # fmt: skip

    def _slots(self, fired: NDArray[np.int32]) -> NDArray[np.int32]:
        """[d_sae]: the place of each feature that is held now, -1 of the others."""
        has_fired = np.zeros(self._d_sae, np.bool_)
        has_fired[fired] = True
        chosen = np.flatnonzero(has_fired)
        if len(chosen) > self._rule.features:
            first = np.argpartition(self._turns[chosen], self._rule.features - 1)[: self._rule.features]
            chosen = np.sort(chosen[first])
        slots = np.full(self._d_sae, -1, np.int32)
        slots[chosen] = np.arange(len(chosen))
        return slots
