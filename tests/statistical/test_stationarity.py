"""A baseline that is not one distribution is refused or marked, and one that is hardly ever is.

Scores as real ones are: one factor that all share, tails to the right, ties. Of other requests, which come late, some
scores are far out, others are not: as Python code among English (`mahalanobis_sq`, surprise and rarity of 80 to 94 % of
it are above the 98th percentile of English; norm and L0 of a third to two thirds).
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from stream_interp.drift import stationarity
from stream_interp.drift.stationarity import BLOCK_REQUESTS, MARKED, REFUSED, change

OTHER = np.array([1.0, 3.5, 1.5, 2.0, -0.5, 3.0, 3.0])  # by how many standard deviations other requests differ


def scores(rng: np.random.Generator, n: int, other: np.ndarray | bool = False, level: np.ndarray | float = 0.0):
    """[n, 7]: exp of normal values with correlation 0.3, the fifth a count that is mostly 0; `level` [n] moves all."""
    factor, own = rng.standard_normal((n, 1)), rng.standard_normal((n, len(OTHER)))
    z = np.sqrt(0.3) * factor + np.sqrt(0.7) * own + np.multiply.outer(np.broadcast_to(other, n), OTHER)
    z += np.broadcast_to(level, n)[:, None]
    z[:, 4] = np.floor(np.maximum(z[:, 4] - 1, 0))
    return np.exp(0.3 * z).astype(np.float32)


def contaminated(rng: np.random.Generator, n: int, share: float = 0.05):
    """The calibration requests of a baseline of 5/4·n: its second half begins at 3/8 of them."""
    other = (rng.random(n) < share) & (np.arange(n) >= 3 * n // 8)
    return change(scores(rng, n, other), np.zeros(n, np.int64))


def null(rng: np.random.Generator, n: int, sessions: int = 0, producers: int = 1) -> stationarity.Change:
    """Requests of one distribution. `sessions`: so many successive ones resemble each other."""
    level = np.repeat(rng.standard_normal(n), sessions)[:n] if sessions else 0.0
    return change(scores(rng, n, level=level), rng.integers(0, producers, n))


@pytest.mark.statistical
@pytest.mark.parametrize("producers", [1, 5])
def test_less_than_one_in_a_hundred_exchangeable_baselines_is_refused(producers: int) -> None:
    rng, runs = np.random.default_rng(1), 400
    p = np.array([null(rng, 300, producers=producers).p for _ in range(runs)])
    assert REFUSED < 0.01
    assert binomtest(int((p <= REFUSED).sum()), runs, 0.01, "greater").pvalue > 0.01
    assert binomtest(int((p <= MARKED).sum()), runs, MARKED).pvalue > 0.001  # exact: neither more nor fewer


@pytest.mark.statistical
@pytest.mark.parametrize(("n", "refused"), [(1_200, 0.6), (8_000, 1.0)])
def test_five_percent_of_other_requests_in_the_second_half_are_found(n: int, refused: float) -> None:
    """Refused or marked: baselines of 1,500 requests in nine of ten cases, of 10,000 always."""
    rng, runs = np.random.default_rng(2), 60 if n < 2_000 else 12
    found = [contaminated(rng, n) for _ in range(runs)]
    p = np.array([of.p for of in found])
    print(f"n {n}: refused {(p <= REFUSED).mean():.0%}, refused or marked {(p <= MARKED).mean():.0%}")
    assert (p <= REFUSED).mean() >= refused
    assert (p <= MARKED).mean() >= 0.9
    assert min(of.ratio for of in found) > 1.5


@pytest.mark.statistical
def test_requests_that_resemble_their_neighbours_refuse_hardly_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions of 8 requests. The control: where single requests are permuted, many are refused."""
    rng, runs = np.random.default_rng(3), 100

    def refused() -> int:
        return sum(null(rng, 8 * 300, sessions=8).p <= REFUSED for _ in range(runs))

    assert binomtest(refused(), runs, 0.02, "greater").pvalue > 0.01
    monkeypatch.setattr(stationarity, "BLOCK_REQUESTS", 1)
    assert refused() > 20


