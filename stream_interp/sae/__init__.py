"""From a checkpoint to features: `load` any supported SAE, `encode`, `reconstruct`. Importing this imports no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stream_interp.sae.config import SAEConfig as SAEConfig
    from stream_interp.sae.converting import convert as convert
    from stream_interp.sae.encoder import SAE as SAE
    from stream_interp.sae.formats.saelens_writer import save_saelens as save_saelens
    from stream_interp.sae.layered import LayeredSAE as LayeredSAE
    from stream_interp.sae.loading import load as load
    from stream_interp.sae.loading import load_encoder as load_encoder

_HOME = {
    "SAE": "stream_interp.sae.encoder",
    "SAEConfig": "stream_interp.sae.config",
    "LayeredSAE": "stream_interp.sae.layered",
    "convert": "stream_interp.sae.converting",
    "load": "stream_interp.sae.loading",
    "load_encoder": "stream_interp.sae.loading",
    "save_saelens": "stream_interp.sae.formats.saelens_writer",
}

__all__ = ["SAE", "LayeredSAE", "SAEConfig", "convert", "load", "load_encoder", "save_saelens"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
