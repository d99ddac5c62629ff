"""The files of the tour: they load, and a backtest on them tells null from shift."""

from __future__ import annotations

from pathlib import Path

from stream_interp import offline, sae
from stream_interp.demo.files import write_files
from stream_interp.detect.view import status_of
from stream_interp.encode.requests import shape_of
from stream_interp.records.control import read_projector
from stream_interp.records.lane import Lane
from stream_interp.settings import DriftSettings


def test_the_files_of_the_tour_tell_null_from_shift(tmp_path: Path) -> None:
    files = write_files(tmp_path / "credit", seed=1)
    encoder = sae.load(files.sae)
    lane = Lane(model_id="credit-risk", hook_name="hidden", sae_fingerprint=encoder.fingerprint)
    learnt = offline.learn(files.baseline, lane, encoder, DriftSettings(clock="requests"), version=1)
    shape = shape_of(lane, read_projector(learnt.projector))
    null = offline.replay(files.null, learnt.state, shape, encoder)
    shift = offline.replay(files.shift, null.state, shape, encoder)
    assert null.alerts == []
    assert shift.alerts[0][0] <= 200
    assert status_of(shift.state, 0, 0).state == "critical"
