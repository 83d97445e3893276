"""EventFormatter: a LogRecord becomes one event line, the same from a stdlib logger and from a structlog logger.

It implements the hooks of python-json-logger's `BaseJsonFormatter`: `add_fields` gathers fields, `process_log_record`
runs the structlog processors and the stamp. `encode` calls them itself, because the base's `format` lets bad `%`
arguments raise, and such a record must still give a line.

This module imports neither structlog nor rich: a processor is any callable, and context variables can be bound only
after the program has imported structlog.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from pythonjsonlogger.core import BaseJsonFormatter

from calyx_logging.compiled import CORE
from calyx_logging.core import json_bytes
from calyx_logging.core.validation import refuse_unknown
from calyx_logging.errors import ConfigError
from calyx_logging.events.context import bound_context
from calyx_logging.events.event import (
    DEFAULT_MAX_EVENT_BYTES,
    DEFAULT_SOURCE,
    RESERVED,
    check_source,
    encode,
    note,
    shadow,
)
from calyx_logging.events.fast_path import STANDARD_ATTRIBUTES, TEXT_BYTES, plain_event, plain_fields
from calyx_logging.events.levels import level_text
from calyx_logging.events.processors import NamedProcessor, conform, is_drop, resolve_all, run_all
from calyx_logging.events.stamp import QUEUED, RECORD_MARK, StampEvent, mark_of
from calyx_logging.events.tracebacks import exception_of, plain_text
from calyx_logging.events.values import is_a

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

__all__ = ["EventFormatter", "StructlogMessage"]

_OPTIONS = ("format", "datefmt", "style", "validate", "processors", "static_fields", "root", "source")
_STAMPED = frozenset({"node_id", "ts_utc", "event_id", "source"})
_OURS = (RESERVED | {"_record"}) - _STAMPED
"""Reserved names that are set before the user's processors run; the stamped ones are set after."""


class StructlogMessage(dict[str, Any]):
    """A structlog event as the message of a LogRecord; other handlers see the text `event  key=value …`."""

    def __str__(self) -> str:
        fields = " ".join(f"{key}={value!r}" for key, value in self.items() if key != "event")
        return f"{self.get('event', '')}  {fields}".rstrip()


