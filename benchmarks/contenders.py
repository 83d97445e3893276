"""The logging libraries to compare, each set up in its usual way to write JSON lines to a file.

Each one writes the same: a message, five caller's fields, node id, timestamp, event id and source. Ids, which a library
does not add by itself, are added where its users would do so: in a filter, a processor or a patcher. All use the same
ids.
"""

from __future__ import annotations

import importlib.metadata
import logging
import logging.config
import logging.handlers
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import uuid_utils

Log = Callable[[str, int], None]
"""Logs one record, given its message and a number for its fields."""

IDS = {"node_id": "bench", "source": "bench_harness"}


def event_id() -> str:
    """Make a new event id."""
    return str(uuid_utils.uuid7())


def _through(logger: Any) -> Log:
    """Log through a stdlib logger, or one with its interface."""
    info = logger.info

    def log(message: str, n: int) -> None:
        info(message, extra={"model": "m-1", "tokens": n, "ms": 1.5, "task": "gsm8k", "ok": True})

    return log


def _stdlib(handler: logging.Handler) -> Log:
    logger = logging.getLogger("bench")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    return _through(logger)


class _AddId(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.event_id = event_id()
        return True


def _json(handler: logging.Handler, kind: str = "orjson") -> logging.Handler:
    """Set python-json-logger's formatter on a handler."""
    from pythonjsonlogger import json, msgspec
    from pythonjsonlogger import orjson as orjson_formatter

    formatter: Any = {
        "json": json.JsonFormatter,
        "orjson": orjson_formatter.OrjsonFormatter,
        "msgspec": msgspec.MsgspecFormatter,
    }[kind]
    handler.setFormatter(formatter("%(message)s%(levelname)s%(name)s", timestamp="ts_utc", static_fields=IDS))
    handler.addFilter(_AddId())
    return handler


# ------------------------------------------------------------------ the standard library


def noop(folder: str) -> Log:
    """A handler that does nothing, to measure logging itself."""
    return _stdlib(logging.NullHandler())


def noop_fast(folder: str) -> Log:
    """A handler that does nothing, with the fast logger."""
    from calyx_logging import install_fast_logger

    install_fast_logger()
    return _stdlib(logging.NullHandler())


def text_file(folder: str) -> Log:
    """FileHandler with text, without the fields."""
    handler = logging.FileHandler(f"{folder}/log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    return _stdlib(handler)


def file_json(folder: str) -> Log:
    """FileHandler with python-json-logger, json."""
    return _stdlib(_json(logging.FileHandler(f"{folder}/log"), "json"))


def file_orjson(folder: str) -> Log:
    """FileHandler with python-json-logger, orjson."""
    return _stdlib(_json(logging.FileHandler(f"{folder}/log"), "orjson"))


def file_msgspec(folder: str) -> Log:
    """FileHandler with python-json-logger, msgspec."""
    return _stdlib(_json(logging.FileHandler(f"{folder}/log"), "msgspec"))


def queue_handler(folder: str) -> Log:
    """QueueHandler and QueueListener before a FileHandler."""
    import queue

    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(records, _json(logging.FileHandler(f"{folder}/log")))
    listener.start()
    return _stdlib(logging.handlers.QueueHandler(records))


def memory_handler(folder: str) -> Log:
    """MemoryHandler before a FileHandler."""
    return _stdlib(logging.handlers.MemoryHandler(100, target=_json(logging.FileHandler(f"{folder}/log"))))


def concurrent_log_handler(folder: str) -> Log:
    """concurrent-log-handler with python-json-logger, orjson."""
    from concurrent_log_handler import ConcurrentRotatingFileHandler

    return _stdlib(_json(ConcurrentRotatingFileHandler(f"{folder}/log")))


# ------------------------------------------------------------------ others


def _add_ids(logger: object, name: str, event: Any) -> Any:
    event.update(IDS, event_id=event_id())
    return event


def structlog_native(folder: str) -> Log:
    """structlog's own BytesLogger, orjson."""
    import structlog

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts_utc"),
            _add_ids,
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.BytesLoggerFactory(file=Path(f"{folder}/log").open("ab")),  # noqa: SIM115
        cache_logger_on_first_use=True,
    )
    return _through_structlog(structlog.get_logger())


def _through_structlog(logger: Any) -> Log:
    def log(message: str, n: int) -> None:
        logger.info(message, model="m-1", tokens=n, ms=1.5, task="gsm8k", ok=True)

    return log


def structlog_formatter(folder: str) -> Log:
    """structlog's ProcessorFormatter on a FileHandler, orjson."""
    import structlog

    handler = logging.FileHandler(f"{folder}/log")
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts_utc"),
                _add_ids,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=lambda event, **_: orjson.dumps(event).decode()),
            ],
        )
    )
    return _stdlib(handler)


