"""A Logger class that makes the same records as `logging.Logger`, attribute for attribute, but faster.

It saves normalising every file name on the stack, splitting the caller's path, and asking for the process id. All
uncommon cases go to the code of `logging.Logger`: an exception, stack info, a stack level, a record factory, a
subclass, an overridden method, or a Python whose records have attributes not known here.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import calyx_logging.events.fast_path  # noqa: F401 - which tells the core what a record is
from calyx_logging.compiled import CORE, use
from calyx_logging.errors import ConfigError
from calyx_logging.events.capture import as_if_in_logging, own

__all__ = ["FastLogger", "install_fast_logger"]

_ATTRIBUTES = (
    *("name", "msg", "args", "levelname", "levelno", "pathname", "filename", "module", "exc_info", "exc_text"),
    *("stack_info", "lineno", "funcName", "created", "msecs", "relativeCreated", "thread", "threadName"),
    *("processName", "process"),
)
_HAS_TASK = sys.version_info >= (3, 12)
_START: float = getattr(logging, "_startTime", 0)
_INTERNAL_FILE: str = getattr(logging, "_srcfile", "")
_THREADS: Mapping[int, threading.Thread] = getattr(threading, "_active", {})
_KNOWN = (
    bool(_INTERNAL_FILE)
    and tuple(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) == _ATTRIBUTES + ("taskName",) * _HAS_TASK
    and all(
        hasattr(logging, name)
        for name in ("_startTime", "_srcfile", "logThreads", "logProcesses", "logMultiprocessing")
    )
)
_MAKE_RECORD, _FIND_CALLER = own(logging.Logger, "makeRecord"), own(logging.Logger, "findCaller")
_INIT = own(logging.LogRecord, "__init__")
_LOG = own(logging.Logger, "_log")
_REFUSED = frozenset((*_ATTRIBUTES, "taskName", "message", "asctime"))
_MAX_SOURCES = 10_000

_sources: dict[str, tuple[str, str] | None] = {}
_process = os.getpid()


class FastLogger(logging.Logger):
    """`logging.Logger`, faster; see `install_fast_logger`."""

    def _log(
        self,
        level: int,
        msg: object,
        args: Any,
        exc_info: Any = None,
        extra: Mapping[str, object] | None = None,
        stack_info: bool = False,
        stacklevel: int = 1,
    ) -> None:
        if (
            exc_info
            or stack_info
            or stacklevel != 1
            or not _KNOWN
            or logging.LogRecord.__init__ is not _INIT
            or type(self) is not FastLogger
            or logging.Logger.makeRecord is not _MAKE_RECORD
            or logging.Logger.findCaller is not _FIND_CALLER
            or logging.Logger._log is not _LOG
            or "makeRecord" in self.__dict__
            or "findCaller" in self.__dict__
            or logging._srcfile is not _INTERNAL_FILE
            or logging.getLogRecordFactory() is not logging.LogRecord
            or (extra is not None and (type(extra) is not dict or not _REFUSED.isdisjoint(extra)))
        ):
            super()._log(level, msg, args, exc_info, extra, stack_info, stacklevel)
            return
        record = _make_record(self.name, level, msg, args, exc_info)
        if extra is not None:
            record.__dict__.update(extra)
        self.handle(record)


as_if_in_logging(FastLogger._log)


def _make_record(name: str, level: int, msg: object, args: Any, exc_info: Any) -> logging.LogRecord:
    """Make the record for the call two frames up."""
    frame = sys._getframe(2)
    while True:
        path = frame.f_code.co_filename
        source = _sources[path] if path in _sources else _source_of(path)
        if source is not None or frame.f_back is None:
            break
        frame = frame.f_back
    filename, module = source or _names(path)
    if args and len(args) == 1 and isinstance(args[0], Mapping) and args[0]:
        args = args[0]
    thread = threading.get_ident()
    created, msecs, relative = _now()
    attributes = {
        "name": name,
        "msg": msg,
        "args": args,
        "levelname": logging.getLevelName(level),
        "levelno": level,
        "pathname": path,
        "filename": filename,
        "module": module,
        "exc_info": exc_info,
        "exc_text": None,
        "stack_info": None,
        "lineno": frame.f_lineno,
        "funcName": frame.f_code.co_name,
        "created": created,
        "msecs": msecs,
        "relativeCreated": relative,
        "thread": thread,
        "threadName": (_THREADS.get(thread) or threading.current_thread()).name,
        "processName": _process_name() if "multiprocessing" in sys.modules else "MainProcess",
        "process": _process,
    }
    if _HAS_TASK:
        attributes["taskName"] = _task_name() if "asyncio" in sys.modules else None
    if not (logging.logThreads and logging.logProcesses and logging.logMultiprocessing):
        _leave_out(attributes)
    record: logging.LogRecord = _new(logging.LogRecord)
    record.__dict__ = attributes
    return record


_new: Any = object.__new__


def install_fast_logger() -> None:
    """Make all of `logging`'s loggers fast, existing and future ones.

    Every handler, filter and formatter of the process sees the same records as before. The root logger and loggers of
    custom classes are left alone. A second call changes nothing.

    Raises:
        ConfigError: another logger class was set (`logging.setLoggerClass`).
    """
    present = logging.getLoggerClass()
    if present not in (logging.Logger, FastLogger):
        raise ConfigError(
            f"the logger class is {present.__module__}.{present.__qualname__} already",
            hint="use the fast logger or that class, not both; structlog is fast with configure_structlog(outbox)",
        )
    logging.setLoggerClass(FastLogger)
    for logger in list(logging.root.manager.loggerDict.values()):
        if type(logger) is logging.Logger:
            logger.__class__ = FastLogger


def _source_of(path: str) -> tuple[str, str] | None:
    """Return file name and module of a source file; None for logging's and importlib's, which never count as caller."""
    normal = os.path.normcase(path)
    internal = normal == _INTERNAL_FILE or ("importlib" in normal and "_bootstrap" in normal)
    if len(_sources) >= _MAX_SOURCES:  # each notebook cell is a file of its own
        _sources.clear()
    _sources[path] = None if internal else _names(path)
    return _sources[path]


def _names(path: str) -> tuple[str, str]:
    filename = os.path.basename(path)  # noqa: PTH119 - as logging does it
    return filename, os.path.splitext(filename)[0]  # noqa: PTH122


def _now_in_seconds() -> tuple[float, float, float]:
    """Return created, msecs and relativeCreated."""
    now = time.time()
    return now, int((now - int(now)) * 1000) + 0.0, (now - _START) * 1000


def _now_in_nanoseconds() -> tuple[float, float, float]:
    """Return the same as Python 3.13 computes it."""
    now = time.time_ns()
    created = now / 1e9
    msecs = (now % 1_000_000_000) // 1_000_000 + 0.0
    if msecs == 999.0 and int(created) != now // 1_000_000_000:
        msecs = 0.0
    return created, msecs, (now - _START) / 1e6


_now = _now_in_nanoseconds if sys.version_info >= (3, 13) else _now_in_seconds


def _process_name() -> Any:
    try:
        return sys.modules["multiprocessing"].current_process().name
    except Exception:  # the module is still loading
        return "MainProcess"


def _task_name() -> Any:
    asyncio = sys.modules["asyncio"]
    if not getattr(logging, "logAsyncioTasks", True):
        return None
    try:
        if asyncio._get_running_loop() is None:  # current_task() would raise
            return None
        return asyncio.current_task().get_name()
    except Exception:  # there is no current task
        return None


def _leave_out(attributes: dict[str, Any]) -> None:
    """Clear the values that `logging`'s flags switch off."""
    if not logging.logThreads:
        attributes["thread"] = attributes["threadName"] = None
    if not logging.logProcesses:
        attributes["process"] = None
    if not logging.logMultiprocessing:
        attributes["processName"] = None