class EventFormatter(BaseJsonFormatter):
    """Formats a record as an event line, without `seq` (the chunk's writer adds it).

    Args:
        fmt: names LogRecord attributes to add as fields, in the style's notation (`"%(process)d"`).
        datefmt: as in `logging.Formatter`.
        style: as in `logging.Formatter`.
        validate: as in `logging.Formatter`.
        processors: structlog processors that run before the stamp, in order: callables, dotted names (a class is called
            without arguments), or `{"()": dotted name, …}` for one with arguments. If one raises it is skipped and the
            line says so in `degraded`; structlog's DropEvent drops the event.
        static_fields: fields for every event; a record's own field of the same name wins.
        root: the root whose node id to stamp if another library's handler uses the formatter; default as in
            `Node.find`, at the first record.
        source: the source to stamp in that case.

    Raises:
        ConfigError: an option is unknown or bad.
        NodeError: `root` is given and has no usable node id.
    """

    def __init__(
        self,
        fmt: str | Sequence[str] | None = None,
        datefmt: str | None = None,
        style: str = "%",
        validate: bool = True,
        *,
        processors: Sequence[str | Mapping[str, Any] | Processor] = (),
        static_fields: Mapping[str, Any] | None = None,
        root: str | os.PathLike[str] | None = None,
        source: str = DEFAULT_SOURCE,
        **unknown: Any,
    ) -> None:
        fmt = unknown.pop("format", fmt)  # dictConfig's name for it
        refuse_unknown("EventFormatter", _OPTIONS, unknown)
        if static_fields is not None and not is_a(static_fields, Mapping):
            raise ConfigError(f"option 'static_fields' is {static_fields!r:.200}: give an object of fields")
        super().__init__(fmt, datefmt, style, validate)
        # The base takes "message" from the default format for None; every event has that field anyway.
        self._attributes = [name for name in self._required_fields if name != "message"]
        self._static = dict(static_fields or {})
        self._processors = resolve_all(processors)
        self._root = root
        self._source = check_source(source)
        self._max_bytes = DEFAULT_MAX_EVENT_BYTES
        self._is_plain = (
            not (self._attributes or self._static or self._processors)
            and (
                type(self).add_fields,
                type(self).process_log_record,
            )
            == _HOOKS
        )
        self._stamp: StampEvent | None = None if root is None else StampEvent.for_root(root, source)

    def bound_to(self, stamp: StampEvent, max_bytes: int = DEFAULT_MAX_EVENT_BYTES) -> Self:
        """Return a copy bound to a handler's stamp and size limit, so that handlers can share one's options."""
        bound = copy.copy(self)
        bound._stamp = stamp
        bound._max_bytes = max_bytes
        return bound

    def way_to(self, pool: Any, taker: str) -> object:
        """Return the compiled core's way to a pool (`calyx_logging.recording.pool`) for plain records, or None."""
        stamp = self._stamp
        if CORE is None or stamp is None or not self._is_plain or not stamp.is_stock:
            return None
        head = b'{"node_id":' + json_bytes.dumps(stamp.node_id) + b',"ts_utc":"'
        middle = b'","source":' + json_bytes.dumps(stamp.source) + b',"level":'
        return pool, partial(pool.submit, bytes), taker, head, middle, self._max_bytes

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as a line of text; empty if a processor dropped the event."""
        return (self.encode(record) or b"").decode()

    def encode(self, record: logging.LogRecord) -> bytes | None:
        """Encode a record as a line in UTF-8 without newline; None if a processor dropped the event."""
        if self._is_plain and self._stamp is not None:
            event = plain_event(record)
            if event is not None:
                return encode(self._stamp(None, "", event), self._max_bytes, TEXT_BYTES)
        return self._encode_by_hooks(record)

    def encode_fields(self, logger: str, level: str, fields: Mapping[str, Any]) -> bytes | None:
        """Encode a plain structlog event as `encode` would; None if it is not plain."""
        if self._is_plain and self._stamp is not None:
            event = plain_fields(logger, level, fields)
            if event is not None:
                return encode(self._stamp(None, "", event), self._max_bytes, TEXT_BYTES)
        return None

    def _encode_by_hooks(self, record: logging.LogRecord) -> bytes | None:
        event: dict[str, Any] = {}
        message: Any = record.msg
        try:
            self.add_fields(event, record, message if is_a(message, dict) else {})
        except Exception as error:  # an attribute of the record has an impossible value
            event = _least(record, error)
        try:
            return encode(self.process_log_record(event), self._max_bytes)
        except BaseException as error:  # structlog's DropEvent is not an Exception
            if is_drop(error):
                return None
            raise

    def encode_mirrored(self, fields: Mapping[str, Any]) -> bytes | None:
        """Encode an event that is not a record but a caller's dict, which is not changed.

        Its own `event_id`, valid `ts_utc`, and texts in `level`, `logger` and `message` are kept; the processors run.
        Returns None if one of them dropped the event.
        """
        stamp = self._stamp_of_this()
        own = {"level": "info", "logger": stamp.source, "message": ""}
        event: EventDict = conform({**own, **fields}, own)
        try:
            if self._processors:
                event = run_all(self._processors, logging.getLogger(event["logger"]), event["level"], event)
                event = conform(event, own)
        except BaseException as error:
            if is_drop(error):
                return None
            raise
        return encode(stamp.stamped(None, event), self._max_bytes)

    @property
    def processors(self) -> list[NamedProcessor]:
        """The user's processors, in order."""
        return list(self._processors)

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Implement the base's hook for encoding; `encode` does the work."""
        return encode(log_data).decode()

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Gather level, logger, message, exception and the caller's fields; move reserved names to `shadowed`."""
        mark = mark_of(record)
        queued: Mapping[str, Any] | None = mark.get(QUEUED)
        fields = dict(self._static) if self._static else {}
        if context := bound_context() if queued is None else queued["context"]:
            fields.update(context)
        for name in self._attributes:
            fields[name] = record.__dict__.get(name)
        kept: dict[str, Any] = {}
        troubles: list[str] = []
        if queued is not None and "fields" in queued:
            is_structlog = queued["of structlog"]
            message = _message_of(queued["fields"], is_structlog, record, fields, kept, troubles)
        elif queued is not None and "message" in queued:
            message = queued["message"]
        elif is_a(record.msg, dict):
            is_structlog = type(record.msg) is StructlogMessage
            message = _message_of(message_dict, is_structlog, record, fields, kept, troubles)
        else:
            message = _text_of(record, kept, troubles)
        extra = {name: value for name, value in record.__dict__.items() if name not in STANDARD_ATTRIBUTES}
        if "_logger" in extra and "_name" in extra and is_a(record.msg, dict):
            del extra["_logger"]  # set by ProcessorFormatter.wrap_for_formatter, not by the caller
            del extra["_name"]
        if queued is not None:
            extra.pop(RECORD_MARK, None)
            if "field" in queued:
                extra[RECORD_MARK] = queued["field"]
        fields.update(extra)
        log_data["level"] = _level_of(record)
        log_data["logger"] = record.name if type(record.name) is str else plain_text(record.name)
        log_data["message"] = message
        if not _OURS.isdisjoint(fields):
            kept.update({name: fields.pop(name) for name in _OURS & fields.keys()})
        shadow(log_data, kept)
        log_data.update(fields)
        log_data["_record"] = record
        if queued is not None and "exception" in queued:
            log_data["exception"] = queued["exception"]
            troubles += queued["exception notes"]
        elif record.exc_info is not None or record.exc_text is not None:
            troubles += self._add_exception(log_data, record)
        stack_info = record.stack_info if queued is None else queued["stack_info"]
        if stack_info is not None:
            log_data.setdefault("stack_info", stack_info)
        note(log_data, troubles)

    def _add_exception(self, event: dict[str, Any], record: logging.LogRecord) -> list[str]:
        """Add the exception, if there is one; return notes of what cannot be read of it."""
        chain, troubles = exception_of(record.exc_info)
        if chain is not None:
            event["exception"] = chain
        elif record.exc_text is not None:
            event["exception"] = [{"type": "", "value": plain_text(record.exc_text), "frames": []}]
        return troubles

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Run the user's processors, then the stamp."""
        event: EventDict = log_data
        if self._processors:
            event = self._run_processors(log_data)
        return self._stamp_of_this()(None, "", event)  # type: ignore[return-value]

    def _stamp_of_this(self) -> StampEvent:
        if self._stamp is None:
            self._stamp = StampEvent.for_root(self._root, self._source)
        return self._stamp

    def _run_processors(self, event: EventDict) -> EventDict:
        record: logging.LogRecord = event["_record"]
        logger, method = logging.getLogger(str(record.name)), str(event["level"])
        own = {name: event[name] for name in ("level", "logger", "message")}
        event = run_all(self._processors, logger, method, event)
        event["_record"] = record
        return conform(event, own)


