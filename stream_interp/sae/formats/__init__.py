"""The families of checkpoints: one file each, one line each in `FAMILIES`. decode-clt has two: pickles, and others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NoReturn

from stream_interp.errors import SAELoadError
from stream_interp.sae.checkpoint import Family
from stream_interp.sae.files import PICKLE_SUFFIXES
from stream_interp.sae.formats import (
    circuit_tracer,
    decode_clt,
    decode_clt_pickles,
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    gemma_scope_2_clt,
    llama_scope,
    openai,
    qwen_scope,
    saelens,
    sparsify,
)

FAMILIES: tuple[Family, ...] = (
    saelens.FAMILY,
    sparsify.FAMILY,
    gemma_scope.FAMILY,
    gemma_scope_2.FAMILY,
    gemma_scope_2_clt.FAMILY,
    llama_scope.FAMILY,
    circuit_tracer.FAMILY,
    decode_clt.FAMILY,
    decode_clt_pickles.FAMILY,
    dictionary_learning.FAMILY,
    openai.FAMILY,
    qwen_scope.FAMILY,
)

CONVERT = "files that cannot execute code; `stream-interp sae convert SRC DST` makes such from a pickle you trust"

_SEARCH_DEPTH, _SEARCH_FOLDERS = 3, 1_000


def find_family(root: Path, name: str | None, *, pickled: bool = False) -> Family:
    """The family called `name`, else the one whose files lie at `root`, among the pickled ones or the others.

    Raises:
        SAELoadError: no such path or family, none or several recognised, or several SAEs below `root`.
    """
    if not root.exists():
        raise SAELoadError("missing_path", str(root), "a folder with one SAE", "nothing there")
    known = {family.name: family for family in FAMILIES}
    if name is not None and name not in known:
        raise SAELoadError("unknown_family", str(root), f"one of {sorted(known)}", name)
    matching = [family for family in FAMILIES if (family.detect(root) if name is None else family.name == name)]
    readable = [family for family in matching if family.convertible == pickled]
    if len(readable) > 1:
        names = [family.name for family in readable]
        raise SAELoadError("several_families", str(root), "files of one family; give family=", str(names))
    if not readable:
        _refuse(root, matching, pickled)
    return readable[0]


def _refuse(root: Path, matching: list[Family], pickled: bool) -> NoReturn:
    if matching and pickled:
        found = f"files of {matching[0].name}, which `load` reads as they are"
        raise SAELoadError("nothing_to_convert", str(root), "a pickled SAE", found)
    if matching:
        raise SAELoadError("pickle", str(root), CONVERT, f"a pickle of {matching[0].name}")
    below = sorted(str(folder.relative_to(root)) for folder in _folders(root) if _detected(folder))
    if below:
        reason = "several_saes" if len(below) > 1 else "sae_below"
        raise SAELoadError(reason, str(root), "the folder of one SAE; give one of these", ", ".join(below[:50]))
    files = sorted(child.name for child in islice(root.iterdir(), 1_000)) if root.is_dir() else [root.name]
    pickles = [name for name in files if Path(name).suffix in PICKLE_SUFFIXES]
    if pickles and not pickled:
        raise SAELoadError("pickle", str(root), CONVERT, f"pickles {pickles[:20]}")
    families = ", ".join(family.name for family in FAMILIES if family.convertible == pickled)
    raise SAELoadError("unknown_family", str(root), f"the files of one of {families}", f"{files[:20]}")


def _detected(folder: Path) -> bool:
    return any(family.detect(folder) for family in FAMILIES)


def _folders(root: Path) -> Iterator[Path]:
    """Folders below `root`, bounded in depth and number: someone may have given their home folder."""
    walk = os.walk(root)
    for folder, children, _ in islice(walk, _SEARCH_FOLDERS):
        path = Path(folder)
        if len(path.relative_to(root).parts) >= _SEARCH_DEPTH:
            children.clear()
        if path != root:
            yield path
