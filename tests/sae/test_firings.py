"""What fires, in tiles and blocks, against dense rules row by row; a row never depends on its neighbours."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from stream_interp.sae import activation
from stream_interp.sae.activation import TILE_FEATURES, TILE_FEATURES_TOP_K, fire
from stream_interp.sae.blocks import BLOCK_TOKENS
from stream_interp.sae.canonical import Canonical
from stream_interp.sae.decoding import decode_dense, decode_fired
from stream_interp.sae.firings import Firings, TooManyFirings, by_token, entries_above

D_SAE = 1_800  # two tiles, the second narrower; a multiple of 12, 75 and 900
Rule = Callable[[torch.Tensor], torch.Tensor]


def _pre(n: int = BLOCK_TOKENS + 17) -> torch.Tensor:
    pre = torch.randn(n, D_SAE, generator=torch.Generator().manual_seed(3))
    pre[:, 7] = 0.5  # exactly on the threshold
    pre[5 % n] = -1.0  # nothing fires
    return pre


def _canonical(d_in: int = D_SAE, d_sae: int = D_SAE, dtype: torch.dtype = torch.float32, **more: object) -> Canonical:
    """Of the identity, so that inputs are pre-activations exactly; or random where d_in differs from d_sae."""
    generator = torch.Generator().manual_seed(d_in)
    W_enc = torch.eye(d_in) if d_in == d_sae else torch.randn(d_in, d_sae, generator=generator) / d_in**0.5
    parts: dict[str, object] = {
        "W_enc": W_enc.to(dtype), "b_enc": torch.zeros(d_sae, dtype=dtype), "W_dec": torch.zeros(d_sae, 1, dtype=dtype),
        "threshold": torch.zeros(d_sae, dtype=dtype), "b_dec": torch.zeros(1, dtype=dtype), "W_skip": None,
        "magnitude": None, "k": None, "grouped": False, "normalisation": "none",
    }  # fmt: skip
    return Canonical(**(parts | more))  # type: ignore[arg-type]


_EACH = torch.linspace(-1, 2, D_SAE).index_fill(0, torch.tensor([7]), 0.5)
_GAIN, _OFFSET = torch.linspace(-1, 2, 2 * D_SAE).view(2, D_SAE)


def _top(pre: torch.Tensor, k: int) -> torch.Tensor:
    kept = torch.zeros_like(pre)
    for row, out in zip(pre, kept, strict=True):
        largest = row.argsort(descending=True)[:k]
        out[largest] = row[largest].relu()
    return kept


RULES: dict[str, tuple[dict[str, object], Rule]] = {
    "above each": ({"threshold": _EACH}, lambda p: torch.where(p > _EACH, p, 0.0)),
    "above one": ({"threshold": torch.full((D_SAE,), 0.5)}, lambda p: torch.where(p > 0.5, p, 0.0)),
    "relu": ({}, torch.relu),
    "nothing": ({"threshold": torch.full((D_SAE,), 99.0)}, torch.zeros_like),
    "gated": (
        {"threshold": _EACH, "magnitude": (_GAIN, _OFFSET)},
        lambda p: torch.where(p > _EACH, (p * _GAIN + _OFFSET).relu(), 0.0),
    ),
    "top 31": ({"k": 31}, lambda p: _top(p, 31)),
    "top 1": ({"k": 1}, lambda p: _top(p, 1)),
    "top all": ({"k": D_SAE}, torch.relu),
    "groups of 150": (
        {"k": 12, "grouped": True}, lambda p: torch.cat([_top(g, 1) for g in p.split(150, dim=1)], 1)
    ),
    "groups wider than a tile": ({"k": 1, "grouped": True}, lambda p: _top(p, 1)),
    "groups of 2": ({"k": 900, "grouped": True}, lambda p: torch.cat([_top(g, 1) for g in p.split(2, dim=1)], 1)),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_what_fires_equals_the_dense_rule(rule: str) -> None:
    options, dense = RULES[rule]
    pre, canonical = _pre(), _canonical(**options)
    fired = fire(canonical, pre)
    assert torch.equal(fired.dense(*pre.shape), dense(pre))
    assert (fired.value != 0).all()
    place = fired.token * D_SAE + fired.feature
    assert (place.diff() > 0).all()  # by token, then feature, none twice
    if rule != "groups of 2" and rule != "gated":
        assert not (fired.token == 5).any() or rule == "above each"


@pytest.mark.parametrize("rule", ["above each", "gated", "top 31", "groups of 150"])
def test_nan_is_kept_visible(rule: str) -> None:
    """A diagonal of ones and zeros would spread it over its row: 0 · NaN."""
    options, _ = RULES[rule]
    pre = _pre()
    pre[3, 4] = float("nan")
    fired = fire(_canonical(**options), pre)
    assert fired.value[fired.token == 3].isnan().any()
    assert not fired.value[fired.token != 3].isnan().any()


@pytest.mark.parametrize("k", [1, 31, 2_000])
@pytest.mark.parametrize("width", [3, 1_000, 2 * TILE_FEATURES_TOP_K + 5])
def test_top_k_of_many_tiles_and_of_few_entries(k: int, width: int) -> None:
    """Integers are exact in any order; ties are many, and of equal entries the first counts."""
    generator = torch.Generator().manual_seed(k)
    W_enc = torch.randint(-9, 9, (2, width), generator=generator).float()
    x = torch.randint(-3, 4, (BLOCK_TOKENS + 3, 2), generator=generator).float()
    pre, k = x @ W_enc, min(k, width)
    expected = torch.zeros_like(pre)
    for row, out in zip(pre, expected, strict=True):
        largest = row.argsort(descending=True, stable=True)[:k]
        out[largest] = row[largest].relu()
    assert torch.equal(fire(_canonical(2, width, W_enc=W_enc, k=k), x).dense(*pre.shape), expected)


def test_top_k_selects_before_relu() -> None:
    negative = torch.tensor([[-3.0, 2.0, -1.0, 0.0]])
    assert fire(_canonical(4, 4, k=3), negative).dense(1, 4).tolist() == [[0.0, 2.0, 0.0, 0.0]]


@pytest.mark.parametrize("n", [0, 1, BLOCK_TOKENS - 1, BLOCK_TOKENS, BLOCK_TOKENS + 1])
@pytest.mark.parametrize("d_sae", [1, 5, 17, TILE_FEATURES, TILE_FEATURES + 1])
@pytest.mark.parametrize("more", [{}, {"k": 1}, {"k": 1, "grouped": True}], ids=["relu", "top 1", "one group"])
def test_every_size_of_batch_and_sae(n: int, d_sae: int, more: dict[str, object]) -> None:
    """Padding fires nowhere, though its pre-activations are the biases."""
    canonical = _canonical(3, d_sae, b_enc=torch.ones(d_sae), **more)
    x = torch.randint(-2, 3, (n, 3), generator=torch.Generator().manual_seed(1)).float()
    canonical = _canonical(3, d_sae, W_enc=canonical.W_enc.mul(4).round(), b_enc=torch.ones(d_sae), **more)
    pre = x @ canonical.W_enc + 1  # small integers: exact in any order
    fired = fire(canonical, x)
    found = fired.dense(n, d_sae)
    assert torch.equal(found, pre.relu()) if not more else torch.equal(found.sum(1), pre.relu().amax(1))
    assert len(fired.value) == int((found != 0).sum())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("rule", ["above each", "gated", "top 31"])
def test_other_dtypes(dtype: torch.dtype, rule: str) -> None:
    options, dense = RULES[rule]
    pre, as_dtype = _pre(40).to(dtype), {}
    for name, value in options.items():
        tensors = value if isinstance(value, tuple) else (value,)
        converted = tuple(t.to(dtype) if isinstance(t, torch.Tensor) else t for t in tensors)
        as_dtype[name] = converted if isinstance(value, tuple) else converted[0]
    fired = fire(_canonical(dtype=dtype, **as_dtype), pre)
    assert fired.value.dtype == dtype
    if rule == "top 31":  # equal values are many
        assert torch.equal(fired.value, dense(pre)[fired.token, fired.feature]) or dtype != torch.float64
        return
    each, gain, offset = _EACH.to(dtype), _GAIN.to(dtype), _OFFSET.to(dtype)
    expected = torch.where(pre > each, pre if rule == "above each" else (pre * gain + offset).relu(), 0.0)
    assert torch.equal(fired.dense(*pre.shape), expected)


@pytest.mark.parametrize("d_in", [64, 576, 2_304])
@pytest.mark.parametrize("more", [{"threshold": torch.full((2_000,), 1.0)}, {"k": 20}], ids=["threshold", "top k"])
def test_a_row_never_depends_on_its_neighbours(d_in: int, more: dict[str, object]) -> None:
    canonical, n = _canonical(d_in, 2_000, **more), 2 * BLOCK_TOKENS + 100
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(n, d_in, generator=generator)
    whole, order = fire(canonical, x).dense(n, 2_000), torch.randperm(n, generator=generator)
    threads = torch.get_num_threads()
    try:
        for others in (1, 3):
            torch.set_num_threads(others)
            assert torch.equal(fire(canonical, x).dense(n, 2_000), whole)
            assert torch.get_num_threads() == others
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(fire(canonical, x[order]).dense(n, 2_000), whole[order])
    for start, end in ((0, 1), (7, 30), (BLOCK_TOKENS - 3, n)):
        assert torch.equal(fire(canonical, x[start:end]).dense(end - start, 2_000), whole[start:end])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(0, 8), (1, 1), (1, 7), (3, 8), (5, 64), (7, 13), (40, 1_536)], ids=str)
@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
def test_entries_above_are_those_not_below(dtype: torch.dtype, shape: tuple[int, int], share: float) -> None:
    generator = torch.Generator().manual_seed(1)
    pre, threshold = torch.rand(shape, generator=generator).to(dtype), torch.full(shape[1:], 1 - share).to(dtype)
    if pre.numel():
        pre[-1, -1] = float("nan")
    token, feature = (~(pre <= threshold)).nonzero(as_tuple=True)
    found = entries_above(pre, threshold)
    assert torch.equal(found.token, token)
    assert torch.equal(found.feature, feature)
    assert torch.equal(found.value.nan_to_num(-1), pre[token, feature].nan_to_num(-1))


def test_too_many_firings_end_it_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten blocks in which everything fires: it is found out in the first, with one more under way."""
    done: list[int] = []
    tile = activation._Tiles.of

    def counted(self: activation._Tiles, unit: tuple[torch.Tensor, int, int]) -> Firings:
        done.append(unit[2])
        return tile(self, unit)

    monkeypatch.setattr(activation._Tiles, "of", counted)
    canonical, x = _canonical(3, D_SAE, b_enc=torch.ones(D_SAE)), torch.zeros(10 * BLOCK_TOKENS, 3)
    with pytest.raises(TooManyFirings):
        fire(canonical, x, at_most=BLOCK_TOKENS * D_SAE - 1)
    assert len(done) <= 2 * 2  # tiles a block
    assert len(fire(canonical, x[:2], at_most=2 * D_SAE).token) == 2 * D_SAE
    with pytest.raises(TooManyFirings):
        fire(canonical, x[:2], at_most=2 * D_SAE - 1)


