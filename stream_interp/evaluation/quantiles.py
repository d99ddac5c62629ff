"""Five numbers of a distribution, some of whose values may be "never"."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

QUANTILES = {"best": 0.0, "lower_quartile": 0.25, "median": 0.5, "upper_quartile": 0.75, "worst": 1.0}


def quantiles(values: ArrayLike) -> dict[str, float | None]:
    """Each a value that occurs, the higher where two are as near: none lies between a number and never.

    Args:
        values: [n], inf is never.

    Returns:
        by name; None is never, or that there is no value.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    if not len(ordered):
        return dict.fromkeys(QUANTILES)
    picked = {name: float(ordered[math.ceil(q * (len(ordered) - 1))]) for name, q in QUANTILES.items()}
    return {name: value if math.isfinite(value) else None for name, value in picked.items()}
