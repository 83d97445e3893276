"""An embedded database (DuckDB, through Ibis) over Parquet files of events, and its views.

Memory is bounded by the database's own limit and, while files are made, by one batch of rows for each process. Needs
the extra `query`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calyx_logging.core.temporary import TemporaryFolder
from calyx_logging.errors import ConfigError, StorageError
from calyx_logging.format.reader import ChunkRef
from calyx_logging.query._chunk_tables import in_files
from calyx_logging.query.executors import Engine
from calyx_logging.query.rows import COLUMNS, schema
from calyx_logging.query.views import PLACE, VIEWS, Dialect, views

if TYPE_CHECKING:
    import pyarrow

__all__ = [
    "MEMORY",
    "Database",
    "Rows",
    "attach",
    "clear_errors",
    "connect_chunks",
    "has_repeats",
    "run_sql",
    "temporary",
]

_BATCH = 20_000
_ALL = ", ".join(COLUMNS)
MEMORY = "4GB"
"""Default memory limit of the database."""

_SMALL = "512MB"
"""The limit for work beside an import; what needs more goes to the temporary folder."""


_REPEATS = f"""
CREATE TEMP TABLE repeats AS
WITH several AS MATERIALIZED (
    SELECT node_id, identity FROM loose WHERE bad_line IS NULL GROUP BY ALL HAVING count(*) > 1
), placed AS (
    SELECT file, row, {PLACE} AS place FROM loose SEMI JOIN several USING (node_id, identity) WHERE bad_line IS NULL
)
SELECT file, row FROM placed WHERE place > 1
"""
"""Rows that repeat an earlier one; found once, so that a query need not sort rows it does not ask for."""


_DIALECT = Dialect(
    "SELECT * FROM loose ANTI JOIN repeats USING (file, row) WHERE bad_line IS NULL",
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

    Raises:
        ConfigError: the extra `query` is not installed.
        ChunkError, StorageError: a chunk cannot be read, or the temporary folder cannot be written.
    """
    with temporary() as folder:
        files = in_files(chunks, folder.path, engine, warn)
        return attach(folder, files, memory=memory, closed=closed, plain=plain)


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
    compacted: Sequence[Path] = (),
    unique: Sequence[Path] = (),
    *,
    memory: str = MEMORY,
    closed: bool = False,
    plain: bool = False,
) -> Any:
    """Return the backend over Parquet files.

    Args:
        folder: a temporary one, deleted when the backend is closed.
        loose: in which an event may be there several times.
        compacted: in which `repeated` says so, of all the files that hold events of their nodes.
        unique: in which no event of their nodes is twice.
        memory: as for `connect_chunks`.
        closed: likewise.
        plain: likewise.

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
        once = f"{_rows_of(compacted, _ALL + ', repeated')} UNION ALL {_rows_of(unique, _ALL + ', false AS repeated')}"
        con.execute(f"CREATE VIEW compacted AS {once}")
        con.execute(_REPEATS)
        for name, sql in views(_DIALECT).items():
            con.execute(f"CREATE VIEW {name} AS {sql}")
    except Exception as error:
        unless_interrupted(error)
        hint = "at a hub, calyx-telemetry table --check makes damaged files again"
        if type(error).__name__ == "OutOfMemoryException":
            hint = f"--memory gives it more than {memory}"
        raise StorageError(f"the table cannot be read: {first_lines(error)}", hint=hint) from error
    if closed:
        folders = sorted({str(folder.path), *(str(path.parent) for path in (*loose, *compacted, *unique))})
        # a pattern is looked at as it is written first, then the file that it stands for
        folders += [as_pattern for text in folders if (as_pattern := _pattern(text)) != text]
        texts = ", ".join("'" + text.replace("'", "''") + "'" for text in folders)
        con.execute(f"SET allowed_directories = [{texts}]")
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
    return backend


def has_repeats(parquet: Sequence[Path]) -> bool:
    """Tell whether an event of one node may be in its files twice, by hashes of 64 bits.

    Raises:
        ConfigError: DuckDB is not installed.
        StorageError: the files cannot be read.
    """
    with temporary() as folder:
        backend = _started(folder, _SMALL, plain=True)
        rows = _rows_of(parquet, "hash(identity) AS hash, bad_line")
        twice = f"SELECT 1 FROM ({rows}) WHERE bad_line IS NULL GROUP BY hash HAVING count(*) > 1 LIMIT 1"
        try:
            return backend.con.execute(twice).fetchone() is not None
        except Exception as error:
            unless_interrupted(error)
            raise StorageError(f"the table cannot be read: {first_lines(error)}") from error
        finally:
            backend.disconnect()
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
    others = "false AS repeated, '' AS filename, CAST(0 AS BIGINT) AS file_row_number"
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


# ------------------------------------------------------------------ SQL


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn the engine's errors into a one-line error of this package."""
    try:
        yield
    except Exception as error:  # duckdb's and ibis's errors have no base in common
        if isinstance(error, (MemoryError, ConfigError)):
            raise
        unless_interrupted(error)
        hint = f"the views are {', '.join(VIEWS)}"
        if type(error).__name__ == "OutOfMemoryException":
            hint = "--memory gives it more"
        raise ConfigError(f"the query is refused: {first_lines(error)}", hint=hint) from None


