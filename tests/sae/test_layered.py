"""Transcoder sets and cross-layer transcoders: what their tools compute, one layer alone, what is read of the files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stream_interp import sae
from stream_interp.errors import SAELoadError, UsageError
from stream_interp.sae import decoding
from stream_interp.sae.decoding import decode_fired, decode_from_file
from stream_interp.sae.files import open_safetensors
from stream_interp.sae.firings import Firings
from stream_interp.sae.layered import LayeredSAE

from .layered_files import (
    LAYERS,
    D,
    F,
    decode_clt,
    parameters,
    twin,
    write_clt,
    write_decode_clt,
    write_gemma_scope_2_clt,
    write_set,
    x_of,
)

GOLDEN = sorted(path.parent for path in Path(__file__).parent.glob("golden/layered/*/meta.json"))
every_golden = pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)


def _opened(folder: Path, **options: Any) -> tuple[LayeredSAE, dict[str, torch.Tensor], dict[str, Any]]:
    loaded = sae.load(folder / "ckpt", **options)
    assert isinstance(loaded, LayeredSAE)
    return loaded, load_file(folder / "golden.safetensors"), json.loads((folder / "meta.json").read_text())


def _layered(path: Path, **options: Any) -> LayeredSAE:
    loaded = sae.load(path, **options)
    assert isinstance(loaded, LayeredSAE)
    return loaded


@every_golden
def test_outputs_are_those_of_the_publishing_tool(folder: Path) -> None:
    loaded, golden, meta = _opened(folder)
    acts = loaded.encode(golden["x"])
    assert torch.equal(acts != 0, golden["feature_acts"] != 0)
    torch.testing.assert_close(acts, golden["feature_acts"], rtol=0, atol=meta["feature_acts_atol"])
    output = loaded.reconstruct(golden["x"])
    torch.testing.assert_close(output, golden["reconstruction"], rtol=0, atol=meta["reconstruction_atol"])
    assert torch.equal(loaded.reconstruct_from(golden["x"].numpy(), acts.numpy()), output)
    assert int((acts < 0).sum()) == meta.get("negative_acts", 0)


def test_golden_files_have_what_could_be_misread() -> None:
    """Negative acts, ties with > and with >=, and skips that are not symmetric."""
    metas = {folder.name: json.loads((folder / "meta.json").read_text()) for folder in GOLDEN}
    assert {meta["family"] for meta in metas.values()} == {"circuit_tracer", "decode_clt", "gemma_scope_2_clt"}
    assert metas["circuit_tracer_set_negative_thresholds"]["negative_acts"] > 20
    assert metas["circuit_tracer_clt_jumprelu_skip"]["negative_acts"] > 20
    for file in Path(__file__).parent.glob("golden/layered/*/ckpt/*.safetensors"):
        for name, tensor in load_file(file).items():
            if "skip" in name:
                assert not torch.allclose(tensor, tensor.T, atol=0.5), (file, name)


@pytest.mark.parametrize("folder", [g for g in GOLDEN if "tie_feature" in (g / "meta.json").read_text()], ids=str)
def test_a_feature_on_its_threshold_is_off_or_on_as_its_tool_has_it(folder: Path) -> None:
    loaded, golden, meta = _opened(folder)
    fires = loaded.encode(golden["x"])[..., meta["tie_feature"]] != 0
    assert fires.all() if meta["family"] == "decode_clt" else not fires.any()


@every_golden
def test_a_layer_alone_is_that_of_the_set(folder: Path) -> None:
    loaded, golden, _ = _opened(folder)
    whole, output = loaded.encode(golden["x"]), loaded.reconstruct(golden["x"])
    fingerprints = set()
    for i in range(loaded.n_layers):
        alone = loaded.layer(i)
        assert torch.equal(alone.encode(golden["x"][i]), whole[i])
        by_path = sae.load_encoder(f"{folder / 'ckpt'}#{i}")
        assert by_path.fingerprint == alone.fingerprint
        assert f".{i}." in (alone.config.hook_name or f".{i}.")
        fingerprints.add(alone.fingerprint)
        if loaded.crosses_layers:
            assert alone.explains == "nothing"
            for call in (alone.reconstruct, lambda x, alone=alone: alone.decode(alone.encode(x))):
                with pytest.raises(UsageError, match="load the whole set"):
                    call(golden["x"][i])
        else:
            assert alone.explains == "output"
            assert torch.equal(alone.reconstruct(golden["x"][i]), output[i])
    assert len(fingerprints | {loaded.fingerprint}) == loaded.n_layers + 1


@every_golden
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_dtype_is_honoured_and_leaves_the_fingerprint(folder: Path, dtype: str) -> None:
    loaded, golden, _ = _opened(folder, dtype=dtype)
    x = golden["x"][:, 1:]  # without the token of huge norm
    acts = loaded.encode(x)
    assert acts.dtype == loaded.reconstruct(x).dtype == getattr(torch, dtype)
    assert loaded.fingerprint == _layered(folder / "ckpt").fingerprint
    both, either = (
        (acts != 0) & (golden["feature_acts"][:, 1:] != 0),
        (acts != 0) | (golden["feature_acts"][:, 1:] != 0),
    )
    assert both.sum() >= 0.9 * either.sum()
    close = 1e-4 if dtype == "float64" else 0.2
    scale = golden["reconstruction"].abs().max()
    assert (loaded.reconstruct(x) - golden["reconstruction"][:, 1:]).abs().max() < close * scale


@pytest.mark.parametrize("threshold", [False, True])
@pytest.mark.parametrize("with_skip", [False, True])
def test_a_cross_layer_transcoder_equals_its_slow_twin(tmp_path: Path, threshold: bool, with_skip: bool) -> None:
    layers, x = parameters(threshold=threshold), x_of()
    skip = torch.arange(D * D, dtype=torch.float32).view(D, D) / 10
    loaded = _layered(write_clt(tmp_path, layers, **({"W_skip": skip} if with_skip else {})))
    acts, outputs = twin(layers, x, skip if with_skip else None)
    torch.testing.assert_close(loaded.encode(x), acts.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loaded.reconstruct(x), outputs.float(), rtol=1e-4, atol=1e-4)
    assert torch.equal(loaded.encode(x) != 0, acts != 0)
    assert (acts < 0).any() == threshold


def test_the_fingerprint_is_the_same_in_every_layout(tmp_path: Path) -> None:
    layers = parameters()
    clt = _layered(write_clt(tmp_path / "clt", layers))
    other = _layered(write_decode_clt(tmp_path / "decode", decode_clt(layers)))
    merged = _layered(write_decode_clt(tmp_path / "merged", decode_clt(layers), "model.safetensors"))
    halves = [{name: tensor.bfloat16() for name, tensor in t.items()} for t in layers]
    narrow, wide = (
        write_clt(tmp_path / "bf16", halves),
        write_clt(tmp_path / "f64", [{name: tensor.double() for name, tensor in t.items()} for t in halves]),
    )
    assert clt.fingerprint == other.fingerprint == merged.fingerprint
    skip, jump = torch.arange(D * D, dtype=torch.float32).view(D, D), parameters(threshold=True)
    gemma = _layered(write_gemma_scope_2_clt(tmp_path / "gemma", jump, skip))
    same = _layered(write_clt(tmp_path / "jump", jump, W_skip=skip))
    assert gemma.fingerprint == same.fingerprint != _layered(write_clt(tmp_path / "no_skip", jump)).fingerprint
    assert torch.equal(gemma.reconstruct(x_of()), same.reconstruct(x_of()))
    assert [clt.layer(i).fingerprint for i in range(LAYERS)] == [other.layer(i).fingerprint for i in range(LAYERS)]
    assert _layered(narrow).fingerprint == _layered(wide).fingerprint != clt.fingerprint
    layers[0]["W_dec"][3, 2, 1] += 1e-5
    changed = _layered(write_clt(tmp_path / "changed", layers))
    assert changed.fingerprint != clt.fingerprint
    assert changed.layer(0).fingerprint == clt.layer(0).fingerprint  # its encoder is the same


@pytest.mark.parametrize("kind", ["transcoder", "skip_transcoder", "jumprelu_skip_transcoder"])
def test_a_layer_of_a_set_is_named_as_the_same_transcoder_of_saelens(tmp_path: Path, kind: str) -> None:
    layers = parameters(threshold="jumprelu" in kind)
    skip = {"W_skip": torch.randn(D, D)} if "skip" in kind else {}
    for t in layers:
        if "threshold" in t:
            t["threshold"].abs_()
    one = layers[1] | skip | {"W_dec": layers[1]["W_dec"][:, 0].contiguous()}
    (tmp_path / "saelens").mkdir()
    save_file(one, tmp_path / "saelens/sae_weights.safetensors")
    cfg = {"architecture": kind, "d_in": D, "d_sae": F, "d_out": D, "apply_b_dec_to_input": False,
           "normalize_activations": "none", "metadata": {"sae_lens_version": "6.54.12"}}  # fmt: skip
    (tmp_path / "saelens/cfg.json").write_text(json.dumps(cfg))
    layer = _layered(write_set(tmp_path / "set", layers, **skip)).layer(1)
    same = sae.load_encoder(tmp_path / "saelens")
    assert layer.fingerprint == same.fingerprint
    assert torch.equal(layer.reconstruct(x_of()[1]), same.reconstruct(x_of()[1]))
    assert layer.memory_bytes == same.memory_bytes - 4 * F * D


def test_thresholds_below_zero_change_the_name(tmp_path: Path) -> None:
    """Without a ReLU they let negative p through, which SAELens' JumpReLU of the same numbers does not."""
    layers = parameters(threshold=True)
    config = _layered(write_set(tmp_path / "set", layers)).layer(1).config
    assert config.signed
    tensors = layers[1] | {"W_dec": layers[1]["W_dec"][:, 0].contiguous()}
    (tmp_path / "saelens").mkdir()
    save_file(tensors, tmp_path / "saelens/sae_weights.safetensors")
    cfg = {"architecture": "jumprelu_transcoder", "d_in": D, "d_sae": F, "d_out": D, "apply_b_dec_to_input": False,
           "normalize_activations": "none", "metadata": {"sae_lens_version": "6.54.12"}}  # fmt: skip
    (tmp_path / "saelens/cfg.json").write_text(json.dumps(cfg))
    assert sae.load_encoder(tmp_path / "saelens").fingerprint != sae.load_encoder(f"{tmp_path / 'set'}#1").fingerprint