_HOOKS = (EventFormatter.add_fields, EventFormatter.process_log_record)


def _level_of(record: logging.LogRecord) -> str:
    """Return the text of the level's number; colouring formatters overwrite `levelname`."""
    try:
        return level_text(record.levelno)
    except (TypeError, AttributeError):
        return str(record.levelname).lower()


def _text_of(record: logging.LogRecord, kept: dict[str, Any], troubles: list[str]) -> str:
    """Return the formatted message; arguments that do not fit are kept beside the unformatted one."""
    try:
        text = record.getMessage()
        return text if type(text) is str else str.__str__(text)
    except Exception as error:
        troubles.append(f"message not formatted: {type(error).__name__}")
        kept["args"] = _args_list(record)
        return plain_text(record.msg)


def _message_of(
    items: dict[str, Any],
    from_structlog: bool,
    record: logging.LogRecord,
    fields: dict[str, Any],
    kept: dict[str, Any],
    troubles: list[str],
) -> str:
    """Return the text of a dict message; its other items become fields."""
    items = dict(items)
    message = items.pop("event" if from_structlog or "message" not in items else "message", "")
    if from_structlog and "message" in items:
        kept["message"] = items.pop("message")
    fields.update(items)
    if record.args:
        troubles.append("message not formatted: a dict takes no arguments")
        kept["args"] = _args_list(record)
    if is_a(message, str):
        return str.__str__(message)
    kept["message"] = message
    return plain_text(message)


def _least(record: logging.LogRecord, error: Exception) -> dict[str, Any]:
    """Build a minimal event from a record that cannot be processed."""
    event = {"_record": record, "level": "error", "logger": plain_text(record.name), "message": plain_text(record.msg)}
    with contextlib.suppress(Exception):  # the level may fail as well; the note names the first failure
        event["level"] = _level_of(record)
    note(event, [f"record not read: {type(error).__name__}"])
    return event


def _args_list(record: logging.LogRecord) -> list[Any]:
    return list(record.args) if isinstance(record.args, tuple) else [record.args]
