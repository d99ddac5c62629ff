"""`stream-interp calibrate`: false alarms against the budget, and what the lane's tests can see how soon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_interp.cli.backtest import SaeOption
from stream_interp.cli.measuring import BaselineArgument, Measured, SeedOption, figures, learn
from stream_interp.cli.options import ConfigOption, JsonOption, SetOption
from stream_interp.cli.output import emit_json, emit_table, notice

if TYPE_CHECKING:
    from stream_interp.evaluation.null import NullReplay

RATIOS = (1.5, 2.0, 5.0)
VERDICTS = {
    "within": "within the budget",
    "undecided": "consistent with the budget, but too few to tell; more --draws would",
    "exceeded": "more than the budget: the file's end may not be like its beginning, or is too short to stand for it",
}


def calibrate(
    file: BaselineArgument,
    sae: SaeOption,
    draws: Annotated[int, typer.Option(min=1, help="Null replays, each from fresh evidence.")] = 30,
    requests: Annotated[int | None, typer.Option(min=1, help="Requests a draw. [default: those of a week]")] = None,
    window: Annotated[int, typer.Option(min=1, help="Requests a window; 1 is slowest.")] = 64,
    seed: SeedOption = 0,
    config: ConfigOption = None,
    sets: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Replays requests without drift for weeks of traffic and counts the alarms; says what the tests can see.

    Learns from the first two thirds of the file as `baseline build` does. The last third is the null: requests of it,
    drawn with replacement. The interval is of these draws: it speaks of this baseline and of these requests, as if
    successive requests had nothing in common.
    """
    from stream_interp.evaluation.null import replay_null

    measured = learn(file, sae, window, config, sets)
    drift = measured.drift
    a_draw = requests or max(1, round(drift.requests_per_week))
    replay = replay_null(measured.detector, measured.null, draws, a_draw, seed, drift.false_alarms_per_week)
    report = {
        "schema_version": 1,
        "file": str(file),
        "seed": seed,
        "baseline": measured.described,
        "null": _null_report(replay, a_draw),
        **_coverage(measured),
    }
    if json:
        emit_json(report)
    else:
        _show(report)


def _null_report(replay: NullReplay, requests: int) -> dict[str, Any]:
    from stream_interp.evaluation.null import CONFIDENCE

    return {
        "draws": len(replay.by_draw),
        "requests_a_draw": requests,
        "alarms": replay.alarms,
        "alarms_of_budget": replay.nominal,
        "ratio": replay.alarms / replay.nominal,
        "ratio_interval": replay.ratio_interval,
        "confidence": CONFIDENCE,
        "verdict": replay.verdict,
        "alarms_by_draw": replay.by_draw,
        "alarms_by_group": replay.by_group,
    }


def _coverage(measured: Measured) -> dict[str, Any]:
    """The detectable ratio of each feature, and the expected delay of those covered, by Wald's approximation."""
    import numpy as np

    from stream_interp.detect.armed.coverage import expected_delay
    from stream_interp.detect.armed.features import RATES
    from stream_interp.evaluation.quantiles import quantiles

    tests, baseline = measured.detector.tests, measured.learnt.state.baseline
    assert baseline is not None
    ratio, requests = tests.detectable_ratio, baseline.header.requests
    covered = np.isfinite(ratio)
    rate, a_weeks = np.maximum(tests.rate_baseline, 0.5 / max(requests, 1)), tests.a_weeks("features")
    delays = {
        (kind.direction, r): expected_delay(tests.unit.features[str(kind)], rate, r, a_weeks, measured.drift)[covered]
        for kind in RATES
        for r in RATIOS
    }
    return {
        "detectable_ratio": {
            "within_requests": measured.drift.sla_requests,
            "covered": int(covered.sum()),
            "not_covered": int((~covered).sum()),
            "quantiles": quantiles(ratio[covered]),
            "by_feature": [float(r) if np.isfinite(r) else None for r in ratio],
        },
        "expected_delay_requests": [
            {"direction": d, "ratio": r, "never": int(np.isinf(found).sum()), "quantiles": quantiles(found)}
            for (d, r), found in delays.items()
        ],
    }


def _show(report: dict[str, Any]) -> None:
    null, base, seen = report["null"], report["baseline"], report["detectable_ratio"]
    low, high = null["ratio_interval"]
    groups = ", ".join(f"{group} {count}" for group, count in null["alarms_by_group"].items())
    notice(
        f"learned from {base['requests']} requests; null: {base['held_out_requests']} held-out requests, drawn "
        f"{null['draws']} × {null['requests_a_draw']} times with replacement, {base['window']} a window"
    )
    emit_table(
        "",
        ["alarms", "budget", "ratio", "95 % interval", "by group"],
        [[null["alarms"], f"{null['alarms_of_budget']:.4g}", f"{null['ratio']:.3g}", f"{low:.3g} to {high:.3g}",
          groups or None]],
    )  # fmt: skip
    notice(f"verdict: {VERDICTS[null['verdict']]}")
    columns = ["best", "lower quartile", "median", "upper quartile", "worst"]
    rows: list[list[object]] = [
        [f"detectable ratio within {seen['within_requests']} requests", *figures(seen["quantiles"]), None]
    ]
    for delay in report["expected_delay_requests"]:
        sign = "×" if delay["direction"] == "up" else "÷"
        rows.append([f"expected delay, rate {sign} {delay['ratio']:g}", *figures(delay["quantiles"]), delay["never"]])
    emit_table("", [f"of {seen['covered']} covered features", *columns, "never"], rows)
    notice(f"{seen['not_covered']} features are not covered: no change of up to 64-fold is seen in that time")
