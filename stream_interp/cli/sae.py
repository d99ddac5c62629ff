"""`stream-interp sae …`: what a checkpoint is, whether it fits, and the way from a pickle to files that are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from msgspec import structs

from stream_interp.cli.options import JsonOption
from stream_interp.cli.output import emit_json, emit_table, emit_text, notice, warn
from stream_interp.errors import StreamInterpError, UsageError

if TYPE_CHECKING:
    import torch

    from stream_interp.sae.checking import Checked
    from stream_interp.sae.describing import Description, Spread
    from stream_interp.sae.layered import LayeredSAE

ROWS = 2_048  # tokens encoded at once

FamilyOption = Annotated[str | None, typer.Option("--family", help="The layout of its files, if it is not found.")]
KOption = Annotated[int | None, typer.Option("-k", help="Of a TopK SAE whose files lack it.")]
ScaleOption = Annotated[
    float | None, typer.Option("--activation-scale", help="√d_in / E‖x‖, where it is needed and the files lack it.")
]


def inspect(
    path: Annotated[Path, typer.Argument(help="The checkpoint's folder.")],
    check: Annotated[
        Path | None,
        typer.Option("--check", metavar="FILE", help="safetensors with acts [n, d_in], for transcoders acts_out too."),
    ] = None,
    family: FamilyOption = None,
    k: KOption = None,
    activation_scale: ScaleOption = None,
    json: JsonOption = False,
) -> None:
    """Family, sizes, normalisation, thresholds, decoder norms, fingerprint. With --check: exit 1 if it is misloaded.

    Of a transcoder set or a cross-layer transcoder: a line for each layer; FOLDER#3 shows layer 3 alone.
    """
    from stream_interp.sae.describing import describe
    from stream_interp.sae.layered import LayeredSAE
    from stream_interp.sae.loading import load

    sae = load(path, family=family, k=k, activation_scale=activation_scale)
    if isinstance(sae, LayeredSAE):
        if check is not None:
            raise UsageError(f"--check takes one layer: {path}#0 to {path}#{sae.n_layers - 1}")
        _inspect_layers(sae, json)
        return
    description = describe(sae)
    checked = _check(sae, check) if check is not None else None
    if json:
        emit_json({"schema_version": 1, **structs.asdict(description), "check": checked})
    else:
        _show(description, checked)
    if checked is not None and checked.verdict in {"misloaded", "other_reading_fits_better"}:
        raise typer.Exit(StreamInterpError.exit_code)


def convert(
    src: Annotated[Path, typer.Argument(help="The .pt file, or the folder of one with its config.")],
    dst: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    family: FamilyOption = None,
    k: KOption = None,
    activation_scale: ScaleOption = None,
    json: JsonOption = False,
) -> None:
    """Opens a pickle with torch's restricted reader and writes what `load` reads, parameters bit for bit."""
    from stream_interp.sae.converting import convert as convert_sae

    warn("a pickle can run code when it is opened, in spite of weights_only=True: convert files of people you trust")
    fingerprint = convert_sae(src, dst, family=family, k=k, activation_scale=activation_scale)
    if json:
        emit_json({"schema_version": 1, "path": str(dst), "fingerprint": fingerprint})
    else:
        notice(f"written to {dst}; `stream-interp sae inspect {dst} --check FILE` tells whether it fits activations")
        emit_text(fingerprint)


def _check(sae: Any, path: Path) -> Checked:
    import torch

    from stream_interp.encode.requests import MASSIVE_MIN_D_IN, massive_tokens, squares
    from stream_interp.sae.checking import check

    file = _Activations(path, sae.d_in)
    norms, massive = [], []
    for x, _ in file.pairs():
        norms.append(x.norm(dim=1))
        massive.append(torch.from_numpy(massive_tokens(squares(x.float().numpy()), sae.d_in, "share")))
    if sae.d_in < MASSIVE_MIN_D_IN:  # in few dimensions one coordinate may well hold most of a norm
        every = torch.cat(norms)
        return check(sae, file.pairs, every > 10 * every.median())
    return check(sae, file.pairs, torch.cat(massive))


