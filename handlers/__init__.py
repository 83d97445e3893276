"""Logging handlers, imported as `calyx_logging.handlers`.

Invariant: what cannot be kept never stops the program that logs; it is counted, and said once on standard error.

The way: `base` gives a record to the formatter, and the line goes to the recorder (`outbox`) or to the run's execution
log (`execution_log`, whose dependencies are loaded where it is used).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calyx_logging.handlers.outbox import OutboxHandler

if TYPE_CHECKING:
    from calyx_logging.handlers.execution_log import ExecutionLogHandler

__all__ = ["ExecutionLogHandler", "OutboxHandler"]


def __getattr__(name: str) -> Any:
    if name == "ExecutionLogHandler":  # concurrent-log-handler is loaded where it is used
        from calyx_logging.handlers.execution_log import ExecutionLogHandler

        return ExecutionLogHandler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
