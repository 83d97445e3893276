"""The work of a process besides logging: one daemon thread for all pools, forks, and the end of the process.

Invariants:

* The thread starts when the first pool needs it, and again in a forked child. It ends before handlers are closed at
  exit; from then on whoever logs does its work.
* `wake` never waits, so that a signal handler may call it anywhere, and an interrupt anywhere in it leaves nothing
  locked. So the bell is a `SimpleQueue`, whose `put` is one call into C, and the thread is started as one, too:
  `threading.Event` and `threading.Thread` are Python code around a lock, and a Ctrl-C in `Event.set` would leave that
  lock taken for good. Where an interrupt has two threads begin, the later one goes on.
* An exporter's request to seal (`export --live`) is answered within about a second, once, where it was made since the
  pool began.
* Where it can, the thread ends before a fork and begins again after it, since from Python 3.12 on a fork beside
  threads brings a warning; the one that gathers what the process runs on is waited for, too.
* A child's pools begin anew before the first of its events is written, whether or not the hooks of other libraries,
  which may log, run before the one here.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Protocol

from calyx_logging.core.threads import start_thread
from calyx_logging.errors import say
from calyx_logging.node import seal_request
from calyx_logging.recording.identity import has_thread, tell_environment

__all__ = [
    "LOOK_SECONDS",
    "Member",
    "after_fork",
    "at_end",
    "close_at_end_of_worker",
    "ending",
    "is_by_interrupt",
    "is_exiting",
    "join",
    "let_go",
    "members",
    "note_ending",
    "seal",
    "wake",
]

LOOK_SECONDS = 10.0
"""How often every member is looked after at least."""

_REQUEST_SECONDS = 1.0
"""How often it looks for requests to seal."""

_END_SECONDS = 2.0
"""So long the end of the process waits for the thread."""


_REST_SECONDS, _NO_REST_SECONDS = 0.3, 10.0
"""So long a fork waits for threads of ours to end; after one that has waited in vain, so long none waits."""


class Member(Protocol):
    """A pool that the thread looks after."""

    @property
    def outbox(self) -> Path:
        """The outbox, for messages about it."""

    def upkeep(self) -> float:
        """Do what is due; return the seconds until something may be due again."""

    def seal(self) -> None:
        """Make exportable what was logged."""

    def close(self) -> None:
        """End in order."""

    def after_fork(self) -> None:
        """In a forked child: forget everything that is the parent's."""


class _Keeper:
    """One start of the thread."""

    runs = False
    thread = 0


_Request = tuple[int, int] | None
_requests: dict[Path, _Request] = {}
"""The request to seal that was seen last, for each outbox."""

_left: deque[Member] = deque()
"""Members that are to be closed."""

_members: list[weakref.ref[Member]] = []  # a WeakSet cannot be listed while another thread adds to it
_keeper = _Keeper()
_bell: SimpleQueue[None] = SimpleQueue()
_pid = os.getpid()
_finalizer_pid = 0
_exiting = False
_rests = False
_no_rest_until = 0.0
_ending: dict[str, object] = {}
at_end: list[Callable[[], None]] = []
"""Called before the pools are closed at the end of a worker process of multiprocessing."""


def join(member: Member) -> None:
    """Look after one more, for as long as it is referred to."""
    _requests.setdefault(member.outbox, _request_to(member.outbox))
    _members.append(weakref.ref(member, _members.remove))


def let_go(member: Member) -> None:
    """End one that nobody uses any more; may be called anywhere, even from inside a collection of garbage."""
    if _exiting:
        member.close()
    else:
        _left.append(member)
        wake()


def members() -> list[Member]:
    """All of them."""
    return [member for one in list(_members) if (member := one()) is not None]


def seal() -> None:
    """Seal the open chunks of every handler in this process, so that an export takes all that was logged so far.

    For long-running processes (a notebook, a server); logging goes on in new chunks.
    """
    for member in members():
        member.seal()


def note_ending(fields: dict[str, object], *, unless_known: bool = False) -> None:
    """Note how the process is about to end, for the end lines of its writers: `exit_code`, `signal` and the like."""
    global _ending
    if not (unless_known and _ending):
        _ending = fields


def ending() -> dict[str, object]:
    """Return how the process ends, if it is ending and that is known."""
    return _ending if _exiting or _pid == _finalizer_pid else {}


def is_by_interrupt() -> bool:
    """Return whether the process is about to end by Ctrl-C."""
    return _ending.get("signal") == "SIGINT"


def is_exiting() -> bool:
    """Whether the interpreter is ending: handlers are closed, and nothing that begins now is closed by others."""
    return _exiting


