"""The few scores of each request, of its unit and of its strata, that DETECT tests one by one (design §4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from stream_interp.encode.per_request import Doubles, Errors, Fired, error_sums, rows_of, sums_of
from stream_interp.encode.requests import LaneShape, moment_coordinates
from stream_interp.encode.statistics import PerFeature
from stream_interp.encode.tokens import Bools, Item, Tokens
from stream_interp.records.window import SCORES
from stream_interp.sae.blocks import product

ROUNDING = 1e-6  # an error share below it is float32 rounding, which differs between devices
_REQUESTS_BLOCK = 32  # rows of a product at once


def request_scores(
    items: Sequence[Item], tokens: Tokens, fired: Fired, maxima: PerFeature, errors: Errors, *, has_sae: bool
) -> NDArray[np.float32]:
    """[s, len(SCORES)], a row a span; NaN where a score has no token, no SAE, or nothing fitted to go by.

    `maxima` are those of the spans' features, made of `fired`.
    """
    spans = tokens.spans.tokens
    judged = spans.of_token >= 0
    ordinary = judged & ~tokens.massive
    n_judged, n_ordinary = sums_of(spans, None, judged), sums_of(spans, None, ordinary)
    none = np.full(spans.n, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is NaN: nothing to say
        columns = {
            "mean_sq_norm": sums_of(spans, tokens.sq_norm, ordinary) / n_ordinary,
            "mahalanobis_sq": _mahalanobis(items, tokens, ordinary, n_ordinary),
            "error_share": none,
            "l0": none,
            "massive_share": sums_of(spans, None, judged & tokens.massive) / n_judged,
            "surprise": _surprise(items, tokens, fired, ordinary),
            "rarity": _rarity(items, tokens, maxima),
        }
        if has_sae:
            _, target_sq, err_sq, *_ = error_sums(spans, errors, tokens.in_error, judged)
            span = spans.of_token[fired.token[judged[fired.token]]]
            columns["error_share"] = np.maximum(err_sq / target_sq, ROUNDING)
            columns["l0"] = np.bincount(span, minlength=spans.n) / n_judged
    return np.stack([columns[name] for name in SCORES], 1).astype(np.float32)


def _mahalanobis(items: Sequence[Item], tokens: Tokens, ordinary: Bools, n: Doubles) -> Doubles:
    """[s]: squared Mahalanobis distance of each span's mean in its lane's whitened directions; `n` [s] its tokens."""
    distance = np.full(len(n), np.nan)
    shapes = _shapes(items)
    if all(shape.mean is None for shape in shapes):
        return distance
    total = rows_of(tokens.spans.tokens, tokens.x, ordinary)
    mean = total / torch.from_numpy(n)[:, None]
    for shape in shapes:
        if shape.mean is not None and shape.whitening is not None and len(shape.whitening):
            rows = np.flatnonzero(_has_shape(items, shape)[tokens.spans.request])
            centred = moment_coordinates(mean[rows], shape.lane) - shape.mean
            whitened = product(centred, shape.whitening.T, _REQUESTS_BLOCK)
            distance[rows] = whitened.square().sum(1).numpy()
    return distance


def _surprise(items: Sequence[Item], tokens: Tokens, fired: Fired, ordinary: Bools) -> Doubles:
    """[s]: mean of the nats of each span's (token, feature) entries, in order; NaN where there are none.

    Without massive tokens, as the other scores of the activations: a hundred times as many features fire in one, so
    that its span's mean would be about that token alone.
    """
    own = ordinary[fired.token]
    token, feature = fired.token[own], fired.feature[own]
    nats = _nats(items, tokens.request[token], feature)
    return _mean_by_span(tokens.spans.tokens.of_token[token], nats, tokens.spans.tokens.n)


def _rarity(items: Sequence[Item], tokens: Tokens, maxima: PerFeature) -> Doubles:
    """[s]: mean of the squared nats of the features that are above 0 in a span, each once, massive tokens left out.

    A feature that fires in many tokens makes the surprise about itself; squares make this about the rarest of the set.
    """
    span = np.repeat(np.arange(tokens.spans.tokens.n), np.diff(maxima.bounds))[maxima.value > 0]
    nats = _nats(items, tokens.spans.request[span], maxima.feature[maxima.value > 0])
    return _mean_by_span(span, nats**2, tokens.spans.tokens.n)


def _nats(items: Sequence[Item], request: NDArray[np.int64], feature: NDArray[np.int64]) -> Doubles:
    """[m] of features that fired in a request; NaN where the lane's projector does not say."""
    nats = np.full(len(feature), np.nan)
    for shape in _shapes(items):
        if shape.surprise is not None:
            entries = _has_shape(items, shape)[request]
            nats[entries] = shape.surprise[feature[entries]]
    return nats


def _mean_by_span(span: NDArray[np.int64], values: Doubles, n: int) -> Doubles:
    mean: Doubles = np.bincount(span, values, n) / np.bincount(span, minlength=n)
    return mean


def _shapes(items: Sequence[Item]) -> Sequence[LaneShape]:
    """Of a handful of lanes."""
    return list({id(shape): shape for shape, _ in items}.values())


def _has_shape(items: Sequence[Item], shape: LaneShape) -> Bools:
    return np.array([own is shape for own, _ in items], np.bool_)
