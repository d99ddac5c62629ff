"""Requests of many partitions and lanes → their statistics, with one pass of the SAE over all of their tokens.

The only place where activations become numbers that leave ENCODE. No loop over tokens or features. What is said of a
request does not depend on the requests beside it, bit for bit: the SAE multiplies in blocks of one height, and sums
run over a request's tokens in order, in float64. The moments of *fit* alone are sums over a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Literal, NamedTuple, ParamSpec, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from stream_interp.encode.requests import LaneShape, moment_coordinates
from stream_interp.encode.statistics import PerFeature, Statistics
from stream_interp.encode.tokens import Bools, Item, Tokens
from stream_interp.records.window import FIT, SCORES
from stream_interp.sae.blocks import product
from stream_interp.sae.firings import Firings
from stream_interp.sae.threads import one_thread_each

ROUNDING = 1e-6  # an error share below it is float32 rounding, which differs between devices
_REQUESTS_BLOCK = 32  # rows of a product at once
Doubles = NDArray[np.float64]
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


def encode_batch(
    sae: Encoder | None, items: Sequence[Item], device: str = "cpu", at_most: int | None = None
) -> Statistics:
    """Statistics of the requests, one or more, in the order given.

    Args:
        sae: of all of them; None: T0 only.
        items: of one d_in; of transcoders all with a target of one width, or all without.
        device: of the SAE.
        at_most: firings.

    Raises:
        TooManyFirings: there are more.
    """
    with one_thread_each(torch.device(device)):
        return begin_batch(sae, items, device, at_most, _AtOnce())()


def begin_batch(
    sae: Encoder | None, items: Sequence[Item], device: str, at_most: int | None, beside: Executor
) -> Callable[[], Statistics]:
    """The same in two parts: what fires is being found `beside`, while the caller does other things.

    To be called, as what it returns, within `one_thread_each`: float sums of torch depend on how many threads it has.
    """
    with torch.inference_mode():
        tokens = Tokens.of(items, device, sae.explains if sae else "input")
    firing = None if sae is None else beside.submit(sae.firings, tokens.x, at_most)

    def end() -> Statistics:
        with torch.inference_mode():
            fired = Firings.none(tokens.x) if firing is None else firing.result()
            return _statistics(sae, items, tokens, fired)

    return end


class _AtOnce(Executor):
    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        done: Future[_T] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def _statistics(sae: Encoder | None, items: Sequence[Item], tokens: Tokens, fired: Firings) -> Statistics:
    errors = _errors(sae, tokens, fired)
    largest = torch.finfo(fired.value.dtype).max
    value = fired.value.double().nan_to_num_(nan=0.0, posinf=largest, neginf=-largest)  # float16 ends at 65,504
    firings = _Fired(*(column.cpu().numpy() for column in (fired.token, fired.feature, value)))
    firings.value[tokens.massive[firings.token]] = 0.0
    fit_x, fit_bounds = _fit_tokens(items, tokens)
    return Statistics(
        tokens=tokens.counts,
        too_short=tokens.too_short,
        sums=_sums(tokens, firings, errors),
        target_sum=_target_sum(tokens),
        scores=_scores(items, tokens, firings, errors, has_sae=sae is not None),
        firings=PerFeature(_bounds(tokens.request[firings.token], len(items)), firings.feature, firings.value),
        maxima=_maxima(tokens, firings, sae.d_sae if sae else 1),
        fit_x=fit_x,
        fit_bounds=fit_bounds,
    )


class _Fired(NamedTuple):
    """`Firings` at hand; of massive tokens the values are 0, in float64."""

    token: NDArray[np.int64]
    feature: NDArray[np.int64]
    value: Doubles


class _Errors(NamedTuple):
    """Of the tokens of the error terms, in order: ‖y‖², ‖y − ŷ‖², ⟨y, ŷ⟩, ‖ŷ‖²; y what the SAE explains.

    There are no such tokens where there is nothing to compare a reconstruction with, or there is none.
    """

    target_sq: Doubles
    err_sq: Doubles
    dot: Doubles
    xhat_sq: Doubles


def _errors(sae: Encoder | None, tokens: Tokens, fired: Firings) -> _Errors:
    if tokens.target is None or not tokens.in_error.any():
        return _Errors(*np.zeros((4, 0)))
    chosen = torch.from_numpy(tokens.in_error).to(tokens.x.device)
    y = tokens.target[chosen]
    target_sq = y.square().sum(1).double().cpu().numpy()
    if sae is None:
        return _Errors(target_sq, *np.zeros((3, len(y))))
    xhat = sae.reconstruct_from(tokens.x[chosen], fired.of_tokens(chosen)).float()
    xhat = xhat.where(xhat.isfinite().all(dim=1, keepdim=True), 0.0)  # of which float16 has no number: not explained
    others = ((y - xhat).square().sum(1), (y * xhat).sum(1), xhat.square().sum(1))
    return _Errors(target_sq, *(column.double().cpu().numpy() for column in others))


def _target_sum(tokens: Tokens) -> Doubles:
    """[n, d_out] over the tokens of the error terms; [n, 0] where there is no target."""
    if tokens.target is None:
        return np.zeros((len(tokens.counts), 0))
    return _rows_by_request(tokens, tokens.target, tokens.in_error).cpu().numpy()


def _bounds(request: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """[n + 1]: where the entries of each request begin in the ascending `request`."""
    return np.searchsorted(request, np.arange(n + 1)).astype(np.int64)


def _maxima(tokens: Tokens, fired: _Fired, d_sae: int) -> PerFeature:
    """Each feature that fired in a request's unit, with its largest activation there."""
    in_unit = tokens.in_unit[fired.token]
    key = tokens.request[fired.token[in_unit]] * d_sae + fired.feature[in_unit]
    order = np.argsort(key, kind="stable")  # made of ascending runs, one a token: fast
    key, value = key[order], fired.value[in_unit][order].astype(np.float32)
    first = np.flatnonzero(np.diff(key, prepend=-1))
    maximum = np.maximum(np.maximum.reduceat(value, first), 0) if len(first) else value  # acts may be negative
    return PerFeature(_bounds(key[first] // d_sae, len(tokens.counts)), key[first] % d_sae, maximum)


def _by_request(tokens: Tokens, values: NDArray[np.generic] | None, where: Bools | None = None) -> Doubles:
    """[n] float64: sums, token after token, of a per-token value (None: 1) where a mask holds."""
    request = tokens.request if where is None else tokens.request[where]
    chosen = values if values is None or where is None else values[where]
    return np.bincount(request, chosen, minlength=len(tokens.counts)).astype(np.float64)


def _rows_by_request(tokens: Tokens, values: torch.Tensor, where: Bools) -> torch.Tensor:
    """[n, d] float64: the same of rows [t, d]."""
    chosen = torch.from_numpy(where).to(values.device)
    total = torch.zeros(len(tokens.counts), values.shape[1], dtype=torch.float64, device=values.device)
    return total.index_add_(0, torch.from_numpy(tokens.request[where]).to(values.device), values[chosen].double())


def _error_sums(tokens: Tokens, errors: _Errors, where: Bools) -> list[Doubles]:
    """[n] each: tokens of the error terms where a mask [t] holds, and the terms."""
    request, own = tokens.request[tokens.in_error], where[tokens.in_error]
    n = len(tokens.counts)
    return [np.bincount(request[own], column, n).astype(np.float64) for column in (None, *(e[own] for e in errors))]


def _sums(tokens: Tokens, fired: _Fired, errors: _Errors) -> Doubles:
    """[n, len(SUMS)] over all counted tokens; the norm without massive ones."""
    l0 = np.bincount(tokens.request[fired.token], minlength=len(tokens.counts)).astype(np.float64)
    norm = np.sqrt(tokens.sq_norm)
    columns = _error_sums(tokens, errors, tokens.in_error)
    columns += [l0, _by_request(tokens, None, tokens.massive), _by_request(tokens, norm, ~tokens.massive)]
    return np.stack(columns, 1)


def _scores(
    items: Sequence[Item], tokens: Tokens, fired: _Fired, errors: _Errors, *, has_sae: bool
) -> NDArray[np.float32]:
    """[n, len(SCORES)] over the unit; NaN where a score has no token, no SAE, or nothing fitted to go by."""
    unit, ordinary = tokens.in_unit, tokens.in_unit & ~tokens.massive
    n_unit, n_ordinary = _by_request(tokens, None, unit), _by_request(tokens, None, ordinary)
    none = np.full(len(items), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is NaN: nothing to say
        columns = {
            "mean_sq_norm": _by_request(tokens, tokens.sq_norm, ordinary) / n_ordinary,
            "mahalanobis_sq": _mahalanobis(items, tokens, ordinary, n_ordinary),
            "error_share": none,
            "l0": none,
            "massive_share": _by_request(tokens, None, unit & tokens.massive) / n_unit,
            "surprise": _surprise(items, tokens, fired, ordinary),
        }
        if has_sae:
            _, target_sq, err_sq, *_ = _error_sums(tokens, errors, unit)
            in_unit = tokens.request[fired.token[unit[fired.token]]]
            columns["error_share"] = np.maximum(err_sq / target_sq, ROUNDING)
            columns["l0"] = np.bincount(in_unit, minlength=len(items)) / n_unit
    return np.stack([columns[name] for name in SCORES], 1).astype(np.float32)


def _mahalanobis(items: Sequence[Item], tokens: Tokens, ordinary: Bools, n: Doubles) -> Doubles:
    """[n]: squared Mahalanobis distance of each request's mean in its lane's whitened directions."""
    distance = np.full(len(items), np.nan)
    shapes = _shapes(items)
    if all(shape.mean is None for shape in shapes):
        return distance
    total = _rows_by_request(tokens, tokens.x, ordinary)
    mean = total / torch.from_numpy(n).to(total.device)[:, None]
    for shape in shapes:
        if shape.mean is not None and shape.whitening is not None and len(shape.whitening):
            rows = np.flatnonzero(_has_shape(items, shape))
            centred = moment_coordinates(mean[rows], shape.lane) - shape.mean.to(mean.device)
            whitened = product(centred, shape.whitening.to(mean.device).T, _REQUESTS_BLOCK)
            distance[rows] = whitened.square().sum(1).cpu().numpy()
    return distance


def _surprise(items: Sequence[Item], tokens: Tokens, fired: _Fired, ordinary: Bools) -> Doubles:
    """[n]: mean of the nats of each request's (token, feature) entries, in order; NaN where there are none.

    Without massive tokens, as the other scores of the activations: a hundred times as many features fire in one, so
    that its request's mean would be about that token alone.
    """
    shapes = _shapes(items)
    if all(shape.surprise is None for shape in shapes):
        return np.full(len(items), np.nan)
    own = ordinary[fired.token]
    request, feature = tokens.request[fired.token[own]], fired.feature[own]
    nats = np.full(len(feature), np.nan)
    for shape in shapes:
        if shape.surprise is not None:
            entries = _has_shape(items, shape)[request]
            nats[entries] = shape.surprise[feature[entries]]
    return np.bincount(request, nats, len(items)) / np.bincount(request, minlength=len(items))


def _shapes(items: Sequence[Item]) -> Sequence[LaneShape]:
    """Of a handful of lanes."""
    return list({id(shape): shape for shape, _ in items}.values())


def _has_shape(items: Sequence[Item], shape: LaneShape) -> Bools:
    return np.array([own is shape for own, _ in items], np.bool_)


def _fit_tokens(items: Sequence[Item], tokens: Tokens) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """The tokens [k, d_in] that enter fit moments, and where those of each request begin."""
    in_fit = np.array([shape.projector_version == FIT for shape, _ in items], np.bool_)
    chosen = in_fit[tokens.request] & ~tokens.massive
    x = tokens.x[torch.from_numpy(chosen).to(tokens.x.device)] if chosen.any() else tokens.x[:0]
    return x, _bounds(tokens.request[chosen], len(items))
