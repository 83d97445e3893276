"""Every exception this library raises, what each means for a command's exit code, and `say` for what is no exception.

CalyxError                  path, cause and hint in one line            exit 1
├── ConfigError             a bad option, in dictConfig or on the command line   exit 2
├── NodeError               the node's identity                         exit 2
│   ├── RootNotFound        the root that was named is no folder
│   ├── NodeNotProvisioned  no usable runtime/node_id.txt
│   ├── InvalidNodeId       breaks the rule for node ids
│   └── NodeConflict        another id, or another spelling, is there
├── LockHeld                another process is at it: who               exit 3
├── StorageError            the file system said no                     exit 4
├── EventError              a line that is no event                     exit 1
├── ChunkError              a chunk that is not what its name says      exit 1
├── ManifestError           a manifest, index or SHA256SUMS that cannot be read  exit 1
├── ArchiveError            a file that is no archive of a bundle        exit 1
├── SignatureError          a signature that is not what it has to be   exit 1
└── BundleError             a bundle with faults, all of them listed    exit 1
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence
from typing import TextIO

__all__ = [
    "ArchiveError",
    "BundleError",
    "CalyxError",
    "ChunkError",
    "ConfigError",
    "EventError",
    "InvalidNodeId",
    "LockHeld",
    "ManifestError",
    "NodeConflict",
    "NodeError",
    "NodeNotProvisioned",
    "RootNotFound",
    "SignatureError",
    "StorageError",
    "say",
]


class CalyxError(Exception):
    """Base of the tree.

    Args:
        message: what happened, without the path.
        path: the file or folder concerned.
        hint: what to do about it, as an instruction.
    """

    exit_code = 1

    def __init__(self, message: str, *, path: str | os.PathLike[str] | None = None, hint: str | None = None) -> None:
        self.message = message
        self.path = None if path is None else os.fspath(path)
        self.hint = hint
        super().__init__(self._line())

    def _line(self) -> str:
        line = self.message if self.path is None else f"{self.path}: {self.message}"
        return line if self.hint is None else f"{line} ({self.hint})"


class ConfigError(CalyxError, ValueError):
    """A bad option; the message names the option and the values it takes."""

    exit_code = 2


class NodeError(CalyxError):
    """Something about the node's identity."""

    exit_code = 2


class RootNotFound(NodeError):
    """The root that was named is not there."""


class NodeNotProvisioned(NodeError):
    """There is no `runtime/node_id.txt` with an id in it."""


class InvalidNodeId(NodeError, ValueError):
    """The id breaks the rule for node ids."""


class NodeConflict(NodeError):
    """The root already bears another id, or another spelling of this one."""


class LockHeld(CalyxError):
    """Another process holds the lock; the message says which."""

    exit_code = 3


class StorageError(CalyxError):
    """An operation on the file system failed; `__cause__` is the OSError."""

    exit_code = 4

    @classmethod
    def of(cls, error: OSError, doing: str, path: str | os.PathLike[str], hint: str | None = None) -> StorageError:
        """The error of an operation (`doing`, in words) on `path`."""
        return cls(f"cannot {doing}: {error.strerror or error}", path=path, hint=hint)


class EventError(CalyxError, ValueError):
    """The bytes are not one event line."""


class ChunkError(CalyxError):
    """A file in the outbox is not the regular file a chunk has to be."""


class ManifestError(CalyxError, ValueError):
    """A manifest, an index or a SHA256SUMS that cannot be read as one."""


class ArchiveError(CalyxError):
    """An archive that is damaged, or no archive of a bundle."""


class SignatureError(CalyxError):
    """A signature that is not by whom it has to be, or over other bytes."""


class BundleError(CalyxError):
    """A bundle with faults.

    Args:
        message: what was being done with it.
        faults: every fault found, not only the first.
        path: the bundle's folder.
    """

    def __init__(self, message: str, *, faults: Sequence[object], path: str | os.PathLike[str] | None = None) -> None:
        self.faults = tuple(faults)
        super().__init__(f"{message}: {'; '.join(str(fault) for fault in self.faults)}", path=path)


def say(text: str) -> None:
    """One line on standard error, where there is one that takes it at once; never raises and never waits."""
    try:
        stream = sys.stderr
        if not _would_block(stream):
            stream.write(f"calyx-logging: {text}\n")
            stream.flush()
    except Exception:  # pythonw has no stderr, a closed or odd one may raise anything: then nobody can be told
        return


def _would_block(stream: TextIO) -> bool:
    """Whether standard error is a pipe that nobody reads."""
    if os.name == "nt":
        return False
    try:
        fd = stream.fileno()
    except (AttributeError, TypeError, OSError, ValueError):  # an object in memory, or of somebody's own
        return False
    if not hasattr(select, "poll"):
        return not select.select([], [fd], [], 0)[1]
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return not poll.poll(0)
