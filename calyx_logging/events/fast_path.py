"""A fast path for plain records: no exception, no context, a text as message, no reserved field names. Most are plain.

`plain_event` does what the formatter's hooks do, in fewer steps, because every step costs time in each logging call.
Invariant: the result is the one the hooks would give; in case of doubt it returns None.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

from calyx_logging.compiled import use
from calyx_logging.core import json_bytes
from calyx_logging.events.capture import own
from calyx_logging.events.context import PROCESS_FIELDS, bound_context
from calyx_logging.events.event import LARGE, RESERVED, need_memory
from calyx_logging.events.levels import LEVEL_TEXTS
from calyx_logging.events.stamp import RECORD_MARK, TO_BE_STAMPED

__all__ = ["STANDARD_ATTRIBUTES", "TEXT_BYTES", "plain_event", "plain_fields"]

_BY_LOGGING = tuple(logging.LogRecord("", 0, "", 0, "", (), None).__dict__)
_COUNT = len(_BY_LOGGING)
_LAST = _BY_LOGGING[-1]
_LEVEL_NAMES: Mapping[int, str] = getattr(logging, "_levelToName", {})
"""The dict that getLevelName reads; it lives as long as the module."""

STANDARD_ATTRIBUTES = frozenset(_BY_LOGGING) | {"message", "asctime"}
"""Attributes of a record that are not the caller's fields."""

TEXT_BYTES = len('{"node_id":"","ts_utc":"2026-11-22T08:00:00.000000+00:00","event_id":"","source":"","level":""')
"""At least this many bytes at the start of a plain event's line belong to texts."""

_GET_MESSAGE = own(logging.LogRecord, "getMessage")
_CONTAINERS = frozenset((dict, list, tuple))
_SET_BY_FORMATTERS = frozenset(("message", "asctime"))
_NO_FIELD = (STANDARD_ATTRIBUTES | RESERVED | {"_record", RECORD_MARK}) - _SET_BY_FORMATTERS
_NO_STRUCTLOG_FIELD = RESERVED | {"_record", RECORD_MARK, "exc_info", "stack_info", "stacklevel", "positional_args"}
_TEMPLATE = dict.fromkeys(("node_id", "ts_utc", "event_id", "source", "level", "logger", "message"), TO_BE_STAMPED)


def plain_event(record: logging.LogRecord) -> dict[str, Any] | None:
    """Return the event of a plain record, ready for its stamp; None if the record is not plain."""
    attributes = record.__dict__
    try:
        message = attributes["msg"]
        if (
            type(message) is not str
            or type(record) is not logging.LogRecord
            or logging.LogRecord.getMessage is not _GET_MESSAGE
            or attributes["exc_info"] is not None
            or attributes["exc_text"] is not None
            or attributes["stack_info"] is not None
            or type(attributes["name"]) is not str
            or type(attributes["created"]) is not float
            or ((PROCESS_FIELDS or "structlog.contextvars" in sys.modules) and bound_context())
        ):
            return None
        names = list(attributes)
        fields = names[_COUNT:]  # logging's own come first, then the caller's
        if names[_COUNT - 1] != _LAST or not _NO_FIELD.isdisjoint(fields):
            return None
        if not _SET_BY_FORMATTERS.isdisjoint(fields):
            fields = [name for name in fields if name not in _SET_BY_FORMATTERS]
        if args := attributes["args"]:
            if type(args) is not tuple and type(args) is not dict:
                return None
            message %= args
        event: dict[str, Any] = _TEMPLATE.copy()
        number = attributes["levelno"]
        event["level"] = LEVEL_TEXTS.get(number) or _LEVEL_NAMES[number].lower()
        event["logger"] = attributes["name"]
        event["message"] = message
        for name in fields:
            event[name] = value = attributes[name]
            kind = type(value)
            if kind is str:
                if len(value) > LARGE:
                    need_memory(event)
            elif kind in _CONTAINERS:
                need_memory(event)
        if len(message) > LARGE:
            need_memory(event)
        event["_record"] = record
    except MemoryError:
        raise
    except Exception:  # bad % arguments, a level without a name, a missing attribute
        return None
    return event


def plain_fields(logger: str, level: str, fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the event of a structlog event dict, ready for its stamp; None if it is not plain."""
    message = fields.get("event")
    if (
        type(message) is not str
        or not _NO_STRUCTLOG_FIELD.isdisjoint(fields)
        or ((PROCESS_FIELDS or "structlog.contextvars" in sys.modules) and bound_context())
    ):
        return None
    event: dict[str, Any] = _TEMPLATE.copy()
    event["level"] = level
    event["logger"] = logger
    event["message"] = message
    event.update(fields)
    del event["event"]
    for value in fields.values():
        kind = type(value)
        if kind is str:
            if len(value) > LARGE:
                need_memory(event)
        elif kind in _CONTAINERS:
            need_memory(event)
    return event


use(
    record_class=logging.LogRecord,
    record_attributes=_BY_LOGGING,
    not_of_record=_NO_FIELD,
    not_of_logger=_NO_FIELD | _SET_BY_FORMATTERS,
    not_of_structlog=_NO_STRUCTLOG_FIELD | {"event", "self"},
    stock_record={
        "__init__": own(logging.LogRecord, "__init__"),
        "__new__": object.__new__,
        "getMessage": _GET_MESSAGE,
    },
    level_names=_LEVEL_NAMES,
    process_fields=PROCESS_FIELDS,
    bound_context=bound_context,
    orjson_dumps=json_bytes.dumps,
)
