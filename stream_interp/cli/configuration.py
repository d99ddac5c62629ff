"""Settings from defaults < TOML file < environment < flags, with the origin of every value.

Environment: `STREAM_INTERP_DRIFT__TOLERANCE=1.3` is `drift.tolerance`, in any case; lists of tables
(`sites`, `notify.sinks`, `notify.routes`) are JSON. Below
`STREAM_INTERP_KAFKA__LIBRDKAFKA__` each `_` is a dot: `…__SECURITY_PROTOCOL=SASL_SSL` is librdkafka's
`security.protocol`. A name with `_FILE` added (`STREAM_INTERP_REDIS__URL_FILE`) takes its value from that file.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from stream_interp.cli.setting_types import PASS_THROUGH, SECTIONS, TYPES, check_name, convert, names_secret
from stream_interp.errors import UsageError
from stream_interp.secret_files import read_secret
from stream_interp.settings import Settings

DEFAULT_FILE = "stream-interp.toml"
PREFIX = "STREAM_INTERP_"
SECRET_FILES = ("kafka.password_file", "redis.password_file")


class Source(NamedTuple):
    """One raw value and where it was found."""

    raw: object
    origin: str
    is_text: bool = False


@dataclass(frozen=True)
class Loaded:
    """Settings, and for each dotted name that was set anywhere its origin; the others are defaults."""

    settings: Settings
    origins: dict[str, str]


def load_settings(config: Path | None = None, overrides: Mapping[str, object] | None = None) -> Settings:
    """The settings of this process. Raises UsageError.

    Args:
        config: of `--config`; None: `./stream-interp.toml` if it exists.
        overrides: flags by dotted name, as `cli.options.flags` makes them; text is parsed to the setting's type.
    """
    return load(config, overrides or {}, os.environ, Path()).settings


def load(config: Path | None, overrides: Mapping[str, object], environ: Mapping[str, str], folder: Path) -> Loaded:
    """As `load_settings`, with the environment and the current folder as arguments.

    Raises:
        UsageError: an unknown name, a wrong type, a missing file; it names the setting, its origin, what was found
            and what is expected.
    """
    sources = {**_from_file(config, folder), **_from_environment(environ), **_from_flags(overrides)}
    tree: dict[str, object] = {}
    for name, source in sources.items():
        _plant(tree, name, convert(name, *source))
    settings = msgspec.convert(tree, Settings)
    for name in SECRET_FILES:
        if name in sources and sources[name].raw:
            read_secret(str(sources[name].raw), f"{name} ({sources[name].origin})")
    return Loaded(settings, {name: source.origin for name, source in sources.items()})


def values(settings: Settings) -> dict[str, object]:
    """Every setting by dotted name, in the order of `Settings`; pass-through entries one by one."""
    flat: dict[str, object] = {}
    for name in TYPES:
        value: object = settings
        for part in name.split("."):
            value = getattr(value, part)
        flat |= {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _from_file(config: Path | None, folder: Path) -> dict[str, Source]:
    path = config or folder / DEFAULT_FILE
    if config is None and not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise UsageError(
            f"--config {path}: cannot be read: {error.strerror}; expected a TOML file, which "
            "`stream-interp config init PATH` writes"
        ) from None
    except ValueError as error:
        raise UsageError(
            f"{path}: not a TOML file: {error}; write NAME = VALUE, text in quotes, numbers with a dot, true or false"
        ) from None
    found = {}
    for name, raw in _flat(table, ""):
        origin = f"{path}{_line(text, name)}"
        check_name(name, origin)
        found[name] = Source(raw, origin)
    return found


def _from_environment(environ: Mapping[str, str]) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for variable, text in environ.items():
        rest = variable.upper().removeprefix(PREFIX).lower()
        if rest == variable.lower() or not _is_ours(rest):
            continue
        name, source = _file_variable(_dotted(rest), Source(text, variable, is_text=True))
        check_name(name, variable, _variable)
        found |= _entries(name, source)
    return found


def _from_flags(overrides: Mapping[str, object]) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for name, raw in overrides.items():
        check_name(name, "flag")
        found |= _entries(name, Source(msgspec.to_builtins(raw), "flag", is_text=isinstance(raw, str)))
    return found


def _flat(table: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        name = prefix + key
        is_table = name in SECTIONS or f"{name}.".startswith(f"{PASS_THROUGH}.")
        if is_table and isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _entries(name: str, source: Source) -> dict[str, Source]:
    """The whole pass-through table, given as JSON or as a dict, is its entries; so later layers add to it."""
    if name != PASS_THROUGH:
        return {name: source}
    try:
        table = msgspec.convert(
            msgspec.json.decode(str(source.raw)) if source.is_text else source.raw, dict[str, object]
        )
    except msgspec.MsgspecError:
        raise UsageError(f"{name} ({source.origin}): expected a JSON object of librdkafka's settings") from None
    return {f"{name}.{key}": source._replace(raw=raw, is_text=False) for key, raw in table.items()}


def _is_ours(rest: str) -> bool:
    # `STREAM_INTERP_DRIFT_TOLERANCE` is a slip of ours to report; `STREAM_INTERP_DEBUG` is not a setting.
    return "__" in rest or rest in TYPES or rest.partition("_")[0] in SECTIONS


def _dotted(rest: str) -> str:
    name = rest.replace("__", ".")
    if name.startswith(f"{PASS_THROUGH}."):
        return f"{PASS_THROUGH}." + name.removeprefix(f"{PASS_THROUGH}.").replace("_", ".")
    return name


def _file_variable(name: str, source: Source) -> tuple[str, Source]:
    stem = name[: -len("_file")]
    if name in TYPES or not name.endswith(("_file", ".file")) or not (stem in TYPES or names_secret(stem)):
        return name, source
    path = str(source.raw)
    return stem, Source(read_secret(path, source.origin), f"{source.origin} ({path})", is_text=True)


def _variable(name: str) -> str:
    return PREFIX + name.replace(".", "__").upper()


def _line(text: str, name: str) -> str:
    """`:LINE` of a setting in its file, empty where it stands in an inline table."""
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+([^\]]+)\]", line)
        section = f"{header[1].strip()}." if header else section
        here = section.rstrip(".") if header else section + line.partition("=")[0].strip()
        if here.replace('"', "") == name:
            return f":{number}"
    return ""


def _plant(tree: dict[str, object], name: str, value: object) -> None:
    """Sets a dotted name in nested tables; the names of librdkafka keep their dots."""
    if name.startswith(f"{PASS_THROUGH}."):
        path = [*PASS_THROUGH.split("."), name.removeprefix(f"{PASS_THROUGH}.")]
    else:
        path = name.split(".")
    table = tree
    for part in path[:-1]:
        table = table.setdefault(part, {})  # type: ignore[assignment]
    table[path[-1]] = msgspec.to_builtins(value)
