"""Small sets of SAEs, one for each layer, made on the spot in the layouts of their tools; and the slow twin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

LAYERS, D, F = 3, 6, 10
Tensors = dict[str, torch.Tensor]


def parameters(seed: int = 0, threshold: bool = False) -> list[Tensors]:
    """For each layer `W_enc` [D, F], `b_enc`, `b_dec`, and `W_dec` [F, LAYERS - i, D]."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return [
        {"W_enc": random(D, F), "b_enc": random(F), "b_dec": random(D), "W_dec": random(F, LAYERS - i, D)}
        | ({"threshold": random(F)} if threshold else {})
        for i in range(LAYERS)
    ]


def yaml_config(folder: Path, kind: str) -> None:
    (folder / "config.yaml").write_text(f"model_kind: {kind}\nmodel_name: toy\nfeature_input_hook: mlp.hook_in\n")


def write_clt(folder: Path, layers: list[Tensors], **encoder: torch.Tensor) -> Path:
    """As circuit-tracer has it. `encoder`: further tensors of every encoder file, such as `W_skip`."""
    folder.mkdir(parents=True, exist_ok=True)
    yaml_config(folder, "cross_layer_transcoder")
    for i, t in enumerate(layers):
        stored = {name: tensor for name, tensor in (t | encoder).items() if name != "W_dec"}
        stored["W_enc"] = t["W_enc"].T.contiguous()
        save_file(
            {f"{name}_{i}": tensor.contiguous() for name, tensor in stored.items()}, folder / f"W_enc_{i}.safetensors"
        )
        save_file({f"W_dec_{i}": t["W_dec"].contiguous()}, folder / f"W_dec_{i}.safetensors")
    return folder


def write_set(folder: Path, layers: list[Tensors], **more: torch.Tensor) -> Path:
    """As circuit-tracer has it; each layer's decoder is the first of its parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    yaml_config(folder, "transcoder_set")
    for i, t in enumerate(layers):
        stored = t | more | {"W_enc": t["W_enc"].T.contiguous(), "W_dec": t["W_dec"][:, 0].contiguous()}
        if "threshold" in stored:
            stored["activation_function.threshold"] = stored.pop("threshold")
        save_file(stored, folder / f"layer_{i}.safetensors")
    return folder


def write_gemma_scope_2_clt(folder: Path, layers: list[Tensors], skip: torch.Tensor) -> Path:
    """With numbers that are none in the room for layers before a decoder's own."""
    folder.mkdir(parents=True)
    for i, t in enumerate(layers):
        unused = torch.full((F, i, D), float("nan"))
        stored = {"w_dec": torch.cat([unused, t["W_dec"]], dim=1), "affine_skip_connection": skip.contiguous()}
        stored |= {name.lower(): t[name] for name in ("W_enc", "b_enc", "b_dec", "threshold")}
        save_file(stored, folder / f"layer_{i}.safetensors")
    return folder


def decode_clt(layers: list[Tensors]) -> Tensors:
    """The tensors of a decode-clt checkpoint with untied decoders, whose first bias into a layer is all of `b_dec`."""
    stored: Tensors = {}
    for s, t in enumerate(layers):
        stored[f"encoder_module.encoders.{s}.weight"] = t["W_enc"].T.contiguous()
        stored[f"encoder_module.encoders.{s}.bias_param"] = t["b_enc"]
        for target in range(s, len(layers)):
            decoder = f"decoder_module.decoders.{s}->{target}"
            stored[f"{decoder}.weight"] = t["W_dec"][:, target - s].T.contiguous()
            stored[f"{decoder}.bias_param"] = layers[target]["b_dec"] if s == 0 else torch.zeros(D)
    return stored


def write_decode_clt(
    folder: Path, tensors: Tensors, file: str = "clt_checkpoint_latest.safetensors", **cfg: Any
) -> Path:
    """A checkpoint of decode-clt; ReLU where `cfg` says nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    stated = {"num_features": F, "num_layers": LAYERS, "d_model": D, "activation_fn": "relu"} | cfg
    (folder / "cfg.json").write_text(json.dumps(stated))
    save_file(tensors, folder / file)
    return folder


def twin(layers: list[Tensors], x: torch.Tensor, skip: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Acts [layers, n, F] and outputs [layers, n, D] of a cross-layer transcoder, token by token in float64."""
    acts = torch.zeros(*x.shape[:2], F, dtype=torch.float64)
    outputs = torch.zeros(x.shape, dtype=torch.float64)
    for layer, t in enumerate(layers):
        for token in range(x.shape[1]):
            for feature in range(F):
                p = float(x[layer, token].double() @ t["W_enc"][:, feature].double() + t["b_enc"][feature].double())
                above = p > (float(t["threshold"][feature]) if "threshold" in t else 0.0)
                acts[layer, token, feature] = p if above else 0.0
    for target in range(len(layers)):
        for token in range(x.shape[1]):
            y = layers[target]["b_dec"].double().clone()
            for source in range(target + 1):
                for feature in range(F):
                    y += acts[source, token, feature] * layers[source]["W_dec"][feature, target - source].double()
            if skip is not None:
                y += sum(x[target, token, i].double() * skip[i].double() for i in range(D))
            outputs[target, token] = y
    return acts, outputs


def x_of(n: int = 7) -> torch.Tensor:
    return torch.randn(LAYERS, n, D, generator=torch.Generator().manual_seed(5)) * 2
