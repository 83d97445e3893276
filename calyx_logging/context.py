"""Fields of a stretch of a program, not of one record: what is bound to context variables, and to the process.

* structlog's context variables (`structlog.contextvars.bind_contextvars`): threads and tasks each have their own.
* The process's fields: those of the one benchmark run that is going on in it, for the threads of libraries, which begin
  with empty context variables, and for child processes, which find them in the variable CALYX_RUN.

`KeepContext` carries both along with a record that is handled in another thread.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

from calyx_logging.event import mark_of
from calyx_logging.jsonable import lower

__all__ = [
    "CHILD_VARIABLE",
    "PROCESS_FIELDS",
    "RUN_INSTANCE",
    "KeepContext",
    "begin",
    "bound_context",
    "context_of",
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


def context_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """What was bound where the record was made, if `KeepContext` kept it; else what is bound here."""
    kept = mark_of(record).get("context")
    return bound_context() if kept is None else kept


class KeepContext(logging.Filter):
    """Lets every record pass, with what is bound in the thread that logs it.

    For a `QueueHandler`, whose listener handles records in a thread that has no context variables of theirs:
    `queue_handler.addFilter(KeepContext())`. Values are made plain, so that the record can be pickled.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Note the context in the record."""
        mark_of(record).setdefault("context", lower(dict(bound_context()))[0])
        return True


# ------------------------------------------------------------------ the process's run

_inherited = dict(PROCESS_FIELDS)
_runs: list[Mapping[str, str]] = []
_lock = threading.Lock()


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
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
