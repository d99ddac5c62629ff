"""Request-level tests: valid bounds, ties, missing scores; silent on null traffic, awake after long drift."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, binomtest

from stream_interp.drift import budget, esr, exceedance, intervals


def test_clopper_pearson_equals_scipy() -> None:
    k = np.array([0, 1, 7, 99, 100])
    low, high = intervals.clopper_pearson(k, 100, 0.005)
    for i, successes in enumerate(k):
        exact = binomtest(int(successes), 100).proportion_ci(0.99, "exact")
        assert low[i] == pytest.approx(exact.low)
        assert high[i] == pytest.approx(exact.high)


def test_clopper_pearson_of_nothing_says_nothing() -> None:
    low, high = intervals.clopper_pearson(np.zeros(3, np.int64), 0, 0.001)
    assert (low == 0).all()
    assert (high == 1).all()


def test_exceedance_bound_is_the_beta_quantile() -> None:
    assert intervals.exceedance_bound(3, 200, 1e-4) == pytest.approx(beta.ppf(1 - 1e-4, 4, 197))
    assert intervals.exceedance_bound(200, 200, 1e-4) == 1.0


@pytest.mark.statistical
def test_the_bound_holds_over_the_draw_of_the_calibration_set() -> None:
    rng = np.random.default_rng(0)
    n, k, alpha, draws = 200, 12, 0.05, 20_000
    exceed = 1 - np.sort(rng.random((draws, n)), axis=1)[:, -(k + 1)]
    bound = intervals.exceedance_bound(k, n, alpha)
    assert 0.8 * alpha <= (exceed > bound).mean() <= 1.1 * alpha


def test_small_sets_leave_ranks_out_and_unknown_scores_unarmed() -> None:
    scores = np.column_stack([np.arange(60.0), np.full(60, np.nan)]).astype(np.float32)
    tests = exceedance.build(scores, [(0, 1), (0, -1), (1, 1)], 1e-4)
    assert tests.armed.tolist() == [True, True, False]
    assert tests.usable[0].tolist() == [True, True, True, False, False]
    assert tests.thresholds[0, 0] == 59 * (1 + exceedance.TIE)
    assert tests.thresholds[1, 0] == 0  # sign·score: the smallest score


def test_rounding_of_one_and_the_same_score_exceeds_nothing() -> None:
    """Another batch size or device sums in another order: a constant score must not alarm by its last bits."""
    one = np.float32(0.3)
    tests = exceedance.build(np.full((500, 1), one, np.float32), [(0, 1), (0, -1)], 1e-4)
    last_bits = np.array([[one + 8 * np.spacing(one)], [one - 8 * np.spacing(one)]], np.float32)
    assert not exceedance.exceeds(tests, last_bits).any()
    assert exceedance.exceeds(tests, np.array([[0.31]], np.float32))[0, 0, 0]


def test_infinite_calibration_scores_count() -> None:
    """One in twenty requests has an infinite score (error share of all-zero activations): live ones are no news."""
    rng = np.random.default_rng(3)
    scores = rng.standard_normal((1_200, 1)).astype(np.float32)
    scores[::20] = np.inf
    tests = exceedance.build(scores, [(0, 1)], 1e-5)
    rates = exceedance.exceeds(tests, scores)[:, 0].mean(axis=0)
    assert not tests.usable[0, 0]
    assert (rates[tests.usable[0]] <= tests.null_rates[0][tests.usable[0]]).all()


def test_ties_and_nan_exceed_nothing() -> None:
    tests = exceedance.build(np.ones((500, 1), np.float32), [(0, 1)], 1e-4)
    over = exceedance.exceeds(tests, np.array([[1.0], [np.nan], [1.5]], np.float32))
    assert not over[0].any()
    assert not over[1].any()
    assert over[2].all()


def test_the_first_threshold_has_half_of_what_bounds_and_mean_share_out() -> None:
    scores = np.random.default_rng(5).standard_normal((1_200, 2)).astype(np.float32)
    tests = exceedance.build(scores, [(0, 1), (1, -1)], 1e-3)
    for rates in tests.null_rates:
        alphas = 1 - beta.cdf(rates, np.array(exceedance.RANKS) + 1, 1_200 - np.array(exceedance.RANKS))
        np.testing.assert_allclose(alphas, 1e-3 / 2 * np.array([8, 4, 2, 1, 1]) / 16, rtol=1e-6)
    m = np.random.default_rng(6).exponential(size=(8, 10))
    slow = [sum(w * m[:, 5 * k + j].mean() for j, w in enumerate((8, 4, 2, 1, 1))) / 16 for k in range(2)]
    np.testing.assert_allclose(exceedance.value(tests, m), slow, rtol=1e-12)


def test_weights_of_thresholds_that_are_not_usable_go_to_the_others() -> None:
    tests = exceedance.build(np.arange(60, dtype=np.float32)[:, None], [(0, 1)], 1e-4)
    assert tests.usable[0].tolist() == [True, True, True, False, False]
    np.testing.assert_allclose(exceedance.value(tests, np.full((8, 5), 3.0)), [3.0])
    m = np.zeros((8, 5))
    m[:, 0] = 7.0
    np.testing.assert_allclose(exceedance.value(tests, m), [4.0])  # 8 of 8 + 4 + 2


@pytest.mark.statistical
@pytest.mark.parametrize("n_calibration", [200, 1_200])
def test_null_lanes_stay_within_the_budget_and_a_long_drift_stays_seen(n_calibration: int) -> None:
    """25 lanes × 4,000 null requests, at a budget of one alarm in 10,000 requests: ≤ 10 expected in all."""
    rng = np.random.default_rng(n_calibration)
    per_request, alarms, lanes, requests = 1 / 10_000, 0, 25, 4_000
    for _ in range(lanes):
        tests = exceedance.build(rng.standard_normal((n_calibration, 1)).astype(np.float32), [(0, 1)], 1e-4)
        alarms += _alarms(tests, rng.standard_normal((requests, 1)), per_request)
    assert alarms <= lanes * requests * per_request
    drifted = rng.normal(1.5, 1, (3_000, 1))
    tests = exceedance.build(rng.standard_normal((n_calibration, 1)).astype(np.float32), [(0, 1)], 1e-4)
    assert _alarms(tests, drifted, per_request) > 0
    assert _alarms(tests, drifted[-500:], per_request) > 0  # nothing was absorbed


def _alarms(tests: exceedance.Exceedance, scores: np.ndarray, per_request: float) -> int:
    m, alarms = exceedance.initial(tests), 0
    for over in exceedance.exceeds(tests, scores.astype(np.float32)):
        m = exceedance.path(tests, m, over[None], per_request)[-1]
        if exceedance.value(tests, m)[0] >= 1.0:
            m, alarms = exceedance.initial(tests), alarms + 1
    return alarms


@pytest.mark.parametrize("requests", [1, 40, 600])
@pytest.mark.parametrize("start", [0.0, 1e-3, 1e200, esr.CEILING])
@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
def test_a_path_equals_its_requests_one_by_one_bit_for_bit(requests: int, start: float, share: float) -> None:
    """From nothing to saturation: within one path, across two, and from a state that is there already."""
    rng = np.random.default_rng(4)
    tests = exceedance.build(rng.standard_normal((1_200, 2)).astype(np.float32), [(0, 1), (0, -1), (1, 1)], 1e-5)
    m = slow = np.full_like(exceedance.initial(tests), start)
    log_norm = esr.log_normaliser(tests.null_rates.ravel(), "up")
    for _ in range(2):
        over = rng.random((requests, 3, len(exceedance.RANKS))) < share
        path = exceedance.path(tests, m, over, 1e-5)
        for i, exceeded in enumerate(over.reshape(requests, -1)):
            log_l = np.where(exceeded, exceedance.LOG_ODDS[:, None] - log_norm, -log_norm)
            with np.errstate(over="ignore"):
                slow = np.minimum((slow + 1e-5) * np.exp(log_l), esr.CEILING)
            np.testing.assert_array_equal(path[i], slow)
        m = path[-1]
    assert share < 1 or requests < 600 or (slow[-1, tests.usable.ravel()] == esr.CEILING).all()


@pytest.mark.filterwarnings("error")
def test_of_no_time_there_is_no_evidence() -> None:
    """As when the clock of the first window of an armed lane stands still."""
    tests = exceedance.build(np.random.default_rng(5).standard_normal((1_200, 1)).astype(np.float32), [(0, 1)], 1e-5)
    over = np.ones((400, 1, len(exceedance.RANKS)), np.bool_)
    assert not exceedance.path(tests, exceedance.initial(tests), over, 0.0).any()


def test_shares_of_the_budget_add_up_to_one() -> None:
    for armed in ({"t0": 3}, {"t0": 3, "features": 9_000, "health": 4}, {"features": 1, "health": 0}):
        a_weeks = budget.thresholds(armed, 2.0)
        assert sum(armed[group] / a for group, a in a_weeks.items()) == pytest.approx(2.0)
    assert budget.thresholds({}, 1.0) == {}
