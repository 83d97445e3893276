"""Exceptions as data: type, text, causes and frames; without local variables, and bounded in size.

Invariant: reading an exception never raises. What cannot be read is left out, and named in the notes for `degraded`.
"""

from __future__ import annotations

import linecache
import traceback
from types import FrameType, TracebackType
from typing import Any

from calyx_logging.events.values import is_a, safe_repr

__all__ = ["exception_of", "plain_text"]

_MAX_FRAMES = 50
_MAX_ENTRIES = 100
_MAX_SOURCE = 500
"""Characters of a frame's source line."""


def plain_text(value: object) -> str:
    """Return the `str` of a value, else its bounded repr; never raises."""
    try:
        return str.__str__(str(value))
    except Exception:  # a custom __str__ raised: the repr says whose
        return safe_repr(value)


def exception_of(exc_info: object) -> tuple[list[dict[str, Any]] | None, list[str]]:
    """Read a record's `exc_info`: the exception raised, then its cause, and so on; and notes of what cannot be read.

    Each exception appears once, even if chains and groups refer to it repeatedly; there are at most 100 in all. The
    list is None where `exc_info` has no exception.
    """
    if exc_info is None or exc_info is False:
        return None, []
    if not is_a(exc_info, tuple):
        return None, [f"exc_info is a {type(exc_info).__name__}, not an exception"]
    parts: tuple[Any, ...] = tuple(exc_info)  # type: ignore[arg-type]
    if len(parts) != 3 or not is_a(parts[1], BaseException):
        is_empty = all(part is None for part in parts)  # `logger.exception` outside of an except block
        return None, [] if is_empty else ["exc_info has no exception"]
    reading = _Reading()
    try:
        chain = reading.chain(parts[1], parts[2])
    except Exception as error:  # its class, or the class's class, overrides what Python relies on
        chain = [{"type": "", "value": safe_repr(parts[1]), "frames": []}]
        reading.notes.append(f"exception: cannot be read ({type(error).__name__})")
    return chain, list(dict.fromkeys(reading.notes))


class _Reading:
    """Reads one exception with its causes.

    Attributes:
        notes: what could not be read.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._seen: set[int] = set()

    def chain(self, error: BaseException, trace: object) -> list[dict[str, Any]]:
        """List an exception and its causes."""
        chain: list[dict[str, Any]] = []
        current: BaseException | None = error
        while current is not None and id(current) not in self._seen and len(self._seen) < _MAX_ENTRIES:
            self._seen.add(id(current))
            chain.append(
                self._entry(current, trace if current is error else self._own(current, "__traceback__", TracebackType))
            )
            cause = self._own(current, "__cause__", BaseException)
            if cause is None and not self._own(current, "__suppress_context__", bool):
                cause = self._own(current, "__context__", BaseException)
            current = cause
        return chain

    def _entry(self, error: BaseException, trace: object) -> dict[str, Any]:
        if trace is not None and not is_a(trace, TracebackType):
            self.notes.append(f"exception: its traceback is a {type(trace).__name__}")
            trace = None
        frames, omitted = _frames(trace)  # type: ignore[arg-type]
        entry: dict[str, Any] = {"type": type(error).__name__, "value": self._text(error), "frames": frames}
        if omitted:
            entry["frames_omitted"] = omitted
        if type(error).__module__ != "builtins":
            entry["module"] = type(error).__module__
        if notes := _notes(error):
            entry["notes"] = notes
        if is_a(error, BaseExceptionGroup):
            entry["exceptions"] = [
                self.chain(part, self._own(part, "__traceback__", TracebackType))
                for part in self._own(error, "exceptions", tuple) or ()
                if is_a(part, BaseException)
            ]
        return entry

    def _text(self, error: BaseException) -> str:
        try:
            return str.__str__(str(error))
        except Exception as failure:
            self.notes.append(f"exception: its text cannot be read ({type(failure).__name__})")
            return safe_repr(error)

    def _own(self, error: BaseException, name: str, kind: type) -> Any:
        """Return an attribute of an exception; where its class overrides it with nonsense, what Python itself set."""
        try:
            value = getattr(error, name)
            if value is None or is_a(value, kind):
                return value
            problem = f"is a {type(value).__name__}"
        except Exception as failure:
            problem = f"raises {type(failure).__name__}"
        self.notes.append(f"exception: its {name} {problem}")
        base = BaseExceptionGroup if is_a(error, BaseExceptionGroup) else BaseException
        return getattr(base, name).__get__(error)


def _notes(error: BaseException) -> list[str]:
    try:
        return [plain_text(text) for text in error.__notes__]
    except Exception:  # no notes, not a list, or an exception whose attributes raise
        return []


def _frames(trace: TracebackType | None) -> tuple[list[dict[str, Any]], int]:
    """List frames outermost first (of more than 50, the outer and inner 25), and count those left out."""
    frames = list(traceback.walk_tb(trace))
    omitted = max(0, len(frames) - _MAX_FRAMES)
    half = _MAX_FRAMES // 2
    return [_frame(*one) for one in (frames[:half] + frames[-half:] if omitted else frames)], omitted


def _frame(frame: FrameType, lineno: int) -> dict[str, Any]:
    code = frame.f_code
    found = {"filename": code.co_filename, "lineno": lineno, "name": code.co_name}
    try:
        line = linecache.getline(code.co_filename, lineno, frame.f_globals).strip()
    except Exception:  # odd sources, a loader that raises
        line = ""
    if line:
        found["line"] = line[:_MAX_SOURCE]
    return found
