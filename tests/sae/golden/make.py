"""Golden files of the families, by the tools that publish them, in an environment of their own (README.md).

    pip install sae-lens==6.54.12
    pip install --no-deps eai-sparsify==1.3.3 dictionary-learning==0.1.0 circuit-tracer==0.5.0
    pip install natsort einops schedulefree zstandard
    SPARSIFY_DISABLE_TRITON=1 python make.py FOLDER

Every tool's own outputs in float32; its distance from the same module in float64 gives the tolerance.
"""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

D_IN, D_SAE, N = 24, 96, 48
Outputs = tuple[torch.Tensor, torch.Tensor]


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs() -> torch.Tensor:
    x = random(1, N, D_IN) * 3 + random(2, D_IN)
    x[:2] *= 10  # the first tokens of a prompt
    return x


def fill(module: torch.nn.Module, seed: int) -> None:
    """Every parameter an own random matrix: a transposed or swapped one must show."""
    with torch.no_grad():
        for at, (name, parameter) in enumerate(sorted(module.named_parameters())):
            values = random(100 * seed + at, *parameter.shape) * (0.3 if parameter.dim() == 2 else 0.5)
            parameter.copy_(values.abs() if "threshold" in name else values)


def write(
    root: Path,
    name: str,
    family: str,
    wrote: str,
    call: str,
    module: Any,
    run: Callable[[Any, Any], Outputs],
    **given: int,
) -> None:
    x = inputs()
    with torch.no_grad():
        acts, reconstruction = (t.detach().float() for t in run(module, x))
        exact = [t.detach() for t in run(module.double(), x.double())]
    fired, exactly = acts != 0, exact[0] != 0
    assert torch.equal(fired, exactly), name
    assert 2 < fired.sum(1).float().mean() < D_SAE / 2, (name, fired.sum(1).float().mean())
    atol = [
        max(1e-5, 4 * (a.double() - b).abs().max().item()) for a, b in zip((acts, reconstruction), exact, strict=True)
    ]
    save_file(
        {"x": x, "feature_acts": acts.contiguous(), "reconstruction": reconstruction.contiguous()},
        root / name / "golden.safetensors",
    )
    tool = wrote.split()[0]
    meta = {
        "name": name, "family": family,
        "written_by": {"package": tool, "version": version(tool) if tool != "by" else None, "method": wrote},
        "golden_source": call,
        "feature_acts_atol": float(f"{atol[0]:.1g}") * 2 if atol[0] > 1e-5 else 1e-5,
        "reconstruction_atol": float(f"{atol[1]:.1g}") * 2 if atol[1] > 1e-5 else 1e-5,
        "tie_feature": None, "checkpoint": checkpoint(root / name), "load": given,
    }  # fmt: skip
    (root / name / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    print(name, "L0", fired.sum(1).float().mean().item(), meta["feature_acts_atol"], meta["reconstruction_atol"])


def checkpoint(root: Path) -> str:
    """What `load` or `convert` is given: the folder, or its one file where that is the checkpoint."""
    files = [file for file in (root / "ckpt").rglob("*") if file.is_file()]
    folders = {file.parent for file in files}
    alone = len(files) == 1 and files[0].suffix == ".pt"
    path = files[0] if alone else root / "ckpt" if len(folders) > 1 else folders.pop()
    return str(path.relative_to(root))


def folder(root: Path, name: str) -> Path:
    path = root / name / "ckpt"
    path.mkdir(parents=True, exist_ok=True)
    return path


def of_saelens(root: Path) -> None:
    from sae_lens import SAE
    from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig
    from sae_lens.saes.matryoshka_batchtopk_sae import (
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
    )
    from sae_lens.saes.transcoder import (
        JumpReLUSkipTranscoder,
        JumpReLUSkipTranscoderConfig,
        JumpReLUTranscoder,
        JumpReLUTranscoderConfig,
        SkipTranscoder,
        SkipTranscoderConfig,
        Transcoder,
        TranscoderConfig,
    )  # fmt: skip

    def run(module: Any, x: Any) -> Outputs:
        return module.encode(x), module.forward(x)

    def golden(name: str, made: Any, seed: int, save: str = "save_model", shift: float = 4.0) -> None:
        fill(made, seed)
        with torch.no_grad():
            for bias in ("b_enc", "b_gate"):
                if getattr(made, bias, None) is not None:
                    getattr(made, bias).sub_(shift)
        path = folder(root, name)
        getattr(made, save)(str(path))
        loaded = SAE.load_from_disk(str(path))
        loaded.dtype = torch.float32
        write(
            root,
            name,
            "saelens",
            f"sae-lens {type(made).__name__}.{save}",
            "SAE.load_from_disk -> encode; forward",
            AsFloat(loaded),
            run,
        )

    common = {"d_in": D_IN, "d_sae": D_SAE, "device": "cpu", "dtype": "float32"}
    golden("saelens_gated", GatedSAE(GatedSAEConfig(**common)), 3)
    golden(
        "saelens_relu_transcoder_layer_norm",
        Transcoder(
            TranscoderConfig(**common, d_out=18, apply_b_dec_to_input=False, normalize_activations="layer_norm")
        ),
        4,
        shift=2.0,
    )
    golden(
        "saelens_skip_transcoder",
        SkipTranscoder(SkipTranscoderConfig(**common, d_out=D_IN, apply_b_dec_to_input=False)),
        5,
    )
    golden(
        "saelens_jumprelu_transcoder",
        JumpReLUTranscoder(JumpReLUTranscoderConfig(**common, d_out=18, apply_b_dec_to_input=False)),
        6,
    )
    golden(
        "saelens_jumprelu_skip_transcoder",
        JumpReLUSkipTranscoder(JumpReLUSkipTranscoderConfig(**common, d_out=D_IN, apply_b_dec_to_input=False)),
        7,
    )
    matryoshka = MatryoshkaBatchTopKTrainingSAE(
        MatryoshkaBatchTopKTrainingSAEConfig(**common, k=8, matryoshka_widths=[16, 48, 96])
    )
    matryoshka.topk_threshold.fill_(1.7)
    golden("saelens_matryoshka", matryoshka, 8, "save_inference_model")

    # the flat config of before 6.0, with its old names
    for name, changes, seed in (
        (
            "saelens_before_6_topk",
            {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 9}, "normalize_activations": False},
            9,
        ),
        (
            "saelens_before_6_standard",
            {"activation_fn_str": "relu", "normalize_activations": "none", "apply_b_dec_to_input": False},
            10,
        ),
    ):
        path = folder(root, name)
        tensors = {
            "W_enc": random(seed, D_IN, D_SAE) * 0.3,
            "b_enc": random(seed + 50, D_SAE) - 3,
            "W_dec": random(seed + 60, D_SAE, D_IN),
            "b_dec": random(seed + 70, D_IN),
        }
        save_file(tensors, path / "sae_weights.safetensors")
        cfg = {
            "d_in": D_IN,
            "d_sae": D_SAE,
            "dtype": "torch.float32",
            "device": "cpu",
            "model_name": "toy",
            "hook_point": "blocks.3.hook_resid_pre",
            "finetuning_scaling_factor": False,
            "context_size": 128,
            **changes,
        }
        (path / "cfg.json").write_text(json.dumps(cfg))
        write(
            root,
            name,
            "saelens",
            "by hand, as releases before 6.0 wrote it",
            "sae-lens 6.54.12 SAE.load_from_disk -> encode; forward",
            AsFloat(SAE.load_from_disk(str(path))),
            run,
        )


