"""Have a handler called for records of loggers that other code owns, whatever that does to their handlers.

A captured logger's records, and those of all loggers below it by name, go to the handler first, before the handlers
that `logging` finds for them: loggers that are made later, too, of any class, and loggers that cut propagation. Loggers
and their lists of handlers stay as they are: code that empties, counts or replaces them works as before. Level,
filters, `disabled` and `propagate` stay with their owner.

`logging.Logger.callHandlers` is replaced for that. The code in its place bears the file name of `logging` itself, so
that code which walks the stack to find a record's caller takes it for a part of `logging`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from typing import Any

from calyx_logging.errors import ConfigError

__all__ = ["as_if_in_logging", "attach", "captured_by", "check_names", "detach", "names_captured_by", "own"]

_capturing: dict[str, dict[object, logging.Handler]] = {}
"""By logger's name, and by role. Replaced as a whole, never changed, because other threads read it."""

_MOST_NAMES = 10_000
"""So many are remembered; programs that name a logger for each request have more."""

_found: dict[str, tuple[logging.Handler, ...]] = {}
"""Cache: the handlers that capture a logger, by its name."""


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
    """Have a handler called for loggers from now on, until one with an equal key replaces it.

    Args:
        handler: called for records of these loggers and of those below them.
        names: the loggers' names; `root` is every logger. Loggers need not exist.
        key: identifies the handler's role.
    """
    names = list(names)
    _set({**_capturing, **{name: {**_capturing.get(name, {}), key: handler} for name in names}})
    if names and not _is_installed():
        _install()


def detach(handler: logging.Handler) -> None:
    """Have no logger call a handler any more that was attached."""
    _set({name: {k: one for k, one in ones.items() if one is not handler} for name, ones in _capturing.items()})


def captured_by(logger: logging.Logger) -> list[logging.Handler]:
    """List the handlers that capture a logger."""
    return list(_capturing_of(logger.name))


def names_captured_by(handler: logging.Handler) -> list[str]:
    """List the names for which a handler was attached."""
    return [name for name, ones in _capturing.items() if handler in ones.values()]


def _set(capturing: dict[str, dict[object, logging.Handler]]) -> None:
    global _capturing, _found
    _capturing = capturing
    _found = {}  # after it, so that nobody puts what was before into the new one


def _capturing_of(name: str) -> tuple[logging.Handler, ...]:
    found = _found
    known = found.get(name)
    if known is None:
        if len(found) >= _MOST_NAMES:
            found.clear()
        parts = str(name).split(".")
        above = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
        ones = [one for place in dict.fromkeys([*above, "root"]) for one in _capturing.get(place, {}).values()]
        known = found[name] = tuple(dict.fromkeys(ones))
    return known


def as_if_in_logging(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function's code the file name of `logging`, as its own code has it: stack walks skip by that."""
    function.__code__ = function.__code__.replace(co_filename=logging.Logger.debug.__code__.co_filename)
    return function


def own(owner: object, name: str) -> Any:
    """Return a function of `logging`, by its owner and name; None if somebody has put another in its place."""
    function = getattr(owner, name)
    code = getattr(function, "__code__", None)
    qualified = f"{owner.__name__}.{name}" if isinstance(owner, type) else name
    is_own = code is not None and (code.co_filename, code.co_qualname) == (
        logging.addLevelName.__code__.co_filename,
        qualified,
    )
    return function if is_own else None


_call_handlers: Callable[..., None] | None = None


def _is_installed() -> bool:
    """Whether loggers call it, directly or through a wrapper of somebody else's."""
    found: Any = logging.Logger.callHandlers
    while found is not None and found is not _call_handlers:
        found = getattr(found, "__wrapped__", None)
    return found is not None


def _install() -> None:
    global _call_handlers
    before = logging.Logger.callHandlers

    @functools.wraps(before)
    def callHandlers(self: logging.Logger, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        for handler in _capturing_of(self.name):
            if record.levelno >= handler.level:
                handler.handle(record)
        before(self, record)

    _call_handlers = as_if_in_logging(callHandlers)
    logging.Logger.callHandlers = _call_handlers  # type: ignore[method-assign]
