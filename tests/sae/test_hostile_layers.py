"""What was found by trying to break sets of layers: absurd headers, endless files, one number that is none."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stream_interp import sae
from stream_interp.errors import SAELoadError
from stream_interp.sae.layered import LayeredSAE

from .conftest import refused_at_once
from .layered_files import (
    LAYERS,
    D,
    decode_clt,
    parameters,
    write_clt,
    write_decode_clt,
    write_gemma_scope_2_clt,
    write_set,
    x_of,
)


def _refused(path: Path) -> SAELoadError:
    """Within a second and 200 MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with refused_at_once() as caught:
        sae.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10
    assert len(str(caught.value)) < 5_000 + len(str(path))
    return caught.value


def _header(file: Path, header: bytes, n_bytes: int = 0) -> None:
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(n_bytes))


_EMPTY = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'


@pytest.mark.parametrize(
    "header",
    [
        b'{"W_enc":{"dtype":"F32","shape":['
        + b",".join([b"9223372036854775807"] * 200_000)
        + b'],"data_offsets":[0,4]}}',
        b'{"W_enc":{"dtype":"F32","shape":[' + b",".join([b"1"] * 2_000_000) + b'],"data_offsets":[0,4]}}',
        b'{"W_enc":{"dtype":"F32","shape":[' + b",".join([b"9" * 4_000] * 8) + b'],"data_offsets":[0,4]}}',
        ("{" + ",".join(f'"{i:x}":{_EMPTY}' for i in range(240_000)) + "}").encode(),
    ],
    ids=["a product of minutes", "axes without end", "sizes that no text can show", "tensors without end"],
)
def test_headers_that_take_minutes(tmp_path: Path, header: bytes) -> None:
    _header(write_set(tmp_path, parameters()) / "layer_1.safetensors", header, 4)
    assert _refused(tmp_path).reason == "bad_header"


@pytest.mark.parametrize("name", ["x" * 5_000_000, "\x1b[2J\x1b]0;owned\x07", "\x9b2J"], ids=["long", "terminal", "c1"])
def test_names_that_are_not_to_be_shown(tmp_path: Path, name: str) -> None:
    file = write_set(tmp_path, parameters()) / "layer_1.safetensors"
    save_file(load_file(file) | {name: torch.zeros(2)}, file)
    error = _refused(tmp_path)
    assert error.reason == "unknown_tensor"
    assert str(error).isprintable()


@pytest.mark.parametrize(
    "name", ["layer_01.safetensors", "layer_2.safetensors.part", "layer_٢.safetensors", f"layer_{9**99}.safetensors"]
)
def test_a_last_layer_that_is_numbered_otherwise_is_not_left_away(tmp_path: Path, name: str) -> None:
    folder = write_set(tmp_path, parameters())
    (folder / "layer_2.safetensors").rename(folder / name)
    assert _refused(folder).reason == "unknown_layer"


def test_layers_without_end(tmp_path: Path) -> None:
    folder = write_set(tmp_path, parameters())
    for i in range(LAYERS, 3_000):
        os.link(folder / "layer_0.safetensors", folder / f"layer_{i}.safetensors")
    assert _refused(folder).reason == "too_many_layers"


@pytest.mark.parametrize("name", ["config.yaml", "layer_1.safetensors"])
def test_files_that_say_they_are_empty_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As /proc/kmsg, a regular file of 0 bytes whose read waits for the next message."""
    folder, opened = write_set(tmp_path, parameters()), Path.open
    (folder / name).write_bytes(b"")

    def waits(path: Path, *args: str, **options: int) -> object:
        assert path.name != name, "a read that may never end"
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", waits)
    assert _refused(folder).reason == ("bad_config" if name == "config.yaml" else "truncated")


def _edit(file: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensors = load_file(file)
    save_file(tensors | {name: change(tensors[name])}, file)


def _clt_skip(folder: Path) -> None:
    write_clt(folder, parameters(), W_skip=torch.ones(D, D))
    _edit(folder / "W_enc_1.safetensors", "W_skip_1", lambda t: t * float("nan"))


def _clt_skip_beyond_float32(folder: Path) -> None:
    write_clt(folder, parameters(), W_skip=torch.ones(D, D))
    _edit(folder / "W_enc_1.safetensors", "W_skip_1", lambda t: t.double() * 1e300)


def _clt_bias_beyond_float32(folder: Path) -> None:
    write_clt(folder, parameters())
    _edit(folder / "W_enc_1.safetensors", "b_dec_1", lambda t: t.double() * 1e300)


def _gemma_skip(folder: Path) -> None:
    write_gemma_scope_2_clt(folder, parameters(threshold=True), torch.ones(D, D))
    _edit(folder / "layer_2.safetensors", "affine_skip_connection", lambda t: t * float("inf"))


def _decode_clt_skip(folder: Path) -> None:
    pairs = [f"decoder_module.skip_weights.{s}->{t}" for t in range(LAYERS) for s in range(t + 1)]
    skips = {pair: torch.ones(D, D) for pair in pairs}
    skips[pairs[1]][2, 3] = float("nan")
    write_decode_clt(folder, decode_clt(parameters()) | skips, skip_connection=True)


@pytest.mark.parametrize(
    "write", [_clt_skip, _clt_skip_beyond_float32, _clt_bias_beyond_float32, _gemma_skip, _decode_clt_skip]
)
def test_outputs_are_finite_or_refused(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "set")
    loaded = sae.load(tmp_path / "set")
    assert isinstance(loaded, LayeredSAE)
    with pytest.raises(SAELoadError, match="not_finite"):
        loaded.reconstruct(x_of())
    if "beyond" not in write.__name__:  # those are numbers, in float64
        with pytest.raises(SAELoadError, match="not_finite"):
            _ = loaded.fingerprint


def test_statistics_without_end(tmp_path: Path) -> None:
    folder = write_decode_clt(tmp_path, decode_clt(parameters()), normalization_method="mean_std")
    endless = {"mean": [0] * 3_000_000, "std": [1] * 3_000_000}
    (folder / "norm_stats.json").write_text(json.dumps({"0": {"inputs": endless, "targets": endless}, "1": 1}))
    assert _refused(folder).reason == "wrong_shape"
    empty = '{"inputs":{"mean":[],"std":[]},"targets":{"mean":[],"std":[]}}'
    (folder / "norm_stats.json").write_text("{" + ",".join(f'"{i}":{empty}' for i in range(500_000)) + "}")
    assert _refused(folder).reason == "wrong_shape"
    (folder / "cfg.json").write_text(
        (folder / "cfg.json").read_text().replace(f'"d_model": {D}', f'"d_model": {10**9}')
    )
    assert _refused(folder).reason == "wrong_shape"  # that much room is not had by claiming it


def test_weights_that_are_no_file(tmp_path: Path) -> None:
    folder = write_decode_clt(tmp_path, decode_clt(parameters()))
    shutil.move(folder / "clt_checkpoint_latest.safetensors", tmp_path / "aside")
    (folder / "clt_checkpoint_latest.safetensors").symlink_to("/dev/zero")
    assert _refused(folder).reason == "missing_file"
