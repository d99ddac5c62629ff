"""Small SAELens checkpoints made on the spot, good and broken ones."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from stream_interp.errors import SAELoadError

D_IN, D_SAE = 8, 24
Write = Callable[..., Path]


def weights(seed: int = 0, threshold: bool = True) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    tensors = {
        "W_enc": random(D_IN, D_SAE),
        "b_enc": random(D_SAE),
        "W_dec": random(D_SAE, D_IN),
        "b_dec": random(D_IN),
    }
    return tensors | ({"threshold": random(D_SAE).abs()} if threshold else {})


def config(**changes: Any) -> dict[str, Any]:
    cfg: dict[str, Any] = {
        "architecture": "jumprelu", "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.54.12", "model_name": "toy", "hook_name": "blocks.0.hook_resid_post"},
    }  # fmt: skip
    return {key: value for key, value in (cfg | changes).items() if value is not ...}


@contextmanager
def refused_at_once() -> Iterator[pytest.ExceptionInfo[SAELoadError]]:
    """Within a second, of this thread's own: what busy neighbours take does not count."""
    began = time.thread_time()
    with pytest.raises(SAELoadError) as caught:
        yield caught
    assert time.thread_time() - began < 1


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(tensors=…, name=…, **config changes)` -> the folder; a config value of `...` removes the field."""

    def _write(tensors: dict[str, torch.Tensor] | None = None, name: str = "sae", **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        kept = weights(threshold=changes.get("architecture", "jumprelu") == "jumprelu") if tensors is None else tensors
        save_file(kept, folder / "sae_weights.safetensors")
        (folder / "cfg.json").write_text(json.dumps(config(**changes)))
        return folder

    return _write


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Path]:
    """`golden(name)` -> its folder."""
    return lambda name: Path(__file__).parent / "golden" / name
