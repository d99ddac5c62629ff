"""Names and types of all settings, read off `stream_interp.settings`, and one value at a time into its type. Pure."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import inspect

from stream_interp.errors import UsageError
from stream_interp.settings import Settings, SiteSettings

PASS_THROUGH = "kafka.librdkafka"  # the one open table: anything below it is a name of librdkafka's


def _walk(struct: type, prefix: str) -> Iterator[tuple[str, Any]]:
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _walk(field.type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field.type


TYPES: dict[str, Any] = dict(_walk(Settings, ""))
SECTIONS = {name.rpartition(".")[0] for name in TYPES} - {""}
_SITE_FIELDS = [field.name for field in msgspec.structs.fields(SiteSettings)]
_BOUNDS = (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
_SECRETS = ("password", "passphrase", "secret", "key", "pem", "jaas", "token", "oauthbearer.config")


def check_name(name: str, origin: str, spell: Callable[[str], str] = str) -> None:
    """Refuses a name that is no setting.

    Args:
        name: dotted.
        origin: where it was found, for the message.
        spell: how a dotted name is written at that origin, for the proposals.

    Raises:
        UsageError: with the names that come close.
    """
    if name in TYPES or name.startswith(f"{PASS_THROUGH}."):
        return
    if name in SECTIONS:
        raise UsageError(
            f"{name} ({origin}): this is a table of settings, expected one of {_list(_below(name), spell)}"
        )
    last = name.rpartition(".")[2]
    close = difflib.get_close_matches(name, TYPES, n=3) or [n for n in TYPES if n.rpartition(".")[2] == last]
    hint = f"did you mean {_list(close, spell)}?" if close else "`stream-interp config show` lists them all"
    raise UsageError(f"{name} ({origin}): unknown setting; {hint}")


def convert(name: str, raw: object, origin: str, is_text: bool) -> object:
    """A raw value in the type of its setting.

    Args:
        name: a dotted name that `check_name` let pass.
        raw: from TOML, or a Python value, or the text of a variable or flag.
        origin: where it was found, for the message.
        is_text: the text stands for a number, a truth value or JSON where the type is not text itself.

    Raises:
        UsageError: naming what was found and what is expected.
    """
    if name.startswith(f"{PASS_THROUGH}."):
        return _pass_through(name, raw, origin)
    kind = inspect.type_info(TYPES[name])
    if name == "sites":
        raw = _json(raw) if is_text else raw
        _check_sites(raw, origin)
    try:
        value: object = msgspec.convert(raw, TYPES[name], strict=not is_text)
    except msgspec.ValidationError as error:
        detail = f" ({error})" if name == "sites" else ""
        raise UsageError(f"{name} ({origin}): found {raw!r}, expected {expected(kind)}{detail}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{name} ({origin}): found {raw!r}, expected {expected(kind)}")
    return value


def expected(kind: inspect.Type) -> str:
    """What a setting's type accepts, in words."""
    if isinstance(kind, inspect.LiteralType):
        return "one of " + ", ".join(map(str, kind.values))
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        limits = [f"{sign} {getattr(kind, name):g}" for name, sign in _BOUNDS if getattr(kind, name) is not None]
        return " ".join(["a whole number" if isinstance(kind, inspect.IntType) else "a number", " and ".join(limits)])
    return "a list of tables" if isinstance(kind, inspect.ListType) else "text"


def shown(name: str, value: object) -> object:
    """A value as it may be shown: secrets and the credentials of addresses hidden; paths of secret files are not."""
    if name.startswith(f"{PASS_THROUGH}.") and any(word in name for word in _SECRETS):
        return "(hidden)"
    if isinstance(value, str) and "://" in value and "@" in value:
        scheme, _, rest = value.partition("://")
        return f"{scheme}://(hidden)@{rest.rpartition('@')[2]}"
    return msgspec.to_builtins(value)


def names_secret(name: str) -> bool:
    """The pass-through setting holds a secret, so that its `_FILE` variable names a file to read."""
    return name.startswith(f"{PASS_THROUGH}.") and name.endswith(("password", "passphrase", "secret", "pem"))


def _pass_through(name: str, raw: object, origin: str) -> str:
    if isinstance(raw, bool):
        return str(raw).lower()
    if isinstance(raw, str | int | float):
        return str(raw)
    raise UsageError(f"{name} ({origin}): found {type(raw).__name__}, expected text, a number or true or false")


def _json(raw: object) -> object:
    try:
        return msgspec.json.decode(str(raw))
    except msgspec.DecodeError:
        return raw


def _check_sites(raw: object, origin: str) -> None:
    for k, entry in enumerate(raw if isinstance(raw, list) else []):
        for name in entry if isinstance(entry, dict) else []:
            if name not in _SITE_FIELDS:
                close = difflib.get_close_matches(str(name), _SITE_FIELDS, n=1) or _SITE_FIELDS
                raise UsageError(f"sites[{k}].{name} ({origin}): unknown setting; did you mean {', '.join(close)}?")


def _below(section: str) -> list[str]:
    return [name for name in TYPES if name.startswith(f"{section}.")]


def _list(names: list[str], spell: Callable[[str], str]) -> str:
    return ", ".join(map(spell, names))
