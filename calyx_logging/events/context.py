"""Fields bound to a part of a program rather than to one record: by context variables, and by process.

* structlog's context variables (`structlog.contextvars.bind_contextvars`): each thread and task has its own.
* The process's fields: those of the one benchmark run in progress. They serve library threads, which start with empty
  context variables, and child processes, which read them from the environment variable CALYX_RUN.

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

from calyx_logging.events.stamp import keep_with
from calyx_logging.events.tracebacks import exception_of, plain_text
from calyx_logging.events.values import is_a, lower

__all__ = [
    "CHILD_VARIABLE",
    "PROCESS_FIELDS",
    "RUN_INSTANCE",
    "Block",
    "KeepContext",
    "begin",
    "bound_context",
    "end",
    "inherited",
]

CHILD_VARIABLE = "CALYX_RUN"
"""The environment variable that passes a run's fields to child processes, as a JSON object of texts."""

RUN_INSTANCE = "run_instance_id"
"""The field that identifies a run; if it is bound, the process's fields are not used."""


def inherited(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the fields of the run that started this process; empty if the variable is absent or malformed."""
    try:
        fields = json.loads(environ.get(CHILD_VARIABLE, "{}"))
    except ValueError:
        return {}
    if not isinstance(fields, dict) or not isinstance(fields.get(RUN_INSTANCE), str):
        return {}
    return {name: value for name, value in fields.items() if isinstance(value, str)}


PROCESS_FIELDS: dict[str, str] = inherited()
"""The process's fields; the same dict object throughout the process."""


class Block:
    """A part of a program that fields are bound to, until it ends: in whatever context that is.

    A context that was copied from the block's keeps what was bound in it, and so does the block's own context where the
    block ends in another one (a generator that is closed by another task). So the values themselves know their block.
    """

    ended = False

    def value(self, text: str, before: object) -> str:
        """Make the value to bind; once the block has ended, `before` counts in its place."""
        bound = _Bound(text)
        bound.block, bound.before = self, before
        return bound


class _Bound(str):
    __slots__ = ("before", "block")
    block: Block
    before: object

    def __reduce__(self) -> Any:
        return str, (str.__str__(self),)


def _in_force(bound: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out what was bound by blocks that have ended."""
    if not any(type(value) is _Bound for value in bound.values()):
        return bound
    found = {}
    for name, value in bound.items():
        while type(value) is _Bound and value.block.ended:
            value = value.before
        if value is not None:
            found[name] = str.__str__(value) if type(value) is _Bound else value
    return found


def bound_context() -> Mapping[str, Any]:
    """Return the fields bound here and now (structlog's variables can be bound only once it is imported)."""
    module = sys.modules.get("structlog.contextvars")
    bound: Mapping[str, Any] = {}
    if module is not None and getattr(module, "_CONTEXT_VARS", True):  # else no variable was ever bound
        bound = _in_force(module.get_contextvars())
    if PROCESS_FIELDS and RUN_INSTANCE not in bound:
        return {**PROCESS_FIELDS, **bound}
    return bound


class KeepContext(logging.Filter):
    """Lets every record pass and keeps with it what a queue would lose.

    That is what is bound in the thread that logs it, the fields of a dict message, and the exception.

    Add it to a `QueueHandler` as the last of its filters: `queue_handler.addFilter(KeepContext())`. The listener
    handles records in another thread with other context variables, and a QueueHandler merges message and exception into
    one text. A handler that already has the record itself ignores the copy from the queue. Values are reduced to plain
    JSON types, so that the record can be pickled.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep these values in the record's mark."""
        keep_with(record, _to_keep)
        return True


def _to_keep(record: logging.LogRecord) -> dict[str, Any]:
    kept: dict[str, Any] = {"context": lower(dict(bound_context()))[0], "stack_info": record.stack_info}
    message: Any = record.msg
    if is_a(message, dict):
        kept["fields"] = lower(dict(message))[0]
        kept["of structlog"] = type(record.msg).__name__ == "StructlogMessage"
    else:
        with suppress(Exception):  # bad % arguments: the QueueHandler rejects and reports them itself
            kept["message"] = plain_text(record.getMessage())
    chain, troubles = exception_of(record.exc_info)
    if chain is not None:
        kept["exception"], kept["exception notes"] = chain, troubles
    return kept


# ------------------------------------------------------------------ the process's run

_inherited = dict(PROCESS_FIELDS)
_runs: list[Mapping[str, str]] = []
_lock = threading.RLock()


def begin(fields: Mapping[str, str]) -> None:
    """Note that a run begins; while it is the only one, its fields are the process's."""
    with _lock:
        _runs.append(fields)
        _tell_process()


def end(fields: Mapping[str, str]) -> None:
    """Note that a run has ended."""
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
