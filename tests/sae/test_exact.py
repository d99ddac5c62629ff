"""`exact`: what fires is what the routine says of every entry, whatever the screen, the batch and the neighbours."""

from __future__ import annotations

import dataclasses
import resource

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_interp import sae
from stream_interp.errors import ComputeDtypeUnavailable
from stream_interp.sae import int8
from stream_interp.sae.canonical import Canonical
from stream_interp.sae.exact import TILE_FEATURES, Exact, Tokens
from stream_interp.sae.firings import Firings, TooManyFirings
from stream_interp.sae.precision import in_dtype

from .conftest import Write

needs_int8 = pytest.mark.skipif(not int8.available(), reason="no exact kernel for integers on this machine")


def _canonical(d_in: int, d_sae: int, seed: int = 0, *, l0_share: float = 0.02, gated: bool = False) -> Canonical:
    """For `_tokens`. Columns of very different sizes, as trained ones have them; one is dead, one of zeros."""
    rng = torch.Generator().manual_seed(seed)
    W_enc = torch.randn(d_in, d_sae, generator=rng) * torch.rand(d_sae, generator=rng).mul(6).exp() / 50
    W_enc[:, 3] = 0.0
    W_enc[0] /= 30
    size = W_enc.norm(dim=0)
    threshold = size * float(torch.distributions.Normal(0, 1).icdf(torch.tensor(1 - l0_share)))
    threshold[5] = torch.inf
    b_enc = torch.randn(d_sae, generator=rng) * size / 10 - 100 * W_enc[0] + (20 * W_enc[1] if d_in > 1 else 0)
    magnitude = (torch.full((d_sae,), 1.5), -0.5 * size) if gated else None
    return Canonical(
        W_enc=W_enc, b_enc=b_enc, threshold=threshold, W_dec=None, b_dec=None,
        W_skip=None, magnitude=magnitude, k=None, grouped=False, normalisation="none",
    )  # fmt: skip


