import numpy as np
from scipy.stats import ks_2samp

from stream_interp.demo.applications import COLUMNS, after_market_shift, batches, sample

SHIFTED = {"salary": -1, "commission": -1, "hvalue": -1, "age": -1, "loan": 1}


def test_the_shift_moves_the_attributes_it_names_and_no_other():
    before, _ = sample(2_000, seed=3)
    other_applicants, _ = sample(2_000, seed=4)
    after = after_market_shift(other_applicants)
    for column, name in enumerate(COLUMNS):
        if name in SHIFTED:
            assert ks_2samp(before[:, column], after[:, column]).pvalue < 1e-20, name
            assert np.sign(after[:, column].mean() - before[:, column].mean()) == SHIFTED[name]
        else:
            assert np.array_equal(other_applicants[:, column], after[:, column]), name


def test_without_the_shift_two_seeds_are_one_distribution():
    before, other = sample(2_000, seed=3)[0], sample(2_000, seed=4)[0]
    assert min(ks_2samp(before[:, c], other[:, c]).pvalue for c in range(len(COLUMNS))) > 1e-4


def test_shifted_applications_stay_plausible_and_the_given_rows_untouched():
    rows, _ = sample(500, seed=5)
    copy = rows.copy()
    after = after_market_shift(rows)
    assert np.array_equal(rows, copy)
    assert (after >= 0).all()
    assert after[:, COLUMNS.index("age")].min() >= 20
    assert after[:, COLUMNS.index("loan")].max() <= 750_000


def test_a_stream_goes_on_where_its_last_batch_ended():
    stream = batches(seed=6, size=4)
    rows = np.concatenate([next(stream), next(stream), next(stream)])
    assert np.array_equal(rows, sample(12, seed=6)[0])


def test_half_of_the_applications_are_risks():
    assert 0.45 < sample(4_000, seed=7)[1].mean() < 0.55
