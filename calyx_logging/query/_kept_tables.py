"""Keep the table of an outbox beside it, so that a later query reads only what is new.

    telemetry/outbox/<node_id>/.table/<chunk>.parquet    the rows of a chunk, open or sealed, up to one of its bytes

Invariants: a kept file says how many of a chunk's bytes it was made from, and their hash, and is used for no chunk that
begins otherwise; whatever is kept can be deleted at any time. Nothing is kept where the disk is nearly full: the room
is the harness's.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from calyx_logging.core import files
from calyx_logging.core.reading import BLOCK, names_in, start_of_line
from calyx_logging.format.chunk import OPEN_SUFFIX, open_chunk, table_of
from calyx_logging.format.reader import ChunkRef
from calyx_logging.hub.inventory import prefix_digests
from calyx_logging.query.rows import TABLE_VERSION, batches_of, column_text, schema, write_parquet

if TYPE_CHECKING:
    import pyarrow

__all__ = ["can_keep", "forget", "kept_table"]

_KEY = b"calyx_logging"
_ROOM = 1024**3
"""Bytes that have to be free on the disk."""


@dataclass(frozen=True)
class _Mark:
    """The bytes from which a kept file was made.

    Attributes:
        version: of the table's form.
        name: the chunk's file name then.
        size, mtime_ns: its file's.
        bytes: how many of them were read, to the end of a line or of the file.
        sha256: their hash.
        lines: how many lines they have.
    """

    version: int
    name: str
    size: int
    mtime_ns: int
    bytes: int
    sha256: str
    lines: int


def can_keep(folder: Path) -> bool:
    """Tell whether there is room beside an outbox's chunks."""
    try:
        return shutil.disk_usage(folder).free >= _ROOM
    except OSError:
        return False


def forget(folder: Path, chunks: Iterable[Path]) -> None:
    """Remove what is kept in an outbox of chunks that are not there any more."""
    kept = {table_of(path).name for path in chunks}
    for name in names_in(folder / ".table"):
        if name not in kept:
            with suppress(OSError):
                files.remove(folder / ".table" / name)


def kept_table(ref: ChunkRef) -> Path | None:
    """Return the file with a chunk's rows, brought up to date; None if there is nothing to be kept.

    Raises:
        ChunkError, StorageError: the chunk cannot be read.
        OSError: the file cannot be written.
    """
    path, kept = ref.path, table_of(ref.path)
    state, known = path.stat(), _mark_of(kept)
    if known is not None and (known.name, known.size, known.mtime_ns) == (path.name, state.st_size, state.st_mtime_ns):
        return kept
    with open_chunk(path) as stream:
        end = start_of_line(stream, state.st_size) if path.name.endswith(OPEN_SUFFIX) else state.st_size
        if known is not None and start_of_line(stream, known.bytes) != known.bytes:
            known = None  # it ended in the midst of a line
    if not end:
        return None
    digests = prefix_digests(path, [end, *([known.bytes] if known is not None and known.bytes <= end else [])])
    if end not in digests:
        return None  # it became shorter
    if known is not None and digests.get(known.bytes) != known.sha256:
        known = None
    start, lines = (0, 0) if known is None else (known.bytes, known.lines)
    new = batches_of(path, ref.node_id, start=start, end=end, lines_before=lines)
    mark = _Mark(
        TABLE_VERSION, path.name, state.st_size, state.st_mtime_ns, end, digests[end], lines + _lines(path, start, end)
    )
    temporary = kept.with_name(f".{kept.stem}.{secrets.token_hex(4)}.tmp")
    files.make_dirs(kept.parent)
    try:
        old = _rows_of(kept, path.name) if known is not None else iter(())
        write_parquet(temporary, chain(old, new), {_KEY: orjson.dumps(asdict(mark))})
        files.rename_over(temporary, kept)
    finally:
        with suppress(OSError):
            files.remove(temporary)
    return kept


def _mark_of(kept: Path) -> _Mark | None:
    """Return what a kept file was made from; None where there is none of today's form."""
    import pyarrow.parquet

    try:
        if kept.is_symlink():
            return None
        found = pyarrow.parquet.read_metadata(kept).metadata
        mark = _Mark(**orjson.loads(found[_KEY]))
        return mark if mark.version == TABLE_VERSION else None
    except (OSError, ValueError, TypeError, KeyError, pyarrow.ArrowException):
        return None


def _rows_of(kept: Path, name: str) -> Iterator[pyarrow.RecordBatch]:
    """Yield the rows of a kept file under the name that the chunk has now."""
    import pyarrow
    import pyarrow.parquet

    fields = schema()
    place = fields.get_field_index("chunk")
    with pyarrow.parquet.ParquetFile(kept, page_checksum_verification=True) as file:
        for batch in file.iter_batches():
            named = pyarrow.repeat(pyarrow.scalar(column_text(name), pyarrow.string()), batch.num_rows)
            columns = [named if number == place else column for number, column in enumerate(batch.columns)]
            yield pyarrow.RecordBatch.from_arrays(columns, schema=fields)


def _lines(path: Path, start: int, end: int) -> int:
    count = 0
    with open_chunk(path) as stream:
        stream.seek(start)
        while start < end and (block := stream.read(min(BLOCK, end - start))):
            count += block.count(b"\n")
            start += len(block)
    return count
