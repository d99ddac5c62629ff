"""The same pure pipeline without Kafka: activation files → requests → windows → `step`. Backtests and baselines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from msgspec import structs

from stream_interp.capture.files import ActivationFile, FileRequest, read_activation_file
from stream_interp.detect import health
from stream_interp.detect.alerts import feature_drifts
from stream_interp.detect.crossings import parse
from stream_interp.detect.health import HealthSums
from stream_interp.detect.learning import FIT_SHARE
from stream_interp.detect.listed import SCORES_KIND
from stream_interp.detect.state import DetectSettings, LaneState
from stream_interp.detect.step import StepResult, end_phase, new_lane, step
from stream_interp.encode.encoder import Encoder, encode_batch
from stream_interp.encode.requests import LaneShape, Request, shape_of
from stream_interp.encode.window import OpenWindow
from stream_interp.errors import UsageError
from stream_interp.records.alert import Alert, FeatureDrift, Position
from stream_interp.records.arrays import widen_bfloat16
from stream_interp.records.control import Versioned, read_projector
from stream_interp.records.lane import Lane
from stream_interp.records.snapshot import MAX_VALUE, has_non_finite
from stream_interp.records.window import CutRef, Window
from stream_interp.settings import DriftSettings, UnitSettings

BATCH_REQUESTS = 64  # encoded at once; decisions do not depend on it
MIN_BASELINE_REQUESTS = 50
HELD_OUT_SHARE = 1 / 3  # of a file, its end, where a detector is measured on requests that it did not learn from
MIN_HELD_OUT_REQUESTS = 50
STEP_MS = 1_000  # offline time: one second a request, so that versions and `at_ms` rise
AUTHOR = "baseline build"
DEFAULT_UNIT = UnitSettings()
T = TypeVar("T")


@dataclass(frozen=True)
class Learnt:
    """A lane armed from a file, and the control records that arm it anywhere else."""

    state: LaneState
    projector: Versioned
    baseline: Versioned
    requests: int
    tokens: int


class DetectionKey(NamedTuple):
    """A test that an incident lists."""

    incident: int
    feature: int
    stratum: str
    measure: str
    direction: str


@dataclass
class Replay:
    """What one stream did to a lane.

    Attributes:
        alerts: each with the request of this stream at which it came.
        detections: each with the request of this stream.
    """

    state: LaneState
    requests: int = 0
    tokens: int = 0
    alerts: list[tuple[int, Alert]] = field(default_factory=list)
    detections: dict[DetectionKey, tuple[int, FeatureDrift]] = field(default_factory=dict)
    health: HealthSums | None = None


def learn(
    source: Path | ActivationFile,
    lane: Lane,
    sae: Encoder | None,
    drift: DriftSettings,
    version: int,
    massive: str = "share",
    reason: str = "",
    author: str = AUTHOR,
    unit: UnitSettings = DEFAULT_UNIT,
) -> Learnt:
    """A baseline from a file: the first fifth of its requests is *fit*, the rest *calibrate* (design §4).

    Requests below unit_tokens are in neither: the baseline rests on as many as count.

    Args:
        source: a file, or a part of one that is open.
        version: of projector and baseline, Unix epoch ms.
        reason: for those who read the baseline later.
        author: who made it, as claimed.
        unit: what of a request is judged together.

    Raises:
        UsageError: the file is too small, of another width than the SAE, holds values that are not finite, or its
            requests are not one distribution.
    """
    file = source if isinstance(source, ActivationFile) else read_activation_file(source)
    path = file.path
    if file.requests < MIN_BASELINE_REQUESTS:
        raise UsageError(f"{path}: {file.requests} requests; a baseline needs at least {MIN_BASELINE_REQUESTS}")
    settings = DetectSettings(drift=drift, baseline_requests=file.requests, unit=unit)
    state = new_lane(lane, settings, Position(partition=0, offset=-1))
    projector = baseline = None
    shape = shape_of(lane, None, massive)
    requests = file.iter_requests()
    for phase_requests in (int(file.requests * FIT_SHARE), file.requests):  # ENCODE cuts before it switches
        phase, result = state.phase, StepResult(state)
        items = islice(requests, phase_requests)
        for window in _windows(items, file, shape, sae, state.position.offset, version):
            result = step(result.state, window, Position(partition=0, offset=window.header.cut.b - 1), version)
        if result.state.phase == phase:  # some did not count: the file's share ends the phase, not the number
            _require_counted(path, result.state, file.requests)
            result = end_phase(result.state)
        state = result.state
        for control in result.controls:
            if control.manifest.kind == "projector":
                projector, shape = control, shape_of(lane, read_projector(control), massive)
            else:
                baseline = control
    if projector is None or baseline is None:
        raise UsageError(
            f"{path}: refused: not stationary: its requests are not one distribution in their order; "
            "shuffle them, or leave out the part that differs"
        )
    signed = [_signed(record, author, reason or f"baseline build from {path.name}") for record in (projector, baseline)]
    return Learnt(state, signed[0], signed[1], file.requests, file.tokens)


def _require_counted(path: Path, state: LaneState, requests: int) -> None:
    """Enough for what a baseline at least needs of its phase."""
    share = FIT_SHARE if state.phase == "fit" else 1 - FIT_SHARE
    if state.requests < share * MIN_BASELINE_REQUESTS:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(state.reasons.items()))
        raise UsageError(
            f"{path}: of {requests} requests too few count ({state.requests} in {state.phase}; {reasons}); "
            f"a baseline needs {MIN_BASELINE_REQUESTS}"
        )


def _signed(record: Versioned, author: str, reason: str) -> Versioned:
    """The record as an operator's; DETECT writes a marker for those, and none for its own."""
    return Versioned(structs.replace(record.manifest, author=author, reason=reason), record.body)


