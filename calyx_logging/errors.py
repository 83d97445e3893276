"""The exceptions this library raises, with the exit code of each, and `say` for messages on standard error.

CalyxError                  path, cause and hint in one line            exit 1
├── ConfigError             a bad option, in dictConfig or on the command line   exit 2
├── NodeError               the node's identity                         exit 2
│   ├── RootNotFound        the root given is not a folder
│   ├── NodeNotProvisioned  no usable runtime/node_id.txt
│   ├── InvalidNodeId       breaks the rule for node ids
│   └── NodeConflict        another id, or another spelling, is there
├── LockHeld                another process holds the lock              exit 3
├── StorageError            an operation on the file system failed      exit 4
├── EventError              a line that is not an event                 exit 1
├── ChunkError              a chunk that is not a regular file          exit 1
├── ManifestError           a manifest, index or SHA256SUMS that cannot be read  exit 1
├── ArchiveError            a file that is not a bundle archive         exit 1
├── SignatureError          a signature that is not valid here          exit 1
└── BundleError             a bundle with faults, all listed            exit 1
"""

from __future__ import annotations

import errno
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
    "remedy_for",
    "say",
]


class CalyxError(Exception):
    """Base class of all errors of this library.

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
    """The node's identity is missing or wrong."""

    exit_code = 2


class RootNotFound(NodeError):
    """The root given is not a folder."""


class NodeNotProvisioned(NodeError):
    """No `runtime/node_id.txt` with an id in it was found."""


class InvalidNodeId(NodeError, ValueError):
    """The id breaks the rule for node ids."""


class NodeConflict(NodeError):
    """The root already has another id, or another spelling of this one."""


class LockHeld(CalyxError):
    """Another process holds the lock; the message says which."""

    exit_code = 3


class StorageError(CalyxError):
    """An operation on the file system failed; `__cause__` is the OSError."""

    exit_code = 4

    @classmethod
    def of(cls, error: OSError, doing: str, path: str | os.PathLike[str], hint: str | None = None) -> StorageError:
        """Make the error for a failed operation (`doing`, a verb phrase) on `path`; default hint: `remedy_for`."""
        return cls(f"cannot {doing}: {error.strerror or error}", path=path, hint=hint or remedy_for(error))


class EventError(CalyxError, ValueError):
    """The bytes are not one event line."""


class ChunkError(CalyxError):
    """A file with a chunk's name is not a regular file."""


class ManifestError(CalyxError, ValueError):
    """A manifest, index or SHA256SUMS is malformed."""


class ArchiveError(CalyxError):
    """An archive is damaged, or is not the archive of a bundle."""


class SignatureError(CalyxError):
    """A signature is by an unexpected key, or over other bytes."""


class BundleError(CalyxError):
    """A bundle has faults.

    Args:
        message: what is wrong in general.
        faults: every fault found, not only the first.
        path: the bundle's folder.
    """

    def __init__(self, message: str, *, faults: Sequence[object], path: str | os.PathLike[str] | None = None) -> None:
        self.faults = tuple(faults)
        super().__init__(f"{message}: {'; '.join(str(fault) for fault in self.faults)}", path=path)


_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "its file system is read-only: name a place that can be written",
    errno.EACCES: "give this user access to it",
    errno.EPERM: "give this user access to it",
    errno.ENOENT: "make it, or name another place",
    errno.ENOTDIR: "a file is in the place of a folder: move it away",
    errno.EEXIST: "something else is in its place: move it away",
    errno.EISDIR: "a folder is in the place of a file: move it away",
    errno.ELOOP: "a link is in its place: move it away",
    errno.EMFILE: "raise the limit of open files, or use fewer --jobs",
    errno.ENFILE: "raise the limit of open files, or use fewer --jobs",
    errno.ENAMETOOLONG: "use a shorter path",
}


def remedy_for(error: OSError) -> str:
    """Say what to do about an error of the file system, as an instruction."""
    return _REMEDIES.get(error.errno or 0, "check that this user may use it, and that the disk is sound")


def say(text: str) -> None:
    """Write one line to standard error if that is possible at once; never raises and never blocks."""
    try:
        stream = sys.stderr
        if not _would_block(stream):
            stream.write(f"calyx-logging: {text}\n")
            stream.flush()
    except Exception:  # pythonw has no stderr, and a closed or unusual one may raise anything
        return


def _would_block(stream: TextIO) -> bool:
    """Tell whether standard error is a pipe that nobody reads."""
    if os.name == "nt":
        return False
    try:
        fd = stream.fileno()
    except (AttributeError, TypeError, OSError, ValueError):  # an in-memory or custom object
        return False
    if not hasattr(select, "poll"):
        return not select.select([], [fd], [], 0)[1]
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return not poll.poll(0)
