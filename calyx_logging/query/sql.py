"""Run SQL on an engine: its rows in batches, and its errors in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from calyx_logging.errors import CalyxError, ConfigError, StorageError
from calyx_logging.query.rows import schema
from calyx_logging.query.views import VIEWS

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Rows", "clear_errors", "first_lines", "run_sql", "unless_interrupted"]

_BATCH = 20_000


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn the engine's errors into a one-line error of this package.

    Raises:
        ConfigError: the query is wrong.
        StorageError: a file cannot be read.
    """
    try:
        yield
    except Exception as error:  # duckdb's and ibis's errors have no base in common
        if isinstance(error, (MemoryError, CalyxError)):
            raise
        unless_interrupted(error)
        if ".parquet" in str(error) and type(error).__name__ not in ("BinderException", "PermissionException"):
            hint = "at a hub, calyx-telemetry table --check makes damaged files again"
            raise StorageError(f"the table cannot be read: {first_lines(error)}", hint=hint) from error
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
