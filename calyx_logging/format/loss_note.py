"""The loss note: lost events that a writer cannot write a gap line of yet, in its lock file, for `status` and recovery.

It goes where the file already has room, so it needs no new file, no descriptor and no space on the disk. Its line is
JSON: the component of the writer's chunks, and the fields of each gap line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calyx_logging.core.locks import MAX_NOTE, note_in
from calyx_logging.errors import ConfigError
from calyx_logging.format.chunk import check_component

if TYPE_CHECKING:
    from calyx_logging.format.line_check import GapLine

__all__ = ["LossNote", "note_of", "read_note"]

_FIELDS = ("count", "seqs", "from", "to", "cause", "writer")
"""Those of a gap line."""


@dataclass(frozen=True)
class LossNote:
    """A writer's lost events.

    Attributes:
        writer: its id.
        component: of its chunks.
        gaps: each gap, and the fields of its line.
    """

    writer: str
    component: str
    gaps: tuple[tuple[GapLine, dict[str, Any]], ...]

    @property
    def last_seq(self) -> int:
        """The last `seq` of the writer's own losses; -1 without any."""
        own = (seq for gap, _ in self.gaps if gap.writer in (None, self.writer) for _, seq in gap.seqs)
        return max(own, default=-1)

    def untold(self, told: Iterable[GapLine]) -> LossNote:
        """Leave out what the writer's gap lines tell of: it may have died before it took back the note."""
        known = [self._key(gap) for gap in told]
        return replace(self, gaps=tuple(one for one in self.gaps if self._key(one[0]) not in known))

    def _key(self, gap: GapLine) -> tuple[str, list[list[int]]]:
        return gap.writer or self.writer, gap.seqs


def note_of(component: str, gaps: Iterable[Mapping[str, object]]) -> bytes:
    """Make the note of these gaps; where it is too long, of as many as fit, the last ones first."""
    fields = list(gaps)
    while fields:
        note = json.dumps({"component": component, "gaps": fields}, separators=(",", ":")).encode()
        if len(note) <= MAX_NOTE:
            return note
        del fields[0]
    return b""


def read_note(outbox: Path, writer: str) -> LossNote | None:
    """Read the note in a writer's lock file; None if there is none, or none that can be read."""
    try:
        found = json.loads(note_in(outbox, writer))
        component, gaps = check_component(found["component"]), found["gaps"]
        kept = [{name: gap[name] for name in _FIELDS if name in gap} for gap in gaps]
    except (ValueError, TypeError, KeyError, RecursionError, ConfigError):
        return None
    from calyx_logging.format.line_check import Scan, note_control  # writers do not need it, and it is slow to import

    scan = Scan()
    for gap in kept:
        note_control(scan, {**gap, "control": "gap"})
    return LossNote(writer, component, tuple(zip(scan.gaps, kept, strict=False)))
