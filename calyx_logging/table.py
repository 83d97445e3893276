"""A chunk's lines as rows: the columns of every table there is of events, and the one function that makes them.

Plain Python and Arrow, without an engine, so that whoever makes a table makes the same one. Rows come in batches, so
that memory does not grow with the chunk. Needs pyarrow (the extra `query`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from calyx_logging.chunk import ChunkName, open_chunk
from calyx_logging.errors import ConfigError
from calyx_logging.scan import numbered_lines, what_is_wrong

if TYPE_CHECKING:
    import pyarrow

__all__ = ["COLUMNS", "PROMOTED", "batches_of", "schema", "write_parquet"]

PROMOTED = ("run_id", "run_instance_id", "suite", "stage", "case_id", "decision_type", "score")
"""Fields of the caller's that have columns of their own, as text."""

COLUMNS = (
    "node_id",
    "ts",
    "event_id",
    "source",
    "seq",
    "level",
    "logger",
    "message",
    *PROMOTED,
    "control",
    "rest",
    "bad_line",
    "writer",
    "chunk",
    "line",
    "bundle",
    "identity",
)
_TEXTS = ("event_id", "source", "level", "logger", "message", "control")
_BATCH = 20_000
_MAX_SEQ = 2**63
_MAX_BAD = 10_000
"""Characters of a line that is no event."""


def schema() -> pyarrow.Schema:
    """The columns with their types.

    `ts` is a timestamp in microseconds, UTC without zone; `seq` and `line` are 64-bit integers; all others are text,
    `identity` included (a hash of the event apart from its `seq`).

    Raises:
        ConfigError: pyarrow is not installed.
    """
    pa = _pyarrow()
    types = {"ts": pa.timestamp("us"), "seq": pa.int64(), "line": pa.int64()}
    return pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])


def batches_of(path: Path, node_id: str | None = None, *, bundle: str | None = None) -> Iterator[pyarrow.RecordBatch]:
    """The rows of a chunk, open or sealed; one a line, but for empty ones and a torn one at the end of an open chunk.

    Args:
        path: of the chunk.
        node_id: whose events its lines have to be; None for any.
        bundle: the name of the bundle's folder it came in.

    Raises:
        ChunkError: it is no regular file.
        StorageError: it cannot be opened.
        ConfigError: pyarrow is not installed.
    """
    pa, columns = _pyarrow(), schema()
    name = ChunkName.parse(path.name)
    common = {"writer": None if name is None else name.writer, "chunk": path.name, "bundle": bundle}
    rows: list[dict[str, Any]] = []
    with open_chunk(path) as stream:
        for number, line in numbered_lines(stream):
            rows.append({**common, "line": number, **_row(line, node_id)})
            if len(rows) == _BATCH:
                yield pa.RecordBatch.from_pylist(rows, schema=columns)
                rows = []
    if rows and path.name.endswith(".open") and rows[-1].get("bad_line") is not None:
        rows.pop()  # its writer is in the middle of it
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=columns)


def write_parquet(path: Path, batches: Iterator[pyarrow.RecordBatch]) -> int:
    """Write rows to a new Parquet file (zstd); how many there are.

    Raises:
        OSError: it cannot be written.
    """
    import pyarrow.parquet as parquet

    count = 0
    with parquet.ParquetWriter(path, schema(), compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
            count += batch.num_rows
    return count


def _row(line: bytes, node_id: str | None) -> dict[str, Any]:
    try:
        event = orjson.loads(line)
        whose = event["node_id"] if node_id is None else node_id
    except (orjson.JSONDecodeError, KeyError, TypeError):
        event, whose = None, node_id or ""
    if not isinstance(event, dict) or what_is_wrong(line, str(whose)) is not None:
        return {"node_id": node_id, "bad_line": line.decode("utf-8", "replace")[:_MAX_BAD]}
    row: dict[str, Any] = {"node_id": event.pop("node_id")}
    if type(seq := event.get("seq")) is int and 0 <= seq < _MAX_SEQ:
        row["seq"] = event.pop("seq")
    identity = orjson.dumps(event, option=orjson.OPT_SORT_KEYS)
    row["identity"] = hashlib.blake2b(identity, digest_size=16).hexdigest()
    moment = _moment(event["ts_utc"])
    if moment is not None:
        row["ts"] = moment
        del event["ts_utc"]
    for name in _TEXTS:
        if type(event.get(name)) is str:
            row[name] = event.pop(name)
    for name in PROMOTED:
        value = event.get(name)
        if value is not None:
            del event[name]
            row[name] = value if type(value) is str else orjson.dumps(value).decode()
    if event:
        row["rest"] = orjson.dumps(event).decode()
    return row


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
        if text.endswith("+00:00"):
            return moment.replace(tzinfo=None)
        return None if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise ConfigError(
            f"tables need pyarrow, which is not installed ({error})", hint='pip install "calyx-logging[query]"'
        ) from None
    return pyarrow