def replay(path: Path, state: LaneState, shape: LaneShape, sae: Encoder | None) -> Replay:
    """Runs a file against an armed lane, one request a window; requests are counted from 1."""
    file = read_activation_file(path)
    run = Replay(state)
    started_ms, offset = state.closed_at_ms, state.position.offset
    for window in _windows(file.iter_requests(), file, shape, sae, offset, started_ms, one_request=True):
        run.requests += 1
        run.tokens += window.header.tokens
        position = Position(partition=0, offset=window.header.cut.b - 1)
        result = step(run.state, window, position, window.header.closed_at_ms)
        run.state = result.state
        run.alerts += [(run.requests, alert) for alert in result.alerts]
        run.health = health.add(run.health, health.of_window(window))
        _note_detections(run)
    return run


def hold_out(path: Path) -> tuple[ActivationFile, ActivationFile]:
    """The part of a file to learn from, and the part to measure on.

    Raises:
        UsageError: one of them would be too small.
    """
    file = read_activation_file(path)
    learnt = file.requests - int(file.requests * HELD_OUT_SHARE)
    needed = max(int(MIN_BASELINE_REQUESTS / (1 - HELD_OUT_SHARE)) + 1, int(MIN_HELD_OUT_REQUESTS / HELD_OUT_SHARE))
    if file.requests < needed:
        raise UsageError(
            f"{path}: {file.requests} requests; needed are {needed}, two thirds to learn from and one to measure on; "
            "capture more"
        )
    return file.part(0, learnt), file.part(learnt, file.requests)


def requests_of(file: ActivationFile, learnt: Learnt, sae: Encoder | None) -> Iterator[Window]:
    """The file's requests as the armed lane would see them, a window each; those too short to count are left out."""
    shape = shape_of(learnt.state.lane, read_projector(learnt.projector))
    windows = _windows(file.iter_requests(), file, shape, sae, -1, 0, one_request=True)
    return (window for window in windows if window.header.requests)


def _note_detections(run: Replay) -> None:
    state = run.state
    if state.incident is None:
        return
    listed = sum(len(of) for name, of in state.incident.listed.items() if parse(name).kind != SCORES_KIND)
    if listed > sum(key.incident == state.incident.number for key in run.detections):
        for drift in feature_drifts(state, state.incident, top=None):
            key = DetectionKey(state.incident.number, drift.feature, drift.stratum, drift.measure, drift.direction)
            run.detections.setdefault(key, (run.requests, drift))


def _windows(
    requests: Iterable[FileRequest],
    file: ActivationFile,
    shape: LaneShape,
    sae: Encoder | None,
    offset: int,
    started_ms: int,
    one_request: bool = False,
) -> Iterator[Window]:
    """Windows of BATCH_REQUESTS requests, or of one; each request takes one offset of a made-up partition."""
    for batch in _batched(requests, BATCH_REQUESTS):
        items = [(shape, _request(r, file.dtype)) for r in batch]
        for _, request in items:
            if has_non_finite(request.acts):
                raise UsageError(
                    f"{file.path}: request {request.request_id}: NaN, infinity or |x| > {MAX_VALUE:g} in acts"
                )
        d_in = items[0][1].acts.shape[1]
        if sae is not None and d_in != sae.d_in:
            raise UsageError(f"activations are {d_in} wide, the SAE takes {sae.d_in}; is it the SAE of this hook?")
        stats = encode_batch(sae, items)
        size = 1 if one_request else len(items)
        for start in range(0, len(items), size):
            window = OpenWindow(shape, file.dtype, d_in, sae.d_sae if sae else 0)
            window.add(stats.of(start, start + size))
            cut = CutRef(topic="file", partition=0, a=offset + 1, b=offset + 1 + size)
            offset += size
            yield window.close(cut, started_ms + (offset + 1) * STEP_MS if one_request else started_ms)


def _request(r: FileRequest, dtype: str) -> Request:
    acts = widen_bfloat16(r.acts) if dtype == "bfloat16" else r.acts
    return Request(
        request_id=r.request_id, acts=acts, special_mask=r.special_mask, positions=r.positions, group_key=r.group_key,
        segment=r.segment,
    )  # fmt: skip


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
