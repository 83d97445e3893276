"""Work on several files at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["several_at_once"]

_WORKERS = min(8, 2 * (os.cpu_count() or 1))
_BATCH = 256
"""So many results are waited for at most before the next are begun."""

_T = TypeVar("_T")
_R = TypeVar("_R")


def several_at_once(function: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
    """The function's results in the order of the items; hashing and the disk leave the interpreter to other threads.

    An error of the function is raised in its place; what was begun is ended first.
    """
    items = list(items)
    if len(items) < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(_WORKERS, "calyx-logging-files") as pool:
        for start in range(0, len(items), _BATCH):
            yield from pool.map(function, items[start : start + _BATCH])
