"""One input partition, driven record by record."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stream_interp.encode.lanes import Lanes, Site
from stream_interp.encode.position import Position
from stream_interp.records.window import SCORES
from stream_interp.settings import SiteSettings
from tests.encode.streams import Chunk, counted, envelope, feed, record, restarted, settings, started


def chunks(request: str, n: int, **more) -> list[Chunk]:
    return [Chunk(request, k, n, **more) for k in range(n)]


def test_chunks_out_of_order_are_joined_in_order():
    partition = started(settings())
    a, b, c = chunks("r", 3)
    feed(partition, [record(c, 0), record(a, 1), record(b, 2)])
    closed = partition.close()
    (work,) = closed.cut.work
    assert work.request.acts[:, 0].tolist() == [1, 1, 2, 2, 3, 3]
    assert work.request.last_offset == 2
    assert closed.cut.counted_records == 3


def test_positions_travel_with_their_request_where_all_of_its_chunks_have_them():
    found = []
    for with_positions in ((True, True), (True, False), (False, False)):
        partition = started(settings())
        for k, known in enumerate(with_positions):
            positions = np.array([7 + 2 * k, 8 + 2 * k]) if known else None
            taken = envelope(Chunk("r", k, 2), positions)
            feed(partition, [record(Chunk("r", k, 2), k)._replace(value=taken.value)])
        (work,) = partition.close().cut.work
        found.append(None if work.request.positions is None else work.request.positions.tolist())
    assert found == [[7, 8, 9, 10], None, None]
    partition = started(settings())
    feed(partition, [record(Chunk("r"), 0)._replace(value=envelope(Chunk("r"), np.array([3, 4])).value)])
    assert partition.close().cut.work[0].request.positions.tolist() == [3, 4]


def test_interleaved_requests_count_in_the_order_of_their_last_chunks():
    partition = started(settings())
    (a0, a1), (b0, b1) = chunks("a", 2), chunks("b", 2)
    feed(partition, [record(a0, 0), record(b0, 1), record(b1, 2), record(a1, 3)])
    assert counted(partition.close()) == ["b", "a"]


def test_same_request_at_two_hooks_is_two_requests():
    partition = started(settings())
    feed(partition, [record(Chunk("r", hook=f"layer.{k}"), k) for k in range(2)])
    closed = partition.close()
    assert counted(closed) == ["r", "r"]
    assert len(closed.cut.lanes) == 2


def test_a_request_counts_in_the_cut_of_its_last_chunk_and_read_from_waits_for_it():
    partition = started(settings())
    first, last = chunks("r", 2)
    feed(partition, [record(Chunk("x"), 5), record(first, 7), record(Chunk("y"), 9)])
    one = partition.close()
    feed(partition, [record(last, 12)])
    two = partition.close()
    assert counted(one) == ["x", "y"]
    assert (one.cut.a, one.position.b, one.position.read_from) == (0, 10, 7)
    assert counted(two) == ["r"]
    assert (two.cut.a, two.position.b, two.position.read_from) == (10, 13, 13)


def test_duplicates_within_the_open_cut_and_of_incomplete_requests_do_not_count_beyond_it_they_do():
    partition = started(settings())
    first, last = chunks("r", 2)
    feed(partition, [record(Chunk("x"), 0), record(Chunk("x"), 1), record(first, 2), record(first, 3)])
    one = partition.close()
    feed(partition, [record(first, 4), record(last, 5), record(last, 6), record(Chunk("x"), 7)])
    two = partition.close()
    assert counted(one) == ["x"]
    assert one.cut.not_counted == {"duplicate": 2}
    assert counted(two) == ["r", "x"]
    assert two.cut.not_counted == {"duplicate": 2}


def test_incomplete_by_age_then_late():
    partition = started(settings(max_age_s=10))
    first, last = chunks("r", 2)
    feed(partition, [record(first, 0, ts=1_000), record(Chunk("x"), 1, ts=11_000)])
    assert partition.close().cut.not_counted == {}
    feed(partition, [record(Chunk("y"), 2, ts=11_001), record(last, 3, ts=11_002)])
    closed = partition.close()
    assert closed.cut.not_counted == {"incomplete": 1, "late": 1}
    assert closed.cut.incomplete_requests == 1
    (lane,) = closed.cut.lanes.values()
    assert lane.window.not_counted == {"incomplete": 1, "late": 1}
    assert closed.position.read_from == 4


def test_a_dropped_request_is_forgotten_after_another_max_age():
    partition = started(settings(max_age_s=10))
    first, last = chunks("r", 2)
    feed(partition, [record(first, 0, ts=0), record(Chunk("x"), 1, ts=10_001), record(Chunk("y"), 2, ts=20_002)])
    feed(partition, [record(first, 3, ts=20_003), record(last, 4, ts=20_004)])
    assert counted(partition.close()) == ["x", "y", "r"]


def test_incomplete_by_bytes():
    partition = started(settings(max_bytes=700))
    big = chunks("r", 3, d_in=100)  # 400 bytes each
    feed(partition, [record(chunk, k) for k, chunk in enumerate(big)])
    closed = partition.close()
    assert counted(closed) == []
    assert closed.cut.not_counted == {"incomplete": 2, "late": 1}


def test_too_large_with_its_last_chunk_is_dropped_too():
    partition = started(settings(max_bytes=700))
    feed(partition, [record(chunk, k) for k, chunk in enumerate(chunks("r", 2, d_in=100))])
    closed = partition.close()
    assert counted(closed) == []
    assert closed.cut.not_counted == {"incomplete": 2}


def test_all_incomplete_requests_together_are_bounded():
    partition = started(settings(max_bytes=700))  # 2,800 bytes for all
    feed(partition, [record(Chunk(f"r{k}", 0, 2, d_in=100), k) for k in range(8)])
    closed = partition.close()
    assert closed.cut.incomplete_requests == 1
    assert len(closed.position.open) == 7


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (Chunk("r", 1, 3), "inconsistent_chunks"),
        (Chunk("r", 1, 2, tokens=9), "inconsistent_chunks"),
        (Chunk("r", 1, 2, dtype="float32"), "inconsistent_chunks"),
        (Chunk("r", 1, 2, d_in=4), "wrong_d_in"),
    ],
)
def test_a_chunk_that_contradicts_its_request_is_rejected_and_the_right_one_still_completes_it(odd, reason):
    partition = started(settings())
    first, last = chunks("r", 2)
    feed(partition, [record(first, 0), record(odd, 1), record(last, 2)])
    closed = partition.close()
    assert counted(closed) == ["r"]
    assert closed.cut.rejected_by_reason == {reason: 1}
    assert closed.cut.letters[0][0].offset == 1


def test_chunks_whose_tokens_do_not_add_up_reject_the_last_and_drop_the_rest():
    partition = started(settings())
    feed(partition, [record(chunk, k) for k, chunk in enumerate(chunks("r", 2, tokens=5))])
    closed = partition.close()
    assert counted(closed) == []
    assert closed.cut.not_counted == {"rejected": 1, "incomplete": 1}
    assert closed.cut.rejected_by_reason == {"inconsistent_chunks": 1}


def test_dead_letters_have_the_key_headers_and_place_but_no_payload():
    partition = started(settings())
    bad = record(Chunk("r"), 3, ts=17)._replace(value=b"secret activations")
    feed(partition, [bad])
    ((letter, key),) = partition.close().cut.letters
    assert (letter.reason, letter.offset, letter.timestamp_ms, key) == ("not_safetensors", 3, 17, b"r")
    assert letter.value_base64 is None
    assert letter.value_bytes == len(b"secret activations")
    assert ("ce_requestid", "cg==") in letter.headers_base64


def test_one_request_a_window_even_when_a_poll_brings_many():
    given = settings(requests=1)
    partition = started(given)
    closed = []
    for k in range(5):
        partition.take(record(Chunk(f"r{k}"), k), 0.0)
        if partition.due <= 0.0:
            closed.append(partition.close())
    assert [(c.cut.a, c.position.b, counted(c)) for c in closed] == [(k, k + 1, [f"r{k}"]) for k in range(5)]


def test_due_needs_requests_and_min_age_or_max_age():
    partition = started(settings(requests=2, min_age_s=0.5, cut_age_s=5.0))
    assert partition.due == math.inf
    partition.take(record(Chunk("a"), 0), 10.0)
    assert partition.due == 15.0
    partition.take(record(Chunk("b"), 1), 10.1)
    assert partition.due == 10.5
    partition.close()
    assert partition.due == math.inf


def test_dead_letters_alone_make_a_cut_due():
    partition = started(settings(cut_age_s=5.0))
    partition.take(record(Chunk("r"), 0)._replace(value=None), 1.0)
    assert partition.due == 6.0


def test_many_dead_letters_make_a_cut_due_even_without_max_age():
    partition = started(settings())
    for k in range(1_000):
        assert partition.due == math.inf
        partition.take(record(Chunk("r"), k)._replace(value=None), 1.0)
    assert partition.due == -math.inf


def test_restart_rebuilds_the_incomplete_and_counts_nothing_twice():
    given = settings()
    first, last = chunks("r", 2)
    log = [record(Chunk("x"), 0), record(first, 1), record(Chunk("y"), 2), record(last, 3), record(Chunk("z"), 4)]
    partition = started(given)
    feed(partition, log[:3])
    again = restarted(given, partition.close())
    assert again.next_offset == 1
    feed(again, log[1:])
    closed = again.close()
    assert counted(closed) == ["r", "z"]
    assert (closed.cut.a, closed.position.b, closed.cut.records) == (3, 5, 2)


def test_restart_does_not_take_a_counted_request_with_chunks_on_both_sides_of_read_from_for_an_incomplete_one():
    given = settings(max_age_s=10)
    (a0, a1), (b0, b1) = chunks("a", 2), chunks("b", 2)
    log = [record(a0, 0), record(b0, 1), record(a1, 2), record(b1, 3), record(Chunk("x"), 4, ts=99_999)]
    partition = started(given)
    feed(partition, log[:3])
    closed = partition.close()
    assert counted(closed) == ["a"]
    again = restarted(given, closed)
    feed(again, log[1:])
    rest = again.close()
    assert counted(rest) == ["b", "x"]
    assert rest.cut.not_counted == {}


def test_restart_keeps_calling_chunks_of_dropped_requests_late():
    given = settings(max_age_s=10)
    first, last = chunks("r", 2)
    partition = started(given)
    feed(partition, [record(first, 0, ts=0), record(Chunk("x"), 1, ts=10_001)])
    again = restarted(given, partition.close())
    feed(again, [record(last, 2, ts=10_002)])
    assert again.close().cut.not_counted == {"late": 1}


def test_one_clock_in_the_future_does_not_make_later_requests_old():
    partition = started(settings(max_age_s=10))
    first, last = chunks("r", 2)
    feed(partition, [record(Chunk("x"), 0, ts=10**12), record(first, 1, ts=5_000), record(last, 2, ts=6_000)])
    assert counted(partition.close()) == ["x", "r"]


def test_what_the_log_deleted_before_it_was_read_is_expired():
    given = settings()
    partition = started(given)
    feed(partition, [record(Chunk("x"), 0), record(Chunk("r", 0, 2), 1), record(Chunk("q", 0, 2), 5)])
    closed = partition.close()
    gap = restarted(given, closed, low=9)
    assert gap.next_offset == 9
    feed(gap, [record(Chunk("y"), 9), record(Chunk("r", 1, 2), 10)])
    rest = gap.close()
    assert (rest.cut.a, rest.position.b) == (6, 11)
    assert rest.cut.not_counted == {"expired": 2 + 3, "late": 1}
    assert rest.cut.records == 3 + 2
    assert counted(rest) == ["y"]


def test_only_the_oldest_incomplete_request_expired():
    given = settings()
    partition = started(given)
    feed(partition, [record(Chunk("r", 0, 2), 1), record(Chunk("q", 0, 2), 5)])
    gap = restarted(given, partition.close(), low=3)
    feed(gap, [record(Chunk("q", 0, 2), 5), record(Chunk("q", 1, 2), 6)])
    rest = gap.close()
    assert counted(rest) == ["q"]
    assert rest.cut.not_counted == {"expired": 1}


def test_what_other_settings_cannot_rebuild_is_given_up():
    partition = started(settings())
    feed(partition, [record(Chunk("r", 0, 2), 0)])
    again = restarted(settings(max_bytes=10), partition.close())
    feed(again, [record(Chunk("r", 0, 2), 0), record(Chunk("r", 1, 2), 1)])
    rest = again.close()
    assert counted(rest) == []
    assert rest.cut.not_counted == {"incomplete": 1, "rejected": 1}


def test_a_site_that_nobody_named_is_t0_or_rejected():
    named = Site(SiteSettings(model_id="other"))
    t0, reject = started(settings(), lanes=Lanes([named])), started(settings(), lanes=Lanes([named], "reject"))
    for partition in (t0, reject):
        feed(partition, [record(Chunk("r"), 0)])
    (lane,) = t0.close().cut.lanes.values()
    assert (lane.entry.shape.lane.sae_fingerprint, lane.entry.d_sae) == ("none", 0)
    assert reject.close().cut.rejected_by_reason == {"unknown_site": 1}


def test_window_of_a_lane_that_only_lost_requests_has_none():
    partition = started(settings(max_age_s=10), Position(b=0))
    feed(partition, [record(Chunk("r", 0, 2), 0, ts=0), record(Chunk("x", hook="other"), 1, ts=10_001)])
    windows, cut = partition.close().finish(5)
    (lost,) = [w for w in windows if w.header.lane.hook_name == "layer.1"]
    assert (lost.header.requests, lost.header.not_counted) == (0, {"incomplete": 1})
    assert lost.arrays["request_scores"].shape == (0, len(SCORES))
    assert cut.lanes[lost.header.lane.lane_id].requests == 0
    assert np.all(lost.arrays["length_histogram"] == 0)
