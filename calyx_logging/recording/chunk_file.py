"""ChunkFile: one open chunk of a writer, and how it becomes sealed.

Invariants:

* Its descriptor is the same for its whole life. Logging calls write through it; none closes it.
* It is sealed by sync, close, rename, in this order; the caller syncs the directory. `seal` may be called again after
  it failed or was interrupted, and goes on from there.
* Only the file that its writer made, as long as its writer knows, is sealed by renaming. One that somebody replaced,
  deleted or truncated meanwhile is written again from what the descriptor still gives (`whole_lines`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from calyx_logging.core import files, json_bytes
from calyx_logging.events.event import CONTROL_SOURCE
from calyx_logging.format.chunk import ChunkName
from calyx_logging.recording.gaps import Gap

__all__ = ["ChunkFile", "is_control", "is_gap", "seq_of", "without_seq"]

_LINE_START = b'{"node_id":'


class ChunkFile(files.AppendFile):
    """One open chunk.

    Args:
        outbox: the folder.
        name: a name that nobody else has.
        now: seconds since the epoch.
        born: seconds of a clock that never goes back.

    Raises:
        OSError: the file cannot be made.

    Attributes:
        first_seq: the `seq` of its first line.
        end: the writer's next `seq` and the file's length when it was full; None while it is written to.
        told: the gaps that lines in it tell of.
        synced: bytes that the last sync covered.
    """

    __slots__ = ("born", "end", "first_seq", "name", "opened_at", "synced", "told")

    def __init__(self, outbox: Path, name: ChunkName, now: float, born: float) -> None:
        super().__init__(outbox / name.open)
        self.name = name
        self.first_seq = 0
        self.opened_at = now
        self.born = born
        self.end: tuple[int, int] | None = None
        self.told: tuple[Gap, ...] = ()
        self.synced = 0

    @property
    def sealed_path(self) -> Path:
        """The path that it has once it is sealed."""
        return self.path.with_name(self.name.sealed)

    def is_away(self, length: int) -> bool:
        """Whether the name leads to another file by now, or the file is shorter than its writer left it."""
        with contextlib.suppress(OSError):  # where the system cannot say, sealing will
            return not self.is_at(self.path) or self.length() < length
        return False

    def seal(self) -> bool:
        """Make it immutable; False where it is not what its writer left, and has to be written again.

        Raises:
            OSError: it stays open, for recovery.
        """
        if not self.closed:
            if self.end is not None and self.length() != self.end[1]:
                return False
            self.sync()
        renamed = False
        if self.is_at(self.path) and not self.sealed_path.exists():
            if os.name == "nt":
                self.close()  # no open file is renamed there, and none is deleted by others
            with contextlib.suppress(FileNotFoundError):  # deleted this very moment
                files.rename_new(self.path, self.sealed_path)
                renamed = True
        if not self.is_at(self.sealed_path) and (not renamed or self.sealed_path.exists()):
            return False  # one that was carried off as soon as it was sealed is whole elsewhere
        self.close()
        return True

    def whole_lines(self) -> list[bytes]:
        """The lines that the descriptor still gives, each with its newline; partial ones are left out."""
        return _whole_lines(self.read())

    def lines_of_sealed(self) -> set[bytes]:
        """The lines of the chunk that somebody else has sealed under its name; none where there is no such chunk."""
        try:
            return set(_whole_lines(files.read_regular(self.sealed_path)))
        except OSError:
            return set()

    def lost_of(self, lines: Iterable[bytes]) -> list[int]:
        """Each `seq` that it had and that is in none of the lines."""
        end = self.end[0] if self.end is not None else self.first_seq
        return sorted(set(range(self.first_seq, end)) - {seq_of(line) for line in lines})


def seq_of(line: bytes) -> int | None:
    """The `seq` of a line as it stands in a chunk; None for a fragment."""
    try:
        event = json_bytes.loads(line)
    except json_bytes.JSONDecodeError:
        return None
    seq = event.get("seq") if isinstance(event, dict) else None
    return seq if isinstance(seq, int) else None


def is_control(line: bytes) -> bool:
    """Whether a whole line is a writer's own, and no event."""
    return bool(json_bytes.loads(line).get("source") == CONTROL_SOURCE)


def is_gap(line: bytes) -> bool:
    """Whether a whole line tells of a gap."""
    return is_control(line) and json_bytes.loads(line).get("control") == "gap"


def without_seq(line: bytes) -> bytes:
    """The event of a line as it stands in a chunk, ready to be given another `seq`."""
    return line[: line.rindex(b',"seq":')] + b"}"


def _whole_lines(data: bytes) -> list[bytes]:
    """The lines of a chunk's bytes; of a line behind a fragment, where bytes were cut out before it, the line."""
    found = []
    for line in data.split(b"\n")[:-1]:
        start = 0
        while start >= 0 and seq_of(line[start:]) is None:
            start = line.find(_LINE_START, start + 1)
        if start >= 0:
            found.append(line[start:] + b"\n")
    return found
