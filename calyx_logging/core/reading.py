"""Read folders and files block by block, and hash them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from calyx_logging.errors import StorageError

__all__ = [
    "BLOCK",
    "BOM",
    "LineCutter",
    "blocks_of",
    "lines_with",
    "names_in",
    "sha256_of",
    "sha256_of_blocks",
    "sha256_on_disk",
    "whole_lines",
]

BLOCK = 512 * 1024
"""Bytes per read: large enough to make the call's cost small, small enough to fit a core's cache."""

BOM = b"\xef\xbb\xbf"
"""The UTF-8 byte order mark that some programs put at the start of a file; it is not part of the text."""


def names_in(folder: Path) -> list[str]:
    """List the names in a folder, sorted; empty if there is no such folder.

    Raises:
        StorageError: the folder cannot be read.
    """
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError.of(error, "read the folder", folder) from error


def blocks_of(stream: BinaryIO) -> Iterator[bytes]:
    """Yield a file's bytes, block by block."""
    while block := stream.read(BLOCK):
        yield block


class LineCutter:
    """Cut blocks where lines end, copying only lines that span blocks.

    Whole lines come with their newlines, many at once. None stands alone for a line of more than `longest` bytes, of
    which no more is kept in memory.
    """

    def __init__(self, longest: int | None = None) -> None:
        self._longest = longest
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, block: bytes) -> Iterator[memoryview | None]:
        """Yield the whole lines that a block ends."""
        start, end = block.find(b"\n") + 1, block.rfind(b"\n") + 1
        if not end:  # a line spans blocks: join them once, at its end
            self._size += len(block)
            self._parts = [] if self._is_too_long(0) else [*self._parts, block]
            return
        if self._is_too_long(start - 1):
            yield None
        elif self._parts:
            yield memoryview(b"".join([*self._parts, block[:start]]))
        else:
            start = 0
        self._parts, self._size = [block[end:]] if end < len(block) else [], len(block) - end
        if start < end:
            yield memoryview(block)[start:end]

    def rest(self) -> Iterator[memoryview | None]:
        """Yield what has no newline, if anything."""
        if self._size:
            yield None if self._is_too_long(0) else memoryview(b"".join(self._parts))

    def _is_too_long(self, more: int) -> bool:
        return self._longest is not None and self._size + more > self._longest


def whole_lines(blocks: Iterable[bytes], longest: int | None = None) -> Iterator[memoryview | None]:
    """Yield the whole lines of blocks, and last what has no newline, as `LineCutter` does."""
    cutter = LineCutter(longest)
    for block in blocks:
        yield from cutter.feed(block)
    yield from cutter.rest()


def lines_with(lines: bytes, mark: bytes) -> Iterator[bytes]:
    """Yield the lines in which a mark occurs, without newlines."""
    at = lines.find(mark)
    while at >= 0:
        end = lines.find(b"\n", at)
        end = len(lines) if end < 0 else end
        yield lines[lines.rfind(b"\n", 0, at) + 1 : end]
        at = lines.find(mark, end)


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 of bytes as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_blocks(blocks: Iterable[bytes]) -> tuple[str, int]:
    """Return the SHA-256 of a file's blocks, as `sha256_of` writes it, and their number of bytes."""
    digest, size = hashlib.sha256(), 0
    for block in blocks:
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


def sha256_on_disk(path: Path) -> str:
    """Hash a file as it is on the disk, past the system's cache where that can be asked for."""
    with path.open("rb") as stream:
        if hasattr(os, "posix_fadvise"):
            with suppress(OSError):
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return sha256_of_blocks(blocks_of(stream))[0]