def unless_interrupted(error: Exception) -> None:
    """Raise KeyboardInterrupt if Ctrl-C caused the error."""
    if type(error).__name__ == "InterruptException" or "interrupted" in str(error)[:100].lower():
        raise KeyboardInterrupt from None


def first_lines(error: Exception) -> str:
    """Return an engine's message without the query excerpt and the suggestions that follow it."""
    text = " ".join(str(error).split("\n\n")[0].partition("\nLINE ")[0].split())
    return text if len(text) <= 300 else f"{text[:300].rpartition(' ')[0]} …"


class Rows:
    """The rows of a query, in batches, read as they are asked for.

    Attributes:
        schema: the Arrow schema; of columns of one name the second is called `name_2`, and so on.
    """

    def __init__(self, reader: pyarrow.RecordBatchReader) -> None:
        self._reader = reader
        self._ahead: pyarrow.RecordBatch | None = None
        names: list[str] = []
        for name in reader.schema.names:
            several = (f"{name}_{number}" for number in range(2, len(reader.schema.names) + 2))
            names.append(name if name not in names else next(one for one in several if one not in names))
        self.schema = _schema([field.with_name(name) for field, name in zip(reader.schema, names, strict=True)])

    def any(self) -> bool:
        """Tell whether there is at least one row, without consuming it."""
        self._ahead = self._ahead or next((batch for batch in self if batch.num_rows), None)
        return self._ahead is not None

    def __iter__(self) -> Iterator[pyarrow.RecordBatch]:
        """Batches.

        Raises:
            ConfigError: the engine cannot go on (a value that cannot be cast, say).
        """
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            yield ahead
        while True:
            with clear_errors():
                try:
                    batch = self._reader.read_next_batch()
                except StopIteration:
                    batch = None
            if batch is None:
                return
            yield type(batch).from_arrays(batch.columns, schema=self.schema)

    def values(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows as tuples; values without a Python type as text, sums of more than 64 bits as int.

        Raises:
            ConfigError: as above.
        """
        for batch in self:
            yield from zip(*map(_values_of, batch.columns), strict=True)

    def to_pylist(self) -> list[dict[str, Any]]:
        """Return all rows as dicts."""
        return [dict(zip(self.schema.names, row, strict=True)) for row in self.values()]


def _values_of(column: pyarrow.Array) -> list[Any]:
    try:
        return list(map(_number, column.to_pylist()))
    except (OverflowError, ValueError):  # a time that never ends, or a year that Python does not know
        with suppress(Exception):
            return list(column.cast("string").to_pylist())
        return [str(value) for value in column]


def _schema(fields: list[Any]) -> pyarrow.Schema:
    import pyarrow

    return pyarrow.schema(fields)


def _number(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value


def _plain_times(table: pyarrow.Table) -> pyarrow.Table:
    """Timestamps in UTC without a zone, which some of Spark's functions add."""
    fields = [
        field.with_type(schema().field("ts").type) if str(field.type).startswith("timestamp") else field
        for field in table.schema
    ]
    return table.cast(_schema(fields))


def run_sql(backend: Any, sql: str) -> Rows:
    """Run a SELECT and return its rows.

    Args:
        backend: of `connect_chunks`, of a hub, or of Spark.
        sql: one query, in DuckDB's SQL.

    Raises:
        ConfigError: DuckDB refuses it; the message says why.
    """
    with clear_errors():
        if backend.name == "pyspark":
            return Rows(_plain_times(backend.raw_sql(sql).toArrow()).to_reader(_BATCH))
        statements = backend.con.extract_statements(sql)
        if len(statements) != 1 or not str(statements[0].type).endswith(".SELECT"):
            raise ValueError("it has to be one SELECT")
        found = backend.con.sql(sql)
        return Rows(
            found.to_arrow_reader(_BATCH) if hasattr(found, "to_arrow_reader") else found.fetch_record_batch(_BATCH)
        )
