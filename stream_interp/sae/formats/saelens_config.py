"""`cfg.json` of SAELens: nested since 6.0, flat with other names and defaults before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct, field

from stream_interp.errors import SAELoadError
from stream_interp.sae.files import read_json

Width = Annotated[int, Meta(ge=1)]


class Metadata(Struct, frozen=True):
    """What is told about the model; nothing of it is computed with."""

    sae_lens_version: str | None = None  # without one, SAELens itself reads the file as one of before 6.0
    model_name: str | None = None
    hook_name: str | None = None
    hf_hook_name: str | None = None


class Config(Struct, frozen=True):
    """The fields of 6.x that decide what is computed."""

    architecture: str
    d_in: Width
    d_sae: Width
    apply_b_dec_to_input: bool
    normalize_activations: str
    metadata: Metadata
    d_out: Width | None = None  # transcoders only
    reshape_activations: str = "none"
    k: int | None = None
    rescale_acts_by_decoder_norm: bool = False


class _Stamp(Struct, frozen=True):
    sae_lens_version: str | None = None
    metadata: Metadata = Metadata()


class _ActivationKwargs(Struct, frozen=True):
    k: int | None = None


class _Flat(Struct, frozen=True):
    """Before 6.0. Two names of one thing are of different releases."""

    d_in: Width
    d_sae: Width
    architecture: str = "standard"
    activation_fn: str | None = None
    activation_fn_str: str | None = None
    activation_fn_kwargs: _ActivationKwargs = _ActivationKwargs()
    apply_b_dec_to_input: bool = True
    normalize_activations: bool | str | None = None
    finetuning_scaling_factor: bool = False
    model_name: str | None = None
    hook_name: str | None = None
    hook_point: str | None = None
    reshape_activations: str = field(default="")


def read_config(path: Path) -> Config:
    """The config in 6.x's words.

    Raises:
        SAELoadError: not JSON, not of this format, or it computes what no field here can say.
    """
    stamp = read_json(path, _Stamp)
    version = stamp.sae_lens_version or stamp.metadata.sae_lens_version
    if version is not None and not version.startswith(("0.", "1.", "2.", "3.", "4.", "5.")):
        return read_json(path, Config)
    return _nested(path, read_json(path, _Flat))


def _nested(path: Path, flat: _Flat) -> Config:
    hook_name = flat.hook_name or flat.hook_point
    activation = flat.activation_fn or flat.activation_fn_str or "relu"
    if activation not in {"relu", "topk"}:
        raise SAELoadError("unknown_architecture", str(path), "activation_fn relu or topk", repr(activation))
    if flat.finetuning_scaling_factor:
        raise SAELoadError("unknown_architecture", str(path), "no finetuning_scaling_factor", "true")
    normalisation = flat.normalize_activations
    if isinstance(normalisation, bool) or normalisation is None:
        normalisation = "expected_average_only_in" if normalisation else "none"
    is_topk = activation == "topk"
    return Config(
        architecture="topk" if is_topk else flat.architecture,
        d_in=flat.d_in,
        d_sae=flat.d_sae,
        apply_b_dec_to_input=flat.apply_b_dec_to_input,
        normalize_activations=normalisation,
        metadata=Metadata(model_name=flat.model_name, hook_name=hook_name),
        reshape_activations=flat.reshape_activations or ("hook_z" if "hook_z" in (hook_name or "") else "none"),
        k=flat.activation_fn_kwargs.k if is_topk else None,
    )
