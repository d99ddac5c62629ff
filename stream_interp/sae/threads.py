"""Pieces of work side by side, each by one thread."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

_T = TypeVar("_T")
_R = TypeVar("_R")


class _Pool:
    """The threads of all that is under way at once in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._executor: ThreadPoolExecutor | None = None

    def enter(self, threads: int) -> ThreadPoolExecutor | None:
        """None: one thread is all there is."""
        with self._lock:
            if not self._users and threads > 1:
                self._executor = ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1))
            self._users += 1
            return self._executor

    def leave(self) -> None:
        """The last one ends the threads."""
        with self._lock:
            self._users -= 1
            if not self._users and self._executor:
                self._executor.shutdown()
                self._executor = None


_pool = _Pool()


@contextmanager
def one_thread_each() -> Iterator[Callable[[Callable[[_T], _R], Iterable[_T]], Iterator[_R]]]:
    """A `map` that works on as many items at once as torch may use threads; inside, torch uses one for each.

    Who is within another's, in whatever thread, shares its threads.
    Until it ends, torch uses one thread in the caller, and in threads that use it for the first time.
    """
    pool, threads = _pool, torch.get_num_threads()  # the caller's own: torch counts for each thread
    torch.set_num_threads(1)
    executor = pool.enter(threads)
    try:
        yield executor.map if executor else map
    finally:
        pool.leave()
        torch.set_num_threads(threads)


def one_ahead(items: Iterator[_T]) -> Iterator[_T]:
    """Each item once the next is drawn: threads have work while a block is put together, and never run far ahead."""
    drawn = deque[_T]()
    for item in items:
        drawn.append(item)
        if len(drawn) > 1:
            yield drawn.popleft()
    yield from drawn


def _forget() -> None:
    global _pool
    _pool = _Pool()  # its threads stay behind in a fork, and so may whoever holds its lock


os.register_at_fork(after_in_child=_forget)
