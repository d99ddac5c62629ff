"""Folding, ties, normalisation; fingerprints; the lazy import."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from stream_interp import sae
from stream_interp.sae.normalisation import normalise

from .conftest import D_IN, D_SAE, Write, weights


def test_a_tie_stays_off_after_folding(write: Write) -> None:
    tensors = weights()
    tensors["W_enc"][:, 7], tensors["b_enc"][7], tensors["threshold"][7] = 0, 0.3, 0.3
    loaded = sae.load(write(tensors))
    assert not loaded.encode(torch.randn(200, D_IN))[:, 7].any()
    tensors["b_enc"][7] = 0.30000007  # the next float32
    assert (sae.load(write(tensors)).encode(torch.randn(200, D_IN))[:, 7] > 0).all()


def test_negative_threshold_is_relu(write: Write) -> None:
    tensors = weights()
    tensors["threshold"] = torch.full((D_SAE,), -0.5)
    assert torch.equal(sae.load(write(tensors)).canonical.threshold, torch.zeros(D_SAE))


def test_folding_is_rounded_once(write: Write) -> None:
    tensors = weights()
    tensors["b_dec"] *= 1e4  # cancels in float32
    exact = tensors["b_enc"].double() - tensors["b_dec"].double() @ tensors["W_enc"].double()
    assert torch.equal(sae.load(write(tensors)).canonical.b_enc, exact.float())


@pytest.mark.parametrize("kind", ["layer_norm", "constant_norm_rescale"])
def test_normalisation_of_a_token_of_zeros_is_finite(kind: str) -> None:
    x = torch.randn(4, D_IN)
    x[2] = 0
    normalised = normalise(kind, x)  # type: ignore[arg-type]
    assert normalised.x.isfinite().all()
    torch.testing.assert_close(normalised.undo(normalised.x), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [8, 24, 576])
def test_a_token_of_zeros_stays_zeros_at_every_width(width: int) -> None:
    """√width over the smallest float is infinite from a width of 12 on."""
    assert torch.equal(normalise("constant_norm_rescale", torch.zeros(2, width)).x, torch.zeros(2, width))


def test_bias_only_token_has_the_bias_as_pre_activation(write: Write) -> None:
    tensors = weights()
    p = tensors["b_enc"]
    expected = torch.where(p > tensors["threshold"], p, 0.0)
    acts = sae.load(write(tensors)).encode(tensors["b_dec"][None])
    torch.testing.assert_close(acts[0], expected.relu(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"apply_b_dec_to_input": False},
        {"normalize_activations": "layer_norm"},
        {"normalize_activations": "constant_norm_rescale"},
    ],
    ids=str,
)
def test_fingerprint_follows_the_config(write: Write, changes: dict[str, object]) -> None:
    assert sae.load(write(name="a", **changes)).fingerprint != sae.load(write(name="b")).fingerprint


@pytest.mark.parametrize("name", ["W_enc", "b_enc", "W_dec", "b_dec", "threshold"])
def test_fingerprint_follows_every_weight(write: Write, name: str) -> None:
    tensors = weights()
    tensors[name].view(-1)[-1] += 1e-6
    assert sae.load(write(tensors, name="a")).fingerprint != sae.load(write(name="b")).fingerprint


def test_fingerprint_is_that_of_the_values_not_of_their_storage(write: Write) -> None:
    halves = {name: tensor.bfloat16() for name, tensor in weights().items()}
    files = {
        str(dtype): write({name: tensor.to(dtype) for name, tensor in halves.items()}, name=str(dtype))
        for dtype in (torch.bfloat16, torch.float32, torch.float64)
    }
    assert len({sae.load(folder).fingerprint for folder in files.values()}) == 1
    finer = {name: tensor.double() * (1 + 1e-12) for name, tensor in halves.items()}
    assert sae.load(write(finer, name="finer")).fingerprint != sae.load(files["torch.float64"]).fingerprint


def test_import_is_light() -> None:
    code = (
        "import sys, stream_interp.sae as sae; assert 'torch' not in sys.modules; "
        "sae.load; assert 'torch' in sys.modules; assert not hasattr(sae, 'nothing')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("r_mag", [-60.0, -20.0, -8.0, 0.0, 8.0, 20.0])
@pytest.mark.parametrize("b_mag", [-1.0, 0.0, 1.0])
def test_a_gate_is_not_lost_to_a_small_magnitude(write: Write, r_mag: float, b_mag: float) -> None:
    tensors = weights(threshold=False) | {"b_mag": torch.full((D_SAE,), b_mag), "r_mag": torch.full((D_SAE,), r_mag)}
    tensors["b_gate"] = tensors.pop("b_enc")
    loaded = sae.load(write(tensors, architecture="gated"))
    x = torch.randn(4_000, D_IN, generator=torch.Generator().manual_seed(4)) * 3
    t = {name: tensor.double() for name, tensor in tensors.items()}
    pre = (x.double() - t["b_dec"]) @ t["W_enc"]
    exact = torch.where(pre + t["b_gate"] > 0, (pre * t["r_mag"].exp() + t["b_mag"]).relu(), 0.0)
    acts = loaded.encode(x).double()
    assert ((acts != 0) != (exact > 1e-40)).double().mean() < 1e-5
    torch.testing.assert_close(acts, exact, rtol=1e-4, atol=1e-5 * max(1.0, float(exact.max())))
