"""Loan applications of `river.datasets.synth.Agrawal`, and the market shift that the demo plants. Pure, seeded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from river.datasets import synth

COLUMNS = ("salary", "commission", "age", "elevel", "car", "zipcode", "hvalue", "hyears", "loan")
_DISPOSABLE_INCOME = 8  # Agrawal's function of salary, commission, education and loan; half of all applications pass

Rows = NDArray[np.float64]


def sample(n: int, seed: int) -> tuple[Rows, NDArray[np.float64]]:
    """The first `n` applications of a seed: [n, 9] in the order of COLUMNS, and [n] 1.0 where the loan is a risk."""
    pairs = list(synth.Agrawal(classification_function=_DISPOSABLE_INCOME, seed=seed).take(n))
    rows = [[x[name] for name in COLUMNS] for x, _ in pairs]
    return np.array(rows, np.float64), np.array([y for _, y in pairs], np.float64)


def batches(seed: int, size: int) -> Iterator[Rows]:
    """An endless stream of [size, 9] applications."""
    stream = iter(synth.Agrawal(classification_function=_DISPOSABLE_INCOME, seed=seed))
    while True:
        yield np.array([[x[name] for name in COLUMNS] for x, _ in islice(stream, size)], np.float64)


def after_market_shift(rows: Rows) -> Rows:
    """The same applicants after a downturn, [n, 9]; every value stays plausible, most inside the range seen before.

    Salaries fall by a third, commissions by 70 %, house values by 40 %; those who still apply ask for half as much
    again, and are younger: an age counts half as far above 20 as it did. Education, car, zip code and the years in
    the house stay as they were.
    """
    shifted = rows.copy()
    factors = {"salary": 0.67, "commission": 0.3, "hvalue": 0.6, "loan": 1.5}
    for name, factor in factors.items():
        shifted[:, COLUMNS.index(name)] *= factor
    age = COLUMNS.index("age")
    shifted[:, age] = np.round(20 + (rows[:, age] - 20) * 0.5)
    return shifted
