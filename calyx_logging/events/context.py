"""Fields of a stretch of a program, not of one record: what is bound to context variables, and to the process.

* structlog's context variables (`structlog.contextvars.bind_contextvars`): threads and tasks each have their own.
* The process's fields: those of the one benchmark run that is going on in it, for the threads of libraries, which begin
  with empty context variables, and for child processes, which find them in the variable CALYX_RUN.

`KeepContext` carries both along with a record that goes through a queue.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from calyx_logging.events.stamp import QUEUED, mark_of
from calyx_logging.events.tracebacks import exception_chain, plain_text
from calyx_logging.events.values import is_a, lower

__all__ = [
    "CHILD_VARIABLE",
    "PROCESS_FIELDS",
    "RUN_INSTANCE",
    "KeepContext",
    "begin",
    "bound_context",
    "end",
    "inherited",
]

CHILD_VARIABLE = "CALYX_RUN"
"""The environment variable that names a run to child processes: a JSON object of texts."""

RUN_INSTANCE = "run_instance_id"
"""The field that tells one run from every other; where it is bound, the process's fields are not asked."""


def inherited(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The fields of the run that this process was started in; none where the variable is absent or no such object."""
    try:
        fields = json.loads(environ.get(CHILD_VARIABLE, "{}"))
    except ValueError:
        return {}
    if not isinstance(fields, dict) or not isinstance(fields.get(RUN_INSTANCE), str):
        return {}
    return {name: value for name, value in fields.items() if isinstance(value, str)}


PROCESS_FIELDS: dict[str, str] = inherited()
"""The process's fields; one object for as long as the process lives."""


def bound_context() -> Mapping[str, Any]:
    """What is bound here and now; only a program that imported structlog can have bound its context variables."""
    module = sys.modules.get("structlog.contextvars")
    bound: Mapping[str, Any] = {}
    if module is not None and getattr(module, "_CONTEXT_VARS", True):  # else no variable was ever made
        bound = module.get_contextvars()
    if PROCESS_FIELDS and RUN_INSTANCE not in bound:
        return {**PROCESS_FIELDS, **bound}
    return bound


class KeepContext(logging.Filter):
    """Lets every record pass, with what a queue would lose of it: what is bound in the thread that logs it, the fields
    of a dict message, the exception.

    For a `QueueHandler`, as the last of its filters: `queue_handler.addFilter(KeepContext())`. The listener handles
    records in another thread, whose context variables are others, and a QueueHandler makes one text of message and
    exception. A handler that took the record itself ignores the one from the queue. Values are made plain, so that the
    record can be pickled.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Note in the record's mark what is to be kept."""
        mark = mark_of(record)
        if QUEUED not in mark:
            mark[QUEUED] = _to_keep(record)
        return True


def _to_keep(record: logging.LogRecord) -> dict[str, Any]:
    kept: dict[str, Any] = {"context": lower(dict(bound_context()))[0], "stack_info": record.stack_info}
    message: Any = record.msg
    if is_a(message, dict):
        kept["fields"] = lower(dict(message))[0]
        kept["of structlog"] = type(record.msg).__name__ == "StructlogMessage"
    else:
        with suppress(Exception):  # arguments that do not fit: the QueueHandler refuses them, too, and says so
            kept["message"] = plain_text(record.getMessage())
    info: Any = record.exc_info
    if type(info) is tuple and len(info) == 3 and is_a(info[1], BaseException):
        kept["exception"] = exception_chain(info[1], info[2])
    return kept


# ------------------------------------------------------------------ the process's run

_inherited = dict(PROCESS_FIELDS)
_runs: list[Mapping[str, str]] = []
_lock = threading.RLock()


def begin(fields: Mapping[str, str]) -> None:
    """A run begins; while it is the only one, its fields are the process's."""
    with _lock:
        _runs.append(fields)
        _tell_process()


def end(fields: Mapping[str, str]) -> None:
    """A run has ended."""
    with _lock:
        _runs.remove(fields)
        _tell_process()


def _tell_process() -> None:
    fields = _inherited if not _runs else _runs[0] if len(_runs) == 1 else {}
    PROCESS_FIELDS.clear()
    PROCESS_FIELDS.update(fields)
    if fields:
        os.environ[CHILD_VARIABLE] = json.dumps(dict(fields))
    else:
        os.environ.pop(CHILD_VARIABLE, None)


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
