"""Turn a chunk's lines into rows: the columns of every table of events, and the one function that makes them.

Plain Python and Arrow, without an engine, so that the table is the same wherever it is made. Rows come in batches, so
that memory does not grow with the chunk. Needs pyarrow (the extra `query`).
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from calyx_logging.core import files
from calyx_logging.core.json_bytes import OPT_SORT_KEYS, dumps
from calyx_logging.core.reading import BOM
from calyx_logging.core.times import parse_utc
from calyx_logging.errors import ConfigError
from calyx_logging.events.event import CONTROL_SOURCE
from calyx_logging.format.chunk import OPEN_SUFFIX, ChunkName, open_chunk
from calyx_logging.format.file_lines import FILE
from calyx_logging.format.line_check import event_of, lines_in, lines_of
from calyx_logging.format.results import number_of, verdict_of
from calyx_logging.query._core_rows import plain_rows

if TYPE_CHECKING:
    import pyarrow

__all__ = ["COLUMNS", "PROMOTED", "TABLE_VERSION", "batches_of", "column_text", "rows_in", "schema", "write_parquet"]

TABLE_VERSION = 4
"""Version of the columns; a table of another one is made anew."""

PROMOTED = ("run_id", "run_instance_id", "suite", "stage", "case_id", "decision_type", "score")
"""Caller's fields that have text columns of their own, and are not in `rest`; that of `score` is `score_text`."""

_NUMBERS = {"score": (-math.inf, math.inf), "duration_s": (0.0, 1e12)}
"""Columns of numbers, with the range of what is plausible."""

