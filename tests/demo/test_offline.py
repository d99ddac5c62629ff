"""The demo's own network, SAE and shift through the pure pipeline: no Kafka, 0.2 s a window, several seeds."""

from itertools import islice

import pytest
import torch

from stream_interp import sae as saes
from stream_interp.demo import applications, credit_model, workers
from stream_interp.demo.preparing import Prepared, prepare
from stream_interp.detect.state import DetectSettings
from stream_interp.detect.step import new_lane, step
from stream_interp.encode.encoder import encode_batch
from stream_interp.encode.requests import Request, shape_of
from stream_interp.encode.window import OpenWindow
from stream_interp.records.alert import Alert, Position
from stream_interp.records.control import read_projector
from stream_interp.records.lane import Lane
from stream_interp.records.window import CutRef

SEEDS = (1, 2)
WINDOW_REQUESTS, WINDOW_MS = 40, 200
NULL_REQUESTS, SHIFTED_REQUESTS = 2_000, 300


class Course:
    """A lane that learns from the demo's stream and then judges it."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared, self.sae = prepared, saes.load(prepared.sae, device="cpu")
        lane = Lane(model_id="m", hook_name="h", sae_fingerprint=self.sae.fingerprint)
        settings = DetectSettings(baseline_requests=workers.BASELINE_REQUESTS)
        self.state = new_lane(lane, settings, Position(partition=0, offset=-1))
        self.shape, self.sent = shape_of(lane, None), 0

    def play(self, rows: applications.Rows) -> list[Alert]:
        """One window of applications [WINDOW_REQUESTS, 9]."""
        acts = self.prepared.model.activations(torch.from_numpy(rows).float()).numpy()
        requests = [(self.shape, Request(request_id=str(i), acts=acts[i : i + 1])) for i in range(len(acts))]
        window = OpenWindow(self.shape, "float32", self.sae.d_in, self.sae.d_sae)
        window.add(encode_batch(self.sae, requests))
        cut = CutRef(topic="demo", partition=0, a=self.sent, b=self.sent + len(rows))
        self.sent += len(rows)
        now_ms = 1_000_000 + self.sent // WINDOW_REQUESTS * WINDOW_MS
        result = step(self.state, window.close(cut, now_ms), Position(partition=0, offset=self.sent - 1), now_ms)
        self.state = result.state
        for control in result.controls:
            if control.manifest.kind == "projector":
                self.shape = shape_of(self.state.lane, read_projector(control))
        return list(result.alerts)


@pytest.fixture(scope="module", params=SEEDS)
def prepared(request, tmp_path_factory) -> Prepared:
    return prepare(request.param, tmp_path_factory.mktemp("demo"))


def test_the_network_and_the_sae_are_worth_watching(prepared):
    assert prepared.accuracy > 0.97
    assert prepared.explained_variance > 0.95
    assert any("loan" in meaning for meaning in prepared.meanings)


@pytest.mark.statistical
def test_silent_before_the_shift_and_critical_soon_after(prepared, request):
    seed = request.node.callspec.params["prepared"]
    course, stream = Course(prepared), applications.batches(seed + 1_000_000, WINDOW_REQUESTS)
    early = []
    while course.state.phase in {"fit", "calibrate"}:
        early += course.play(next(stream))
    assert course.state.phase == "armed"
    for rows in islice(stream, NULL_REQUESTS // WINDOW_REQUESTS):
        early += course.play(rows)
    assert early == []
    planted = course.sent + 1
    for rows in islice(stream, SHIFTED_REQUESTS // WINDOW_REQUESTS):
        if course.state.incident is None or course.state.incident.severity != "critical":
            course.play(applications.after_market_shift(rows))
    assert course.state.incident is not None
    assert course.state.incident.severity == "critical"
    assert course.sent - planted < SHIFTED_REQUESTS


def test_the_same_seed_trains_the_same_sae(tmp_path):
    rows, risky = applications.sample(600, seed=9)
    models = [credit_model.train(rows, risky, seed=9) for _ in range(2)]
    inputs = torch.from_numpy(rows).float()
    assert torch.equal(models[0].activations(inputs), models[1].activations(inputs))
