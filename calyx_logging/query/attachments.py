"""Find the files that runs attached in the chunks of an outbox, a hub or a bundle, and return their contents.

This works without the extra `query`. Names and contents come from nodes and are not trusted.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from calyx_logging.errors import ChunkError, EventError, StorageError
from calyx_logging.events.event import CONTROL_SOURCE, decode
from calyx_logging.format.chunk import MAX_LINE, OPEN_SUFFIX, SEALED_SUFFIX, open_chunk
from calyx_logging.format.file_lines import FILE, Attachment, Attachments
from calyx_logging.query.locations import chunks_at

__all__ = ["attachments_at", "blocks_of_attachment"]

_MARK = b'"control":"file"'


@dataclass(frozen=True)
class _Place:
    """Where a line is."""

    path: Path
    start: int
    end: int


def attachments_at(place: str, root: str | os.PathLike[str] | None) -> list[Attachment]:
    """List the files that runs attached.

    Args:
        place: `outbox`, `hub`, or the path of a bundle's folder.
        root: of the node or hub; None for the one that is found.

    Raises:
        CalyxError: there is no such place, or a chunk cannot be read.
    """
    found = Attachments()
    for ref in chunks_at(place, root)():
        for at, line in _lines(ref.path):
            with suppress(EventError):
                event = decode(line)
                is_one = event.get("control") == FILE and event.get("source") == CONTROL_SOURCE
                if is_one and ref.node_id in (None, event.get("node_id")):
                    found.add(event, at)
    return found.all()


def blocks_of_attachment(attachment: Attachment) -> Iterator[bytes]:
    """Yield a file's bytes, as they were attached.

    Raises:
        EventError: a part is missing or damaged.
        StorageError, OSError: a chunk cannot be read.
    """
    return attachment.blocks(_data_at)


def _lines(path: Path) -> Iterator[tuple[_Place, bytes]]:
    """Yield lines that may hold part of a file, with their places."""
    try:
        stream = open_chunk(path)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return  # sealed or pruned since it was listed; the former is read under its new name the next time
        raise
    with stream:
        if not os.fstat(stream.fileno()).st_size:
            return
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            at = data.find(_MARK)
            while at >= 0:
                start, end = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at)
                if end < 0:
                    return  # its writer is in the middle of it
                if end - start <= MAX_LINE:
                    yield _Place(path, start, end), data[start:end]
                at = data.find(_MARK, end)


def _data_at(place: _Place) -> str:
    sealed = place.path.with_name(place.path.name.removesuffix(OPEN_SUFFIX) + SEALED_SUFFIX)
    path = place.path if place.path.exists() else sealed
    with open_chunk(path) as stream:
        stream.seek(place.start)
        line = stream.read(place.end - place.start)
    data = decode(line).get("data")
    if not isinstance(data, str):
        raise ChunkError("has changed", path=path)
    return data
