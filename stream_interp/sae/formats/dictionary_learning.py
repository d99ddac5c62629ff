"""dictionary_learning: `ae.pt` + `config.json`, whose `dict_class` decides what is computed. For `convert` alone.

Trained on normalised activations or not, what it saves reads raw ones: its trainer folds the factor before saving.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from msgspec import Struct

from stream_interp.errors import SAELoadError
from stream_interp.sae.checkpoint import Checkpoint, Family, Hints
from stream_interp.sae.config import Architecture, SAEConfig
from stream_interp.sae.files import read_json
from stream_interp.sae.formats.bare import sizes_of, turned
from stream_interp.sae.formats.hints import agreed, refuse_k, refuse_scale
from stream_interp.sae.pickles import open_pickle, tensors_of
from stream_interp.sae.tensors import LazyTensor, renamed

CONFIG_FILE, WEIGHTS_FILE = "config.json", "ae.pt"
_LINEAR = {"encoder.weight": "W_enc", "encoder.bias": "b_enc", "decoder.weight": "W_dec"}
_CENTRED = _LINEAR | {"b_dec": "b_dec"}
_PARAMETERS = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")}


class _Class(NamedTuple):
    architecture: Architecture
    centred: bool
    names: dict[str, str]
    bias: str = "b_enc"  # a tensor with an entry for each feature
    one_threshold: bool = False  # one number for all features; -1 while it was never set
    unit_decoder: bool = False  # the tool rescales to decoder rows of norm 1 when it loads


_CLASSES = {
    "AutoEncoder": _Class("standard", True, _LINEAR | {"bias": "b_dec"}, unit_decoder=True),
    "AutoEncoderNew": _Class("standard", False, _LINEAR | {"decoder.bias": "b_dec"}),
    "GatedAutoEncoder": _Class(
        "gated", True,
        {"encoder.weight": "W_enc", "decoder.weight": "W_dec", "decoder_bias": "b_dec",
         "gate_bias": "b_gate", "mag_bias": "b_mag", "r_mag": "r_mag"},
        bias="b_gate",
    ),
    "AutoEncoderTopK": _Class("topk", True, _CENTRED),
    "BatchTopKSAE": _Class("jumprelu", True, _CENTRED | {"threshold": "threshold"}, one_threshold=True),
    "MatryoshkaBatchTopKSAE": _Class("jumprelu", True, _PARAMETERS, one_threshold=True),
    "JumpReluAutoEncoder": _Class("jumprelu", False, _PARAMETERS),
}  # fmt: skip


class _Trainer(Struct, frozen=True):
    dict_class: str
    k: int | None = None
    lm_name: str | None = None
    submodule_name: str | None = None


class _Config(Struct, frozen=True):
    trainer: _Trainer


def _detect(root: Path) -> bool:
    return (root / WEIGHTS_FILE).is_file()


def _read(root: Path, hints: Hints) -> Checkpoint:
    trainer = read_json(root / CONFIG_FILE, _Config).trainer
    if trainer.dict_class not in _CLASSES:
        raise SAELoadError(
            "unknown_architecture", str(root / CONFIG_FILE), f"one of {list(_CLASSES)}", trainer.dict_class
        )
    kind = _CLASSES[trainer.dict_class]
    path = root / WEIGHTS_FILE
    loaded = open_pickle(path)
    stored = tensors_of(path, loaded)
    if kind.architecture == "topk":
        stored.pop("threshold", None)  # kept for a way of encoding that is not its default
    tensors = renamed(path, stored, kind.names)
    sizes = sizes_of(path, tensors, kind.bias)
    from_linear = "encoder.weight" in kind.names
    tensors = turned(tensors, sizes, W_enc_transposed=from_linear, W_dec_transposed=from_linear)
    if kind.one_threshold:
        tensors["threshold"] = _one_threshold(path, tensors, sizes.d_sae)
    refuse_scale(root, hints, "dictionary_learning, which saves what reads raw activations")
    config = SAEConfig(
        family=FAMILY.name,
        architecture=kind.architecture,
        **sizes._asdict(),
        k=_k(root, kind, agreed(root, "k", trainer.k, _stored_k(loaded)), hints),
        centred=kind.centred,
        model_name=trainer.lm_name,
        hook_name=trainer.submodule_name,
    )
    return Checkpoint(root, config, _with_unit_decoder(tensors) if kind.unit_decoder else tensors)


FAMILY = Family("dictionary_learning", _detect, _read, convertible=True)


def _stored_k(loaded: dict[str, object]) -> int | None:
    stored = loaded.get("k")  # of all TopK classes; the tool refuses a config that says otherwise
    if not isinstance(stored, torch.Tensor) or stored.shape != () or stored.is_meta:
        return None
    return int(stored) if stored.dtype in {torch.int32, torch.int64} else None


def _k(root: Path, kind: _Class, stated: int | None, hints: Hints) -> int | None:
    if kind.architecture == "topk":
        return agreed(root, "k", hints.k, stated)
    refuse_k(root, hints, kind.architecture)
    return None


def _one_threshold(path: Path, tensors: dict[str, LazyTensor], d_sae: int) -> LazyTensor:
    stored = tensors.get("threshold")
    if stored is None or stored.shape not in {(), (1,)}:
        found = "none" if stored is None else str(list(stored.shape))
        raise SAELoadError("missing_tensor", str(path), "threshold, one number", found)
    if not float(stored.read()) >= 0:
        expected = "a threshold that training has set; -1 is what it starts with"
        raise SAELoadError("missing_threshold", str(path), expected, f"{float(stored.read())}")
    return LazyTensor.made((d_sae,), stored.dtype, lambda: stored.read().reshape(1).repeat(d_sae))


def _with_unit_decoder(tensors: dict[str, LazyTensor]) -> dict[str, LazyTensor]:
    """The same function, with decoder rows of norm 1: acts are told in these units.

    In float32 or better, as the tool computes it; rows that it takes for normed already stay as they are.
    """
    if any(len(tensors[name].shape) != rank for name, rank in (("W_dec", 2), ("b_enc", 1)) if name in tensors):
        return tensors  # for check_shapes to refuse
    W_enc, b_enc, W_dec = tensors["W_enc"], tensors["b_enc"], tensors.get("W_dec")
    if W_dec is None or W_dec.shape != W_enc.shape[::-1]:
        return tensors
    dtype = torch.promote_types(W_dec.dtype, torch.float32)

    def norms() -> torch.Tensor:
        return W_dec.read().double().square().sum(dim=1).sqrt()

    def times_norms(tensor: LazyTensor) -> LazyTensor:
        return LazyTensor.made(tensor.shape, dtype, lambda: (tensor.read().double() * norms()).to(dtype))

    def unit_rows() -> torch.Tensor:
        rows = norms()[:, None]
        return (W_dec.read().double() / rows.where(rows > 0, 1.0)).to(dtype)

    if torch.allclose(norms(), torch.ones((), dtype=torch.float64)):
        return tensors
    unit = LazyTensor.made(W_dec.shape, dtype, unit_rows)
    return tensors | {"W_enc": times_norms(W_enc), "b_enc": times_norms(b_enc), "W_dec": unit}
