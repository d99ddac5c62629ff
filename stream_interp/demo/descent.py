"""Adam in a few lines: `torch.optim` would load torch's compiler first, which takes longer than the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

BATCH, LEARNING_RATE = 512, 3e-3
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8  # Kingma and Ba's


def minimise(
    parameters: Sequence[torch.Tensor], loss_of: Callable[[torch.Tensor], torch.Tensor], n: int, steps: int, seed: int
) -> None:
    """Changes `parameters` in place, which require gradients.

    Args:
        parameters: what `loss_of` depends on.
        loss_of: mean loss of a batch, given as indices [BATCH] below `n`.
        n: size of the training set.
        steps: batches to draw.
        seed: of the draws.
    """
    draws = torch.Generator().manual_seed(seed)
    first = [torch.zeros_like(p) for p in parameters]
    second = [torch.zeros_like(p) for p in parameters]
    for step in range(1, steps + 1):
        loss = loss_of(torch.randint(n, (BATCH,), generator=draws))
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
                m.lerp_(g, 1 - _BETA_1)
                v.lerp_(g.square(), 1 - _BETA_2)
                spread = (v / (1 - _BETA_2**step)).sqrt_().add_(_EPSILON)
                p.addcdiv_(m, spread, value=-LEARNING_RATE / (1 - _BETA_1**step))
