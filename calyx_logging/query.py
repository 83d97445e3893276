"""Questions to events, wherever they are: an embedded DuckDB with one view over all chunks, through Ibis.

    from calyx_logging.query import connect
    db = connect(chunks)           # an Ibis backend
    db.table("events").filter(...).to_pandas()

The chunks are written once as Parquet into a temporary folder, which goes with the connection; memory is bounded by
DuckDB's own limit and one batch of rows. Needs the extra `query`.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calyx_logging import durable
from calyx_logging.errors import ConfigError, StorageError
from calyx_logging.reader import ChunkRef
from calyx_logging.table import COLUMNS, batches_of, schema, write_parquet

if TYPE_CHECKING:
    import ibis
    import pyarrow

__all__ = ["QUERIES", "Rows", "connect", "named", "run_named", "run_sql"]

_BATCH = 20_000
_NOT_SHOWN = ("bad_line", "identity", "control")
_VIEWS = {
    # the same event twice, in two chunks or in one, is one event: identity is what it says apart from its seq
    "once": "SELECT * FROM lines WHERE bad_line IS NULL "
    "QUALIFY row_number() OVER (PARTITION BY node_id, identity ORDER BY chunk, line) = 1",
    "events": f"SELECT {', '.join(name for name in COLUMNS if name not in _NOT_SHOWN)} FROM once "
    "WHERE control IS NULL OR source <> 'calyx_logging'",
    "chunks": "SELECT node_id, chunk, any_value(bundle) AS bundle, any_value(writer) AS writer, count(*) AS lines, "
    "count(bad_line) AS bad_lines, min(ts) AS first_ts, max(ts) AS last_ts FROM lines GROUP BY node_id, chunk",
    "bundles": "SELECT node_id, bundle, count(DISTINCT chunk) AS chunks, count(*) AS lines, min(ts) AS first_ts, "
    "max(ts) AS last_ts FROM lines WHERE bundle IS NOT NULL GROUP BY node_id, bundle",
    "nodes": "SELECT node_id, count(*) AS events, count(DISTINCT writer) AS writers, min(ts) AS first_ts, "
    "max(ts) AS last_ts FROM events GROUP BY node_id",
    "gaps": "SELECT node_id, writer, ts, CAST(rest ->> '$.count' AS BIGINT) AS count, rest ->> '$.cause' AS cause, "
    "rest -> '$.seqs' AS seqs, chunk FROM once WHERE control = 'gap' AND source = 'calyx_logging'",
}


def connect(chunks: Iterable[ChunkRef]) -> Any:
    """An Ibis backend (DuckDB) with the views `events`, `chunks`, `bundles`, `nodes`, `gaps`, and `lines`.

    `lines` has also control lines, lines that are no events, and events that are there twice.

    Args:
        chunks: what is asked.

    Raises:
        ConfigError: the extra `query` is not installed.
        ChunkError, StorageError: a chunk cannot be read, or the temporary folder cannot be written.
    """
    schema()  # says which extra it needs
    try:
        import duckdb  # noqa: F401  # ibis would say so later, and not as clearly
        import ibis
    except ImportError as error:
        raise ConfigError(f"queries need ibis and duckdb, which are not installed ({error})", hint=_HINT) from None
    folder = Path(tempfile.mkdtemp(prefix="calyx-query-"))
    try:
        _write(list(chunks), folder)
        backend = ibis.duckdb.connect()
        files = str(folder / "*.parquet").replace("'", "''")
        backend.raw_sql(f"CREATE VIEW lines AS SELECT * FROM read_parquet('{files}')")
        for name, sql in _VIEWS.items():
            backend.raw_sql(f"CREATE VIEW {name} AS {sql}")
    except BaseException:
        _remove(folder)
        raise
    weakref.finalize(backend, _remove, folder)
    return backend


def _remove(folder: Path) -> None:
    with suppress(OSError):
        durable.remove_tree(folder)


_HINT = 'pip install "calyx-logging[query]"'


def _write(chunks: list[ChunkRef], folder: Path) -> None:
    """One Parquet file a chunk, and an empty one, so that there is always a table."""
    write_parquet(folder / "none.parquet", iter(()))

    def one(numbered: tuple[int, ChunkRef]) -> None:
        number, ref = numbered
        try:
            write_parquet(folder / f"{number}.parquet", batches_of(ref.path, ref.node_id, bundle=ref.bundle))
        except StorageError as error:
            if not isinstance(error.__cause__, FileNotFoundError):  # it has just been sealed, or pruned
                raise

    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(one, enumerate(chunks)))
    except OSError as error:
        raise StorageError.of(error, "make the table", folder, "free some space in the temporary folder") from error


# ------------------------------------------------------------------ SQL


@contextmanager
def _said() -> Iterator[None]:
    """What the engine refuses, as an error of ours in one line."""
    try:
        yield
    except Exception as error:  # duckdb's and ibis's errors have no base in common
        if isinstance(error, (KeyboardInterrupt, MemoryError)):
            raise
        first = " ".join(str(error).split("\n\n")[0].split())
        views = ", ".join(name for name in (*_VIEWS, "lines") if name != "once")
        raise ConfigError(f"the query is refused: {first[:500]}", hint=f"the views are {views}") from None


class Rows:
    """The rows of a query, in batches, read as they are asked for.

    Attributes:
        schema: the Arrow schema.
    """

    def __init__(self, reader: pyarrow.RecordBatchReader) -> None:
        self._reader = reader
        self.schema = reader.schema

    def __iter__(self) -> Iterator[pyarrow.RecordBatch]:
        """Batches.

        Raises:
            ConfigError: the engine cannot go on (a value that cannot be cast, say).
        """
        while True:
            with _said():
                try:
                    batch = self._reader.read_next_batch()
                except StopIteration:
                    batch = None
            if batch is None:
                return
            yield batch

    def to_pylist(self) -> list[dict[str, Any]]:
        """All of them, as dicts; what the engine sums up in more than 64 bits is an int as well."""
        return [{name: _number(value) for name, value in row.items()} for batch in self for row in batch.to_pylist()]


def _number(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value


def run_sql(backend: Any, sql: str) -> Rows:
    """The rows of a SELECT.

    Args:
        backend: of `connect`.
        sql: one query, in DuckDB's SQL.

    Raises:
        ConfigError: DuckDB refuses it; the message says why.
    """
    with _said():
        statements = backend.con.extract_statements(sql)
        if len(statements) != 1 or not str(statements[0].type).endswith(("SELECT", "EXPLAIN")):
            raise ValueError("it has to be one SELECT")
        return Rows(backend.con.sql(sql).to_arrow_reader(_BATCH))


# ------------------------------------------------------------------ named queries


def _events_by_hour(events: ibis.Table) -> ibis.Table:
    """Events, and errors among them, of each node and hour (UTC)."""
    hour = events.ts.truncate("h").name("hour")
    is_error = events.level.isin(["error", "critical"])
    return (
        events.group_by([events.node_id, hour])
        .aggregate(events=events.count(), errors=is_error.sum().cast("int64"))
        .order_by(["node_id", "hour"])
    )


def _field(events: ibis.Table, *path: str | int) -> Any:
    """A field that has no column of its own, as text."""
    value = events.rest.cast("json")
    for step in path:
        value = value[step]
    return value.unwrap_as("string")


def _runs(events: ibis.Table) -> ibis.Table:
    """Each run: its cases, how many completed, how it ended, how long it took."""
    import ibis

    events = events.filter(events.run_id.notnull())
    ended = events.stage == "case_ended"
    completed = ended & (_field(events, "outcome") == "completed")
    found = events.group_by(["node_id", "suite", "run_id", "run_instance_id"]).aggregate(
        started=events.ts.min(),
        ended=events.ts.max(),
        events=events.count(),
        errors=events.level.isin(["error", "critical"]).sum().cast("int64"),
        cases=ended.sum().cast("int64"),
        completed=completed.sum().cast("int64"),
        exit_status=_field(events, "exit_status").max(where=events.stage == "run_ended"),
    )
    return found.mutate(
        pass_rate=ibis.ifelse(found.cases > 0, found.completed / found.cases, ibis.null()),
        duration_s=(found.ended.cast("timestamp").delta(found.started.cast("timestamp"), unit="microsecond")) / 1e6,
    ).order_by(["started", "run_id", "run_instance_id"])


def _last_errors(events: ibis.Table) -> ibis.Table:
    """The last error of each node."""
    import ibis

    errors = events.filter(events.level.isin(["error", "critical"]))
    rank = ibis.row_number().over(group_by=errors.node_id, order_by=[errors.ts.desc(), errors.event_id])
    last = errors.mutate(rank=rank).filter(lambda one: one.rank == 0)
    names = ("node_id", "ts", "event_id", "logger", "message", "suite", "run_id", "case_id")
    return last.select(*names, exception=_field(last, "exception", 0, "value")).order_by("node_id")


QUERIES: dict[str, Callable[[Any], Any]] = {
    "events-by-hour": _events_by_hour,
    "runs": _runs,
    "last-errors": _last_errors,
}
"""Named queries: from the table `events` of an Ibis backend to an Ibis expression."""


def named(backend: Any, name: str) -> Any:
    """The expression of a named query on a backend; `.to_pandas()`, `.to_pyarrow()` and so on run it.

    Raises:
        ConfigError: there is none of that name.
    """
    if name == "gaps":
        return backend.table("gaps").order_by(["node_id", "ts"])
    if name not in QUERIES:
        raise ConfigError(f"there is no query {name!r}", hint=f"there are {', '.join([*QUERIES, 'gaps'])}")
    return QUERIES[name](backend.table("events"))


def run_named(backend: Any, name: str) -> Rows:
    """The rows of a named query.

    Raises:
        ConfigError: there is none of that name.
    """
    return run_sql(backend, backend.compile(named(backend, name)))
