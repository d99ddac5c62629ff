"""Live examples against a loop; whose turn it is; what is held; how requests are named; that off is off."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

import numpy as np
import pytest

from stream_interp.encode import examples as examples_module
from stream_interp.encode.batching import add_statistics
from stream_interp.encode.bounds import memory_bound_bytes
from stream_interp.encode.encoder import encode_batch
from stream_interp.encode.examples import TURNS_BYTES, ExampleRule, OpenExamples, Turns
from stream_interp.encode.lanes import Lanes, Site
from stream_interp.encode.open_cut import MAX_WINDOW_BYTES, window_bytes
from stream_interp.encode.outgoing import EXAMPLES, records_of
from stream_interp.encode.requests import LaneShape, Request
from stream_interp.encode.sites import load_sites, site_line
from stream_interp.errors import UsageError
from stream_interp.records.envelope import read_json
from stream_interp.records.example import Example
from stream_interp.records.lane import Lane
from stream_interp.settings import ExampleSettings, RequestSettings, Settings, SiteSettings
from tests.encode.slow_twin import IntegerSAE
from tests.encode.streams import Chunk, feed, record, settings, started
from tests.encode.workers import integer_sae

D_IN, D_SAE = 5, 40
LANE = Lane(model_id="m", hook_name="h", sae_fingerprint=IntegerSAE.fingerprint)
KEY = b"0123456789abcdef"


def rule(features=6, key=None, turns=None):
    return ExampleRule(features, key, turns or Turns())


def stats_of(acts, unit=0):
    """Request ids and statistics, as ENCODE has them."""
    shape = LaneShape(lane=LANE, massive="off", unit_tokens=unit, projector_version=1 if unit else 0)
    items = [(shape, Request(request_id=name, acts=a)) for name, a in acts]
    return [name for name, _ in acts], encode_batch(IntegerSAE(D_IN, D_SAE), items)


def add(open_examples, requests, start=0, end=None):
    names, stats = requests
    end = min(len(names), len(names) if end is None else end)
    own = stats.of(start, end)
    counted = [name for name, short in zip(names[start:end], own.too_short, strict=True) if not short]
    open_examples.add(counted, own.spans.only(0)[1])


def random_acts(seed, n):
    rng = np.random.default_rng(seed)
    return [(f"r{seed}-{i}", rng.integers(-2, 3, (int(rng.integers(2, 6)), D_IN)).astype(np.float16)) for i in range(n)]


def slow(acts, order, features, unit=0):
    """{feature: (request, activation)} by loops; `order`: features, next first. The order after it is in place."""
    sae, best = IntegerSAE(D_IN, D_SAE), {}
    for name, tokens in acts:
        for x in tokens[: unit or None]:
            for f in range(D_SAE):
                value = sum(float(x[j]) * float(sae.W_enc[j, f]) for j in range(D_IN)) + float(sae.b_enc[f])
                if value > 0 and value > best.get(f, ("", 0.0))[1]:
                    best[f] = (name, value)
    told = sorted([f for f in order if f in best][:features])
    order[:] = [f for f in order if f not in told] + told
    return {f: best[f] for f in told}


def fast(acts, examples_rule, batch, unit=0):
    open_examples, requests = OpenExamples(LANE, D_SAE, examples_rule), stats_of(acts, unit)
    for start in range(0, len(acts), batch):
        add(open_examples, requests, start, start + batch)
    return open_examples.close(7)


@pytest.mark.parametrize("unit", [0, 2])
@pytest.mark.parametrize("batch", [1, 3, 100])
@pytest.mark.parametrize("features", [1, 6, 64])
def test_examples_equal_the_loops_cut_after_cut(features, batch, unit):
    order, examples_rule = list(range(D_SAE)), rule(features)
    for seed in range(12):
        acts = random_acts(seed, 1 + seed % 9)
        told = fast(acts, examples_rule, batch, unit)
        assert {e.feature: (e.request_id, e.activation) for e in told} == slow(acts, order, features, unit)
        assert all((e.lane, e.at_ms, e.hashed) == (LANE, 7, False) for e in told)


def test_every_feature_that_fires_has_its_turn_and_a_new_one_has_it_at_once():
    acts, others = random_acts(1, 1), random_acts(5, 30)
    often = set(slow(acts, list(range(D_SAE)), D_SAE))
    new = set(slow(others, list(range(D_SAE)), D_SAE)) - often
    examples_rule, seen = rule(4), set()
    for _ in range(-(-len(often) // 4)):
        seen |= {e.feature for e in fast(acts, examples_rule, 100)}
    assert seen == often
    assert len(new) >= 4
    assert {e.feature for e in fast(others, examples_rule, 100)} <= new


def test_a_cut_without_firings_tells_nothing():
    assert fast([("r", np.zeros((2, D_IN), np.float16))], rule(), 1) == []
    assert OpenExamples(LANE, D_SAE, rule()).close(1) == []


def test_two_partitions_go_by_the_order_they_began_with():
    examples_rule, acts = rule(3), random_acts(2, 20)
    first, second = (OpenExamples(LANE, D_SAE, examples_rule) for _ in range(2))
    requests = stats_of(acts)
    add(first, requests)
    add(second, requests, 0, 10)
    told = {e.feature for e in first.close(1)}
    add(second, requests, 10)
    assert {e.feature for e in second.close(1)} == told
    assert told.isdisjoint(e.feature for e in fast(acts, examples_rule, 100))


def test_what_is_held_does_not_grow_with_requests():
    open_examples = OpenExamples(LANE, D_SAE, rule(3))
    for seed in range(20):
        add(open_examples, stats_of(random_acts(seed, 10)))
        held = (open_examples._features, open_examples._activations, open_examples._requests)
        assert all(len(part) <= 3 for part in held)


def test_the_order_of_many_lanes_stays_within_its_bytes(monkeypatch):
    monkeypatch.setattr(examples_module, "TURNS_BYTES", 3 * 8 * D_SAE)
    turns = Turns()
    for k in range(5):
        turns.told(f"lane{k}", D_SAE, np.array([0], np.int32))
        assert turns._bytes == sum(kept.nbytes for kept in turns._kept.values()) <= 3 * 8 * D_SAE
    assert list(turns._kept) == ["lane2", "lane3", "lane4"]
    assert turns.of("lane4", D_SAE)[0] == D_SAE
    assert turns.of("lane0", D_SAE)[0] == 0  # begins a new round


def test_hashed_is_the_hmac_of_the_id():
    name = "Antrag-ß-17"
    told = fast([(name, a) for _, a in random_acts(3, 1)], rule(key=KEY), 1)
    expected = hmac.new(KEY, name.encode(), hashlib.sha256).hexdigest()
    assert told
    assert {(e.request_id, e.hashed) for e in told} == {(expected, True)}


def in_a_cut(examples_rule):
    """A partition with four requests, one of them too short, worked off and closed."""
    sae = IntegerSAE(3, D_SAE, seed=2)
    lanes = Lanes([Site(SiteSettings(), sae, 3, 0, examples_rule)])
    partition = started(settings(), lanes=lanes)
    feed(partition, [record(Chunk(f"request-{k}"), k) for k in range(4)])
    closed = partition.close()
    work, closed.cut.work = closed.cut.work, []
    too_short = replace(work[0], request=replace(work[0].request, special_mask=np.ones(2, np.bool_)))
    work = [too_short, *work[1:]]
    add_statistics(work, encode_batch(sae, [(w.entry.shape, w.request) for w in work]))
    return closed


def test_examples_lie_beside_the_windows_of_their_cut():
    records, _ = records_of(in_a_cut(rule(64)), 9)
    examples = [(e.key.decode(), read_json(e.value, Example)) for topic, e in records if topic == EXAMPLES]
    assert {example.request_id for _, example in examples} == {"request-1"}  # all are alike: the first that counts
    assert all(key == example.lane.lane_id and example.at_ms == 9 for key, example in examples)
    windows = b"".join(e.value for topic, e in records if topic != EXAMPLES)
    assert b"request-1" not in windows


def test_off_holds_and_writes_nothing():
    closed = in_a_cut(None)
    assert [lane.examples for lane in closed.cut.lanes.values()] == [None]
    assert EXAMPLES not in {topic for topic, _ in records_of(closed, 9)[0]}


def test_examples_are_part_of_the_bound(tmp_path):
    integer_sae(tmp_path / "sae")
    small = RequestSettings()
    assert memory_bound_bytes(small, 1, 0, True) - memory_bound_bytes(small, 1, 0) == TURNS_BYTES
    [lane] = in_a_cut(rule(64)).cut.lanes.values()
    assert window_bytes(lane.entry) - window_bytes(replace(lane.entry, examples=None)) == 8 * D_SAE + 64 * 2_176
    assert window_bytes(lane.entry) < MAX_WINDOW_BYTES


def test_sites_say_what_they_tell(tmp_path):
    integer_sae(tmp_path / "sae")
    (tmp_path / "key").write_text(KEY.decode() + "\n")
    sae = str(tmp_path / "sae")
    sites = [
        SiteSettings(hook_name="a", sae=sae, examples="hashed"), SiteSettings(hook_name="b", sae=sae, examples="plain"),
        SiteSettings(hook_name="c", sae=sae), SiteSettings(hook_name="d", examples="plain"),
    ]  # fmt: skip
    found = load_sites(Settings(sites=sites, examples=ExampleSettings(features=8, key_file=str(tmp_path / "key"))))
    assert [site.examples and site.examples.key for site in found] == [KEY, None, None, None]
    assert [bool(site.examples) for site in found] == [True, True, False, False]
    assert "; examples of 8 features a cut, request ids hashed, at most 17,600 bytes an open" in site_line(found[0])
    assert "request ids plain" in site_line(found[1])
    assert "examples" not in site_line(found[2])
    assert site_line(found[3]).endswith("none, T0 only; no examples without an SAE")


@pytest.mark.parametrize("content", [None, "short", ""])
def test_hashed_needs_a_key_that_cannot_be_guessed(tmp_path, content):
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    given = ExampleSettings(key_file=str(path) if content is not None else "")
    with pytest.raises(UsageError, match=r"examples\.key_file: .*(openssl rand -hex 32|is empty)"):
        load_sites(Settings(sites=[SiteSettings(examples="hashed")], examples=given))
