"""Read folders and files block by block, and hash them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from calyx_logging.errors import StorageError

__all__ = ["BLOCK", "BOM", "blocks_of", "names_in", "sha256_of", "sha256_of_blocks", "whole_lines"]

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


def whole_lines(blocks: Iterable[bytes], longest: int | None = None) -> Iterator[memoryview | None]:
    """Cut blocks where lines end, copying only lines that span blocks.

    Yields:
        Whole lines with their newlines, many at once; last, what has no newline. None stands alone for a line of more
        than `longest` bytes, of which no more is kept in memory.
    """
    parts: list[bytes] = []
    size = 0
    is_too_long = False
    for block in blocks:
        start, end = block.find(b"\n") + 1, block.rfind(b"\n") + 1
        if not end:  # a line spans blocks: join them once, at its end
            size += len(block)
            is_too_long = is_too_long or (longest is not None and size > longest)
            parts = [] if is_too_long else [*parts, block]
            continue
        if is_too_long or (longest is not None and size + start - 1 > longest):
            yield None
        elif parts:
            yield memoryview(b"".join([*parts, block[:start]]))
        else:
            start = 0
        if start < end:
            yield memoryview(block)[start:end]
        parts, size, is_too_long = [block[end:]] if end < len(block) else [], len(block) - end, False
    if size:
        yield None if is_too_long else memoryview(b"".join(parts))


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
