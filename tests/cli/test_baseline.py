"""Baselines compared, and which of them a word or `rollback` means."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import structs

from stream_interp.cli.baseline import card
from stream_interp.cli.baseline_diff import compare, moved_features
from stream_interp.cli.baseline_show import rows
from stream_interp.cli.versions import Versions
from stream_interp.detect.card import rare_features
from stream_interp.errors import IntegrityError, UsageError
from stream_interp.records.control import Versioned, make_control, read_baseline
from stream_interp.records.status import BaselineCard
from tests.topics.samples import BASELINE, LANE, PROJECTOR, STATUS

LANE_ID = LANE.lane_id


def version_of(version, lane=LANE):
    header, arrays = read_baseline(BASELINE)
    return make_control("baseline", structs.replace(header, version=version, lane=lane), arrays, "ada", "why")


def versions(*numbers, in_effect=0):
    card = BaselineCard(version=in_effect, requests=1, tokens=1, provisional=False) if in_effect else None
    status = structs.replace(STATUS, baseline=card, lane=LANE)
    return Versions([PROJECTOR, *map(version_of, numbers)], {LANE_ID: status})


def test_rollback_goes_before_the_one_in_effect():
    assert versions(1, 2, 3, in_effect=3).before(LANE_ID).manifest.version == 2
    assert versions(3, 1, 2, in_effect=2).before(LANE_ID).manifest.version == 1


def test_after_relearn_rollback_goes_to_the_newest():
    assert versions(1, 2, 3).before(LANE_ID).manifest.version == 3


def test_with_nothing_before_it_says_so():
    with pytest.raises(UsageError, match="its only one is 5, in effect"):
        versions(5, in_effect=5).before(LANE_ID)
    with pytest.raises(UsageError, match="it has none"):
        versions().before(LANE_ID)


def test_an_unknown_version_lists_those_there_are():
    with pytest.raises(UsageError, match=r"has no baseline 9; expected one of: 1 \(1970.*by ada\), 2"):
        versions(1, 2).one(LANE_ID, 9)
    assert versions(1, 2).one(LANE_ID, 2).manifest.version == 2


def test_lanes_are_found_by_prefix_and_without_a_status():
    only_control = Versions([version_of(1)], {})
    assert only_control.lane(LANE_ID[:4]) == LANE
    assert only_control.in_effect(LANE_ID) == 0
    with pytest.raises(UsageError, match=LANE_ID):
        only_control.lane("zzz")


def test_a_baseline_that_cannot_be_read_is_left_out(caplog):
    broken = Versioned(structs.replace(BASELINE.manifest, version=8), b"not safetensors")
    known = Versions([version_of(1), broken], {})
    assert [c.manifest.version for c in known.baselines()] == [1]
    assert "baseline 8" in caplog.text


def test_every_kind_of_record_counts_for_the_newest_version():
    assert versions(PROJECTOR.manifest.version + 5).newest(LANE_ID) == PROJECTOR.manifest.version + 5
    assert versions(1).newest(LANE_ID) == PROJECTOR.manifest.version
    assert versions(1).newest("none") == 0


def test_only_what_chance_does_not_explain_has_moved():
    before = np.array([100, 500, 0, 10, 1000])
    after = np.array([400, 510, 60, 11, 100])
    moved = moved_features(before, 1_000, after, 1_000)
    assert [m.feature for m in moved] == [4, 2, 0]
    last = moved[-1]
    assert (last.before, last.after) == (0.1, 0.4)
    assert (
        last.before_interval[0] < 0.1 < last.before_interval[1] < last.after_interval[0] < 0.4 < last.after_interval[1]
    )
    assert last.at_least == pytest.approx(last.after_interval[0] / last.before_interval[1])


def test_two_samples_of_the_same_rates_move_in_no_more_than_delta_of_the_cases():
    rng = np.random.default_rng(7)
    rates = rng.uniform(0.001, 0.6, 500)
    wrong = sum(
        bool(moved_features(rng.binomial(800, rates), 800, rng.binomial(2_000, rates), 2_000)) for _ in range(200)
    )
    assert wrong <= 2  # P(≥ 3 | 200 · 0.001) < 0.002


def test_no_requests_and_no_features_are_no_fault():
    assert moved_features(np.zeros(3, int), 0, np.array([5, 0, 5]), 5) == []
    assert moved_features(np.zeros(0, int), 10, np.zeros(0, int), 10) == []


def test_another_number_of_features_is_said():
    with pytest.raises(IntegrityError, match="do not promote it"):
        moved_features(np.zeros(3, int), 10, np.zeros(4, int), 10)


def test_a_comparison_has_both_cards_and_medians_without_nan():
    header, arrays = read_baseline(BASELINE)
    nothing = {**arrays, "calibration_scores": np.full_like(arrays["calibration_scores"], np.nan)}
    report = compare((header, arrays), (header, nothing))
    assert report["before"]["version"] == header.version
    assert all(after is None for _, after in report["score_medians"].values())
    assert report["features_moved"] == 0


def shown(record):
    return "\n".join(f"{name}: {value}" for name, value in rows(record, read_baseline(record)[0]))


def test_the_card_says_what_it_was_counted_from_and_what_it_cannot_see():
    text = shown(BASELINE)
    assert LANE.sae_fingerprint in text
    assert f"model revision: {LANE.model_revision}" in text
    assert BASELINE.manifest.sha256 in text
    assert "requests: 3 counted, 0 too short; provisional" in text
    assert "offsets 17 to 39" in text
    assert "50% of features: 5 or less; 90% of features: none up to 64" in text
    assert (
        "not covered: 8 features, which fired in fewer than 10 requests: they are tested only for firing more often"
        in text
    )
    assert "p = 0.410" in text
    assert "doubtful" not in text
    whole = card(BASELINE)
    assert (whole["sight"]["features_rare"], whole["code_version"]) == (8, "0.1.0")


def test_a_doubtful_baseline_is_marked_and_one_of_before_says_nothing():
    header, arrays = read_baseline(BASELINE)
    doubtful = structs.replace(
        header, stationary_p=0.02, design_effect=1.1, design_effect_of_groups=1.7, dependent=True
    )
    text = shown(make_control("baseline", doubtful, arrays, "ada", "why"))
    assert "p = 0.020: doubtful" in text
    assert "1.10 in their order, 1.70 by group key: its requests are not independent" in text
    old = structs.replace(
        header, stationary_p=None, sight=None, first_closed_at_ms=0, code_version="", unit_tokens=0, strata={}
    )
    text = shown(make_control("baseline", old, arrays, "ada", "why"))
    assert "one distribution: None" in text
    assert "sees: " not in text


def test_the_rare_features_are_those_with_fewer_firings_than_are_tested_both_ways():
    assert rare_features({"requests_fired": np.array([0, 9, 10, 500])}) == [0, 1]


@pytest.mark.parametrize(
    ("segments", "shown"),
    [
        ({}, None),
        ({"cards": 5, "lo\x1b[31mans": 1_200}, '"lo\ufffd[31mans" 1,200, "cards" 5'),
        ({f"s{k}": 20 - k for k in range(10)}, ", ".join(f'"s{k}" {20 - k}' for k in range(8)) + " and 2 more"),
    ],
)
def test_segments_are_shown_the_largest_first(segments, shown):
    header = structs.replace(read_baseline(BASELINE)[0], segments=segments)
    assert dict(rows(BASELINE, header))["segments"] == shown
