"""Turn each line that the program prints, on standard output or standard error, into an event as well.

The stream's `write` is wrapped, not the stream replaced: the terminal, `isatty`, `fileno` and everything that holds the
stream stay as they were. Each thread's lines are put together by themselves. Of a line that is drawn again and again
(a progress bar, with carriage returns) the last state is the event.

Invariants:

* The stream is written to first, as before, whatever happens here.
* What is written inside a logging call (by a console handler) is no event: the record is one already.
* Not seen: what C code and other programs write to the descriptors, and bytes written to `sys.stdout.buffer`.
"""

from __future__ import annotations

import atexit
import io
import logging
import os
import sys
import threading
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from calyx_logging.errors import say
from calyx_logging.handlers.crashes import record_for, send

if TYPE_CHECKING:
    from calyx_logging.handlers.outbox import OutboxHandler

__all__ = ["listen"]

_MAX_LINE = 64 * 1024
"""Characters after which a line without an end is an event, as far as it goes."""

_listening: weakref.WeakSet[OutboxHandler] = weakref.WeakSet()
_inside_logging = {logging.Handler.handle.__code__, logging.Logger.callHandlers.__code__, say.__code__}
"""What is printed below one of these is no event; `listen` adds the handlers' own."""

_tees: list[_Tee] = []


def listen(handler: OutboxHandler) -> None:
    """Have a handler log what is printed from now on."""
    _listening.add(handler)
    _inside_logging.update(vars(kind)["handle"].__code__ for kind in type(handler).__mro__ if "handle" in vars(kind))
    if not _tees:
        atexit.register(_flush)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not any(tee.is_of(stream) for tee in _tees):
            try:
                _tees.append(_Tee(name, stream))
            except AttributeError:  # an object without room for attributes
                say(f"what is printed to sys.{name} is not logged: {type(stream).__name__} takes no attributes")


def _flush() -> None:
    for tee in list(_tees):
        tee.flush()


class _Tee:
    """Wraps the `write` of one stream."""

    def __init__(self, name: str, stream: Any) -> None:
        self._name = name
        self._stream = stream
        self._parts: dict[int, str] = {}
        self._pid = os.getpid()
        write = stream.write

        def tee(text: str, /) -> Any:
            written = write(text)
            self._see(text)
            return written

        def writelines(lines: Iterable[str]) -> None:
            for line in lines:
                stream.write(line)

        stream.write = tee
        if isinstance(stream, io.TextIOBase):
            stream.writelines = writelines  # type: ignore[method-assign]

    def is_of(self, stream: Any) -> bool:
        return self._stream is stream

    def _see(self, text: Any) -> None:
        try:
            if _listening and isinstance(text, str) and not _is_inside_logging():
                if self._pid != os.getpid():  # what the parent has begun is the parent's
                    self._parts, self._pid = {}, os.getpid()
                self._add(text)
        except Exception as error:
            say(f"what was printed could not be logged: {type(error).__name__}: {error}")

    def _add(self, text: str) -> None:
        thread = threading.get_ident()
        *lines, rest = (self._parts.pop(thread, "") + text).split("\n")
        for line in lines:
            self._log(line)
        rest = rest[rest.rfind("\r", 0, len(rest) - 1) + 1 :]
        while len(rest) > _MAX_LINE:
            self._log(rest[:_MAX_LINE])
            rest = rest[_MAX_LINE:]
        if rest:
            self._parts[thread] = rest

    def flush(self) -> None:
        """Log what has no line end yet."""
        for thread in list(self._parts):
            self._log(self._parts.pop(thread, ""))

    def _log(self, line: str) -> None:
        line = line.rstrip("\r")
        line = line[line.rfind("\r") + 1 :]
        if not line.strip():
            return
        send(_listening, record_for(self._name, logging.INFO, line, {}), self._name)


def _is_inside_logging() -> bool:
    frame: Any = sys._getframe(2)
    while frame is not None:
        if frame.f_code in _inside_logging:
            return True
        frame = frame.f_back
    return False
