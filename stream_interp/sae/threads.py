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
_turn = threading.Lock()  # torch's number of threads is the process's


@contextmanager
def one_thread_each(device: torch.device) -> Iterator[Callable[[Callable[[_T], _R], Iterable[_T]], Iterator[_R]]]:
    """A `map` that works on as many items at once as torch may use threads; inside, torch uses one for each.

    Elsewhere than on a CPU it is the plain `map`. While it runs, torch uses one thread in all of the process.
    """
    if device.type != "cpu":
        yield map
        return
    with _turn:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            if threads == 1:
                yield map
                return
            with ThreadPoolExecutor(threads) as pool:
                yield pool.map
        finally:
            torch.set_num_threads(threads)


def one_ahead(items: Iterator[_T]) -> Iterator[_T]:
    """Each item once the next is drawn: threads have work while a block is put together, and never run far ahead."""
    drawn = deque[_T]()
    for item in items:
        drawn.append(item)
        if len(drawn) > 1:
            yield drawn.popleft()
    yield from drawn


def _forget_turn() -> None:
    global _turn
    _turn = threading.Lock()  # a fork while another thread had its turn would wait for ever


os.register_at_fork(after_in_child=_forget_turn)
