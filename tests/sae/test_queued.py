"""What is queued without waiting equals what tiles find, and no step of it could wait."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stream_interp.sae.activation import fire
from stream_interp.sae.blocks import BLOCK_TOKENS
from stream_interp.sae.canonical import Canonical
from stream_interp.sae.config import SAEConfig
from stream_interp.sae.encoder import SAE
from stream_interp.sae.exact import Exact
from stream_interp.sae.firings import Firings, TooManyFirings
from stream_interp.sae.queued import DECODED_TOKENS, Rows, find, fire_on_device
from tests.sae.test_firings import D_SAE, RULES, _canonical, _pre

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def _same(one: Firings, other: Firings) -> bool:
    return all(map(torch.equal, one, other))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", RULES)
def test_what_fires_is_what_tiles_find(rule: str, dtype: torch.dtype) -> None:
    options, _ = RULES[rule]
    own = {
        name: tuple(t.to(dtype) for t in value) if isinstance(value, tuple)
        else value.to(dtype) if isinstance(value, torch.Tensor) else value
        for name, value in options.items()
    }  # fmt: skip
    canonical, pre = _canonical(dtype=dtype, **own), torch.randn(700, D_SAE).to(dtype)
    if canonical.k is not None:
        pre = torch.stack([torch.randperm(D_SAE) for _ in pre]).to(dtype) - 900  # of equal ones each takes its own
    for n in (0, 1, BLOCK_TOKENS, 700):
        assert _same(fire_on_device(canonical, pre[:n], None), fire(canonical, pre[:n]))


def test_what_is_0_does_not_fire_below_a_threshold_of_0_either() -> None:
    canonical, x = _canonical(threshold=torch.full((D_SAE,), -1.0)), torch.zeros(2, D_SAE)
    x[1, 5], x[1, 6] = -0.5, 2.0
    for fired in (fire(canonical, x), fire_on_device(canonical, x, None), Exact(canonical).fire(x, None)):
        assert fired.token.tolist() == [1, 1]
        assert fired.feature.tolist() == [5, 6]
        assert fired.value.tolist() == [-0.5, 2.0]


def test_nan_fires() -> None:
    pre = _pre(3)
    pre[1, 4] = float("nan")
    for options, _ in RULES.values():
        fired = fire_on_device(_canonical(**options), pre, None)
        assert fired.value[fired.token == 1].isnan().any()
        assert not fired.value[fired.token != 1].isnan().any()


def test_room_grows_where_nobody_set_a_bound_and_is_kept_to_where_somebody_did() -> None:
    canonical, x = _canonical(b_enc=torch.ones(D_SAE)), torch.zeros(BLOCK_TOKENS + 3, D_SAE)
    everything = len(x) * D_SAE
    assert len(fire_on_device(canonical, x, None).token) == everything
    assert len(fire_on_device(canonical, x, everything).token) == everything
    assert len(fire_on_device(canonical, x, 10**13).token) == everything  # no room for more than there can be
    with pytest.raises(TooManyFirings):
        fire_on_device(canonical, x, everything - 1)
    for size in (0, 1, 5, everything - 1):
        room, _ = find(canonical, x, size)
        assert room.fired == everything
        assert room.firings(D_SAE) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [{}, {"k": 20}], ids=["threshold", "top k"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_cuda])])
def test_a_row_never_depends_on_its_neighbours(device: str, options: dict[str, object], dtype: torch.dtype) -> None:
    """Nor on its place: a product that shares out its inner sums by tile would round rows differently."""
    d_in, d_sae, d_out, n = (64, 2_000, 64, BLOCK_TOKENS + 200) if device == "cpu" else (2_304, 16_384, 2_304, 1_200)
    rng = torch.Generator().manual_seed(5)
    W_enc, W_dec, x = (
        torch.randn(*shape, generator=rng).to(device, dtype) for shape in ((d_in, d_sae), (d_sae, d_out), (n, d_in))
    )
    canonical = _canonical(
        d_in, d_sae, W_enc=W_enc, b_enc=W_enc[0], threshold=torch.full_like(W_enc[0], 2 * d_in**0.5),
        W_dec=W_dec, b_dec=W_dec[0], **options,
    )  # fmt: skip
    whole = fire_on_device(canonical, x, None)
    _, outputs = find(canonical, x, 1, _rows(np.arange(n), device))
    for start, end in ((0, 1), (7, 30), (BLOCK_TOKENS - 3, n)):
        own = torch.zeros(n, dtype=torch.bool, device=device)
        own[start:end] = True
        assert _same(fire_on_device(canonical, x[start:end], None), whole.of_tokens(own))
        some = np.arange(0, end - start, 3)
        assert torch.equal(find(canonical, x[start:end], 1, _rows(some, device))[1], outputs[start + some])


@pytest.mark.parametrize("normalisation", ["none", "layer_norm", "constant_norm_rescale", "layer_norm_in"])
def test_reconstructions_are_those_of_the_sparse_decoder(normalisation: str) -> None:
    made, x = _sae(normalisation), torch.randn(BLOCK_TOKENS + 90, 30, generator=torch.Generator().manual_seed(1))
    explained = np.flatnonzero(np.arange(len(x)) % 7 == 2)
    assert len(explained) > 2 * DECODED_TOKENS
    room, xhat = made.queue(x, 10**6, _rows(explained))
    assert _same(room.firings(made.d_sae) or Firings.none(x), made.firings(x))
    torch.testing.assert_close(xhat, made.reconstruct(x)[explained], rtol=1e-5, atol=1e-5)
    nothing = made.queue(x, 10**6, _rows(explained[:0]))[1]
    assert len(nothing) == 0


@pytest.mark.parametrize("options", [options for options, _ in RULES.values()], ids=list(RULES))
def test_nothing_waits_for_the_device(options: dict[str, object]) -> None:
    """Tensors on `meta` have no numbers: whatever would wait for one, or for a size, raises.

    What is copied from memory that is not pinned may wait as well: no step takes a tensor of the host.
    """
    canonical, x = _on_meta(_canonical(**options)), torch.randn(700, D_SAE, device="meta")
    sae, explained = replace(_sae(), canonical=canonical), _rows(np.arange(0, 700, 20), "meta")
    with _AllThere():
        room, xhat = sae.queue(x, 1_000, explained)
    assert room.value.shape == (1_001,)
    assert xhat.shape == (35, 1)
    with pytest.raises((RuntimeError, NotImplementedError)):
        room.firings(D_SAE)
    with pytest.raises((RuntimeError, NotImplementedError)):
        (torch.randn(3, 3, device="meta") > 0).nonzero()


def test_only_what_is_on_a_cuda_device_is_queued() -> None:
    """Streams and pinned memory are CUDA's."""
    assert not _sae().queues
    assert not replace(_sae(), canonical=_on_meta(_sae().canonical)).queues


