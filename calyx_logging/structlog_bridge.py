"""structlog on top of stdlib loggers, so that structlog and stdlib records take the same way to the handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calyx_logging.formatter import StructlogMessage

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

__all__ = ["configure_structlog"]


def configure_structlog() -> None:
    """Set structlog up so that `structlog.get_logger(name)` logs through `logging.getLogger(name)`.

    Fields may have any name, those of LogRecord attributes (`name`, `args`, `level` …) too. Context variables are
    taken at the call. Processors of your own belong into the handler's EventFormatter, where they see every record.
    """
    import structlog

    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            _to_log_kwargs,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        context_class=dict,
        cache_logger_on_first_use=True,
    )


def _to_log_kwargs(
    logger: WrappedLogger, method_name: str, event_dict: EventDict
) -> tuple[tuple[StructlogMessage], dict[str, Any]]:
    """The chain's end: the event as a dict message, and what stdlib's logging takes by keyword."""
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
        try:
            message["event"] = message["event"] % args
            del message["positional_args"]
        except (TypeError, ValueError, KeyError):
            pass  # they stay as a field of their own, so nothing is lost
    return (message,), kwargs