class _Activations:
    """`acts` and, if there, `acts_out` of a safetensors file, a few rows at a time."""

    def __init__(self, path: Path, d_in: int) -> None:
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            raise UsageError(f"{path}: no such file; expected safetensors with acts [n, {d_in}]")
        try:
            self._file = cast(Any, safe_open(path, framework="pt"))
        except (SafetensorError, OSError) as error:
            raise UsageError(f"{path}: found no safetensors file ({error}); expected acts [n, {d_in}]") from error
        names = set(self._file.keys())
        if "acts" not in names:
            raise UsageError(f"{path}: found tensors {sorted(names)[:12]}; expected acts [n, {d_in}]")
        self._names = [name for name in ("acts", "acts_out") if name in names]
        shapes = [self._file.get_slice(name).get_shape() for name in self._names]
        if len(shapes[0]) != 2 or shapes[0][1] != d_in or shapes[0][0] == 0 or {s[0] for s in shapes} != {shapes[0][0]}:
            raise UsageError(f"{path}: found {dict(zip(self._names, shapes, strict=True))}; expected acts [n, {d_in}]")
        self.tokens: int = shapes[0][0]

    def pairs(self) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """(x, y) in float32; y is None without acts_out."""
        for start in range(0, self.tokens, ROWS):
            rows = [self._file.get_slice(name)[start : start + ROWS].float() for name in self._names]
            yield rows[0], rows[1] if len(rows) == 2 else None


def _inspect_layers(layered: LayeredSAE, json: bool) -> None:
    from stream_interp.sae.describing import describe_layers

    layers = list(describe_layers(layered))
    config, crosses = layers[0].config, layered.crosses_layers
    if json:
        emit_json(
            {
                "schema_version": 1,
                "family": config.family,
                "crosses_layers": crosses,
                "layers": [{"layer": i, **structs.asdict(layer)} for i, layer in enumerate(layers)],
            }
        )
        return
    kind = "cross-layer transcoder" if crosses else "transcoder set"
    sizes = f"{len(layers)} layers, d_in {config.d_in}, d_sae {config.d_sae}, d_out {config.d_out}"
    rows: list[list[object]] = [
        [i, layer.config.hook_name or layer.config.hf_hook_name, _spread(layer.thresholds), layer.fingerprint]
        for i, layer in enumerate(layers)
    ]
    emit_table(
        f"{config.family}, {kind}, {config.architecture}: {sizes}", ["#", "hook", "threshold", "fingerprint"], rows
    )


def _show(description: Description, checked: Checked | None) -> None:
    config = description.config
    factor = f", activation_scale {config.activation_scale:.6g}" if config.activation_scale != 1 else ""
    k = f"k {config.k}" if config.k else ""
    known = {"skip": config.skip, "fires on its threshold": config.inclusive, "negative acts": config.signed}
    peculiarities = [words for words, holds in known.items() if holds]
    rows: list[list[object]] = [
        ["family", config.family],
        ["architecture", ", ".join(filter(None, (config.architecture, k, *peculiarities)))],
        ["d_in, d_sae, d_out", f"{config.d_in}, {config.d_sae}, {config.d_out}"],
        ["b_dec subtracted from the input", "yes" if config.centred else "no"],
        ["normalisation", config.normalisation + factor],
        ["rescaled by decoder norm", "yes" if config.rescaled_by_decoder_norm else "no"],
        ["model, hook", " ".join(filter(None, (config.model_name, config.hook_name or config.hf_hook_name))) or None],
        ["threshold", _spread(description.thresholds)],
        ["decoder norm", _spread(description.decoder_norms) if description.decoder_norms else "no decoder of its own"],
        ["memory", f"{description.memory_bytes / 1e6:.1f} MB in float32"],
        ["fingerprint", description.fingerprint],
    ]
    emit_table("", ["", ""], rows)
    if checked is not None:
        _show_check(checked)


def _show_check(checked: Checked) -> None:
    m = checked.measured
    rows: list[list[object]] = [
        ["tokens", f"{checked.tokens}, of them massive {checked.massive_tokens}"],
        ["explained variance", _number(m.explained_variance_ordinary)],
        ["… massive tokens included", _number(m.explained_variance)],
        ["L0", f"{m.l0:.2f}"],
        ["dead, dense features", f"{m.dead_share:.1%}, {m.dense_share:.1%}"],
    ]
    rows.extend(
        [f"explained variance {reading.name}", _number(reading.explained_variance_ordinary)]
        for reading in checked.other_readings
    )
    rows.append(["verdict", f"{checked.verdict.replace('_', ' ')}: {checked.why}"])
    emit_table("On these activations", ["", ""], rows)


def _spread(spread: Spread) -> str:
    return f"{spread.smallest:.4g} to {spread.largest:.4g}, median {spread.median:.4g}, {spread.zeros} zeros"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"
