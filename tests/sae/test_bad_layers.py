"""A set that would be misread must be refused, with the right reason; nothing of it is executed or followed."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from stream_interp import sae
from stream_interp.errors import SAELoadError
from stream_interp.sae.layered import LayeredSAE

from .conftest import refused_at_once
from .layered_files import (
    LAYERS,
    D,
    F,
    decode_clt,
    parameters,
    write_clt,
    write_decode_clt,
    write_gemma_scope_2_clt,
    write_set,
    x_of,
)

Change = Callable[[Path], object]


def _reason(path: Path, **options: Any) -> str:
    with refused_at_once() as caught:
        sae.load(path, **options)
    assert caught.value.path
    assert caught.value.expected
    assert caught.value.found
    return caught.value.reason


def _edit(name: str, **changes: Any) -> Change:
    """Replaces tensors, or drops them where the value is None; a function is given the old one."""

    def edit(folder: Path) -> None:
        tensors = load_file(folder / name)
        for key, value in changes.items():
            tensors[key] = value(tensors[key]) if callable(value) else value
        kept = {key: tensor.contiguous() for key, tensor in tensors.items() if tensor is not None}
        save_file(kept, folder / name)

    return edit


def _cut(name: str) -> Change:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-5])


def _remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def _copy(name: str, to: str) -> Change:
    return lambda folder: shutil.copy(folder / name, folder / to)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_remove("W_enc_1.safetensors"), "missing_layer"),
        (_remove("W_dec_1.safetensors"), "missing_layer"),
        (_remove("W_dec_2.safetensors"), "missing_layer"),
        (_remove("W_enc_2.safetensors"), "missing_layer"),  # its decoder is one too many
        (_copy("W_enc_2.safetensors", "W_enc_3.safetensors"), "missing_layer"),
        (_copy("W_enc_2.safetensors", "W_enc_9.safetensors"), "missing_layer"),
        (_remove("config.yaml"), "unknown_family"),
        (_cut("W_enc_1.safetensors"), "truncated"),
        (_cut("W_dec_0.safetensors"), "truncated"),
        (_copy("W_enc_0.safetensors", "W_enc_1.safetensors"), "unknown_tensor"),  # its names are of layer 0
        (_copy("W_dec_0.safetensors", "W_dec_1.safetensors"), "unknown_tensor"),
        (_edit("W_dec_1.safetensors", W_dec_1=lambda t: t[:, :1]), "wrong_shape"),  # writes into too few layers
        (_edit("W_dec_1.safetensors", W_dec_1=lambda t: t.repeat(1, 2, 1)), "wrong_shape"),
        (_edit("W_dec_1.safetensors", W_dec_1=lambda t: t[..., :-1]), "wrong_shape"),
        (_edit("W_dec_1.safetensors", W_dec_1=lambda t: t[:-1]), "wrong_shape"),
        (_edit("W_dec_1.safetensors", W_dec_1=lambda t: t.transpose(0, 1)), "wrong_shape"),
        (_edit("W_dec_1.safetensors", W_dec_1=None, b=torch.zeros(1)), "unknown_tensor"),
        (_edit("W_enc_1.safetensors", b_enc_1=lambda t: t[:-1]), "wrong_shape"),
        (_edit("W_enc_1.safetensors", W_enc_1=lambda t: t[:, :-1]), "unequal_layers"),
        (_edit("W_enc_1.safetensors", b_dec_1=None), "missing_tensor"),
        (_edit("W_enc_1.safetensors", W_enc_1=None), "missing_tensor"),
        (_edit("W_enc_1.safetensors", b_dec_1=torch.full((D,), float("nan"))), "not_finite"),
        (_edit("W_enc_1.safetensors", threshold_1=torch.zeros(F)), "unequal_layers"),
        (_edit("W_enc_1.safetensors", threshold_1=torch.zeros(1)), "wrong_shape"),
        (_edit("W_enc_1.safetensors", W_skip_1=torch.zeros(D, D)), "missing_tensor"),  # in one layer alone
        (_edit("W_enc_1.safetensors", W_skip_1=torch.zeros(D, D + 1)), "wrong_shape"),
        (_edit("W_enc_1.safetensors", W_enc_1=lambda t: t.to(torch.int64)), "wrong_dtype"),
    ],
)
def test_cross_layer_transcoders(tmp_path: Path, change: Change, reason: str) -> None:
    change(write_clt(tmp_path, parameters()))
    assert _reason(tmp_path) == reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_remove("layer_0.safetensors"), "missing_layer"),
        (_remove("layer_1.safetensors"), "missing_layer"),
        (_copy("layer_2.safetensors", "layer_4.safetensors"), "missing_layer"),
        (_cut("layer_1.safetensors"), "truncated"),
        (_edit("layer_1.safetensors", W_dec=lambda t: t[:-1]), "wrong_shape"),
        (_edit("layer_1.safetensors", W_dec=torch.zeros(F, 2, D)), "wrong_shape"),
        (_edit("layer_1.safetensors", W_dec=None), "missing_tensor"),
        (_edit("layer_1.safetensors", b_enc=None), "missing_tensor"),
        (_edit("layer_1.safetensors", threshold=torch.zeros(F)), "unknown_tensor"),
        (_edit("layer_1.safetensors", **{"activation_function.threshold": torch.zeros(F)}), "unequal_layers"),
        (_edit("layer_1.safetensors", W_skip=torch.zeros(D, D)), "unequal_layers"),
        (_edit("layer_1.safetensors", W_skip=torch.zeros(D)), "wrong_shape"),
        (_edit("layer_1.safetensors", W_enc=lambda t: t[1:], b_enc=lambda t: t[1:], W_dec=lambda t: t[1:]),
         "unequal_layers"),
    ],
)  # fmt: skip
def test_transcoder_sets(tmp_path: Path, change: Change, reason: str) -> None:
    change(write_set(tmp_path, parameters()))
    assert _reason(tmp_path) == reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_remove("layer_1.safetensors"), "missing_layer"),
        (_remove("layer_0.safetensors"), "unknown_family"),
        (_edit("layer_1.safetensors", w_dec=lambda t: t[:, 1:]), "wrong_shape"),
        (_edit("layer_1.safetensors", w_dec=None), "missing_tensor"),
        (_edit("layer_1.safetensors", threshold=None), "missing_tensor"),
        (_edit("layer_1.safetensors", affine_skip_connection=None), "missing_tensor"),
        (lambda folder: (folder / "config.json").write_text('{"architecture": "topk"}'), "unknown_architecture"),
        (_copy("layer_2.safetensors", "layer_3.safetensors"), "wrong_shape"),  # room for too few layers
    ],
)
def test_gemma_scope_2_clts(tmp_path: Path, change: Change, reason: str) -> None:
    change(write_gemma_scope_2_clt(tmp_path / "clt", parameters(threshold=True), torch.ones(D, D)))
    assert _reason(tmp_path / "clt") == reason


def test_numbers_that_are_not_finite_are_found_when_a_layer_is_loaded(tmp_path: Path) -> None:
    for name in ("W_enc", "W_dec", "b_enc"):
        layers = parameters()
        layers[1][name][2] = float("inf")
        loaded = sae.load(write_set(tmp_path / name, layers))
        assert isinstance(loaded, LayeredSAE)
        loaded.layer(0)
        with pytest.raises(SAELoadError, match="not_finite"):
            loaded.layer(1)
        with pytest.raises(SAELoadError, match="not_finite"):
            loaded.encode(x_of())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "- 1",
        "model_kind: [transcoder_set]",
        "model_kind: !!python/object/apply:os.mkdir [yaml_was_executed]",
        "!!python/object/apply:os.mkdir [yaml_was_executed]",
        "model_kind: &a transcoder_set\nmodel_name: *a",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nmodel_kind: *c",
        "a: &a {x: 1}\nb: {<<: [*a, *a]}\nmodel_kind: transcoder_set",
        "[" * 60_000,
        "{" * 60_000,
        "- " * 30_000,
        "x" * 70_000,
        "model_kind: transcoder_set\n\tmodel_name: x",
        "model_kind: \xff\x00",
        "? [a]\n: b\nmodel_kind: transcoder_set",
        "a: " + "9:" * 30_000 + "9",
        "%",
        "%YAML 9.9\n---\nmodel_kind: x",
        "--- a\n--- b",
    ],
    ids=range(20),
)
def test_yaml_that_is_no_plain_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_set(tmp_path / "set", parameters())
    (folder / "config.yaml").write_bytes(text.encode("latin-1"))
    assert _reason(folder) in {"bad_config", "unknown_architecture"}
    assert not (tmp_path / "yaml_was_executed").exists()


def test_configs_that_mean_something_else(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", parameters())
    plain = (folder / "config.yaml").read_text()
    for text, reason in (
        (plain.replace("transcoder_set", "crosscoder"), "unknown_architecture"),
        (plain.replace("transcoder_set", "cross_layer_transcoder"), "missing_layer"),
        (plain + "transcoders:\n- hf://a/b/params.npz\n", "files_elsewhere"),
    ):
        (folder / "config.yaml").write_text(text)
        assert _reason(folder) == reason
    (folder / "config.yaml").write_text(plain + "other:\n  deep: [1, 2]\n")
    assert _reason(folder, k=3) == "k_unused"
    assert _reason(folder, activation_scale=0.5) == "activation_scale_unused"
    assert sae.load_encoder(f"{folder}#0").config.model_name == "toy"


@pytest.mark.parametrize(
    ("cfg", "reason"),
    [
        ({"activation_fn": "batchtopk", "batchtopk_k": 4}, "unknown_architecture"),
        ({"activation_fn": "topk", "topk_k": 4, "topk_mode": "per_layer"}, "unknown_architecture"),
        ({"activation_fn": "jumprelu"}, "missing_tensor"),  # no log_threshold
        ({"enable_feature_scale": True, "decoder_tying": "per_source"}, "unknown_architecture"),
        ({"enable_feature_offset": True, "decoder_tying": "per_source"}, "unknown_architecture"),
        ({"normalization_method": "whitening"}, "unknown_normalisation"),
        ({"normalization_method": "mean_std"}, "missing_file"),  # the tool would go on without
        ({"normalization_method": "auto"}, "missing_file"),
        ({"decoder_tying": "per_source"}, "missing_tensor"),
        ({"decoder_tying": "sideways"}, "bad_config"),
        ({"skip_connection": True}, "missing_tensor"),
        ({"num_layers": LAYERS + 1}, "missing_tensor"),
        ({"num_layers": LAYERS - 1}, "unknown_tensor"),
        ({"num_layers": 10**9}, "bad_config"),
        ({"num_layers": 0}, "bad_config"),
        ({"num_features": F + 1}, "wrong_shape"),
        ({"d_model": D - 1}, "wrong_shape"),
        ({"d_model": "6"}, "bad_config"),
    ],
    ids=str,
)
def test_decode_clt_configs(tmp_path: Path, cfg: dict[str, Any], reason: str) -> None:
    assert _reason(write_decode_clt(tmp_path, decode_clt(parameters()), **cfg)) == reason


ENC, DEC = "encoder_module.encoders.1", "decoder_module.decoders.0->2"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({f"{ENC}.weight": None}, "missing_tensor"),
        ({f"{ENC}.weight": torch.zeros(D, F)}, "wrong_shape"),
        ({f"{DEC}.weight": None}, "missing_tensor"),
        ({f"{DEC}.weight": torch.zeros(F, D)}, "wrong_shape"),
        ({f"{DEC}.bias_param": torch.full((D,), float("nan"))}, "not_finite"),
        ({"decoder_module.decoders.2->0.weight": torch.zeros(D, F)}, "unknown_tensor"),  # back in the layers
        ({"theta_manager.log_threshold": torch.zeros(LAYERS, F)}, "unknown_tensor"),  # of a ReLU
    ],
)
def test_decode_clt_tensors(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    tensors = {name: tensor for name, tensor in (decode_clt(parameters()) | change).items() if tensor is not None}
    assert _reason(write_decode_clt(tmp_path, tensors)) == reason


def test_decode_clt_statistics(tmp_path: Path) -> None:
    folder = write_decode_clt(tmp_path, decode_clt(parameters()), normalization_method="mean_std")
    moments = {"mean": [0.5] * D, "std": [2.0] * D}
    good = {str(i): {"inputs": moments, "targets": moments} for i in range(LAYERS)}
    for wrong, reason in (
        ({"0": good["0"]}, "missing_layer"),
        (good | {"1": {"inputs": moments}}, "bad_config"),
        (good | {"1": {"inputs": moments, "targets": moments | {"std": [2.0]}}}, "wrong_shape"),
        (good | {"1": {"inputs": moments | {"std": [-1.0] * D}, "targets": moments}}, "not_finite"),
        (good | {"1": {"inputs": moments | {"mean": [1e300] * D}, "targets": moments}}, "not_finite"),
        (good | {"1": {"inputs": moments | {"mean": ["x"] * D}, "targets": moments}}, "bad_config"),
        ([], "bad_config"),
    ):
        (folder / "norm_stats.json").write_text(json.dumps(wrong))
        assert _reason(folder) == reason, wrong
    (folder / "norm_stats.json").write_text(json.dumps(good))
    fingerprint = sae.load_encoder(f"{folder}#1").fingerprint
    good["1"]["inputs"] = moments | {"mean": [0.25] * D}
    (folder / "norm_stats.json").write_text(json.dumps(good))
    assert sae.load_encoder(f"{folder}#1").fingerprint != fingerprint


def test_several_checkpoints_of_decode_clt(tmp_path: Path) -> None:
    older, latest = decode_clt(parameters(1)), decode_clt(parameters(2))
    folder = write_decode_clt(tmp_path, older, "clt_checkpoint_100.safetensors")
    one = sae.load_encoder(f"{folder}#0").fingerprint
    write_decode_clt(tmp_path, latest, "clt_checkpoint_200.safetensors")
    with pytest.raises(SAELoadError, match=r"several_saes.*clt_checkpoint_100.*clt_checkpoint_200"):
        sae.load(folder)
    write_decode_clt(tmp_path, latest)
    assert sae.load_encoder(f"{folder}#0").fingerprint != one


def test_a_merged_checkpoint_below_its_config(tmp_path: Path) -> None:
    folder = write_decode_clt(tmp_path, decode_clt(parameters()), "model.safetensors")
    whole = sae.load_encoder(f"{folder}#1").fingerprint
    for step in ("step_100", "latest"):
        (folder / step).mkdir()
        shutil.copy(folder / "model.safetensors", folder / step)
    (folder / "model.safetensors").unlink()
    assert sae.load_encoder(f"{folder}/step_100#1").fingerprint == whole
    (folder / "cfg.json").unlink()
    assert _reason(folder / "latest") == "unknown_family"


def test_a_folder_of_several_sets_lists_them(tmp_path: Path) -> None:
    write_clt(tmp_path / "many/clt", parameters())
    write_set(tmp_path / "many/set", parameters())
    with pytest.raises(SAELoadError, match=r"several_saes.*clt, set"):
        sae.load(tmp_path / "many")


GOLDEN = sorted(path.parent / "ckpt" for path in Path(__file__).parent.glob("golden/layered/*/meta.json"))


@settings(max_examples=200, deadline=5_000)
@given(st.sampled_from(GOLDEN), st.data())
def test_whatever_the_bytes_it_loads_or_refuses(folder: Path, data: st.DataObject) -> None:
    files = sorted(file.name for file in folder.iterdir())
    victim = data.draw(st.sampled_from(files))
    whole = (folder / victim).read_bytes()
    at = data.draw(st.integers(0, min(len(whole), 2_000)) | st.integers(0, len(whole)))
    patch, length = data.draw(st.binary(max_size=12)), data.draw(st.just(None) | st.integers(0, len(whole)))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "ckpt"
        shutil.copytree(folder, path)
        (path / victim).write_bytes((whole[:at] + patch + whole[at + len(patch) :])[:length])
        with suppress(SAELoadError):
            loaded = sae.load(path)
            assert isinstance(loaded, LayeredSAE)
            loaded.reconstruct(torch.zeros(loaded.n_layers, 2, loaded.d_in))
