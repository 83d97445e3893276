"""Where a function is mapped over bundles or chunks: in this process, in a pool of processes, or on a Spark cluster.

An engine supplies `map`, and nothing else; what is mapped is the same plain function everywhere. It is given small
values and returns small values: the data itself is in files, which on a cluster every worker has to reach by the same
path. A function may be run twice for one item (a worker dies, and Spark tries again): it has to leave the same.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Protocol, TypeVar

from calyx_logging.errors import StorageError

__all__ = ["Engine", "Here", "Pool"]

_WORTH_A_POOL = 32 * 1024 * 1024
"""Bytes to be read; a pool takes as long to start as these take here."""

_EACH = 64 * 1024
"""Bytes that are read in the time that a file takes besides."""

_T = TypeVar("_T")
_R = TypeVar("_R")


class Engine(Protocol):
    """What maps."""

    def map(self, function: Callable[[_T], _R], items: Sequence[_T], size: int) -> Iterator[_R]:
        """The function's results, in the order of the items.

        Args:
            function: of a module, so that other processes find it.
            items: values that can be pickled, as the results have to be.
            size: bytes that are read in all, about.
        """
        ...  # pragma: no cover


class Here:
    """One after the other, in this process."""

    def map(self, function: Callable[[_T], _R], items: Sequence[_T], size: int) -> Iterator[_R]:
        """The function's results, each when it is asked for."""
        return map(function, items)


class Pool:
    """A pool of processes, where there is enough to do; else here.

    The processes are spawned, since forked ones would hang in DuckDB; they end with their parent, however it ends.

    Args:
        jobs: how many; None for one a core.
    """

    def __init__(self, jobs: int | None = None) -> None:
        self.jobs = jobs or os.cpu_count() or 1

    def map(self, function: Callable[[_T], _R], items: Sequence[_T], size: int) -> Iterator[_R]:
        """The function's results, in the order of the items.

        Raises:
            StorageError: a process of the pool was killed.
        """
        jobs = min(self.jobs, len(items))
        if jobs < 2 or size + len(items) * _EACH < _WORTH_A_POOL:
            yield from map(function, items)
            return
        pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_begin)
        try:
            with _without_interrupts():  # which is what the processes begin with
                results = pool.map(function, items, chunksize=max(1, min(64, len(items) // (8 * jobs))))
            yield from results
        except BrokenProcessPool as error:
            raise StorageError(
                "a worker process was killed", hint="if memory was short, say --jobs 1; what is done is kept"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """No Ctrl-C for a moment, where that can be had: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin() -> None:
    """In a process of the pool: Ctrl-C is for its parent, without which it has nothing to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), name="calyx-logging-parent", daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
