"""A checkpoint that would be misread must be refused, with the right reason, before anything large is allocated."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from stream_interp import sae
from stream_interp.errors import SAELoadError, UsageError

from .conftest import D_IN, D_SAE, Write, config, weights

WEIGHTS = "sae_weights.safetensors"


def _reason(path: Path, **options: Any) -> str:
    with pytest.raises(SAELoadError) as caught:
        sae.load(path, **options)
    assert caught.value.path
    assert caught.value.expected
    assert caught.value.found
    return caught.value.reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architecture": "superposed"}, "unknown_architecture"),
        ({"architecture": "gated"}, "missing_tensor"),
        ({"architecture": "transcoder"}, "bad_config"),  # no d_out, and centred
        ({"architecture": "skip_transcoder", "d_out": D_IN, "apply_b_dec_to_input": False}, "missing_tensor"),
        ({"architecture": "batchtopk"}, "unknown_architecture"),  # exists in training only
        ({"architecture": "topk", "k": 64, "rescale_acts_by_decoder_norm": False}, "wrong_k"),
        ({"architecture": "topk", "k": 0}, "wrong_k"),
        ({"architecture": "topk"}, "wrong_k"),
        ({"architecture": "topk", "k": 2.5}, "bad_config"),
        ({"architecture": "topk", "k": True}, "bad_config"),
        ({"rescale_acts_by_decoder_norm": True}, "unknown_architecture"),
        ({"normalize_activations": "covariance_whitening"}, "unknown_normalisation"),
        ({"normalize_activations": "expected_average_only_in"}, "missing_activation_scale"),
        ({"normalize_activations": True}, "bad_config"),  # before 6.0
        ({"reshape_activations": "patches"}, "unknown_reshaping"),
        ({"d_in": D_IN + 1}, "wrong_shape"),
        ({"d_sae": D_SAE * 2}, "wrong_shape"),
        ({"d_in": 0}, "bad_config"),
        ({"d_in": -1}, "bad_config"),
        ({"d_in": 2**70}, "wrong_shape"),
        ({"d_in": "8"}, "bad_config"),
        ({"apply_b_dec_to_input": ...}, "bad_config"),
        # the flat configs of before 6.0
        ({"metadata": ..., "activation_fn_str": "tanh-relu"}, "unknown_architecture"),
        ({"metadata": {}, "finetuning_scaling_factor": True}, "unknown_architecture"),
        ({"metadata": ..., "normalize_activations": True}, "missing_activation_scale"),
        ({"metadata": ..., "normalize_activations": 3}, "bad_config"),
        ({"metadata": ..., "sae_lens_version": "6.1.0"}, "bad_config"),
    ],
    ids=str,
)
def test_config_that_would_be_misread(write: Write, changes: dict[str, Any], reason: str) -> None:
    assert _reason(write(**changes)) == reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop("threshold"), "missing_tensor"),
        (lambda t: t.pop("b_enc"), "missing_tensor"),
        (lambda t: t.update(W_skip=torch.zeros(D_IN, D_IN)), "unknown_tensor"),
        (lambda t: t.update(scaling_factor=torch.full((D_SAE,), 2.0)), "unknown_tensor"),
        (lambda t: t.update(b_dec=torch.zeros(1)), "wrong_shape"),
        (lambda t: t.update(threshold=torch.tensor(1.0)), "wrong_shape"),
        (lambda t: t["W_enc"].__setitem__((3, 5), float("nan")), "not_finite"),
        (lambda t: t["W_dec"].__setitem__((3, 5), float("inf")), "not_finite"),
        (lambda t: t["threshold"].__setitem__(2, float("nan")), "not_finite"),
        (lambda t: t.update(W_enc=t["W_enc"].to(torch.int64)), "wrong_dtype"),
        (lambda t: t.update(b_enc=t["b_enc"] > 0), "wrong_dtype"),
    ],
)
def test_tensors_that_would_be_misread(write: Write, change: Any, reason: str) -> None:
    tensors = weights()
    change(tensors)
    assert _reason(write(tensors)) == reason


@pytest.mark.parametrize("shape", [[1 << 60, 0], [0, 1 << 62], [D_SAE + 1, 0]], ids=str)
def test_scaling_factor_of_another_shape_is_not_read(write: Write, shape: list[int]) -> None:
    folder = write()
    file = folder / "sae_weights.safetensors"
    data = file.read_bytes()
    n = int.from_bytes(data[:8], "little")
    end = len(data) - 8 - n
    entries = json.loads(data[8 : 8 + n])
    entries["scaling_factor"] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end]}
    header = json.dumps(entries).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + n :])
    assert _reason(folder) == "wrong_shape"


def test_scaling_factor_of_ones_is_ignored(write: Write) -> None:
    plain = sae.load(write(name="plain"))
    assert sae.load(write(weights() | {"scaling_factor": torch.ones(D_SAE)})).fingerprint == plain.fingerprint


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pickle_was_executed",)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_pickles_are_never_opened(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write()
    (folder / WEIGHTS).write_bytes(pickle.dumps([_Bomb(), "x" * 100], protocol=protocol))
    assert _reason(folder) == ("pickle" if protocol else "bad_header")
    torch.save({"bomb": _Bomb()}, folder / WEIGHTS)
    assert _reason(folder) == "pickle"
    assert not (tmp_path / "pickle_was_executed").exists()
    only_pickles = tmp_path / "only_pickles"
    only_pickles.mkdir()
    (folder / WEIGHTS).rename(only_pickles / "ae.pt")
    assert _reason(only_pickles) == "pickle"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"\x08", "truncated"),
        (struct.pack("<Q", 2**62) + b"{}" * 100, "bad_header"),
        (struct.pack("<Q", 2**64 - 1), "bad_header"),
        (struct.pack("<Q", 100) + b"{}", "bad_header"),
        (struct.pack("<Q", 2) + b"{}", "missing_tensor"),
        (struct.pack("<Q", 2) + b"{}" + b"trailing", "truncated"),
        (struct.pack("<Q", 4) + b"null", "bad_header"),
        (struct.pack("<Q", 4) + b"\xff\xfe{}", "bad_header"),
        (struct.pack("<Q", 100_000) + b"[" * 100_000, "bad_header"),
        (struct.pack("<Q", 100_006) + b'{"a":' + b"[" * 100_000 + b"}", "bad_header"),
    ],
    ids=range(11),
)
def test_weights_that_are_no_safetensors(write: Write, data: bytes, reason: str) -> None:
    folder = write()
    (folder / WEIGHTS).write_bytes(data)
    assert _reason(folder) == reason


@pytest.mark.parametrize("cut", [1, 100, 1000])
def test_truncated_and_lengthened_weights(write: Write, cut: int) -> None:
    folder = write()
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-cut])
    assert _reason(folder) == "truncated"
    (folder / WEIGHTS).write_bytes(whole + bytes(cut))
    assert _reason(folder) == "truncated"


def _header(folder: Path, entries: dict[str, Any], data_bytes: int) -> None:
    header = json.dumps(entries).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + bytes(data_bytes))


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 2**50]},
        {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]},
        {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]},
        {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
        {"dtype": "F32", "shape": [2**70], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4]},
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], "strides": [0]},
        {"dtype": 7, "shape": [4], "data_offsets": [0, 16]},
    ],
    ids=str,
)
def test_headers_that_lie(write: Write, entry: dict[str, Any]) -> None:
    folder = write()
    _header(folder, {"W_enc": entry}, 16)
    assert _reason(folder) == "bad_header"


def test_overlapping_tensors(write: Write) -> None:
    folder = write()
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    _header(folder, {"W_enc": entry, "b_enc": entry}, 32)
    assert _reason(folder) == "bad_header"


def test_config_files_that_are_no_json(write: Write) -> None:
    folder = write()
    for data in (
        b"",
        b"d_in: 8\nd_sae: 24\n",
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        b" " * (2 << 20),
        b'{"d_in": NaN}',
    ):
        (folder / "cfg.json").write_bytes(data)
        assert _reason(folder) == "bad_config"


def test_paths_without_a_checkpoint(write: Write, tmp_path: Path) -> None:
    assert _reason(tmp_path / "nowhere") == "missing_path"
    (tmp_path / "empty").mkdir()
    assert _reason(tmp_path / "empty") == "unknown_family"
    folder = write()
    assert _reason(folder / WEIGHTS) == "unknown_family"
    assert _reason(folder, family="clairvoyant") == "unknown_family"
    (folder / WEIGHTS).unlink()
    assert _reason(folder) == "missing_file"
    (folder / WEIGHTS).symlink_to(tmp_path / "gone")
    assert _reason(folder) == "missing_file"
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)  # opening it would wait for ever
    assert _reason(folder) == "missing_file"


def test_unreadable_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write()

    def denied(*_: object, **__: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(Path, "open", denied)
    assert _reason(folder) == "unreadable"


def test_a_folder_of_several_lists_them(write: Write, tmp_path: Path) -> None:
    write(name="many/layer_1")
    assert _reason(tmp_path / "many") == "sae_below"
    write(name="many/deeper/layer_2")
    with pytest.raises(SAELoadError, match=r"several_saes.*deeper/layer_2, layer_1"):
        sae.load(tmp_path / "many")


def test_symlinked_hub_cache(write: Write, tmp_path: Path) -> None:
    blobs, snapshot = write(name="blobs"), tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for name in ("cfg.json", WEIGHTS):
        (snapshot / name).symlink_to(Path("../../blobs") / name)
    assert sae.load(snapshot).fingerprint == sae.load(blobs).fingerprint


def test_too_large_is_refused_before_reading(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write()
    needed = sae.load(folder).memory_bytes
    assert sae.load(folder, max_memory_bytes=needed).memory_bytes == needed
    monkeypatch.setattr("torch.empty", None)
    assert _reason(folder, max_memory_bytes=needed - 1) == "too_large"
    assert _reason(folder, max_memory_bytes=needed, dtype="float64") == "too_large"


def test_overflow_of_a_narrow_dtype(write: Write) -> None:
    tensors = weights()
    tensors["W_enc"] *= 1e6
    assert _reason(write(tensors), dtype="float16") == "out_of_range"


def test_no_such_dtype_or_device(write: Write) -> None:
    folder = write()
    devices = [{"device": name} for name in ("abacus", "mps", "meta")]
    for options in ({"dtype": "int8"}, {"dtype": "load"}, {"dtype": torch.int64}, *devices):
        with pytest.raises(UsageError):
            sae.load(folder, **options)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no CUDA"):
            sae.load(folder, device="cuda")
        assert sae.load(folder, device="auto").device.type == "cpu"


def test_other_layouts_are_not_taken_for_saelens(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "sae.safetensors")  # as sparsify names it
    (tmp_path / "cfg.json").write_text(json.dumps(config()))
    assert _reason(tmp_path) == "bad_config"
