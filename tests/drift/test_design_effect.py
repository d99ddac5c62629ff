"""The design effect's accumulator against its definition over all clusters at once, and what it does at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from stream_interp.drift import design_effect
from stream_interp.drift.design_effect import CONFIDENCE, GROUPS, DesignEffect, absorb, estimate, initial, of_buckets


def absorbed(clusters: np.ndarray, sizes: np.ndarray, at_least: int = 1) -> DesignEffect:
    state = initial(clusters.shape[1], at_least)
    for fired, n in zip(clusters, sizes.tolist(), strict=True):
        state = absorb(state, fired, n)
    return state


def by_definition(clusters: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """Slow twin: deff and lower bound from all clusters [W, K] and their sizes [W]."""
    n, before = sizes[1:], np.cumsum(sizes)[:-1]
    rates = np.cumsum(clusters, axis=0)[:-1] / before[:, None]
    q = (clusters[1:] - n[:, None] * rates) ** 2 / (1 + n / before)[:, None]
    total = sizes.sum()
    p = clusters.sum(axis=0) / total
    variance = p * (1 - p) * total / (total - 1)
    groups = [slice(g, None, GROUPS) for g in range(GROUPS)]
    deff = np.median([q[:, g].sum() / (variance[g].sum() * n.sum()) for g in groups])
    ratio = q.sum() / (variance.sum() * n.sum())
    residual = q.sum(axis=1) / variance.sum() - ratio * n
    error = residual.std() * np.sqrt(len(n) ** 2 / (len(n) - 1)) / n.sum()
    return float(deff), float(ratio - t.ppf(CONFIDENCE, n.sum() ** 2 / (n @ n) - 1) * error)


@pytest.mark.parametrize("sizes", ["equal", "unequal"])
def test_equals_its_definition(sizes: str) -> None:
    rng = np.random.default_rng(1)
    n = np.full(60, 32) if sizes == "equal" else rng.integers(1, 60, 60)
    clusters = rng.binomial(n[:, None], rng.uniform(0.01, 0.5, 40), (60, 40))
    found = estimate(absorbed(clusters, n))
    assert (found.deff, found.lower) == pytest.approx(by_definition(clusters, n), rel=1e-9)
    assert found.clusters == 59


def test_small_windows_are_joined() -> None:
    rng = np.random.default_rng(2)
    requests = rng.random((960, 20)) < 0.2
    by_one = absorbed(requests, np.ones(960, int), at_least=32)
    whole = absorbed(requests.reshape(30, 32, 20).sum(axis=1), np.full(30, 32))
    assert estimate(by_one) == estimate(whole)


def test_sessions_of_one_answer_have_the_size_of_the_session_as_design_effect() -> None:
    """All requests of a session alike: Kish's 1 + ρ·(Σn²/Σn − 1) at ρ = 1, for sessions of unequal size too."""
    rng = np.random.default_rng(3)
    n = rng.geometric(0.2, 4_000)
    found = estimate(absorbed(n[:, None] * (rng.random((4_000, 32)) < 0.2), n))
    assert found.deff == pytest.approx((n**2).sum() / n.sum(), rel=0.05)
    assert found.dependent


def test_tokens_within_requests_show_their_correlation() -> None:
    """Beta-binomial tokens: deff = 1 + (tokens a request − 1)·ρ; the requests themselves are independent."""
    rng, tokens, correlation = np.random.default_rng(4), 20, 0.2
    mean = rng.uniform(0.05, 0.4, 200)
    strength = 1 / correlation - 1
    fired = rng.binomial(tokens, rng.beta(mean * strength, (1 - mean) * strength, (3_200, 200)))
    windows, n = fired.reshape(100, 32, 200).sum(axis=1), np.full(100, 32)
    assert estimate(absorbed(windows, n * tokens)).deff == pytest.approx(4.8, rel=0.05)
    by_request = estimate(absorbed((fired > 0).reshape(100, 32, 200).sum(axis=1), n))
    assert by_request.deff == pytest.approx(1.0, abs=0.05)
    assert not by_request.dependent


