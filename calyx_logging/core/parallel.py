"""Run a function over several files at once, in threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["several_at_once"]

_WORKERS = min(8, 2 * (os.cpu_count() or 1))
_BATCH = 256
"""How many items are submitted before their results are awaited."""

_T = TypeVar("_T")
_R = TypeVar("_R")


def several_at_once(function: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
    """Yield the function's results in the order of the items, computed in threads.

    Threads help because hashing and disk access release the interpreter lock. If the function raises, the error appears
    in place of its result, after the calls already started have ended.
    """
    items = list(items)
    if len(items) < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(_WORKERS, "calyx-logging-files") as pool:
        for start in range(0, len(items), _BATCH):
            yield from pool.map(function, items[start : start + _BATCH])