def _after_fork_in_child() -> None:
    global _process
    _process = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

_METHODS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


def _template() -> dict[str, Any]:
    """Return a record's attributes, in a dict with room for the caller's as well: it grew, and copies are like it."""
    template: dict[str, Any] = dict.fromkeys(logging.LogRecord("", 0, "", 0, "", (), None).__dict__)
    template["processName"] = "MainProcess"
    for n in range(4):
        template[f"room {n}"] = None
    for n in range(4):
        del template[f"room {n}"]
    return template


if _KNOWN and CORE is not None:
    use(
        logger_class=FastLogger,
        stock_logger={name: own(logging.Logger, name) for name in (*_METHODS, "_log")},
        stock_methods={
            "makeRecord": _MAKE_RECORD,
            "findCaller": _FIND_CALLER,
            "handle": own(logging.Logger, "handle"),
            "isEnabledFor": own(logging.Logger, "isEnabledFor"),
            "filter": own(logging.Filterer, "filter"),
            "_log": FastLogger._log,
        },
        stock_callers={"callHandlers": own(logging.Logger, "callHandlers")},
        stock_names={
            "_logRecordFactory": logging.LogRecord,
            "_srcfile": _INTERNAL_FILE,
            "logThreads": True,
            "logProcesses": True,
            "logMultiprocessing": True,
            "getLevelName": own(logging, "getLevelName"),
            "_levelToName": getattr(logging, "_levelToName", None),
        },
        refused_by_logging=_REFUSED,
        record_template=_template(),
        logging_names=vars(logging),
        time_names=vars(time),
        threading_names=vars(threading),
        thread_ident=threading.get_ident,
        threads=_THREADS,
        thread_classes=frozenset({threading.Thread, type(threading.main_thread())}),
        source_of=_sources,
        process_name=_process_name,
        task_name=_task_name,
    )
    for _name, _level in _METHODS.items():
        setattr(FastLogger, _name, CORE.shortcut("log", None, logging.Logger, _name, _level))
