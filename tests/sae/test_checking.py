"""`sae.checking`: rightly read SAEs are plausible, each usual misreading is caught, too little data says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stream_interp import sae
from stream_interp.sae.checking import Checked, check
from stream_interp.sae.encoder import SAE

D, F, N = 64, 128, 2_000


def _world(scale: float = 1.0, offset: float = 0.0) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A dictionary of unit directions, and tokens that are sums of a few of them about `offset`, times `scale`."""
    generator = torch.Generator().manual_seed(1)
    directions = torch.nn.functional.normalize(torch.randn(F, D, generator=generator), dim=1)
    centre = torch.randn(D, generator=generator) * offset
    fired = torch.zeros(N, F)
    for token in range(N):
        fired[token, torch.randperm(F, generator=generator)[:2]] = 5.2 + torch.rand(2, generator=generator)
    tensors = {
        "W_enc": directions.T.contiguous(), "b_enc": torch.zeros(F), "W_dec": directions, "b_dec": centre,
        "threshold": torch.full((F,), 3.0),
    }  # fmt: skip
    return tensors, (fired @ directions + centre) * scale


def _saved(path: Path, tensors: dict[str, torch.Tensor], **options: Any) -> SAE:
    given = {"threshold": tensors["threshold"], **options}
    sae.save_saelens(path, *(tensors[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")), **given)
    return sae.load(path)


def _checked(loaded: SAE, x: torch.Tensor, massive: torch.Tensor | None = None) -> Checked:
    none = torch.zeros(len(x), dtype=torch.bool)
    return check(loaded, lambda: ((rows, None) for rows in torch.split(x, 300)), none if massive is None else massive)


def test_rightly_read(tmp_path: Path) -> None:
    tensors, x = _world(offset=3.0)
    checked = _checked(_saved(tmp_path, tensors), x)
    assert checked.verdict == "plausible"
    assert checked.measured.explained_variance_ordinary is not None
    assert checked.measured.explained_variance_ordinary > 0.6
    assert len(checked.other_readings) == 3


def test_the_formula_is_the_streaming_one(tmp_path: Path) -> None:
    tensors, x = _world(offset=3.0)
    loaded = _saved(tmp_path, tensors)
    measured = _checked(loaded, x).measured
    target, reconstruction = x.double(), loaded.reconstruct(x).double()
    by_hand = 1 - (target - reconstruction).square().sum() / (target - target.mean(0)).square().sum()
    assert measured.explained_variance == pytest.approx(float(by_hand), abs=1e-9)
    acts = loaded.encode(x)
    assert measured.l0 == pytest.approx(float((acts != 0).sum(1).float().mean()))
    assert measured.dead_share == pytest.approx(float((acts == 0).all(0).float().mean()))


def test_centring_flipped_is_named(tmp_path: Path) -> None:
    tensors, x = _world(offset=1.0)
    _names("with b_dec subtracted", _checked(_saved(tmp_path, tensors, apply_b_dec_to_input=False), x))


def test_threshold_that_is_not_the_models_is_named(tmp_path: Path) -> None:
    tensors, x = _world()
    tensors["b_enc"] -= 2.0
    _names("with its threshold ignored", _checked(_saved(tmp_path, tensors, threshold=3.5), x))


def test_missing_factor_is_named(tmp_path: Path) -> None:
    tensors, x = _world(scale=0.55)
    _names("with the input scaled", _checked(_saved(tmp_path, tensors), x))


def _names(reading: str, checked: Checked) -> None:
    assert checked.verdict in {"other_reading_fits_better", "misloaded"}, checked
    assert reading in checked.why, checked


def test_worse_than_the_mean_is_misloaded(tmp_path: Path) -> None:
    tensors, x = _world()
    tensors["W_dec"] = -tensors["W_dec"]
    assert _checked(_saved(tmp_path, tensors), x).verdict == "misloaded"


@pytest.mark.parametrize("threshold", [100.0, 0.0])
def test_nothing_or_everything_fires(tmp_path: Path, threshold: float) -> None:
    tensors, x = _world()
    tensors["b_enc"] += 5.0 if threshold == 0 else 0.0
    checked = _checked(_saved(tmp_path, tensors, threshold=threshold), x)
    assert checked.verdict == "misloaded"
    assert "L0" in checked.why


def test_a_lost_threshold_is_asked_for_where_no_number_tells(tmp_path: Path) -> None:
    tensors, x = _world()
    tensors["b_enc"] -= 1.5
    kept = _checked(_saved(tmp_path / "kept", tensors, threshold=1e-3), x)
    assert kept.verdict == "plausible"
    for lost in (0.0, -1.0):
        checked = _checked(_saved(tmp_path / f"lost{lost}", tensors, threshold=lost), x)
        assert checked.measured.l0 == pytest.approx(kept.measured.l0, rel=0.01)
        assert checked.verdict == "cannot_tell"
        assert "was the threshold lost?" in checked.why
    assert _checked(_saved(tmp_path / "relu", tensors, threshold=None), x).verdict == "plausible"


def test_no_golden_sae_is_said_to_have_lost_its_threshold(golden: Callable[[str], Path]) -> None:
    n_jumprelu = 0
    for meta in golden("").glob("*/meta.json"):
        told = json.loads(meta.read_text())
        if told["family"] in {"dictionary_learning", "openai", "qwen_scope"}:
            continue  # pickles
        loaded = sae.load(meta.parent / told["checkpoint"], **told["load"])
        x = load_file(meta.parent / "golden.safetensors")["x"][1:].repeat(50, 1)[:N]
        pairs = [(x, loaded.reconstruct(x))]
        checked = check(loaded, lambda pairs=pairs: pairs, torch.zeros(len(x), dtype=torch.bool))
        n_jumprelu += loaded.config.architecture == "jumprelu"
        assert "lost" not in checked.why, meta
    assert n_jumprelu >= 5


def test_no_rule_on_l0_for_topk(tmp_path: Path) -> None:
    tensors, x = _world()
    assert "L0 is" not in _checked(_saved(tmp_path, tensors, threshold=None, k=64), x).why


def test_too_few_tokens(tmp_path: Path) -> None:
    tensors, x = _world()
    assert _checked(_saved(tmp_path, tensors), x[:999]).verdict == "cannot_tell"


def test_massive_tokens_are_told_apart(tmp_path: Path) -> None:
    tensors, x = _world()
    x[7] = 0
    x[7, 3] = -5_000
    massive = torch.zeros(N, dtype=torch.bool)
    massive[7] = True
    checked = _checked(_saved(tmp_path, tensors), x, massive)
    assert checked.massive_tokens == 1
    assert checked.verdict == "plausible"
    assert checked.measured.explained_variance != checked.measured.explained_variance_ordinary


def test_a_transcoder_without_its_target_cannot_be_told(golden: Callable[[str], Path]) -> None:
    squares = ("saelens_skip_transcoder/ckpt", "sparsify_transcoder_skip/ckpt/layers.3.mlp", "gemma_scope_2_skip/ckpt")
    for square in squares:
        transcoder = sae.load(golden(square))
        measured = _checked(transcoder, torch.randn(N, transcoder.d_in)).measured
        assert measured.explained_variance_ordinary is None, square
    loaded = sae.load(golden("saelens_jumprelu_transcoder") / "ckpt")
    x = torch.randn(N, loaded.d_in) * 3
    assert _checked(loaded, x).verdict == "cannot_tell"
    y = loaded.reconstruct(x)
    checked = check(loaded, lambda: [(x, y)], torch.zeros(N, dtype=torch.bool))
    assert checked.measured.explained_variance_ordinary == pytest.approx(1.0)
