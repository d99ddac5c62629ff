"""decode-clt's `.pt` files become what `load` reads: same name and acts as the safetensors, or the right refusal."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from stream_interp import sae
from stream_interp.errors import SAELoadError
from stream_interp.sae.layered import LayeredSAE

from .conftest import refused_at_once
from .layered_files import LAYERS, D, F, Tensors, decode_clt, parameters, write_decode_clt, x_of

GOLDEN = sorted(Path(__file__).parent.glob("golden/layered/decode_clt_*/ckpt"))
CHECKPOINT = "clt_checkpoint_latest.safetensors"
ENCODER, DECODER = "encoder_module.encoders.1", "decoder_module.decoders.0->2"


def _of_rank(tensors: Tensors, rank: int, ranks: int) -> Tensors:
    """As a run on several devices splits them, padded so that every rank has as many features."""
    held = dict(tensors)
    for name, tensor in tensors.items():
        axis = 0 if name.startswith("encoder_module") else 1
        if name.startswith("encoder_module") or (name.startswith("decoder_module.decoders") and tensor.dim() == 2):
            n_features = tensor.shape[axis]
            each = -(-n_features // ranks)
            padding = torch.full_like(tensor, 7.0).narrow(axis, 0, 1).repeat_interleave(each * ranks - n_features, axis)
            held[name] = torch.cat([tensor, padding], axis).narrow(axis, rank * each, each).clone()
    return held


def _save_ranks(folder: Path, tensors: Tensors, ranks: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for rank in range(ranks):
        torch.save(OrderedDict(_of_rank(tensors, rank, ranks)), folder / f"rank_{rank}_model.pt")
    return folder


def _config(folder: Path, **cfg: Any) -> Path:
    """A checkpoint's folder without its weights."""
    (write_decode_clt(folder, {"gone": torch.zeros(1)}, **cfg) / CHECKPOINT).unlink()
    return folder


def _layered(path: Path) -> LayeredSAE:
    loaded = sae.load(path)
    assert isinstance(loaded, LayeredSAE)
    return loaded


def _refused(path: Path, **options: Any) -> str:
    out = path.parent / "out_of_it"
    with refused_at_once() as caught:
        sae.convert(path, out, **options)
    assert not out.exists()
    assert str(out) not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda folder: folder.parent.name)
@pytest.mark.parametrize("layout", ["state dict", "folder", "old torch", "1 rank", "2 ranks above", "5 ranks", "bf16"])
def test_every_layout_has_the_name_and_the_acts_of_the_safetensors(tmp_path: Path, golden: Path, layout: str) -> None:
    tensors = load_file(golden / CHECKPOINT)
    if layout == "bf16":
        tensors = {name: tensor.bfloat16() for name, tensor in tensors.items()}
        golden = shutil.copytree(golden, tmp_path / "bf16")
        save_file(tensors, golden / CHECKPOINT)
    run = shutil.copytree(golden, tmp_path / "run", ignore=shutil.ignore_patterns("*.safetensors"))
    source = run
    if "rank" in layout:
        source = _save_ranks(run / "step_100" if "above" in layout else run, tensors, int(layout[0]))
    else:
        torch.save(OrderedDict(tensors), run / "clt.pt", _use_new_zipfile_serialization=layout != "old torch")
        source = run if layout == "folder" else run / "clt.pt"
    fingerprint = sae.convert(source, tmp_path / "out")
    expected, found = _layered(golden), _layered(tmp_path / "out")
    assert fingerprint == found.fingerprint == expected.fingerprint
    x = torch.randn(LAYERS, 9, expected.d_in, generator=torch.Generator().manual_seed(3))
    assert torch.equal(found.encode(x), expected.encode(x))
    assert torch.equal(found.reconstruct(x), expected.reconstruct(x))
    written = load_file(tmp_path / "out" / CHECKPOINT)
    assert {n: t.dtype for n, t in written.items()} == {n: t.dtype for n, t in tensors.items()}
    assert all(torch.equal(written[name], tensor) for name, tensor in tensors.items())
    assert (tmp_path / "out/cfg.json").read_bytes() == (golden / "cfg.json").read_bytes()