def _tokens(n: int, d_in: int, seed: int = 1) -> torch.Tensor:
    """A few dimensions far out and far from 0, and some tokens a hundred times as large as the others."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d_in, generator=rng)
    x[:, 0] = x[:, 0] * 30 + 100
    x[:, 1] -= 20
    x[torch.rand(n, generator=rng) < 0.01] *= 100
    return x


def _twin(exact: Exact, z: torch.Tensor, d_sae: int) -> Firings:
    """Every entry through the routine, a tile and a thousand tokens at a time."""
    acts = torch.zeros(len(z), d_sae)
    for start in range(0, d_sae, TILE_FEATURES):
        width = min(TILE_FEATURES, d_sae - start)
        for row in range(0, len(z), 1_000):
            part = z[row : row + 1_000]
            fired = exact.decide(Tokens.of(part), start, np.arange(len(part) * width))
            acts[row + fired.token, fired.feature] = fired.value
    return Firings.of(acts)


def _same(one: Firings, other: Firings) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def _in_parts(exact: Exact, x: torch.Tensor, size: int) -> Firings:
    parts = [(i, exact.fire(part)) for i, part in enumerate(torch.split(x, size))]
    moved = [fired._replace(token=fired.token + i * size) for i, fired in parts]
    return Firings(*map(torch.cat, zip(*moved, strict=True)))


@needs_int8
@pytest.mark.parametrize("gated", [False, True])
def test_the_twin_bit_for_bit(gated: bool) -> None:
    d_sae = TILE_FEATURES + 300
    canonical, x = _canonical(40, d_sae, gated=gated), _tokens(2_500, 40)
    exact = Exact(canonical)
    fired = exact.fire(x)
    assert 10_000 < len(fired.token) < 0.05 * len(x) * d_sae
    assert 0 < exact.outside < 0.2 * len(x)  # both ways were taken
    assert _same(fired, _twin(exact, x, d_sae))


@needs_int8
def test_batches_and_screens_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    canonical, x = _canonical(40, 500), _tokens(2_500, 40)
    fired = Exact(canonical).fire(x)
    assert _same(_in_parts(Exact(canonical), x, 100), fired)  # too few tokens at once to set scales by
    assert _same(_in_parts(Exact(canonical), x, 700), fired)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    shuffled = Exact(canonical).fire(x[order]).dense(len(x), 500)
    assert torch.equal(shuffled[order.argsort()], fired.dense(len(x), 500))
    monkeypatch.setattr(int8, "available", lambda: False)
    assert _same(Exact(canonical).fire(x), fired)


@needs_int8
def test_a_million_tokens_with_near_ties_are_decided_as_the_twin_does() -> None:
    """A third of the tokens are scaled so that a feature comes within rounding of its threshold, some are huge."""
    d_in, d_sae, n, tied = 24, 40, 100_000, 0
    canonical = _canonical(d_in, d_sae, l0_share=0.1)
    exact, differs = Exact(canonical), 0
    finite = canonical.threshold.isfinite() & (canonical.W_enc.norm(dim=0) > 0)
    features = finite.nonzero().view(-1)
    for seed in range(11):
        z = _tokens(n, d_in, seed)
        j = features[torch.randint(len(features), (n,), generator=torch.Generator().manual_seed(seed))]
        factor = (canonical.threshold[j] - canonical.b_enc[j]).double() / (z.double() * canonical.W_enc[:, j].T).sum(1)
        chosen = (torch.arange(n) % 3 == 0) & (factor > 0.01) & (factor < 100)
        z[chosen] = (z[chosen].double() * factor[chosen, None]).float()
        tied += int(chosen.sum())
        fired = exact.fire(z)
        assert _same(fired, _twin(exact, z, d_sae))
        plain = (z @ canonical.W_enc + canonical.b_enc) > canonical.threshold
        off = (plain != (fired.dense(n, d_sae) != 0)).nonzero()
        differs += len(off)
        assert (_distance(canonical, z, off) <= _rounding(canonical, z, off)).all()
    assert tied > 100_000
    assert 0 < differs < tied  # of ties, rounding decides by chance


def _distance(canonical: Canonical, z: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
    token, feature = entries.unbind(1)
    pre = (z[token].double() * canonical.W_enc[:, feature].T).sum(1) + canonical.b_enc[feature]
    return (pre - canonical.threshold[feature]).abs()


def _rounding(canonical: Canonical, z: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
    """Of a sum in float32: n·2^-24·Σ|z·W| at most."""
    token, feature = entries.unbind(1)
    size = (z[token].double() * canonical.W_enc[:, feature].T).abs().sum(1)
    size += canonical.b_enc[feature].abs() + canonical.threshold[feature].abs()
    return size * (z.shape[1] + 4) * 2.0**-24


@needs_int8
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_screen_never_rules_out_what_fires(data: st.DataObject) -> None:
    """Scales taken from some tokens, put to others: as large as its bound, larger, tiny, zeros."""
    seed = data.draw(st.integers(0, 10_000))
    d_in, d_sae = data.draw(st.integers(1, 70)), data.draw(st.integers(6, 90))
    canonical = _canonical(d_in, d_sae, seed, l0_share=data.draw(st.sampled_from([0.001, 0.1, 0.5, 0.9])))
    sample = torch.randn(64, d_in, generator=torch.Generator().manual_seed(seed)) * data.draw(
        st.sampled_from([1e-3, 1, 1e3])
    )
    less_threshold = canonical.b_enc.double() - canonical.threshold
    screen = int8.screen(canonical.W_enc.T.contiguous(), less_threshold, sample, tile=32)
    assert screen is not None
    factor = 10 ** (6 * torch.rand(64, 1, generator=torch.Generator().manual_seed(seed)) - 4)
    x = torch.cat([sample, sample.flip(0) * factor, torch.zeros(1, d_in)])
    q, inside = screen.rounded(x)
    may_fire = np.concatenate([screen.above(q, start) for start in range(0, d_sae, 32)], axis=1) > 0
    fires = x.double() @ canonical.W_enc.double() + less_threshold > 0
    assert inside[:32].any()
    assert not (fires & inside[:, None] & ~torch.from_numpy(may_fire)).any()


def test_a_tie_does_not_fire_and_more_does() -> None:
    canonical = dataclasses.replace(
        _canonical(4, 8), W_enc=torch.ones(4, 8), b_enc=torch.zeros(8), threshold=torch.full((8,), 10.0)
    )
    x = torch.tensor([[1.0, 2, 3, 4], [1, 2, 3, 4.000001], [16_777_216, 1, -16_777_216, 9.000001]])
    assert Exact(canonical).fire(x).token.tolist() == [1] * 8 + [2] * 8  # float32 sums lose the 1


def test_what_is_not_finite_is_seen() -> None:
    canonical, x = _canonical(8, 30), torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
    x[7, 2], x[9, 3] = torch.nan, torch.inf
    fired = Exact(canonical).fire(x)
    assert fired.value[fired.token == 7].isnan().all()
    assert (fired.token == 7).sum() == 30
    kept = torch.isin(fired.token, torch.tensor([7, 9]), invert=True)
    others = torch.isin(torch.arange(600), torch.tensor([7, 9]), invert=True)
    rest = Exact(canonical).fire(x[others])
    assert torch.equal(fired.value[kept], rest.value)


def test_firings_are_bounded() -> None:
    canonical = dataclasses.replace(_canonical(8, 30), threshold=torch.full((30,), -1e9))
    with pytest.raises(TooManyFirings):
        Exact(canonical).fire(torch.zeros(5_120, 8), at_most=512 * 30 - 1)


def _plain(W_enc: torch.Tensor, bias: torch.Tensor, threshold: torch.Tensor) -> Canonical:
    return dataclasses.replace(_canonical(*W_enc.shape), W_enc=W_enc, b_enc=bias, threshold=threshold)


@pytest.mark.parametrize("size", [0.0, 1e-40])
def test_tokens_at_which_every_feature_ties_take_no_more_memory(size: float) -> None:
    """Such as padding, where an SAE has no bias; entries one by one in float64 would be n·d_sae·d_in numbers."""
    d_in, d_sae = 256, 1_152
    exact = Exact(_plain(torch.randn(d_in, d_sae), torch.zeros(d_sae), torch.zeros(d_sae)))
    exact.fire(torch.randn(512, d_in))
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fired = exact.fire(torch.full((512, d_in), size))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 500_000
    assert (size == 0) == (len(fired.token) == 0)


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e20])
def test_tokens_whose_squares_float32_does_not_hold(size: float) -> None:
    """A tie of each token, which float32 decides by chance."""
    d_in, n = 40, 400
    rng = torch.Generator().manual_seed(0)
    W_enc, x = torch.randn(d_in, n, generator=rng), torch.randn(n, d_in, generator=rng) * size
    at_tie = (x.double() @ W_enc.double()).diagonal()
    canonical = _plain(W_enc, -at_tie.float(), torch.zeros(n))
    fired = Exact(canonical).fire(x).dense(n, n) != 0
    gap = at_tie + canonical.b_enc.double()
    assert torch.equal(fired.diagonal(), gap > 0)


def test_weights_that_float32_hardly_holds() -> None:
    """No sum of integers stands for them."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(400, 8, generator=rng) * 1e10
    W_enc = torch.randn(8, 30, generator=rng)
    for size in (1e15, 1e25, 1e28):
        exact = Exact(_plain(W_enc * size, torch.zeros(30), torch.full((30,), -torch.inf)))
        assert len(exact.fire(x).token) == 400 * 30
    exact = Exact(_plain(W_enc * 1e30, torch.zeros(30), torch.zeros(30)))
    assert _same(exact.fire(x), _twin(exact, x, 30))


@needs_int8
def test_no_screen_where_integers_would_overflow() -> None:
    W_rows, sample = torch.ones(4, 40_000), torch.randn(300, 40_000, generator=torch.Generator().manual_seed(0))
    assert int8.screen(W_rows, torch.zeros(4, dtype=torch.float64), sample, tile=4) is None


@needs_int8
def test_scales_follow_a_shift() -> None:
    canonical, exact = _canonical(40, 200), Exact(_canonical(40, 200))
    exact.fire(_tokens(2_000, 40))
    shifted = _tokens(10_000, 40, seed=2) * 30
    exact.fire(shifted)
    assert exact.outside > 5_000
    exact.fire(shifted)
    assert exact.outside < 1_000
    assert _same(exact.fire(shifted), Exact(canonical).fire(shifted))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_is_of_a_cpu(write: Write) -> None:
    with pytest.raises(ComputeDtypeUnavailable, match="works on a CPU"):
        in_dtype(sae.load(write(), device="cuda"), "exact")
