"""Log uncaught exceptions, and note in the writers' end lines how the process ended.

Uncaught exceptions of the program, of a thread, of a worker process, of an asyncio task, and those that Python can only
report, are events of level critical. The end lines say how the process ended (`calyx_logging.recording.background`);
where a signal ends it, recovery says so (`calyx_logging.core.crash_file`).

Invariants:

* The hooks that were there are called as before, whatever happens here.
* An event is logged by the process's OutboxHandlers that have the option and that a logger still has; their filters and
  formatter apply.
* An end line claims no exit code that is not certain. What `sys.exit` raises is caught by many programs; it has ended
  this one if it is freed while no Python code runs. (So is one that was caught by a handler which itself raised a
  SystemExit without `sys.exit`.) Before Python 3.14 a script that ran to its end has no `__file__` any more.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import sys
import threading
import weakref
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from calyx_logging.core import crash_file
from calyx_logging.core.on_import import when_imported
from calyx_logging.errors import say
from calyx_logging.events.values import safe_repr
from calyx_logging.handlers.children import is_in_use
from calyx_logging.recording.background import is_by_interrupt, note_ending
from calyx_logging.recording.identity import stop_gathering

if TYPE_CHECKING:
    from calyx_logging.handlers.outbox import OutboxHandler

__all__ = ["listen", "record_for", "send"]

_TELLS_ITS_END = sys.version_info < (3, 14)
"""Whether a script that ran to its end, and no other, has no `__file__` any more."""

LOGGER = "uncaught"
"""The events' `logger`."""

_listening: weakref.WeakSet[OutboxHandler] = weakref.WeakSet()
_is_installed = False


def listen(handler: OutboxHandler) -> None:
    """Have a handler log uncaught exceptions from now on."""
    global _is_installed
    _listening.add(handler)
    if _is_installed:
        return
    _is_installed = True
    _wrap_excepthook()
    _wrap_threads_hook()
    _wrap_unraisablehook()
    when_imported("asyncio.base_events", _wrap_asyncio)
    when_imported("multiprocessing.process", _wrap_workers)
    _wrap_exits()


def _wrap_excepthook() -> None:
    before = sys.excepthook

    def excepthook(kind: type[BaseException], value: BaseException, traceback: TracebackType | None) -> None:
        _log(kind, value, traceback, {})
        ends_it = getattr(sys, "last_value", None) is value and not _goes_on()  # else the program has called the hook
        if ends_it:
            interrupt = os.name == "posix" and _ends_by_sigint(kind)
            how: dict[str, object] = {"signal": "SIGINT"} if interrupt else {"exit_code": 1}
            note_ending({**how, "exception_type": kind.__name__})
        try:
            before(kind, value, traceback)
        except SystemExit as error:
            if ends_it:
                note_ending({"exit_code": _number_of(error.code), "exception_type": kind.__name__})
            raise

    sys.excepthook = excepthook


def _wrap_threads_hook() -> None:
    before = threading.excepthook

    def excepthook(args: Any) -> None:
        if args.exc_type is not SystemExit:  # a way to end a thread
            name = None if args.thread is None else args.thread.name
            _log(args.exc_type, args.exc_value, args.exc_traceback, {"thread_name": name})
        before(args)

    threading.excepthook = excepthook


def _wrap_unraisablehook() -> None:
    before = sys.unraisablehook

    def unraisablehook(args: Any) -> None:
        if safe_repr is not None:  # as it is while the interpreter empties this module at its end
            fields = {"where": args.err_msg or "Exception ignored in", "object": safe_repr(args.object)}
            _log(args.exc_type, args.exc_value, args.exc_traceback, fields)
        before(args)

    sys.unraisablehook = unraisablehook


def _wrap_asyncio(module: ModuleType) -> None:
    loop_class = module.BaseEventLoop
    before = loop_class.call_exception_handler

    @functools.wraps(before)
    def call_exception_handler(self: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException):
            _log(type(error), error, error.__traceback__, {"where": context.get("message")})
        before(self, context)

    loop_class.call_exception_handler = call_exception_handler


def _goes_on() -> bool:
    """Check whether an interactive interpreter goes on after the program."""
    return hasattr(sys, "ps1") or bool(sys.flags.inspect or os.environ.get("PYTHONINSPECT"))


class _Fate:
    """Goes with what `sys.exit` raises, and notes its code if no Python code runs when it is freed."""

    def __init__(self, code: object) -> None:
        self._code = code
        self._pid = os.getpid()

    def __reduce__(self) -> Any:
        return type(None), ()

    def __del__(self) -> None:
        try:
            sys._getframe(1)
        except ValueError:
            is_in_time = threading.main_thread().is_alive()  # else a function of atexit raised it, which ends nothing
            if is_in_time and self._pid == os.getpid() and not _goes_on():
                note_ending({"exit_code": _number_of(self._code)}, unless_known=True)  # the context's comes later


