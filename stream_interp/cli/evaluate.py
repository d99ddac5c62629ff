"""`stream-interp evaluate`: planted drifts on real requests, the detector beside two dummies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_interp.cli.backtest import SaeOption
from stream_interp.cli.measuring import BaselineArgument, Measured, SeedOption, encoded, figures, learn
from stream_interp.cli.options import ConfigOption, JsonOption, SetOption
from stream_interp.cli.output import emit_json, emit_table, notice
from stream_interp.errors import UsageError

if TYPE_CHECKING:
    from stream_interp.evaluation.planted import Plant, Scored

MIN_DRIFT_REQUESTS = 20
MIXES = (0.05, 0.2, 1.0)


def evaluate(
    file: BaselineArgument,
    sae: SaeOption,
    drifted: Annotated[
        Path | None, typer.Argument(metavar="[DRIFTED]", help="Activations with drift, mixed into the others.")
    ] = None,
    mix: Annotated[
        list[float] | None,
        typer.Option(min=1e-6, max=1, help="Share of DRIFTED. May repeat. [default: 0.05, 0.2, 1]"),
    ] = None,
    ratio: Annotated[
        float | None, typer.Option(min=1e-6, help="Instead of DRIFTED: multiply rates of features; scores stay.")
    ] = None,
    features: Annotated[
        float | None, typer.Option(min=1e-6, max=1, help="With --ratio: share of the features that fire, by chance.")
    ] = None,
    draws: Annotated[int, typer.Option(min=20, help="Of each drift.")] = 20,
    before: Annotated[int, typer.Option(min=1, help="Requests before the change.")] = 1_000,
    horizon: Annotated[
        int | None, typer.Option(min=1, help="Requests after it; later is missed. [default: drift.sla_requests]")
    ] = None,
    window: Annotated[int, typer.Option(min=1, help="Requests a window.")] = 1,
    seed: SeedOption = 0,
    config: ConfigOption = None,
    sets: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Plants drifts of a chosen size on requests of the file's last third: how late, how often missed, how often false.

    Beside it two dummies, scored alike: what a dummy wins says nothing about a detector.
    """
    from stream_interp.evaluation import planted

    _check(drifted, mix, ratio, features)
    measured = learn(file, sae, window, config, sets)
    after = horizon or measured.drift.sla_requests
    reports = []
    for drift, plant in _plants(measured, drifted, mix or list(MIXES), ratio, features):
        scored = planted.evaluate(measured.detector, measured.null, plant, draws, before, after, seed)
        reports.append({**drift, "detectors": [_scored_report(one) for one in scored]})
    report = {
        "schema_version": 1,
        "file": str(file),
        "seed": seed,
        "draws": draws,
        "requests_before": planted.whole_windows(before, window),
        "horizon": after,
        "baseline": measured.described,
        "drifts": reports,
    }
    if json:
        emit_json(report)
    else:
        _show(report)


def _check(drifted: Path | None, mix: list[float] | None, ratio: float | None, features: float | None) -> None:
    by_file, by_ratio = drifted is not None, ratio is not None and features is not None
    other = (ratio, features) if by_file else (mix,)
    if by_file == by_ratio or any(option is not None for option in other):
        raise UsageError(
            "expected one kind of drift: DRIFTED, with --mix or without, or both --ratio and --features; "
            "such as --ratio 2 --features 0.01"
        )


def _plants(
    measured: Measured, drifted: Path | None, mixes: list[float], ratio: float | None, share: float | None
) -> list[tuple[dict[str, Any], Plant]]:
    """Each drift: what a report says of it, and how it is drawn."""
    from stream_interp.capture.files import read_activation_file
    from stream_interp.evaluation.planted import mixing, multiplying

    if drifted is not None:
        drift = encoded(read_activation_file(drifted), measured.learnt, measured.encoder, MIN_DRIFT_REQUESTS)
        return [
            ({"drift": f"{share:.4g} of {drifted.name}", "mix": share}, mixing(measured.null, drift, share))
            for share in mixes
        ]
    assert ratio is not None
    assert share is not None
    fire = (measured.detector.tests.rate_baseline > 0).nonzero()[0]
    count = max(1, round(share * len(fire)))
    if not len(fire):
        raise UsageError("no feature fired in the baseline; is it the SAE of this hook?")
    said = {"drift": f"rate × {ratio:g} of {count} features", "ratio": ratio, "features": count}
    return [(said, multiplying(measured.null, fire, count, ratio))]


def _scored_report(scored: Scored) -> dict[str, Any]:
    return {
        "name": scored.name,
        "missed_share": scored.missed_share,
        "false_alarms": scored.false_alarms,
        "delay_quantiles": scored.delays,
        "delays": [outcome.delay for outcome in scored.outcomes],
        "false_alarms_by_draw": [outcome.false_alarms for outcome in scored.outcomes],
    }


def _show(report: dict[str, Any]) -> None:
    notice(
        f"learned from {report['baseline']['requests']} requests; {report['draws']} draws of "
        f"{report['requests_before']} held-out requests, then {report['horizon']} of the drift; delays in requests"
    )
    rows = [
        [drift["drift"], one["name"], *figures(one["delay_quantiles"]), f"{one['missed_share']:.0%}",
         one["false_alarms"]]
        for drift in report["drifts"]
        for one in drift["detectors"]
    ]  # fmt: skip
    delays = ["best", "lower quartile", "median", "upper quartile", "worst"]
    emit_table("", ["drift", "detector", *delays, "missed", "false alarms"], rows)
