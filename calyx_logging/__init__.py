"""calyx-logging: a flight recorder for benchmark harnesses.

Standard `logging` in, append-only JSONL chunks on disk, verified bundles out. The names below are loaded on first use,
so importing the package costs next to nothing.
"""

from __future__ import annotations

import os.path
from importlib import import_module
from typing import TYPE_CHECKING, Any

from calyx_logging._version import __version__

_beside = os.path.dirname(__path__[0])
if os.path.isfile(os.path.join(_beside, "handlers", "outbox.py")):
    __path__.append(_beside)  # a source checkout: handlers/ and scripts/ are beside this folder, not in it

if TYPE_CHECKING:
    from calyx_logging.errors import CalyxError
    from calyx_logging.events.context import KeepContext
    from calyx_logging.events.fast_logger import install_fast_logger
    from calyx_logging.events.formatter import EventFormatter
    from calyx_logging.events.stamp import StampEvent
    from calyx_logging.events.structlog_bridge import configure_structlog
    from calyx_logging.handlers.execution_log import ExecutionLogHandler
    from calyx_logging.handlers.outbox import OutboxHandler
    from calyx_logging.harness.benchmark import benchmark_run
    from calyx_logging.harness.doctor import doctor
    from calyx_logging.harness.setup import setup
    from calyx_logging.node import Node, provision
    from calyx_logging.recording.background import seal

__all__ = [
    "CalyxError",
    "EventFormatter",
    "ExecutionLogHandler",
    "KeepContext",
    "Node",
    "OutboxHandler",
    "StampEvent",
    "__version__",
    "benchmark_run",
    "configure_structlog",
    "doctor",
    "install_fast_logger",
    "provision",
    "seal",
    "setup",
]

_HOMES = {
    "CalyxError": "errors",
    "EventFormatter": "events.formatter",
    "ExecutionLogHandler": "handlers.execution_log",
    "KeepContext": "events.context",
    "Node": "node",
    "OutboxHandler": "handlers.outbox",
    "StampEvent": "events.stamp",
    "benchmark_run": "harness.benchmark",
    "configure_structlog": "events.structlog_bridge",
    "doctor": "harness.doctor",
    "install_fast_logger": "events.fast_logger",
    "provision": "node",
    "seal": "recording.background",
    "setup": "harness.setup",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
