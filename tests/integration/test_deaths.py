"""DETECT, ENCODE and NOTIFY killed -9, one at a time: somebody hears of each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from stream_interp.settings import NotifySettings
from tests.notify.bench import Bench, receiver
from tests.workers import Worker, until

AFTER_S = 15.0  # instead of the default, so that the test is short
SLACK_S = 60.0 - NotifySettings().silent_after_s  # what may come on top of it


@contextmanager
def started(bench: Bench, command: str) -> Iterator[Worker]:
    worker = Worker([command], bench.kafka, bench.folder, "0", {**bench.options, "redis.url": ""})
    try:
        yield worker
    finally:
        worker.end()


def wait_for_heartbeat(bench: Bench, worker: Worker) -> None:
    beat = f':{worker.process.pid}"'.encode()
    until(lambda: any(beat in value for value in bench.values("interp.heartbeat")), worker)


def test_each_process_killed_is_told_in_time(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> None:
    bench = Bench(kafka_bootstrap, topic_prefix, tmp_path)
    bench.apply_topics()
    with receiver() as hook, receiver() as outside:
        watcher = {"name": "outside", "type": "deadman", "url": outside.url, "allow": ["127.0.0.1"], "interval_s": 1.0}
        sinks = json.dumps([*json.loads(bench.sinks(hook)), watcher])
        with (
            bench.worker(sinks, notify__silent_after_s=str(AFTER_S)) as notify,
            started(bench, "detect") as detect, started(bench, "encode") as encode,
        ):  # fmt: skip
            until(lambda: "records read in" in notify.text, notify)
            for victim in (detect, encode):
                wait_for_heartbeat(bench, victim)
            time.sleep(1.0)  # NOTIFY has heard them, too
            for told, victim in enumerate((detect, encode)):
                killed_s = time.time()
                victim.kill()
                until(partial(hook.took_more_than, told), notify)
                page = hook.calls[told]
                assert page.body["data"]["title"].endswith(f":{victim.process.pid}")
                assert page.at_s - killed_s < AFTER_S + SLACK_S
            assert outside.took_more_than(round(AFTER_S))
            notify.kill()
            time.sleep(0.5)  # a call that was under way
            known = len(outside.calls)
            time.sleep(3.0)
            assert len(outside.calls) == known
