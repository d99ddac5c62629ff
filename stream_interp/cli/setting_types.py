"""Names and types of all settings, read off `stream_interp.settings`, and one value at a time into its type. Pure."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import inspect

from stream_interp.errors import UsageError
from stream_interp.settings import Settings

PASS_THROUGH = "kafka.librdkafka"  # the one open table: anything below it is a name of librdkafka's


def _walk(struct: type, prefix: str) -> Iterator[tuple[str, Any]]:
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _walk(field.type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field.type


TYPES: dict[str, Any] = dict(_walk(Settings, ""))
SECTIONS = {name.rpartition(".")[0] for name in TYPES} - {""}
_LISTS: dict[str, type] = {  # lists of tables, such as `sites`: the struct of one entry
    name: kind.item_type.cls
    for name, kind in zip(TYPES, inspect.multi_type_info(TYPES.values()), strict=True)
    if isinstance(kind, inspect.ListType) and isinstance(kind.item_type, inspect.StructType)
}
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
    close = difflib.get_close_matches(name, TYPES, n=3, cutoff=0.75) or [
        n for n in TYPES if n.rpartition(".")[2] == last
    ]
    hint = f"did you mean {_list(close, spell)}?" if close else "`stream-interp config show` lists them all"
    if name.startswith("kafka.") and not close:
        hint = f"settings of librdkafka stand below {PASS_THROUGH}, names with dots in quotes"
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
    if name in _LISTS:
        return _tables(name, _json(raw) if is_text else raw, origin)
    return _value(name, TYPES[name], raw, origin, is_text)


def expected(kind: inspect.Type) -> str:
    """What a setting's type accepts, in words."""
    if isinstance(kind, inspect.LiteralType):
        return "one of " + ", ".join(map(str, kind.values))
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        limits = [f"{sign} {getattr(kind, name):g}" for name, sign in _BOUNDS if getattr(kind, name) is not None]
        return " ".join(["a whole number" if isinstance(kind, inspect.IntType) else "a number", " and ".join(limits)])
    return "a list of texts" if isinstance(kind, inspect.ListType) else "text"


def shown(name: str, value: object) -> object:
    """A value as it may be shown: secrets and the credentials of addresses hidden; paths of secret files are not.

    Of a `url` inside a list of tables only scheme and host are shown: the path of many web hooks is a secret.
    """
    if name.startswith(f"{PASS_THROUGH}.") and any(word in name for word in _SECRETS):
        return "(hidden)"
    if name in _LISTS:
        return [_shown_entry(entry) for entry in msgspec.to_builtins(value)]
    return _shown_url(value) if isinstance(value, str) else msgspec.to_builtins(value)


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


def _tables(name: str, raw: object, origin: str) -> list[Any]:
    if not isinstance(raw, list) or not all(isinstance(entry, dict) for entry in raw):
        # What was found is not told: it may hold the secret address of a web hook.
        raise UsageError(f"{name} ({origin}): expected a list of tables, such as [[{name}]] in TOML or [{{…}}] in JSON")
    return [_table(f"{name}[{k}]", _LISTS[name], entry, origin) for k, entry in enumerate(raw)]


def _table(name: str, struct: type, entry: dict[str, object], origin: str) -> Any:
    fields = {field.name: field for field in msgspec.structs.fields(struct)}
    for key in entry:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1) or list(fields)
            raise UsageError(f"{name}.{key} ({origin}): unknown setting; did you mean {', '.join(close)}?")
    missing = [key for key, field in fields.items() if field.required and key not in entry]
    if missing:
        raise UsageError(f"{name} ({origin}): has no {' and no '.join(missing)}; every entry needs it")
    return struct(**{key: _value(f"{name}.{key}", fields[key].type, raw, origin, False) for key, raw in entry.items()})


def _value(name: str, kind: Any, raw: object, origin: str, is_text: bool) -> object:
    refusal = UsageError(f"{name} ({origin}): found {raw!r}, expected {expected(inspect.type_info(kind))}")
    try:
        value: object = msgspec.convert(raw, kind, strict=not is_text)
    except msgspec.ValidationError:
        raise refusal from None
    if isinstance(value, float) and not math.isfinite(value):
        raise refusal
    return value


def _shown_entry(entry: dict[str, object]) -> dict[str, object]:
    url = entry.get("url")
    if not isinstance(url, str) or "://" not in url:
        return entry
    scheme, _, rest = str(_shown_url(url)).partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    return entry | {"url": f"{scheme}://{host}{'/(hidden)' if rest.rstrip('/') != host else ''}"}


def _shown_url(text: str) -> str:
    if "://" not in text or "@" not in text:
        return text
    scheme, _, rest = text.partition("://")
    return f"{scheme}://(hidden)@{rest.rpartition('@')[2]}"


def _below(section: str) -> list[str]:
    return [name for name in TYPES if name.startswith(f"{section}.")]


def _list(names: list[str], spell: Callable[[str], str]) -> str:
    return ", ".join(map(spell, names))
