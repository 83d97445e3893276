"""Warnings become events, with category, file and line, and are shown as before.

Where the program has called `logging.captureWarnings`, the record that logging makes of a warning is given the same
fields instead.

Invariant: what shows warnings is called as before, whatever happens here.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
import weakref
from types import FrameType
from typing import TYPE_CHECKING, Any

from calyx_logging.errors import say
from calyx_logging.events.tracebacks import plain_text
from calyx_logging.handlers.crashes import record_for, send

if TYPE_CHECKING:
    from calyx_logging.handlers.outbox import OutboxHandler

__all__ = ["listen"]

LOGGER = "py.warnings"
"""The events' `logger`, which is logging's name for it."""

_listening: weakref.WeakSet[OutboxHandler] = weakref.WeakSet()
_by_logging: Any = getattr(logging, "_showwarning", None)
_by_python: Any = getattr(warnings, "_showwarning_orig", None)
_installed: list[bool] = []


def listen(handler: OutboxHandler) -> None:
    """Have a handler log warnings from now on."""
    _listening.add(handler)
    before: Any = warnings.showwarning
    if _installed and before is not _by_python:  # a `catch_warnings` that has ended takes it away
        return
    _installed.append(True)

    def showwarning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        if before is _by_logging:
            logging.getLogger(LOGGER).addFilter(_add_fields)
        elif file is None:
            _log(message, category, filename, lineno)
        given = _given_to(sys._getframe(1)) if before is _by_python else None
        if given is not None:
            warnings._showwarnmsg_impl(given)  # type: ignore[attr-defined]
        else:
            before(message, category, filename, lineno, file, line)

    def by_logging(*args: Any, **kwargs: Any) -> None:
        logging.getLogger(LOGGER).addFilter(_add_fields)  # here, or each program would have that logger
        _by_logging(*args, **kwargs)

    warnings.showwarning = showwarning
    if _by_logging is not None:
        logging._showwarning = by_logging  # type: ignore[attr-defined]  # what `captureWarnings` puts in place


def _given_to(frame: FrameType) -> Any:
    """Return the message that Python itself would show, which also holds the object that the warning is about."""
    is_python = frame.f_code is getattr(getattr(warnings, "_showwarnmsg", None), "__code__", None)
    return frame.f_locals.get("msg") if is_python and hasattr(warnings, "_showwarnmsg_impl") else None


def _log(message: object, category: type[Warning], filename: str, lineno: int) -> None:
    try:
        fields = _fields_of(category, filename, lineno)
        send(_listening, record_for(LOGGER, logging.WARNING, plain_text(message), fields))
    except Exception as error:
        say(f"a warning could not be logged: {type(error).__name__}: {error}")


def _fields_of(category: type[Warning], filename: str, lineno: int) -> dict[str, Any]:
    return {"category": category.__name__, "file": filename, "line": lineno}


def _add_fields(record: logging.LogRecord) -> bool:
    """A filter of the logger that logging gives warnings to: add what its record lacks."""
    frame = sys._getframe(1) if _listening else None
    while frame is not None and frame.f_code is not getattr(_by_logging, "__code__", None):
        frame = frame.f_back
    if frame is not None:
        given = frame.f_locals
        with contextlib.suppress(Exception):  # what it has is kept
            record.__dict__.update(_fields_of(given["category"], given["filename"], given["lineno"]))
    return True
