"""What the caller of `load` adds to the files: taken where they lack it, never where it would be ignored."""

from __future__ import annotations

from math import isclose
from pathlib import Path
from typing import TypeVar

from stream_interp.errors import SAELoadError
from stream_interp.sae.checkpoint import Hints

_N = TypeVar("_N", int, float)


def agreed(root: Path, name: str, given: _N | None, stated: _N | None) -> _N | None:
    """What the caller gave or the files state; where both do, they must agree."""
    if given is None or stated is None:
        return stated if given is None else given
    agree = given == stated if isinstance(stated, int) else isclose(given, stated, rel_tol=1e-6)
    if not agree:
        raise SAELoadError(f"{name}_conflict", str(root), f"{name}={stated} as its files say", f"{name}={given}")
    return stated


def refuse_k(path: Path, hints: Hints, what: str) -> None:
    """Raises SAELoadError if a k was given for `what`, which selects none."""
    if hints.k is not None:
        raise SAELoadError("k_unused", str(path), f"no k= for architecture {what}", f"k={hints.k}")


def refuse_scale(path: Path, hints: Hints, what: str) -> None:
    """Raises SAELoadError if a factor was given for `what`, which multiplies by none."""
    if hints.activation_scale is not None:
        raise SAELoadError(
            "activation_scale_unused", str(path), f"no activation_scale= with {what}", f"{hints.activation_scale}"
        )
