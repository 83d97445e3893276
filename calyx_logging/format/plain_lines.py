"""Read whole lines of a chunk by the compiled core, which leaves lines that are not plain to its caller."""

from __future__ import annotations

from typing import NamedTuple

from calyx_logging.compiled import CORE

__all__ = ["PlainLines", "beginning_of", "read_plain_lines"]


class PlainLines(NamedTuple):
    """The result of one pass.

    A line is plain if it has our writers' form (node id and stamped fields first and without escapes, `seq` last, no
    spaces), is no control line, and is no longer than 1 MiB.

    Attributes:
        events: the number of plain lines.
        runs: their `seq`, as the first and the last of each run, in the order of the lines.
        first_ts_utc, last_ts_utc: the least and the greatest time of them; None if there are none.
        others: the other lines: how many lines come before, and where each begins and ends, in bytes.
        id_hashes: of each plain line's event id, as `hash` gives it; empty if they were not wanted.
    """

    events: int
    runs: list[tuple[int, int]]
    first_ts_utc: str | None
    last_ts_utc: str | None
    others: list[tuple[int, int, int]]
    id_hashes: list[int]


def beginning_of(node_id: str) -> str:
    """Return how each of our writers' lines begins at a node."""
    return f'{{"node_id":"{node_id}","ts_utc":"'


def read_plain_lines(
    lines: memoryview, node_id: str, *, ends_only: bool = False, with_ids: bool = False
) -> PlainLines | None:
    """Read whole lines; None where there is no compiled core.

    Args:
        lines: with their newlines.
        node_id: the node to which they must belong.
        ends_only: read a line's stamped fields and its `seq`, and trust what is between them; otherwise it is checked
            to be JSON in which no stamped field comes twice.
        with_ids: whether to hash the event ids.
    """
    if CORE is None:
        return None
    return PlainLines._make(CORE.scan(lines, beginning_of(node_id).encode(), not ends_only, with_ids))
