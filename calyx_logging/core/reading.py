"""Reading folders and files block by block, and hashing them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from calyx_logging.errors import StorageError

__all__ = ["BLOCK", "BOM", "blocks_of", "names_in", "sha256_of", "sha256_of_blocks"]

BLOCK = 512 * 1024
"""Bytes that are read at once: so many that a call costs little beside them, so few that a core's cache holds them."""

BOM = b"\xef\xbb\xbf"
"""The byte order mark of UTF-8, with which other programs begin a file: no part of its text."""


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted; none where it is not there.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError.of(error, "read the folder", folder) from error


def blocks_of(stream: BinaryIO) -> Iterator[bytes]:
    """A file's bytes, block by block."""
    while block := stream.read(BLOCK):
        yield block


def sha256_of(data: bytes) -> str:
    """The SHA-256 of bytes, as 64 hex digits in lower case."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_blocks(blocks: Iterable[bytes]) -> tuple[str, int]:
    """The SHA-256 of a file's blocks, as `sha256_of` writes it, and how many bytes there were."""
    digest, size = hashlib.sha256(), 0
    for block in blocks:
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size