def test_square_encoders_are_read_by_the_convention(tmp_path: Path) -> None:
    layers = [t | {"W_enc": torch.randn(D, D), "b_enc": torch.randn(D), "W_dec": torch.randn(D, LAYERS - i, D)}
              for i, t in enumerate(parameters())]  # fmt: skip
    x = x_of()
    for write in (write_clt, write_set):
        loaded = _layered(write(tmp_path / write.__name__, layers))
        expected = torch.stack([(x[i] @ t["W_enc"] + t["b_enc"]).relu() for i, t in enumerate(layers)])
        torch.testing.assert_close(loaded.encode(x), expected)
    expected = torch.stack([expected[i] @ t["W_dec"][:, 0] + t["b_dec"] for i, t in enumerate(layers)])
    torch.testing.assert_close(loaded.reconstruct(x), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_rows_from_a_file_give_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turned: bool, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(1)
    W, b = torch.randn(300, 17, generator=generator).to(dtype), torch.randn(17, generator=generator)
    acts = torch.randn(90, 300, generator=generator)
    acts[acts < 1] = 0
    acts[5] = 0
    save_file({"odd": torch.zeros(3, dtype=torch.bfloat16), "W": W.T.contiguous() if turned else W}, tmp_path / "w")
    stored = open_safetensors(tmp_path / "w")["W"]
    lazy = stored.transposed if turned else stored
    expected = decode_fired(Firings.of(acts), len(acts), W.float(), b)
    assert torch.equal(decode_from_file(Firings.of(acts), len(acts), lazy, b), expected)
    monkeypatch.setattr(decoding, "GATHER_BYTES", 1_000)  # a token at a time
    assert torch.equal(decode_from_file(Firings.of(acts), len(acts), lazy, b), expected)
    assert decode_from_file(Firings.none(acts), 0, lazy, b).shape == (0, 17)


def test_one_layer_needs_no_decoder_and_an_output_only_rows_that_fired(tmp_path: Path) -> None:
    layers, x = parameters(), x_of()
    layers[0]["b_enc"][4], layers[0]["W_enc"][:, 4] = -1, 0  # never fires
    layers[0]["W_dec"][4] = float("nan")
    loaded = _layered(write_clt(tmp_path, layers))
    assert loaded.reconstruct(x).isfinite().all()
    with pytest.raises(SAELoadError, match=r"W_dec_0.safetensors: not_finite"):
        _ = loaded.fingerprint
    acts = loaded.encode(x)
    acts[0, 2, 4] = 1.0
    with pytest.raises(SAELoadError, match=r"W_dec_0.safetensors: not_finite"):
        loaded.reconstruct_from(x, acts)
    for i in range(LAYERS):
        (tmp_path / f"W_dec_{i}.safetensors").unlink()
    assert torch.equal(loaded.layer(2).encode(x[2]), acts[2])
    with pytest.raises(SAELoadError, match="unreadable"):
        loaded.reconstruct(x)


def test_what_does_not_fit_is_refused_before_allocation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = 4 * (D * F + 2 * F)
    path = write_clt(tmp_path, parameters())
    whole = _layered(path, max_memory_bytes=LAYERS * one)
    assert whole.layer(1).memory_bytes == one
    assert whole.encode(x_of()).shape == (LAYERS, 7, F)
    less = _layered(path, max_memory_bytes=LAYERS * one - 1)
    assert less.layer(1).encode(x_of()[1]).shape == (7, F)  # one fits, wherever its decoders are
    monkeypatch.setattr("stream_interp.sae.layered.fold", None)
    with pytest.raises(
        SAELoadError, match=f"too_large: expected at most {LAYERS * one - 1} bytes, found {LAYERS * one}"
    ):
        less.encode(x_of())
    with pytest.raises(SAELoadError, match="too_large"):
        sae.load_encoder(f"{path}#1", max_memory_bytes=one - 1)


def test_words_for_people(tmp_path: Path) -> None:
    path = write_set(tmp_path / "set", parameters())
    with pytest.raises(UsageError, match=r"set#0 to .*set#2"):
        sae.load_encoder(path)
    with pytest.raises(UsageError, match="layers 0 to 2"):
        sae.load_encoder(f"{path}#3")
    with pytest.raises(UsageError, match="leave #1 away"):
        sae.load(f"{Path(__file__).parent / 'golden/saelens_gated/ckpt'}#1")
    with pytest.raises(SAELoadError, match="missing_path"):
        sae.load(f"{path}#x")
    shutil.copytree(path, tmp_path / "odd#1")  # a folder of that name is a folder
    assert _layered(tmp_path / "odd#1").n_layers == LAYERS
    assert sae.load_encoder(f"{tmp_path / 'odd#1'}#2").fingerprint == sae.load_encoder(f"{path}#2").fingerprint


def test_shapes_that_are_no_inputs_of_the_set(tmp_path: Path) -> None:
    loaded, x = _layered(write_clt(tmp_path, parameters())), x_of()
    for wrong in (x[:2], x[0], x[..., :-1], x.numpy()[:, :, :2]):
        with pytest.raises(UsageError, match=rf"\[{LAYERS}, n, {D}\]"):
            loaded.encode(wrong)
    with pytest.raises(UsageError, match="int"):
        loaded.encode(np.zeros((LAYERS, 2, D), np.int32))
    with pytest.raises(UsageError, match="6 tokens"):
        loaded.reconstruct_from(x[:, :6], loaded.encode(x))
    with pytest.raises(UsageError, match=rf"\[{LAYERS}, n, {F}\]"):
        loaded.reconstruct_from(x, x)
    assert loaded.reconstruct(x[:, :0]).shape == (LAYERS, 0, D)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_golden
def test_cuda_gives_the_same(folder: Path) -> None:
    loaded, golden, meta = _opened(folder, device="auto")
    acts, output = loaded.encode(golden["x"]), loaded.reconstruct(golden["x"])
    assert acts.device.type == output.device.type == "cuda"
    assert torch.equal(acts.cpu() != 0, golden["feature_acts"] != 0)
    torch.testing.assert_close(output.cpu(), golden["reconstruction"], rtol=0, atol=meta["reconstruction_atol"])
