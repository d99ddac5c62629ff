"""The ways an SAE multiplies, and how one is chosen."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
import torch

from stream_interp import sae
from stream_interp.errors import ComputeDtypeUnavailable
from stream_interp.sae.precision import COMPUTE_DTYPES, agreement, choose, in_dtype, is_emulated

from .conftest import D_IN, D_SAE, Write, weights

BLOCK = (0, 1)  # the first look at float32
NATIVE, EMULATED = (0, 1, 0, 1), (0, 1, 0, 9)  # a product in float32, and in the other dtype


def test_half_precision_is_centred_before_it_is_rounded(write: Write) -> None:
    """Activations far from 0 would lose in bfloat16 what sets them apart."""
    generator = torch.Generator().manual_seed(0)
    W_enc = torch.randn(D_IN, D_SAE, generator=generator)
    far = {"W_enc": W_enc, "b_enc": torch.zeros(D_SAE), "W_dec": W_enc.T.contiguous()}
    folder = write(far | {"b_dec": torch.full((D_IN,), 500.0), "threshold": torch.ones(D_SAE)})
    x = 500 + torch.randn(400, D_IN, generator=generator)
    exact = sae.load(folder)
    for low in (sae.load(folder, dtype="bfloat16"), in_dtype(exact, "bfloat16")):
        assert agreement(exact, low, x) > 0.98
        assert low.fingerprint == exact.fingerprint


def test_a_way_is_the_one_of_load(write: Write) -> None:
    folder, x = write(), torch.randn(64, D_IN, generator=torch.Generator().manual_seed(0))
    exact = sae.load(folder)
    assert in_dtype(exact, "float32") is exact
    for name in ("bfloat16", "float16"):
        assert agreement(in_dtype(exact, name), sae.load(folder, dtype=name), x) == 1.0


def test_an_unknown_way_is_refused(write: Write) -> None:
    with pytest.raises(ComputeDtypeUnavailable, match=r"float8.*known here are float32, bfloat16"):
        in_dtype(sae.load(write()), "float8")
    assert "float32" in COMPUTE_DTYPES


def test_parameters_that_float16_does_not_hold(write: Write) -> None:
    """`load` refuses them; with a bias of infinity a feature would fire always."""
    large = write(weights() | {"b_enc": torch.full((D_SAE,), 1e5)})
    with pytest.raises(ComputeDtypeUnavailable, match=r"float16.*numbers end below"):
        in_dtype(sae.load(large), "float16")
    assert in_dtype(sae.load(large), "bfloat16").dtype == torch.bfloat16


def test_tokens_of_which_nothing_fires_are_no_evidence(write: Write) -> None:
    silent, x = sae.load(write(weights() | {"threshold": torch.full((D_SAE,), 1e4)})), torch.zeros(100, D_IN)
    chosen = choose(silent, x, _Clock(*BLOCK, *NATIVE, 0, 100, 0, 50, *NATIVE, 0, 100, 0, 50, 0, 100, 0, 50))
    assert chosen.compute_dtype == "float32"


class _Clock:
    """Time that only the ways named pass: seconds a call of the clock."""

    def __init__(self, *readings: float) -> None:
        self._readings = iter(readings)

    def __call__(self) -> float:
        return next(self._readings)


def test_the_fastest_that_agrees_is_chosen(write: Write) -> None:
    x = torch.zeros(100, D_IN)  # nothing near a threshold: all agree
    x[:, 0] = 30.0
    float32 = sae.load(write())
    chosen = choose(float32, x, _Clock(*BLOCK, *NATIVE, 0, 100, 0, 60, *NATIVE, 0, 100, 0, 50, 0, 200, 0, 110))
    assert chosen.compute_dtype == "float16"
    chosen = choose(float32, x, _Clock(*BLOCK, *NATIVE, 0, 100, 0, 160, *NATIVE, 0, 100, 0, 150, 0, 100, 0, 100))
    assert chosen.compute_dtype == "float32"
    chosen = choose(float32, x, _Clock(*BLOCK, *EMULATED, *NATIVE, 0, 100, 0, 50, 0, 100, 0, 60))
    assert chosen.compute_dtype == "float16"
    assert "bfloat16 is emulated" in chosen.line


def test_a_faster_way_that_disagrees_is_not_chosen(write: Write) -> None:
    x = torch.randn(2_000, D_IN, generator=torch.Generator().manual_seed(0))
    float32 = sae.load(write())
    assert agreement(float32, in_dtype(float32, "bfloat16"), x) < 0.999
    chosen = choose(float32, x, _Clock(0, 0.1, *NATIVE, 0, 100, 0, 10, *NATIVE, 0, 100, 0, 100, 0, 100, 0, 20))
    assert chosen.compute_dtype == "exact"
    assert "bfloat16 10.00 times as fast (200 tokens/s), firings agree to 0.99" in chosen.line


def test_a_large_sae_is_measured_on_few_tokens_or_not_at_all(write: Write) -> None:
    x, float32 = torch.zeros(4_000, D_IN), sae.load(write())
    line = choose(float32, x, _Clock(*BLOCK, *EMULATED, *EMULATED, 0, 1, 0, 1)).line
    assert "on 1,024 tokens" in line
    assert choose(float32, x, _Clock(0, 5)) == ("float32", "float32 (not measured: 512 tokens take 5.0 s)")


def test_ways_that_do_not_work_here_are_not_measured(write: Write) -> None:
    x = torch.zeros(100, D_IN)
    top_k = sae.load(write(architecture="topk", k=2))
    assert "exact does not work here" in choose(top_k, x).line


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_a_tie_fires_where_it_should_in_every_way(write: Write, name: str) -> None:
    """p >= t, with t a number that all dtypes have."""
    tensors = {
        "W_enc": torch.eye(D_IN),
        "b_enc": torch.zeros(D_IN),
        "W_dec": torch.eye(D_IN),
        "b_dec": torch.zeros(D_IN),
    }
    loaded = sae.load(write(tensors | {"threshold": torch.full((D_IN,), 1.5)}, d_sae=D_IN))
    inclusive = dataclasses.replace(
        loaded,
        config=msgspec.structs.replace(loaded.config, inclusive=True),
        canonical=dataclasses.replace(
            loaded.canonical, threshold=loaded.canonical.threshold.nextafter(torch.tensor(-torch.inf))
        ),
    )
    x = torch.full((1, D_IN), 1.5)
    assert len(inclusive.firings(x).token) == len(in_dtype(inclusive, name).firings(x).token) == D_IN
    assert len(in_dtype(loaded, name).firings(x).token) == 0


def test_emulated_means_slow_and_noticeable(write: Write) -> None:
    float32 = sae.load(write())
    assert is_emulated(float32, "bfloat16", _Clock(0, 1e-2, 0, 5e-2))
    assert not is_emulated(float32, "bfloat16", _Clock(0, 1e-2, 0, 3e-2))
    assert not is_emulated(float32, "bfloat16", _Clock(0, 1e-5, 0, 1e-3))
    assert not is_emulated(float32, "exact", _Clock())
