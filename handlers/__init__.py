"""Logging handlers, imported as `calyx_logging.handlers`."""

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
