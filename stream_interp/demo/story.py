"""The order of things: start, stream, learn, keep quiet, plant, find, tell."""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from msgspec import structs

from stream_interp.demo import sae_training, workers
from stream_interp.demo.credit_model import HIDDEN
from stream_interp.demo.narrative import Narrative
from stream_interp.demo.preparing import Prepared, prepare
from stream_interp.demo.scene import Scene, set_up
from stream_interp.demo.summary import summarise
from stream_interp.demo.table import TOP_FEATURES
from stream_interp.demo.verdict import Summary
from stream_interp.embedded import EmbeddedPair
from stream_interp.errors import StreamInterpError
from stream_interp.kafka.topics import apply_topics
from stream_interp.settings import KafkaSettings

_NOT_YET = {"unknown", "learning"}
QUIET_REQUESTS = 500  # healthy applications that the armed tests must let pass before the shift
_ONE_PARTITION = {"interp.activations": 1}  # so that the log's order is the order of the applications
_LEARN_LIMIT_S, _QUIET_LIMIT_S, _ALERT_LIMIT_S, _FEATURES_LIMIT_S = 90.0, 30.0, 20.0, 3.0


def tell(narrative: Narrative, seed: int) -> Summary:
    """Runs the whole demo; whatever happens, no process and no file of it is left behind.

    Args:
        narrative: where a person follows it.
        seed: of the training data, both trainings and the stream.

    Raises:
        DependencyUnreachable: a server did not start.
        StreamInterpError: a worker ended by itself, or the lane was not armed in time.
    """
    started_s = time.monotonic()
    narrative.notice()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stream-interp-demo-")))
        preparing = stack.enter_context(ThreadPoolExecutor(1)).submit(prepare, seed, folder)
        narrative.step("Starting Apache Kafka and Valkey; training a credit-risk network and its SAE meanwhile")
        pair = stack.enter_context(EmbeddedPair())
        narrative.say(f"Kafka at {pair.bootstrap}, Valkey at {pair.redis_url}")
        apply_topics(KafkaSettings(bootstrap=pair.bootstrap), partitions=_ONE_PARTITION)
        prepared = preparing.result()
        _introduce(narrative, prepared)
        env = workers.environment(os.environ, pair.bootstrap, pair.redis_url)
        started = stack.enter_context(workers.running(folder, prepared.sae, env))
        scene = stack.enter_context(set_up(pair, prepared, started, seed, narrative))
        status_before = _learn_and_keep_quiet(scene)
        if status_before == "ok" and not scene.watch.alerts:
            _plant_and_find(scene)
        summary = summarise(scene, seed, status_before)
        narrative.step("Stopping the processes and removing their data")
    summary = structs.replace(summary, seconds_total=round(time.monotonic() - started_s, 1))
    narrative.conclude(summary)
    return summary


def _introduce(narrative: Narrative, prepared: Prepared) -> None:
    narrative.say(f"The network judges {prepared.accuracy:.1%} of unseen loan applications rightly.")
    narrative.say(
        f"The SAE splits its hidden layer ({HIDDEN} wide) into {sae_training.D_SAE} features that explain "
        f"{prepared.explained_variance:.1%} of the variance: what an explanation of a credit decision would be made of."
    )


def _learn_and_keep_quiet(scene: Scene) -> str:
    """Streams healthy applications until the lane is armed and has let many pass. Returns the status then."""
    narrative, watch = scene.narrative, scene.watch
    narrative.step(f"Streaming applications; ENCODE and DETECT learn what normal is from {workers.BASELINE_REQUESTS}")
    narrative.say("Each application is one forward pass; `instrument` sends the hidden layer to Kafka on the side.")
    if not scene.play_until(lambda: bool(watch.alerts) or watch.status.state not in _NOT_YET, _LEARN_LIMIT_S):
        raise StreamInterpError(
            f"the lane was not armed within {_LEARN_LIMIT_S:.0f} s: status {watch.status.state} "
            f"({watch.status.reason}); {' '.join(process.last_lines() for process in scene.started)}"
        )
    narrative.step(f"The status is {watch.status.state}. Until the market shifts nothing may fire")
    scene.play_until(lambda: bool(watch.alerts) or _judged(scene) >= QUIET_REQUESTS, _QUIET_LIMIT_S)
    narrative.say(
        f"{_judged(scene)} healthy applications judged against the frozen baseline; alerts: {len(watch.alerts)}."
    )
    return watch.refresh().state


def _judged(scene: Scene) -> int:
    """Applications that the armed tests have judged."""
    lane = scene.watch.lane
    return lane.requests if lane is not None and lane.baseline is not None else 0


def _plant_and_find(scene: Scene) -> None:
    """Plants the shift and plays on until Redis says critical and the incident names features, or time is over."""
    narrative, traffic, watch = scene.narrative, scene.traffic, scene.watch
    traffic.plant()
    narrative.step(f"From application {traffic.planted_at_request} on the market has shifted")
    narrative.say("Salaries and house values fall, loans grow, applicants are younger. No label tells the network.")
    scene.play_until(lambda: bool(watch.alerts) and watch.status.state == "critical", _ALERT_LIMIT_S)
    scene.play_until(lambda: _features_drifted(scene) >= TOP_FEATURES, _FEATURES_LIMIT_S)
    narrative.say(f"Redis now says {watch.status.state}{f': {watch.status.reason}' if watch.status.reason else ''}.")
    if watch.status.state == "critical":
        narrative.say("The network went on answering without an error; what its explanations rest on had moved.")


def _features_drifted(scene: Scene) -> int:
    lane = scene.watch.lane
    return lane.incident.features_drifted if lane is not None and lane.incident is not None else 0
