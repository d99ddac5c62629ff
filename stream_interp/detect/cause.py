"""Why has a lane drifted? Every class of causes is considered, in this order, and the first with evidence is named.

    pipeline      the change is in some input partitions alone, or records are lost that could explain it
    model_change  activations come in another dtype than before. A new `model_revision` is a lane of its own; a model
                  that changed under the same one moves all requests, and so does a wholly new source of data: without
                  the same prompts through both, nothing here tells them apart
    sae_health    the SAE's health crossed, and no score that sees activations without it did
    traffic_mix   requests begin at other positions, or are of other segments, by so much that it could explain the
                  change. Other lengths cannot: tests look at first tokens
    data_shift    the rest

"Could explain": if requests were as ever but a share s of them is missing, or is of another kind, the mean of a test's
values, which lie in [0, 1], can be p / (1 − s) at most, or p + s, where the null allows p.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from stream_interp.detect import health, witness
from stream_interp.detect.armed import Tests, mix, traffic
from stream_interp.detect.armed.scores import SCORE_TESTS
from stream_interp.detect.crossings import Crossings, parse
from stream_interp.detect.incident import Incident
from stream_interp.detect.listed import SCORES_KIND
from stream_interp.detect.state import LOST, LaneState
from stream_interp.detect.witness import CHANCE, MIN_WINDOWS, Witness
from stream_interp.drift import esr
from stream_interp.drift.after_alarm import Counted, rate_interval
from stream_interp.records.alert import CauseEvidence
from stream_interp.records.text import inert
from stream_interp.records.window import SCORES, Window

_EXPLAINING = {mix.START: "first positions", mix.SEGMENT: "segments"}

CauseName = Literal["pipeline", "model_change", "sae_health", "traffic_mix", "data_shift"]


@dataclass(frozen=True)
class Cause:
    """The likeliest class, and what was found of each."""

    name: str
    evidence: list[CauseEvidence]


def followed(state: LaneState, incident: Incident, found: Crossings, window: Window, *, opens: bool) -> Incident:
    """The incident after `window`, with what its cause is told by; `state` is after it, too."""
    assert state.tests is not None
    if opens:
        own = _strongest(incident, found, state.tests, window)
        incident = replace(incident, witness=own, seen=state.seen, lost=state.lost)
    elif incident.witness is not None:
        incident = replace(incident, witness=witness.fed(incident.witness, state.tests, window))
    return replace(incident, cause=cause_of(state, incident).name)


def _strongest(incident: Incident, found: Crossings, tests: Tests, window: Window) -> Witness:
    """The listed test with the most evidence, in units of its A; of a score the threshold with the most."""
    ratios = {name: listed.log_e - _log_a(name, tests)[listed.index] for name, listed in incident.listed.items()}
    name = max((name for name in ratios if len(ratios[name])), key=lambda name: float(ratios[name].max()))
    (stratum, kind), index = parse(name), int(incident.listed[name].index[np.argmax(ratios[name])])
    cell = int(np.argmax(found.tick.scores[stratum].cell_peak[index])) if kind == SCORES_KIND else 0
    return witness.begun(stratum, kind, index, cell, window)


def _log_a(name: str, tests: Tests) -> esr.Floats:
    """Of each test of a kind, armed or not."""
    stratum, kind = parse(name)
    if kind == SCORES_KIND:
        return np.log(tests.score_thresholds(stratum))
    own = tests.strata[stratum].features[kind]
    return np.full(len(own.p), np.log(tests.a_weeks(own.kind.group)))


def cause_of(state: LaneState, incident: Incident) -> Cause:
    """Why the lane has drifted, as far as its state knows."""
    found = [_pipeline(state, incident), _model_change(state, incident), _sae_health(state, incident),
             _traffic_mix(state, incident)]  # fmt: skip
    found.append(_data_shift(incident, alone=not any(evidence.points for evidence in found)))
    return Cause(next(evidence.cause for evidence in found if evidence.points), found)


def _said(cause: CauseName, points: bool, text: str, **numbers: float | None) -> CauseEvidence:
    known = {name: float(value) for name, value in numbers.items() if value is not None}
    return CauseEvidence(cause=cause, points=points, text=text, numbers=known)


def _pipeline(state: LaneState, incident: Incident) -> CauseEvidence:
    assert state.tests is not None
    if incident.witness is None:
        return _said("pipeline", False, "Which input partitions it is in was not followed.")
    in_some, where, numbers = _partitions(incident.witness, state.tests)
    loses, lost = _losses(state, incident, incident.witness, state.tests)
    share = (state.lost - incident.lost) / max(state.seen - incident.seen, 1)
    return _said("pipeline", in_some or loses, f"{where} {lost}".strip(), lost_share=share, **numbers)


def _partitions(own: Witness, tests: Tests) -> tuple[bool, str, dict[str, float]]:
    """Whether the change is in some partitions alone, in words, and the numbers behind that."""
    numbers: dict[str, float] = {"partitions": len(own.partition), "requests": float(own.n.sum())}
    if len(own.partition) < 2:
        return False, "All of it comes from one input partition, so it cannot be told whether others have it.", numbers
    if (own.windows >= MIN_WINDOWS).sum() < 2:
        return False, "Input partitions have not sent enough since it opened to tell whether all have it.", numbers
    found = witness.spread(own, tests)
    if not found.is_partial:
        return False, "Nothing shows that the change is in some input partitions alone.", numbers
    there, elsewhere, p = witness.mean(own, found.changed), witness.mean(own, found.others), witness.edge(own, tests)
    names = ", ".join(map(str, sorted(found.changed.tolist())))
    text = (
        f"The change is in input partition{'s' if len(found.changed) > 1 else ''} {names} alone: {own} is {there:.1%} "
        f"there and {elsewhere:.1%} in {len(found.others)} others; the baseline allows {p:.1%}."
    )
    return True, text, {**numbers, "mean_there": there, "mean_elsewhere": elsewhere, "baseline_allows": p}


def _losses(state: LaneState, incident: Incident, own: Witness, tests: Tests) -> tuple[bool, str]:
    """Whether more is lost since the incident opened, and so much that it could explain the change; in words."""
    lost, seen = state.lost - incident.lost, state.seen - incident.seen
    if lost * incident.seen <= incident.lost * seen:
        return False, ""
    counted = Counted(np.array([incident.seen, seen]), np.array([incident.lost, lost]))
    low, high = rate_interval(counted, CHANCE / 2)
    if low[1] <= high[0]:
        return False, ""
    mean, p = witness.beyond(own, tests)
    explains = mean * (1 - float(high[1])) <= p
    was, now = incident.lost / incident.seen, lost / seen
    text = f"{now:.1%} of what came since it opened is lost ({', '.join(LOST)}), {was:.1%} before: "
    return explains, text + f"that {'could' if explains else 'cannot'} explain the change."


def _model_change(state: LaneState, incident: Incident) -> CauseEvidence:
    """A dtype counts whose first window ended after the change had begun, and no later than that of the opening."""
    assert state.tests is not None
    began, opened = max(incident.change_estimate_request, 1), incident.opened_request
    new = [inert(name, 32) for name, first in state.acts_dtypes.items() if began <= first <= opened]
    known = [inert(name, 32) for name, first in state.acts_dtypes.items() if first < began]
    norm, middle = state.recent_scores[:, SCORES.index("mean_sq_norm")], state.tests.unit.medians.get("mean_sq_norm")
    above = None if middle is None or not len(norm) else float(np.mean(norm > middle))
    if new and known:
        text = f"Activations come as {', '.join(new)} since about when it began, and came as {', '.join(known)} before."
        return _said("model_change", True, text, norm_above_median=above)
    text = "Activations come in the dtype that they came in before."
    if above in (0.0, 1.0):
        side = "above" if above else "below"
        text += f" All {len(norm)} latest norms are {side} the baseline's median: so they are after a change of model,"
        text += " and where all data are new."
    return _said("model_change", False, text, norm_above_median=above)


def _sae_health(state: LaneState, incident: Incident) -> CauseEvidence:
    """Some scores see activations without the SAE: when they are silent, it is to blame."""
    assert state.baseline is not None
    assert state.tests is not None
    now, then = health.scalars(state.health_now, with_sae=state.tests.d_sae > 0), state.baseline.header
    ev, l0 = now["explained_variance"], now["l0"]
    listed = [SCORE_TESTS[k] for k in incident.score_rows]
    raw = sorted({test.score for test in listed if test.is_raw})
    crossed = any(test.group == "health" and not test.is_raw for test in listed)  # massive tokens need no SAE
    text = "The health of the SAE has crossed no threshold."
    if crossed:
        text = "The health of the SAE crossed its threshold, " + (
            f"and so did scores that do not use it ({', '.join(raw)})." if raw else "and no score without it did."
        )
    measured = [f"{name} {was:.3g} in the baseline, {value:.3g} now"
                for name, was, value in [("Explained variance", then.explained_variance, ev), ("L0", then.l0, l0)]
                if was is not None and value is not None]  # fmt: skip
    text = ". ".join([text.rstrip("."), *measured]) + "."
    return _said("sae_health", crossed and not raw, text, explained_variance=ev,
                 explained_variance_baseline=then.explained_variance, l0=l0, l0_baseline=then.l0)  # fmt: skip


def _traffic_mix(state: LaneState, incident: Incident) -> CauseEvidence:
    """Requests that begin elsewhere, or are of other segments; how near their tests are to their threshold, too."""
    assert state.tests is not None
    assert state.evidence is not None
    assert state.baseline is not None
    tests, evidence = state.tests.traffic, state.evidence.traffic
    over_a = float(esr.value(evidence.m).max(initial=0.0)) / tests.a_weeks if tests.cuts else 0.0
    told = traffic.shifts(tests, evidence, state.traffic_note)
    if not told:
        text = "Lengths, first positions and segments are not known to differ."
        return _said("traffic_mix", False, text, over_threshold=over_a)
    known = mix.of_baseline(state.baseline.header, state.baseline.arrays)
    moved = traffic.moved(tests, known, evidence, state.traffic_note)
    differs = {shift.of for shift in told}
    mean, p = witness.beyond(incident.witness, state.tests) if incident.witness else (1.0, 0.0)
    text = f"The mix of requests differs: {max(told, key=lambda s: abs((s.share_now or 0) - s.share_baseline))}."
    could = {of: mean <= p + moved[of] for of in _EXPLAINING if of in differs}
    for of, explains in could.items():
        text += f" Other {_EXPLAINING[of]} {'could' if explains else 'cannot'} explain the change."
    if not could:
        text += " Tests look at the first tokens of a request, whatever its length."
    return _said("traffic_mix", any(could.values()), text, over_threshold=over_a,
                 **{f"{of}_moved": share for of, share in moved.items()})  # fmt: skip


def _data_shift(incident: Incident, *, alone: bool) -> CauseEvidence:
    raw = sorted({SCORE_TESTS[k].score for k in incident.score_rows if SCORE_TESTS[k].is_raw})
    text = "Nothing points elsewhere. " if alone else ""
    n = incident.features_drifted
    moved = [f"{n:,} feature{'s' if n > 1 else ''}"] * (n > 0) + raw
    text += f"What moved: {', '.join(moved)}." if moved else "No feature moved, nor a score without the SAE."
    return _said("data_shift", alone, text, features_drifted=incident.features_drifted, scores=len(raw))
