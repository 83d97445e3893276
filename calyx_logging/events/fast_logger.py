"""A Logger class that makes the records `logging.Logger` makes, attribute for attribute, in less time.

What it saves: looking at every file name on the stack, splitting the caller's path, asking for the process id.
What is not the common case (an exception, a stack, a level of the stack, a record factory, a subclass, a method of
somebody's own, a Python whose records bear attributes not known here) is left to `logging.Logger`, whose code decides.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from calyx_logging.errors import ConfigError

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
_KNOWN = tuple(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) == _ATTRIBUTES + (
    "taskName",
) * _HAS_TASK and all(
    hasattr(logging, name) for name in ("_startTime", "_srcfile", "logThreads", "logProcesses", "logMultiprocessing")
)
_MAKE_RECORD, _FIND_CALLER = logging.Logger.makeRecord, logging.Logger.findCaller
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
            or type(self) is not FastLogger
            or logging.Logger.makeRecord is not _MAKE_RECORD
            or logging.Logger.findCaller is not _FIND_CALLER
            or "makeRecord" in self.__dict__
            or "findCaller" in self.__dict__
            or logging._srcfile is not _INTERNAL_FILE
            or logging.getLogRecordFactory() is not logging.LogRecord
            or (extra is not None and not _REFUSED.isdisjoint(extra))
        ):
            super()._log(level, msg, args, exc_info, extra, stack_info, stacklevel + 1)  # this frame is one more
            return
        record = _make_record(self.name, level, msg, args, exc_info)
        if extra is not None:
            record.__dict__.update(extra)
        self.handle(record)


def _make_record(name: str, level: int, msg: object, args: Any, exc_info: Any) -> logging.LogRecord:
    """The record of a call two frames up."""
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
    """Make `logging`'s loggers fast ones: those there are, and those to come.

    Their records are the same as before for every handler, filter and formatter of the process. The root logger, and
    loggers of classes of somebody's own, stay what they are. A second call changes nothing.

    Raises:
        ConfigError: another logger class was set (`logging.setLoggerClass`).
    """
    present = logging.getLoggerClass()
    if present not in (logging.Logger, FastLogger):
        raise ConfigError(
            f"the logger class is {present.__module__}.{present.__qualname__} already",
            hint="leave out the fast logger or that class; structlog is faster by configure_structlog(outbox)",
        )
    logging.setLoggerClass(FastLogger)
    for logger in list(logging.root.manager.loggerDict.values()):
        if type(logger) is logging.Logger:
            logger.__class__ = FastLogger


def _source_of(path: str) -> tuple[str, str] | None:
    """File name and module of a source file; None for those of logging and importlib, which are nobody's caller."""
    normal = os.path.normcase(path)
    internal = normal == _INTERNAL_FILE or ("importlib" in normal and "_bootstrap" in normal)
    if len(_sources) >= _MAX_SOURCES:  # a notebook's cells are files, each of its own
        _sources.clear()
    _sources[path] = None if internal else _names(path)
    return _sources[path]


def _names(path: str) -> tuple[str, str]:
    filename = os.path.basename(path)  # noqa: PTH119 - as logging does it
    return filename, os.path.splitext(filename)[0]  # noqa: PTH122


def _now_in_seconds() -> tuple[float, float, float]:
    """created, msecs and relativeCreated."""
    now = time.time()
    return now, int((now - int(now)) * 1000) + 0.0, (now - _START) * 1000


def _now_in_nanoseconds() -> tuple[float, float, float]:
    """The same as Python 3.13 does it."""
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
    except Exception:  # it has not finished loading yet
        return "MainProcess"


def _task_name() -> Any:
    asyncio = sys.modules["asyncio"]
    if not getattr(logging, "logAsyncioTasks", True):
        return None
    try:
        if asyncio._get_running_loop() is None:  # as current_task() finds out, but that raises
            return None
        return asyncio.current_task().get_name()
    except Exception:  # there is no task
        return None


def _leave_out(attributes: dict[str, Any]) -> None:
    """What `logging`'s flags say that nobody needs."""
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