class _AllThere(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        taken = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        assert all(tensor.device.type == "meta" for tensor in taken), f"{func} takes a tensor of the host"
        return func(*args, **(kwargs or {}))


def _rows(rows: NDArray[np.int64], device: str = "cpu") -> Rows:
    return Rows(rows, torch.from_numpy(rows).to(device))


def _sae(normalisation: str = "none") -> SAE:
    rng, d_sae = torch.Generator().manual_seed(2), 80
    W_enc = torch.randn(30, d_sae, generator=rng) / 30**0.5
    canonical = _canonical(
        30, d_sae, W_enc=W_enc, W_dec=W_enc.T.contiguous(), b_dec=torch.ones(30), normalisation=normalisation,
        threshold=torch.full((d_sae,), 0.3), W_skip=torch.randn(30, 30, generator=rng),
    )  # fmt: skip
    config = SAEConfig(family="saelens", architecture="jumprelu", d_in=30, d_sae=d_sae, d_out=30, centred=False)
    return SAE(config, "f" * 64, canonical)


def _on_meta(canonical: Canonical) -> Canonical:
    def moved(value: object) -> object:
        if isinstance(value, tuple):
            return tuple(moved(v) for v in value)
        return value.to("meta") if isinstance(value, torch.Tensor) else value

    return Canonical(**{f.name: moved(getattr(canonical, f.name)) for f in fields(canonical)})
