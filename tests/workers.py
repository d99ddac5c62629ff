"""A real ENCODE or DETECT process under test: started with settings, watched by its log, ended or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from stream_interp.settings import KafkaSettings

ROOT = Path(__file__).parents[1]


class Worker:
    """`stream-interp COMMAND` in a process of its own.

    Args:
        command: the command and its own options.
        kafka: where it works.
        folder: its working folder, where its log lies.
        instance: `kafka.instance`.
        options: further settings by dotted name.
    """

    def __init__(
        self, command: list[str], kafka: KafkaSettings, folder: Path, instance: str, options: dict[str, str]
    ) -> None:
        given = {
            "kafka.topic_prefix": kafka.topic_prefix, "kafka.group_prefix": kafka.group_prefix,
            "kafka.instance": instance, **options,
        }  # fmt: skip
        words = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
        self.log = folder / f"{command[0]}-{instance}-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stream_interp.cli", *command, "--bootstrap", kafka.bootstrap, *words],
                cwd=folder, stdout=log, stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    @property
    def text(self) -> str:
        return self.log.read_text()

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)

    def end(self) -> None:
        if self.process.poll() is None:
            self.kill()


def until(true: Callable[[], object], worker: Worker, timeout_s: float = 90.0) -> None:
    """Waits; fails with the worker's log if it ends or takes too long."""
    deadline_s = time.monotonic() + timeout_s
    while not true():
        assert worker.process.poll() is None, worker.text
        assert time.monotonic() < deadline_s, worker.text
        time.sleep(0.2)
