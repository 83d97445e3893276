"""Read folders and files block by block, and hash them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from calyx_logging.errors import StorageError

__all__ = ["BLOCK", "BOM", "blocks_of", "names_in", "sha256_of", "sha256_of_blocks"]

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
