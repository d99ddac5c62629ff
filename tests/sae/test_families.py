"""What a family refuses, and what `convert` does, beyond the contract that all families share."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from stream_interp import sae
from stream_interp.errors import SAELoadError, UsageError
from stream_interp.sae.formats import FAMILIES

Golden = Callable[[str], Path]
FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("golden/*/meta.json"))
PICKLED = {family.name for family in FAMILIES if family.convertible}


@pytest.fixture
def copied(golden: Golden, tmp_path: Path) -> Callable[[str], Path]:
    """`copied(name)` -> what `load` or `convert` is given, free to be changed."""

    def _copied(name: str) -> Path:
        meta = json.loads((golden(name) / "meta.json").read_text())
        shutil.copytree(golden(name) / "ckpt", tmp_path / name / "ckpt")
        return Path(tmp_path / name / meta["checkpoint"])

    return _copied


def _reason(path: Path, **options: Any) -> str:
    with pytest.raises(SAELoadError) as caught:
        sae.load(path, **options)
    return caught.value.reason


def _edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _edit_tensors(path: Path, **changes: torch.Tensor | None) -> None:
    kept = {name: tensor for name, tensor in (load_file(path) | changes).items() if tensor is not None}
    save_file(kept, path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"activation": "relu"}, "unknown_architecture"),
        ({"signed": True}, "unknown_architecture"),
        ({"k": 5_000}, "wrong_k"),
        ({"k": 7}, "wrong_k"),  # 96 features in 7 equal groups
        ({"num_latents": 95}, "wrong_shape"),
        ({"num_latents": 0, "expansion_factor": 5}, "wrong_shape"),
        ({"skip_connection": True}, "missing_tensor"),
        ({"d_in": "x"}, "bad_config"),
    ],
    ids=str,
)
def test_sparsify(copied: Golden, changes: dict[str, Any], reason: str) -> None:
    folder = copied("sparsify_groupmax")
    _edit_json(folder / "cfg.json", **changes)
    assert _reason(folder) == reason


def test_hints_that_would_be_ignored(copied: Golden) -> None:
    for name in ("sparsify_groupmax", "gemma_scope_2_skip", "gemma_scope_1_npz"):
        assert _reason(copied(name), activation_scale=0.5) == "activation_scale_unused", name
    for name in ("llama_scope", "saelens_gated"):
        assert _reason(copied(name), k=3) == "k_unused", name


def test_gemma_scope_2(copied: Golden) -> None:
    folder = copied("gemma_scope_2_skip")
    whole = sae.load(folder)
    assert (whole.config.model_name, whole.config.skip) == ("gemma-v3-270m-it", True)
    (folder / "config.json").rename(folder / "aside")
    assert sae.load(folder).fingerprint == whole.fingerprint
    (folder / "aside").rename(folder / "config.json")
    _edit_tensors(folder / "params.safetensors", affine_skip_connection=None)
    assert _reason(folder) == "missing_tensor"
    _edit_json(folder / "config.json", affine_connection=False, architecture="topk")
    assert _reason(folder) == "unknown_architecture"
    _edit_tensors(folder / "params.safetensors", w_dec=torch.zeros(96, 3, 24))  # a cross-layer transcoder's
    _edit_json(folder / "config.json", architecture="jump_relu")
    assert _reason(folder) == "wrong_shape"


def test_llama_scope(copied: Golden) -> None:
    folder = copied("llama_scope")
    scale = sae.load(folder).config.activation_scale
    assert sae.load(folder, activation_scale=scale).config.activation_scale == scale
    assert _reason(folder, activation_scale=scale * 1.1) == "activation_scale_conflict"
    for norms in ({}, {"in": 0}, {"in": -1}):
        _edit_json(folder / "hyperparams.json", dataset_average_activation_norm=norms)
        assert _reason(folder) == "missing_activation_scale"
    _edit_json(folder / "hyperparams.json", act_fn="topk")
    assert _reason(folder) == "unknown_architecture"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hook_point_out": "blocks.5.hook_mlp_out"}, "unknown_architecture"),  # a transcoder has two factors
        ({"apply_decoder_bias_to_pre_encoder": True}, "unknown_architecture"),
        ({"use_glu_encoder": True}, "unknown_architecture"),
        ({"norm_activation": "inference"}, "unknown_normalisation"),  # its factor is in the weights already
        ({"jump_relu_threshold": 1e300}, "not_finite"),
        ({"d_model": 10**400}, "bad_config"),
    ],
    ids=str,
)
def test_llama_scope_that_would_be_misread(copied: Golden, changes: dict[str, Any], reason: str) -> None:
    folder = copied("llama_scope")
    _edit_json(folder / "hyperparams.json", **changes)
    assert _reason(folder) == reason


def test_a_k_beyond_any_float(copied: Golden) -> None:
    folder = copied("sparsify_groupmax")
    _edit_json(folder / "cfg.json", k=10**400)
    assert _reason(folder, k=12) == "k_conflict"


def _npz(path: Path, **changes: Any) -> None:
    arrays = {name: array for name, array in (dict(np.load(path)) | changes).items() if array is not None}
    np.savez(path, **arrays)


def test_npz(copied: Golden, tmp_path: Path) -> None:
    path = copied("gemma_scope_1_npz") / "params.npz"
    good = sae.load(path.parent)
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez_compressed(path, **{name: np.asfortranarray(array).astype(">f4") for name, array in arrays.items()})
    assert sae.load(path.parent).fingerprint == good.fingerprint
    for changes, reason in (
        ({"threshold": None}, "missing_tensor"),
        ({"b_enc": None}, "missing_tensor"),
        ({"W_enc": arrays["W_enc"][:, :-1]}, "wrong_shape"),
        ({"W_enc": arrays["W_enc"].astype(np.int32)}, "wrong_dtype"),
        ({"b_enc": arrays["b_enc"].astype(object)}, "bad_header"),
        ({"b_enc": arrays["b_enc"] * np.nan}, "not_finite"),
        ({"more": arrays["b_enc"]}, "unknown_tensor"),
        ({"w_enc": arrays["W_enc"] * 2}, "unknown_tensor"),
    ):
        np.savez(path, **arrays)
        _npz(path, **changes)
        assert _reason(path.parent) == reason, changes
    np.savez(path, **arrays)
    whole = path.read_bytes()
    for broken in (b"", whole[:1000], whole[:-30], b"PK\x03\x04" + bytes(200)):
        path.write_bytes(broken)
        assert _reason(path.parent) == "bad_header"


def _member(path: Path, name: str, header: str, data: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    text = header.encode().ljust(118) + b"\n"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(name, b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 4096), }", "truncated"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, -1), }", "bad_header"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (4,), }", "bad_header"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", "bad_header"),  # more than it declares
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os').mkdir('x'),), }", "bad_header"),
        ("not a header", "bad_header"),
    ],
    ids=range(6),
)
def test_npz_headers_that_lie(tmp_path: Path, header: str, reason: str) -> None:
    _member(tmp_path / "params.npz", "W_enc.npy", header, bytes(16))
    assert _reason(tmp_path) == reason


@pytest.mark.parametrize("header", ["(" * 9_000, "-" * 9_900], ids=["open brackets", "minus signs"])
def test_npz_headers_on_which_the_parser_gives_up(tmp_path: Path, header: str) -> None:
    _member(tmp_path / "params.npz", "W_enc", header, b"")
    assert _reason(tmp_path) == "bad_header"


def test_npz_with_one_byte_changed(copied: Golden) -> None:
    """zlib has an error of its own, and LZMA may ask for gigabytes."""
    file = next(copied("gemma_scope_1_npz").rglob("params.npz"))
    with np.load(file) as arrays:
        kept = dict(arrays)
    np.savez_compressed(file, **kept)
    whole, right = file.read_bytes(), sae.load(file.parent).fingerprint
    for at in range(40, len(whole), len(whole) // 150):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with suppress(SAELoadError):
            assert sae.load(file.parent).fingerprint == right
    with zipfile.ZipFile(io.BytesIO(whole)) as source, zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as target:
        for member in source.namelist():
            target.writestr(member, source.read(member))
    assert _reason(file.parent) == "bad_header"


def test_npz_bomb(tmp_path: Path) -> None:
    """4 GB of zeros in 4 MB are an honest archive; that an array is refused before it is inflated is what counts."""
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (16777216,), }"
    _member(tmp_path / "params.npz", "W_enc.npy", header, bytes(4 * 16_777_216), zipfile.ZIP_DEFLATED)
    data = bytearray((tmp_path / "params.npz").read_bytes())
    assert len(data) < 100_000
    at = data.rindex(b"PK\x01\x02")  # the directory claims a thousand times as much
    data[at + 24 : at + 28] = (4_000_000_000).to_bytes(4, "little")
    (tmp_path / "params.npz").write_bytes(data)
    assert _reason(tmp_path) == "bad_header"


def test_embedding_saes_are_refused(copied: Golden, tmp_path: Path) -> None:
    folder = tmp_path / "embedding" / "width_512"
    shutil.copytree(copied("gemma_scope_1_npz"), folder)
    assert _reason(folder) == "unknown_normalisation"


def _converted(path: Path, dst: Path, **options: Any) -> str:
    with pytest.raises(SAELoadError) as caught:
        sae.convert(path, dst, **options)
    assert not dst.exists()
    return caught.value.reason


def _save_pt(path: Path, **changes: Any) -> None:
    loaded = torch.load(path, weights_only=True) | changes
    torch.save({name: value for name, value in loaded.items() if value is not None}, path)


def test_dictionary_learning(copied: Golden, tmp_path: Path) -> None:
    folder, out = copied("dictionary_learning_batch_topk"), tmp_path / "out"
    for changes, reason in (
        ({"threshold": torch.tensor(-1.0)}, "missing_threshold"),
        ({"threshold": torch.tensor(float("nan"))}, "missing_threshold"),
        ({"threshold": None}, "missing_tensor"),
        ({"b_dec": None}, "missing_tensor"),
        ({"encoder.weight": torch.zeros(511, 64)}, "wrong_shape"),
        ({"encoder.weight": torch.zeros(1).expand(512, 100_000_000)}, "bad_header"),
        ({"W_skip": torch.zeros(64, 64)}, "unknown_tensor"),
    ):
        fresh = tmp_path / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(folder, fresh)
        _save_pt(fresh / "ae.pt", **changes)
        assert _converted(fresh, out) == reason, changes
    assert _converted(folder, out, k=3) == "k_unused"
    assert _converted(folder, out, activation_scale=2.0) == "activation_scale_unused"
    (folder / "config.json").write_text('{"trainer": {"dict_class": "IdentityDict"}}')
    assert _converted(folder, out) == "unknown_architecture"
    (folder / "config.json").unlink()
    assert _converted(folder, out) == "missing_file"


def test_a_pickled_k_that_the_config_denies(copied: Golden, tmp_path: Path) -> None:
    folder = copied("dictionary_learning_autoencodertopk")
    _edit_json(folder / "config.json", trainer={"dict_class": "AutoEncoderTopK", "k": 8})
    assert _converted(folder, tmp_path / "out") == "k_conflict"


@pytest.mark.parametrize("normed", [True, False])
def test_decoder_rows_are_normed_in_float32_or_left_alone(copied: Golden, tmp_path: Path, normed: bool) -> None:
    folder = copied("dictionary_learning_autoencoder")
    state = {name: tensor.bfloat16() for name, tensor in torch.load(folder / "ae.pt", weights_only=True).items()}
    if normed:
        state = {name: tensor.float() for name, tensor in state.items()}
        state["decoder.weight"] /= state["decoder.weight"].norm(dim=0)
    torch.save(state, folder / "ae.pt")
    sae.convert(folder, tmp_path / "out")
    written = load_file(tmp_path / "out/sae_weights.safetensors")
    assert written["W_dec"].norm(dim=1) == pytest.approx(1.0, abs=1e-6)
    if normed:
        assert torch.equal(written["W_dec"], state["decoder.weight"].T)
        assert torch.equal(written["W_enc"], state["encoder.weight"].T)


def test_pickled_tensors_that_could_not_be_written(copied: Golden, tmp_path: Path) -> None:
    file = copied("qwen_scope")
    _save_pt(file, b_enc=torch.empty(96, device="meta"))
    assert _converted(file, tmp_path / "meta", k=11) == "bad_header"
    _save_pt(file, b_enc=torch.zeros(96), W_dec=torch.zeros(25, 96), b_dec=torch.zeros(25))
    assert _converted(file, tmp_path / "wide", k=11) == "wrong_shape"


def test_openai(copied: Golden, tmp_path: Path) -> None:
    path, out = copied("openai_topk"), tmp_path / "out"
    assert _converted(path, out, k=14) == "k_conflict"
    _save_pt(path, activation_state_dict={"k": 13, "postact_fn": "Identity"})
    assert _converted(path, out) == "unknown_architecture"
    _save_pt(path, activation="Softmax")
    assert _converted(path, out) == "unknown_architecture"
    _save_pt(path, activation="TopK", activation_state_dict=None)
    assert _converted(path, out) == "wrong_k"
    _save_pt(path, activation="ReLU")
    sae.convert(path, out)
    config = sae.load(out).config
    assert (config.architecture, config.normalisation, config.centred) == ("standard", "none", True)


def test_a_topk_without_its_k_is_refused(copied: Golden, tmp_path: Path) -> None:
    assert _converted(copied("qwen_scope"), tmp_path / "out") == "wrong_k"


def test_parameters_are_kept_bit_for_bit_in_their_dtype(copied: Golden, tmp_path: Path) -> None:
    path = copied("qwen_scope")
    stored = {name: tensor.bfloat16() for name, tensor in torch.load(path, weights_only=True).items()}
    torch.save(stored, path)
    fingerprint = sae.convert(path, tmp_path / "out", k=5)
    written = load_file(tmp_path / "out/sae_weights.safetensors")
    assert written["W_enc"].dtype == torch.bfloat16
    assert torch.equal(written["W_enc"], stored["W_enc"].T)
    assert torch.equal(written["W_dec"], stored["W_dec"].T)
    assert sae.load(tmp_path / "out").fingerprint == fingerprint


def test_convert_overwrites_nothing(copied: Golden, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    with pytest.raises(UsageError, match="is there already"):
        sae.convert(copied("qwen_scope"), tmp_path / "out", k=5)
    assert _converted(copied("saelens_gated"), tmp_path / "other") == "nothing_to_convert"


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pickle_was_executed",)


@pytest.mark.parametrize("new_format", [True, False])
def test_convert_executes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_format: bool) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"W_enc": _Bomb()}, tmp_path / "layer0.sae.pt", _use_new_zipfile_serialization=new_format)
    assert _converted(tmp_path / "layer0.sae.pt", tmp_path / "out", k=1) == "pickle"
    assert not (tmp_path / "pickle_was_executed").exists()
    torch.save([1, 2], tmp_path / "layer0.sae.pt")
    assert _converted(tmp_path / "layer0.sae.pt", tmp_path / "out", k=1) == "pickle"


@settings(max_examples=250, deadline=5_000)
@given(st.sampled_from(FOLDERS), st.data())
def test_whatever_the_bytes_it_loads_or_refuses(folder: Path, data: st.DataObject) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    files = sorted(file.relative_to(folder) for file in (folder / "ckpt").rglob("*") if file.is_file())
    victim = data.draw(st.sampled_from(files))
    whole = (folder / victim).read_bytes()
    at = data.draw(st.integers(0, min(len(whole), 2_000)) | st.integers(0, len(whole)))
    patch, length = data.draw(st.binary(max_size=12)), data.draw(st.just(None) | st.integers(0, len(whole)))
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(folder / "ckpt", Path(name) / "ckpt")
        mutated = io.BytesIO(whole[:at] + patch + whole[at + len(patch) :]).getvalue()[:length]
        (Path(name) / victim).write_bytes(mutated)
        path = Path(name) / meta["checkpoint"]
        with suppress(SAELoadError):
            if meta["family"] in PICKLED:
                sae.convert(path, Path(name) / "out", **meta["load"])
                path = Path(name) / "out"
            sae.load(path, **meta["load"])
