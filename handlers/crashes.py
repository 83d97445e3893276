"""Uncaught exceptions become events: of the program, of a thread, and those that Python can only report.

Invariants:

* The hooks that were there are called as before, whatever happens here.
* An event is logged by the process's OutboxHandlers that have the option and that a logger still has; their filters and
  formatter apply.
"""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any

from calyx_logging.errors import say
from calyx_logging.events.values import safe_repr
from calyx_logging.handlers.children import is_in_use

if TYPE_CHECKING:
    from calyx_logging.handlers.outbox import OutboxHandler

__all__ = ["listen"]

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


def _wrap_excepthook() -> None:
    before = sys.excepthook

    def excepthook(kind: type[BaseException], value: BaseException, traceback: TracebackType | None) -> None:
        _log(kind, value, traceback, {})
        before(kind, value, traceback)

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
        fields = {"where": args.err_msg or "Exception ignored in", "object": safe_repr(args.object)}
        _log(args.exc_type, args.exc_value, args.exc_traceback, fields)
        before(args)

    sys.unraisablehook = unraisablehook


def _log(
    kind: type[BaseException], value: BaseException | None, traceback: TracebackType | None, fields: dict[str, Any]
) -> None:
    try:
        if value is None:
            value = kind()
        handlers = [handler for handler in list(_listening) if is_in_use(handler)]
        if not handlers:
            return
        text, exc_info = f"uncaught {kind.__name__}", (kind, value, traceback)
        logger = logging.getLogger(LOGGER)
        record = logger.makeRecord(LOGGER, logging.CRITICAL, __file__, 0, text, (), exc_info, extra=fields)
        for handler in handlers:
            if record.levelno >= handler.level:
                handler.handle(record)
    except Exception as error:
        say(f"an uncaught {kind.__name__} could not be logged: {type(error).__name__}: {error}")
