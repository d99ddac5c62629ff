"""A batch whose part on a device is queued: the windows are those of the CPU, and only the end waits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stream_interp.encode import on_device
from stream_interp.encode.encoder import begin_batch, encode_batch
from stream_interp.encode.on_device import begin, link_to
from stream_interp.encode.requests import LaneShape, Request
from stream_interp.encode.tokens import Item, Tokens
from stream_interp.encode.window import OpenWindow
from stream_interp.records.lane import Lane
from stream_interp.records.window import CutRef, Window
from stream_interp.sae import load_encoder, save_saelens
from stream_interp.sae.encoder import SAE
from stream_interp.sae.firings import TooManyFirings
from stream_interp.sae.threads import one_thread_each

D_IN, D_SAE, REQUESTS = 24, 300, 60
SHAPE = LaneShape(
    lane=Lane(model_id="m", hook_name="h"), massive="off", projector_version=5, unit_tokens=8, error_every=3
)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Beside:
    """The host's own memory as the device's; counts what the host waits for."""

    waits = 0

    def up(self, host: torch.Tensor) -> torch.Tensor:
        return host

    def down(self, there: torch.Tensor):
        def wait() -> torch.Tensor:
            self.waits += 1
            return there

        return wait


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small integers: sums of them are exact in any order."""
    rng, path = torch.Generator().manual_seed(3), tmp_path_factory.mktemp("sae")
    W_enc, W_dec = (torch.randint(-2, 3, s, generator=rng).float() for s in ((D_IN, D_SAE), (D_SAE, D_IN)))
    save_saelens(path, W_enc, torch.full((D_SAE,), -9.0), W_dec, torch.ones(D_IN), threshold=4.0)
    return path


@pytest.fixture
def queued(monkeypatch):
    """Every SAE as if it were on a device."""
    link = Beside()
    monkeypatch.setattr(SAE, "queues", property(lambda _: True))
    monkeypatch.setattr(on_device, "link_to", lambda _: link)
    return link


def items(seed: int = 0, tokens: tuple[int, int] = (1, 60)) -> list[Item]:
    rng = np.random.default_rng(seed)
    acts = [rng.integers(-3, 4, (rng.integers(*tokens), D_IN)).astype(np.float16) for _ in range(REQUESTS)]
    return [(SHAPE, Request(request_id=f"{k}", acts=of)) for k, of in enumerate(acts)]


def window_of(sae: SAE, of: list[Item], batch: int) -> Window:
    window = OpenWindow(SHAPE, "float16", D_IN, sae.d_sae)
    for start in range(0, len(of), batch):
        window.add(encode_batch(sae, of[start : start + batch]))
    return window.close(CutRef(topic="t", partition=0, a=0, b=1), 1)


def same(one: Window, other: Window) -> bool:
    assert one.header == other.header
    assert one.arrays.keys() == other.arrays.keys()
    return all(np.array_equal(array, other.arrays[name], equal_nan=True) for name, array in one.arrays.items())


@pytest.mark.parametrize("batch", [1, 7, REQUESTS])
def test_windows_are_those_of_the_cpu(folder, monkeypatch, batch):
    sae, own = load_encoder(folder), items()
    expected, link = window_of(sae, own, REQUESTS), Beside()
    monkeypatch.setattr(SAE, "queues", property(lambda _: True))
    monkeypatch.setattr(on_device, "link_to", lambda _: link)
    found = window_of(sae, own, batch)
    assert found.header.sums.err_sq_sum > 0
    assert same(found, expected)
    assert link.waits == -(-REQUESTS // batch)  # once a batch


def test_the_host_waits_at_the_end_alone(folder, queued):
    with one_thread_each():
        end = begin_batch(load_encoder(folder), items(), 10**6, None)
        assert queued.waits == 0
        end()
    assert queued.waits == 1


def test_more_than_there_is_room_for(folder, queued, monkeypatch):
    sae, own = load_encoder(folder), items(tokens=(8, 9))
    with pytest.raises(TooManyFirings):
        encode_batch(sae, own, at_most=100)
    whole = window_of(sae, own, REQUESTS)
    monkeypatch.setattr(on_device, "_ALONE", 100)
    assert same(window_of(sae, own, REQUESTS), whole)


def test_a_request_has_the_same_errors_whether_it_found_room_at_once_or_not(tmp_path, queued, monkeypatch):
    """In a batch there may be room for what is too much for a request alone: it is decoded in one way."""
    rng = torch.Generator().manual_seed(4)
    W = torch.randn(D_IN, D_SAE, generator=rng)
    save_saelens(tmp_path, W, torch.ones(D_SAE), W.T.contiguous(), torch.zeros(D_IN), threshold=0.1)
    sae, own = load_encoder(tmp_path), items()
    with_room = encode_batch(sae, own)
    monkeypatch.setattr(on_device, "_ALONE", 100)
    assert np.array_equal(encode_batch(sae, own).sums, with_room.sums)


@pytest.mark.gpu
@needs_cuda
def test_nothing_synchronises_within_a_batch(folder):
    sae = load_encoder(folder, device="cuda")
    encode_batch(sae, items())  # whatever is done once
    tokens = Tokens.of(items(), sae.explains)
    torch.cuda.set_sync_debug_mode("error")
    try:
        end = begin(sae, tokens, 10**6, link_to(sae.device))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert end() is not None


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("batch", [1, 7, REQUESTS])
def test_windows_of_cuda_are_those_of_the_cpu(folder, batch):
    own = items()
    assert same(window_of(load_encoder(folder, device="cuda"), own, batch), window_of(load_encoder(folder), own, batch))


@pytest.mark.gpu
@needs_cuda
def test_firings_of_cuda_are_those_of_float64(tmp_path):
    rng, d_in, d_sae = torch.Generator().manual_seed(1), 576, 4_608
    W_enc = torch.randn(d_in, d_sae, generator=rng) / d_in**0.5
    save_saelens(tmp_path, W_enc, torch.zeros(d_sae), W_enc.T.contiguous(), torch.zeros(d_in), threshold=2.5)
    x = torch.randn(3_000, d_in, generator=rng)
    wide, cuda = load_encoder(tmp_path), load_encoder(tmp_path, device="cuda").firings(x).cpu()
    c = wide.canonical
    pre = torch.addmm(c.b_enc.double(), x.double(), c.W_enc.double())
    clear = (pre - c.threshold.double()).abs() > 1e-4  # beyond what float32 rounds
    found = cuda.dense(len(x), d_sae)
    assert torch.equal((found != 0)[clear], (pre > c.threshold)[clear])
    torch.testing.assert_close(found.double()[clear], pre.where(pre > c.threshold, 0.0)[clear], rtol=1e-5, atol=1e-5)
