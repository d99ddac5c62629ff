"""The model under watch: a small network that says how risky a loan is."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stream_interp.demo.applications import COLUMNS, Rows
from stream_interp.demo.descent import minimise

HIDDEN = 64
HOOK = "hidden"  # the submodule whose output is watched
_STEPS = 400

_NOMINAL = {"zipcode": 9, "car": 21}  # Agrawal numbers them 0…8 and 1…20
NUMERIC = tuple(name for name in COLUMNS if name not in _NOMINAL)
_NUMERIC_COLUMNS = [COLUMNS.index(name) for name in NUMERIC]


class CreditRisk(nn.Module):
    """Applications [n, 9] → log odds [n] that the loan is a risk. `hidden` gives [n, HIDDEN].

    Args:
        rows: [n, 9] applications whose mean and spread standardise the numeric attributes.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        numeric = torch.from_numpy(rows[:, _NUMERIC_COLUMNS]).float()
        self.register_buffer("mean", numeric.mean(0))
        self.register_buffer("std", numeric.std(0))
        d_in = len(NUMERIC) + sum(_NOMINAL.values())
        self.hidden = nn.Sequential(nn.Linear(d_in, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU())
        self.risk = nn.Linear(HIDDEN, 1)

    def forward(self, applications: torch.Tensor) -> torch.Tensor:
        """Log odds of risk, [n]."""
        codes = [
            nn.functional.one_hot(applications[:, COLUMNS.index(name)].long(), size) for name, size in _NOMINAL.items()
        ]
        inputs = torch.cat([self.standardised(applications), *codes], dim=1)
        odds: torch.Tensor = self.risk(self.hidden(inputs))
        return odds.squeeze(1)

    def standardised(self, applications: torch.Tensor) -> torch.Tensor:
        """The numeric attributes in spreads from their mean, [n, len(NUMERIC)]."""
        return (applications[:, _NUMERIC_COLUMNS] - self.mean) / self.std

    @torch.inference_mode()
    def activations(self, applications: torch.Tensor) -> torch.Tensor:
        """What the hook will see of them, [n, HIDDEN]."""
        seen: list[torch.Tensor] = []
        handle = self.hidden.register_forward_hook(lambda _module, _args, output: seen.append(output))
        try:
            self(applications)
        finally:
            handle.remove()
        return seen[0]


def train(rows: Rows, risky: NDArray[np.float64], seed: int) -> CreditRisk:
    """A network trained on applications [n, 9] and their labels [n]; the same for the same arguments."""
    torch.manual_seed(seed)
    model, labels = CreditRisk(rows), torch.from_numpy(risky).float()
    applications = torch.from_numpy(rows).float()

    def loss_of(chosen: torch.Tensor) -> torch.Tensor:
        return nn.functional.binary_cross_entropy_with_logits(model(applications[chosen]), labels[chosen])

    minimise(list(model.parameters()), loss_of, len(rows), _STEPS, seed)
    return model.eval()


@torch.inference_mode()
def accuracy(model: CreditRisk, rows: Rows, risky: NDArray[np.float64]) -> float:
    """Share of applications [n, 9] judged as their labels [n] say."""
    judged = model(torch.from_numpy(rows).float()) > 0
    return float((judged.numpy() == (risky > 0.5)).mean())
