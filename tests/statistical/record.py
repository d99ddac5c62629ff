"""`python -m tests.statistical.record STREAMS SAE`: makes `smollm2_l15.npz` from activation files and an SAE.

STREAMS holds english_baseline, english_null and python_code (.safetensors, 24 tokens a request); SAE is a folder that
`sae inspect` reads. Coordinates are an invertible map's first 32: whoever whitens them anew loses nothing of them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from stream_interp.encode.requests import massive_tokens, squares
from stream_interp.sae.loading import load_encoder
from tests.statistical.recorded import (
    COORDINATE_STEP,
    COORDINATES,
    D_SAE,
    ENGLISH,
    MASSIVE,
    UNIT_TOKENS,
    VALUE_STEP,
    Stored,
)

STREAMS = ("english_baseline", "english_null", "python_code")


def record(x: NDArray[np.float32], sae_folder: Path) -> Stored:
    """Of tokens [n · UNIT_TOKENS, d_in]."""
    of_x = squares(x)
    ordinary = ~massive_tokens(of_x, x.shape[1], MASSIVE)
    sae, tokens = load_encoder(sae_folder), torch.from_numpy(x)
    fired = sae.firings(tokens)
    error = (tokens - sae.reconstruct_from(tokens, fired)).norm(dim=1).numpy()
    request, largest = fired.token.numpy() // UNIT_TOKENS, fired.value.numpy()
    own = ordinary[fired.token.numpy()]
    key, place, count = np.unique(
        request[own] * D_SAE + fired.feature.numpy()[own], return_inverse=True, return_counts=True
    )
    top = np.zeros(len(key))
    np.maximum.at(top, place, largest[own])
    n, coordinates = len(x) // UNIT_TOKENS, _coordinates(x, ordinary)
    return Stored(
        coordinates=coordinates.reshape(n, UNIT_TOKENS, COORDINATES),
        norm=_distinct(np.sqrt(of_x.total).astype(np.float16), coordinates).reshape(n, UNIT_TOKENS),
        error=np.minimum(error, np.finfo(np.float16).max).astype(np.float16).reshape(n, UNIT_TOKENS),
        fired=np.bincount(key // D_SAE, minlength=n).astype(np.uint16),
        feature=np.diff(key % D_SAE, prepend=0).astype(np.uint16),
        tokens=count.astype(np.uint8),
        largest=np.round(np.log(top) / VALUE_STEP).astype(np.uint8),
    )


def _distinct(norm: NDArray[np.float16], coordinates: NDArray[np.int8]) -> NDArray[np.float16]:
    """Norms, some larger by a last bit, with which no two tokens are the same: paragraphs begin alike."""
    seen, norm = set[tuple[bytes, float]](), norm.copy()
    for k, row in enumerate(coordinates):
        while (token := (row.tobytes(), float(norm[k]))) in seen:
            norm[k] = np.nextafter(norm[k], np.float16(np.inf))
        seen.add(token)
    return norm


def _coordinates(x: NDArray[np.float32], ordinary: NDArray[np.bool_]) -> NDArray[np.int8]:
    english = x[: ENGLISH * UNIT_TOKENS][ordinary[: ENGLISH * UNIT_TOKENS]].astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(english.T))
    z = (x - english.mean(axis=0)) @ (vectors[:, :COORDINATES] / np.sqrt(values[:COORDINATES]))
    return np.clip(np.round(z / COORDINATE_STEP), -127, 127).astype(np.int8)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    acts = np.concatenate([load_file(folder / f"{name}.safetensors")["acts"] for name in STREAMS])
    stored = record(acts.astype(np.float32), Path(sys.argv[2]))
    np.savez_compressed(Path(__file__).with_name("smollm2_l15.npz"), **stored._asdict())