def _exit_with_fate(status: object) -> SystemExit:
    error = SystemExit(status)
    error.__dict__["fate"] = _Fate(status)
    return error


def _wrap_exits() -> None:
    exit_before, exit_at_once = sys.exit, os._exit
    main = sys.modules.get("__main__")
    is_script = _TELLS_ITS_END and (hasattr(main, "__file__") or _is_a_script_to_come())

    @functools.wraps(exit_before)
    def exit(status: Any = None, /) -> NoReturn:
        is_elsewhere = threading.get_ident() != threading.main_thread().ident
        if is_elsewhere or isinstance(status, (tuple, SystemExit)):  # of the latter Pythons make different things
            exit_before(status)
        raise _exit_with_fate(status)  # no variable here holds it, or it would not be freed

    @functools.wraps(exit_at_once)
    def _exit(status: int) -> NoReturn:
        if isinstance(status, int):
            crash_file.note_exit(_number_of(status))
        exit_at_once(status)

    def note_normal_end() -> None:
        if is_script and not hasattr(main, "__file__") and not _goes_on():
            note_ending({"exit_code": 0}, unless_known=True)
        if _cannot_be_flushed():
            note_ending({"exit_code": 120})
        if is_by_interrupt():
            stop_gathering()
            _remember_the_interrupt()

    sys.exit, os._exit = exit, _exit
    atexit.register(note_normal_end)


def _remember_the_interrupt() -> None:
    """Have Python end by SIGINT, as it will unless some thread has run a text as code since (named tuples do)."""
    with contextlib.suppress(KeyboardInterrupt):
        exec("raise KeyboardInterrupt")


def _ends_by_sigint(kind: type[BaseException]) -> bool:
    """Check whether Python ends itself by SIGINT after such an exception: of subclasses, from 3.14 on."""
    return issubclass(kind, KeyboardInterrupt) if sys.version_info >= (3, 14) else kind is KeyboardInterrupt


def _is_a_script_to_come() -> bool:
    """Check whether Python, which is still starting, is going to run a script."""
    first = sys.argv[0] if sys.argv else ""
    return first not in ("", "-", "-c", "-m") and first in sys.orig_argv


def _cannot_be_flushed() -> bool:
    """Check whether Python will exit with 120 because its output cannot be written."""
    try:
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
    except Exception:
        return True
    return False


def _wrap_workers(module: ModuleType) -> None:
    """See how the function of a worker process ends; multiprocessing itself only prints what it raises."""
    process_class = module.BaseProcess
    before = process_class._bootstrap

    @functools.wraps(before)
    def _bootstrap(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = self.run

        def watched() -> None:
            try:
                run()
            except SystemExit as error:
                note_ending({"exit_code": _number_of(error.code)})
                raise
            except BaseException as error:
                _log(type(error), error, error.__traceback__, {})
                note_ending({"exit_code": 1, "exception_type": type(error).__name__})
                raise
            note_ending({"exit_code": 0})

        self.run = watched
        return before(self, *args, **kwargs)

    process_class._bootstrap = _bootstrap


def _number_of(code: object) -> int:
    """Return the exit code that a SystemExit's `code` becomes for the parent process."""
    if code is None:
        return 0
    if not isinstance(code, int):
        return 1
    return (int(code) if -(2**63) <= code < 2**63 else -1) & (0xFF if os.name == "posix" else 0xFFFFFFFF)


def _log(
    kind: type[BaseException], value: BaseException | None, traceback: TracebackType | None, fields: dict[str, Any]
) -> None:
    try:
        if value is None:
            value = kind()
        text, exc_info = f"uncaught {kind.__name__}", (kind, value, traceback)
        send(_listening, record_for(LOGGER, logging.CRITICAL, text, fields, exc_info))
    except Exception as error:
        say(f"an uncaught {kind.__name__} could not be logged: {type(error).__name__}: {error}")


def record_for(name: str, level: int, text: str, fields: dict[str, Any], exc_info: Any = None) -> logging.LogRecord:
    """A record that no logging call has made."""
    return logging.getLogger().makeRecord(name, level, __file__, 0, text, (), exc_info, extra=fields)


def send(handlers: weakref.WeakSet[OutboxHandler], record: logging.LogRecord, source: str | None = None) -> None:
    """Give a record to those handlers that a logger has, and that take its level; under another source if one is given.

    What a filter or processor of theirs causes meanwhile is no event, or there would be no end of it.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code is send.__code__:
            return
    for handler in list(handlers):
        if record.levelno >= handler.level and is_in_use(handler):
            handler.handle(record) if source is None else handler.handle_as(source, record)
