"""A TopK SAE on the network's hidden layer, and words for what its features stand for."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn.functional import normalize

from stream_interp.demo.descent import minimise
from stream_interp.sae.formats.saelens_writer import save_saelens

D_SAE, K = 256, 8
_STEPS = 400
_TELLING = 0.5  # spreads from the mean at which an attribute names a feature


class Weights(NamedTuple):
    """W_enc [d_in, D_SAE], b_enc [D_SAE], W_dec [D_SAE, d_in], b_dec [d_in]."""

    W_enc: torch.Tensor
    b_enc: torch.Tensor
    W_dec: torch.Tensor
    b_dec: torch.Tensor


def train(acts: torch.Tensor, seed: int) -> Weights:
    """An SAE that rebuilds `acts` [n, d_in] from K of D_SAE features; the same for the same arguments."""
    torch.manual_seed(seed)
    W_dec = torch.randn(D_SAE, acts.shape[1])
    weights = Weights(normalize(W_dec, dim=1).T.clone(), torch.zeros(D_SAE), W_dec, acts.mean(0))
    for tensor in weights:
        tensor.requires_grad_()

    def loss_of(chosen: torch.Tensor) -> torch.Tensor:
        x = acts[chosen]
        return (x - _rebuilt(_directed(weights), x)).square().sum(1).mean()

    minimise(weights, loss_of, len(acts), _STEPS, seed)
    return Weights(*(tensor.detach() for tensor in _directed(weights)))


def save(weights: Weights, folder: Path, hook_name: str) -> None:
    """Writes it as SAELens saves one, where ENCODE will load it from."""
    save_saelens(folder, *weights, k=K, metadata={"hook_name": hook_name})


def explained_variance(x: torch.Tensor, rebuilt: torch.Tensor) -> float:
    """1 − Σ‖x − x̂‖² / Σ‖x − mean‖², of [n, d_in]."""
    return float(1 - (x - rebuilt).square().sum() / (x - x.mean(0)).square().sum())


def meanings(feature_acts: torch.Tensor, standardised: torch.Tensor, names: tuple[str, ...]) -> list[str]:
    """What each feature stands for, such as ``high loan, low age``: the attributes that differ most where it fires.

    Args:
        feature_acts: [n, d_sae].
        standardised: [n, len(names)] attributes in spreads from their mean.
        names: of the attributes.
    """
    fired = (feature_acts > 0).float()
    means = (fired.T @ standardised) / fired.sum(0).clamp(min=1)[:, None]
    return [_meaning(row, names) for row in means]


def _meaning(mean: torch.Tensor, names: tuple[str, ...]) -> str:
    strongest = mean.abs().argsort(descending=True)[:2].tolist()
    words = [f"{'high' if mean[i] > 0 else 'low'} {names[i]}" for i in strongest if abs(mean[i]) >= _TELLING]
    return ", ".join(words) or "a mix"


def _directed(weights: Weights) -> Weights:
    """Features are directions of length 1: their size lives in the activations."""
    return weights._replace(W_dec=normalize(weights.W_dec, dim=1))


def _rebuilt(weights: Weights, x: torch.Tensor) -> torch.Tensor:
    before = torch.relu((x - weights.b_dec) @ weights.W_enc + weights.b_enc)
    top = before.topk(K, dim=1)
    acts = torch.zeros_like(before).scatter(1, top.indices, top.values)
    return acts @ weights.W_dec + weights.b_dec
