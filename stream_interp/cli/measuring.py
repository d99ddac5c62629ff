"""What `calibrate` and `evaluate` share: a lane that learned from two thirds of a file, and the last third."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from stream_interp.cli.configuration import load_settings
from stream_interp.cli.options import flags
from stream_interp.errors import UsageError
from stream_interp.settings import DriftSettings

if TYPE_CHECKING:
    from stream_interp.evaluation.alarms import Detector
    from stream_interp.evaluation.requests import Requests
    from stream_interp.offline import Learnt

BaselineArgument = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="Activations without drift: two thirds to learn from, the rest to measure on."),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of all draws; the same seed gives the same numbers.")]


class Measured(NamedTuple):
    """A lane that can be measured."""

    drift: DriftSettings
    encoder: Any
    learnt: Learnt
    detector: Detector
    null: Requests

    @property
    def described(self) -> dict[str, Any]:
        """For a report."""
        tests, header = self.detector.tests, self.learnt.state.baseline.header  # type: ignore[union-attr]
        return {
            "requests": header.fit_requests + header.requests,
            "held_out_requests": len(self.null),
            "window": self.detector.window,
            "requests_per_week": self.drift.requests_per_week,
            "false_alarms_per_week": self.drift.false_alarms_per_week,
            "features_armed": tests.features_armed,
            "features_not_covered": tests.features_not_covered,
            "thresholds_weeks": tests.thresholds,
        }


def learn(file: Path, sae: Path, window: int, config: Path | None, sets: list[str] | None) -> Measured:
    """Learns from a file's beginning and encodes its end, once."""
    from stream_interp import offline
    from stream_interp import sae as saes
    from stream_interp.evaluation.alarms import Detector
    from stream_interp.records.lane import Lane

    settings = load_settings(config, flags(sets, drift__clock="requests"))
    first, held_out = offline.hold_out(file)
    encoder = saes.load_encoder(sae, device=settings.sae.device)
    hook = encoder.config.hook_name or "file"
    lane = Lane(model_id="measured", hook_name=hook, sae_fingerprint=encoder.fingerprint)
    version = time.time_ns() // 1_000_000
    learnt = offline.learn(first, lane, encoder, settings.drift, version, unit=settings.unit)
    assert learnt.state.tests is not None
    detector = Detector(learnt.state.tests, settings.drift.requests_per_week, window)
    null = encoded(held_out, learnt, encoder, offline.MIN_HELD_OUT_REQUESTS)
    return Measured(settings.drift, encoder, learnt, detector, null)


def encoded(file: Any, learnt: Learnt, encoder: Any, needed: int) -> Requests:
    """The requests of a file that count; of fewer than `needed`, draws would say little.

    Raises:
        UsageError: there are fewer.
    """
    from stream_interp import offline
    from stream_interp.evaluation.requests import requests_from

    found = requests_from(offline.requests_of(file, learnt, encoder))
    if len(found) < needed:
        raise UsageError(
            f"{file.path}: of {file.requests} requests to draw from {len(found)} count, the others are too short; "
            f"needed are {needed}; capture more"
        )
    return found


def figures(quantiles: dict[str, float | None]) -> list[object]:
    """The cells of a distribution: None, which is shown as a dash, where there is no number."""
    return [None if value is None else f"{value:.4g}" for value in quantiles.values()]
