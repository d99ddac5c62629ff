"""The part of the traffic that a request belongs to, as its producer names it: a product, a country, an app's version.

A segment is a label of many requests, and alerts show it. Whom a request is about belongs in its group key, which no
record but the snapshot holds. Of more than `MOST` names (ids, say) those of the lowest hashes keep counts of their own,
so that it does not matter in which parts and order requests are counted; the others are counted together.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated

from msgspec import Meta

MOST = 64
MANY = "*"  # all others, where there are too many names; no request may name it
MAX_CHARS = 64

Segments = Annotated[  # requests by segment, of those that name one; ascending names
    dict[Annotated[str, Meta(min_length=1, max_length=MAX_CHARS)], Annotated[int, Meta(ge=0)]], Meta(max_length=MOST)
]


def is_segment(name: str) -> bool:
    """A name that a request may give; it gives none by an empty one."""
    return len(name) <= MAX_CHARS and name.isprintable() and name != MANY


def counted(names: Iterable[str]) -> dict[str, int]:
    """Requests by segment, of one name each; those without one are not in it."""
    return _bounded(Counter(name for name in names if name))


def added(before: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """Both together."""
    return _bounded(Counter(before) + Counter(more))


def _bounded(requests: Counter[str]) -> dict[str, int]:
    if len(requests) > MOST:
        kept = sorted(requests.keys() - {MANY}, key=_place)[: MOST - 1]
        rest = requests.total() - sum(requests[name] for name in kept)
        requests = Counter({name: requests[name] for name in kept} | {MANY: rest})
    return dict(sorted(requests.items()))


def _place(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8, person=b"segment").digest()
