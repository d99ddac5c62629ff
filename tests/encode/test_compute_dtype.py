"""What a lane's SAE multiplies in: measured, proposed, bound by the projector; and where that cannot be had."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from msgspec import structs

from stream_interp.detect.learning import absorb, make_projector
from stream_interp.detect.state import DetectSettings
from stream_interp.detect.step import new_lane, step
from stream_interp.encode import proposals as proposals_module
from stream_interp.encode import ways as ways_module
from stream_interp.encode.batching import Batches, add_statistics
from stream_interp.encode.encoder import begin_batch
from stream_interp.encode.lanes import LaneEntry, Lanes
from stream_interp.encode.open_cut import Work
from stream_interp.encode.proposals import Proposals
from stream_interp.encode.requests import LaneShape, Request
from stream_interp.encode.sites import load_sites
from stream_interp.encode.ways import Ways
from stream_interp.encode.window import OpenWindow
from stream_interp.errors import ComputeDtypeUnavailable, IntegrityError
from stream_interp.records.alert import Position
from stream_interp.records.consumed import Consumed
from stream_interp.records.control import read_projector
from stream_interp.records.lane import Lane
from stream_interp.records.snapshot import Snapshot, encode_snapshot
from stream_interp.records.window import FIT, SCORES, Window, decode_window, encode_window
from stream_interp.sae import load_encoder, save_saelens
from stream_interp.sae.precision import COMPUTE_DTYPES, Choice, in_dtype
from stream_interp.settings import SaeSettings, Settings, SiteSettings, UnitSettings
from tests.encode.streams import TOPIC, feed, settings, started

D_IN, D_SAE, TOKENS = 12, 40, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rng = torch.Generator().manual_seed(3)
    W_enc = torch.randn(D_IN, D_SAE, generator=rng) / D_IN**0.5
    path = tmp_path_factory.mktemp("sae")
    save_saelens(path, W_enc, torch.zeros(D_SAE), W_enc.T.contiguous(), torch.zeros(D_IN), threshold=0.8)
    return path


@pytest.fixture
def sae(folder):
    return load_encoder(folder)


@pytest.fixture
def chosen(monkeypatch):
    """The samples that were measured; bfloat16 is always the best."""
    samples: list[torch.Tensor] = []

    def choose(sae, x):
        samples.append(x)
        return Choice("bfloat16", "bfloat16 (as wanted)")

    monkeypatch.setattr(proposals_module, "choose", choose)
    return samples


def small_samples(monkeypatch, tokens: int) -> None:
    monkeypatch.setattr(proposals_module, "MEASURED_TOKENS", tokens)


@dataclass
class Encode:
    """The core of an ENCODE process with one input partition, without Kafka."""

    folder: object
    wanted: str = "auto"
    max_memory_bytes: int = 8 * 1024**3
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        given = SaeSettings(device="cpu", dtype=self.wanted, max_memory_bytes=self.max_memory_bytes)
        sites = load_sites(Settings(sae=given, sites=[SiteSettings(sae=str(self.folder))]))
        self.ways = Ways((site.sae for site in sites), given.max_memory_bytes)
        self.lanes, self.proposals = Lanes(sites, "t0", self.ways), Proposals(given.dtype, self.ways)
        self.batches, self.encoded = Batches(self._begin), list[list[Work]]()
        self.partition, self.offset = started(settings(), lanes=self.lanes), 0

    def _begin(self, sae, batch, at_most, beside):
        end_encoding = begin_batch(sae, [(work.entry.shape, work.request) for work in batch], at_most, beside)

        def end():
            stats = end_encoding()
            add_statistics(batch, stats)
            self.proposals.take(batch)
            self.encoded.append(batch)
            return stats

        return end

    def feed(self, acts: np.ndarray, hook: str = "h", special: np.ndarray | None = None) -> None:
        """Requests [n, tokens, d_in]."""
        for k, one in enumerate(acts):
            e = encode_snapshot(
                Snapshot(model_id="m", hook_name=hook, request_id=f"{self.offset + k}", acts=one,
                         acts_dtype=str(one.dtype), request_tokens=len(one),
                         special_mask=None if special is None else special[k]), 0,
            )  # fmt: skip
            feed(self.partition, [Consumed(TOPIC, 0, self.offset + k, 0, e.key, e.headers, e.value)])
        self.offset += len(acts)

    def windows(self) -> list[Window]:
        """What the open cut makes."""
        closed = self.partition.close()
        self.batches.work_off([closed.cut], [])
        if (measured := self.proposals.measure()) is not None:
            self.lines.append(measured.choice.line)
        return closed.finish(1_000)[0]


def tokens(n: int, seed: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, TOKENS, D_IN)).astype(dtype)


def test_from_the_first_tokens_to_the_projector_and_back(folder, sae, monkeypatch, chosen):
    """ENCODE measures and proposes, DETECT binds, ENCODE multiplies in it, an order to learn again ends it."""
    small_samples(monkeypatch, 60)
    encode = Encode(folder)
    lane = Lane(model_id="m", hook_name="h", sae_fingerprint=sae.fingerprint)
    state = new_lane(lane, DetectSettings(baseline_requests=200), Position(partition=0, offset=-1))
    made, projector = list[Window](), None
    for k in range(8):
        encode.feed(tokens(10, seed=k))
        for window in encode.windows():
            made.append(window)
            result = step(state, window, Position(partition=0, offset=k), 1_000 + k)
            state = result.state
            for control in result.controls:
                projector = read_projector(control)
                encode.lanes.apply(projector)
    headers = [window.header for window in made]
    assert [h.proposed_dtype for h in headers] == ["", *["bfloat16"] * 3, *[""] * 4]  # 10 requests are 60 tokens
    assert [h.compute_dtype for h in headers] == [*["float32"] * 4, *["bfloat16"] * 4]
    assert projector is not None
    assert (projector[0].compute_dtype, state.phase, state.counted) == ("bfloat16", "calibrate", 80)
    fired = in_dtype(sae, "bfloat16").firings(torch.from_numpy(tokens(10, seed=7).reshape(-1, D_IN)))
    ids = made[-1].arrays["feature_ids"]
    assert made[-1].arrays["tokens_fired"].tolist() == torch.bincount(fired.feature, minlength=D_SAE)[ids].tolist()
    assert {work.entry.sae.dtype for work in encode.encoded[-1]} == {torch.bfloat16}
    assert encode.lanes.forget(headers[0].lane.lane_id, projector[0].version + 1)
    for proposed in ("", "bfloat16"):  # measured anew: what it learns again from may be another stream
        encode.feed(tokens(10, seed=9))
        header = encode.windows()[0].header
        assert (header.projector_version, header.compute_dtype, header.proposed_dtype) == (FIT, "float32", proposed)
    assert encode.encoded[-1][0].entry.sae.dtype == torch.float32
    assert len(chosen) == 2


def test_the_real_measurement_ends_in_a_way_that_there_is(folder, monkeypatch):
    small_samples(monkeypatch, 60)
    encode = Encode(folder)
    encode.feed(tokens(10, seed=0))
    encode.windows()
    encode.feed(tokens(1, seed=1))
    (window,) = encode.windows()
    assert window.header.proposed_dtype in COMPUTE_DTYPES
    assert encode.lines[0].startswith(window.header.proposed_dtype)
    assert "tokens/s" in encode.lines[0]


def test_each_lane_is_measured_once_on_its_first_counted_tokens(folder, monkeypatch, chosen):
    small_samples(monkeypatch, 50)
    encode = Encode(folder)
    special = np.zeros((12, TOKENS), np.bool_)
    special[:, 0] = True  # 5 of 6 count
    acts = {hook: tokens(12, seed=seed, dtype="float16") for seed, hook in enumerate("ab")}
    for part in range(4):
        for hook in "ab":
            encode.feed(acts[hook][3 * part : 3 * part + 3], hook, special[:3])
        encode.windows()
    assert len(chosen) == 1  # one a turn: the other waits, and grows no more
    encode.windows()
    encode.windows()
    assert len(chosen) == 2
    assert {sample.dtype for sample in chosen} == {torch.float32}
    wanted = [acts[hook][:10, 1:].reshape(-1, D_IN).astype(np.float32) for hook in "ab"]
    assert all(any(np.array_equal(sample.numpy(), one) for sample in chosen) for one in wanted)  # in any order


def test_a_process_that_begins_in_the_middle_measures_on_what_it_sees(folder, monkeypatch, chosen):
    small_samples(monkeypatch, 12)
    first, second = Encode(folder), Encode(folder)
    first.feed(tokens(1, seed=0))
    assert first.windows()[0].header.proposed_dtype == ""
    second.feed(tokens(3, seed=1))
    second.windows()
    np.testing.assert_array_equal(chosen[0].numpy(), tokens(3, seed=1)[:2].reshape(-1, D_IN))


def test_nothing_is_proposed_once_the_projector_is_there(folder, sae, monkeypatch, chosen):
    small_samples(monkeypatch, 12)
    proposals = Proposals("auto", Ways([sae]))
    proposals.take([_work(sae, "a", 1)])
    proposals.take([_work(sae, "a", 1, projector_version=7)])
    proposals.take([_work(sae, "a", 1)])
    assert proposals.measure() is None


def _work(sae, hook: str, n: int, **shape) -> Work:
    lane = LaneShape(lane=Lane(model_id="m", hook_name=hook), **shape)
    entry = LaneEntry(lane, sae, D_IN, D_IN)
    request = Request(request_id="r", acts=tokens(n, seed=0).reshape(-1, D_IN))
    return Work(OpenWindow(lane, "float32", D_IN, D_SAE), entry, request)


def test_samples_of_many_lanes_stay_within_their_bytes_and_all_are_measured(sae, monkeypatch, chosen):
    small_samples(monkeypatch, 60)
    monkeypatch.setattr(proposals_module, "SAMPLE_BYTES", 100 * D_IN * 4)
    proposals, measured = Proposals("auto", Ways([sae])), set()
    for _ in range(60):
        for hook in "abcd":
            proposals.take([_work(sae, hook, 2)])
            assert sum(sample.bytes for sample in proposals._samples.values()) <= 100 * D_IN * 4
        if (found := proposals.measure()) is not None:
            assert found.lane_id not in measured
            measured.add(found.lane_id)
    assert len(measured) == 4


def test_a_fixed_dtype_is_proposed_at_once_and_not_measured(folder, chosen):
    for wanted in ("bfloat16", "float32"):
        encode = Encode(folder, wanted)
        encode.feed(tokens(1, seed=0))
        (window,) = encode.windows()
        assert (window.header.proposed_dtype, window.header.compute_dtype) == (wanted, "float32")
    assert chosen == []


def test_t0_lanes_propose_nothing(sae):
    proposals, work = Proposals("bfloat16", Ways([sae])), _work(None, "a", 1)
    proposals.take([work])
    assert work.window.proposed_dtype == ""


def test_a_copy_that_does_not_fit_is_not_made_and_not_proposed(folder, sae, chosen, monkeypatch):
    small_samples(monkeypatch, 6)
    no_room = sae.memory_bytes * 3 // 2 - 1
    encode = Encode(folder, max_memory_bytes=no_room)
    encode.feed(tokens(1, seed=0))
    encode.windows()
    assert chosen == []
    assert encode.lines == ["float32 (sae.max_memory_bytes has no room for a copy of the SAE)"]
    with pytest.raises(ComputeDtypeUnavailable, match=rf"bfloat16.*sae.max_memory_bytes = {no_room:,}"):
        Encode(folder, "bfloat16", max_memory_bytes=no_room)  # at its start, not when a lane is bound to it
    room = Ways([sae], no_room + 1)
    room.of(sae.fingerprint, "bfloat16")
    with pytest.raises(ComputeDtypeUnavailable):
        room.of(sae.fingerprint, "float16")


def test_a_way_is_made_once_and_shared_by_lanes(folder, sae, monkeypatch):
    made = []
    monkeypatch.setattr(ways_module, "in_dtype", lambda sae, name: made.append(name) or in_dtype(sae, name))
    encode = Encode(folder)
    entries = []
    for hook in "ab":
        encode.feed(tokens(1, seed=0), hook)
        (window,) = encode.windows()
        encode.lanes.apply(projector_of(window, "bfloat16"))
        encode.feed(tokens(1, seed=0), hook)
        encode.windows()
        entries.append(encode.encoded[-1][0].entry)
    assert made == ["bfloat16"]
    assert entries[0].sae is entries[1].sae
    assert encode.ways.made_bytes == entries[0].sae.memory_bytes < sae.memory_bytes


def projector_of(window: Window, compute_dtype: str, version: int = 5):
    """As DETECT would make it of the window, but bound to this dtype."""
    made = make_projector(absorb(None, window, at_ms=0, offset=0), window.header.lane, version, UnitSettings())
    header, arrays = read_projector(made)
    return structs.replace(header, compute_dtype=compute_dtype), arrays


@pytest.mark.parametrize("size", [1e4, 1e5, 1e14])
@pytest.mark.parametrize("way", COMPUTE_DTYPES)
def test_one_request_beyond_float16_leaves_its_window_readable(folder, way, size):
    """Or one such request a window would be enough for nobody to judge the lane."""
    encode = Encode(folder)
    encode.feed(tokens(5, seed=0))
    (window,) = encode.windows()
    encode.lanes.apply(projector_of(window, way))
    encode.feed(tokens(5, seed=1))
    encode.feed(tokens(1, seed=2) * np.float32(size))
    (window,) = encode.windows()
    read = decode_window(b"".join(part.value for part in encode_window(window)))
    assert read.header.requests == 6
    assert all(np.isfinite(total) for total in structs.asdict(read.header.sums).values())
    assert all(np.isfinite(array).all() for name, array in read.arrays.items() if name != "request_scores")
    assert np.isfinite(read.arrays["request_scores"][:, SCORES.index("error_share")]).all()


@pytest.mark.parametrize("name", ["surprise", "cap", "mean"])
def test_a_projector_whose_arrays_are_of_other_lengths_is_not_used(folder, name):
    """The first request of the lane would end the process, and that of each one started after it."""
    encode = Encode(folder)
    encode.feed(tokens(5, seed=0))
    (window,) = encode.windows()
    header, arrays = projector_of(window, "float32")
    projector = header, arrays | {name: arrays[name][:-1]}
    with pytest.raises(IntegrityError, match=rf"{name}': \[{len(arrays[name]) - 1}\]"):
        encode.lanes.apply(projector)
    started_after = Encode(folder)
    started_after.lanes.apply(projector)
    for one in (encode, started_after):
        one.feed(tokens(3, seed=1))
        (window,) = one.windows()
        assert (window.header.requests, window.header.projector_version) == (3, FIT)


@pytest.mark.parametrize("known", [True, False])
def test_a_lane_bound_to_what_cannot_be_had_is_not_encoded_and_every_request_accounted_for(folder, caplog, known):
    """Whether the projector or the lane's first snapshot comes first."""
    teacher = Encode(folder)
    teacher.feed(tokens(5, seed=0))
    (window,) = teacher.windows()
    encode = teacher if known else Encode(folder)
    with caplog.at_level(logging.WARNING):
        encode.lanes.apply(projector_of(window, "float8"))
        encoded = len(encode.encoded)
        for part in range(2):
            encode.feed(tokens(4, seed=1 + part))
    closed = encode.partition.close()
    encode.batches.work_off([closed.cut], [])
    (left_out,), cut = closed.finish(1)
    assert len(encode.encoded) == encoded
    header = left_out.header
    assert (header.requests, header.not_counted, header.projector_version) == (0, {"dtype_unavailable": 8}, 5)
    assert (cut.counted_records, cut.not_counted, cut.records) == (0, {"dtype_unavailable": 8}, 8)
    assert [r.lane_id for r in caplog.records] == [header.lane.lane_id]
    assert "float8" in caplog.text
    encode.lanes.apply(projector_of(window, "float32", version=6))
    encode.feed(tokens(3, seed=4))
    (heard,) = encode.windows()
    assert (heard.header.requests, heard.header.not_counted) == (3, {})


def test_no_memory_for_a_copy_is_a_way_that_cannot_be_had(sae, monkeypatch):
    def full(sae, name):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(ways_module, "in_dtype", full)
    with pytest.raises(ComputeDtypeUnavailable, match="no memory"):
        Ways([sae]).of(sae.fingerprint, "bfloat16")


def test_a_way_that_is_emulated_here_cannot_be_had(sae, monkeypatch):
    monkeypatch.setattr(ways_module, "is_emulated", lambda _sae, compute_dtype: compute_dtype == "bfloat16")
    ways = Ways([sae])
    with pytest.raises(ComputeDtypeUnavailable, match="emulated here"):
        ways.of(sae.fingerprint, "bfloat16")
    assert ways.of(sae.fingerprint, "float16").dtype == torch.float16
