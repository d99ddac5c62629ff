"""Classical drift detectors, vectorised over streams: familiar baselines, to compare with and to be compared with.

Each file has a frozen config, a state of arrays [K] that no step changes, `start(config, streams)` and
`step(config, state, x) -> (state, drift [K])`. A stream that alarmed starts afresh at its next observation, as in
river, to whose detectors of the same names they are equal bit for bit (without warning zones). None of them bounds its
false alarms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stream_interp.drift.classical import adwin, cusum, ddm, eddm, ewma, fet, fhddm, hddm_a, hddm_w, kswin, page_hinkley


@dataclass(frozen=True)
class Detector:
    """One of them.

    Attributes:
        config: its type; without arguments the defaults.
        start: (config, streams) -> state before the first observation.
        step: (config, state, x [K]) -> (state, drift [K]).
        binary: whether it takes zeros and ones only.
    """

    config: Callable[..., Any]
    start: Callable[[Any, int], Any]
    step: Callable[[Any, Any, Any], tuple[Any, Any]]
    binary: bool = False


DETECTORS = {
    "adwin": Detector(adwin.ADWIN, adwin.start, adwin.step),
    "cusum": Detector(cusum.CUSUM, cusum.start, cusum.step),
    "ddm": Detector(ddm.DDM, ddm.start, ddm.step, binary=True),
    "eddm": Detector(eddm.EDDM, eddm.start, eddm.step, binary=True),
    "ewma": Detector(ewma.EWMA, ewma.start, ewma.step),
    "fet": Detector(fet.FET, fet.start, fet.step, binary=True),
    "fhddm": Detector(fhddm.FHDDM, fhddm.start, fhddm.step, binary=True),
    "hddm_a": Detector(hddm_a.HDDMA, hddm_a.start, hddm_a.step, binary=True),
    "hddm_w": Detector(hddm_w.HDDMW, hddm_w.start, hddm_w.step, binary=True),
    "kswin": Detector(kswin.KSWIN, kswin.start, kswin.step),
    "page_hinkley": Detector(page_hinkley.PageHinkley, page_hinkley.start, page_hinkley.step),
}
