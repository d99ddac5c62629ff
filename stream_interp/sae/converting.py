"""`convert`: a pickled SAE becomes files that `load` reads. The only way in which a pickle is opened."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from stream_interp.errors import SAELoadError, UsageError
from stream_interp.sae.checkpoint import Checkpoint, Hints, LayeredCheckpoint, check_shapes, require_finite, shapes
from stream_interp.sae.fingerprint import Fingerprint
from stream_interp.sae.formats import find_family
from stream_interp.sae.formats.saelens_writer import write_checkpoint
from stream_interp.sae.loading import load


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    family: str | None = None,
    k: int | None = None,
    activation_scale: float | None = None,
) -> str:
    """Writes the pickled SAE at `src` into the new folder `dst`, as SAELens has it, parameters bit for bit.

    A cross-layer transcoder of decode-clt is written as decode-clt has it in safetensors.

    A pickle can run code when it is opened. torch's `weights_only=True` is used, which keeps it from that but for
    faults such as CVE-2025-32434 and CVE-2026-24747: convert files of people you trust, or in a sandbox.

    Args:
        src: the `.pt` file, or the folder of one with its config; of one that was trained on several devices, of all.
        dst: a folder that does not exist yet, or is empty.
        family: the layout of its files; found from their names if not given.
        k: of a TopK SAE whose files lack it.
        activation_scale: the factor s = √d_in / E‖x‖, for families that have one and whose files lack it.

    Returns:
        The fingerprint, equal to that of `load(dst)`.

    Raises:
        SAELoadError: it cannot be trusted to be read rightly.
        UsageError: `dst` has files in it.
    """
    source, target = Path(src), Path(dst)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} is there already; give a folder that does not exist yet")
    try:
        checkpoint = find_family(source, family, pickled=True).read(source, Hints(k, activation_scale))
        if isinstance(checkpoint, LayeredCheckpoint):
            return _written(source, checkpoint, target)
        check_shapes(checkpoint)
        _require_sae_proper(checkpoint)
        parameters = {name: _read(checkpoint, name) for name in shapes(checkpoint.config)}
    except OSError as error:
        raise SAELoadError("unreadable", str(source), "files that can be read", str(error)) from error
    write_checkpoint(target, checkpoint.config, parameters)
    fingerprint = Fingerprint(checkpoint.config)
    for name in parameters:
        fingerprint.begin(name, checkpoint.tensors[name])
        fingerprint.rows([parameters[name]])
    return fingerprint.hexdigest()


def _written(source: Path, checkpoint: LayeredCheckpoint, target: Path) -> str:
    """The fingerprint of what `load` reads there; it reads all of it, and nothing is left where it refuses."""
    assert checkpoint.write is not None  # of pickled families
    try:
        checkpoint.write(target)
        return load(target).fingerprint
    except BaseException as error:
        shutil.rmtree(target, ignore_errors=True)
        if isinstance(error, SAELoadError):
            raise SAELoadError(error.reason, str(source), error.expected, error.found) from error
        raise


def _require_sae_proper(checkpoint: Checkpoint) -> None:
    config = checkpoint.config
    if config.d_in != config.d_out:  # no pickled family has transcoders
        expected = f"b_dec [{config.d_in}], as long as the input is wide"
        raise SAELoadError("wrong_shape", str(checkpoint.path), expected, f"[{config.d_out}]")


def _read(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    tensor = checkpoint.tensors[name].read()
    require_finite(checkpoint, name, tensor)
    return tensor