def loguru(folder: str, enqueue: bool = False) -> Log:
    """loguru, serialize=True."""
    from loguru import logger

    logger.remove()
    logger.configure(extra=IDS, patcher=lambda record: record["extra"].update(event_id=event_id()))
    logger.add(f"{folder}/log", serialize=True, enqueue=enqueue)
    return _through_structlog(logger)


def loguru_enqueue(folder: str) -> Log:
    """loguru, serialize=True, enqueue=True."""
    return loguru(folder, enqueue=True)


def eliot(folder: str) -> Log:
    """eliot to a file."""
    import eliot as library

    library.to_file(Path(f"{folder}/log").open("ab"))  # noqa: SIM115
    library.add_global_fields(**IDS)
    log_message = library.log_message

    def log(message: str, n: int) -> None:
        log_message("bench", message=message, event_id=event_id(), model="m-1", tokens=n, ms=1.5, task="gsm8k", ok=True)

    return log


def logbook(folder: str) -> Log:
    """logbook's FileHandler with a formatter that writes JSON."""
    import logbook as library

    def to_json(record: Any, handler: Any) -> str:
        fields = {"ts_utc": record.time.isoformat(), "level": record.level_name, "message": record.message}
        return orjson.dumps({**fields, **IDS, "event_id": event_id(), **record.extra}).decode()

    handler = library.FileHandler(f"{folder}/log")
    handler.formatter = to_json
    handler.push_application()
    return _through(library.Logger("bench"))


def picologging(folder: str) -> Log:
    """picologging's FileHandler with a formatter that writes JSON."""
    import picologging as library

    class ToJson(library.Formatter):  # type: ignore[misc]
        def format(self, record: Any) -> str:
            fields = {"ts_utc": record.created, "level": record.levelname, "message": record.msg}
            return orjson.dumps({**fields, **IDS, "event_id": event_id(), **record.args}).decode()

    handler = library.FileHandler(f"{folder}/log")
    handler.setFormatter(ToJson())
    logger = library.getLogger("bench")
    logger.setLevel(library.INFO)
    logger.addHandler(handler)
    info = logger.info

    def log(message: str, n: int) -> None:  # it drops `extra`
        info(message, {"model": "m-1", "tokens": n, "ms": 1.5, "task": "gsm8k", "ok": True})

    return log


def _opentelemetry(folder: str, processor: str) -> Log:
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
    from opentelemetry.sdk._logs import export as exporters
    from opentelemetry.sdk.resources import Resource

    provider = LoggerProvider(resource=Resource.create(IDS))
    exporter_class: Any = getattr(exporters, "ConsoleLogRecordExporter", None) or exporters.ConsoleLogExporter
    exporter = exporter_class(
        out=Path(f"{folder}/log").open("a"),  # noqa: SIM115
        formatter=lambda record: str(record.to_json(indent=None)) + "\n",
    )
    provider.add_log_record_processor(getattr(exporters, processor)(exporter))
    handler = LoggingHandler(logger_provider=provider)
    handler.addFilter(_AddId())
    return _stdlib(handler)


def opentelemetry_simple(folder: str) -> Log:
    """OpenTelemetry SDK, SimpleLogRecordProcessor."""
    return _opentelemetry(folder, "SimpleLogRecordProcessor")


def opentelemetry_batch(folder: str) -> Log:
    """OpenTelemetry SDK, BatchLogRecordProcessor."""
    return _opentelemetry(folder, "BatchLogRecordProcessor")


# ------------------------------------------------------------------ this library


