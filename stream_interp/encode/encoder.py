"""Requests of many partitions and lanes → their statistics, with one pass of the SAE over all of their tokens.

The only place where activations become numbers that leave ENCODE. No loop over tokens or features. What is said of a
request does not depend on the requests beside it, bit for bit: the SAE multiplies in blocks of one height, and sums
run over a request's tokens in order, in float64. The moments of *fit* alone are sums over a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Literal, ParamSpec, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from stream_interp.encode import on_device
from stream_interp.encode.per_request import (
    Doubles,
    Errors,
    Fired,
    bounds_of,
    error_sums,
    error_terms,
    rows_of,
    square_sums,
    sums_of,
)
from stream_interp.encode.scores import request_scores
from stream_interp.encode.statistics import PerFeature, SpanStatistics, Statistics
from stream_interp.encode.tokens import Item, Tokens
from stream_interp.records.group_keys import bucket_of
from stream_interp.records.window import FIT
from stream_interp.sae.encoder import SAE
from stream_interp.sae.firings import Firings
from stream_interp.sae.threads import one_thread_each

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Encoder(Protocol):
    """What ENCODE needs of an SAE."""

    @property
    def d_in(self) -> int:
        """Width of the activations."""

    @property
    def d_sae(self) -> int:
        """Number of features."""

    @property
    def fingerprint(self) -> str:
        """sha256 of its canonical weights."""

    @property
    def explains(self) -> Literal["input", "output", "nothing"]:
        """What its reconstruction is of: the input, another hook's activations, or it has none."""

    def firings(self, x: torch.Tensor, at_most: int | None = None) -> Firings:
        """What fires in the tokens `x` [n, d_in]; no row depends on the others. Raises TooManyFirings."""

    def reconstruct_from(self, x: torch.Tensor, acts: Firings) -> torch.Tensor:
        """The reconstruction [n, d_out] in the space of the raw activations."""


def encode_batch(sae: Encoder | None, items: Sequence[Item], at_most: int | None = None) -> Statistics:
    """Statistics of the requests, one or more, in the order given.

    Args:
        sae: of all of them; None: T0 only.
        items: of one d_in; of transcoders all with a target of one width, or all without.
        at_most: firings.

    Raises:
        TooManyFirings: there are more.
    """
    with one_thread_each():
        return begin_batch(sae, items, at_most, _AtOnce())()


def begin_batch(
    sae: Encoder | None, items: Sequence[Item], at_most: int | None, beside: Executor
) -> Callable[[], Statistics]:
    """The same in two parts: what fires is being found `beside`, or on a device, while the caller does other things.

    To be called, as what it returns, within `one_thread_each`: float sums of torch depend on how many threads it has.
    """
    with torch.inference_mode():
        tokens = Tokens.of(items, sae.explains if sae else "input")
    found = _begin(sae, tokens, at_most, beside)

    def end() -> Statistics:
        with torch.inference_mode():
            return _statistics(sae, items, tokens, *found())

    return end


def _begin(
    sae: Encoder | None, tokens: Tokens, at_most: int | None, beside: Executor
) -> Callable[[], tuple[Firings, Errors]]:
    """What fires, with the error terms, to be called for."""
    if sae is None:
        return lambda: (Firings.none(tokens.x), _errors(None, tokens, Firings.none(tokens.x)))
    if isinstance(sae, SAE) and sae.queues:
        return on_device.begin(sae, tokens, at_most, on_device.link_to(sae.device))
    firing = beside.submit(sae.firings, tokens.x, at_most)
    return lambda: _explained(sae, tokens, firing.result())


def _explained(sae: Encoder, tokens: Tokens, fired: Firings) -> tuple[Firings, Errors]:
    """With the error terms; both on the host."""
    return fired.cpu(), _errors(sae, tokens, fired)


