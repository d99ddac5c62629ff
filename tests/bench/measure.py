"""Two things in turn in one run: their ratio, median and quartiles. Absolute figures depend on the machine."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

ROUNDS = 9


@dataclass(frozen=True)
class Row:
    """One measurement: `value` in `unit`, and as a ratio to something else, with its quartiles; None: no ratio."""

    name: str
    value: float
    unit: str
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    ratio_to: str = ""

    def __str__(self) -> str:
        line = f"{self.name:<74} {self.value:>12,.4g} {self.unit:<10}"
        if self.ratio is None:
            return line
        return f"{line} {self.ratio:7.3g} ({self.ratio_low:.3g}-{self.ratio_high:.3g}) of {self.ratio_to}"


def compare(
    name: str, ours: Callable[[], Any], other: Callable[[], Any], ratio_to: str, items: int = 0, unit: str = "ms"
) -> Row:
    """`ours` and `other` in turn, ROUNDS times.

    With `items`, both work on as many: value and ratio are speeds, in `unit`; otherwise they are times.
    """
    ours(), other()
    pairs = [(seconds(ours), seconds(other)) for _ in range(ROUNDS)]
    low, middle, high = statistics.quantiles([(b / a if items else a / b) for a, b in pairs], n=4)
    taken_s = statistics.median(a for a, _ in pairs)
    return Row(name, items / taken_s if items else taken_s * 1e3, unit, middle, low, high, ratio_to)


def seconds(run: Callable[[], Any]) -> float:
    """How long it takes, with what it left to do on a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def environment() -> dict[str, Any]:
    """What the figures depend on."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    cpu = next((line.split(":")[1].strip() for line in lines if "name" in line), platform.processor())
    return {
        "cpu": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(), "python": platform.python_version(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }  # fmt: skip


def as_json(row: Row, of: dict[str, Any]) -> dict[str, Any]:
    """A row as one JSON object."""
    return {**asdict(row), "environment": of}
