"""List an outbox's chunks by name.

Invariants: looking takes no locks and changes nothing. Only regular files are chunks; whatever else has a chunk's name
is listed apart, and stops nobody.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calyx_logging.core.carriers import Leftover, copy_of, left_by
from calyx_logging.core.locks import is_gone
from calyx_logging.errors import StorageError
from calyx_logging.format.chunk import OPEN_SUFFIX, SEALED_SUFFIX, ChunkName

__all__ = ["Contents", "OpenChunk", "look", "word_of_odd"]


@dataclass(frozen=True)
class OpenChunk:
    """An open chunk, and the process that writes it according to its lock file ("1234 hostname")."""

    name: ChunkName
    holder: str | None

    @property
    def is_of_the_dead(self) -> bool:
        """Whether its process is known to have ended."""
        return is_gone(self.holder)

    def document(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {"chunk": self.name.open, "writer": self.name.writer, "holder": self.holder}

    def __str__(self) -> str:
        who = "no lock file" if self.holder is None else f"process {self.holder}"
        if self.is_of_the_dead:
            who += ", which has ended: the next export seals it"
        return f"{self.name.open} (writer {self.name.writer}, {who})"


@dataclass
class Contents:
    """An outbox's chunks by name, each list sorted.

    Attributes:
        sealed: our sealed chunks.
        open: our open chunks.
        foreign: `*.jsonl` with other names: first-generation chunks, which grow in place.
        unknown: `*.jsonl.open` with other names, of no known writer.
        leftovers: other files with a chunk's suffix that a program left, such as copies of our own chunks. Copies of
            foreign chunks are foreign chunks, since they may be all that is left of one.
        odd: folders, links, pipes and the like with a chunk's name.
    """

    sealed: list[ChunkName] = field(default_factory=list)
    open: list[ChunkName] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    leftovers: dict[str, Leftover] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)


def look(outbox: Path, leave_out: Set[str] = frozenset()) -> Contents:
    """List the chunks in an outbox; a missing outbox is empty.

    Args:
        outbox: the folder.
        leave_out: file names to skip (chunks exported before, which may be very many).

    Raises:
        StorageError: the folder cannot be read.
    """
    contents = Contents()
    try:
        there = set(os.listdir(outbox))
        for name in there - leave_out:
            if not name.startswith(".") and name.endswith((SEALED_SUFFIX, OPEN_SUFFIX)):
                _sort_in(contents, outbox, name, there)
    except FileNotFoundError:
        return contents
    except OSError as error:
        raise StorageError.of(error, "read the outbox", outbox, "give this user access to it") from error
    contents.sealed.sort()
    contents.open.sort()
    contents.foreign.sort()
    contents.unknown.sort()
    contents.odd.sort()
    return contents


def word_of_odd(outbox: Path, contents: Contents) -> list[str]:
    """Say of each thing with a chunk's name that it is no chunk."""
    return [f"{outbox / name} is no regular file, so no chunk: move it out of the outbox" for name in contents.odd]


def _sort_in(contents: Contents, outbox: Path, filename: str, there: Set[str]) -> None:
    name = ChunkName.parse(filename)
    if name is None and (left := _leftover(filename, there)) is not None:
        contents.leftovers[filename] = left
        return
    try:
        mode = os.lstat(outbox / filename).st_mode
    except FileNotFoundError:
        return  # sealed or recovered since it was listed
    if not stat.S_ISREG(mode):
        contents.odd.append(filename)
        return
    is_open = filename.endswith(OPEN_SUFFIX)
    if name is None:
        (contents.unknown if is_open else contents.foreign).append(filename)
    else:
        (contents.open if is_open else contents.sealed).append(name)


def _leftover(filename: str, there: Set[str]) -> Leftover | None:
    """Recognise a leftover among files without a name of ours; a copy is one only while our own chunk is beside it."""
    left = left_by(filename) or copy_of(filename, there)
    return left if left is None or not left.of or ChunkName.parse(left.of) is not None else None