def test_a_few_odd_features_do_not_move_it() -> None:
    rng = np.random.default_rng(5)
    windows = rng.binomial(32, 0.02, (100, 160))
    windows[:, :3] = 32 * (rng.random((100, 3)) < 0.5)  # half of all variance
    found = estimate(absorbed(windows, np.full(100, 32)))
    assert found.deff == pytest.approx(1.0, abs=0.1)
    assert not found.dependent


@pytest.mark.parametrize(
    "windows", [np.zeros((0, 3), int), np.ones((2, 3), int), np.zeros((9, 3), int), np.zeros((9, 0), int)]
)
def test_too_little_says_nothing(windows: np.ndarray) -> None:
    found = estimate(absorbed(windows, np.full(len(windows), 32)))
    assert np.isnan(found.deff)
    assert not found.dependent


def test_the_state_given_is_left_as_it_was() -> None:
    state = absorbed(np.ones((3, 4), int), np.full(3, 8))
    before = {name: np.copy(value) for name, value in vars(state).items()}
    absorb(state, np.array([1, 2, 3, 4]), 8)
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(state, name), value)


def test_two_arrays_of_float64_a_feature() -> None:
    state = initial(1_000, design_effect.CLUSTER_REQUESTS)
    assert sum(np.asarray(value).nbytes for value in vars(state).values()) < 16 * 1_000 + 300


def test_buckets_equal_their_definition() -> None:
    rng = np.random.default_rng(3)
    n = rng.integers(0, 40, 64)
    fired = rng.binomial(n[:, None], rng.uniform(0.01, 0.5, 40), (64, 40))
    used = n > 0
    x, of = fired[used], n[used].astype(float)
    p, total = x.sum(axis=0) / of.sum(), of.sum()
    q = (x - np.outer(of, p)) ** 2 / (1 - of / total)[:, None]
    variance = p * (1 - p) * total / (total - 1)
    expected = np.median([q[:, g::GROUPS].sum() / (variance[g::GROUPS].sum() * total) for g in range(GROUPS)])
    found = estimate(of_buckets(n, fired))
    assert found.deff == pytest.approx(expected, rel=1e-9)
    assert found.clusters == used.sum()


@pytest.mark.parametrize("per_group", [1, 6])
def test_groups_that_share_buckets_vary_as_much_as_on_their_own(per_group: int) -> None:
    """Sessions of `per_group` equal requests: the design effect is `per_group`, wherever in the log they lie."""
    rng, deffs, called = np.random.default_rng(4), [], 0
    for _ in range(40):
        sessions = rng.random((1_200 // per_group, 200)) < rng.uniform(0.01, 0.4, 200)
        bucket = rng.integers(0, 256, len(sessions))
        n, fired = np.zeros(256, int), np.zeros((256, 200), int)
        np.add.at(n, bucket, per_group)
        np.add.at(fired, bucket, per_group * sessions)
        found = estimate(of_buckets(n, fired))
        deffs.append(found.deff)
        called += found.dependent
    assert np.mean(deffs) == pytest.approx(per_group, rel=0.05)
    assert called == (0 if per_group == 1 else 40)


@pytest.mark.parametrize("giants", [[2_100], [2_700], [1_350, 1_350]])
def test_a_few_giant_groups_of_independent_requests_are_not_called_dependent(giants: list[int]) -> None:
    """Features go together, each request about one of 4 topics; t of as many clusters as there are gave 14 to 19 %."""
    rng, called = np.random.default_rng(7), 0
    for _ in range(200):
        n = np.concatenate([giants, rng.multinomial(3_000 - sum(giants), np.full(250, 1 / 250))])
        of_topic = np.stack([rng.multinomial(requests, np.full(4, 1 / 4)) for requests in n])
        called += estimate(of_buckets(n, of_topic[:, np.arange(64) % 4])).dependent
    assert called <= 4


def test_one_bucket_or_none_says_nothing() -> None:
    for n in ([0, 0], [0, 9]):
        assert np.isnan(estimate(of_buckets(np.array(n), np.zeros((2, 5), int))).deff)
