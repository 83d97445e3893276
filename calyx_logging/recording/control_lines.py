"""ControlLines: what a writer says of itself, as lines that stand in its own `seq`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from calyx_logging.events.event import control_event, with_seq
from calyx_logging.recording.background import ending
from calyx_logging.recording.gaps import Gap
from calyx_logging.recording.identity import start_fields

__all__ = ["ControlLines"]


class ControlLines:
    """Makes the control lines of one writer.

    Args:
        node_id: the node.
        clock: seconds since the epoch.
    """

    def __init__(self, node_id: str, clock: Callable[[], float]) -> None:
        self._node_id = node_id
        self._clock = clock

    def start(self, seq: int, process: str, *, is_further: bool) -> bytes:
        """Make the first line of a writer.

        Args:
            seq: the line's.
            process: the id of the process's first writer.
            is_further: whether this is another one; the first one's line says what runs.
        """
        if is_further:
            return self._line(seq, "start", "a further writer of its process", process=process)
        return self._line(seq, "start", "a process begins to log", process=process, **start_fields())

    def gaps(self, gaps: Iterable[Gap], seq: int) -> tuple[bytes, int]:
        """Make the lines that report gaps, and return the `seq` that follows."""
        lines: list[bytes] = []
        for gap in gaps:
            lines.append(self._line(seq + len(lines), "gap", f"{gap.count} events could not be kept", **gap.fields()))
        return b"".join(lines), seq + len(lines)

    def end(self, seq: int) -> bytes:
        """Make the last line of a writer that ends in order."""
        return self._line(seq, "end", "the writer was closed", reason="closed", **ending())

    def _line(self, seq: int, control: str, message: str, **fields: object) -> bytes:
        return with_seq(control_event(self._node_id, control, self._clock(), message, **fields), seq)
