"""The last lines of a dead writer, which recovery writes for it: what it lost, and how its process ended."""

from __future__ import annotations

from collections.abc import Callable

from calyx_logging.events.event import control_event, with_seq
from calyx_logging.format.loss_note import LossNote
from calyx_logging.outbox.crashes import how_it_ended

__all__ = ["LastLines"]


class LastLines:
    """Makes the last lines of one writer; losses and stacks are told of once.

    Args:
        node_id: the node.
        clock: seconds since the epoch.
        how: the end line's fields on how the process ended.
        note: losses that no gap line tells of.
    """

    def __init__(
        self, node_id: str, clock: Callable[[], float], how: dict[str, object], note: LossNote | None = None
    ) -> None:
        self._node_id = node_id
        self._clock = clock
        self._how = how
        self._gaps = [] if note is None else [fields for _, fields in note.gaps]
        self._lost = -1 if note is None else note.last_seq
        self.component = note.component if note is not None and self._gaps else None

    @property
    def tells_how(self) -> bool:
        """Whether it is known how the process ended."""
        return bool(self._how)

    @property
    def tells_of_losses(self) -> bool:
        """Whether there are losses to tell of."""
        return bool(self._gaps)

    def make(self, seq: int, torn_bytes: int, bad_lines: int) -> tuple[bytes, int]:
        """Make gap lines and an end line.

        Args:
            seq: the next one by the writer's chunks; those of its losses are used, too.
            torn_bytes: bytes after the last newline, not kept.
            bad_lines: complete lines that were not events, not kept.

        Returns:
            The lines, and the `seq` that follows.
        """
        seq = max(seq, self._lost + 1)
        gaps, self._gaps = self._gaps, []
        lines = b""
        for gap in gaps:
            lines += self._line("gap", seq, f"{gap.get('count')} events could not be kept", gap)
            seq += 1
        level, text = how_it_ended(self._how)
        fields = {"level": level, "reason": "recovered", "torn_bytes": torn_bytes, "bad_lines": bad_lines, **self._how}
        self._how = {name: value for name, value in self._how.items() if name != "fault"}
        return lines + self._line("end", seq, text, fields), seq + 1

    def _line(self, control: str, seq: int, text: str, fields: dict[str, object]) -> bytes:
        return with_seq(control_event(self._node_id, control, self._clock(), text, **fields), seq)
