"""Name and read chunks, open or sealed, at the node and at the hub.

Invariants: one function makes a chunk's name (`ChunkName.text`), one strict parser reads it (`ChunkName.parse`), and
each is the inverse of the other. A line counts only with its newline; bytes after a chunk's last newline are a partial
line.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from calyx_logging.core.reading import BLOCK
from calyx_logging.errors import ChunkError, ConfigError, StorageError

__all__ = [
    "MAX_CHUNK_NUMBER",
    "MAX_COMPONENT",
    "MAX_LINE",
    "NAME_PATTERN",
    "OPEN_SUFFIX",
    "SEALED_SUFFIX",
    "ChunkName",
    "check_component",
    "open_chunk",
    "read_lines",
]

SEALED_SUFFIX = ".jsonl"
OPEN_SUFFIX = ".jsonl.open"
MAX_CHUNK_NUMBER = 9999
MAX_COMPONENT = 48
"""The most characters in a component."""

MAX_LINE = 64 * 1024 * 1024
"""The longest line that is read as an event, in bytes with its newline."""

_COMPONENT = r"[a-z0-9]+(?:[_-][a-z0-9]+)*"
NAME_PATTERN = (
    rf"(?P<when>[0-9]{{8}}_[0-9]{{6}})__(?P<component>{_COMPONENT})__(?P<writer>[0-9a-f]{{8}})-(?P<number>[0-9]{{4}})"
)
"""Pattern of a name without suffix; only `ChunkName.parse` checks that its time exists."""

_NAME = re.compile(NAME_PATTERN, re.ASCII)


def check_component(component: object) -> str:
    """Return a valid component, or raise `ConfigError` and state the rule."""
    if (
        not isinstance(component, str)
        or len(component) > MAX_COMPONENT
        or not re.fullmatch(_COMPONENT, component, re.ASCII)
    ):
        raise ConfigError(
            f"option 'component' is {component!r}: give 1 to {MAX_COMPONENT} lower case letters and digits, "
            "with single '_' or '-' between them"
        )
    return component


@dataclass(frozen=True, order=True)
class ChunkName:
    """The name of a chunk of ours: time (UTC, whole seconds), component, writer (8 hex digits), number (0 to 9999)."""

    when: datetime
    component: str
    writer: str
    number: int

    @property
    def text(self) -> str:
        """The name without suffix."""
        day, moment = self.when.date().isoformat(), self.when.time().isoformat("seconds")
        # not strftime: it imports a module, which fails at interpreter shutdown
        when = f"{day}_{moment}".replace("-", "").replace(":", "")
        return f"{when}__{self.component}__{self.writer}-{self.number:04d}"

    @property
    def sealed(self) -> str:
        """The file name once sealed."""
        return self.text + SEALED_SUFFIX

    @property
    def open(self) -> str:
        """The file name while its writer appends."""
        return self.text + OPEN_SUFFIX

    @classmethod
    def parse(cls, filename: str) -> ChunkName | None:
        """Parse a file name, open or sealed; None if it is not the name of one of our chunks."""
        for suffix in (SEALED_SUFFIX, OPEN_SUFFIX):
            if filename.endswith(suffix):
                return cls._parse_text(filename.removesuffix(suffix))
        return None

    @classmethod
    def _parse_text(cls, text: str) -> ChunkName | None:
        match = _NAME.fullmatch(text)
        if match is None or len(match["component"]) > MAX_COMPONENT:
            return None
        digits = match["when"]
        day = int(digits[:4]), int(digits[4:6]), int(digits[6:8])
        moment = int(digits[9:11]), int(digits[11:13]), int(digits[13:])
        try:
            when = datetime(*day, *moment, tzinfo=UTC)
        except ValueError:
            return None
        return cls(when, match["component"], match["writer"], int(match["number"]))


def open_chunk(path: Path) -> BinaryIO:
    """Open a chunk for reading; refuse a symbolic link, a folder or a pipe.

    Raises:
        ChunkError: it is not a regular file.
        StorageError: it cannot be opened.
    """
    hint = "chunks are regular files: move it out of the folder"
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        if path.is_symlink():
            raise ChunkError("is a symbolic link", path=path, hint=hint)
        fd = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise StorageError.of(error, "read the chunk", path) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ChunkError("is no regular file", path=path, hint=hint)
    return os.fdopen(fd, "rb", buffering=BLOCK)


def read_lines(stream: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """Yield each line without its newline, and whether it had one; only the last can be partial."""
    for line in stream:
        if line.endswith(b"\n"):
            yield line[:-1], True
        else:
            yield line, False
