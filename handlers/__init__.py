"""Logging handlers, imported as `calyx_logging.handlers`."""

from calyx_logging.handlers.outbox import OutboxHandler

__all__ = ["OutboxHandler"]
