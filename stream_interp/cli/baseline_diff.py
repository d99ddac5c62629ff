"""`stream-interp baseline diff`: what two baselines of a lane disagree on, beyond what chance explains."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from msgspec import Struct

from stream_interp.cli.configuration import load_settings
from stream_interp.cli.options import BootstrapOption, ConfigOption, JsonOption, SetOption, flags
from stream_interp.cli.output import emit_json, emit_table, emit_text, notice
from stream_interp.cli.versions import Versions, read_versions
from stream_interp.drift.intervals import DELTA, clopper_pearson, vouched_ratio
from stream_interp.errors import IntegrityError, UsageError
from stream_interp.records.arrays import Arrays
from stream_interp.records.control import BaselineHeader, Versioned, read_baseline, read_projector
from stream_interp.records.promotion import find_version
from stream_interp.records.window import SCORES, widened

TOP_FEATURES = 20
HEADER = ("requests", "fit_requests", "tokens", "too_short", "provisional", "projector_version", "compute_dtype")
HEALTH = ("explained_variance", "l0", "norm", "massive_share")


class Moved(Struct, frozen=True, kw_only=True):
    """A feature whose two intervals do not touch. Rates are shares of requests in which it fired."""

    feature: int
    before: float
    before_interval: tuple[float, float]
    after: float
    after_interval: tuple[float, float]
    at_least: float  # the ratio of the nearest ends of the intervals: what the data vouch for


def diff(
    lane: Annotated[str, typer.Argument(help="Its id, the beginning of it, or its model; see `baseline list`.")],
    v1: Annotated[int | None, typer.Argument(help="Default: the one before the one in effect.")] = None,
    v2: Annotated[int | None, typer.Argument(help="Default: the one in effect.")] = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """Two baselines of a lane side by side: counts, health, scores, and the features whose rate moved."""
    versions = read_versions(load_settings(config, flags(sets, bootstrap=bootstrap)).kafka)
    lane_id = versions.lane(lane).lane_id
    before, after = _pair(versions, lane_id, v1, v2)
    report = compare(read_baseline(before), read_baseline(after))
    unit_tokens = [_unit_tokens(versions, record) for record in (before, after)]
    if json:
        emit_json({"schema_version": 1, "lane_id": lane_id, "unit_tokens": unit_tokens, **report})
    else:
        _show(report, unit_tokens)


def compare(before: tuple[BaselineHeader, Arrays], after: tuple[BaselineHeader, Arrays]) -> dict[str, Any]:
    """What they disagree on. Raises IntegrityError where they cannot be compared."""
    (one, one_arrays), (two, two_arrays) = before, after
    both = one_arrays, two_arrays
    moved = moved_features(one_arrays["requests_fired"], one.requests, two_arrays["requests_fired"], two.requests)
    return {
        "before": msgspec.to_builtins(one),
        "after": msgspec.to_builtins(two),
        "score_medians": {
            name: [_median(widened(arrays["calibration_scores"], len(SCORES))[:, k]) for arrays in both]
            for k, name in enumerate(SCORES)
        },
        "features": len(one_arrays["requests_fired"]),
        "features_moved": len(moved),
        "moved_most": moved[:TOP_FEATURES],
    }


def moved_features(
    fired_before: np.ndarray[Any, Any], n_before: int, fired_after: np.ndarray[Any, Any], n_after: int
) -> list[Moved]:
    """Features whose exact intervals are disjoint, the largest vouched-for ratio first.

    The intervals hold for all features of both baselines together with probability 1 - DELTA.

    Args:
        fired_before, fired_after: [d_sae] requests in which each feature fired.
        n_before, n_after: requests.

    Raises:
        IntegrityError: another number of features.
    """
    if fired_before.shape != fired_after.shape:
        raise IntegrityError(
            f"one baseline has {len(fired_before)} features and the other {len(fired_after)}; expected the same SAE in "
            "both. One of them was not made for this lane: do not promote it"
        )
    alpha = DELTA / max(4 * len(fired_before), 1)
    low_1, high_1 = clopper_pearson(fired_before, n_before, alpha)
    low_2, high_2 = clopper_pearson(fired_after, n_after, alpha)
    ratio = vouched_ratio((low_1, high_1), (low_2, high_2))
    order = np.argsort(-ratio, kind="stable")
    rate_1, rate_2 = fired_before / max(n_before, 1), fired_after / max(n_after, 1)
    return [
        Moved(
            feature=int(f), before=float(rate_1[f]), after=float(rate_2[f]),
            before_interval=(float(low_1[f]), float(high_1[f])), after_interval=(float(low_2[f]), float(high_2[f])),
            at_least=float(ratio[f]),
        )
        for f in order if ratio[f] > 1
    ]  # fmt: skip


def _pair(versions: Versions, lane_id: str, v1: int | None, v2: int | None) -> tuple[Versioned, Versioned]:
    current = versions.in_effect(lane_id)
    if v2 is None and not current:
        raise UsageError(
            f"no baseline is in effect on lane {lane_id}; name both: stream-interp baseline diff LANE V1 V2"
        )
    before = versions.before(lane_id) if v1 is None else versions.one(lane_id, v1)
    return before, versions.one(lane_id, current if v2 is None else v2)


def _unit_tokens(versions: Versions, baseline: Versioned) -> int | None:
    header, _ = read_baseline(baseline)
    found = find_version(versions.controls, "projector", header.lane.lane_id, header.projector_version)
    return read_projector(found)[0].unit_tokens if found is not None else None


def _median(scores: np.ndarray[Any, Any]) -> float | None:
    finite = scores[np.isfinite(scores)]
    return float(np.median(finite)) if len(finite) else None


def _show(report: dict[str, Any], unit_tokens: list[int | None]) -> None:
    before, after = report["before"], report["after"]
    rows: list[list[object]] = [["version", before["version"], after["version"]]]
    rows += [[name, before[name], after[name]] for name in HEADER]
    rows += [["unit_tokens", *unit_tokens]]
    rows += [[name, _number(before[name]), _number(after[name])] for name in HEALTH]
    rows += [[f"median {name}", *map(_number, pair)] for name, pair in report["score_medians"].items()]
    emit_table("", ["", "before", "after"], rows)
    emit_text(f"{report['features_moved']} of {report['features']} features moved beyond both intervals")
    if report["moved_most"]:
        columns = ["feature", "rate before", "interval", "rate after", "interval", "ratio at least"]
        emit_table("", columns, [_row(moved) for moved in report["moved_most"]])
    if before["projector_version"] != after["projector_version"]:
        notice("the projectors differ: mahalanobis_sq and surprise are measured by other scales on each side")
    if before["compute_dtype"] != after["compute_dtype"]:
        notice("the SAE multiplies in other numbers on each side: features near their threshold fire at other rates")
    if None not in unit_tokens and len(set(unit_tokens)) > 1:
        notice("unit_tokens differ: rates count the first so many tokens of a request, so longer ones are higher")


def _row(moved: Moved) -> list[object]:
    return [
        moved.feature, f"{moved.before:.2%}", _interval(moved.before_interval), f"{moved.after:.2%}",
        _interval(moved.after_interval), f"{moved.at_least:.2f}",
    ]  # fmt: skip


def _interval(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.2%} to {ends[1]:.2%}"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"
