"""Make rows of plain lines as columns, in the compiled core; `rows` makes all others."""

from __future__ import annotations

from typing import Any

from calyx_logging.compiled import CORE
from calyx_logging.format.plain_lines import beginning_of

__all__ = ["plain_rows"]

_COLUMNS = (
    *("event_id", "source", "level", "logger", "message", "control", "run_id", "run_instance_id", "suite", "stage"),
    *("case_id", "decision_type", "score_text", "model", "outcome", "exit_status", "resumed_as"),
    *("exception_type", "rest", "identity", "ts", "seq", "cases_expected", "line", "score", "duration_s", "passed"),
)
"""The order in which the core has them (compiled/rows.h)."""


def plain_rows(
    lines: memoryview, node_id: str, number: int, schema: Any
) -> tuple[int, dict[str, Any], list[tuple[int, int, int]]] | None:
    """Return the columns of those lines of a block that the core reads, and the places of the others.

    Args:
        lines: whole lines, with their newlines.
        node_id: the node to which they must belong.
        number: of the first line.
        schema: of the table.

    Returns:
        How many rows; Arrow arrays by column; how many lines come before each other line, where it begins and ends.
        None where there is no core.
    """
    if CORE is None:
        return None
    import pyarrow as pa

    count, columns, others = CORE.rows(lines, beginning_of(node_id).encode(), number)
    arrays = {}
    for name, buffers in zip(_COLUMNS, columns, strict=True):
        parts = [None if one is None else pa.py_buffer(one) for one in buffers]
        arrays[name] = pa.Array.from_buffers(schema.field(name).type, count, parts)
    return count, arrays, others
