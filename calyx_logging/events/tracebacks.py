"""Exceptions as data: type, text, causes and frames; without local variables, and bounded in size."""

from __future__ import annotations

import linecache
import traceback
from types import FrameType, TracebackType
from typing import Any

from calyx_logging.events.values import is_a, safe_repr

__all__ = ["exception_chain", "plain_text"]

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


def exception_chain(error: BaseException, trace: TracebackType | None) -> list[dict[str, Any]]:
    """List the exception raised, then its cause, and so on.

    Each exception appears once, even if chains and groups refer to it repeatedly; there are at most 100 in all.
    """
    return _chain(error, trace, set())


def _chain(error: BaseException, trace: TracebackType | None, seen: set[int]) -> list[dict[str, Any]]:
    chain: list[dict[str, Any]] = []
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(seen) < _MAX_ENTRIES:
        seen.add(id(current))
        chain.append(_entry(current, trace if current is error else current.__traceback__, seen))
        cause = current.__cause__
        current = cause if cause is not None or current.__suppress_context__ else current.__context__
    return chain


def _entry(error: BaseException, trace: TracebackType | None, seen: set[int]) -> dict[str, Any]:
    frames, omitted = _frames(trace)
    entry: dict[str, Any] = {"type": type(error).__name__, "value": plain_text(error), "frames": frames}
    if omitted:
        entry["frames_omitted"] = omitted
    if type(error).__module__ != "builtins":
        entry["module"] = type(error).__module__
    if notes := _notes(error):
        entry["notes"] = notes
    if is_a(error, BaseExceptionGroup):
        entry["exceptions"] = [_chain(part, part.__traceback__, seen) for part in error.exceptions]  # type: ignore[attr-defined]
    return entry


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
