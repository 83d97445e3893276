"""Start threads that leave the process's signals to the program's own threads."""

from __future__ import annotations

import signal
from _thread import start_new_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from calyx_logging.core.crash_file import SIGNALS

__all__ = ["for_children", "start_thread"]

_HELD = frozenset(getattr(signal, name) for name in SIGNALS if hasattr(signal, name))


@contextmanager
def for_children() -> Iterator[None]:
    """Let children that this thread starts meanwhile have no signal blocked."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_thread(function: Callable[..., object], *args: Any) -> None:
    """Start a thread in which the signals of the crash file are blocked.

    The system may hand a signal to any thread, also to one that is just beginning and has no Python frame yet:
    `faulthandler` would write nothing, and nobody would know what ended the process.

    Raises:
        RuntimeError: the interpreter is ending.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        start_new_thread(function, args)
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)  # which the new thread inherits
        start_new_thread(function, args)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
