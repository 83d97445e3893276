"""Keep a handler on loggers that other code owns, even if it stops propagation or reconfigures them.

A captured logger calls the handler for every record that reaches it, its own and its children's, whatever happens to
its list of handlers. Only `Logger.callHandlers` sees the handler in `logger.handlers`. Code that empties or changes
that list, or checks whether it is empty (`logging.basicConfig`), works as before. Level, filters, `disabled` and
`propagate` stay with their owner; `calyx-telemetry doctor` reports when one of them stops a record.
"""

from __future__ import annotations

import atexit
import logging
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from calyx_logging.errors import ConfigError

__all__ = ["attach", "captured_by", "check_names", "detach"]

_ATTRIBUTE = "handlers"
"""Key of the handlers in a logger's `__dict__`; a property of the same name takes precedence over it."""


class _Handlers(list[logging.Handler]):
    """A logger's list of handlers; `callHandlers` also gets the capturing ones, first."""

    def __init__(self, given: Iterable[logging.Handler], capturing: dict[object, logging.Handler]) -> None:
        super().__init__(given)
        self.capturing = capturing

    def __iter__(self) -> Iterator[logging.Handler]:
        if sys._getframe(1).f_code.co_name != "callHandlers":
            return super().__iter__()
        # first, because other handlers and their filters may modify the record
        first = list(self.capturing.values())
        return iter(first + [handler for handler in super().__iter__() if handler not in first])

    def __reduce__(self) -> Any:
        return list, (self[:],)


class _Captured:
    """Mixin of a captured logger's class: its `handlers` keep capturing when a new list is assigned."""

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
    """Return the option `capture` as a list of logger names (`root` is the root logger).

    Raises:
        ConfigError: it is not a list of texts.
    """
    if isinstance(names, (str, bytes, dict)) or not isinstance(names, Iterable):
        raise ConfigError(f"option 'capture' is {names!r}: give a list of loggers' names")
    found = list(names)
    if not all(isinstance(name, str) and name for name in found):
        raise ConfigError(f"option 'capture' is {found!r}: give a list of loggers' names, 'root' for the root logger")
    return found


def attach(handler: logging.Handler, names: Iterable[str], key: object) -> None:
    """Make loggers call a handler from now on, until one with an equal key replaces it.

    Args:
        handler: called for records of these loggers and of those below them.
        names: the loggers' names; missing loggers are created.
        key: identifies the handler's role.
    """
    for name in names:
        logger = logging.getLogger(None if name == "root" else name)
        _make_captured(logger)
        logger.__dict__[_ATTRIBUTE].capturing[key] = handler


def detach(handler: logging.Handler) -> None:
    """Have no logger call a handler any more that was attached."""
    manager = logging.Logger.manager
    for logger in [logging.getLogger(), *list(manager.loggerDict.values())]:
        found = logger.__dict__.get(_ATTRIBUTE)
        if isinstance(found, _Handlers):
            for key in [key for key, one in list(found.capturing.items()) if one is handler]:
                found.capturing.pop(key, None)


def captured_by(logger: logging.Logger) -> list[logging.Handler]:
    """List the handlers that capture a logger."""
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
    """Close capturing handlers at exit; `logging` forgets some of them when it is reconfigured."""
    manager = logging.Logger.manager
    for logger in [logging.getLogger(), *list(manager.loggerDict.values())]:
        if isinstance(logger, logging.Logger):
            for handler in captured_by(logger):
                handler.close()


atexit.register(_close_all)
