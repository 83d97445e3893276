"""Connect structlog to stdlib loggers, or straight to the outbox; the lines are the same either way.

The straight path makes no LogRecord for plain events, that is a text as event and no reserved field names. Anything
else becomes a record, as a stdlib logger would make it, and is processed as one.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from calyx_logging.compiled import shortcut, use
from calyx_logging.errors import ConfigError
from calyx_logging.events.console import ensure_console
from calyx_logging.events.formatter import StructlogMessage
from calyx_logging.events.levels import level_text

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

    from calyx_logging.handlers.outbox import OutboxHandler

__all__ = ["OutboxLogger", "configure_structlog"]

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "msg": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "err": logging.ERROR,
    "exception": logging.ERROR,
    "failure": logging.ERROR,
    "critical": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}
"""Names of structlog's log methods, and their levels."""


def configure_structlog(
    outbox: OutboxHandler | None = None, *, level: int | str = logging.INFO, console: bool = False
) -> None:
    """Configure `structlog.get_logger(name)` to log through `logging.getLogger(name)`, or straight to an outbox.

    Fields may have any name, even that of a LogRecord attribute (`name`, `args`, `level` …). Context variables are read
    at the call. Put your own processors into the handler's EventFormatter, where they see every record.

    Args:
        outbox: write straight to this handler's outbox, past `logging`: faster, but no other handler sees the events.
            The handler need not be attached to a logger; its level, its filters and the levels of stdlib loggers are
            not applied.
        level: with `outbox`, the least level that is logged, by name or number.
        console: without `outbox`, whether the root logger gets a readable console on standard error if it has none, in
            place of structlog's own.

    Raises:
        ConfigError: `level` is not a level, or a console is wanted with `outbox`.
    """
    import structlog

    number = logging.getLevelNamesMapping().get(level.upper()) if isinstance(level, str) else level
    if not isinstance(number, int) or isinstance(number, bool):
        raise ConfigError(f"option 'level' is {level!r}: give the name or the number of a level")
    if console and outbox is not None:
        raise ConfigError(
            "either an outbox or a console", hint="the way straight to the outbox passes no other handler"
        )
    if console:
        ensure_console()
    if outbox is None:
        structlog.configure(
            processors=[
                structlog.stdlib.filter_by_level,
                structlog.contextvars.merge_contextvars,
                _to_log_kwargs,
            ],
            wrapper_class=_bound_logger(),
            logger_factory=structlog.stdlib.LoggerFactory(),
            context_class=dict,
            cache_logger_on_first_use=True,
        )
        return
    structlog.configure(
        processors=_CHAIN,
        wrapper_class=_straight_class(number),
        logger_factory=partial(OutboxLogger, outbox),
        context_class=dict,
        cache_logger_on_first_use=True,
    )


def _bound_logger() -> Any:
    """structlog's logger for stdlib logging, but a field may be named as one of its parameters (`method_name`)."""
    import structlog

    class BoundLogger(structlog.stdlib.BoundLogger):
        def _proxy_to_logger(  # type: ignore[override]
            self, method_name: str, /, event: Any = None, *event_args: Any, **event_kw: Any
        ) -> Any:
            if event_args:
                event_kw["positional_args"] = event_args
            try:
                args, kwargs = self._process_event(method_name, event, event_kw)
            except structlog.DropEvent:
                return None
            return getattr(self._logger, method_name)(*args, **kwargs)

    BoundLogger.__qualname__ = "BoundLogger"
    return BoundLogger


def _to_log_kwargs(
    logger: WrappedLogger, method_name: str, event_dict: EventDict
) -> tuple[tuple[StructlogMessage], dict[str, Any]]:
    """End the processor chain: return the event as a dict message, with the keyword arguments of stdlib logging."""
    message = StructlogMessage(event_dict)
    kwargs: dict[str, Any] = {}
    exc_info = message.get("exc_info")
    if isinstance(exc_info, (bool, BaseException)) or (isinstance(exc_info, tuple) and len(exc_info) == 3):
        kwargs["exc_info"] = message.pop("exc_info")
    for name, kind in (("stack_info", bool), ("stacklevel", int)):
        if type(message.get(name)) is kind:
            kwargs[name] = message.pop(name)
    args = message.get("positional_args")
    if args:
        with suppress(Exception):  # they stay as a field, so nothing is lost
            message["event"] = message["event"] % args
            del message["positional_args"]
    return (message,), kwargs


