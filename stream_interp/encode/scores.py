"""The few scores of each request that DETECT tests one by one (design §4, "Request level")."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from stream_interp.encode.per_request import Doubles, Errors, Fired, by_request, error_sums, rows_by_request
from stream_interp.encode.requests import LaneShape, moment_coordinates
from stream_interp.encode.tokens import Bools, Item, Tokens
from stream_interp.records.window import SCORES
from stream_interp.sae.blocks import product

ROUNDING = 1e-6  # an error share below it is float32 rounding, which differs between devices
_REQUESTS_BLOCK = 32  # rows of a product at once


def request_scores(
    items: Sequence[Item], tokens: Tokens, fired: Fired, errors: Errors, *, has_sae: bool
) -> NDArray[np.float32]:
    """[n, len(SCORES)] over the unit; NaN where a score has no token, no SAE, or nothing fitted to go by."""
    unit, ordinary = tokens.in_unit, tokens.in_unit & ~tokens.massive
    n_unit, n_ordinary = by_request(tokens, None, unit), by_request(tokens, None, ordinary)
    none = np.full(len(items), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is NaN: nothing to say
        columns = {
            "mean_sq_norm": by_request(tokens, tokens.sq_norm, ordinary) / n_ordinary,
            "mahalanobis_sq": _mahalanobis(items, tokens, ordinary, n_ordinary),
            "error_share": none,
            "l0": none,
            "massive_share": by_request(tokens, None, unit & tokens.massive) / n_unit,
            "surprise": _surprise(items, tokens, fired, ordinary),
        }
        if has_sae:
            _, target_sq, err_sq, *_ = error_sums(tokens, errors, unit)
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
    total = rows_by_request(tokens, tokens.x, ordinary)
    mean = total / torch.from_numpy(n).to(total.device)[:, None]
    for shape in shapes:
        if shape.mean is not None and shape.whitening is not None and len(shape.whitening):
            rows = np.flatnonzero(_has_shape(items, shape))
            centred = moment_coordinates(mean[rows], shape.lane) - shape.mean.to(mean.device)
            whitened = product(centred, shape.whitening.to(mean.device).T, _REQUESTS_BLOCK)
            distance[rows] = whitened.square().sum(1).cpu().numpy()
    return distance


def _surprise(items: Sequence[Item], tokens: Tokens, fired: Fired, ordinary: Bools) -> Doubles:
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
