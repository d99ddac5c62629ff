"""A lane's state as bytes and back, bit for bit: the tree of dataclasses as JSON, its arrays as safetensors.

The types say how to read, so that nothing in the bytes can choose what is made of them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from functools import cache
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import numpy as np
from msgspec import Struct

from stream_interp.detect import armed
from stream_interp.detect.state import LaneState
from stream_interp.errors import IntegrityError
from stream_interp.records.arrays import Arrays, pack, unpack


class StateHeader(Struct, frozen=True, kw_only=True):
    """Everything of a state but its arrays, which are named by their path in it."""

    schema_version: Literal[1] = 1
    state: dict[str, Any]


def dump_state(state: LaneState) -> bytes:
    """The state as one safetensors buffer, without what follows from the rest."""
    arrays: Arrays = {}
    return pack(StateHeader(state=_dump(LaneState, state, "state", arrays)), arrays)


def load_state(data: bytes) -> LaneState:
    """The state of `dump_state`, with its tests built anew.

    Raises:
        IntegrityError: not a state that this version can read.
    """
    state = load_untested(data)
    if state.baseline is None:
        return state
    tests = armed.build(state.baseline.header, state.baseline.arrays, state.settings.drift)
    return replace(state, tests=tests)


def load_untested(data: bytes) -> LaneState:
    """The state without its tests, at little cost: enough to look at, and to dump again. Raises IntegrityError."""
    header, arrays = unpack(data, StateHeader)
    try:
        state: LaneState = _load(LaneState, header.state, "state", arrays)
    except (msgspec.ValidationError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"a checkpoint's state cannot be read ({type(error).__name__}: {error}); was it written by another version?"
        ) from error
    return state


def _dump(kind: Any, value: Any, path: str, arrays: Arrays) -> Any:
    """The JSON side of a value; its arrays are added to `arrays`."""
    kind = _not_none(kind)
    if value is None:
        return None
    if _has_fields(kind):
        return {name: _dump(of, getattr(value, name), f"{path}.{name}", arrays) for name, of in _stored_fields(kind)}
    if _is_array(kind):
        arrays[path] = value
        return path
    if _is_array_tuple(kind):
        if value:
            arrays[path] = np.concatenate(value)
        return [len(part) for part in value]
    if (of := _values_with_arrays(kind)) is not None:
        # A record's arrays come in any order; of all else the order means something, and has to come back.
        items = sorted(value.items()) if _is_array(of) else value.items()
        return {name: _dump(of, item, f"{path}.{name}", arrays) for name, item in items}
    return msgspec.to_builtins(value)


def _load(kind: Any, tree: Any, path: str, arrays: Arrays) -> Any:
    kind = _not_none(kind)
    if tree is None:
        return None
    if _has_fields(kind):
        fields = [(name, of) for name, of in _stored_fields(kind) if name in tree]
        return kind(**{name: _load(of, tree[name], f"{path}.{name}", arrays) for name, of in fields})
    if _is_array(kind):
        return arrays[path]
    if _is_array_tuple(kind):
        return tuple(np.split(arrays[path], np.cumsum(tree)[:-1])) if tree else ()
    if (of := _values_with_arrays(kind)) is not None:
        return {name: _load(of, item, f"{path}.{name}", arrays) for name, item in tree.items()}
    if kind in (int, float) and isinstance(tree, int | float):
        return tree  # as it was: a decayed count is a float
    return msgspec.convert(tree, kind)


def _has_fields(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind) or (isinstance(kind, type) and issubclass(kind, Struct))


@cache  # resolving the hints took four fifths of a checkpoint's time
def _stored_fields(kind: Any) -> tuple[tuple[str, Any], ...]:
    hints = get_type_hints(kind)
    if not dataclasses.is_dataclass(kind):
        return tuple((name, hints[name]) for name in kind.__struct_fields__)
    return tuple((f.name, hints[f.name]) for f in dataclasses.fields(kind) if not f.metadata.get("derived"))


def _not_none(kind: Any) -> Any:
    """T of `T | None`; every other type as it is."""
    if get_origin(kind) is not UnionType:
        return kind
    return next(of for of in get_args(kind) if of is not type(None))


def _is_array(kind: Any) -> bool:
    return get_origin(kind) is np.ndarray


def _is_array_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple and _is_array(get_args(kind)[0])


def _values_with_arrays(kind: Any) -> Any:
    """The type of a dict's values if they hold arrays, else None."""
    of = get_args(kind)[1] if get_origin(kind) is dict else None
    return of if _is_array(of) or _has_fields(of) else None
