"""Writing an SAE as SAELens 6.x saves one for inference."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from safetensors.torch import save_file

from stream_interp.errors import UsageError
from stream_interp.sae.config import SAEConfig
from stream_interp.sae.formats.saelens import CONFIG_FILE, WEIGHTS_FILE

FORMAT_VERSION = "6.54.12"  # the SAELens release whose files these equal


def save_saelens(
    path: str | os.PathLike[str],
    W_enc: torch.Tensor,
    b_enc: torch.Tensor,
    W_dec: torch.Tensor,
    b_dec: torch.Tensor,
    *,
    threshold: torch.Tensor | float | None = None,
    k: int | None = None,
    apply_b_dec_to_input: bool = True,
    metadata: Mapping[str, str | int | bool] | None = None,
) -> None:
    """Writes folder `path` with `cfg.json` and float32 `sae_weights.safetensors`; the input is not normalised.

    Args:
        path: made if missing; files of the same name are replaced.
        W_enc: [d_in, d_sae].
        b_enc: [d_sae].
        W_dec: [d_sae, d_in].
        b_dec: [d_in].
        threshold: [d_sae] or one number: jumprelu (BatchTopK at inference is one, too).
        k: topk. With neither: standard (ReLU).
        apply_b_dec_to_input: whether `x - b_dec` enters the encoder.
        metadata: `model_name`, `hook_name`, `hf_hook_name` and more of the kind.

    Raises:
        UsageError: both `threshold` and `k`, or shapes that do not fit together.
    """
    d_in, d_sae = W_enc.shape
    tensors = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec}
    if threshold is not None:
        tensors["threshold"] = torch.as_tensor(threshold).expand(d_sae)
    _check(tensors, d_in, d_sae, k)
    config = SAEConfig(
        family="saelens",
        architecture="topk" if k is not None else "jumprelu" if threshold is not None else "standard",
        d_in=d_in,
        d_sae=d_sae,
        d_out=d_in,
        k=k,
        centred=apply_b_dec_to_input,
    )
    write_checkpoint(Path(path), config, {name: tensor.float() for name, tensor in tensors.items()}, metadata)


def write_checkpoint(
    folder: Path,
    config: SAEConfig,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str | int | bool] | None = None,
) -> None:
    """Writes `tensors`, named and shaped as in `checkpoint.shapes(config)`, in the dtypes that they have.

    The config must be one of an SAE proper (no transcoder, no skip) whose normalisation needs no factor.
    """
    named = {"model_name": config.model_name, "hook_name": config.hook_name, "hf_hook_name": config.hf_hook_name}
    stated: dict[str, object] = {
        "architecture": config.architecture, "d_in": config.d_in, "d_sae": config.d_sae,
        "dtype": str(tensors["W_enc"].dtype).removeprefix("torch."), "device": "cpu",
        "apply_b_dec_to_input": config.centred, "normalize_activations": config.normalisation,
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": FORMAT_VERSION,
            **{name: value for name, value in named.items() if value is not None}, **(metadata or {}),
        },
    }  # fmt: skip
    if config.k is not None:
        stated |= {"k": config.k, "rescale_acts_by_decoder_norm": config.rescaled_by_decoder_norm}
    folder.mkdir(parents=True, exist_ok=True)
    # clone: safetensors takes neither expanded nor shared memory
    save_file(
        {n: t.detach().cpu().clone(memory_format=torch.contiguous_format) for n, t in tensors.items()},
        folder / WEIGHTS_FILE,
    )
    (folder / CONFIG_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(stated)))


def _check(tensors: dict[str, torch.Tensor], d_in: int, d_sae: int, k: int | None) -> None:
    expected = {"W_enc": (d_in, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise UsageError(
                f"{name} has shape {list(tensors[name].shape)}, with W_enc {[d_in, d_sae]} it is {list(shape)}"
            )
    if k is not None and ("threshold" in tensors or not 1 <= k <= d_sae):
        raise UsageError(f"k={k}: give either a threshold or 1 <= k <= {d_sae}")
