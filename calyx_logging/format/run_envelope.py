"""A run's envelope: who ran what, when, how it ended, and the hashes of what it left behind.

Invariant: a reader sees the envelope of the start or the one of the end, whole; a run that dies leaves the first, whose
exit status is `incomplete`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from calyx_logging.core import files
from calyx_logging.core.reading import BOM, blocks_of, sha256_of_blocks
from calyx_logging.core.times import utc_text
from calyx_logging.errors import ConfigError, ManifestError, StorageError

__all__ = ["EXIT_STATUSES", "FileDigest", "RunEnvelope"]

EXIT_STATUSES = ("normal", "incomplete", "timeout", "error")
_VERSION = 1


@dataclass(frozen=True)
class FileDigest:
    """A file of a run as it was when the envelope was written.

    Attributes:
        path: relative to the root, with `/`; absolute where it lies elsewhere.
        sha256: 64 hex digits.
        bytes: its length.
    """

    path: str
    sha256: str
    bytes: int

    @classmethod
    def of(cls, path: Path, root: Path) -> Self:
        """Hash a file.

        Raises:
            StorageError: it cannot be read.
        """
        try:
            with path.open("rb") as stream:
                digest, size = sha256_of_blocks(blocks_of(stream))
        except OSError as error:
            raise StorageError.of(error, "hash a file of the run", path) from error
        inside = path.is_relative_to(root)
        return cls((path.relative_to(root) if inside else path).as_posix(), digest, size)


@dataclass(frozen=True)
class RunEnvelope:
    """What is said of one run.

    Attributes:
        suite, run_id, run_instance_id: which.
        started_at, ended_at: UTC, as `ts_utc`; the latter None until it has ended.
        exit_status: `normal`, `incomplete` (also while it runs, and when it died), `timeout` or `error`.
        cases_expected: None where nobody said.
        cases_completed: cases that came to an end, whatever their outcome.
        node_id: None where the root has none.
        execution_log: None where the run wrote none.
        receipts: what else it left.
        error: type and text of what ended it.
    """

    suite: str
    run_id: str
    run_instance_id: str
    started_at: str
    ended_at: str | None = None
    exit_status: str = "incomplete"
    cases_expected: int | None = None
    cases_completed: int = 0
    node_id: str | None = None
    execution_log: FileDigest | None = None
    receipts: tuple[FileDigest, ...] = ()
    error: str | None = None

    @classmethod
    def start(
        cls,
        suite: str,
        run_id: str,
        run_instance_id: str,
        *,
        node_id: str | None = None,
        cases_expected: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """The envelope of a run that begins now."""
        return cls(suite, run_id, run_instance_id, utc_text(clock()), cases_expected=cases_expected, node_id=node_id)

    def end(
        self,
        exit_status: str,
        *,
        cases_completed: int,
        execution_log: FileDigest | None = None,
        receipts: Iterable[FileDigest] = (),
        error: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """The envelope of the run, ended now.

        Raises:
            ConfigError: there is no such exit status.
        """
        if exit_status not in EXIT_STATUSES:
            raise ConfigError(f"exit status {exit_status!r}: give one of {', '.join(map(repr, EXIT_STATUSES))}")
        return replace(
            self,
            ended_at=utc_text(clock()),
            exit_status=exit_status,
            cases_completed=cases_completed,
            execution_log=execution_log,
            receipts=tuple(receipts),
            error=error,
        )

    def to_bytes(self) -> bytes:
        """JSON; `node_id` and `error` stand in it only when there is one."""
        document = {"envelope_version": _VERSION, **asdict(self)}
        for name in ("node_id", "error"):
            if document[name] is None:
                del document[name]
        return json.dumps(document, indent=1, ensure_ascii=True).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, *, path: Path | None = None) -> Self:
        """Read one; keys that are not known are passed over.

        Raises:
            ManifestError: it is none.
        """
        try:
            document: Any = json.loads(data.removeprefix(BOM))
            return cls._of(document)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ManifestError(f"is no envelope of a run: {reason}", path=path) from None

    @classmethod
    def _of(cls, document: Mapping[str, Any]) -> Self:
        texts = {name: document[name] for name in ("suite", "run_id", "run_instance_id", "started_at", "exit_status")}
        texts |= {name: document[name] for name in ("ended_at", "node_id", "error") if document.get(name) is not None}
        for name, value in texts.items():
            if not isinstance(value, str):
                raise TypeError(f"{name} is {value!r:.100}")
        if texts["exit_status"] not in EXIT_STATUSES:
            raise ValueError(f"exit_status is {texts['exit_status']!r:.100}")
        expected, completed = document.get("cases_expected"), document.get("cases_completed", 0)
        if not (expected is None or type(expected) is int) or type(completed) is not int:
            raise TypeError("cases_expected or cases_completed is no number")
        log = document.get("execution_log")
        return cls(
            **texts,
            cases_expected=expected,
            cases_completed=completed,
            execution_log=None if log is None else FileDigest(**log),
            receipts=tuple(FileDigest(**each) for each in document.get("receipts", ())),
        )

    def write(self, path: Path) -> None:
        """Put it at `path`: written beside it, synced, renamed.

        Raises:
            StorageError: it cannot be.
        """
        try:
            files.make_dirs(path.parent)
            files.replace_file(path, self.to_bytes())
        except OSError as error:
            raise StorageError.of(error, "write the run's envelope", path, "make the folder writable") from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the one at `path`.

        Raises:
            StorageError: it cannot be read.
            ManifestError: it is none.
        """
        try:
            data = files.read_regular(path)
        except OSError as error:
            raise StorageError.of(error, "read the run's envelope", path) from error
        return cls.from_bytes(data, path=path)
