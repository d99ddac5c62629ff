"""OpenAI's sparse_autoencoder: one `.pt`. TopK ones read layer-normed activations. For `convert` alone."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from stream_interp.errors import SAELoadError
from stream_interp.sae.checkpoint import Checkpoint, Family, Hints
from stream_interp.sae.config import SAEConfig
from stream_interp.sae.formats.bare import sizes_of, turned
from stream_interp.sae.formats.decode_clt_pickles import is_pickle_of_decode_clt
from stream_interp.sae.formats.hints import agreed, refuse_k, refuse_scale
from stream_interp.sae.pickles import open_pickle, tensors_of
from stream_interp.sae.tensors import renamed

_NAMES = {"encoder.weight": "W_enc", "latent_bias": "b_enc", "decoder.weight": "W_dec", "pre_bias": "b_dec"}
_STATISTICS = frozenset({"stats_last_nonzero", "latents_activation_frequency", "latents_mean_square"})


def _detect(root: Path) -> bool:
    others = root.name.endswith(".sae.pt") or is_pickle_of_decode_clt(root.name)  # the former are Qwen Scope's
    return root.is_file() and root.suffix == ".pt" and not others


def _read(root: Path, hints: Hints) -> Checkpoint:
    loaded = open_pickle(root)
    stored = {name: tensor for name, tensor in tensors_of(root, loaded).items() if name not in _STATISTICS}
    tensors = renamed(root, stored, _NAMES)
    sizes = sizes_of(root, tensors)
    activation = loaded.get("activation", "ReLU")
    if activation not in {"ReLU", "TopK"}:
        raise SAELoadError("unknown_architecture", str(root), "activation TopK or ReLU", repr(activation))
    is_topk = activation == "TopK"
    refuse_scale(root, hints, "an OpenAI SAE, which has no dataset-wide factor")
    config = SAEConfig(
        family=FAMILY.name,
        architecture="topk" if is_topk else "standard",
        **sizes._asdict(),
        k=_k(root, loaded, hints),
        centred=True,
        normalisation="layer_norm" if is_topk else "none",  # the tool ties the one to the other
    )
    return Checkpoint(root, config, turned(tensors, sizes, W_enc_transposed=True, W_dec_transposed=True))


FAMILY = Family("openai", _detect, _read, convertible=True)


def _k(root: Path, loaded: dict[str, object], hints: Hints) -> int | None:
    if loaded.get("activation") != "TopK":
        refuse_k(root, hints, "standard")
        return None
    stated = loaded.get("activation_state_dict")
    state = cast(dict[str, object], stated) if isinstance(stated, dict) else {}
    if state.get("postact_fn", "ReLU") != "ReLU":
        raise SAELoadError("unknown_architecture", str(root), "postact_fn ReLU", repr(state["postact_fn"]))
    k = state.get("k")
    return agreed(root, "k", hints.k, k if isinstance(k, int) else None)
