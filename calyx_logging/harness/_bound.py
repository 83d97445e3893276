"""Bind a run's fields to the context, and take them out again where the block ends in another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calyx_logging.events import context

__all__ = ["bind", "bound_case", "unbind"]


def bound_case() -> str | None:
    """Return the case in whose block this is."""
    from structlog.contextvars import get_contextvars

    case_id = get_contextvars().get("case_id")
    return None if case_id is None else str(case_id)


def bind(fields: Mapping[str, Any], block: context.Block) -> Any:
    """Bind fields for a block; return what `unbind` needs."""
    from structlog.contextvars import bind_contextvars, get_contextvars

    before = get_contextvars()
    return bind_contextvars(**{name: block.value(value, before.get(name)) for name, value in fields.items()})


def unbind(tokens: Any, names: Any, block: context.Block) -> None:
    """Take fields out again at the end of a block."""
    from structlog.contextvars import reset_contextvars, unbind_contextvars

    block.ended = True
    try:
        reset_contextvars(**tokens)
    except (ValueError, RuntimeError):  # the block ends in another context than the one it began in
        unbind_contextvars(*names)
