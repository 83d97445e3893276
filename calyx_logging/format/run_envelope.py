"""A run's envelope: suite, node, times, exit status, and the hashes of the files it left.

Invariant: a reader sees the envelope of the run's start or that of its end, never a part of one. A run that dies leaves
the first, whose exit status is `incomplete`.
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
    """The path, hash and size of one of a run's files when the envelope was written.

    Attributes:
        path: relative to the root, with `/`; absolute if the file is elsewhere.
        sha256: 64 hex digits.
        bytes: the file's length.
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
    """The data of one run.

    Attributes:
        suite, run_id, run_instance_id: identify the run.
        started_at, ended_at: UTC, as `ts_utc`; `ended_at` is None until the run has ended.
        exit_status: `normal`, `incomplete` (also while it runs, or if it died), `timeout` or `error`.
        cases_expected: the number of cases expected; None if not given.
        cases_completed: cases that ran to their end, in this instance and those that it continues.
        pass_at: the least score of a case that passes; None if not given.
        cases_judged, cases_passed: cases of this instance with a verdict, and those that passed. Where there are any,
            those that did not complete are judged, too.
        node_id: the node's id; None if the root has none.
        execution_log: the execution log; None if the run wrote none.
        receipts: the other files it left.
        error: type and text of the error that ended it.
        continues: the instances before it that it resumes, the first one first.
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
    continues: tuple[str, ...] = ()
    pass_at: float | None = None
    cases_judged: int = 0
    cases_passed: int = 0

    @classmethod
    def start(
        cls,
        suite: str,
        run_id: str,
        run_instance_id: str,
        *,
        node_id: str | None = None,
        cases_expected: int | None = None,
        pass_at: float | None = None,
        continues: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Make the envelope of a run that begins now."""
        started_at = utc_text(clock())
        made = cls(suite, run_id, run_instance_id, started_at, cases_expected=cases_expected, node_id=node_id)
        return replace(made, pass_at=pass_at, continues=tuple(continues))

    def end(
        self,
        exit_status: str,
        *,
        cases_completed: int,
        cases_judged: int = 0,
        cases_passed: int = 0,
        execution_log: FileDigest | None = None,
        receipts: Iterable[FileDigest] = (),
        error: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Return the envelope of the run as ended now.

        Raises:
            ConfigError: the exit status is unknown.
        """
        if exit_status not in EXIT_STATUSES:
            raise ConfigError(f"exit status {exit_status!r}: give one of {', '.join(map(repr, EXIT_STATUSES))}")
        return replace(
            self,
            ended_at=utc_text(clock()),
            exit_status=exit_status,
            cases_completed=cases_completed,
            cases_judged=cases_judged,
            cases_passed=cases_passed,
            execution_log=execution_log,
            receipts=tuple(receipts),
            error=error,
        )

    def to_bytes(self) -> bytes:
        """Serialise as JSON; `node_id`, `error`, `continues`, `pass_at` and verdicts only if there are any."""
        document = {"envelope_version": _VERSION, **asdict(self)}
        unset = [name for name in ("node_id", "error", "continues") if not document[name]]
        unset += ["pass_at"] * (self.pass_at is None) + ["cases_judged", "cases_passed"] * (not self.cases_judged)
        for name in unset:
            del document[name]
        return json.dumps(document, indent=1, ensure_ascii=True).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, *, path: Path | None = None) -> Self:
        """Parse an envelope; unknown keys are ignored.

        Raises:
            ManifestError: it is not an envelope.
        """
        try:
            document: Any = json.loads(data.removeprefix(BOM))
            return cls._of(document)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ManifestError(f"is not the envelope of a run: {reason}", path=path) from None

    @classmethod
    def _of(cls, document: Mapping[str, Any]) -> Self:
        texts = {name: document[name] for name in ("suite", "run_id", "run_instance_id", "started_at", "exit_status")}
        texts |= {name: document[name] for name in ("ended_at", "node_id", "error") if document.get(name) is not None}
        for name, value in texts.items():
            if not isinstance(value, str):
                raise TypeError(f"{name} is {value!r:.100}")
        if texts["exit_status"] not in EXIT_STATUSES:
            raise ValueError(f"exit_status is {texts['exit_status']!r:.100}")
        counts = {name: document.get(name, 0) for name in ("cases_completed", "cases_judged", "cases_passed")}
        expected, pass_at = document.get("cases_expected"), document.get("pass_at")
        if not (expected is None or type(expected) is int) or any(type(count) is not int for count in counts.values()):
            raise TypeError("a number of cases is not a number")
        if not (pass_at is None or type(pass_at) in (int, float)):
            raise TypeError("pass_at is not a number")
        log = document.get("execution_log")
        return cls(
            **texts,
            cases_expected=expected,
            pass_at=pass_at,
            **counts,
            execution_log=None if log is None else FileDigest(**log),
            receipts=tuple(FileDigest(**each) for each in document.get("receipts", ())),
            continues=tuple(str(each) for each in document.get("continues", ())),
        )

    def write(self, path: Path) -> None:
        """Write it to `path` atomically: written beside it, synced, renamed.

        Raises:
            StorageError: it cannot be written.
        """
        try:
            files.make_dirs(path.parent)
            files.replace_file(path, self.to_bytes())
        except OSError as error:
            raise StorageError.of(error, "write the run's envelope", path, "make the folder writable") from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the envelope at `path`.

        Raises:
            StorageError: it cannot be read.
            ManifestError: it is not an envelope.
        """
        try:
            data = files.read_regular(path)
        except OSError as error:
            raise StorageError.of(error, "read the run's envelope", path) from error
        return cls.from_bytes(data, path=path)
