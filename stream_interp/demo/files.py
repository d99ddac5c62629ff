"""The demo's world as files, for the tour in the README: an SAE, and activations to learn from and to test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from stream_interp.demo import applications
from stream_interp.demo.applications import Rows
from stream_interp.demo.credit_model import CreditRisk
from stream_interp.demo.preparing import prepare
from stream_interp.errors import UsageError

BASELINE, NULL, SHIFTED = 2_000, 1_000, 500  # applications


@dataclass(frozen=True)
class Files:
    """Where everything was written."""

    sae: Path
    baseline: Path
    null: Path
    shift: Path


def write_files(folder: Path, seed: int) -> Files:
    """Trains network and SAE, and writes the activations of three groups of other applications into `folder`.

    Raises:
        UsageError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made a folder ({error.strerror}); name another") from error
    prepared = prepare(seed, folder)
    rows, _ = applications.sample(BASELINE + NULL + SHIFTED, seed + 1)
    healthy, shifted = rows[: BASELINE + NULL], applications.after_market_shift(rows[BASELINE + NULL :])
    return Files(
        sae=prepared.sae,
        baseline=_write(folder / "baseline.safetensors", prepared.model, healthy[:BASELINE]),
        null=_write(folder / "null.safetensors", prepared.model, healthy[BASELINE:]),
        shift=_write(folder / "shift.safetensors", prepared.model, shifted),
    )


def _write(path: Path, model: CreditRisk, rows: Rows) -> Path:
    """One application is one request of one token."""
    acts = model.activations(torch.from_numpy(rows).float()).numpy()
    save_file({"acts": acts, "doc_id": np.arange(len(acts), dtype=np.int32)}, path)
    return path