class _AtOnce(Executor):
    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        done: Future[_T] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def _statistics(
    sae: Encoder | None, items: Sequence[Item], tokens: Tokens, fired: Firings, errors: Errors
) -> Statistics:
    largest = torch.finfo(fired.value.dtype).max
    value = fired.value.double().nan_to_num_(nan=0.0, posinf=largest, neginf=-largest)  # float16 ends at 65,504
    firings = Fired(fired.token.numpy(), fired.feature.numpy(), value.numpy())
    firings.value[tokens.massive[firings.token]] = 0.0
    maxima = _maxima(tokens, firings, sae.d_sae if sae else 1)
    fit_x, fit_bounds = _fit_tokens(items, tokens)
    return Statistics(
        tokens=tokens.counts,
        starts=tokens.starts,
        buckets=np.array([bucket_of(request.group_key) for _, request in items], np.int64),
        segments=[request.segment for _, request in items],
        too_short=tokens.too_short,
        sums=_sums(tokens, firings, errors),
        target_sum=_target_sum(tokens),
        firings=PerFeature(bounds_of(tokens.request[firings.token], len(items)), firings.feature, firings.value),
        spans=SpanStatistics(
            tokens.spans.bounds,
            tokens.spans.stratum,
            request_scores(items, tokens, firings, maxima, errors, has_sae=sae is not None),
            maxima,
        ),
        fit_x=fit_x,
        fit_bounds=fit_bounds,
    )


def _errors(sae: Encoder | None, tokens: Tokens, fired: Firings) -> Errors:
    if tokens.target is None or not tokens.in_error.any():
        return Errors(*np.zeros((4, 0)))
    chosen = torch.from_numpy(tokens.in_error)
    y = tokens.target[chosen]
    if sae is None:
        return Errors(square_sums(y), *np.zeros((3, len(y))))
    xhat = sae.reconstruct_from(tokens.x[chosen], fired.of_tokens(chosen)).cpu()
    return Errors(square_sums(y), *error_terms(y, xhat).numpy())


def _target_sum(tokens: Tokens) -> Doubles:
    """[n, d_out] over the tokens of the error terms; [n, 0] where there is no target."""
    if tokens.target is None:
        return np.zeros((len(tokens.counts), 0))
    return rows_of(tokens.requests, tokens.target, tokens.in_error).numpy()


def _maxima(tokens: Tokens, fired: Fired, d_sae: int) -> PerFeature:
    """Each feature that fired in a span, with its largest activation there."""
    span = tokens.spans.tokens.of_token[fired.token]
    judged = span >= 0
    key = span[judged] * d_sae + fired.feature[judged]
    order = np.argsort(key, kind="stable")  # made of ascending runs, one a token: fast
    key, value = key[order], fired.value[judged][order].astype(np.float32)
    first = np.flatnonzero(np.diff(key, prepend=-1))
    maximum = np.maximum(np.maximum.reduceat(value, first), 0) if len(first) else value  # acts may be negative
    return PerFeature(bounds_of(key[first] // d_sae, tokens.spans.tokens.n), key[first] % d_sae, maximum)


def _sums(tokens: Tokens, fired: Fired, errors: Errors) -> Doubles:
    """[n, len(SUMS)] over all counted tokens; the norm without massive ones."""
    l0 = np.bincount(tokens.request[fired.token], minlength=len(tokens.counts)).astype(np.float64)
    norm = np.sqrt(tokens.sq_norm)
    columns = error_sums(tokens.requests, errors, tokens.in_error, tokens.in_error)
    columns += [l0, sums_of(tokens.requests, None, tokens.massive), sums_of(tokens.requests, norm, ~tokens.massive)]
    return np.stack(columns, 1)


def _fit_tokens(items: Sequence[Item], tokens: Tokens) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """The tokens [k, d_in] that enter fit moments, and where those of each request begin."""
    in_fit = np.array([shape.projector_version == FIT for shape, _ in items], np.bool_)
    chosen = in_fit[tokens.request] & ~tokens.massive
    x = tokens.x[torch.from_numpy(chosen)] if chosen.any() else tokens.x[:0]
    return x, bounds_of(tokens.request[chosen], len(items))
