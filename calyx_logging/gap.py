"""The gap: events that a writer could not keep, as it will tell of them when it can."""

from __future__ import annotations

from dataclasses import dataclass, field

from calyx_logging.event import utc_text

__all__ = ["Gap"]


@dataclass
class Gap:
    """Events that could not be kept, in one stretch.

    Attributes:
        cause: why, in words.
        since: seconds since the epoch of the first.
        until: of the last.
        writer: whose `seq` they are, where it is not the writer that tells of them.
        count: how many.
        seqs: first and last of each run of their `seq`.
    """

    cause: str
    since: float
    until: float
    writer: str | None = None
    count: int = 0
    seqs: list[list[int]] = field(default_factory=list)

    def add(self, seq: int, now: float) -> None:
        """One more event."""
        self.count += 1
        self.until = now
        if self.seqs and self.seqs[-1][1] == seq - 1:
            self.seqs[-1][1] = seq
        else:
            self.seqs.append([seq, seq])

    def fields(self) -> dict[str, object]:
        """What the control line says of it."""
        said: dict[str, object] = {
            "count": self.count,
            "seqs": self.seqs,
            "from": utc_text(self.since),
            "to": utc_text(self.until),
            "cause": self.cause,
        }
        return said if self.writer is None else {**said, "writer": self.writer}
