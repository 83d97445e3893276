"""Copy an outbox's chunks into a bundle that is being made, and hash them on the way.

A chunk that cannot be read, or that somebody appends to meanwhile, is left out and named; the others are copied.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from calyx_logging.core import files
from calyx_logging.core.parallel import several_at_once
from calyx_logging.core.reading import blocks_of, sha256_on_disk
from calyx_logging.errors import CalyxError, ManifestError, StorageError
from calyx_logging.format.chunk import open_chunk
from calyx_logging.format.chunk_stats import ChunkStats, stats_for
from calyx_logging.format.manifest import ChunkEntry
from calyx_logging.outbox.pending import Pending

__all__ = ["Copies", "Progress", "copy_chunks", "read_back"]

Progress = Callable[[int, int], None]


@dataclass
class Copies:
    """The result of copying chunks.

    Attributes:
        entries: of the chunks copied, for the manifest.
        events: in them, without control lines.
        quiet_soon: chunks to which a foreign writer appended meanwhile.
        left: why chunks were left out that cannot be read.
        warnings: about chunks that were copied.
    """

    entries: list[ChunkEntry] = field(default_factory=list)
    events: int = 0
    quiet_soon: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def copy_chunks(outbox: Path, pending: Pending, target: Path, progress: Progress | None) -> Copies:
    """Copy the pending chunks into a folder, several at once.

    Args:
        outbox: that has them.
        pending: which ones.
        target: the folder.
        progress: receives the bytes copied and the bytes to be copied.

    Raises:
        OSError: a file cannot be written.
    """
    copies, copied = Copies(), 0

    def copy(filename: str) -> tuple[ChunkEntry, ChunkStats] | str | None:
        return _copy(outbox / filename, target / filename)

    for filename, found in zip(pending.chunks, several_at_once(copy, pending.chunks), strict=True):
        if found is None:
            copies.quiet_soon.append(filename)
        elif isinstance(found, str):
            copies.left.append(found)
        else:
            entry, stats = found
            copies.entries.append(entry)
            copies.events += stats.logged
            if stats.bad_lines:
                text = f"{filename} has {stats.bad_lines} lines that are not events; exported unchanged"
                copies.warnings.append(text)
            copied += entry.bytes or 0
            if progress is not None:
                progress(copied, pending.bytes)
    return copies


def _copy(source: Path, target: Path) -> tuple[ChunkEntry, ChunkStats] | str | None:
    """Copy one chunk; None if it changed meanwhile, a text if it cannot be read."""
    stats = stats_for(source.name)
    try:
        with open_chunk(source) as stream:
            before = os.fstat(stream.fileno())
            files.write_new(target, stats.through(_read(stream, source)))
            after = os.fstat(stream.fileno())
    except CalyxError as error:
        files.remove(target)
        return f"{error}; it is not exported until it can be read"
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        files.remove(target)
        return None
    return stats.entry(source.name), stats


def _read(stream: BinaryIO, path: Path) -> Iterator[bytes]:
    """Read blocks; that the disk does not give one is not to be taken for an error of the copy."""
    try:
        yield from blocks_of(stream)
    except OSError as error:
        raise StorageError.of(error, "read the chunk", path) from error


def read_back(folder: Path, entries: Iterable[ChunkEntry]) -> None:
    """Check that a medium has what was written to it.

    Raises:
        ManifestError: it has something else.
        OSError: a file cannot be read.
    """
    for entry in entries:
        if sha256_on_disk(folder / entry.filename) != entry.sha256:
            hint = "the medium is faulty: use another"
            raise ManifestError(f"{folder / entry.filename} is not what was written", hint=hint)
