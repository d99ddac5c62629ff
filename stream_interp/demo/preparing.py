"""The network and its SAE, trained on the spot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from stream_interp import sae as saes
from stream_interp.demo import applications, credit_model, sae_training

_TRAIN, _HELD_OUT = 10_000, 2_000


@dataclass(frozen=True)
class Prepared:
    """A trained network, the SAE of its hidden layer, and words for each of its features."""

    model: credit_model.CreditRisk
    sae: Path
    accuracy: float
    explained_variance: float
    meanings: list[str]


def prepare(seed: int, folder: Path) -> Prepared:
    """Trains both and saves the SAE in `folder`; the figures are of applications held out."""
    torch.set_num_threads(1)  # matrices this small gain nothing from more
    rows, risky = applications.sample(_TRAIN + _HELD_OUT, seed)
    inputs = torch.from_numpy(rows).float()
    model = credit_model.train(rows[:_TRAIN], risky[:_TRAIN], seed)
    acts = model.activations(inputs)
    path = folder / "sae"
    sae_training.save(sae_training.train(acts[:_TRAIN], seed), path, credit_model.HOOK)
    sae, held_out = saes.load(path, device="cpu"), acts[_TRAIN:]
    return Prepared(
        model=model,
        sae=path,
        accuracy=credit_model.accuracy(model, rows[_TRAIN:], risky[_TRAIN:]),
        explained_variance=sae_training.explained_variance(held_out, sae.reconstruct(held_out)),
        meanings=sae_training.meanings(sae.encode(acts), model.standardised(inputs), credit_model.NUMERIC),
    )
