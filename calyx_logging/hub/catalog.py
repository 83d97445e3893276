"""The hub's catalog: one SQLite file that records what the hub knows about its store.

    telemetry/federated/.catalog.sqlite3      bundles, the contents of their chunks, the table's files

Invariants: the folders are what counts, and the catalog can be rebuilt from them, so a lost, damaged or outdated one
does no harm; related changes are made in one transaction, so a killed process leaves all of them or none. Reading
writes nothing: if there is no readable catalog, one in memory stands in for it, filled from the import index.
"""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from calyx_logging.core import files, json_bytes
from calyx_logging.core.os_lock import OsLock
from calyx_logging.errors import StorageError
from calyx_logging.hub._catalog_schema import OURS, SCHEMA, VERSION, take_over

__all__ = ["Catalog", "mark_of"]

_WAIT = 60.0
"""Seconds to wait for another process that changes it."""

_ERRORS = (sqlite3.DatabaseError, UnicodeDecodeError)
"""The latter comes from damaged names in the schema."""

_DAMAGED = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""SQLITE_ERROR: a table is missing."""


class Catalog:
    """The catalog of a store.

    Args:
        folder: the store's.

    Attributes:
        path: its file.
        index: the first generation's import index, which it writes for others, and begins with.
        generation: counts how often the file was opened; if it has changed, earlier answers may be outdated.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".catalog.sqlite3"
        self.index = folder / ".import_index.json"
        self._folder = folder
        self._mutex = threading.RLock()
        self._opened: sqlite3.Connection | None = None
        self._of: tuple[int, int] | None = None
        self._in_memory = False
        self._bad: tuple[int, int] | None = None
        self.generation = 0

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a SELECT.

        Raises:
            StorageError: it cannot be read.
        """
        with self._mutex:
            try:
                return self._fetch(sql, values)
            except _ERRORS as error:
                if _code(error) not in _DAMAGED or self._in_memory:
                    raise self._error(error, "read") from error
                self._bad = _identity(self.path)
                if self._connection().in_transaction:
                    raise self._error(error, "read") from error
                self._keep(self._memory(), in_memory=True)
                return self._fetch(sql, values)

    def _fetch(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        rows = self._connection().execute(sql, values).fetchall()
        if any(type(value) is bytes for row in rows for value in row):
            raise sqlite3.DatabaseError("it holds a value of the wrong type")
        return rows

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection in a transaction, which is committed at the end, or not at all if the body raises.

        Raises:
            StorageError: it cannot be written, or a newer version of calyx-logging made it.
        """
        with self._mutex:
            try:
                connection = self._writable()
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):  # a failed commit may have rolled it back
                        connection.execute("ROLLBACK")
                    raise
            except _ERRORS as error:
                if _code(error) in _DAMAGED:
                    self._bad = _identity(self.path)
                    self._renew()
                raise self._error(error, "change") from error
            except StorageError:  # of `rows` in the body, which may have found it damaged
                if self._bad is not None and self._bad == _identity(self.path):
                    self._renew()
                raise

    def write_index(self) -> None:
        """Write the import index, in the first generation's form, with the manifests' hashes beside it.

        Raises:
            StorageError: the catalog cannot be written.
            OSError: the index cannot be written.
        """
        is_ours = self.rows("SELECT value FROM about WHERE name = 'index'") == [(_state_of(self.index),)]
        if is_ours and not self.rows("SELECT 1 FROM bundles WHERE NOT listed LIMIT 1"):
            return
        with self.changing() as change:
            imports = [
                {
                    "source_node_id": node_id,
                    "export_folder": folder,
                    "path": f"telemetry/federated/{node_id}/{folder}",
                    "imported_at": imported_at,
                    "manifest_sha256": manifest_sha256,
                }
                for node_id, folder, manifest_sha256, imported_at in self.rows(
                    "SELECT node_id, folder, manifest_sha256, imported_at FROM bundles ORDER BY node_id, folder"
                )
            ]
            data = json_bytes.dumps(
                {"imports": imports}, option=json_bytes.OPT_INDENT_2 | json_bytes.OPT_APPEND_NEWLINE
            )
            files.replace_file(self.index, data)
            change.execute("UPDATE bundles SET listed = 1 WHERE NOT listed")
            change.execute("INSERT OR REPLACE INTO about VALUES ('index', ?)", [_state_of(self.index)])

    def forget_notes(self, node_id: str, hashes: Iterable[str]) -> None:
        """Forget the notes about damaged chunks, so that they are read again when somebody asks.

        Raises:
            StorageError: the catalog cannot be written.
        """
        with self.changing() as change:
            keys = [(node_id, sha256) for sha256 in hashes]
            change.executemany("DELETE FROM notes WHERE node_id = ? AND sha256 = ?", keys)

    def forget_table(self, node_id: str) -> None:
        """Mark a node's bundles as missing from the table, because some of their chunks have changed.

        Raises:
            StorageError: the catalog cannot be written.
        """
        with self.changing() as change:
            change.execute("UPDATE bundles SET tabled = 0 WHERE node_id = ?", [node_id])

    def renew(self) -> None:
        """Rebuild it from the import index, because its content is wrong; the folders supply the rest.

        Raises:
            StorageError: it cannot be written.
        """
        with self._mutex:
            self._bad = _identity(self.path)
            self._renew()

    def share(self) -> None:
        """Change its journal to one that several machines can use at the same time, on a shared file system.

        Raises:
            StorageError: it cannot be written.
        """
        with self.changing():
            pass  # it is there
        with self._mutex:
            try:
                self._connection().execute("PRAGMA journal_mode = DELETE")
            except _ERRORS as error:
                raise self._error(error, "change") from error

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        with self._mutex:
            self._keep(None, in_memory=False)

    # -------------------------------------------------------------- the file

    def _connection(self) -> sqlite3.Connection:
        """Return the connection, opening it again if the file was replaced."""
        if self._opened is None or self._of != _identity(self.path):
            try:
                connection = self._open()
                is_ours = connection is not None and _version(connection) == VERSION
            except _ERRORS as error:
                if _code(error) not in _DAMAGED:
                    raise
                is_ours = False
            self._keep(connection if is_ours and connection is not None else self._memory(), in_memory=not is_ours)
        assert self._opened is not None
        return self._opened

    def _writable(self) -> sqlite3.Connection:
        connection = self._connection()
        if self._in_memory:
            self._renew()
            connection = self._connection()
        return connection

    def _renew(self) -> None:
        """Rebuild it, unless another process has already done so, or a newer version made it."""
        try:
            with OsLock(self._folder / ".catalog.lock"):
                found = self._state()
                if found is not None and found > VERSION:
                    hint = "use that version here; queries and audits work without the catalog"
                    raise StorageError("was made by a newer version of calyx-logging", path=self.path, hint=hint)
                if found != VERSION or (self._bad is not None and self._bad == _identity(self.path)):
                    self._create()
        except OSError as error:
            raise StorageError.of(
                error, "make the catalog", error.filename or self.path, "check rights and disk"
            ) from error
        self._keep(None, in_memory=False)

    def _state(self) -> int | None:
        """Return the version of a sound file; None where there is none."""
        try:
            connection = self._open()
        except _ERRORS:
            return None
        if connection is None:
            return None
        try:
            is_sound = connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
            return _version(connection) if is_sound else None
        except _ERRORS as error:
            if _code(error) not in _DAMAGED:
                raise
            return None
        finally:
            connection.close()

    def _create(self) -> None:
        """Replace the file by a new catalog."""
        draft = self.path.with_name(f"{self.path.name}.new")
        for path in (draft, self.path):
            for suffix in ("-wal", "-shm", "-journal", ""):  # what is left of a damaged one would be read with the new
                with suppress(FileNotFoundError):
                    files.remove(path.with_name(path.name + suffix))
        connection = _connect(draft)
        try:
            connection.executescript(f"PRAGMA journal_mode = WAL; BEGIN; {SCHEMA}")
            take_over(connection, self._folder, self.index)
            connection.execute("COMMIT")
        finally:
            connection.close()
        files.rename_over(draft, self.path)

    def _open(self) -> sqlite3.Connection | None:
        """Open the file, for writing if possible; None if it does not exist."""
        if self.path.is_symlink() or not self.path.is_file():
            return None
        try:
            connection = _connect(self.path)
            try:
                # after a loss of power it may be older, but not damaged
                connection.execute("PRAGMA synchronous = NORMAL")
                _version(connection)
            except _ERRORS:
                connection.close()
                raise
            return connection
        except sqlite3.OperationalError:  # on a read-only medium: nobody changes it
            for mode in ("mode=ro", "mode=ro&immutable=1"):
                connection = _connect(f"{self.path.as_uri()}?{mode}", uri=True)
                with suppress(sqlite3.OperationalError):
                    _version(connection)
                    return connection
                connection.close()
            raise

    def _memory(self) -> sqlite3.Connection:
        """Make one in memory, from the import index."""
        connection = _connect(":memory:")
        connection.executescript(SCHEMA)
        take_over(connection, self._folder, self.index)
        return connection

    def _keep(self, connection: sqlite3.Connection | None, *, in_memory: bool) -> None:
        if self._opened is not None:
            self._opened.close()
        self._opened, self._in_memory, self._of = connection, in_memory, _identity(self.path)
        self.generation += 1
        if connection is not None:
            weakref.finalize(self, connection.close)

    def _error(self, error: Exception, what: str) -> StorageError:
        hint = "free some space" if _code(error) == sqlite3.SQLITE_FULL else "check the rights and the disk"
        if _code(error) in _DAMAGED:
            hint = "it has been rebuilt: run the command again"
        return StorageError(f"cannot {what} the catalog: {error}", path=self.path, hint=hint)


def _connect(place: Path | str, *, uri: bool = False) -> sqlite3.Connection:
    """Open a database in which only `BEGIN` begins a transaction."""
    return sqlite3.connect(place, timeout=_WAIT, isolation_level=None, check_same_thread=False, uri=uri)


def _code(error: Exception) -> int:
    """Return SQLite's code of an error, without its details; SQLITE_ERROR where Python found it."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def _version(connection: sqlite3.Connection) -> int | None:
    """Return the version of a catalog; None if it is another program's file."""
    is_ours = connection.execute("PRAGMA application_id").fetchone() == (OURS,)
    return int(connection.execute("PRAGMA user_version").fetchone()[0]) if is_ours else None


def _identity(path: Path) -> tuple[int, int] | None:
    """Return values that tell one file from another in its place."""
    try:
        state = path.lstat()
    except OSError:
        return None
    return state.st_ino, state.st_dev


def _state_of(index: Path) -> str:
    try:
        return mark_of(index)
    except OSError:
        return ""


def mark_of(path: Path) -> str:
    """Return a text that changes when a file is replaced or written to.

    Raises:
        OSError: there is no such file.
    """
    state = path.lstat()
    return f"{state.st_mtime_ns} {state.st_size} {state.st_ino}"
