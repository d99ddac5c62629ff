"""decode-clt's pickles, for `convert` alone: `rank_0_model.pt` and so on, or one state dict, `clt….pt`.

A run on several devices splits the features: each rank holds ⌈d_sae / ranks⌉ of them, the last ones padded; encoders
are split by rows, decoders by columns. What is not split every rank holds whole, thresholds too, though the tool's own
merger puts those of all ranks beside each other. `cfg.json` and `norm_stats.json` are beside it, or above the ranks'.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from stream_interp.errors import SAELoadError
from stream_interp.sae.checkpoint import Family, Hints, LayeredCheckpoint
from stream_interp.sae.files import MAX_JSON_BYTES, read_small, write_safetensors
from stream_interp.sae.formats.decode_clt import CONFIG_FILE, LATEST, STATISTICS_FILE, Config, assembled, read_config
from stream_interp.sae.formats.decode_clt_parts import MAX_STATISTICS_BYTES, Stored
from stream_interp.sae.pickles import open_pickle, tensors_of
from stream_interp.sae.tensors import LazyTensor

_RANK, _WHOLE = re.compile(r"rank_(0|[1-9][0-9]{0,4})_model\.pt"), "clt*.pt"
_SPLIT_BY_ROWS = re.compile(r"encoder_module\.encoders\..*\.(weight|bias_param)")
_SPLIT_BY_COLUMNS = re.compile(r"decoder_module\.decoders\..*\.weight")


def is_pickle_of_decode_clt(name: str) -> bool:
    """Whether a file is called as one of the tool's."""
    return bool(_RANK.fullmatch(name)) or Path(name).match(_WHOLE)


def _detect(root: Path) -> bool:
    files = root.iterdir() if root.is_dir() else [root]
    return any(is_pickle_of_decode_clt(file.name) and file.is_file() for file in files)


def _read(root: Path, hints: Hints) -> LayeredCheckpoint:
    files = _files(root)
    home = files[0].absolute().parent
    if _RANK.fullmatch(files[0].name) and not (home / CONFIG_FILE).is_file():
        home = home.parent
    cfg = read_config(home, hints)
    tensors = _together(files, [_state(file) for file in files], cfg)
    found = assembled(root, home, cfg, Stored(files[0], tensors))
    return replace(found, write=partial(_write, home, cfg, tensors))


FAMILY = Family("decode_clt", _detect, _read, convertible=True)


def _files(root: Path) -> list[Path]:
    """Of every rank, in order; or the one with the whole."""
    if root.is_file() and not _RANK.fullmatch(root.name):
        return [root]
    folder = root if root.is_dir() else root.absolute().parent
    ranks = {int(match[1]) for file in folder.iterdir() if (match := _RANK.fullmatch(file.name))}
    missing = next(i for i in range(len(ranks) + 1) if i not in ranks)
    if missing < len(ranks):
        expected = f"rank_{missing}_model.pt, and so on without a gap"
        raise SAELoadError("missing_file", str(folder), expected, f"ranks {sorted(ranks)[:50]}")
    if ranks:
        return [folder / f"rank_{i}_model.pt" for i in range(len(ranks))]
    whole = sorted(folder.glob(_WHOLE))
    if len(whole) != 1:
        reason, found = ("several_saes" if whole else "missing_file"), [file.name for file in whole[:50]]
        raise SAELoadError(
            reason, str(folder), f"rank_0_model.pt and so on, or one {_WHOLE}; give its path", str(found)
        )
    return whole


def _state(file: Path) -> dict[str, LazyTensor]:
    loaded = open_pickle(file)
    for name, value in loaded.items():
        if not isinstance(value, torch.Tensor):
            raise SAELoadError(
                "pickle", str(file), "a state dict, which holds tensors alone", f"{name[:80]}: {type(value)}"
            )
    tensors = tensors_of(file, loaded)
    for name in loaded.keys() - tensors.keys():
        raise SAELoadError("wrong_dtype", str(file), "floating-point tensors", f"{name[:80]} of another kind")
    return tensors


def _together(files: Sequence[Path], states: Sequence[dict[str, LazyTensor]], cfg: Config) -> dict[str, LazyTensor]:
    """The tensors of the whole. Raises SAELoadError: a rank has others, or another copy of what is not split."""
    described = [{name: (tensor.shape, tensor.dtype) for name, tensor in state.items()} for state in states]
    for file, this in zip(files, described, strict=True):
        if this != described[0]:
            found = sorted({name for name, _ in this.items() ^ described[0].items()})[:5]
            raise SAELoadError("unequal_ranks", str(file), f"tensors as in {files[0].name}", f"others: {found}")
    return {name: _joined(files, name, [state[name] for state in states], cfg.num_features) for name in states[0]}


def _joined(files: Sequence[Path], name: str, parts: Sequence[LazyTensor], n_features: int) -> LazyTensor:
    by_rows, by_columns = _SPLIT_BY_ROWS.fullmatch(name), _SPLIT_BY_COLUMNS.fullmatch(name)
    first = parts[0]
    if by_rows and first.shape:
        height = first.shape[0]
        shape = (_without_padding(height, len(parts), n_features), *first.shape[1:])
        return LazyTensor(shape, first.dtype, partial(_rows, parts, height))
    if by_columns and len(first.shape) == 2:
        width = _without_padding(first.shape[1], len(parts), n_features)
        return LazyTensor((first.shape[0], width), first.dtype, partial(_rows_side_by_side, parts, width))
    for file, part in zip(files[1:], parts[1:], strict=True):
        if not torch.equal(first.read(), part.read()):
            raise SAELoadError("unequal_ranks", str(file), f"{name} as in {files[0].name}: it is not split", "another")
    return first


def _without_padding(each: int, ranks: int, n_features: int) -> int:
    return n_features if n_features <= each * ranks < n_features + ranks else each * ranks


def _rows(parts: Sequence[LazyTensor], height: int, a: int, b: int) -> torch.Tensor:
    within = [(max(0, a - i * height), max(0, min(height, b - i * height))) for i in range(len(parts))]
    return torch.cat([part.read_rows(*rows) for part, rows in zip(parts, within, strict=True)])


def _rows_side_by_side(parts: Sequence[LazyTensor], width: int, a: int, b: int) -> torch.Tensor:
    return torch.cat([part.read_rows(a, b) for part in parts], dim=1)[:, :width]


def _write(home: Path, cfg: Config, tensors: dict[str, LazyTensor], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_bytes(read_small(home / CONFIG_FILE, MAX_JSON_BYTES))
    if cfg.normalisation == "mean_std":
        (folder / STATISTICS_FILE).write_bytes(read_small(home / STATISTICS_FILE, MAX_STATISTICS_BYTES))
    write_safetensors(folder / LATEST, tensors)
