"""`encode_batch` and `OpenWindow` against loops over requests, tokens and features."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from stream_interp.encode.encoder import encode_batch
from stream_interp.encode.requests import LaneShape, Request, shape_of
from stream_interp.encode.window import OpenWindow
from stream_interp.records.arrays import write_tensors
from stream_interp.records.control import ProjectorHeader
from stream_interp.records.lane import Lane
from stream_interp.records.lengths import BINS, length_bins
from stream_interp.records.moments import unpack_scatter
from stream_interp.records.window import SCORES, STRATUM_ARRAYS, CutRef, decode_window, encode_window, stratum_of
from tests.encode.slow_twin import IntegerSAE, twin

CUT = CutRef(topic="t", partition=0, a=0, b=9)
D_IN, D_SAE = 5, 17


def make_requests(n: int, d_in: int = D_IN, d_out: int | None = None, *, seed: int = 0, special: bool = False):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        tokens = int(rng.integers(1, 9))
        acts = rng.integers(-4, 5, (tokens, d_in)).astype(np.float16)
        out = None if d_out is None else rng.integers(-4, 5, (tokens, d_out)).astype(np.float16)
        made.append((acts, rng.random(tokens) < 0.4 if special else None, out))
    return made


def shape(**more) -> LaneShape:
    return LaneShape(lane=Lane(model_id="m", hook_name="h"), **{"massive": "off", **more})


def window_of(sae, lane_shape: LaneShape, requests, *, batch: int = 10**6, positions=None):
    d_in = requests[0][0].shape[1]
    d_out = 0 if requests[0][2] is None else requests[0][2].shape[1]
    window = OpenWindow(lane_shape, "float16", d_in, sae.d_sae if sae else 0, d_out)
    where = positions or [None] * len(requests)
    items = [(lane_shape, Request(request_id=str(i), acts=a, special_mask=s, acts_out=o, positions=where[i]))
             for i, (a, s, o) in enumerate(requests)]  # fmt: skip
    for start in range(0, len(items), batch):
        window.add(encode_batch(sae, items[start : start + batch]))
    parts = encode_window(window.close(CUT, 1))
    return decode_window(b"".join(part.value for part in parts))


NOTHING = {"requests": 0, "fired": {}, "mag_sum": {}, "scores": []}


def check_stratum(requests: int, arrays, slow, *, all_ids: bool) -> None:
    assert requests == len(arrays["request_scores"]) == slow["requests"]
    ids = arrays["feature_ids"].tolist()
    assert all_ids or ids == sorted(slow["fired"])
    assert arrays["requests_fired"].tolist() == [slow["fired"].get(f, 0) for f in ids]
    np.testing.assert_allclose(arrays["mag_sum"], [slow["mag_sum"].get(f, 0) for f in ids], rtol=1e-6)
    np.testing.assert_allclose(arrays["request_scores"], np.reshape(slow["scores"], (-1, len(SCORES))), rtol=1e-5)


def check(window, slow) -> None:
    header, a = window.header, window.arrays
    assert (header.requests, header.tokens) == (slow["requests"], slow["tokens"])
    assert header.not_counted.get("too_short", 0) == slow["too_short"]
    ids = a["feature_ids"].tolist()
    assert ids == sorted(slow["tokens_fired"])
    for name in ("tokens_fired", "act_sum", "act_sq_sum", "request_max"):
        assert a[name].tolist() == [slow[name].get(f, 0) for f in ids], name
    assert header.strata == {k: s["requests"] for k, s in slow["strata"].items() if k != "unit"}
    assert {name.partition(".")[0] for name in a if "." in name} == set(header.strata)
    for name in {"unit", *slow["strata"]}:
        check_stratum(*stratum_of(window, name), slow["strata"].get(name, NOTHING), all_ids=name == "unit")
    assert a["x_sum"].tolist() == slow["x_sum"]
    lengths = np.bincount(length_bins(np.array(slow["lengths"])), minlength=BINS)
    assert a["length_histogram"].tolist() == lengths.tolist()
    starts = np.bincount(length_bins(np.array(slow["starts"], int)), minlength=BINS)
    assert a["start_histogram"].tolist() == starts.tolist()
    for name in ("error_tokens", "x_sq_sum", "err_sq_sum", "x_dot_xhat", "xhat_sq_sum", "l0_sum", "massive_tokens"):
        assert getattr(header.sums, name) == slow[name], name
    assert header.sums.norm_sum == pytest.approx(slow["norm_sum"], rel=1e-6)
    if header.projector_version == 0 and slow["fit"]:
        fit = np.array(slow["fit"])
        assert header.sums.fit_tokens == len(fit)
        np.testing.assert_allclose(a["fit_sum"], fit.sum(0))
        centred = fit - fit.mean(0)
        packed = unpack_scatter(a["fit_scatter"], len(fit[0]))
        np.testing.assert_allclose(packed, centred.T @ centred, rtol=1e-4, atol=1e-3)


def strata_shape(blocks: int, rule: str = "off", unit: int = 2, short: int = 0):
    """A calibrated lane's shape, and the same as options of the loops."""
    rng = np.random.default_rng(blocks)
    options = {
        "unit": unit, "every": 2, "massive": rule, "blocks": blocks, "short": short, "mean": rng.normal(size=D_IN),
        "whitening": rng.normal(size=(3, D_IN)), "cap": rng.integers(1, 9, D_SAE).astype(np.float32),
        "surprise": rng.exponential(size=D_SAE).astype(np.float32),
    }  # fmt: skip
    lane_shape = shape(
        projector_version=7, unit_tokens=unit, error_every=2, massive=rule, cap=options["cap"], blocks=blocks,
        short_tokens=short, surprise=options["surprise"], mean=torch.from_numpy(options["mean"]),
        whitening=torch.from_numpy(options["whitening"]),
    )  # fmt: skip
    return lane_shape, options


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_fit_window_equals_the_loops(seed, special):
    sae, requests = IntegerSAE(D_IN, D_SAE, seed=seed), make_requests(30, seed=seed, special=special)
    check(window_of(sae, shape(), requests), twin(sae, requests))