class AsFloat:
    """A SAELens module casts its input to its config's dtype: `double` must change both."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def double(self) -> AsFloat:
        self._module.double()
        self._module.dtype = torch.float64
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def of_sparsify(root: Path) -> None:
    from sparsify import SparseCoder, SparseCoderConfig

    def run(module: Any, x: Any) -> Outputs:
        top = module.encode(x)
        dense = torch.zeros(len(x), module.num_latents, dtype=x.dtype).scatter_(1, top.top_indices, top.top_acts)
        output = dense @ module.W_dec + module.b_dec
        if module.W_skip is not None:
            output = output + x @ module.W_skip.mT
        assert x.dtype == torch.float64 or torch.allclose(output, module(x).sae_out, atol=1e-3, rtol=1e-4)
        return dense, output

    for name, options, seed in (
        ("sparsify_groupmax", {"activation": "groupmax", "k": 12}, 11),
        ("sparsify_transcoder_skip", {"activation": "topk", "k": 10, "transcode": True, "skip_connection": True}, 12),
    ):
        coder = SparseCoder(D_IN, SparseCoderConfig(num_latents=D_SAE, **options))
        fill(coder, seed)
        path = folder(root, name) / "layers.3.mlp"
        coder.save_to_disk(path)
        write(
            root,
            name,
            "sparsify",
            "eai-sparsify SparseCoder.save_to_disk",
            "load_from_disk -> encode, scattered to dense; forward().sae_out",
            SparseCoder.load_from_disk(path),
            run,
        )


def of_dictionary_learning(root: Path) -> None:
    sys.modules.setdefault("nnsight", types.SimpleNamespace(LanguageModel=None))  # type: ignore[arg-type]  # imported, unused
    from dictionary_learning import dictionary
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK
    from dictionary_learning.utils import load_dictionary

    made = {
        "AutoEncoder": dictionary.AutoEncoder(D_IN, D_SAE),
        "AutoEncoderNew": dictionary.AutoEncoderNew(D_IN, D_SAE),
        "GatedAutoEncoder": dictionary.GatedAutoEncoder(D_IN, D_SAE),
        "AutoEncoderTopK": AutoEncoderTopK(D_IN, D_SAE, 7),
        "MatryoshkaBatchTopKSAE": MatryoshkaBatchTopKSAE(D_IN, D_SAE, 7, [16, 32, 48]),
        "JumpReluAutoEncoder": dictionary.JumpReluAutoEncoder(D_IN, D_SAE),
    }
    for seed, (dict_class, module) in enumerate(made.items(), 20):
        name = f"dictionary_learning_{dict_class.lower()}"
        fill(module, seed)
        with torch.no_grad():
            for bias in ("b_enc", "gate_bias"):
                if hasattr(module, bias):
                    getattr(module, bias).sub_(3.0)
            if "TopK" not in dict_class and hasattr(module, "encoder") and module.encoder.bias is not None:
                module.encoder.bias.sub_(3.0)
            if dict_class.startswith("Matryoshka"):
                module.threshold.fill_(1.3)
        path = folder(root, name)
        torch.save(module.state_dict(), path / "ae.pt")
        config = {
            "trainer": {"dict_class": dict_class, "k": 7, "lm_name": "toy/toy", "submodule_name": "resid_post_layer_4"},
            "buffer": {},
        }
        (path / "config.json").write_text(json.dumps(config))
        loaded, _ = load_dictionary(str(path), "cpu")
        write(
            root,
            name,
            "dictionary_learning",
            "dictionary-learning torch.save(state_dict)",
            "load_dictionary -> encode -> decode",
            loaded,
            lambda m, x: (m.encode(x), m.decode(m.encode(x))),
        )


def of_hub_loaders(root: Path) -> None:
    """Layouts that SAELens and circuit-tracer read from a hub: their loaders, given the local file."""
    import sae_lens.loading.pretrained_sae_loaders as loaders
    from circuit_tracer.transcoder.single_layer_transcoder import load_gemma_scope_2_transcoder
    from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    def run(module: Any, x: Any) -> Outputs:
        return module.encode(x), module.forward(x)

    name = "llama_scope"
    path = folder(root, name)
    (path / "checkpoints").mkdir(exist_ok=True)
    save_file(
        {
            "encoder.weight": random(30, D_SAE, D_IN) * 0.3,
            "encoder.bias": random(31, D_SAE) * 0.3,
            "decoder.weight": random(32, D_IN, D_SAE),
            "decoder.bias": random(33, D_IN),
        },
        path / "checkpoints/final.safetensors",
    )
    hyper = {
        "d_model": D_IN,
        "d_sae": D_SAE,
        "jump_relu_threshold": 3.5,
        "hook_point_in": "blocks.5.hook_resid_post",
        "hook_point_out": "blocks.5.hook_resid_post",
        "act_fn": "jumprelu",
        "dataset_average_activation_norm": {"in": 16.5, "out": 16.5},
        "norm_activation": "dataset-wise",
    }
    (path / "hyperparams.json").write_text(json.dumps(hyper))
    loaders.hf_hub_download = lambda repo_id=None, filename=None, subfolder=None, force_download=False: str(
        path / (f"checkpoints/{filename}" if subfolder else "hyperparams.json")
    )
    _cfg, state, _ = loaders.llama_scope_sae_huggingface_loader(
        "fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L5R-8x", "cpu", False, {"dtype": "float32"}
    )
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=D_IN, d_sae=D_SAE, apply_b_dec_to_input=False))
    sae.load_state_dict(state)
    sae.fold_activation_norm_scaling_factor(D_IN**0.5 / 16.5)
    write(
        root,
        name,
        "llama_scope",
        "by hand in the published layout",
        "sae-lens 6.54.12 llama_scope_sae_huggingface_loader, fold_activation_norm_scaling_factor -> encode; forward",
        AsFloat(sae),
        run,
    )

    name = "qwen_scope"
    path = folder(root, name)
    file = path / "layer3.sae.pt"
    torch.save(
        {
            "W_enc": random(40, D_SAE, D_IN) * 0.3,
            "W_dec": random(41, D_IN, D_SAE),
            "b_enc": random(42, D_SAE),
            "b_dec": random(43, D_IN),
        },
        file,
    )
    loaders.hf_hub_download = lambda **_: str(file)
    loaders.get_qwen_scope_config_from_hf = lambda *_a, **_k: {}
    _, state, _ = loaders.qwen_scope_sae_huggingface_loader(
        "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50", "layer3.sae.pt", "cpu"
    )
    sae = TopKSAE(
        TopKSAEConfig(d_in=D_IN, d_sae=D_SAE, k=11, apply_b_dec_to_input=False, rescale_acts_by_decoder_norm=False)
    )
    sae.load_state_dict(state)
    write(
        root,
        name,
        "qwen_scope",
        "by hand in the published layout",
        "sae-lens 6.54.12 qwen_scope_sae_huggingface_loader -> TopKSAE(k=11) -> encode; forward",
        AsFloat(sae),
        run,
        k=11,
    )

    name = "gemma_scope_2_skip"
    path = folder(root, name)
    tensors = {
        "w_enc": random(50, D_IN, D_SAE) * 0.3,
        "b_enc": random(51, D_SAE),
        "w_dec": random(52, D_SAE, D_IN),
        "b_dec": random(53, D_IN),
        "threshold": random(54, D_SAE).abs() * 3,
        "affine_skip_connection": random(55, D_IN, D_IN),
    }
    save_file(tensors, path / "params.safetensors")
    (path / "config.json").write_text(
        json.dumps(
            {
                "architecture": "jump_relu",
                "model_name": "gemma-v3-270m-it",
                "hf_hook_point_in": "model.layers.3.pre_feedforward_layernorm.output",
                "hf_hook_point_out": "model.layers.3.post_feedforward_layernorm.output",
                "affine_connection": True,
                "width": D_SAE,
                "l0": 10,
            }
        )
    )
    module = load_gemma_scope_2_transcoder(str(path / "params.safetensors"), 3, torch.device("cpu"))
    write(
        root,
        name,
        "gemma_scope_2",
        "by hand in the published layout",
        "circuit-tracer 0.5.0 load_gemma_scope_2_transcoder -> encode; forward",
        module,
        run,
    )


class OpenAI(torch.nn.Module):
    """A reading of the published code, whose package is on no index: layer norm with N - 1, TopK, then ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Linear(D_IN, D_SAE, bias=False)
        self.decoder = torch.nn.Linear(D_SAE, D_IN, bias=False)
        self.pre_bias = torch.nn.Parameter(torch.zeros(D_IN))
        self.latent_bias = torch.nn.Parameter(torch.zeros(D_SAE))

    def forward(self, x: torch.Tensor) -> Outputs:
        mean, std = x.mean(1, keepdim=True), x.std(1, keepdim=True)
        pre = self.encoder((x - mean) / (std + 1e-5) - self.pre_bias) + self.latent_bias
        top = pre.topk(13, dim=1)
        acts = torch.zeros_like(pre).scatter_(1, top.indices, top.values.relu())
        return acts, (self.decoder(acts) + self.pre_bias) * std + mean


def of_openai(root: Path) -> None:
    module = OpenAI()
    fill(module, 60)
    state: dict[str, Any] = dict(module.state_dict())
    state |= {
        "stats_last_nonzero": torch.zeros(D_SAE, dtype=torch.long),
        "latents_activation_frequency": torch.ones(D_SAE),
    }
    state |= {
        "latents_mean_square": torch.ones(D_SAE),
        "activation": "TopK",
        "activation_state_dict": {"k": 13, "postact_fn": "ReLU"},
    }
    torch.save(state, folder(root, "openai_topk") / "8.pt")
    write(
        root,
        "openai_topk",
        "openai",
        "by hand in the published layout",
        "a reading of openai/sparse_autoencoder, written without sight of the reader",
        module,
        lambda m, x: m(x),
    )


if __name__ == "__main__":
    out = Path(sys.argv[1])
    os.environ["HF_HUB_OFFLINE"] = "1"
    for make in (of_saelens, of_sparsify, of_dictionary_learning, of_hub_loaders, of_openai):
        make(out)
