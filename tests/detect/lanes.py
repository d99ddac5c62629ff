"""A small lane for tests: activations of a known law, a toy SAE, and windows made by ENCODE's own core."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from msgspec import structs

from stream_interp.detect.state import DetectSettings, LaneState
from stream_interp.detect.step import StepResult, new_lane, step
from stream_interp.encode.encoder import encode_batch
from stream_interp.encode.requests import LaneShape, Request, shape_of
from stream_interp.encode.window import OpenWindow
from stream_interp.records.alert import Position
from stream_interp.records.control import read_projector
from stream_interp.records.lane import Lane
from stream_interp.records.window import CutRef, Window
from stream_interp.sae.firings import Firings
from stream_interp.settings import DriftSettings

D_IN, D_SAE, TOKENS = 16, 48, 6
REQUEST_MS = 1_000
SETTINGS = DetectSettings(drift=DriftSettings(clock="requests", requests_per_week=20_000), baseline_requests=600)


class ToySAE:
    """ReLU features with a high threshold; the reconstruction is the pseudo-inverse's."""

    d_in, d_sae = D_IN, D_SAE
    fingerprint = "toy"
    explains: Literal["input", "output", "nothing"] = "input"

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.w_enc = torch.from_numpy(rng.standard_normal((D_IN, D_SAE)).astype(np.float32) / 4)
        self.w_dec = torch.linalg.pinv(self.w_enc)

    def firings(self, x: torch.Tensor, at_most: int | None = None) -> Firings:
        """Features above 1."""
        acts = x @ self.w_enc
        return Firings.of(acts * (acts > 1.0))

    def reconstruct_from(self, x: torch.Tensor, acts: Firings) -> torch.Tensor:
        """Linear."""
        return acts.dense(len(x), D_SAE) @ self.w_dec


LANE = Lane(model_id="m", hook_name="h", sae_fingerprint="toy")
SAE = ToySAE()


def requests(rng: np.random.Generator, n: int, shift: float = 0.0, tokens: int = TOKENS) -> list[Request]:
    """Requests of standard normal tokens, moved by `shift` in half of the coordinates."""
    offset = np.where(np.arange(D_IN) < D_IN // 2, shift, 0.0)
    acts = rng.standard_normal((n, tokens, D_IN)) + offset
    return [Request(request_id=str(i), acts=a.astype(np.float32)) for i, a in enumerate(acts)]


def windows(
    items: list[Request], shape: LaneShape, size: int, start: int, sae: ToySAE | None = SAE
) -> Iterator[Window]:
    """Windows of `size` requests whose cuts follow one another from offset `start`, a second a request."""
    for i in range(0, len(items), size):
        group = items[i : i + size]
        window = OpenWindow(shape, "float32", D_IN, sae.d_sae if sae else 0)
        window.add(encode_batch(sae, [(shape, request) for request in group]))
        a = start + i
        yield window.close(CutRef(topic="t", partition=0, a=a, b=a + len(group)), (a + len(group)) * REQUEST_MS)


class Driver:
    """Feeds a lane and remembers what it said; follows the projector as ENCODE would."""

    def __init__(self, lane: Lane = LANE, sae: ToySAE | None = SAE, settings: DetectSettings = SETTINGS) -> None:
        self.sae, self.offset = sae, 0
        self.state: LaneState = new_lane(lane, settings, Position(partition=0, offset=-1))
        self.shape = shape_of(lane, None)
        self.results: list[StepResult] = []
        self.windows: list[Window] = []

    def feed(self, items: list[Request], size: int = 8, **said: str) -> list[str]:
        """The transitions of the alerts that came of it. `said`: what the headers say beside."""
        transitions = []
        for made in windows(items, self.shape, size, self.offset, self.sae):
            window = replace(made, header=structs.replace(made.header, **said))
            position = Position(partition=0, offset=window.header.cut.b - 1)
            result = step(self.state, window, position, window.header.closed_at_ms)
            self.state, self.offset = result.state, window.header.cut.b
            self.results.append(result)
            self.windows.append(window)
            transitions += [alert.transition for alert in result.alerts]
            for control in result.controls:
                if control.manifest.kind == "projector":
                    self.shape = shape_of(self.state.lane, read_projector(control))
        return transitions

    def learn(self, rng: np.random.Generator, n: int = 600) -> None:
        """Through fit and calibrate, in windows that end where fit ends."""
        self.feed(requests(rng, n // 5))
        self.feed(requests(rng, n - n // 5))