@pytest.mark.parametrize("rule", ["off", "norm:7", "share"])
def test_calibrated_window_equals_the_loops(rule):
    rng = np.random.default_rng(3)
    sae, requests = IntegerSAE(D_IN, D_SAE), make_requests(40, seed=4, special=True)
    cap, surprise = rng.integers(1, 9, D_SAE).astype(np.float32), rng.exponential(size=D_SAE).astype(np.float32)
    mean, whitening = rng.normal(size=D_IN), rng.normal(size=(3, D_IN))
    lane_shape = shape(projector_version=7, unit_tokens=3, error_every=2, massive=rule, cap=cap, surprise=surprise,
                       mean=torch.from_numpy(mean), whitening=torch.from_numpy(whitening))  # fmt: skip
    slow = twin(
        sae, requests, unit=3, every=2, massive=rule, cap=cap, mean=mean, whitening=whitening, surprise=surprise
    )
    assert slow["too_short"] > 0
    window = window_of(sae, lane_shape, requests)
    check(window, slow)
    assert (window.header.projector_version, window.header.unit_tokens) == (7, 3)
    assert "fit_sum" not in window.arrays


def test_massive_tokens_by_share_fire_but_do_not_enter_sums():
    sae, requests = IntegerSAE(256, 9), make_requests(6, 256, seed=5)
    for acts, _, _ in requests[::2]:
        acts[0, 17] = 512
    surprise = np.arange(9, dtype=np.float32)
    slow = twin(sae, requests, massive="share", surprise=surprise)
    assert slow["massive_tokens"] == 3
    window = window_of(sae, shape(massive="share", surprise=surprise), requests)
    check(window, slow)
    counted = window_of(sae, shape(massive="off", surprise=surprise), requests)
    ours, theirs = (w.arrays["request_scores"][:, SCORES.index("surprise")] for w in (window, counted))
    assert (ours[1::2] == theirs[1::2]).all()
    assert (ours[::2] != theirs[::2]).all()  # a massive token would speak for its whole request


def test_t0_lane_has_no_features_and_no_sae_scores():
    requests = make_requests(12, seed=6, special=True)
    window = window_of(None, shape(), requests)
    check(window, twin(None, requests))
    assert window.header.tier == "T0"
    assert len(window.arrays["feature_ids"]) == 0


def test_transcoder_errors_are_about_what_it_predicts():
    sae, requests = IntegerSAE(D_IN, D_SAE, d_out=3), make_requests(12, d_out=3, seed=7)
    sae.explains = "output"
    check(window_of(sae, shape(), requests), twin(sae, requests))


