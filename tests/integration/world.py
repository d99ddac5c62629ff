"""A small world on disk, and the command line as a user runs it: an SAE, activation files, processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from stream_interp import sae

D_IN, D_SAE, TOKENS = 32, 96, 6
MODEL, HOOK = "toy", "layer.1"


def write_sae(folder: Path) -> Path:
    """A JumpReLU SAE with random directions."""
    W_enc = torch.randn(D_IN, D_SAE, generator=torch.Generator().manual_seed(1)) / D_IN**0.5
    W_dec = torch.linalg.pinv(W_enc)
    sae.save_saelens(folder, W_enc, torch.zeros(D_SAE), W_dec, torch.zeros(D_IN), threshold=1.2)
    return folder


def write_activations(path: Path, requests: int, seed: int, shift: float = 0.0) -> Path:
    """Standard normal tokens; `shift` moves half of the coordinates."""
    rng = np.random.default_rng(seed)
    acts = rng.standard_normal((requests * TOKENS, D_IN))
    acts[:, : D_IN // 2] += shift
    doc_id = np.repeat(np.arange(requests, dtype=np.int32), TOKENS)
    save_file({"acts": acts.astype(np.float32), "doc_id": doc_id}, path)
    return path


@dataclass(frozen=True)
class CommandLine:
    """`stream-interp` against the given servers, with settings in the environment."""

    bootstrap: str
    redis_url: str
    topic_prefix: str
    folder: Path
    settings: dict[str, str]

    def run(self, *words: str | Path, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """One command to its end."""
        return subprocess.run(
            self._words(words), capture_output=True, text=True, timeout=timeout_s, env=self._env(), cwd=self.folder
        )

    def ok(self, *words: str | Path) -> str:
        """One command that must succeed; its stdout."""
        done = self.run(*words)
        assert done.returncode == 0, (words, done.returncode, done.stderr[-2000:])
        return done.stdout

    def json(self, *words: str | Path) -> Any:
        """The JSON a command says."""
        return json.loads(self.ok(*words, "--json"))

    @contextmanager
    def process(self, *words: str | Path) -> Iterator[subprocess.Popen[str]]:
        """A long-running command; ended by SIGTERM, which must end it with 0 unless the test killed it."""
        log = (self.folder / f"{'-'.join(map(str, words[:1]))}-{time.monotonic_ns()}.log").open("w+")
        worker = subprocess.Popen(
            self._words(words), stdout=log, stderr=log, text=True, env=self._env(), cwd=self.folder
        )
        try:
            yield worker
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
                worker.wait(30)
            log.seek(0)
            assert worker.returncode in (0, -signal.SIGKILL), log.read()[-3000:]
        finally:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
            log.close()

    def status(self) -> Any:
        """What `status` says of the model, whatever its exit code."""
        return json.loads(self.run("status", MODEL, "--json").stdout)

    def wait_for_state(self, *states: str, timeout_s: float = 60.0) -> Any:
        """The status once it is one of the states."""
        return self.wait_for(lambda status: status["state"] in states, timeout_s)

    def wait_for(self, holds: Any, timeout_s: float = 60.0) -> Any:
        """The status once a condition on it holds; it may expire while the machine is busy, and then says nothing."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            status = self.status()
            if status["lanes"] and holds(status):
                return status
            time.sleep(0.3)
        raise AssertionError(f"not reached within {timeout_s} s; the last status was {status}")

    def alerts(self) -> list[Any]:
        """All alerts so far, as a subscriber reads them."""
        out = self.ok("alerts", "tail", "--json", "--from-beginning", "--timeout", "3")
        return [json.loads(line) for line in out.splitlines()]

    def _words(self, words: tuple[str | Path, ...]) -> list[str]:
        return [sys.executable, "-m", "stream_interp.cli", *map(str, words)]

    def _env(self) -> dict[str, str]:
        own = {
            "KAFKA__BOOTSTRAP": self.bootstrap,
            "KAFKA__TOPIC_PREFIX": self.topic_prefix,
            "KAFKA__GROUP_PREFIX": self.topic_prefix + "g",
            "REDIS__URL": self.redis_url,
            **self.settings,
        }
        return os.environ | {f"STREAM_INTERP_{name}": value for name, value in own.items()}