# ------------------------------------------------------------------ the straight way


def _to_one_argument(
    logger: WrappedLogger, method_name: str, event_dict: EventDict
) -> tuple[tuple[EventDict], dict[str, Any]]:
    return (event_dict,), {}


_CHAIN = [_to_one_argument]


def _straight_class(level: int) -> Any:
    """Make structlog's filtering bound logger with everyday methods that skip the empty processor chain."""
    import structlog

    usual: Any = structlog.make_filtering_bound_logger(level)

    def straight(name: str) -> Callable[..., Any]:
        the_usual = getattr(usual, name)

        def method(self: Any, event: object = None, *args: object, **fields: object) -> Any:
            if event is None or len(self._processors) != 1 or self._processors[0] is not _to_one_argument:
                return the_usual(self, event, *args, **fields)
            if self._context:
                fields = {**self._context, **fields}
            if args:  # structlog would format them, and raise if they do not fit
                fields["positional_args"] = args
            fields["event"] = event
            getattr(self._logger, name)(fields)
            return None

        method.__name__ = name
        return shortcut("straight", None, name, _LEVELS[name])(method)

    names = [name for name in ("debug", "info", "warning", "error", "critical") if _LEVELS[name] >= level]
    return type("StraightBoundLogger", (usual,), {name: straight(name) for name in names})


class OutboxLogger:
    """The wrapped logger that structlog's bound loggers call, past `logging`; all its log methods work alike.

    Args:
        handler: provides outbox, formatter and stamp.
        name: the events' `logger`; further arguments of `structlog.get_logger` are ignored.
    """

    __slots__ = ("__dict__", "handler", "methods", "name")
    debug: Callable[[EventDict], None]
    info: Callable[[EventDict], None]
    warning: Callable[[EventDict], None]
    error: Callable[[EventDict], None]
    critical: Callable[[EventDict], None]

    def __init__(self, handler: OutboxHandler, name: object = None, *_: object) -> None:
        self.handler = handler
        self.name = name if isinstance(name, str) else "root"
        self.methods = {
            method: partial(handler.submit, partial(self._encode, handler, number))
            for method, number in _LEVELS.items()
        }
        self.__dict__.update(self.methods)

    def _encode(self, handler: OutboxHandler, number: int, event_dict: EventDict) -> bytes | None:
        level = level_text(number)
        formatter = handler.event_formatter
        line = formatter.encode_fields(self.name, level, event_dict)
        if line is not None:
            return line
        (message,), kwargs = _to_log_kwargs(None, level, event_dict)
        record = logging.LogRecord(self.name, number, "", 0, message, (), _exc_info(kwargs.get("exc_info")))
        if kwargs.get("stack_info"):
            record.stack_info = _stack()
        return formatter.encode(record)


use(
    straight_class=OutboxLogger,
    straight_end=_to_one_argument,
    straight_handler=vars(OutboxLogger)["handler"],
    straight_methods=vars(OutboxLogger)["methods"],
    straight_name=vars(OutboxLogger)["name"],
)


def _exc_info(given: Any) -> Any:
    """Return exception info in the form that `logging` takes."""
    if isinstance(given, BaseException):
        return (type(given), given, given.__traceback__)
    if given and not isinstance(given, tuple):
        return sys.exc_info()
    return given or None


def _stack() -> str:
    """Format the stack of the call as `logging` does."""
    import traceback

    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _OWN_PACKAGES:
        frame = frame.f_back
    return "Stack (most recent call last):\n" + "".join(traceback.format_stack(frame)).rstrip("\n")


_OWN_PACKAGES = ("calyx_logging", "structlog")