@pytest.mark.parametrize("rule", ["off", "norm:7"])
@pytest.mark.parametrize("blocks", [1, 2, 3, 9])
def test_strata_equal_the_loops(blocks, rule):
    sae, requests = IntegerSAE(D_IN, D_SAE), make_requests(60, seed=10, special=True)
    lane_shape, options = strata_shape(blocks, rule)
    slow = twin(sae, requests, **options)
    window = window_of(sae, lane_shape, requests)
    check(window, slow)
    assert set(window.header.strata) == {"short", *(f"block{k}" for k in range(1, min(blocks, 3)))}  # 7 counted tokens
    assert window.header.strata["short"] < window.header.not_counted["too_short"]  # some have no counted token
    assert window.header.strata.get("block1", 0) < window.header.requests
    plain = window_of(sae, lane_shape, [r for r in requests if _counted(r) >= 2])
    for name in ("feature_ids", "requests_fired", "mag_sum", "tokens_fired", "act_sum", "request_max"):
        np.testing.assert_array_equal(window.arrays[name], plain.arrays[name], err_msg=name)


@pytest.mark.parametrize("short", [1, 2, 3])
def test_a_short_request_is_judged_by_its_first_tokens_and_one_without_them_not_at_all(short):
    sae, requests = IntegerSAE(D_IN, D_SAE), make_requests(80, seed=14, special=True)
    lane_shape, options = strata_shape(2, unit=4, short=short)
    window = window_of(sae, lane_shape, requests)
    check(window, twin(sae, requests, **options))
    counts = [_counted(r) for r in requests]
    assert window.header.strata["short"] == sum(short <= n < 4 for n in counts) > 0


def _counted(request) -> int:
    acts, special, _ = request
    return len(acts) if special is None else int((~special).sum())


def test_t0_and_transcoder_lanes_have_strata_too():
    requests = make_requests(30, d_out=3, seed=11)
    lane_shape, options = strata_shape(2)
    sae = IntegerSAE(D_IN, D_SAE, d_out=3)
    sae.explains = "output"
    check(window_of(sae, lane_shape, requests), twin(sae, requests, **options))
    t0 = shape(projector_version=7, unit_tokens=2, error_every=2, blocks=2)
    window = window_of(None, t0, make_requests(30, seed=11))
    check(window, twin(None, make_requests(30, seed=11), unit=2, every=2, blocks=2))
    assert set(window.header.strata) == {"short", "block1"}


def test_starts_are_positions_where_they_are_known_and_places_otherwise():
    sae, requests = IntegerSAE(D_IN, D_SAE), make_requests(40, seed=12, special=True)
    positions = [np.arange(len(acts), dtype=np.int32) + 50 * k for k, (acts, _, _) in enumerate(requests)]
    lane_shape, options = strata_shape(1)
    window = window_of(sae, lane_shape, requests, positions=positions)
    check(window, twin(sae, requests, positions=positions, **options))
    check(window_of(sae, lane_shape, requests), twin(sae, requests, **options))


@pytest.mark.parametrize("position", [np.int64(-9), np.uint64(2**63 + 5), np.int8(-1)])
def test_any_integer_may_be_a_position(position):
    """They are the producers'."""
    request = (np.ones((1, D_IN), np.float16), None, None)
    window = window_of(None, shape(), [request], positions=[np.array([position])])
    starts = window.arrays["start_histogram"]
    assert np.flatnonzero(starts).tolist() == [0 if position < 0 else BINS - 1]


@pytest.mark.parametrize("seed", range(3))
def test_a_window_with_strata_depends_on_nothing_but_its_requests(seed):
    """In any batches, beside requests of any other lanes, and in any order of those."""
    rng, sae = np.random.default_rng(seed), IntegerSAE(D_IN, D_SAE)
    requests, (lane_shape, _) = make_requests(40, seed=13, special=True), strata_shape(3, "norm:7")
    whole = window_of(sae, lane_shape, requests)
    others = (strata_shape(1)[0], strata_shape(2, unit=1)[0], shape())
    own = [(lane_shape, Request(request_id=str(i), acts=a, special_mask=s)) for i, (a, s, _) in enumerate(requests)]
    items = [*own]
    for i, (a, s, _) in enumerate(make_requests(60, seed=14 + seed, special=True)):
        stranger = (others[i % 3], Request(request_id=f"x{i}", acts=a, special_mask=s))
        items.insert(int(rng.integers(0, len(items) + 1)), stranger)
    window, start = OpenWindow(lane_shape, "float16", D_IN, D_SAE), 0
    while start < len(items):
        batch = items[start : start + int(rng.integers(1, 20))]
        stats = encode_batch(sae, batch)
        for i in [i for i, (of, _) in enumerate(batch) if of is lane_shape]:
            window.add(stats.of(i, i + 1))
        start += len(batch)
    found = window.close(CUT, 1)
    assert found.header == whole.header
    assert found.arrays.keys() == whole.arrays.keys()
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array, err_msg=name)


