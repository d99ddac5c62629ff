"""Everything that runs at once while the story is told, and the loop that drives it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from stream_interp.capture import SnapshotProducer
from stream_interp.demo import applications, workers
from stream_interp.demo.narrative import Narrative
from stream_interp.demo.preparing import Prepared
from stream_interp.demo.traffic import BATCH, Traffic
from stream_interp.demo.watch import Watch, applications_behind
from stream_interp.embedded import EmbeddedPair
from stream_interp.embedded.process import GuardedProcess
from stream_interp.kafka.subscribe import AlertSubscriber
from stream_interp.status.client import StatusClient

MODEL_ID = "credit-risk"
_STREAM_SEED = 1_000_000  # added to the seed: other applications than the network was trained on
_LOOK_S = 0.02


@dataclass(frozen=True)
class Scene:
    """The actors, and who tells of them."""

    prepared: Prepared
    producer: SnapshotProducer
    traffic: Traffic
    watch: Watch
    started: tuple[GuardedProcess, ...]
    narrative: Narrative

    def play_until(self, is_over: Callable[[], bool], limit_s: float) -> bool:
        """Streams and watches until `is_over()`; False if that took longer than `limit_s`.

        Raises:
            StreamInterpError: ENCODE or DETECT ended by itself.
        """
        deadline_s = time.monotonic() + limit_s
        meanings = self.prepared.meanings
        with self.narrative.following(self.watch, self.traffic, meanings) as show:
            while not is_over():
                workers.check(self.started)
                self.traffic.send_due(self.watch.reported)
                alert = self.watch.look(_LOOK_S)
                show()
                if alert is not None:
                    self.narrative.alert(alert, applications_behind(alert), meanings)
                if time.monotonic() > deadline_s:
                    return is_over()
        return True


@contextmanager
def set_up(
    pair: EmbeddedPair, prepared: Prepared, started: tuple[GuardedProcess, ...], seed: int, narrative: Narrative
) -> Iterator[Scene]:
    """Connects producer, subscriber and status client; closes them."""
    with (
        SnapshotProducer(pair.bootstrap, model_id=MODEL_ID) as producer,
        AlertSubscriber(pair.bootstrap, from_beginning=True) as subscriber,
        StatusClient(pair.redis_url) as client,
    ):
        batches = applications.batches(seed + _STREAM_SEED, BATCH)
        traffic = Traffic(prepared.model, producer, batches, time.monotonic)
        watch = Watch(client, subscriber, MODEL_ID, time.monotonic)
        yield Scene(prepared, producer, traffic, watch, started, narrative)
