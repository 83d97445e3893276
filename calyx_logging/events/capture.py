"""Keeping a handler on loggers that are somebody else's: that cut propagation, and are configured again and again.

A captured logger calls the handler for every record that reaches it, its own and its children's, whatever becomes of
its list of handlers: only who calls the handlers in `logger.handlers` finds it there, so that code which empties that
list, changes what is in it, or asks whether there is anything (`logging.basicConfig`), does what it always did. Level,
filters, `disabled` and `propagate` are left to their owner; `calyx-telemetry doctor` says when one of them stops a
record.
"""

from __future__ import annotations

import atexit
import logging
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from calyx_logging.errors import ConfigError

__all__ = ["attach", "captured_by", "check_names"]

_ATTRIBUTE = "handlers"
"""Where a logger keeps its handlers; a property of that name goes before it, and nothing else has to know."""


class _Handlers(list[logging.Handler]):
    """A logger's handlers: those it was given; for who calls them, the ones that capture it come before."""

    def __init__(self, given: Iterable[logging.Handler], capturing: dict[object, logging.Handler]) -> None:
        super().__init__(given)
        self.capturing = capturing

    def __iter__(self) -> Iterator[logging.Handler]:
        if sys._getframe(1).f_code.co_name != "callHandlers":
            return super().__iter__()
        # first, because others' handlers and their filters may write into the record
        first = list(self.capturing.values())
        return iter(first + [handler for handler in super().__iter__() if handler not in first])

    def __reduce__(self) -> Any:
        return list, (self[:],)


class _Captured:
    """What a captured logger's class has before its own: `handlers`, which stays what it is when it is assigned."""

    @property
    def handlers(self) -> list[logging.Handler]:
        found: list[logging.Handler] = self.__dict__[_ATTRIBUTE]
        return found

    @handlers.setter
    def handlers(self, given: Iterable[logging.Handler]) -> None:
        before = self.__dict__.get(_ATTRIBUTE)
        self.__dict__[_ATTRIBUTE] = _Handlers(given, before.capturing if isinstance(before, _Handlers) else {})


_classes: dict[type[logging.Logger], type[logging.Logger]] = {}


def check_names(names: object) -> list[str]:
    """Return the option `capture` as a list of loggers' names (`root` is the root logger).

    Raises:
        ConfigError: it is no list of texts.
    """
    if isinstance(names, (str, bytes, dict)) or not isinstance(names, Iterable):
        raise ConfigError(f"option 'capture' is {names!r}: give a list of loggers' names")
    found = list(names)
    if not all(isinstance(name, str) and name for name in found):
        raise ConfigError(f"option 'capture' is {found!r}: give a list of loggers' names, 'root' for the root logger")
    return found


def attach(handler: logging.Handler, names: Iterable[str], key: object) -> None:
    """Have loggers call a handler from now on, until another one of an equal key captures them.

    Args:
        handler: called for what is logged on them and below them.
        names: of the loggers; they are made where they are not there yet.
        key: what the handler stands for.
    """
    for name in names:
        logger = logging.getLogger(None if name == "root" else name)
        _make_captured(logger)
        logger.__dict__[_ATTRIBUTE].capturing[key] = handler


def captured_by(logger: logging.Logger) -> list[logging.Handler]:
    """The handlers that capture a logger."""
    found = logger.__dict__.get(_ATTRIBUTE)
    return list(found.capturing.values()) if isinstance(found, _Handlers) else []


def _make_captured(logger: logging.Logger) -> None:
    if isinstance(logger, _Captured):
        return
    kind = type(logger)
    if kind not in _classes:
        _classes[kind] = type(kind.__name__, (_Captured, kind), {"__module__": kind.__module__})
    logger.__dict__[_ATTRIBUTE] = _Handlers(logger.__dict__[_ATTRIBUTE], {})
    logger.__class__ = _classes[kind]


def _close_all() -> None:
    """At exit: `logging` closes only what no later configuration has made it forget."""
    manager = logging.Logger.manager
    for logger in [logging.getLogger(), *list(manager.loggerDict.values())]:
        if isinstance(logger, logging.Logger):
            for handler in captured_by(logger):
                handler.close()


atexit.register(_close_all)
