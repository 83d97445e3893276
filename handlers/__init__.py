"""Logging handlers, imported as `calyx_logging.handlers`.

Invariant: lost events never stop the program that logs; they are counted, and reported once on standard error.

Data flow: `base` passes a record to the formatter, and the line goes to the recorder (`outbox`) or to the run's
execution log (`execution_log`, whose dependencies are loaded on first use). `children` takes OutboxHandlers into worker
processes, and `crashes` gives them uncaught exceptions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calyx_logging.handlers.outbox import OutboxHandler

if TYPE_CHECKING:
    from calyx_logging.handlers.execution_log import ExecutionLogHandler

__all__ = ["ExecutionLogHandler", "OutboxHandler"]


def __getattr__(name: str) -> Any:
    if name == "ExecutionLogHandler":  # import concurrent-log-handler only on first use
        from calyx_logging.handlers.execution_log import ExecutionLogHandler

        return ExecutionLogHandler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
