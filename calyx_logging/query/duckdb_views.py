"""An embedded database (DuckDB, through Ibis) over Parquet files of events, and its views.

Memory is bounded by the database's own limit and, while files are made, by one batch of rows for each process. Needs
the extra `query`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calyx_logging.core.temporary import TemporaryFolder
from calyx_logging.errors import ConfigError, StorageError
from calyx_logging.format.reader import ChunkRef
from calyx_logging.query._chunk_tables import in_files
from calyx_logging.query.executors import Engine
from calyx_logging.query.rows import COLUMNS, schema
from calyx_logging.query.sql import first_lines, unless_interrupted
from calyx_logging.query.views import PLACE, WHERE, Dialect, views

if TYPE_CHECKING:
    pass

__all__ = [
    "MEMORY",
    "Database",
    "attach",
    "check_memory",
    "connect_chunks",
    "find_repeats",
    "temporary",
]

_ALL = ", ".join(COLUMNS)
MEMORY = "4GB"
"""Default memory limit of the database."""

_SMALL = "512MB"
"""The limit for work beside an import; what needs more goes to the temporary folder."""


_REPEATS = f"""
CREATE TEMP TABLE repeats_of_loose AS
WITH several AS MATERIALIZED (
    SELECT node_id, identity FROM loose WHERE bad_line IS NULL GROUP BY ALL HAVING count(*) > 1
), placed AS (
    SELECT file, row, {PLACE} AS place FROM loose SEMI JOIN several USING (node_id, identity) WHERE bad_line IS NULL
)
SELECT file, row FROM placed WHERE place > 1
"""
"""Rows that repeat an earlier one; found once, so that a query need not sort rows it does not ask for."""


_KNOWN = "SELECT * FROM known WHERE bad_line IS NULL"
_DIALECT = Dialect(
    "SELECT * FROM loose ANTI JOIN repeats_of_loose USING (file, row) WHERE bad_line IS NULL",
    _KNOWN,
    "json_extract_string",
    document="CAST(rest AS JSON)",
    micros="epoch_us({})",
    last="arg_max_null",
)


def connect_chunks(
    chunks: Iterable[ChunkRef],
    engine: Engine | None = None,
    *,
    memory: str = MEMORY,
    closed: bool = False,
    warn: Callable[[str], None] | None = None,
    plain: bool = False,
    keep: bool = False,
    tables: Collection[str] = (),
) -> Any:
    """Return an Ibis backend (DuckDB) with the views of `views`.

    `lines` has also control lines, lines that are no events, and events that are there twice.

    Args:
        chunks: what is asked.
        engine: makes the table of them; None for this process.
        memory: that the database takes at most, in its words; what needs more goes to the temporary folder.
        closed: whether queries may read no file but these, and write none.
        warn: is told of chunks that cannot be read, and left out; None raises.
        plain: whether it is to be a `Database`.
        keep: whether the table of sealed chunks is kept beside them, for the next query.
        tables: views to compute once, because many questions use them.

    Raises:
        ConfigError: the extra `query` is not installed.
        ChunkError, StorageError: a chunk cannot be read, or the temporary folder cannot be written.
    """
    with temporary() as folder:
        files = in_files(chunks, folder.path, engine, warn, keep=keep)
        return attach(folder, files, memory=memory, closed=closed, plain=plain, tables=tables)


class Database:
    """A stand-in for an Ibis backend (DuckDB) that suffices for `run_sql`; Ibis itself takes long to load.

    Attributes:
        con: the DuckDB connection.
    """

    name = "duckdb"

    def __init__(self, con: Any) -> None:
        self.con = con

    def disconnect(self) -> None:
        """Close it."""
        self.con.close()


def attach(
    folder: TemporaryFolder,
    loose: Sequence[Path],
    known: Sequence[Path] = (),
    repeats: Sequence[Path] = (),
    *,
    memory: str = MEMORY,
    closed: bool = False,
    plain: bool = False,
    tables: Collection[str] = (),
) -> Any:
    """Return the backend over Parquet files.

    Args:
        folder: a temporary one, deleted when the backend is closed.
        loose: in which an event may be there several times.
        known: files of nodes whose repeated rows are known; each node's files are all here, or all in `loose`.
        repeats: the files that list these rows.
        memory: as for `connect_chunks`.
        closed: likewise.
        plain: likewise.
        tables: likewise.

    Raises:
        ConfigError: the extra `query` is not installed, or it is no amount of memory.
        StorageError: the files cannot be read.
    """
    schema()  # says which extra it needs
    backend = _started(folder, memory, plain)
    weakref.finalize(backend, folder.remove)
    con = backend.con
    try:
        con.execute(f"CREATE VIEW loose AS {_rows_of(loose, _ALL + ', filename AS file, file_row_number AS row')}")
        con.execute(f"CREATE VIEW known AS {_rows_of(known, _ALL)}")
        con.execute(_REPEATS)
        dialect = _DIALECT
        if not con.execute("SELECT 1 FROM repeats_of_loose LIMIT 1").fetchone():  # to tell rows apart costs as much
            dialect = replace(dialect, single="SELECT * FROM loose WHERE bad_line IS NULL")
        if repeats:
            given = ", ".join(map(_literal, repeats))
            con.execute(f"CREATE TEMP TABLE repeats AS FROM read_parquet([{given}], hive_partitioning = false)")
            anti = f"SELECT * FROM known ANTI JOIN repeats USING ({', '.join(WHERE)}) WHERE bad_line IS NULL"
            dialect = replace(dialect, known=anti)
        for name, sql in views(dialect).items():
            con.execute(f"CREATE {'TEMP TABLE' if name in tables else 'VIEW'} {name} AS {sql}")
    except Exception as error:
        unless_interrupted(error)
        hint = "at a hub, calyx-telemetry table --check makes damaged files again"
        if type(error).__name__ == "OutOfMemoryException":
            hint = f"--memory gives it more than {memory}"
        raise StorageError(f"the table cannot be read: {first_lines(error)}", hint=hint) from error
    if closed:
        folders = sorted({str(folder.path), *(str(path.parent) for path in (*loose, *known))})
        # a pattern is looked at as it is written first, then the file that it stands for
        folders += [as_pattern for text in folders if (as_pattern := _pattern(text)) != text]
        texts = ", ".join("'" + text.replace("'", "''") + "'" for text in folders)
        con.execute(f"SET allowed_directories = [{texts}]")
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
    return backend


def find_repeats(parquet: Sequence[Path], target: Path) -> bool:
    """Write the places (node id, bundle, chunk, line) of the rows of one node that repeat an event, if there are any.

    Returns:
        Whether the file was written.

    Raises:
        ConfigError: DuckDB is not installed.
        StorageError: the files cannot be read or written.
    """
    with temporary() as folder:
        backend = _started(folder, _SMALL, plain=True)
        rows = f"({_rows_of(parquet, _ALL + ', hash(identity) AS hash')})"
        several = f"SELECT hash FROM {rows} WHERE bad_line IS NULL GROUP BY hash HAVING count(*) > 1"
        placed = f"SELECT *, {PLACE} AS place FROM {rows} SEMI JOIN several USING (hash) WHERE bad_line IS NULL"
        to = str(target).replace("'", "''")
        try:
            backend.con.execute(f"CREATE TEMP TABLE several AS {several}")
            if not backend.con.execute("SELECT 1 FROM several LIMIT 1").fetchone():
                return False
            found = f"SELECT {', '.join(WHERE)} FROM ({placed}) WHERE place > 1 ORDER BY ALL"
            return bool(backend.con.execute(f"COPY ({found}) TO '{to}' (FORMAT parquet)").fetchall()[0][0])
        except Exception as error:
            unless_interrupted(error)
            raise StorageError(f"the table cannot be read: {first_lines(error)}") from error
        finally:
            backend.disconnect()
            folder.remove()


def check_memory(memory: str) -> None:
    """Check an amount of memory, as the database says it.

    Raises:
        ConfigError: it is none, or too little to begin with, or the extra `query` is not installed.
    """
    with temporary() as folder:
        _started(folder, memory, plain=True).disconnect()
        folder.remove()


def _started(folder: TemporaryFolder, memory: str, plain: bool) -> Any:
    """Start the database; the network is nobody's unless it is asked for."""
    try:
        import duckdb

        if not plain:
            import ibis
    except ImportError as error:
        raise ConfigError(f"queries need ibis and duckdb, which are not installed ({error})", hint=_HINT) from None
    try:
        con = duckdb.connect(config={"temp_directory": str(folder.path / "spill"), "memory_limit": memory})
    except Exception as error:
        hint = "an amount is a number with a unit, such as 4GB"
        raise ConfigError(
            f"the database does not start with --memory {memory}: {first_lines(error)}", hint=hint
        ) from None
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET autoinstall_known_extensions = false")
    con.execute("SET autoload_known_extensions = false")
    return Database(con) if plain else ibis.duckdb.from_connection(con)


