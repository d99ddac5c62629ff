"""Worlds without drift: streams whose truth lies on the boundary of the null, and worlds that only look like it.

Streams come in lanes of one and the same RATES, so that lanes are alike and independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import betaln

from stream_interp.drift.esr import Floats
from stream_interp.encode.encoder import encode_batch
from stream_interp.encode.requests import LaneShape, Request
from stream_interp.encode.window import OpenWindow
from stream_interp.records.lane import Lane
from stream_interp.records.window import CutRef, Window
from stream_interp.sae.firings import Firings
from tests.statistical.promise import Tick

RATES: Floats = np.geomspace(0.003, 0.4, 10)
WINDOW = 4  # requests
TOKENS = 8  # of each request, in the worlds that have tokens
SHAPE = LaneShape(
    lane=Lane(model_id="m", hook_name="h", sae_fingerprint="identity"), projector_version=1, massive="off"
)


def independent(rng: np.random.Generator, lanes: int, requests: int, window: int = WINDOW) -> Iterator[Tick]:
    p = np.tile(RATES, lanes)
    for _ in range(requests // window):
        yield Tick(window, window, p, rng.binomial(window, p).astype(float))


def identical(rng: np.random.Generator, lanes: int, requests: int, copies: int) -> Iterator[Tick]:
    """Lanes of which each has nothing but `copies` of one stream; its rate is another one from lane to lane."""
    p = np.resize(RATES, lanes)
    for _ in range(requests // WINDOW):
        x = rng.binomial(WINDOW, p).astype(float)
        yield Tick(WINDOW, WINDOW, np.repeat(p, copies), np.repeat(x, copies))


def seasonal(rng: np.random.Generator, lanes: int, requests: int) -> Iterator[Tick]:
    """Rates that go up and down by 60 % with a period of 700 requests, each stream at its own hour; known before."""
    mean, hour = np.tile(RATES, lanes), rng.uniform(0, 2 * np.pi, lanes * len(RATES))
    for start in range(0, requests, WINDOW):
        p = mean * (1 + 0.6 * np.sin(2 * np.pi * start / 700 + hour))
        yield Tick(WINDOW, WINDOW, p, rng.binomial(WINDOW, p).astype(float))


def irregular(rng: np.random.Generator, lanes: int, requests: int) -> Iterator[Tick]:
    """Windows of 1 to 64 requests; the time between them has nothing to do with them, and is 0 for one in three."""
    p, done = np.tile(RATES, lanes), 0
    while done < requests:
        n = int(np.exp(rng.uniform(0, np.log(65))))
        w = float(rng.lognormal(2.0, 1.5)) if rng.random() > 1 / 3 else 0.0
        yield Tick(w, n, p, rng.binomial(n, p).astype(float))
        done += n


def modulated_across(rng: np.random.Generator, lanes: int, requests: int, sojourn: float = 50) -> Iterator[Tick]:
    """Not a null: rates of 1.8 and 0.2 times p, each for `sojourn` requests in the mean: E[x | past] is not p."""
    p = np.tile(RATES, lanes)
    busy = rng.random(len(p)) < 0.5
    for _ in range(requests // WINDOW):
        x = np.zeros(len(p))
        for _ in range(WINDOW):
            busy ^= rng.random(len(p)) < 1 / sojourn
            x += rng.random(len(p)) < p * np.where(busy, 1.8, 0.2)
        yield Tick(WINDOW, WINDOW, p, x)


class Identity:
    """A toy SAE: feature j fires where coordinate j is above 1."""

    explains: Literal["input", "output", "nothing"] = "nothing"
    fingerprint = "identity"

    def __init__(self, width: int) -> None:
        self.d_in = self.d_sae = width

    def firings(self, x: torch.Tensor, at_most: int | None = None) -> Firings:
        return Firings.of(x * (x > 1.0))

    def reconstruct_from(self, x: torch.Tensor, acts: Firings) -> torch.Tensor:
        raise NotImplementedError("it explains nothing")


Mask = NDArray[np.bool_]  # [requests, TOKENS, streams]: which features fire in which tokens


def encoded(draw: Callable[[int], Mask], requests: int, at_once: int = 256) -> Iterator[Window]:
    """ENCODE's own windows of WINDOW requests each, of tokens as `draw` gives them for so many requests."""
    for start in range(0, requests, at_once):
        mask = draw(at_once)
        items = [(SHAPE, Request(request_id=str(i), acts=2 * acts.astype(np.float32))) for i, acts in enumerate(mask)]
        statistics = encode_batch(Identity(mask.shape[2]), items)
        for i in range(0, at_once, WINDOW):
            window = OpenWindow(SHAPE, "float32", mask.shape[2], mask.shape[2])
            window.add(statistics.of(i, i + WINDOW))
            a = start + i
            yield window.close(CutRef(topic="t", partition=0, a=a, b=a + WINDOW), a + WINDOW)


