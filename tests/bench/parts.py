"""`parts`: examples in a cut, decoding of snapshots, the tick of the feature tests and of classical detectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN, PageHinkley

from stream_interp.detect.armed.features import DIRECTIONS
from stream_interp.drift import esr
from stream_interp.drift.classical import DETECTORS
from stream_interp.encode.batching import add_statistics
from stream_interp.encode.encoder import encode_batch
from stream_interp.encode.examples import ExampleRule, Turns
from stream_interp.encode.lanes import Lanes, Site
from stream_interp.encode.outgoing import records_of
from stream_interp.encode.partition import InputPartition
from stream_interp.encode.position import Position
from stream_interp.encode.process import ACTIVATIONS
from stream_interp.records.consumed import Consumed
from stream_interp.records.snapshot import Snapshot, decode_snapshot, encode_snapshot
from stream_interp.settings import Settings, SiteSettings
from tests.bench.lanes import firing_sae
from tests.bench.measure import Row, compare

D_IN, D_SAE, L0, REQUESTS, TOKENS = 576, 4_608, 33, 64, 24
TICKS, OLD = 32, 1_024


def rows() -> Iterator[Row]:
    """Times, against the least that such a thing could take or what else one would use."""
    yield _examples()
    yield _decode()
    yield from _ticks()
    yield _classical("page_hinkley", PageHinkley)
    yield _classical("adwin", ADWIN)


def _examples() -> Row:
    sae = firing_sae(D_IN, D_SAE, L0)
    rng = np.random.default_rng(0)
    records = []
    for k in range(REQUESTS):
        acts = rng.standard_normal((TOKENS, D_IN)).astype(np.float16)
        snapshot = Snapshot(
            model_id="m", hook_name="h", request_id=f"request-{k}", acts=acts, acts_dtype="float16",
            request_tokens=TOKENS,
        )  # fmt: skip
        envelope = encode_snapshot(snapshot, 0)
        records.append(Consumed(ACTIVATIONS, 0, k, 0, envelope.key, envelope.headers, envelope.value))

    def cut_of(rule: ExampleRule | None) -> Callable[[], None]:
        lanes = Lanes([Site(SiteSettings(), sae, D_IN, 0, rule)])

        def cut() -> None:
            partition = InputPartition(ACTIVATIONS, 0, lanes, Settings(), Position(b=0), 0, 0.0)
            for record in records:
                partition.take(record, 0.0)
            closed = partition.close()
            work, closed.cut.work = closed.cut.work, []
            add_statistics(work, encode_batch(sae, [(w.entry.shape, w.request) for w in work]))
            records_of(closed, 0)

        return cut

    hashed = ExampleRule(64, b"0123456789abcdef", Turns())
    name = f"a cut of {REQUESTS} requests with hashed examples of 64 features"
    return compare(name, cut_of(hashed), cut_of(None), "the same without")


def _decode() -> Row:
    acts = np.random.default_rng(0).standard_normal((TOKENS, D_IN)).astype(np.float16)
    snapshot = Snapshot(
        model_id="m", hook_name="h", request_id="r", acts=acts, acts_dtype="float16", request_tokens=TOKENS
    )
    envelope = encode_snapshot(snapshot, 0)
    raw = envelope.value or b""

    def decode() -> None:
        for _ in range(100):
            decode_snapshot(envelope.key, envelope.headers, raw, 1 << 20)

    def copy() -> None:
        for _ in range(100):
            np.frombuffer(raw, np.uint8).copy()

    return compare("decoding and checking 100 snapshots", decode, copy, "copying their bytes")


def _ticks() -> Iterator[Row]:
    """Windows in which 3 % of the features fire; of one lane, or of more in turn than a cache holds the states of."""
    streams, rng = 65_536, np.random.default_rng(0)
    detectors = [ADWIN() for _ in range(512)]  # a Python object a stream: 65,536 of them would take minutes
    row = (rng.random(len(detectors)) < 0.1).astype(float).tolist()

    def river_loop() -> None:
        for _ in range(streams // len(detectors)):
            for detector, value in zip(detectors, row, strict=True):
                detector.update(value)

    for n in (1, 32):
        p = rng.uniform(0.0, 0.06, streams) / n
        name = f"one e-SR tick of {streams} features, both directions, n = {n}"
        if n == 1:
            yield compare(name, _tick_of(1, n, p), river_loop, "river's ADWIN on as many streams")
        for lanes in (1, 8):
            tick, one_pass = _tick_of(lanes, n, p), _pass_of(lanes, streams)
            yield compare(f"{name}, lanes in turn: {lanes}", tick, one_pass, "a read and a write of its own state")
        tick = _tick_of(1, n, p, esr.value)
        yield compare(f"{name}, and its statistic", tick, _pass_of(1, streams), "a read and a write of its own state")


def _tick_of(
    lanes: int, n: int, p: NDArray[np.float64], then: Callable[[NDArray[np.float64]], Any] = id
) -> Callable[[], None]:
    """A tick of each lane."""
    rng = np.random.default_rng(1)
    counts = [rng.binomial(n, p) for _ in range(8)]
    windows = cycle([(np.flatnonzero(x), x[x > 0].astype(float)) for x in counts])
    states = [{d: np.zeros((len(esr.ODDS_RATIOS), len(p))) for d in DIRECTIONS} for _ in range(lanes)]

    def tick() -> None:
        for state in states:
            fired, x = next(windows)
            for direction in DIRECTIONS:
                state[direction] = esr.update(state[direction], n * 1e-5, n, p, direction, fired, x)
                then(state[direction])

    return tick


def _pass_of(lanes: int, streams: int) -> Callable[[], None]:
    """Each lane's state is read once, and another's, which is there already, is written once."""
    states = np.ones((2, lanes, len(DIRECTIONS), len(esr.ODDS_RATIOS), streams))

    def one_pass() -> None:
        for before, after in zip(*states, strict=True):
            np.multiply(before, 1.0, out=after)

    return one_pass


def _classical(name: str, river: Callable[[], Any]) -> Row:
    """`TICKS` updates of each stream, so that ADWIN makes one of its checks."""
    streams, few = 65_536, 512  # river's few objects stand for all: 65,536 of them would not fit in the cache
    rng = np.random.default_rng(0)
    xs = rng.standard_normal((TICKS, streams))
    detector, rivers = DETECTORS[name], [river() for _ in range(few)]
    config, rows = detector.config(), xs[:, :few].tolist()
    state = detector.start(config, streams)

    def ours() -> None:
        nonlocal state
        for x in xs:
            state, _ = detector.step(config, state, x)

    def river_loop() -> None:
        for _ in range(streams // few):
            for row in rows:
                for one, value in zip(rivers, row, strict=True):
                    one.update(value)

    for _ in range(OLD // TICKS):  # windows that are long already, as river's are after its first loop
        ours()
    title, items = f"{name} on {streams} streams", TICKS * streams
    return compare(title, ours, river_loop, "river's, an object a stream", items, "updates/s")