def test_by_token_keeps_the_order_within_a_token() -> None:
    token = torch.tensor([0, 2, 70_000, 0, 1, 2])
    parts = [Firings(token[:3], torch.arange(3), torch.ones(3)), Firings(token[3:], torch.arange(3), torch.zeros(3))]
    wide, narrow = by_token(parts, 70_001), by_token([p._replace(token=p.token.clamp_max(9)) for p in parts], 10)
    assert wide.token.tolist() == [0, 0, 1, 2, 2, 70_000]
    assert narrow.feature.tolist() == wide.feature.tolist() == [0, 0, 1, 1, 2, 2]
    assert narrow.value.tolist() == [1, 0, 0, 1, 0, 1]


@pytest.mark.parametrize("threshold", [-10.0, 0.0, 1.0, 2.5, 9.0], ids=lambda t: f"above_{t}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparse_decode_equals_dense(threshold: float, dtype: torch.dtype) -> None:
    acts = torch.where(_pre() > threshold, _pre(), 0.0).to(dtype)
    generator = torch.Generator().manual_seed(1)
    W_dec, b_dec = torch.randn(D_SAE, 33, generator=generator).to(dtype), torch.randn(33, generator=generator).to(dtype)
    sparse = decode_fired(Firings.of(acts), len(acts), W_dec, b_dec)
    torch.testing.assert_close(sparse, decode_dense(acts, W_dec, b_dec), rtol=1e-4, atol=1e-4)


def test_sparse_decode_of_a_row_ignores_the_other_rows() -> None:
    acts, W_dec, b_dec = _pre().relu(), torch.randn(D_SAE, 33), torch.randn(33)
    fired, order = Firings.of(acts), torch.randperm(len(acts))
    whole = decode_fired(fired, len(acts), W_dec, b_dec)
    assert torch.equal(decode_fired(Firings.of(acts[order]), len(acts), W_dec, b_dec), whole[order])
    chosen = torch.arange(len(acts)) % 20 == 3
    few = fired.of_tokens(chosen)
    assert torch.equal(few.dense(int(chosen.sum()), D_SAE), acts[chosen])
    assert torch.equal(decode_fired(few, int(chosen.sum()), W_dec, b_dec), whole[chosen])