def test_rows_follow_the_order_of_requests():
    sae, requests, (lane_shape, _) = IntegerSAE(D_IN, D_SAE), make_requests(40, seed=15), strata_shape(2)
    order = np.random.default_rng(0).permutation(len(requests))
    rows = {}
    for name, chosen in (("as they came", requests), ("shuffled", [requests[i] for i in order])):
        window = window_of(sae, replace(lane_shape, error_every=1), chosen)
        rows[name] = {of: stratum_of(window, of)[1]["request_scores"] for of in ("unit", "short", "block1")}
    counts = np.array([len(acts) for acts, _, _ in requests])
    for of, inside in (("unit", counts >= 2), ("short", counts < 2), ("block1", counts >= 4)):
        places = np.cumsum(inside) - 1
        expected = rows["as they came"][of][places[order[inside[order]]]]
        np.testing.assert_array_equal(rows["shuffled"][of], expected, err_msg=of)


@pytest.mark.parametrize("batch", [1, 7])
def test_how_requests_are_batched_changes_nothing(batch):
    sae, requests = IntegerSAE(D_IN, D_SAE), make_requests(40, seed=8, special=True)
    surprise = np.random.default_rng(8).exponential(size=D_SAE).astype(np.float32)
    whole = window_of(sae, shape(surprise=surprise), requests)
    parts = window_of(sae, shape(surprise=surprise), requests, batch=batch)
    assert np.isfinite(whole.arrays["request_scores"][:, SCORES.index("surprise")]).sum() > 20
    assert parts.header == whole.header
    for name, array in whole.arrays.items():
        if name == "fit_scatter":
            np.testing.assert_allclose(parts.arrays[name], array, rtol=1e-4, atol=1e-3)
        else:
            np.testing.assert_array_equal(parts.arrays[name], array)


