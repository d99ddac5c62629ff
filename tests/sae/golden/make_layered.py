"""Golden files of the families with an SAE for each layer, in the environment of `make.py` (README.md).

    pip install --no-deps circuit-tracer==0.5.0 decode-clt==0.0.1
    python make_layered.py FOLDER/layered

Features and, where its code is right, outputs are the tool's, in float32; every number is held against a reading of the
published code in float64, which gives the tolerances and stands in where the tool's own forward() is wrong.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from make import random
from safetensors.torch import load_file, save_file

L, D, F, N = 3, 12, 32, 24
Tensors = dict[str, torch.Tensor]


def inputs(seed: int) -> torch.Tensor:
    x = random(seed, L, N, D) * 2 + random(seed + 1, L, 1, D)
    x[:, -2:] = 0  # tokens at the end in which little or nothing fires
    x[:, 0] *= 10
    return x


def write(path: Path, family: str, tool: str, source: str, x: torch.Tensor, acts: torch.Tensor, exact: torch.Tensor,
          output: torch.Tensor, exact_output: torch.Tensor, **more: Any) -> None:  # fmt: skip
    assert torch.equal(acts != 0, exact != 0), path
    assert 1 < (acts != 0).sum(2).float().mean() < F / 2, (path, (acts != 0).sum(2).float().mean())
    atol = [max(1e-5, 4 * (a.double() - b).abs().max().item()) for a, b in ((acts, exact), (output, exact_output))]
    save_file(
        {"x": x, "feature_acts": acts.contiguous(), "reconstruction": output.float().contiguous()},
        path / "golden.safetensors",
    )
    meta = {
        "family": family, "written_by": f"{tool} {version(tool)}", "golden_source": source, "layers": L,
        "feature_acts_atol": atol[0], "reconstruction_atol": atol[1], **more,
    }  # fmt: skip
    (path / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    print(
        path.name, "L0", (acts != 0).sum(2).float().mean().item(), atol, "silent rows", int((~(acts != 0).any(2)).sum())
    )


def fresh(root: Path, name: str) -> Path:
    (root / name / "ckpt").mkdir(parents=True, exist_ok=True)
    return root / name


def config(path: Path, kind: str) -> None:
    cfg = {
        "model_name": "toy/toy", "model_kind": kind, "feature_input_hook": "mlp.hook_in",
        "feature_output_hook": "hook_mlp_out", "scan": "toy", "revision": None,
    }  # fmt: skip
    (path / "ckpt/config.yaml").write_text(yaml.dump(cfg))


def pre(x: torch.Tensor, W: list[torch.Tensor], b: list[torch.Tensor]) -> torch.Tensor:
    """[L, N, F] of torch-linear weights [F, D], in float64."""
    return torch.stack([x[i].double() @ W[i].double().T + b[i].double() for i in range(len(W))])


def transcoder_set(root: Path, name: str, threshold: Callable[[int], torch.Tensor] | None, skip: bool) -> None:
    from circuit_tracer.transcoder.activation_functions import JumpReLU
    from circuit_tracer.transcoder.single_layer_transcoder import (
        SingleLayerTranscoder,
        TranscoderSet,
        load_transcoder_set,
    )

    path, made = fresh(root, name), {}
    for i in range(L):
        activation = torch.nn.functional.relu if threshold is None else JumpReLU(threshold(i), 0.1)
        made[i] = SingleLayerTranscoder(D, F, activation, i, skip_connection=skip, dtype=torch.float32,
                                        device=torch.device("cpu"))  # fmt: skip
        with torch.no_grad():
            made[i].W_enc.copy_(random(100 + i, F, D) * 0.4)
            made[i].W_dec.copy_(random(110 + i, F, D))
            made[i].b_enc.copy_(random(120 + i, F) - 2)
            made[i].b_dec.copy_(random(130 + i, D))
            if skip:
                made[i].W_skip.copy_(random(140 + i, D, D))
    config(path, "transcoder_set")
    TranscoderSet(made, "mlp.hook_in", "hook_mlp_out").to_safetensors(str(path / "ckpt"))
    files = {i: str(path / f"ckpt/layer_{i}.safetensors") for i in range(L)}
    loaded = load_transcoder_set(files, "toy", "mlp.hook_in", "hook_mlp_out", device=torch.device("cpu"))
    x = inputs(150)
    with torch.no_grad():
        acts = loaded.encode(x)
        output = loaded.decode(acts, x)
    t = [load_file(files[i]) for i in range(L)]
    p = pre(x, [u["W_enc"] for u in t], [u["b_enc"] for u in t])
    exact = p.relu()
    if threshold is not None:
        exact = torch.where(p > torch.stack([u["activation_function.threshold"].double() for u in t])[:, None], p, 0.0)
    exact_output = torch.stack([exact[i] @ t[i]["W_dec"].double() + t[i]["b_dec"].double() for i in range(L)])
    if skip:
        exact_output += torch.stack([x[i].double() @ t[i]["W_skip"].double().T for i in range(L)])
    write(path, "circuit_tracer", "circuit-tracer", "load_transcoder_set -> encode -> decode", x, acts, exact, output,
          exact_output, negative_acts=int((acts < 0).sum()))  # fmt: skip


def cross_layer(root: Path, name: str, activation: str, skip: bool) -> None:
    from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder, load_clt

    path = fresh(root, name)
    made = CrossLayerTranscoder(L, F, D, activation, lazy_decoder=False, dtype=torch.float32,
                                device=torch.device("cpu"))  # fmt: skip
    with torch.no_grad():
        made.W_enc.copy_(random(200, L, F, D) * 0.4)
        made.b_enc.copy_(random(201, L, F) - 2)
        made.b_dec.copy_(random(202, L, D))
        for i in range(L):
            made.W_dec[i].copy_(random(210 + i, F, L - i, D))
        if activation == "jump_relu":  # some negative: p > threshold there lets p < 0 through
            made.activation_function.threshold.copy_(random(203, L, 1, F) * 1.5 + 0.5)
            made.b_enc[:, 5], made.W_enc[:, 5] = 0.75, 0
            made.activation_function.threshold[:, 0, 5] = 0.75  # on its threshold
    config(path, "cross_layer_transcoder")
    made.to_safetensors(str(path / "ckpt"))
    if skip:  # no release of the tool writes it; it computes x @ W_skip[l]
        for i in range(L):
            file = path / f"ckpt/W_enc_{i}.safetensors"
            save_file(load_file(file) | {f"W_skip_{i}": random(220 + i, D, D)}, file)
    loaded = load_clt(str(path / "ckpt"), dtype=torch.float32, device=torch.device("cpu"))
    x = inputs(230)
    enc = [load_file(path / f"ckpt/W_enc_{i}.safetensors") for i in range(L)]
    dec = [load_file(path / f"ckpt/W_dec_{i}.safetensors")[f"W_dec_{i}"].double() for i in range(L)]
    with torch.no_grad():
        acts = torch.stack([loaded.encode_layer(x[i], i) for i in range(L)])
        assert torch.allclose(acts, loaded.encode(x), atol=1e-4)
    p = pre(x, [enc[i][f"W_enc_{i}"] for i in range(L)], [enc[i][f"b_enc_{i}"] for i in range(L)])
    exact = p.relu()
    if activation == "jump_relu":
        exact = torch.where(p > torch.stack([enc[i][f"threshold_{i}"].double() for i in range(L)])[:, None], p, 0.0)

    def outputs(acts: torch.Tensor) -> torch.Tensor:
        dtype = acts.dtype
        output = torch.stack([enc[i][f"b_dec_{i}"].to(dtype).expand(N, D).clone() for i in range(L)])
        for source in range(L):
            for target in range(source, L):
                output[target] += acts[source] @ dec[source][:, target - source].to(dtype)
            if skip:
                output[source] += x[source].to(dtype) @ enc[source][f"W_skip_{source}"].to(dtype)
        return output

    output = outputs(exact)
    if not skip:  # the tool's decode is right as far as the rows that it gives
        given = loaded.decode(acts.to_sparse())
        assert torch.allclose(given.double(), output[:, : given.shape[1]], atol=1e-3), (given - output).abs().max()
    write(path, "circuit_tracer", "circuit-tracer", "load_clt -> encode_layer; outputs by a reading in float64, since "
          "its forward() gives too few rows where the last tokens are silent and raises with a skip",
          x, acts, exact, output, outputs(acts).double(), negative_acts=int((acts < 0).sum()),
          **({"tie_feature": 5} if activation == "jump_relu" else {}))  # fmt: skip


def of_decode_clt(root: Path, name: str, activation: str, normalisation: str, tying: str, skip: bool) -> None:
    from clt.config import CLTConfig
    from clt.models.clt import CrossLayerTranscoder

    path = fresh(root, name)
    cfg = CLTConfig(num_features=F, num_layers=L, d_model=D, activation_fn=activation, decoder_tying=tying,
                    normalization_method=normalisation, skip_connection=skip, model_name="toy",
                    tl_input_template="blocks.{}.ln2.hook_normalized")  # fmt: skip
    model = CrossLayerTranscoder(cfg, None, torch.device("cpu"))
    scale = D**0.5 if normalisation == "sqrt_d_model" else 1.0
    with torch.no_grad():
        for at, (key, parameter) in enumerate(sorted(model.named_parameters())):
            values = random(300 + at, *parameter.shape)
            if "encoders" in key:
                values = values * 0.4 / scale if parameter.dim() == 2 else values * 0.3 - 0.5
            elif "log_threshold" in key:
                values = values * 0.5
            parameter.copy_(values)
        if activation == "jumprelu":  # a tie: p == threshold, where this tool lets it fire
            for i in range(L):
                model.encoder_module.encoders[i].weight[5] = 0
                model.encoder_module.encoders[i].bias_param[5] = model.log_threshold[i, 5].exp()
    cfg.to_json(str(path / "ckpt/cfg.json"))
    save_file(model.state_dict(), path / "ckpt/clt_checkpoint_latest.safetensors")

    x = inputs(400)
    ones, zeros = torch.ones(L, D), torch.zeros(L, D)
    mean_in, std_in, mean_out, std_out = zeros, ones, zeros, ones
    if normalisation == "mean_std":
        stats = {str(i): {side: {"mean": (random(410 + 10 * i + at, D)).tolist(),
                                 "std": (random(415 + 10 * i + at, D).abs() + 0.5).tolist()}
                          for at, side in enumerate(("inputs", "targets"))} for i in range(L)}  # fmt: skip
        (path / "ckpt/norm_stats.json").write_text(json.dumps(stats))
        mean_in, std_in, mean_out, std_out = (
            torch.tensor([stats[str(i)][side][moment] for i in range(L)]) + (1e-6 if moment == "std" else 0)
            for side in ("inputs", "targets") for moment in ("mean", "std")
        )  # fmt: skip
    elif normalisation == "sqrt_d_model":
        std_in = std_out = ones / D**0.5

    def run(module: Any, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        dtype = z.dtype
        normed = {i: (z[i] - mean_in[i].to(dtype)) / std_in[i].to(dtype) for i in range(L)}
        with torch.no_grad():
            acts = module.get_feature_activations(normed)
            given = module(normed)
        output = torch.stack([given[i] * std_out[i].to(dtype) + mean_out[i].to(dtype) for i in range(L)])
        return torch.stack([acts[i] for i in range(L)]), output

    acts, output = run(model, x)
    for module in model.modules():  # it casts its inputs to a dtype of its own
        if hasattr(module, "dtype"):
            module.dtype = torch.float64
    model.double()
    if activation == "jumprelu":
        with torch.no_grad():
            for i in range(L):  # exp in float64 would break the tie
                model.encoder_module.encoders[i].bias_param[5] = model.log_threshold[i, 5].exp()
    exact, exact_output = run(model, x.double())
    write(path, "decode_clt", "decode-clt", "get_feature_activations; forward, normalised as its activation store does",
          x, acts, exact, output, exact_output, **({"tie_feature": 5} if activation == "jumprelu" else {}))  # fmt: skip


def gemma_scope_2_clt(root: Path, name: str) -> None:
    from circuit_tracer.transcoder.cross_layer_transcoder import load_gemma_scope_2_clt

    path = fresh(root, name)
    stored = [
        {
            "w_enc": random(500 + i, D, F) * 0.4, "b_enc": random(510 + i, F) - 2, "w_dec": random(520 + i, F, L, D),
            "b_dec": random(530 + i, D), "threshold": random(540 + i, F) + 0.5,
            "affine_skip_connection": random(550 + i, D, D),
        }
        for i in range(L)
    ]  # fmt: skip
    files = {i: str(path / f"ckpt/layer_{i}.safetensors") for i in range(L)}
    for i in range(L):
        save_file(stored[i], files[i])
    # it reads all files but the last
    loaded = load_gemma_scope_2_clt(files | {L: "none"}, dtype=torch.float32, device=torch.device("cpu"))
    x = inputs(560)
    with torch.no_grad():
        acts = torch.stack([loaded.encode_layer(x[i], i) for i in range(L)])
        given = loaded.decode(acts.to_sparse(), torch.zeros_like(x))
    p = pre(x, [t["w_enc"].T for t in stored], [t["b_enc"] for t in stored])
    exact = torch.where(p > torch.stack([t["threshold"].double() for t in stored])[:, None], p, 0.0)

    def outputs(acts: torch.Tensor) -> torch.Tensor:
        t = [{name: tensor.to(acts.dtype) for name, tensor in layer.items()} for layer in stored]
        return torch.stack(
            [sum((acts[s] @ t[s]["w_dec"][:, target] for s in range(target + 1)), t[target]["b_dec"])
             + x[target].to(acts.dtype) @ t[target]["affine_skip_connection"] for target in range(L)]
        )  # fmt: skip

    skipped = torch.stack([x[i].double() @ stored[i]["affine_skip_connection"].double() for i in range(L)])
    n = given.shape[1]
    assert torch.allclose(given.double() + skipped[:, :n], outputs(exact)[:, :n], atol=1e-3)
    source = "load_gemma_scope_2_clt -> encode_layer; outputs by a reading in float64 that its decode agrees with"
    write(path, "gemma_scope_2_clt", "circuit-tracer", source, x, acts, exact, outputs(exact), outputs(acts).double(),
          negative_acts=int((acts < 0).sum()))  # fmt: skip


if __name__ == "__main__":
    out = Path(sys.argv[1])
    transcoder_set(out, "circuit_tracer_set_relu_skip", None, skip=True)
    transcoder_set(out, "circuit_tracer_set_jumprelu", lambda i: random(160 + i, F).abs(), skip=False)
    transcoder_set(out, "circuit_tracer_set_negative_thresholds", lambda i: random(170 + i, F), skip=True)
    cross_layer(out, "circuit_tracer_clt_relu", "relu", skip=False)
    cross_layer(out, "circuit_tracer_clt_jumprelu_skip", "jump_relu", skip=True)
    of_decode_clt(out, "decode_clt_jumprelu", "jumprelu", "none", "none", skip=False)
    of_decode_clt(out, "decode_clt_mean_std_skip", "jumprelu", "mean_std", "none", skip=True)
    of_decode_clt(out, "decode_clt_per_source_sqrt_d", "jumprelu", "sqrt_d_model", "per_source", skip=True)
    of_decode_clt(out, "decode_clt_per_target_relu", "relu", "none", "per_target", skip=True)
    gemma_scope_2_clt(out, "gemma_scope_2_clt_skip")