def _rows_of(parquet: Iterable[Path], columns: str) -> str:
    """Return a SELECT of the columns from Parquet files, or one without rows if there are no files."""
    if texts := [_literal(path) for path in parquet]:
        options = "hive_partitioning = false, filename = true, file_row_number = true"
        return f"SELECT {columns} FROM read_parquet([{', '.join(texts)}], {options})"
    types = {
        "timestamp[us]": "TIMESTAMP",
        "int64": "BIGINT",
        "string": "VARCHAR",
        "double": "DOUBLE",
        "bool": "BOOLEAN",
    }
    nothing = [f"CAST(NULL AS {types[str(field.type)]}) AS {field.name}" for field in schema()]
    others = "'' AS filename, CAST(0 AS BIGINT) AS file_row_number"
    return f"SELECT {columns} FROM (SELECT {', '.join(nothing)}, {others}) WHERE false"


def _literal(path: Path) -> str:
    """Quote a path for SQL, where some characters are patterns."""
    return "'" + _pattern(str(path)).replace("'", "''") + "'"


def _pattern(text: str) -> str:
    """Return the pattern that matches this path alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)


@contextmanager
def temporary() -> Iterator[TemporaryFolder]:
    """Create a temporary folder; remove it only after an error."""
    folder = TemporaryFolder("calyx-query-")
    try:
        yield folder
    except BaseException:
        folder.remove()
        raise


_HINT = 'pip install "calyx-logging[query]"'
