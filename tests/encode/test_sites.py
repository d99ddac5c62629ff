"""`[[sites]]` that name layers of a set, encoded as ENCODE does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stream_interp.encode.encoder import encode_batch
from stream_interp.encode.requests import LaneShape, Request
from stream_interp.encode.sites import load_sites, site_line
from stream_interp.errors import SAELoadError, UsageError
from stream_interp.records.lane import Lane
from stream_interp.records.window import SCORES
from stream_interp.settings import SaeSettings, Settings, SiteSettings

LAYERED = Path(__file__).parents[1] / "sae/golden/layered"
CLT, SET = LAYERED / "circuit_tracer_clt_jumprelu_skip", LAYERED / "circuit_tracer_set_relu_skip"
CPU = SaeSettings(device="cpu")


def _sites(*paths: str, sae: SaeSettings = CPU):
    return load_sites(Settings(sae=sae, sites=[SiteSettings(hook_name=f"h{i}", sae=p) for i, p in enumerate(paths)]))


def test_each_site_has_its_layer():
    sites = _sites(f"{CLT}/ckpt#0", f"{CLT}/ckpt#1", f"{SET}/ckpt#1", f"{CLT}/ckpt#1")
    assert len({site.sae.fingerprint for site in sites}) == 3
    assert sites[1].sae is sites[3].sae
    assert [site.sae_bytes for site in sites] == [site.sae.memory_bytes for site in sites[:3]] + [0]
    assert [site.d_out for site in sites] == [12] * 4
    assert "no reconstruction error" in site_line(sites[0])
    assert "no reconstruction error" not in site_line(sites[2])


def test_a_set_without_its_layer_is_refused_with_the_way_out():
    with pytest.raises(UsageError, match=r"ckpt#0 to .*ckpt#2"):
        _sites(f"{CLT}/ckpt")
    with pytest.raises(SAELoadError, match="too_large"):
        _sites(f"{CLT}/ckpt#1", sae=SaeSettings(device="cpu", max_memory_bytes=100))


@pytest.mark.parametrize("folder", [CLT, SET], ids=lambda folder: folder.name)
@pytest.mark.parametrize("with_output", [False, True])
def test_statistics_are_those_of_the_publishing_tool(folder, with_output):
    """Of its layer 1; a cross-layer transcoder's layer has no error even where the outputs are at hand."""
    golden, sae = load_file(folder / "golden.safetensors"), _sites(f"{folder}/ckpt#1")[0].sae
    x, acts, y = (golden[name][1] for name in ("x", "feature_acts", "reconstruction"))
    out = (y + 1).numpy() if with_output else None
    shape = LaneShape(lane=Lane(model_id="m", hook_name="h"), massive="off", error_every=1)
    stats = encode_batch(sae, [(shape, Request(request_id="a", acts=x.numpy(), acts_out=out))])
    _, feature, value = stats.firings
    assert feature.tolist() == acts.nonzero()[:, 1].tolist()
    np.testing.assert_allclose(np.bincount(feature, value, acts.shape[1]), acts.double().sum(0).numpy(), atol=1e-3)
    share = stats.spans.scores[0, SCORES.index("error_share")]
    if folder == SET and with_output:
        assert share == pytest.approx(float(torch.ones_like(y).square().sum() / (y + 1).square().sum()), rel=1e-3)
    else:
        assert np.isnan(share)
