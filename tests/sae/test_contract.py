"""What every registered family must do, on files that its own tool wrote and outputs that this tool gave."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stream_interp import sae
from stream_interp.errors import ComputeDtypeUnavailable, SAELoadError, UsageError
from stream_interp.sae.decoding import decode_dense
from stream_interp.sae.encoder import SAE
from stream_interp.sae.formats import FAMILIES
from stream_interp.sae.precision import in_dtype
from stream_interp.sae.queued import Rows

GOLDEN = sorted(path.parent for path in Path(__file__).parent.glob("golden/*/meta.json"))
every_golden = pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)


def _meta(folder: Path) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
    return meta


Opened = tuple[SAE, dict[str, torch.Tensor], dict[str, Any]]
Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Open:
    """`opened(folder, **options of load)`; pickles are converted, once."""
    converted: dict[Path, Path] = {}

    def _opened(folder: Path, **options: Any) -> Opened:
        meta = _meta(folder)
        path, given = folder / meta["checkpoint"], meta["load"]
        if _is_pickled(meta):
            if folder not in converted:
                converted[folder] = tmp_path_factory.mktemp("converted") / "sae"
                sae.convert(path, converted[folder], **given)
            path, given = converted[folder], {}
        return sae.load(path, **given, **options), load_file(folder / "golden.safetensors"), meta

    return _opened


def _is_pickled(meta: dict[str, Any]) -> bool:
    return next(family.convertible for family in FAMILIES if family.name == meta["family"])


def test_every_family_has_golden_files() -> None:
    layered = [path.parent for path in Path(__file__).parent.glob("golden/layered/*/meta.json")]
    assert {family.name for family in FAMILIES} == {_meta(g)["family"] for g in (*GOLDEN, *layered)}


@every_golden
def test_outputs_are_those_of_the_publishing_tool(opened: Open, folder: Path) -> None:
    loaded, golden, meta = opened(folder)
    acts = loaded.encode(golden["x"])
    torch.testing.assert_close(acts, golden["feature_acts"], rtol=0, atol=meta["feature_acts_atol"])
    assert torch.equal(acts != 0, golden["feature_acts"] != 0)
    torch.testing.assert_close(
        loaded.reconstruct(golden["x"]), golden["reconstruction"], rtol=0, atol=meta["reconstruction_atol"]
    )


@pytest.mark.parametrize("folder", [g for g in GOLDEN if _meta(g)["tie_feature"] is not None], ids=lambda g: g.name)
def test_a_feature_exactly_on_its_threshold_is_off(opened: Open, folder: Path) -> None:
    loaded, golden, meta = opened(folder)
    tie = meta["tie_feature"]
    assert loaded.canonical.b_enc[tie] == loaded.canonical.threshold[tie] > 0
    assert not loaded.encode(golden["x"])[:, tie].any()


@every_golden
def test_family_is_found_and_can_be_named(folder: Path, tmp_path: Path) -> None:
    meta = _meta(folder)
    path, given = folder / meta["checkpoint"], meta["load"]
    if _is_pickled(meta):
        fingerprints = {
            sae.convert(path, tmp_path / "a", **given),
            sae.convert(path, tmp_path / "b", family=meta["family"], **given),
            sae.load(tmp_path / "a").fingerprint,
        }
    else:
        assert sae.load(path, **given).config.family == meta["family"]
        fingerprints = {
            sae.load(path, **given).fingerprint,
            sae.load(path, family=meta["family"], **given).fingerprint,
        }
    assert len(fingerprints) == 1


@pytest.mark.parametrize("folder", [g for g in GOLDEN if _is_pickled(_meta(g))], ids=lambda g: g.name)
def test_a_pickle_is_never_loaded_and_the_way_out_is_named(folder: Path) -> None:
    meta = _meta(folder)
    for options in ({}, {"family": meta["family"]}):
        with pytest.raises(SAELoadError, match="stream-interp sae convert") as refused:
            sae.load(folder / meta["checkpoint"], **options)  # type: ignore[arg-type]
        assert refused.value.reason == "pickle"


@pytest.mark.parametrize("folder", [g for g in GOLDEN if not _is_pickled(_meta(g))], ids=lambda g: g.name)
def test_links_are_followed_as_in_a_hub_cache(folder: Path, tmp_path: Path) -> None:
    meta = _meta(folder)
    path = folder / meta["checkpoint"]
    snapshot = tmp_path / "snapshots" / path.name
    for at, file in enumerate(file for file in path.rglob("*") if file.is_file()):
        link = snapshot / file.relative_to(path)
        link.parent.mkdir(parents=True, exist_ok=True)
        blob = tmp_path / f"blob{at}"
        blob.write_bytes(file.read_bytes())
        link.symlink_to(blob)
    assert sae.load(snapshot, **meta["load"]).fingerprint == sae.load(path, **meta["load"]).fingerprint


@every_golden
def test_sparse_decode_equals_its_dense_twin(opened: Open, folder: Path) -> None:
    loaded, golden, meta = opened(folder)
    acts = loaded.encode(golden["x"])
    twin = decode_dense(acts, loaded.canonical.W_dec, loaded.canonical.b_dec)
    torch.testing.assert_close(loaded.decode(acts), twin, rtol=1e-5, atol=meta["reconstruction_atol"])


@every_golden
def test_reconstruct_from_is_reconstruct(opened: Open, folder: Path) -> None:
    loaded, golden, _ = opened(folder)
    x = golden["x"]
    assert torch.equal(loaded.reconstruct_from(x, loaded.encode(x)), loaded.reconstruct(x))
    assert torch.equal(loaded.reconstruct_from(x.numpy(), loaded.encode(x).numpy()), loaded.reconstruct(x))


@every_golden
def test_a_row_never_depends_on_the_others(opened: Open, folder: Path) -> None:
    loaded, golden, _ = opened(folder)
    x = golden["x"][:24]
    acts, output = loaded.encode(x), loaded.reconstruct(x)
    for start, end in ((0, 1), (3, 5), (1, 24)):
        assert torch.equal(loaded.encode(x[start:end]), acts[start:end])
        assert torch.equal(loaded.reconstruct(x[start:end]), output[start:end])


@every_golden
def test_a_subset_fires_as_the_whole_or_says_why_it_cannot(opened: Open, folder: Path) -> None:
    loaded, golden, meta = opened(folder)
    features = np.random.default_rng(1).permutation(loaded.d_sae)[: max(1, loaded.d_sae // 3)]
    if loaded.canonical.k is not None:
        with pytest.raises(UsageError, match="depends on all others"):
            loaded.subset(features)
        return
    few, expected = loaded.subset(features), loaded.encode(golden["x"])[:, features]
    found = few.encode(golden["x"])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=meta["feature_acts_atol"])
    assert torch.equal(found != 0, expected != 0)
    assert (few.d_sae, few.explains) == (len(features), "nothing")
    assert few.fingerprint not in (loaded.fingerprint, loaded.subset(features[::-1]).fingerprint)
    with pytest.raises(UsageError, match="no decoder here"):
        few.reconstruct(golden["x"])
    for wrong in ([], [0, 0], [-1], [loaded.d_sae]):
        with pytest.raises(UsageError, match="none twice"):
            loaded.subset(wrong)


@every_golden
def test_inputs_of_every_float_dtype_and_kind(opened: Open, folder: Path) -> None:
    loaded, golden, _ = opened(folder)
    x = golden["x"]
    expected = loaded.encode(x)
    read_only = np.frombuffer(x.numpy().tobytes(), np.float32).reshape(x.shape)
    for same in (x.numpy(), read_only, x.numpy().astype(">f4"), np.asfortranarray(x.numpy())):
        assert torch.equal(loaded.encode(same), expected)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert loaded.encode(x.clamp(-1e4, 1e4).to(dtype)).dtype == torch.float32
    torch.testing.assert_close(loaded.encode(x.double().numpy()), expected)
    assert loaded.encode(x[:0]).shape == (0, loaded.d_sae)
    assert loaded.reconstruct(x[:0]).shape == (0, loaded.config.d_out)


@every_golden
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, "float64"])
def test_dtype_is_honoured_and_leaves_the_fingerprint(opened: Open, folder: Path, dtype: torch.dtype | str) -> None:
    float32, golden, _ = opened(folder)
    loaded, _, _ = opened(folder, dtype=dtype)
    expected = torch.float64 if dtype == "float64" else dtype
    x = golden["x"][8:]  # without the first tokens of huge norm
    acts = loaded.encode(x)
    assert loaded.dtype == acts.dtype == loaded.reconstruct(x).dtype == expected
    assert loaded.fingerprint == float32.fingerprint
    assert loaded.memory_bytes * 4 == float32.memory_bytes * loaded.dtype.itemsize
    both, either = (acts != 0) & (golden["feature_acts"][8:] != 0), (acts != 0) | (golden["feature_acts"][8:] != 0)
    assert both.sum() >= 0.9 * either.sum()


@every_golden
def test_firings_decided_exactly_are_those_of_the_publishing_tool(opened: Open, folder: Path) -> None:
    loaded, golden, meta = opened(folder)
    if loaded.canonical.k is not None:
        with pytest.raises(ComputeDtypeUnavailable, match="fire by comparison"):
            in_dtype(loaded, "exact")
        return
    exact = in_dtype(loaded, "exact")
    acts = exact.encode(golden["x"])
    assert torch.equal(acts != 0, golden["feature_acts"] != 0)
    torch.testing.assert_close(acts, golden["feature_acts"], rtol=0, atol=meta["feature_acts_atol"])
    assert exact.fingerprint == loaded.fingerprint
    assert exact.memory_bytes > loaded.memory_bytes + loaded.canonical.W_enc.nbytes


@every_golden
def test_what_is_queued_is_that_of_the_publishing_tool(opened: Open, folder: Path) -> None:
    loaded, golden, meta = opened(folder)
    in_memory = isinstance(loaded.canonical.W_dec, torch.Tensor)
    x, explained = golden["x"].float(), np.arange(len(golden["x"]) if in_memory else 0)
    room, xhat = loaded.queue(x, len(x) * loaded.d_sae, Rows(explained, torch.from_numpy(explained)))
    fired = room.firings(loaded.d_sae)
    assert fired is not None
    acts = fired.dense(len(x), loaded.d_sae)
    assert torch.equal(acts != 0, golden["feature_acts"] != 0)
    torch.testing.assert_close(acts, golden["feature_acts"], rtol=0, atol=meta["feature_acts_atol"])
    if in_memory:
        torch.testing.assert_close(xhat, golden["reconstruction"], rtol=0, atol=meta["reconstruction_atol"])


@every_golden
def test_the_memory_that_is_asked_for_is_what_it_takes(opened: Open, folder: Path) -> None:
    loaded, _, _ = opened(folder)
    assert opened(folder, max_memory_bytes=loaded.memory_bytes)[0].fingerprint == loaded.fingerprint
    with pytest.raises(SAELoadError, match=f"too_large.* {loaded.memory_bytes} bytes needed"):
        opened(folder, max_memory_bytes=loaded.memory_bytes - 1)


@every_golden
def test_wrong_width_and_kind_are_refused(opened: Open, folder: Path) -> None:
    loaded, _, _ = opened(folder)
    for wrong in (torch.zeros(3, loaded.d_in + 1), torch.zeros(loaded.d_in), torch.zeros(1, 2, loaded.d_in)):
        with pytest.raises(UsageError, match=rf"\[n, {loaded.d_in}\]"):
            loaded.encode(wrong)
    for integers in (torch.zeros(3, loaded.d_in, dtype=torch.int64), np.zeros((3, loaded.d_in), np.int32)):
        with pytest.raises(UsageError, match="int"):
            loaded.encode(integers)
    with pytest.raises(UsageError, match=rf"acts has shape .* \[n, {loaded.d_sae}\]"):
        loaded.decode(torch.zeros(3, loaded.d_in))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_golden
def test_cuda_gives_the_same(opened: Open, folder: Path) -> None:
    loaded, golden, meta = opened(folder, device="auto")
    acts, reconstruction = loaded.encode(golden["x"]), loaded.reconstruct(golden["x"])
    assert loaded.device.type == acts.device.type == "cuda"
    assert torch.equal(acts.cpu() != 0, golden["feature_acts"] != 0)
    torch.testing.assert_close(acts.cpu(), golden["feature_acts"], rtol=0, atol=meta["feature_acts_atol"])
    torch.testing.assert_close(reconstruction.cpu(), golden["reconstruction"], rtol=0, atol=meta["reconstruction_atol"])
