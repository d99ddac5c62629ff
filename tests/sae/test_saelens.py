"""SAELens fields that change what is computed, against the formulas in float64; and the writer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from stream_interp import sae
from stream_interp.errors import SAELoadError, UsageError

from .conftest import D_IN, D_SAE, Write, weights

GOLDEN_CONFIG = Path(__file__).parent / "golden/saelens_jumprelu/ckpt/cfg.json"


def _x(n: int = 50) -> torch.Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(9)) * 3


def _by_formula(tensors: dict[str, torch.Tensor], x: torch.Tensor, scale: float = 1.0) -> tuple[torch.Tensor, ...]:
    t = {name: tensor.double() for name, tensor in tensors.items()}
    p = (scale * x.double() - t["b_dec"]) @ t["W_enc"] + t["b_enc"]
    acts = p.relu() * (p > t["threshold"])
    return acts.float(), ((acts @ t["W_dec"] + t["b_dec"]) / scale).float()


@pytest.mark.parametrize("in_file", [True, False])
def test_expected_average_only_in(write: Write, in_file: bool) -> None:
    folder = write(normalize_activations="expected_average_only_in")
    if in_file:
        (folder / "activation_scaler.json").write_text('{"scaling_factor": 0.37, "has_whitening": false}')
    loaded = sae.load(folder, activation_scale=None if in_file else 0.37)
    acts, reconstruction = _by_formula(weights(), _x(), 0.37)
    torch.testing.assert_close(loaded.encode(_x()), acts, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loaded.reconstruct(_x()), reconstruction, rtol=1e-5, atol=1e-5)
    assert loaded.config.activation_scale == 0.37
    assert loaded.fingerprint != sae.load(write(name="unscaled")).fingerprint


@pytest.mark.parametrize(
    ("scaler", "given", "reason"),
    [
        ('{"scaling_factor": null}', None, "missing_activation_scale"),
        ('{"scaling_factor": -1}', None, "missing_activation_scale"),
        ('{"scaling_factor": 0.5}', 0.6, "activation_scale_conflict"),
        ('{"scaling_factor": 0.5, "has_whitening": true}', None, "unknown_normalisation"),
        ("{}", None, "bad_config"),
        (None, float("nan"), "missing_activation_scale"),
        (None, 0.0, "missing_activation_scale"),
    ],
)
def test_factor_that_cannot_be_used(write: Write, scaler: str | None, given: float | None, reason: str) -> None:
    folder = write(normalize_activations="expected_average_only_in")
    if scaler:
        (folder / "activation_scaler.json").write_text(scaler)
    with pytest.raises(SAELoadError, match=reason):
        sae.load(folder, activation_scale=given)


def test_arguments_that_would_be_ignored_are_refused(write: Write) -> None:
    with pytest.raises(SAELoadError, match="activation_scale_unused"):
        sae.load(write(), activation_scale=0.5)
    with pytest.raises(SAELoadError, match="k_unused"):
        sae.load(write(), k=3)


def test_k_from_the_caller_or_the_file(write: Write) -> None:
    without, with_k = write(name="a", architecture="topk"), write(name="b", architecture="topk", k=3)
    assert sae.load(without, k=3).fingerprint == sae.load(with_k).fingerprint == sae.load(with_k, k=3).fingerprint
    assert sae.load(without, k=4).fingerprint != sae.load(with_k).fingerprint
    with pytest.raises(SAELoadError, match="k_conflict"):
        sae.load(with_k, k=4)


def test_orientation_is_told_by_the_shape(write: Write) -> None:
    plain, turned = write(name="plain"), weights()
    turned |= {name: turned[name].T.contiguous() for name in ("W_enc", "W_dec")}
    assert sae.load(write(turned, name="turned")).fingerprint == sae.load(plain).fingerprint


def test_where_square_the_convention_decides(write: Write) -> None:
    tensors = weights()
    tensors |= {"W_enc": torch.randn(D_IN, D_IN), "W_dec": torch.randn(D_IN, D_IN)}
    tensors |= {"b_enc": torch.randn(D_IN), "threshold": torch.rand(D_IN)}
    acts, reconstruction = _by_formula(tensors, _x())
    loaded = sae.load(write(tensors, d_sae=D_IN))
    torch.testing.assert_close(loaded.encode(_x()), acts, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loaded.reconstruct(_x()), reconstruction, rtol=1e-5, atol=1e-5)


def test_decoder_row_of_zeros_with_rescaling_never_fires(write: Write) -> None:
    tensors = weights(threshold=False)
    tensors["W_dec"][5] = 0
    loaded = sae.load(write(tensors, architecture="topk", k=4, rescale_acts_by_decoder_norm=True))
    assert not loaded.encode(_x())[:, 5].any()
    assert loaded.reconstruct(_x()).isfinite().all()


def test_metadata_is_kept_and_not_fingerprinted(write: Write) -> None:
    loaded = sae.load(write(name="a"))
    assert (loaded.config.model_name, loaded.config.hook_name) == ("toy", "blocks.0.hook_resid_post")
    other = sae.load(write(name="b", metadata={"sae_lens_version": "6.0.0"}, dtype="bfloat16", device="cuda"))
    assert other.config.model_name is None
    assert other.fingerprint == loaded.fingerprint


@pytest.mark.parametrize(
    "options",
    [{}, {"threshold": 0.7}, {"threshold": weights()["threshold"]}, {"k": 5}, {"apply_b_dec_to_input": False}],
    ids=["standard", "one_threshold", "thresholds", "topk", "not_centred"],
)
def test_save_and_load(tmp_path: Path, options: dict[str, Any]) -> None:
    t = weights()
    transposed = t["W_dec"].T.contiguous().T  # not contiguous, as a trained parameter may be
    metadata = {"model_name": "credit", "hook_name": "hidden", "d_hidden": 8}
    sae.save_saelens(tmp_path / "new/sae", t["W_enc"], t["b_enc"], transposed, t["b_dec"], metadata=metadata, **options)
    loaded = sae.load(tmp_path / "new/sae")
    assert (loaded.config.model_name, loaded.config.k) == ("credit", options.get("k"))
    assert loaded.config.centred == options.get("apply_b_dec_to_input", True)
    if "threshold" in options:
        expected = _by_formula(t | {"threshold": torch.as_tensor(options["threshold"])}, _x())
        torch.testing.assert_close(loaded.encode(_x()), expected[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(loaded.reconstruct(_x()), expected[1], rtol=1e-5, atol=1e-5)
    written = json.loads((tmp_path / "new/sae/cfg.json").read_text())
    assert written.keys() - {"k", "rescale_acts_by_decoder_norm"} == json.loads(GOLDEN_CONFIG.read_text()).keys()


def test_save_refuses_what_load_would_refuse(tmp_path: Path) -> None:
    t = weights()
    good = (t["W_enc"], t["b_enc"], t["W_dec"], t["b_dec"])
    for options in ({"threshold": 1.0, "k": 3}, {"k": 0}, {"k": D_SAE + 1}):
        with pytest.raises(UsageError, match="k="):
            sae.save_saelens(tmp_path / "sae", *good, **options)
    with pytest.raises(UsageError, match="W_dec"):
        sae.save_saelens(tmp_path / "sae", t["W_enc"], t["b_enc"], t["W_enc"], t["b_dec"])
    assert not (tmp_path / "sae").exists()
