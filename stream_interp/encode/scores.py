"""The few scores of each request, of its unit and of its strata, that DETECT tests one by one (design §4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from stream_interp.encode.per_request import Doubles, Errors, Fired, error_sums, rows_of, sums_of
from stream_interp.encode.requests import LaneShape, moment_coordinates
from stream_interp.encode.tokens import Bools, Item, Tokens
from stream_interp.records.window import SCORES
from stream_interp.sae.blocks import product

ROUNDING = 1e-6  # an error share below it is float32 rounding, which differs between devices
_REQUESTS_BLOCK = 32  # rows of a product at once


def request_scores(
    items: Sequence[Item], tokens: Tokens, fired: Fired, errors: Errors, *, has_sae: bool
) -> NDArray[np.float32]:
    """[s, len(SCORES)], a row a span; NaN where a score has no token, no SAE, or nothing fitted to go by."""
    spans = tokens.spans.tokens
    judged = spans.of_token >= 0
    ordinary = judged & ~tokens.massive
    n_judged, n_ordinary = sums_of(spans, None, judged), sums_of(spans, None, ordinary)
    none = np.full(spans.n, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is NaN: nothing to say
        surprise, rarity = _surprise_and_rarity(items, tokens, fired, ordinary)
        columns = {
            "mean_sq_norm": sums_of(spans, tokens.sq_norm, ordinary) / n_ordinary,
            "mahalanobis_sq": _mahalanobis(items, tokens, ordinary, n_ordinary),
            "error_share": none,
            "l0": none,
            "massive_share": sums_of(spans, None, judged & tokens.massive) / n_judged,
            "surprise": surprise,
            "rarity": rarity,
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
    mean = total / torch.from_numpy(n).to(total.device)[:, None]
    for shape in shapes:
        if shape.mean is not None and shape.whitening is not None and len(shape.whitening):
            rows = np.flatnonzero(_has_shape(items, shape)[tokens.spans.request])
            centred = moment_coordinates(mean[rows], shape.lane) - shape.mean.to(mean.device)
            whitened = product(centred, shape.whitening.to(mean.device).T, _REQUESTS_BLOCK)
            distance[rows] = whitened.square().sum(1).cpu().numpy()
    return distance


def _surprise_and_rarity(
    items: Sequence[Item], tokens: Tokens, fired: Fired, ordinary: Bools
) -> tuple[Doubles, Doubles]:
    """[s] each: mean of the nats of each span's (token, feature) entries, in order, and mean of the squared nats of the
    features of those entries, each once; NaN where there are none.

    A feature that fires in many tokens makes the first mean about itself; squares make the second one about the rarest
    of the set. Without massive tokens, as the other scores of the activations: a hundred times as many features fire in
    one, so that its span's means would be about that token alone.
    """
    shapes, spans = _shapes(items), tokens.spans.tokens
    if all(shape.surprise is None for shape in shapes):
        return np.full(spans.n, np.nan), np.full(spans.n, np.nan)
    own = ordinary[fired.token]
    token, feature = fired.token[own], fired.feature[own]
    nats = np.full(len(feature), np.nan)
    for shape in shapes:
        if shape.surprise is not None:
            entries = _has_shape(items, shape)[tokens.request[token]]
            nats[entries] = shape.surprise[feature[entries]]
    span = spans.of_token[token]
    _, once = np.unique(span * (feature.max(initial=0) + 1) + feature, return_index=True)  # by span, then by feature
    return _mean_by_span(span, nats, spans.n), _mean_by_span(span[once], nats[once] ** 2, spans.n)


def _mean_by_span(span: NDArray[np.int64], values: Doubles, n: int) -> Doubles:
    mean: Doubles = np.bincount(span, values, n) / np.bincount(span, minlength=n)
    return mean


def _shapes(items: Sequence[Item]) -> Sequence[LaneShape]:
    """Of a handful of lanes."""
    return list({id(shape): shape for shape, _ in items}.values())


def _has_shape(items: Sequence[Item], shape: LaneShape) -> Bools:
    return np.array([own is shape for own, _ in items], np.bool_)
