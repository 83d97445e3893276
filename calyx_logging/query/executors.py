"""Map a function over bundles or chunks: in this process, in a pool of processes, or on a Spark cluster.

An engine supplies `map`, and nothing else; what is mapped is the same plain function everywhere. It is given small
values and returns small values: the data itself is in files, which on a cluster every worker has to reach by the same
path. A function may run twice for one item (a worker dies, and Spark tries again), so it has to be idempotent.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Protocol, TypeVar

from calyx_logging.compiled import CORE
from calyx_logging.errors import StorageError

__all__ = ["EACH", "Engine", "Here", "Pool", "or_threads"]

_WORTH_A_POOL = 32 * 1024 * 1024
"""Bytes to read before a pool pays: reading them in this process takes as long as starting one."""

_WORTH_PROCESSES = 256 * 1024 * 1024
"""Bytes of chunks before processes pay where threads could do it."""

EACH = 64 * 1024
"""Overhead of one file, as the number of bytes that are read in the same time."""

_T = TypeVar("_T")
_R = TypeVar("_R")


class Engine(Protocol):
    """Interface of an engine, which maps a function over items."""

    def map(self, function: Callable[[_T], _R], items: Sequence[_T], size: int) -> Iterator[_R]:
        """The function's results, in the order of the items.

        Args:
            function: of a module, so that other processes find it.
            items: values that can be pickled, as the results have to be.
            size: bytes that are read in all, about.
        """
        ...  # pragma: no cover


class Here:
    """Maps in this process, one item after the other."""

    def map(self, function: Callable[[_T], _R], items: Sequence[_T], size: int) -> Iterator[_R]:
        """Yield the function's results lazily."""
        return map(function, items)


class Threads:
    """Maps in threads of this process, which suits functions that release the interpreter.

    Args:
        jobs: how many.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def map(self, function: Callable[[_T], _R], items: Sequence[_T], size: int) -> Iterator[_R]:
        """Yield the function's results, in the order of the items."""
        if min(self.jobs, len(items)) < 2:
            yield from map(function, items)
            return
        with ThreadPoolExecutor(self.jobs, "calyx-logging-table") as pool:
            yield from pool.map(function, items)


def or_threads(engine: Engine | None, size: int) -> Engine:
    """Return the engine for making rows: threads instead of a pool where these are done before that has started.

    The compiled core and Arrow release the interpreter, but what is left to Python does not.
    """
    if isinstance(engine, Pool) and CORE is not None and size < _WORTH_PROCESSES:
        return Threads(engine.jobs)
    return engine or Here()


class Pool:
    """Maps in a pool of processes if there is enough work, else in this process.

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
        if jobs < 2 or size + len(items) * EACH < _WORTH_A_POOL:
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
    """Ignore Ctrl-C for a moment; possible in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin() -> None:
    """Set up a pool process: leave Ctrl-C to its parent, and end when the parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), name="calyx-logging-parent", daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