def test_which_pickle_is_meant(tmp_path: Path) -> None:
    folder, tensors = _config(tmp_path / "run"), decode_clt(parameters())
    _save_ranks(folder, tensors, 2)
    by_folder = sae.convert(folder, tmp_path / "a")
    assert sae.convert(folder / "rank_1_model.pt", tmp_path / "b") == by_folder  # one rank means all
    torch.save(decode_clt(parameters(1)), folder / "converted.pt")
    assert sae.convert(folder / "converted.pt", tmp_path / "c", family="decode_clt") != by_folder
    with pytest.raises(SAELoadError, match=r"pickle: .*sae convert"):
        sae.load(folder)
    for rank in range(2):
        (folder / f"rank_{rank}_model.pt").unlink()
    for name in ("clt.pt", "clt_2.pt"):
        torch.save(tensors, folder / name)
    assert _refused(folder) == "several_saes"
    assert sae.convert(folder / "clt_2.pt", tmp_path / "d") == by_folder
    (folder / "cfg.json").unlink()
    assert _refused(folder / "clt.pt") == "missing_file"


Change = Callable[[Tensors], object]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop(f"{ENCODER}.weight"), "missing_tensor"),
        (lambda t: t.pop(f"{DECODER}.bias_param"), "missing_tensor"),
        (lambda t: [t.pop(name) for name in list(t) if ".2" in name or ">2" in name], "missing_tensor"),  # a layer
        (lambda t: t.clear(), "missing_tensor"),
        (lambda t: t.update({"more": torch.zeros(2)}), "unknown_tensor"),
        (lambda t: t.update({f"{ENCODER}.weight": torch.zeros(D, F)}), "wrong_shape"),
        (lambda t: t.update({f"{ENCODER}.weight": torch.zeros(F - 1, D)}), "wrong_shape"),
        (lambda t: t.update({f"{ENCODER}.weight": torch.tensor(1.0)}), "wrong_shape"),
        (lambda t: t.update({f"{DECODER}.weight": torch.zeros(D)}), "wrong_shape"),
        (lambda t: t.update({f"{DECODER}.weight": torch.zeros(1).expand(D, 10**9)}), "bad_header"),
        (lambda t: t.update({f"{DECODER}.weight": torch.empty(D, F, device="meta")}), "bad_header"),
        (lambda t: t.update({f"{DECODER}.weight": torch.eye(D, F).to_sparse()}), "bad_header"),
        (lambda t: t.update({f"{DECODER}.weight": torch.zeros(D, F, dtype=torch.int64)}), "wrong_dtype"),
        (lambda t: t.update({f"{DECODER}.weight": torch.zeros(D, F, dtype=torch.complex64)}), "wrong_dtype"),
        (lambda t: t.update({f"{DECODER}.weight": [[0.0] * F] * D}), "pickle"),
        (lambda t: t.update({f"{DECODER}.weight": None}), "pickle"),
        (lambda t: t.update({"step": 3}), "pickle"),
        (lambda t: t.update({7: torch.zeros(1)}), "pickle"),
        (lambda t: t.update({"a": {"b": torch.zeros(1)}}), "pickle"),
        (lambda t: t[f"{ENCODER}.weight"].__setitem__((1, 2), float("nan")), "not_finite"),
        (lambda t: t[f"{DECODER}.weight"].__setitem__((1, 2), float("inf")), "not_finite"),
        (lambda t: t[f"{DECODER}.bias_param"].__setitem__(1, float("nan")), "not_finite"),
    ],
)
def test_state_dicts_that_would_be_misread(tmp_path: Path, change: Change, reason: str) -> None:
    folder, tensors = _config(tmp_path / "run"), decode_clt(parameters())
    change(tensors)
    torch.save(tensors, folder / "clt.pt")
    assert _refused(folder) == reason
    if reason != "bad_header":  # torch.load gives what is expanded, sparse or nowhere another way
        _save_ranks(folder, decode_clt(parameters()), 1)
        torch.save(tensors, folder / "rank_0_model.pt")
        assert _refused(folder) == reason


def _rank(rank: int, change: Change) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        tensors = torch.load(folder / f"rank_{rank}_model.pt", weights_only=True)
        change(tensors)
        torch.save(tensors, folder / f"rank_{rank}_model.pt")

    return apply


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: (folder / "rank_0_model.pt").unlink(), "missing_file"),
        (lambda folder: (folder / "rank_1_model.pt").unlink(), "missing_file"),
        (lambda folder: (folder / "rank_2_model.pt").unlink(), "wrong_shape"),  # what is left is too few
        (lambda folder: shutil.copy(folder / "rank_2_model.pt", folder / "rank_3_model.pt"), "wrong_shape"),
        (lambda folder: (folder / "rank_2_model.pt").write_bytes(b""), "pickle"),
        (lambda folder: (folder / "rank_2_model.pt").rename(folder / "rank_٢_model.pt"), "wrong_shape"),
        (_rank(1, lambda t: t.pop(f"{ENCODER}.weight")), "unequal_ranks"),
        (_rank(1, lambda t: t.update(more=torch.zeros(1))), "unequal_ranks"),
        (_rank(1, lambda t: t.update({f"{ENCODER}.weight": torch.zeros(2, D)})), "unequal_ranks"),
        (_rank(1, lambda t: t.update({f"{ENCODER}.weight": t[f"{ENCODER}.weight"].double()})), "unequal_ranks"),
        (_rank(2, lambda t: t[f"{DECODER}.bias_param"].add_(1)), "unequal_ranks"),  # every rank holds it whole
        (_rank(2, lambda t: t[f"{DECODER}.weight"].fill_(float("nan"))), "not_finite"),
    ],
)
def test_ranks_that_do_not_make_a_whole(tmp_path: Path, change: Callable[[Path], object], reason: str) -> None:
    folder = _save_ranks(_config(tmp_path / "run"), decode_clt(parameters()), 3)
    change(folder)
    assert _refused(folder) == reason


