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

if TYPE_CHECKING:
    import pyarrow

__all__ = [
    "MEMORY",
    "PLACE",
    "TEXT_OF",
    "Rows",
    "attach",
    "clear_errors",
    "connect_chunks",
    "run_sql",
    "temporary",
    "views",
]

_BATCH = 20_000
TEXT_OF = {"duckdb": "json_extract_string", "pyspark": "get_json_object"}
_NOT_SHOWN = ("bad_line", "identity", "control")
_SHOWN = ", ".join(name for name in COLUMNS if name not in _NOT_SHOWN)
_ALL = ", ".join(COLUMNS)
MEMORY = "4GB"
"""Default memory limit of the database."""


PLACE = "row_number() OVER (PARTITION BY node_id, identity ORDER BY chunk, line, bundle)"
"""Numbers the copies of an event; lines with one `identity` (content apart from `seq`) are one event."""

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


def views(text_of: str, single: str) -> dict[str, str]:
    """Return the SQL of the views, in the order of their creation; plain enough for every engine.

    They are over `loose` and `compacted`, which have the columns of `table`, and `compacted` has `repeated` as well.

    Args:
        text_of: the engine's function of a JSON text and a path, which gives the text that is there.
        single: a SELECT of the rows of `loose` that are events, each event once.
    """
    return {
        "lines": f"SELECT {_ALL} FROM loose UNION ALL SELECT {_ALL} FROM compacted",
        "once": f"SELECT {_ALL} FROM ({single}) AS single "
        f"UNION ALL SELECT {_ALL} FROM compacted WHERE bad_line IS NULL AND NOT repeated",
        "events": f"SELECT {_SHOWN} FROM once WHERE control IS NULL OR source <> 'calyx_logging'",
        "chunks": "SELECT node_id, chunk, min(bundle) AS bundle, min(writer) AS writer, count(*) AS lines, "
        "count(bad_line) AS bad_lines, min(ts) AS first_ts, max(ts) AS last_ts FROM lines GROUP BY node_id, chunk",
        "bundles": "SELECT node_id, bundle, count(DISTINCT chunk) AS chunks, count(*) AS lines, min(ts) AS first_ts, "
        "max(ts) AS last_ts FROM lines WHERE bundle IS NOT NULL GROUP BY node_id, bundle",
        "nodes": "SELECT node_id, count(*) AS events, count(DISTINCT writer) AS writers, min(ts) AS first_ts, "
        "max(ts) AS last_ts FROM events GROUP BY node_id",
        "gaps": f"SELECT node_id, writer, ts, TRY_CAST({text_of}(rest, '$.count') AS BIGINT) AS count, "
        f"{text_of}(rest, '$.cause') AS cause, {text_of}(rest, '$.seqs') AS seqs, chunk FROM once "
        "WHERE control = 'gap' AND source = 'calyx_logging'",
        "starts": f"SELECT DISTINCT node_id, writer, {text_of}(rest, '$.process') AS process FROM once "
        "WHERE control = 'start' AND source = 'calyx_logging'",
        "processes": _processes(text_of),
        "recoveries": f"SELECT node_id, writer, ts, TRY_CAST({text_of}(rest, '$.torn_bytes') AS BIGINT) AS torn_bytes, "
        f"TRY_CAST({text_of}(rest, '$.bad_lines') AS BIGINT) AS bad_lines, chunk FROM once "
        f"WHERE control = 'end' AND source = 'calyx_logging' AND {text_of}(rest, '$.reason') = 'recovered'",
    }


_OF_START = ("host", "machine", "user", "program", "python", "platform", "cwd", "pid")
_OF_ENVIRONMENT = ("git_commit", "git_dirty", "packages_sha256", "cpu", "cpus", "memory_bytes")
_NUMBERS = frozenset({"pid", "cpus", "memory_bytes", "exit_code"})
_OF_END = ("reason", "exit_code", "signal", "exception_type")


def _processes(text_of: str) -> str:
    """Return the SQL of the view of processes: their start lines, what they ran on, and how they ended."""

    def taken(names: Iterable[str]) -> str:
        return ", ".join(f"max({field(name)}) AS {name}" for name in names)

    def field(name: str) -> str:
        text = f"{text_of}(rest, '$.{name}')"
        return f"TRY_CAST({text} AS BIGINT)" if name in _NUMBERS else text

    def control(kind: str) -> str:
        return f"control = '{kind}' AND source = 'calyx_logging'"

    names = ", ".join([*_OF_START, *_OF_ENVIRONMENT, *_OF_END])
    starts = f"SELECT node_id, writer AS process, min(ts) AS ts, {taken(_OF_START)} FROM once WHERE {control('start')} "
    starts += f"AND {text_of}(rest, '$.process') = writer GROUP BY node_id, writer"
    environments = f"SELECT once.node_id, starts.process, {taken(_OF_ENVIRONMENT)} FROM once JOIN starts ON "
    environments += "once.node_id = starts.node_id AND once.writer = starts.writer "
    environments += f"WHERE {control('environment')} GROUP BY once.node_id, starts.process"
    ends = f"SELECT node_id, writer AS process, max(ts) AS ended, {taken(_OF_END)} FROM once WHERE {control('end')} "
    ends += "GROUP BY node_id, writer"
    return (
        f"SELECT a.node_id, a.process, a.ts, z.ended, {names} FROM ({starts}) AS a "
        f"LEFT JOIN ({environments}) AS e ON a.node_id = e.node_id AND a.process = e.process "
        f"LEFT JOIN ({ends}) AS z ON a.node_id = z.node_id AND a.process = z.process"
    )


