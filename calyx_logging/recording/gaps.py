"""Gaps: the events that a writer lost, counted until it can write so.

Invariant: a lost event stays in one gap of its writer's state until the gap line that names it is in a chunk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from calyx_logging.core.ranges import runs_of
from calyx_logging.core.times import utc_text
from calyx_logging.errors import say

__all__ = ["Gap", "LossReporter", "cause_of", "count_of", "with_loss"]

_MAX_GAPS = 20
"""A writer keeps so many causes apart; later losses join its last gap."""

_QUIET_SECONDS = 10.0
"""On a disk that works every other moment, standard error hears of it so often at most."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Events lost for one cause, in one stretch.

    Attributes:
        cause: why, in words.
        since: seconds since the epoch of the first loss.
        until: of the last.
        seqs: first and last of each run of their `seq`.
        writer: the writer whose `seq` they are, where another writer tells of them.
    """

    cause: str
    since: float
    until: float
    seqs: tuple[tuple[int, int], ...]
    writer: str | None = None

    @property
    def count(self) -> int:
        """Events in it."""
        return sum(last - first + 1 for first, last in self.seqs)

    def fields(self) -> dict[str, object]:
        """The fields of its control line."""
        fields: dict[str, object] = {
            "count": self.count,
            "seqs": runs_of([list(run) for run in self.seqs]),
            "from": utc_text(self.since),
            "to": utc_text(self.until),
            "cause": self.cause,
        }
        return fields if self.writer is None else {**fields, "writer": self.writer}


def cause_of(error: BaseException) -> str:
    """An error in the words of a gap's cause."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
    return text[:200]


def count_of(gaps: Iterable[Gap]) -> int:
    """Events in all of them."""
    return sum(gap.count for gap in gaps)


def with_loss(gaps: tuple[Gap, ...], seq: int, cause: str, now: float) -> tuple[Gap, ...]:
    """The gaps and one more lost event: in the last gap where the cause is the same, else in a gap of its own."""
    last = gaps[-1] if gaps else None
    if last is None or last.writer is not None or (last.cause != cause and len(gaps) < _MAX_GAPS):
        return (*gaps, Gap(cause, now, now, ((seq, seq),)))
    runs = last.seqs
    if runs[-1][1] == seq - 1:
        runs = (*runs[:-1], (runs[-1][0], seq))
    else:
        runs = (*runs, (seq, seq))
    return (*gaps[:-1], replace(last, until=now, seqs=runs))


class LossReporter:
    """Says on standard error that events are being lost, and that writing works again: once for all writers of a pool.

    Args:
        outbox: where they write.
        say: prints one line.
    """

    def __init__(self, outbox: Path, say: Callable[[str], None] = say) -> None:
        self._outbox = outbox
        self._say = say
        self._quiet_until = 0.0
        self._outage = 0
        self._said: dict[int, object] = {}
        self._told: list[Gap] = []

    def lost(self, error: BaseException) -> None:
        """An event was lost: say so, unless this outage was said already."""
        now, token = time.monotonic(), object()
        if now < self._quiet_until or self._said.setdefault(self._outage, token) is not token:
            return  # `setdefault` lets one of several threads in
        self._quiet_until = now + _QUIET_SECONDS
        what = f"cannot write to {self._outbox}" if isinstance(error, OSError) else "cannot keep an event"
        self._say(f"{what}: {error}; events are lost and counted until it works again")

    def told(self, gaps: Iterable[Gap], *, last: bool) -> None:
        """Gap lines were written; say how many events were lost in the outage once no writer has others to tell of."""
        self._told += [gap for gap in gaps if gap.writer is None]
        if last and self._said.pop(self._outage, None) is not None:
            self._outage += 1
            told, self._told = self._told, []
            cause = told[0].cause if told else "unknown"
            self._say(f"writing to {self._outbox} again; {count_of(told)} events were lost ({cause})")
