"""Keeping a handler on loggers that are somebody else's: that cut propagation, and are configured again and again.

A captured logger calls the handler for every record that reaches it, its own and its children's, whatever becomes of
its list of handlers: `logger.handlers` shows, loses and counts only the others, so that code which empties that list,
or asks whether there is anything in it (`logging.basicConfig`), does what it always did. Level, filters, `disabled` and
`propagate` are left to their owner; `calyx-telemetry doctor` says when one of them stops a record.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Iterable, Iterator
from typing import Any

from calyx_logging.errors import ConfigError

__all__ = ["attach", "captured_by", "check_names"]

_ATTRIBUTE = "_calyx_handlers"


class _Handlers(list[logging.Handler]):
    """A logger's handlers: a list of those it was given, which in a loop also yields the ones that capture it."""

    def __init__(self, given: Iterable[logging.Handler], capturing: dict[object, logging.Handler]) -> None:
        super().__init__(given)
        self.capturing = capturing

    def __iter__(self) -> Iterator[logging.Handler]:
        # first, because others' handlers and their filters may write into the record
        first = list(self.capturing.values())
        yield from first
        for handler in super().__iter__():
            if not any(handler is other for other in first):
                yield handler

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
        self.__dict__[_ATTRIBUTE] = _Handlers(given, self.__dict__[_ATTRIBUTE].capturing)


_classes: dict[type[logging.Logger], type[logging.Logger]] = {}
_attached: dict[object, logging.Handler] = {}


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
    """Have loggers call a handler from now on.

    Args:
        handler: called for what is logged on them and below them.
        names: of the loggers; they are made where they are not there yet.
        key: what the handler stands for: one that was attached under an equal key before is let go everywhere.
    """
    before = _attached.pop(key, None)
    if before is not None and before is not handler:
        _let_go(before)
    names = list(names)
    if not names:
        return
    _attached[key] = handler
    for name in names:
        logger = logging.getLogger(None if name == "root" else name)
        _make_captured(logger)
        logger.__dict__[_ATTRIBUTE].capturing[key] = handler


def captured_by(logger: logging.Logger) -> list[logging.Handler]:
    """The handlers that capture a logger."""
    found = logger.__dict__.get(_ATTRIBUTE)
    return [] if found is None else list(found.capturing.values())


def _make_captured(logger: logging.Logger) -> None:
    if isinstance(logger, _Captured):
        return
    kind = type(logger)
    if kind not in _classes:
        _classes[kind] = type(kind.__name__, (_Captured, kind), {"__module__": kind.__module__})
    given = logger.__dict__.pop("handlers")
    logger.__dict__[_ATTRIBUTE] = _Handlers(given, {})
    logger.__class__ = _classes[kind]


def _let_go(handler: logging.Handler) -> None:
    manager = logging.Logger.manager
    for logger in [logging.getLogger(), *list(manager.loggerDict.values())]:
        if isinstance(logger, _Captured):
            capturing = logger.__dict__[_ATTRIBUTE].capturing
            for key in [key for key, one in capturing.items() if one is handler]:
                del capturing[key]


def _close_all() -> None:
    """At exit: `logging` closes only what no later configuration has made it forget."""
    for handler in list(_attached.values()):
        handler.close()


atexit.register(_close_all)
