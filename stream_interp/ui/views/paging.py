"""Long lists in pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from msgspec import Struct

Item = TypeVar("Item")


class Page(Struct, Generic[Item], frozen=True, kw_only=True):
    """One page of a list; `page` counts from 1."""

    items: list[Item]
    page: int
    pages: int
    total: int


def page_of(items: Sequence[Item], page: int, size: int) -> Page[Item]:
    """The page asked for, or the nearest there is."""
    pages = max(1, -(-len(items) // size))
    page = min(max(1, page), pages)
    return Page(items=list(items[(page - 1) * size : page * size]), page=page, pages=pages, total=len(items))