def test_lanes_of_one_batch_keep_their_own_shapes():
    sae, requests = IntegerSAE(D_IN, D_SAE), make_requests(30, seed=9)
    cap, surprise = np.full(D_SAE, 4, np.float32), np.random.default_rng(9).exponential(size=(2, D_SAE))
    one = shape()
    two = shape(projector_version=5, unit_tokens=2, cap=cap, massive="norm:6", surprise=surprise[0].astype(np.float32))
    three = shape(projector_version=6, unit_tokens=2, surprise=surprise[1].astype(np.float32))
    shapes = (one, two, three)
    items = [(shapes[i % 3], Request(request_id=str(i // 3), acts=a)) for i, (a, _, _) in enumerate(requests)]
    stats = encode_batch(sae, items)
    for place, (lane_shape, options) in enumerate((
        (one, {}),
        (two, {"unit": 2, "massive": "norm:6", "cap": cap, "surprise": two.surprise}),
        (three, {"unit": 2, "surprise": three.surprise}),
    )):  # fmt: skip
        window = OpenWindow(lane_shape, "float16", D_IN, D_SAE)
        for i in range(len(items)):
            if items[i][0] is lane_shape:
                window.add(stats.of(i, i + 1))
        closed, own = window.close(CUT, 1), requests[place::3]
        check(closed, twin(sae, own, **options))
        alone = window_of(sae, lane_shape, own)  # as on Kafka, and without a neighbour
        np.testing.assert_array_equal(closed.arrays["request_scores"], alone.arrays["request_scores"])


def test_where_nothing_fires_there_is_no_surprise():
    sae, surprise = IntegerSAE(D_IN, D_SAE), np.ones(D_SAE, np.float32)
    sae.b_enc -= 1_000
    window = window_of(sae, shape(projector_version=3, unit_tokens=1, surprise=surprise), make_requests(4))
    assert np.isnan(window.arrays["request_scores"][:, SCORES.index("surprise")]).all()
    assert (window.arrays["request_scores"][:, SCORES.index("l0")] == 0).all()


def test_a_projector_of_before_the_surprise_gives_none():
    arrays = {"mean": np.zeros(D_IN), "whitening": np.eye(D_IN), "cap": np.ones(D_SAE)}
    header = ProjectorHeader(lane=shape().lane, version=3, unit_tokens=1, d_in=D_IN, d_sae=D_SAE, fit_requests=2,
                             fit_tokens=9, shrinkage=0.0, kept_directions=D_IN)  # fmt: skip
    sae, column = IntegerSAE(D_IN, D_SAE), [SCORES.index("surprise"), SCORES.index("rarity")]
    before = window_of(sae, shape_of(shape().lane, (header, arrays), "off"), make_requests(9))
    after_shape = shape_of(shape().lane, (header, {**arrays, "surprise": np.ones(D_SAE)}), "off")
    after = window_of(sae, after_shape, make_requests(9))
    scores, known = before.arrays["request_scores"], after.arrays["request_scores"]
    assert np.isnan(scores[:, column]).all()
    assert (known[:, column] == 1).any()
    np.testing.assert_array_equal(np.delete(scores, column, 1), np.delete(known, column, 1))


def test_a_request_of_special_tokens_alone_is_too_short():
    acts = np.ones((3, D_IN), np.float16)
    window = window_of(IntegerSAE(D_IN, D_SAE), shape(), [(acts, np.ones(3, bool), None)])
    assert (window.header.requests, window.header.not_counted) == (0, {"too_short": 1})


def test_a_window_of_before_has_no_strata_and_decodes():
    sae, (lane_shape, _) = IntegerSAE(D_IN, D_SAE), strata_shape(2)
    window = window_of(sae, lane_shape, make_requests(20))
    header = {k: v for k, v in msgspec.to_builtins(window.header).items() if k != "strata"}
    old = {k: v for k, v in window.arrays.items() if "." not in k and k != "start_histogram"}
    read = decode_window(write_tensors(old, {"header": msgspec.json.encode(header).decode()}))
    requests, arrays = stratum_of(read, "short")
    assert (requests, {name: len(array) for name, array in arrays.items()}) == (0, dict.fromkeys(STRATUM_ARRAYS, 0))
    assert stratum_of(read, "unit")[0] == window.header.requests > 0


def test_largest_allowed_values_leave_the_window_finite():
    acts = np.full((4, 300), 1e15, np.float32)
    window = window_of(None, shape(massive="share"), [(acts, None, None)])
    assert np.isfinite(window.header.sums.x_sq_sum)
    assert np.isfinite(window.arrays["request_scores"][:, 0]).all()


class NoOutputSAE(IntegerSAE):
    """Of a cross-layer transcoder's layer: there is nothing to compare with, so nothing is reconstructed."""

    explains = "nothing"

    def reconstruct_from(self, x, acts):
        raise AssertionError("not asked for")


@pytest.mark.parametrize("kind", ["layer of a cross-layer transcoder", "transcoder without acts_out"])
def test_where_no_error_is_to_be_had_none_is_told(kind):
    sae, requests = NoOutputSAE(D_IN, D_SAE), make_requests(12, seed=8)
    if kind != "layer of a cross-layer transcoder":
        sae.explains = "output"
    window, other = window_of(sae, shape(), requests), window_of(IntegerSAE(D_IN, D_SAE), shape(), requests)
    sums = window.header.sums
    assert (sums.error_tokens, sums.x_sq_sum, sums.err_sq_sum, sums.x_dot_xhat, sums.xhat_sq_sum) == (0, 0, 0, 0, 0)
    assert (sums.l0_sum, sums.norm_sum) == (other.header.sums.l0_sum, other.header.sums.norm_sum)
    column = SCORES.index("error_share")
    assert np.isnan(window.arrays["request_scores"][:, column]).all()
    assert np.isfinite(other.arrays["request_scores"][:, column]).any()
    for name in window.arrays:
        if name not in ("request_scores", "x_sum"):
            np.testing.assert_array_equal(window.arrays[name], other.arrays[name])


def test_a_transcoder_with_acts_out_has_its_error():
    sae, requests = IntegerSAE(D_IN, D_SAE, d_out=3), make_requests(12, d_out=3, seed=9)
    sae.explains = "output"
    check(window_of(sae, shape(), requests), twin(sae, requests))