COLUMNS = (
    "node_id",
    "ts",
    "event_id",
    "source",
    "seq",
    "level",
    "logger",
    "message",
    *PROMOTED[:-1],
    "model",
    "outcome",
    "passed",
    "score",
    "score_text",
    "duration_s",
    "exit_status",
    "resumed_as",
    "cases_expected",
    "exception_type",
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
_SOURCE, _CONTROL = _TEXTS.index("source"), _TEXTS.index("control")
_READ = ("model", "outcome", "exit_status", "resumed_as")
"""Caller's fields that have text columns of their own, and are in `rest` as well."""

_FROM_EVENT = (
    *("node_id", "ts", "seq", *_TEXTS, *PROMOTED[:-1], "score_text", "score", *_READ),
    *("passed", "duration_s", "cases_expected", "exception_type", "rest", "bad_line", "identity"),
)
_BAD = _FROM_EVENT.index("bad_line")
_NOTHING = (None,) * (_BAD - 1)
_FEW_VALUES = (
    *("node_id", "source", "level", "logger", "message", "run_id", "run_instance_id", "suite", "stage"),
    *("decision_type", "control", "writer", "chunk", "bundle", *_READ, "exception_type"),
)
"""Columns with few distinct values."""

_OF_RESULTS = frozenset({*_READ, "passed", "duration_s", "cases_expected", "exception", "exception_type"})
_NO_RESULTS = (None,) * (len(_READ) + 4)

_DIGITS = bytes(ord("0") if chr(code).isdigit() and code < 128 else ord(" ") for code in range(256))
_LONG_NUMBER = b"0" * 18
"""Run of digits that may be too long for a double or 64 bits."""

_FINER = re.compile(r"[.,][0-9]{7}")
_BATCH = 20_000
_BATCH_BYTES = 16 * 1024 * 1024
_GROUP_BYTES = 32 * 1024 * 1024
"""Bytes of rows that are written at once."""

_LONG = ("message", "rest")
_SHORT_BYTES = 300
"""Bytes of the columns that are not long, in a row, about."""

_MAX_SEQ = 2**63
_USUAL = len("2026-01-01T00:00:00.000000+00:00")
_MAX_BAD = 10_000
"""Maximum number of characters kept of a line that is no event."""


@lru_cache(maxsize=1)
def schema() -> pyarrow.Schema:
    """The columns with their types.

    `ts` is a timestamp in microseconds, UTC without zone; `seq`, `line` and `cases_expected` are 64-bit integers;
    `score` and `duration_s` are doubles, null where the event has no finite number; `passed` is a boolean; all others
    are text, `identity` included (a hash of the event apart from its `seq`).

    Raises:
        ConfigError: pyarrow is not installed.
    """
    pa = _pyarrow()
    types = dict.fromkeys(("seq", "line", "cases_expected"), pa.int64())
    types |= {"ts": pa.timestamp("us"), "passed": pa.bool_(), **dict.fromkeys(_NUMBERS, pa.float64())}
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
    name = ChunkName.parse(path.name)
    texts = {"writer": None if name is None else name.writer, "chunk": column_text(path.name), "bundle": bundle}
    others: list[tuple[int, tuple[Any, ...]]] = []
    number, last, size = 1, 0, 0
    with open_chunk(path) as stream:
        for lines in lines_of(stream):
            rest, seen = [(0, b"")], 1  # one that is too long has no row
            found = None if node_id is None or lines is None else plain_rows(lines, node_id, number, schema())
            if found is not None and lines is not None:
                count, columns, places = found
                if count:
                    last = columns["line"][count - 1].as_py()
                    yield _batch(count, columns, {**texts, "node_id": node_id, "bad_line": None})
                rest, seen = [(before, bytes(lines[start:end])) for before, start, end in places], count + len(places)
            elif lines is not None:
                rest = list(enumerate(lines_in(lines)))
                seen = len(rest)
            for before, line in rest:
                if not line.strip():
                    continue
                if len(others) == _BATCH or size > _BATCH_BYTES:
                    yield _batch_of_rows(others, texts)
                    others, size = [], 0
                others.append((number + before, _row(event_of(line, node_id), line, node_id)))
                size += len(line)
            number += seen
    if path.name.endswith(OPEN_SUFFIX) and others and others[-1][0] > last and others[-1][1][_BAD] is not None:
        others.pop()  # its writer is in the middle of it
    if others:
        yield _batch_of_rows(others, texts)


def _batch_of_rows(rows: list[tuple[int, tuple[Any, ...]]], texts: dict[str, str | None]) -> pyarrow.RecordBatch:
    """Return numbered rows as a batch, with columns that have one text."""
    pa = _pyarrow()
    numbers, values = zip(*rows, strict=True)
    columns = dict(zip(_FROM_EVENT, zip(*values, strict=True), strict=True), line=numbers)
    types = schema()
    return _batch(len(rows), {name: pa.array(some, types.field(name).type) for name, some in columns.items()}, texts)


def _batch(count: int, columns: dict[str, Any], texts: dict[str, str | None]) -> pyarrow.RecordBatch:
    """Return Arrow columns as a batch, with columns that have one text."""
    pa = _pyarrow()
    arrays = columns | {name: pa.repeat(pa.scalar(text, pa.string()), count) for name, text in texts.items()}
    fields = schema()
    return pa.RecordBatch.from_arrays([arrays[name] for name in fields.names], schema=fields)


def column_text(name: str) -> str:
    """Return a file's name as valid UTF-8 for a column."""
    return name.encode("utf-8", "backslashreplace").decode()


def write_parquet(path: Path, batches: Iterable[pyarrow.RecordBatch]) -> int:
    """Write rows to a Parquet file (zstd), which is not synced; return how many.

    Raises:
        OSError: it cannot be written; nothing of it is left.
    """
    import pyarrow as pa
    from pyarrow import parquet

    count = 0

    def write(stream: BinaryIO) -> None:
        nonlocal count
        held, size = [], 0
        with parquet.ParquetWriter(
            stream,
            schema(),
            compression="zstd",
            use_dictionary=list(_FEW_VALUES),
            write_page_checksum=True,
        ) as writer:
            for batch in batches:
                held.append(batch)
                count += batch.num_rows
                size += sum(batch.column(name).nbytes for name in _LONG) + _SHORT_BYTES * batch.num_rows
                if size > _GROUP_BYTES:
                    writer.write_table(pa.Table.from_batches(held))
                    held, size = [], 0
            if held:
                writer.write_table(pa.Table.from_batches(held))

    files.write_file(path, write, sync=False)
    return count


def rows_in(path: Path, *, whole: bool = False) -> int | None:
    """Count the rows of a Parquet file of the table; None if it does not exist or cannot be read.

    Args:
        path: of the file.
        whole: read all of it, instead of what its end says.
    """
    import pyarrow.parquet as parquet

    if path.is_symlink() or not path.is_file():
        return None
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            if not set(COLUMNS) <= set(file.schema_arrow.names):
                return None
            if whole and sum(batch.num_rows for batch in file.iter_batches(_BATCH)) != file.metadata.num_rows:
                return None
            return int(file.metadata.num_rows)
    except (OSError, ValueError, _pyarrow().ArrowException):
        return None


def _row(event: dict[str, Any] | None, line: bytes, node_id: str | None) -> tuple[Any, ...]:
    """Return the values of the columns that come from a line, in the order of `_FROM_EVENT`."""
    if event is None:
        return (node_id, *_NOTHING, line.decode("utf-8", "replace")[:_MAX_BAD], None)
    take = event.pop
    has_seq, seq = "seq" in event, take("seq", None)
    identity = blake2b(_sorted(event, line), digest_size=16).hexdigest()
    if not (type(seq) is int and 0 <= seq < _MAX_SEQ):
        if has_seq:
            event["seq"] = seq
        seq = None
    whose, moment = take("node_id"), _moment(event["ts_utc"])
    if moment is not None:
        del event["ts_utc"]
    texts = [take(name) if type(event.get(name)) is str else None for name in _TEXTS]
    if texts[_CONTROL] == FILE and texts[_SOURCE] == CONTROL_SOURCE:
        event.pop("data", None)  # of a file: `calyx-telemetry files` reads the chunks
    promoted = []
    for name in PROMOTED:
        value = event.get(name)
        if value is not None:
            del event[name]
            if type(value) is not str:
                value = _text(value)
        promoted.append(value)
    results = _NO_RESULTS if _OF_RESULTS.isdisjoint(event) else _results(event)
    rest = _text(event) if event else None
    return (whose, moment, seq, *texts, *promoted, _number("score", promoted[-1]), *results, rest, None, identity)


def _results(event: dict[str, Any]) -> tuple[Any, ...]:
    """Return what an event says of a result, which stays in `rest` as well."""
    get = event.get
    texts = [value if (value := get(name)) is None or type(value) is str else _text(value) for name in _READ]
    passed = verdict_of(get("passed"))
    expected = _whole(get("cases_expected"))
    exception = get("exception")
    kind = exception[0].get("type") if type(exception) is list and exception and type(exception[0]) is dict else None
    kind = kind if type(kind) is str else get("exception_type")
    return (*texts, passed, _number("duration_s", get("duration_s")), expected, kind if type(kind) is str else None)


def _number(name: str, value: Any) -> float | None:
    """Return a number, or a text that is one, as far as it is plausible."""
    number, (least, most) = number_of(value), _NUMBERS[name]
    return number if number is not None and least <= number <= most else None


def _whole(value: Any) -> int | None:
    number = _number("score", value)
    is_whole = number is not None and number.is_integer() and abs(number) < _MAX_SEQ
    return int(value if type(value) is int else number) if number is not None and is_whole else None


def _sorted(event: dict[str, Any], line: bytes) -> bytes:
    """Return an event's bytes with its fields sorted; long numbers stay as written."""
    try:
        if _LONG_NUMBER not in line.translate(_DIGITS):
            return dumps(event, option=OPT_SORT_KEYS)
        exact = json.loads(line.removeprefix(BOM), parse_int="i{}".format, parse_float="f{}".format)
        exact.pop("seq", None)
        return _deep(exact).encode("utf-8", "surrogatepass")
    except TypeError:
        return _deep(event).encode("utf-8", "surrogatepass")


def _text(value: Any) -> str:
    try:
        return dumps(value).decode()
    except TypeError:
        return _deep(value)


def _deep(value: Any) -> str:
    """Return sorted JSON of a value nested deeper than orjson writes; orjson reads up to 1024 levels."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + 10_000)
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    finally:
        sys.setrecursionlimit(limit)


def _moment(text: str) -> datetime | None:
    """Parse a time that microseconds represent exactly; None for any other."""
    try:
        if len(text) > _USUAL and _FINER.search(text):
            return None
        if text.endswith("+00:00"):  # without a zone it takes a quarter of the time
            moment = datetime.fromisoformat(text[:-6])
            return moment if moment.tzinfo is None else None
    except ValueError:
        return None
    with_zone = parse_utc(text)
    return None if with_zone is None else with_zone.replace(tzinfo=None)


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise ConfigError(
            f"tables need pyarrow, which is not installed ({error})", hint='pip install "calyx-logging[query]"'
        ) from None
    return pyarrow
