"""What goes on in a process besides logging: one daemon thread for all recorders, forks, and the end of children.

Invariants: the thread is started when the first recorder needs it, and again in a forked child; `wake` never waits, so
that a signal handler may call it anywhere.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from pathlib import Path
from typing import Protocol

from calyx_logging.errors import say

__all__ = ["LOOK_SECONDS", "Member", "join", "members", "wake"]

LOOK_SECONDS = 10.0
"""How often every member is looked after at least."""


class Member(Protocol):
    """Whom the thread looks after."""

    @property
    def outbox(self) -> Path:
        """For what is said of it."""

    def upkeep(self) -> float:
        """Do what has come up; the seconds until there may be something to do again."""

    def seal(self) -> None:
        """Make what was logged exportable."""

    def close(self) -> None:
        """End in order."""

    def after_fork_in_child(self) -> None:
        """Forget all that is the parent's."""


_members: weakref.WeakSet[Member] = weakref.WeakSet()
_lock = threading.Lock()
_thread: threading.Thread | None = None
_wake = threading.Event()
_finalizer_pid = 0


def join(member: Member) -> None:
    """Look after one more, for as long as it is referred to."""
    _members.add(member)


def members() -> list[Member]:
    """All of them."""
    return list(_members)


def wake() -> bool:
    """Have the thread come soon; False when it is not certain that it will."""
    global _thread
    if sys.is_finalizing():
        return False  # a thread that is begun now is waited for in vain
    _close_at_end_of_multiprocessing_child()
    if not _lock.acquire(blocking=False):
        return False  # somebody is at it: another thread, or this very one under a signal handler
    try:
        if _thread is None or not _thread.is_alive():
            thread = threading.Thread(target=_look_after_all, name="calyx-logging-upkeep", daemon=True)
            thread.start()
            _thread = thread
        else:
            _wake.set()
        return True
    except RuntimeError:
        return False  # the interpreter is shutting down; what is open now is sealed at exit
    finally:
        _lock.release()


def _look_after_all() -> None:
    while True:
        wait = LOOK_SECONDS
        for member in members():
            try:
                wait = min(wait, member.upkeep())
            except Exception as error:  # one's trouble must not end the care for all
                say(f"upkeep of {member.outbox}: {type(error).__name__}: {error}")
        _wake.wait(wait)
        _wake.clear()


def _close_at_end_of_multiprocessing_child() -> None:
    """A multiprocessing child ends with os._exit and runs no atexit; its own finalizers it does run."""
    global _finalizer_pid
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is None or process is None or _finalizer_pid == os.getpid() or process.parent_process() is None:
        return
    _finalizer_pid = os.getpid()
    util.Finalize(None, _close_all, exitpriority=-100)


def _close_all() -> None:
    for member in members():
        member.close()


def _after_fork_in_child() -> None:
    global _thread, _lock, _wake
    _thread = None
    _lock = threading.Lock()
    _wake = threading.Event()
    for member in members():
        member.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