def wake() -> bool:
    """Have the thread come soon; False when it is not certain that it will."""
    global _keeper
    if _exiting or sys.is_finalizing():
        return False  # a thread that begins now may never run
    close_at_end_of_worker()
    if _bell.empty():
        _bell.put(None)
    if not _keeper.runs:
        _keeper = keeper = _Keeper()
        try:
            start_thread(_look_after_all, keeper)
        except RuntimeError:
            return False  # the interpreter is shutting down; what is open now is sealed at exit
        keeper.runs = True
    return True


def _look_after_all(keeper: _Keeper) -> None:
    keeper.runs, keeper.thread = True, threading.get_native_id()
    try:
        threading.current_thread().name = "calyx-logging-upkeep"
        due = 0.0
        while keeper is _keeper and not _exiting:
            with contextlib.suppress(Empty):
                while True:
                    _bell.get_nowait()
            now = time.monotonic()
            if now >= due:
                due = now + _look_once()
            _answer_requests()
            tell_environment(members())
            with contextlib.suppress(Empty):
                _bell.get(timeout=max(0.0, min(due - time.monotonic(), _REQUEST_SECONDS)))
                due = 0.0
    finally:
        keeper.runs = False
        _bell.put(None)  # for the one that has taken this one's place


def _close_left() -> None:
    while _left:
        member = _left.popleft()
        try:
            member.close()
        except Exception as error:
            say(f"cannot close {member.outbox}: {type(error).__name__}: {error}")


def _look_once() -> float:
    wait = LOOK_SECONDS
    _close_left()
    for member in members():
        try:
            wait = min(wait, member.upkeep())
        except Exception as error:  # one's trouble must not end the care for all
            say(f"upkeep of {member.outbox}: {type(error).__name__}: {error}")
    return wait


def _request_to(outbox: Path) -> _Request:
    try:
        found = seal_request(outbox).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _answer_requests() -> None:
    """Seal the chunks of outboxes for which an exporter asks that."""
    for outbox, last in list(_requests.items()):
        request = _request_to(outbox)
        if request == last:
            continue
        _requests[outbox] = request
        if request is not None:
            try:
                for member in members():
                    if member.outbox == outbox:
                        member.seal()
            except Exception as error:
                say(f"cannot seal for an export of {outbox}: {type(error).__name__}: {error}")


def close_at_end_of_worker(*, is_one: bool = False) -> None:
    """A worker process of multiprocessing ends with os._exit and runs no atexit; its own finalizers it does run.

    Args:
        is_one: whether this is one that begins, and knows neither its parent nor earlier finalizers yet.
    """
    global _finalizer_pid
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is None or process is None:
        return
    if not is_one and (_finalizer_pid == os.getpid() or process.parent_process() is None):
        return
    _finalizer_pid = os.getpid()
    util.Finalize(None, _end_worker, exitpriority=-100)


def _end_worker() -> None:
    for action in at_end:
        action()
    for member in members():
        member.close()


def _rest() -> None:
    """Before a fork: have the thread end."""
    global _keeper, _rests, _no_rest_until
    keeper, now = _keeper, time.monotonic()
    if now < _no_rest_until or not keeper.runs or keeper.thread == threading.get_native_id():
        return
    _keeper, _rests = _Keeper(), True
    _bell.put(None)
    while _is_there(keeper):
        if time.monotonic() > now + _REST_SECONDS:
            _no_rest_until = time.monotonic() + _NO_REST_SECONDS
            return
        time.sleep(0.0001)


def _is_there(keeper: _Keeper) -> bool:
    return keeper.runs or Path(f"/proc/self/task/{keeper.thread}").exists() or has_thread()


def _go_on() -> None:
    """After a fork, in the parent."""
    global _rests
    if _rests:
        _rests = False
        wake()


def after_fork() -> None:
    """In a forked child: begin anew; called by the hook, and by a pool that finds itself in another process."""
    global _keeper, _bell, _pid, _ending, _rests
    if os.getpid() == _pid:
        return
    _rests = False
    _ending = {}
    _keeper = _Keeper()
    _bell = SimpleQueue()
    _left.clear()
    for member in members():
        member.after_fork()
    _pid = os.getpid()


def _note_exit() -> None:
    """Have the thread end: the interpreter stops threads where they are, and this one might hold a lock then."""
    global _exiting
    _exiting = True
    _bell.put(None)
    deadline = time.monotonic() + _END_SECONDS
    while _keeper.runs and time.monotonic() < deadline:
        time.sleep(0.0005)
    _close_left()


atexit.register(_note_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_rest, after_in_parent=_go_on, after_in_child=after_fork)
