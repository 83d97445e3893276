"""Gaps: events that a writer could not keep, counted until it can tell of them.

Invariant: an event that is added is in exactly one gap until `told` is called, after the gap lines were written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from calyx_logging.core.ranges import runs_of
from calyx_logging.core.times import utc_text
from calyx_logging.errors import say

__all__ = ["Gap", "Losses"]

_MAX_GAPS = 20
_SAY_SECONDS = 10.0
"""On a disk that works every other moment, standard error hears of it so often at most."""


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
            "seqs": runs_of(self.seqs),
            "from": utc_text(self.since),
            "to": utc_text(self.until),
            "cause": self.cause,
        }
        return said if self.writer is None else {**said, "writer": self.writer}


class Losses:
    """What a writer has to tell of.

    Args:
        outbox: for what is said on standard error.
        inherited: what an earlier writer could not tell of.
        say: tells people.

    Attributes:
        gaps: what is due, oldest first.
    """

    def __init__(self, outbox: Path, inherited: Iterable[Gap] = (), *, say: Callable[[str], None] = say) -> None:
        self._outbox = outbox
        self._say = say
        self.gaps = list(inherited)
        self._own: Gap | None = None
        self._said_at = -math.inf

    def __bool__(self) -> bool:
        return bool(self.gaps)

    @property
    def count(self) -> int:
        """Events in them."""
        return sum(gap.count for gap in self.gaps)

    def add(self, seq: int, error: BaseException, now: float) -> None:
        """Count one event, in the last gap when the cause is the same."""
        cause = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
        cause = cause[:200]
        gap = self._own
        begins = gap is None or (gap.cause != cause and len(self.gaps) < _MAX_GAPS)
        if gap is None or begins:
            gap = Gap(cause, now, now)
            self.gaps.append(gap)
            self._own = gap
        gap.add(seq, now)
        if begins and not 0 <= now - self._said_at < _SAY_SECONDS:
            self._said_at = now
            what = f"cannot write to {self._outbox}" if isinstance(error, OSError) else "cannot keep an event"
            self._say(f"{what}: {error}; events are lost and counted until it works again")

    def told(self, now: float) -> list[Gap]:
        """The gap lines are written; what they told."""
        told, self.gaps, self._own = self.gaps, [], None
        own = [gap for gap in told if gap.writer is None]
        if own and 0 <= now - self._said_at < _SAY_SECONDS:
            count = sum(gap.count for gap in own)
            self._say(f"writing to {self._outbox} again; {count} events were lost ({own[0].cause})")
        return told

    def vanish(self, cause: str, seqs: Iterable[int], since: float, now: float, told: list[Gap]) -> None:
        """A whole chunk is gone: its events join those already counted, and what it `told` is to be told again."""
        self.gaps = [*told, *self.gaps]
        counted = {seq for gap in self.gaps if gap.writer is None for a, b in gap.seqs for seq in range(a, b + 1)}
        gap = Gap(cause, since, now)
        for seq in sorted(set(seqs) - counted):
            gap.add(seq, now)
        if gap.count:
            self.gaps.append(gap)

    def left_by(self, writer: str) -> list[Gap]:
        """The gaps, for another writer to tell of."""
        for gap in self.gaps:
            gap.writer = gap.writer or writer
        return self.gaps
