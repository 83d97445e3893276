"""loguru's records as events: a sink, with flat fields, levels, the caller's place and structured exceptions.

    from loguru import logger
    from calyx_logging.harness.loguru import sink

    logger.add(sink(), level=0)

What is bound (`logger.bind(case_id="2+2")`, `logger.contextualize`) and passed (`logger.info("…", score=1.0)`) becomes
fields. loguru itself is not imported here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from calyx_logging.errors import ConfigError
from calyx_logging.handlers.children import is_in_use
from calyx_logging.handlers.outbox import OutboxHandler
from calyx_logging.harness.doctor import outbox_handlers

__all__ = ["sink"]


def sink(handler: OutboxHandler | None = None) -> Callable[[Any], None]:
    """Make a sink for `loguru.logger.add`.

    Args:
        handler: takes the records; default: all OutboxHandlers that a logger has when a record comes; where there are
            none yet, one is made as `OutboxHandler()`.

    Raises:
        ConfigError, NodeError: no handler is there, and none can be made: no root is known or provisioned.
    """
    if handler is not None and not isinstance(handler, OutboxHandler):
        raise ConfigError(f"sink() was given a {type(handler).__name__}: give an OutboxHandler, or nothing")
    mine = handler
    if mine is None and not outbox_handlers():
        mine = OutboxHandler()

    def write(message: Any) -> None:
        record = _record_of(message.record)
        for one in [mine] if mine is not None else outbox_handlers():
            if record.levelno >= one.level and (one is mine or is_in_use(one)):
                one.handle(record)

    return write


def _record_of(given: dict[str, Any]) -> logging.LogRecord:
    """Make a standard record of one of loguru's; its fields go into a dict as message, which takes any name."""
    exception, level, place = given["exception"], given["level"], given["file"]
    info = None if exception is None else (exception.type, exception.value, exception.traceback)
    fields = {"message_" if name == "message" else name: value for name, value in given["extra"].items()}
    text, message = given["message"], {**fields, "message": given["message"]}
    record = logging.LogRecord(
        given["name"] or "loguru",
        level.no,
        place.path,
        given["line"],
        message if fields else text,
        None,
        info,
        given["function"],
    )
    if logging.getLevelName(level.no) == f"Level {level.no}":  # loguru's own: TRACE, SUCCESS
        logging.addLevelName(level.no, level.name)
    record.levelname, record.created = level.name, given["time"].timestamp()
    record.process, record.processName = given["process"].id, given["process"].name
    record.thread, record.threadName = given["thread"].id, given["thread"].name
    return record