def dense(window: Window, name: str) -> Floats:
    """A per-feature array of the window for all features, [d_sae]."""
    values = np.zeros(window.header.d_sae)
    values[window.arrays["feature_ids"]] = window.arrays[name]
    return values


def by_request(windows: Iterable[Window], p: Floats) -> Iterator[Tick]:
    """A request is a unit, and fires or does not: what DETECT does."""
    for window in windows:
        n = window.header.requests
        yield Tick(n, n, p, dense(window, "requests_fired"))


def by_token(windows: Iterable[Window], p: Floats) -> Iterator[Tick]:
    """A token is a unit, as if tokens of one request were independent: what DETECT must not do."""
    for window in windows:
        yield Tick(window.header.requests, window.header.tokens, p, dense(window, "tokens_fired"))


def beta_binomial(rng: np.random.Generator, lanes: int, correlation: float) -> Callable[[int], Mask]:
    """Each request has a rate of its own, Beta with mean p; two of its tokens have the given correlation."""
    a, b = _beta(np.tile(RATES, lanes), correlation)
    return lambda n: rng.random((n, TOKENS, len(a)), np.float32) < rng.beta(a, b, (n, 1, len(a)))


def any_beta_binomial(lanes: int, correlation: float) -> Floats:
    """[streams]: the probability that a feature fires in a request: 1 − E[(1 − rate)^TOKENS]."""
    a, b = _beta(np.tile(RATES, lanes), correlation)
    return -np.expm1(betaln(a, b + TOKENS) - betaln(a, b))


def _beta(p: Floats, correlation: float) -> tuple[Floats, Floats]:
    strength = 1 / correlation - 1
    return p * strength, (1 - p) * strength


STAY = 0.75  # the chance that a token is in the state of the token before it


def modulated_inside(rng: np.random.Generator, lanes: int) -> Callable[[int], Mask]:
    """Tokens of a request in two states that follow each other as a Markov chain: p in one, nothing in the other."""
    p = np.tile(RATES, lanes)

    def draw(n: int) -> Mask:
        switches = rng.random((n, TOKENS, len(p)), np.float32) > STAY
        switches[:, 0] = rng.random((n, len(p))) < 0.5
        busy = np.logical_xor.accumulate(switches, axis=1)
        return busy & (rng.random(busy.shape, np.float32) < p)

    return draw


def any_modulated_inside(lanes: int) -> Floats:
    """[streams]: the probability that a feature fires in a request, by the chain's forward recursion."""
    p = np.tile(RATES, lanes)
    idle, busy = np.full(len(p), 0.5), 0.5 * (1 - p)  # of silence so far, by the state
    for _ in range(TOKENS - 1):
        idle, busy = STAY * idle + (1 - STAY) * busy, (STAY * busy + (1 - STAY) * idle) * (1 - p)
    return 1 - idle - busy