def connect_chunks(
    chunks: Iterable[ChunkRef],
    engine: Engine | None = None,
    *,
    memory: str = MEMORY,
    closed: bool = False,
    warn: Callable[[str], None] | None = None,
) -> Any:
    """Return an Ibis backend (DuckDB) with the views of `views`.

    `lines` has also control lines, lines that are no events, and events that are there twice.

    Args:
        chunks: what is asked.
        engine: makes the table of them; None for this process.
        memory: that the database takes at most, in its words; what needs more goes to the temporary folder.
        closed: whether queries may read no file but these, and write none.
        warn: is told of chunks that cannot be read, and left out; None raises.

    Raises:
        ConfigError: the extra `query` is not installed.
        ChunkError, StorageError: a chunk cannot be read, or the temporary folder cannot be written.
    """
    with temporary() as folder:
        return attach(folder, in_files(chunks, folder.path, engine, warn), memory=memory, closed=closed)


def attach(
    folder: TemporaryFolder,
    loose: Sequence[Path],
    compacted: Sequence[Path] = (),
    *,
    memory: str = MEMORY,
    closed: bool = False,
) -> Any:
    """Return the backend over Parquet files.

    Args:
        folder: a temporary one, deleted when the backend is closed.
        loose: in which an event may be there several times.
        compacted: in which `repeated` says so, of all the files that hold events of their nodes.
        memory: as for `connect_chunks`.
        closed: likewise.

    Raises:
        ConfigError: the extra `query` is not installed, or it is no amount of memory.
        StorageError: the files cannot be read.
    """
    schema()  # says which extra it needs
    try:
        import duckdb  # noqa: F401  # ibis would say so later, and not as clearly
        import ibis
    except ImportError as error:
        raise ConfigError(f"queries need ibis and duckdb, which are not installed ({error})", hint=_HINT) from None
    try:
        backend = ibis.duckdb.connect(temp_directory=str(folder.path / "spill"), memory_limit=memory)
    except Exception as error:
        hint = "an amount is a number with a unit, such as 4GB"
        raise ConfigError(
            f"the database does not start with --memory {memory}: {first_lines(error)}", hint=hint
        ) from None
    weakref.finalize(backend, folder.remove)
    # the network is nobody's unless it is asked for
    backend.raw_sql("SET autoinstall_known_extensions = false")
    backend.raw_sql("SET autoload_known_extensions = false")
    single = "SELECT * FROM loose ANTI JOIN repeats USING (file, row) WHERE bad_line IS NULL"
    try:
        backend.raw_sql(f"CREATE VIEW loose AS {_rows_of(loose, _ALL + ', filename AS file, file_row_number AS row')}")
        backend.raw_sql(f"CREATE VIEW compacted AS {_rows_of(compacted, _ALL + ', repeated')}")
        backend.raw_sql(_REPEATS)
        for name, sql in views(TEXT_OF["duckdb"], single).items():
            backend.raw_sql(f"CREATE VIEW {name} AS {sql}")
    except Exception as error:
        unless_interrupted(error)
        hint = "at a hub, calyx-telemetry table --check makes damaged files again"
        if type(error).__name__ == "OutOfMemoryException":
            hint = f"--memory gives it more than {memory}"
        raise StorageError(f"the table cannot be read: {first_lines(error)}", hint=hint) from error
    if closed:
        folders = sorted({str(folder.path), *(str(path.parent) for path in (*loose, *compacted))})
        # a pattern is looked at as it is written first, then the file that it stands for
        folders += [as_pattern for text in folders if (as_pattern := _pattern(text)) != text]
        texts = ", ".join("'" + text.replace("'", "''") + "'" for text in folders)
        backend.raw_sql(f"SET allowed_directories = [{texts}]")
        backend.raw_sql("SET enable_external_access = false")
        backend.raw_sql("SET lock_configuration = true")
    return backend


def _rows_of(parquet: Iterable[Path], columns: str) -> str:
    """Return a SELECT of the columns from Parquet files, or one without rows if there are no files."""
    if texts := [_literal(path) for path in parquet]:
        options = "hive_partitioning = false, filename = true, file_row_number = true"
        return f"SELECT {columns} FROM read_parquet([{', '.join(texts)}], {options})"
    types = {"timestamp[us]": "TIMESTAMP", "int64": "BIGINT", "string": "VARCHAR"}
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
        hint = "the views are events, lines, chunks, bundles, nodes, gaps, processes and recoveries"
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
        backend: of `connect_chunks`.
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
