"""The chunks that an outbox holds of the writers in a recovery: their numbers, their ends, and the next `seq`."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

from calyx_logging.format.chunk import SEALED_SUFFIX, ChunkName, open_chunk
from calyx_logging.format.chunk_stats import stats_of
from calyx_logging.format.loss_note import LossNote, read_note
from calyx_logging.format.survey import survey_chunk
from calyx_logging.outbox.export_index import last_seqs
from calyx_logging.outbox.recovered_lines import RecoveredLines

__all__ = ["TAKEN", "WriterChunks"]

TAKEN = re.compile(r"\.(.+)\.taken-([0-9]+)")
"""The name of a chunk that was copied, and the number of bytes copied."""


class WriterChunks:
    """The chunks of some writers; sealed ones include those that were exported.

    Args:
        outbox: the folder, which is listed once.

    Attributes:
        sealed: each writer's sealed chunks, by number.
        open_numbers: the numbers of its open ones.
    """

    def __init__(self, outbox: Path, node_id: str) -> None:
        self.sealed: dict[str, list[ChunkName]] = defaultdict(list)
        self.open_numbers: dict[str, list[int]] = defaultdict(list)
        self._outbox = outbox
        self._node_id = node_id
        self._exported: dict[str, int] | None = None

    def see(self, writers: set[str]) -> list[tuple[str, ChunkName, int]]:
        """Note these writers' sealed chunks; return the files that were set aside, whose writers count, too."""
        aside = []
        for filename in os.listdir(self._outbox):
            if match := TAKEN.fullmatch(filename):
                name = ChunkName.parse(match[1])
                if name is not None:
                    aside.append((filename, name, int(match[2])))
                    writers.add(name.writer)
        for filename in os.listdir(self._outbox):
            of = filename.removesuffix(SEALED_SUFFIX)[-13:-5]
            name = ChunkName.parse(filename) if filename.endswith(SEALED_SUFFIX) and of in writers else None
            if name is not None:
                self.sealed[name.writer].append(name)
        for names in self.sealed.values():
            names.sort(key=lambda name: name.number)
        return sorted(aside)

    def add(self, name: ChunkName) -> None:
        """Note a chunk that was sealed now."""
        self.sealed[name.writer].append(name)
        self.sealed[name.writer].sort(key=lambda one: one.number)

    def has_end_behind(self, name: ChunkName) -> bool:
        """Whether a later chunk of the same writer has its end line."""
        behind = [one for one in self.sealed[name.writer] if one.number > name.number]
        return any(RecoveredLines(self._outbox / one.sealed).ended for one in behind[-1:])

    def next_seq(self, writer: str, names: list[ChunkName]) -> int:
        """Return the writer's next unused `seq`, from its last chunks here or else from exported manifests.

        Args:
            writer: its id.
            names: its open chunks.
        """
        greatest = -1
        sealed = [one.sealed for one in reversed(self.sealed[writer])]
        for group, most in (([one.open for one in names], len(names)), (sealed, 2)):
            for filename in group:
                if most and (self._outbox / filename).exists():
                    with open_chunk(self._outbox / filename) as stream:
                        last = stats_of(stream, filename.removesuffix(".open")).last_seq
                    if last is not None:
                        greatest, most = max(greatest, last), most - 1
        if greatest < 0 and any(name.number for name in names):
            greatest = self._last_exported().get(writer, -1)
        return greatest + 1

    def was_exported(self, writer: str) -> bool:
        """Whether a bundle has chunks of it."""
        return writer in self._last_exported()

    def untold(self, writer: str, names: list[ChunkName]) -> LossNote | None:
        """Return the losses that its lock file notes and no chunk here tells of.

        Args:
            writer: its id.
            names: its open chunks.
        """
        note = read_note(self._outbox, writer)
        if note is None:
            return None
        files = [name.open for name in names] + [name.sealed for name in self.sealed[writer]]
        surveys = [survey_chunk(self._outbox / name, self._node_id) for name in files if (self._outbox / name).exists()]
        return note.untold(gap for survey in surveys for gap in survey.scan.gaps)

    def _last_exported(self) -> dict[str, int]:
        if self._exported is None:
            self._exported = last_seqs(self._outbox)
        return self._exported
