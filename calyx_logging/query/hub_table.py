"""The hub's store as one database: the stored table, brought up to date, and its compaction.

from calyx_logging.query.hub_table import connect
db = connect(Store(root))           # an Ibis backend, as of `database`
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from calyx_logging.core import files
from calyx_logging.core.os_lock import OsLock
from calyx_logging.core.reading import sha256_of
from calyx_logging.errors import StorageError
from calyx_logging.format.reader import ChunkRef
from calyx_logging.hub.inventory import digest_of, holdings_of
from calyx_logging.hub.store import Store
from calyx_logging.query import spark
from calyx_logging.query._chunk_tables import in_files
from calyx_logging.query.duckdb_views import MEMORY, attach, first_lines, temporary, unless_interrupted
from calyx_logging.query.executors import Engine
from calyx_logging.query.refresh import refresh
from calyx_logging.query.rows import COLUMNS, rows_in
from calyx_logging.query.snapshot import Current, NodeTable, Part, behind, current, folder_of, lost, swap
from calyx_logging.query.spark import SparkEngine
from calyx_logging.query.views import PLACE

__all__ = ["compact", "connect", "files_in_force"]

_SORTED = "ts, writer, seq, chunk, line"


def connect(
    store: Store,
    engine: Engine | None = None,
    *,
    memory: str = MEMORY,
    closed: bool = False,
    warn: Callable[[str], None] | None = None,
    plain: bool = False,
) -> Any:
    """Return an Ibis backend over everything that the store holds, with the views of `database`.

    What is not in the stored table yet is put there first; where that cannot be written, into a temporary one.

    Args:
        store: the hub's.
        engine: makes what is missing, None for this process; a SparkEngine also answers, else DuckDB does.
        memory: that the database takes at most.
        closed: whether queries may read no file but the table's, and write none; DuckDB's alone.
        warn: is told of chunks that cannot be read, and of a table that cannot be written.
        plain: whether it is to be a `Database`, where DuckDB answers.

    Raises:
        ConfigError: the extra `query` is not installed.
        ChunkError, StorageError: what is in the store cannot be read.
    """
    tell = warn or (lambda text: None)
    found = current(store)
    missing = [node for node in store.nodes() if node not in found.nodes]
    gone = lost(store, found)
    wanted = sorted({*behind(store, found), *missing} - {*gone})
    extra: list[ChunkRef] = []
    if wanted or gone:
        try:
            done = [refresh(store, wanted, engine), refresh(store, gone, engine, check=True)]
            for warning in (warning for one in done for warning in one.warnings):
                tell(warning)
            found = current(store)
        except StorageError as error:
            tell(f"the table cannot be brought up to date ({error}); it is made for this query alone")
            found = current(store)
            for node_id in gone:
                found.nodes.pop(node_id, None)
            extra = [ref for node_id in (*wanted, *gone) for ref in _not_in(store, node_id, found, tell)]
    loose, compacted, unique = files_in_force(store, found, {ref.node_id for ref in extra if ref.node_id})
    with temporary() as folder:
        loose += in_files(extra, folder.path, engine, warn)
        if isinstance(engine, SparkEngine):
            return spark.attach(engine.spark, loose, compacted, unique)
        return attach(folder, loose, compacted, unique, memory=memory, closed=closed, plain=plain)


def files_in_force(
    store: Store, found: Current, more_of: set[str] | None = None
) -> tuple[list[Path], list[Path], list[Path]]:
    """Return the table's files that may repeat events, those that mark repeats, and those in which there are none.

    Args:
        store: the hub's.
        found: what is in force.
        more_of: nodes of which there are rows elsewhere.
    """
    loose: list[Path] = []
    compacted: list[Path] = []
    unique: list[Path] = []
    for node_id, table in found.nodes.items():
        is_alone = node_id not in (more_of or ())
        is_one = is_alone and all(part.compacted for part in table.parts)
        kind = compacted if is_one else unique if is_alone and table.unique else loose
        kind.extend(folder_of(store) / part.name for part in table.parts)
    return loose, compacted, unique


def _not_in(store: Store, node_id: str, found: Current, tell: Callable[[str], None]) -> list[ChunkRef]:
    """Return the chunks of a node that the table lacks, without damaged ones."""
    there = found.nodes.get(node_id, NodeTable()).chunks
    refs = []
    for one in holdings_of(store, store.load(node_id)).chunks.values():
        if one.sha256 not in there and one.is_whole():
            refs.append(ChunkRef(one.path, node_id, one.entry.folder))
        elif one.sha256 not in there:
            tell(f"{one.path} is damaged: see calyx-telemetry audit")
    return refs


def compact(store: Store, node_id: str, *, memory: str = MEMORY) -> Part | None:
    """Put a node's rows into one file, sorted by time, in which each row says whether its event is there before.

    Args:
        store: the hub's, its table brought up to date.
        node_id: whose.
        memory: that is taken at most; what needs more goes to a temporary folder.

    Returns:
        The file; None where there is nothing to be done.

    Raises:
        StorageError: the table cannot be written.
        ConfigError: the extra `query` is not installed.
    """
    folder = folder_of(store)
    try:
        with OsLock(folder / ".compact.lock"):
            parts = current(store).nodes.get(node_id, NodeTable()).parts
            if not parts or (len(parts) == 1 and parts[0].compacted):
                return None
            chunks = tuple(sorted({sha256 for part in parts for sha256 in part.chunks}))
            digest = sha256_of("\n".join(chunks).encode())
            name = f"node_id={node_id}/set-{digest}.parquet"
            temporary_file = folder / f"node_id={node_id}" / f".set-{secrets.token_hex(4)}.tmp"
            try:
                _write_set([folder / part.name for part in parts], temporary_file, memory)
                files.sync_file(temporary_file)
                files.rename_over(temporary_file, folder / name)
            finally:
                with suppress(OSError):
                    files.remove(temporary_file)
            rows = rows_in(folder / name)
            if rows != sum(part.rows for part in parts):
                raise StorageError(f"the set has {rows} rows, and its files have others", path=folder / name)
            part = Part(name, rows, digest_of(folder / name), chunks, compacted=True)
            return part if swap(store, node_id, parts, [part]) else None
    except OSError as error:
        raise StorageError.of(error, "compact the table", error.filename or folder, "check rights and space") from error


def _write_set(parquet: list[Path], target: Path, memory: str) -> None:
    """Write the rows of the files into one file, each with `repeated`."""
    with temporary() as folder:
        backend = attach(folder, parquet, memory=memory, plain=True)
        # what is no event has no identity, and is no repetition of another
        rows = (
            f"SELECT {', '.join(COLUMNS)}, bad_line IS NULL AND {PLACE} > 1 AS repeated FROM loose ORDER BY {_SORTED}"
        )
        to = str(target).replace("'", "''")
        try:
            backend.con.execute(f"COPY ({rows}) TO '{to}' (FORMAT parquet, COMPRESSION zstd)")
        except Exception as error:  # duckdb's; of the disk, most often
            unless_interrupted(error)
            raise StorageError(f"cannot compact: {first_lines(error)}", path=target.parent) from error
        finally:
            backend.disconnect()