def calyx(folder: str, **options: Any) -> Log:
    """calyx-logging by dictConfig."""
    from calyx_logging import provision

    provision(folder, "bench")
    handler = {
        "class": "calyx_logging.handlers.OutboxHandler",
        "root": folder,
        "identity": False,
        **options,
    }  # gathered once
    loggers = {"bench": {"level": "INFO", "handlers": ["o"], "propagate": False}}
    logging.config.dictConfig({"version": 1, "handlers": {"o": handler}, "loggers": loggers})
    return _through(logging.getLogger("bench"))


def calyx_interval(folder: str) -> Log:
    """calyx-logging with `sync: interval`."""
    return calyx(folder, sync="interval")


def calyx_record(folder: str) -> Log:
    """calyx-logging with `sync: record`."""
    return calyx(folder, sync="record")


def calyx_fast(folder: str) -> Log:
    """calyx-logging with `fast: true`."""
    return calyx(folder, fast=True)


def calyx_fast_record(folder: str) -> Log:
    """calyx-logging with `fast: true` beside a handler that does nothing, for which a record is made."""
    log = calyx(folder, fast=True)
    logging.getLogger("bench").addHandler(logging.NullHandler())
    return log


def calyx_structlog(folder: str) -> Log:
    """structlog straight to calyx-logging's outbox."""
    import structlog

    from calyx_logging import OutboxHandler, configure_structlog, provision

    provision(folder, "bench")
    configure_structlog(OutboxHandler(root=folder, identity=False))
    return _through_structlog(structlog.get_logger("bench"))


CONTENDERS: dict[str, tuple[Callable[[str], Log], str]] = {
    "no-op handler (the floor)": (noop, ""),
    "no-op handler, fast logger": (noop_fast, "calyx-logging"),
    "calyx-logging": (calyx, "calyx-logging"),
    "calyx-logging, sync interval": (calyx_interval, "calyx-logging"),
    "calyx-logging, sync record": (calyx_record, "calyx-logging"),
    "calyx-logging, fast logger": (calyx_fast, "calyx-logging"),
    "calyx-logging, fast logger, record made": (calyx_fast_record, "calyx-logging"),
    "calyx-logging, structlog straight": (calyx_structlog, "calyx-logging"),
    "calyx-logging, pure Python": (calyx, "calyx-logging"),
    "calyx-logging, fast logger, pure Python": (calyx_fast, "calyx-logging"),
    "calyx-logging, structlog straight, pure Python": (calyx_structlog, "calyx-logging"),
    "FileHandler, text": (text_file, ""),
    "FileHandler, python-json-logger json": (file_json, "python-json-logger"),
    "FileHandler, python-json-logger orjson": (file_orjson, "python-json-logger"),
    "FileHandler, python-json-logger msgspec": (file_msgspec, "msgspec"),
    "structlog, ProcessorFormatter": (structlog_formatter, "structlog"),
    "concurrent-log-handler": (concurrent_log_handler, "concurrent-log-handler"),
    "QueueHandler": (queue_handler, ""),
    "MemoryHandler": (memory_handler, ""),
    "OpenTelemetry, simple": (opentelemetry_simple, "opentelemetry-sdk"),
    "OpenTelemetry, batch": (opentelemetry_batch, "opentelemetry-sdk"),
    "structlog, native": (structlog_native, "structlog"),
    "loguru": (loguru, "loguru"),
    "loguru, enqueue": (loguru_enqueue, "loguru"),
    "eliot": (eliot, "eliot"),
    "logbook": (logbook, "logbook"),
    "picologging": (picologging, "picologging"),
}
"""Each contender's set-up function, which takes a folder, and its distribution ("" for Python itself)."""

THROUGH_LOGGING = (
    "FileHandler, python-json-logger json",
    "FileHandler, python-json-logger orjson",
    "FileHandler, python-json-logger msgspec",
    "structlog, ProcessorFormatter",
    "concurrent-log-handler",
    "OpenTelemetry, simple",
)
"""Peers behind stdlib loggers that write JSON lines in the call."""


def environment_of(name: str) -> dict[str, str]:
    """Return what a contender's process has in its environment: the compiled core, or not."""
    return {**os.environ, "CALYX_PURE": "1" if name.endswith("pure Python") else ""}


def version(name: str) -> str | None:
    """Return the contender's version; None if it is not installed."""
    import platform

    try:
        distribution = CONTENDERS[name][1]
        return importlib.metadata.version(distribution) if distribution else f"Python {platform.python_version()}"
    except importlib.metadata.PackageNotFoundError:
        return None
