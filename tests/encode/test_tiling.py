"""Random streams, random cuts, crashes at random cuts: everything is accounted for exactly once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stream_interp.encode.open_cut import ClosedCut
from stream_interp.records.consumed import Consumed
from tests.encode.streams import Chunk, counted, record, restarted, settings, started

GIVEN = settings(max_age_s=10)


@dataclass(frozen=True)
class Story:
    """A log with holes, where to cut, and after which cuts to crash."""

    log: list[Consumed]
    cut_after: set[int]
    crash_after: set[int]


@st.composite
def stories(draw: st.DrawFn) -> Story:
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=8))
    pool = [Chunk(f"r{i}", k, n, hook=f"layer.{i % 3}") for i, n in enumerate(sizes) for k in range(n)]
    order = draw(st.permutations(pool))
    repeats = draw(st.lists(st.sampled_from(pool), max_size=4))
    bad = draw(st.integers(0, 2))
    stream = draw(st.permutations([*order, *repeats, *[None] * bad]))
    log, offset, ts = [], 0, 0
    for chunk in stream:
        offset += draw(st.integers(1, 3))
        ts += draw(st.sampled_from([0, 100, -500, 4_000, 11_000]))
        good = record(chunk or Chunk("bad"), offset, max(ts, 0))
        log.append(good if chunk else good._replace(value=b"no"))
    indices = st.sets(st.integers(0, len(log) - 1))
    cuts = draw(indices)
    return Story(log, cuts | {len(log) - 1}, draw(indices))


def run(story: Story, *, crash: bool) -> list[ClosedCut]:
    closed: list[ClosedCut] = []
    partition, i = started(GIVEN), 0
    while i < len(story.log):
        partition.take(story.log[i], 0.0)
        if i in story.cut_after and story.log[i].offset >= partition.cut.a:
            closed.append(partition.close())
            if crash and i in story.crash_after:
                partition = restarted(GIVEN, closed[-1])
                i = next((k for k, r in enumerate(story.log) if r.offset >= partition.next_offset), len(story.log)) - 1
        i += 1
        if i in story.crash_after and crash and closed and i not in story.cut_after:
            story.crash_after.discard(i)  # in the middle of a cut: back to the last one
            partition = restarted(GIVEN, closed[-1])
            i = next((k for k, r in enumerate(story.log) if r.offset >= partition.next_offset), len(story.log))
    return closed


def account(closed: ClosedCut) -> tuple[object, ...]:
    cut = closed.finish(0)[1]
    return counted(closed), cut, [letter for letter, _ in closed.cut.letters]


@hypothesis_settings(max_examples=300, deadline=None)
@given(stories())
def test_crashes_change_nothing(story):
    calm = [account(c) for c in run(story, crash=False)]
    assert [account(c) for c in run(story, crash=True)] == calm


@hypothesis_settings(max_examples=300, deadline=None)
@given(stories())
def test_cuts_tile_and_the_account_balances(story):
    closed = run(story, crash=True)
    cuts = [c.finish(0)[1] for c in closed]
    assert cuts[0].a == 0
    assert cuts[-1].b == story.log[-1].offset + 1
    pending = 0
    for before, cut in zip([None, *cuts], cuts, strict=False):
        assert before is None or before.b == cut.a
        assert cut.records == sum(cut.a <= r.offset < cut.b for r in story.log)
        assert pending + cut.records == cut.counted_records + cut.pending_records + sum(cut.not_counted.values())
        pending = cut.pending_records
        assert cut.not_counted.get("rejected", 0) == len(closed[cuts.index(cut)].cut.letters)


@hypothesis_settings(max_examples=300, deadline=None)
@given(stories())
def test_every_whole_request_counts_once(story):
    """The rule, restated without chunks in memory: complete in time, then once a cut."""
    counts = Counter(name for c in run(story, crash=True) for name in counted(c))
    young = max((r.timestamp_ms for r in story.log), default=0) <= 10_000
    headers = [dict(r.headers) for r in story.log if r.value != b"no"]
    sent = Counter((h["ce_requestid"].decode(), int(h["ce_chunk"])) for h in headers)
    sizes = {h["ce_requestid"].decode(): int(h["ce_chunks"]) for h in headers}
    for name, n in sizes.items():
        copies = {sent[name, k] for k in range(n)}
        if young and copies == {1}:
            assert counts[name] == 1
        assert counts[name] <= min(copies)
