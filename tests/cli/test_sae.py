"""`stream-interp sae inspect | convert`: what people and scripts read, exit codes, bad words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stream_interp import sae
from stream_interp.cli import main

GOLDEN = Path(__file__).parents[1] / "sae/golden"
GATED, TRANSCODER = str(GOLDEN / "saelens_gated/ckpt"), str(GOLDEN / "saelens_jumprelu_transcoder/ckpt")
QWEN = str(GOLDEN / "qwen_scope/ckpt/layer3.sae.pt")


def test_inspect_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sae", "inspect", GATED]) == 0
    shown = capsys.readouterr().out
    loaded = sae.load(GATED)
    for words in ("saelens", "gated", "24, 96, 24", "threshold", "decoder norm", loaded.fingerprint):
        assert words in shown
    assert main(["sae", "inspect", GATED, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["fingerprint"] == loaded.fingerprint
    assert told["thresholds"]["largest"] == pytest.approx(float(loaded.canonical.threshold.max()))
    assert told["decoder_norms"]["median"] == pytest.approx(
        float(loaded.canonical.W_dec.norm(dim=1).median()), rel=0.05
    )
    assert told["check"] is None


def test_check_ends_with_1_where_it_is_misloaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1_500, 24, generator=generator) * 3
    x[0] *= 1e4
    save_file({"acts": x.half().clamp(-6e4, 6e4)}, tmp_path / "x.safetensors")
    assert main(["sae", "inspect", GATED, "--check", str(tmp_path / "x.safetensors"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)["check"]
    assert told["verdict"] == "misloaded"
    assert (told["tokens"], told["massive_tokens"]) == (1_500, 1)
    assert told["measured"]["explained_variance_ordinary"] < 0
    assert main(["sae", "inspect", GATED, "--check", str(tmp_path / "x.safetensors")]) == 1
    assert "misloaded" in capsys.readouterr().out


def test_check_of_a_transcoder_takes_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = torch.randn(1_200, 24, generator=torch.Generator().manual_seed(0)) * 3
    save_file({"acts": x, "acts_out": sae.load(TRANSCODER).reconstruct(x)}, tmp_path / "xy.safetensors")
    assert main(["sae", "inspect", TRANSCODER, "--check", str(tmp_path / "xy.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["check"]["measured"]["explained_variance"] == pytest.approx(1.0)


def test_check_refuses_files_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"acts": torch.zeros(10, 25)}, tmp_path / "wide.safetensors")
    save_file({"x": torch.zeros(10, 24)}, tmp_path / "other.safetensors")
    save_file({"acts": torch.zeros(10, 24), "acts_out": torch.zeros(9, 24)}, tmp_path / "uneven.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    for name in ("wide", "other", "uneven", "text", "missing"):
        assert main(["sae", "inspect", GATED, "--check", str(tmp_path / f"{name}.safetensors")]) == 2, name
        said = " ".join(capsys.readouterr().err.split())
        assert "expected" in said, name
        assert "[n, 24]" in said, name


def test_convert_warns_and_writes_what_load_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sae", "convert", QWEN, str(tmp_path / "out"), "-k", "11"]) == 0
    said = capsys.readouterr()
    assert "can run code" in said.err
    assert said.out.strip() == sae.load(tmp_path / "out").fingerprint
    assert main(["sae", "convert", QWEN, str(tmp_path / "out"), "-k", "11"]) == 2
    assert "is there already" in " ".join(capsys.readouterr().err.split())


def test_a_pickle_names_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sae", "inspect", QWEN]) == 1
    assert "stream-interp sae convert" in " ".join(capsys.readouterr().err.split())


CLT, SET = (
    str(GOLDEN / "layered/circuit_tracer_clt_relu/ckpt"),
    str(GOLDEN / "layered/circuit_tracer_set_relu_skip/ckpt"),
)


@pytest.mark.parametrize(("path", "kind"), [(CLT, "cross-layer transcoder"), (SET, "transcoder set")])
def test_inspect_has_a_line_for_each_layer(capsys: pytest.CaptureFixture[str], path: str, kind: str) -> None:
    assert main(["sae", "inspect", path, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [layer["layer"] for layer in told["layers"]] == [0, 1, 2]
    assert told["crosses_layers"] == (path == CLT)
    fingerprints = [sae.load_encoder(f"{path}#{i}").fingerprint for i in range(3)]
    assert [layer["fingerprint"] for layer in told["layers"]] == fingerprints
    assert [layer["decoder_norms"] is None for layer in told["layers"]] == [path == CLT] * 3
    assert main(["sae", "inspect", path]) == 0
    shown = capsys.readouterr().out
    for words in ("circuit_tracer", kind, "blocks.2.mlp.hook_in", *fingerprints):
        assert words in shown


def test_inspect_of_one_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = torch.randn(1_100, 12, generator=torch.Generator().manual_seed(0)) * 2
    one = sae.load_encoder(f"{SET}#1")
    save_file({"acts": x, "acts_out": one.reconstruct(x)}, tmp_path / "x.safetensors")
    assert main(["sae", "inspect", f"{SET}#1", "--check", str(tmp_path / "x.safetensors"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["fingerprint"] == one.fingerprint
    assert told["check"]["measured"]["explained_variance"] == pytest.approx(1.0)
    assert main(["sae", "inspect", f"{CLT}#1", "--check", str(tmp_path / "x.safetensors"), "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)["check"]
    assert (checked["verdict"], checked["measured"]["explained_variance"]) == ("cannot_tell", None)
    assert main(["sae", "inspect", f"{CLT}#1"]) == 0
    assert "no decoder of its own" in capsys.readouterr().out
    for name, words in (("circuit_tracer_clt_jumprelu_skip", "negative acts"), ("decode_clt_jumprelu", "fires on its")):
        assert main(["sae", "inspect", f"{GOLDEN}/layered/{name}/ckpt#1"]) == 0
        assert words in capsys.readouterr().out
    assert main(["sae", "inspect", CLT, "--check", str(tmp_path / "x.safetensors")]) == 2
    assert "#0 to" in " ".join(capsys.readouterr().err.split())
    assert main(["sae", "inspect", f"{CLT}#3"]) == 2
    assert "layers 0 to 2" in " ".join(capsys.readouterr().err.split())