def test_configs_are_read_before_a_pickle_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_interp.sae.formats.decode_clt_pickles.open_pickle", None)
    for cfg, reason in (
        ({"activation_fn": "batchtopk"}, "unknown_architecture"),
        ({"normalization_method": "whitening"}, "unknown_normalisation"),
        ({"num_layers": 10**9}, "bad_config"),
    ):
        torch.save({}, _config(tmp_path / "run", **cfg) / "clt.pt")
        assert _refused(tmp_path / "run") == reason
    _config(tmp_path / "run")
    assert _refused(tmp_path / "run", k=3) == "k_unused"
    assert _refused(tmp_path / "run", activation_scale=1.0) == "activation_scale_unused"


def test_statistics_come_with_it(tmp_path: Path) -> None:
    folder = _config(tmp_path / "run", normalization_method="mean_std")
    torch.save(decode_clt(parameters()), folder / "clt.pt")
    assert _refused(folder) == "missing_file"
    moments = {"mean": [0.5] * D, "std": [2.0] * D}
    statistics = {str(i): {"inputs": moments, "targets": moments} for i in range(LAYERS)}
    (folder / "norm_stats.json").write_text(json.dumps(statistics))
    sae.convert(folder, tmp_path / "out")
    same = write_decode_clt(tmp_path / "same", decode_clt(parameters()), normalization_method="mean_std")
    shutil.copy(folder / "norm_stats.json", same)
    assert torch.equal(_layered(tmp_path / "out").reconstruct(x_of()), _layered(same).reconstruct(x_of()))


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pickle_was_executed",)


def _pickled(protocol: int) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(pickle.dumps({"a": _Bomb()}, protocol=protocol))


def _saved(value: object, new_format: bool = True) -> Callable[[Path], object]:
    return lambda file: torch.save(value, file, _use_new_zipfile_serialization=new_format)


def _cut(file: Path) -> None:
    torch.save(decode_clt(parameters()), file)
    file.write_bytes(file.read_bytes()[:-100])


def _compressed(member: str, n_bytes: int) -> Callable[[Path], object]:
    """With so many zeros for its `member`, or where that is empty as it was."""

    def write(file: Path) -> None:
        torch.save(decode_clt(parameters()), stored := io.BytesIO())
        with zipfile.ZipFile(stored) as source, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
            for name in source.namelist():
                target.writestr(name, bytes(n_bytes) if member and name.endswith(member) else source.read(name))

    return write


@pytest.mark.parametrize(
    "write",
    [
        *(_pickled(protocol) for protocol in (0, 2, 4, 5)),
        _saved({f"{ENCODER}.weight": _Bomb()}),
        _saved({f"{ENCODER}.weight": _Bomb()}, new_format=False),
        _saved(OrderedDict(a=_Bomb())),
        _saved([torch.zeros(3)]),
        _saved(torch.zeros(3)),
        _saved(torch.nn.Linear(3, 3)),
        _saved({"config": {"num_features": F}, "state_dict": decode_clt(parameters())}),
        _cut,
        lambda file: file.write_bytes(b"PK\x03\x04" + bytes(200)),
        lambda file: file.write_bytes(b"\x80\x02" + b"(" * 100_000 + b"."),
        lambda file: file.write_bytes(b"\x80\x02" + b"]" * 100_000 + b"."),
        _compressed("", 0),  # torch would take the compressed bytes for the numbers
        _compressed("data.pkl", 20_000_000),
        _compressed("version", 20_000_000),
    ],
    ids=range(18),
)
def test_pickles_that_are_no_state_dict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = _config(tmp_path / "run")
    for name in ("clt.pt", "rank_0_model.pt"):
        write(folder / name)
        assert _refused(folder) == "pickle"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]  # nothing was executed