def test_another_mix_of_producers_is_no_change_and_a_change_of_one_producer_is() -> None:
    rng, n = np.random.default_rng(4), 1_600
    producers = (rng.random(n) < np.linspace(0.1, 0.9, n)).astype(np.int64)  # one fades in, the other out
    own = scores(rng, n, level=1.5 * producers)
    assert change(own, producers).p > MARKED
    assert change(own, np.zeros(n, np.int64)).p <= REFUSED
    late = scores(rng, n, level=(producers == 1) & (np.arange(n) > n // 2))
    assert change(late, producers).p <= REFUSED


def test_a_producer_that_is_there_for_a_part_only_says_nothing_of_the_rest() -> None:
    rng, n = np.random.default_rng(5), 800
    producers = (np.arange(n) >= n // 2).astype(np.int64)
    assert change(scores(rng, n, level=2.0 * producers), producers).p > REFUSED


def test_a_shift_a_fall_and_an_interlude_are_refused() -> None:
    rng, n = np.random.default_rng(6), 480
    at = np.arange(n)
    for level in (at >= n // 2, -1.0 * (at < n // 3), (at > 200) & (at < 320)):
        x = scores(rng, n, level=1.5 * level)
        assert change(np.concatenate([x, -x], axis=1), np.zeros(n, np.int64)).p <= REFUSED


def test_the_same_requests_give_the_same_answer() -> None:
    x = scores(np.random.default_rng(7), 500)
    assert change(x, np.zeros(500, np.int64)) == change(x, np.zeros(500, np.int64))


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_few_requests_or_none_that_differ_are_never_refused(n: int) -> None:
    producers = np.zeros(n, np.int64)
    assert change(scores(np.random.default_rng(8), n), producers).p > REFUSED
    for constant in (0.0, np.nan):
        found = change(np.full((n, 2), constant, np.float32), producers)
        assert (found.p, found.ratio) == (1.0, 1.0)


def slow_twin(x: np.ndarray, producers: np.ndarray) -> float:
    """The evidence by its definition, one score, quantile and place after the other."""
    n, largest = len(x), 0.0
    for column in x.T:
        for share in stationarity.SHARES:
            above = column > sorted(column, reverse=True)[int(n * share)]
            for place in {k * n // stationarity.PARTS for k in range(1, stationarity.PARTS)}:
                total, after = int(above.sum()), int(above[place:].sum())
                should = sum(above[producers == p].sum() * (producers[place:] == p).sum() / (producers == p).sum()
                             for p in set(producers.tolist()))  # fmt: skip
                kl = sum(s * np.log(s / e) for s, e in ((after, should), (total - after, total - should)) if s)
                largest = max(largest, kl)
    return largest


def test_the_evidence_equals_its_definition() -> None:
    rng = np.random.default_rng(9)
    x, producers = scores(rng, 203), rng.integers(0, 3, 203)
    above, places = stationarity._above(x), np.unique(np.arange(1, 8) * 203 // 8)
    expected = sum(np.outer([(np.flatnonzero(producers == p) >= at).mean() for at in places],
                            above[producers == p].sum(axis=0)) for p in range(3))  # fmt: skip
    found = stationarity._evidence(stationarity._after(above, places), expected, above.sum(axis=0).astype(float))
    assert found.max() == pytest.approx(slow_twin(x, producers))


def test_blocks_change_places_within_their_producer() -> None:
    rng, producers = np.random.default_rng(10), np.repeat([0, 1, 0], [70, 50, 64 * BLOCK_REQUESTS])
    own = [np.flatnonzero(producers == p) for p in (0, 1)]
    order = stationarity._permuted(own, len(producers), rng)
    assert sorted(order) == list(range(len(producers)))
    assert (producers[order] == producers).all()
    first = own[0][len(own[0]) % BLOCK_REQUESTS :].reshape(-1, BLOCK_REQUESTS)
    assert {tuple(block) for block in order[first]} == {tuple(block) for block in first}
    assert (order[: len(own[0]) % BLOCK_REQUESTS] == np.arange(len(own[0]) % BLOCK_REQUESTS)).all()
