"""`pipeline`: snapshots in memory to closed windows. `kafka`: the same from the topic, on the broker of the tests."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator

from stream_interp import sae as saes
from stream_interp.capture import SnapshotProducer
from stream_interp.embedded.pair import EmbeddedPair
from stream_interp.encode.batching import Batches
from stream_interp.encode.encoder import encode_batch
from stream_interp.encode.lanes import Lanes, Site
from stream_interp.encode.open_cut import ClosedCut, Work
from stream_interp.encode.outgoing import records_of
from stream_interp.encode.partition import InputPartition
from stream_interp.encode.position import Position
from stream_interp.encode.process import ACTIVATIONS, Encode
from stream_interp.kafka.topics import apply_topics
from stream_interp.records.consumed import Consumed
from stream_interp.records.snapshot import Snapshot, encode_snapshot
from stream_interp.sae.encoder import SAE
from stream_interp.settings import KafkaSettings, SaeSettings, Settings, SiteSettings
from tests.bench.encode import into_windows
from tests.bench.lanes import HOOK, MODEL, firing_sae, snapshots
from tests.bench.measure import Row, compare, seconds

D_IN, D_SAE, L0, REQUESTS, POLL_RECORDS, KAFKA_ROUNDS = 576, 4_608, 33, 400, 64, 5


def rows() -> Iterator[Row]:
    """Records in memory, against the SAE alone on the same tokens."""
    sae, items = firing_sae(D_IN, D_SAE, L0), snapshots(D_IN, REQUESTS)
    records, tokens = _records(items), sum(len(s.acts) for s in items)
    name = f"pipeline {D_IN} x {D_SAE}: records in memory to window records, a lane in fit"

    def encode() -> None:
        for start in range(0, len(items), POLL_RECORDS):
            encode_batch(sae, [(work.entry.shape, work.request) for work in waiting[start : start + POLL_RECORDS]])

    waiting = _waiting(sae, records)
    yield compare(name, lambda: _windows(sae, records), encode, "its statistics alone", tokens, "tokens/s")


def kafka_rows() -> Iterator[Row]:
    """ENCODE itself on one partition, from the first batch it has encoded to the last, against `pipeline`.

    Both multiply in float32: what it takes to measure the dtypes, once a lane, is no part of the way from the topic.
    """
    items = snapshots(D_IN, REQUESTS)
    records, tokens = _records(items), sum(len(s.acts) for s in items)
    with tempfile.TemporaryDirectory() as folder, EmbeddedPair() as pair:
        apply_topics(KafkaSettings(bootstrap=pair.bootstrap), {ACTIVATIONS: 1}, replication=1)
        made = firing_sae(D_IN, D_SAE, L0).canonical
        saes.save_saelens(folder, made.W_enc, made.b_enc, made.W_dec, made.b_dec, threshold=made.threshold)  # type: ignore[arg-type]
        sae = saes.load(folder)
        _send(pair.bootstrap, items)
        pairs = [(_kafka_tokens_per_s(pair.bootstrap, folder, k), tokens / seconds(lambda: _windows(sae, records)))
                 for k in range(KAFKA_ROUNDS)]  # fmt: skip
    low, middle, high = statistics.quantiles([a / b for a, b in pairs], n=4)
    value = statistics.median(a for a, _ in pairs)
    yield Row(f"kafka {D_IN} x {D_SAE}: topic to windows", value, "tokens/s", middle, low, high, "pipeline")


def _records(items: list[Snapshot]) -> list[Consumed]:
    envelopes = [encode_snapshot(snapshot, 0) for snapshot in items]
    return [Consumed(ACTIVATIONS, 0, k, 0, e.key, e.headers, e.value) for k, e in enumerate(envelopes)]


def _partition(sae: SAE) -> InputPartition:
    lanes = Lanes([Site(SiteSettings(), sae, sae.d_in)])
    return InputPartition(ACTIVATIONS, 0, lanes, Settings(), Position(b=0), 0, time.monotonic())


def _waiting(sae: SAE, records: list[Consumed]) -> list[Work]:
    partition = _partition(sae)
    for record in records:
        partition.take(record, 0.0)
    return partition.cut.work


def _windows(sae: SAE, records: list[Consumed]) -> None:
    """What ENCODE does in a turn, without Kafka."""
    partition, batches = _partition(sae), Batches(into_windows)
    for start in range(0, len(records), POLL_RECORDS):
        closed: list[ClosedCut] = []
        for record in records[start : start + POLL_RECORDS]:
            partition.take(record, time.monotonic())
            if partition.due <= time.monotonic():
                closed.append(partition.close())
        if start + POLL_RECORDS >= len(records):
            closed.append(partition.close())
        batches.work_off([c.cut for c in closed], [partition.cut])
        for cut in closed:
            records_of(cut, 0)


def _send(bootstrap: str, items: list[Snapshot]) -> None:
    with SnapshotProducer(bootstrap, model_id=MODEL) as producer:
        for snapshot in items:
            while not producer.send(HOOK, snapshot.request_id, snapshot.acts):
                time.sleep(0.05)


def _kafka_tokens_per_s(bootstrap: str, folder: str, k: int) -> float:
    settings = Settings(
        kafka=KafkaSettings(bootstrap=bootstrap, group_prefix=f"bench{k}"),
        sae=SaeSettings(device="cpu", dtype="float32"), sites=[SiteSettings(sae=folder)],
    )  # fmt: skip
    encode, stop = Encode(settings, lambda _: None), threading.Event()
    thread = threading.Thread(target=encode.run, args=(stop,))
    thread.start()
    try:
        began = (0, 0.0)
        while encode.progress[0] < REQUESTS:
            if not began[0] and encode.progress[1]:
                began = (encode.progress[1], time.perf_counter())
            time.sleep(0.001)
        return (encode.progress[1] - began[0]) / (time.perf_counter() - began[1])
    finally:
        stop.set()
        thread.join()
