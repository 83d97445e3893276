"""The hub's store as one database: the stored table, brought up to date, and its compaction.

from calyx_logging.query.hub_table import connect
db = connect(Store(root))           # an Ibis backend, as of `duckdb_views`
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from calyx_logging.core import files
from calyx_logging.core.os_lock import OsLock
from calyx_logging.errors import StorageError
from calyx_logging.format.reader import ChunkRef
from calyx_logging.hub.inventory import digest_of, holdings_of
from calyx_logging.hub.store import Store
from calyx_logging.query import spark
from calyx_logging.query._chunk_tables import in_files
from calyx_logging.query.duckdb_views import MEMORY, attach, temporary
from calyx_logging.query.executors import Engine
from calyx_logging.query.in_force import (
    Part,
    behind,
    folder_of,
    is_as_written,
    lost,
    parts_of,
    refuse_links,
    repeats_of,
    seal,
    swap,
)
from calyx_logging.query.rows import COLUMNS, rows_in
from calyx_logging.query.spark import SparkEngine
from calyx_logging.query.sql import first_lines, unless_interrupted
from calyx_logging.query.table import name_of, refresh

__all__ = ["compact", "connect"]

_TRIES = 3
"""How often the catalog is read if it keeps being rebuilt."""

_SORTED = "ts, writer, seq, chunk, line"


def connect(
    store: Store,
    engine: Engine | None = None,
    *,
    memory: str = MEMORY,
    closed: bool = False,
    warn: Callable[[str], None] | None = None,
    plain: bool = False,
    tables: Collection[str] = (),
) -> Any:
    """Return an Ibis backend over everything that the store holds, with the views of `views`.

    What is not in the stored table yet is put there first; where that cannot be written, into a temporary one.

    Args:
        store: the hub's.
        engine: makes what is missing, None for this process; a SparkEngine also answers, else DuckDB does.
        memory: that the database takes at most.
        closed: whether queries may read no file but the table's, and write none; DuckDB's alone.
        warn: is told of chunks that cannot be read, and of a table that cannot be written.
        plain: whether it is to be a `Database`, where DuckDB answers.
        tables: views to compute once, where DuckDB answers.

    Raises:
        ConfigError: the extra `query` is not installed.
        ChunkError, StorageError: what is in the store cannot be read.
    """
    parts, extra = _up_to_date(store, engine, warn or (lambda text: None))
    more_of = {ref.node_id for ref in extra}
    repeats = {node_id: repeats_of(store, node_id) for node_id in parts if node_id not in more_of}
    known = {node_id: paths for node_id, paths in repeats.items() if paths is not None}
    loose, once = (
        [folder_of(store) / part.name for node_id, some in parts.items() if (node_id in known) is kind for part in some]
        for kind in (False, True)
    )
    those = [path for paths in known.values() for path in paths]
    with temporary() as folder:
        loose += in_files(extra, folder.path, engine, warn)
        if isinstance(engine, SparkEngine):
            return spark.attach(engine.spark, loose, once, those)
        return attach(folder, loose, once, those, memory=memory, closed=closed, plain=plain, tables=tables)


def _up_to_date(
    store: Store, engine: Engine | None, tell: Callable[[str], None]
) -> tuple[dict[str, list[Part]], list[ChunkRef]]:
    """Bring the table up to date; return its files by node, and the chunks that it still lacks."""
    for _ in range(_TRIES):
        wanted, gone, failed = store.nodes(), list[str](), set[str]()
        parts: dict[str, list[Part]] = {}
        try:
            if not is_as_written(store, parts_of(store)):
                store.catalog.renew()
            parts, generation = parts_of(store), store.catalog.generation
            gone = lost(store, parts)
            wanted = sorted({*behind(store)} - {*gone})
            for node_ids, check in ((wanted, False), (gone, True)):
                if node_ids:
                    made = refresh(store, node_ids, engine, check=check)
                    failed |= made.failed
                    for warning in made.warnings:
                        tell(warning)
            parts = parts_of(store)
        except StorageError as error:
            tell(f"the table cannot be brought up to date ({error}); it is made for this query alone")
            parts = {node_id: some for node_id, some in parts.items() if node_id not in gone}
            failed = {*wanted, *gone}
            break
        if generation == store.catalog.generation:
            break  # else the catalog was damaged and has been replaced meanwhile
    return parts, [ref for node_id in sorted(failed) for ref in _not_in(store, node_id, parts.get(node_id, []), tell)]


def _not_in(store: Store, node_id: str, parts: list[Part], tell: Callable[[str], None]) -> list[ChunkRef]:
    """Return the chunks of a node that its files lack, without damaged ones."""
    there = {sha256 for part in parts for sha256 in part.chunks}
    refs = []
    for one in holdings_of(store, store.load(node_id)).chunks.values():
        if one.sha256 not in there and one.is_whole():
            refs.append(ChunkRef(one.path, node_id, one.entry.folder))
        elif one.sha256 not in there:
            tell(f"{one.path} is damaged: see calyx-telemetry audit")
    return refs


def compact(store: Store, node_id: str, *, memory: str = MEMORY) -> list[Part]:
    """Put a node's rows into one file a month (in which the bundles were exported), sorted by time.

    Args:
        store: the hub's, its table brought up to date.
        node_id: whose.
        memory: that is taken at most; what needs more goes to a temporary folder.

    Returns:
        The files made now.

    Raises:
        StorageError: the table cannot be written.
        ConfigError: the extra `query` is not installed.
    """
    folder = folder_of(store)
    months: dict[str, list[Part]] = defaultdict(list)
    made = []
    try:
        refuse_links(store, node_id)
        with OsLock(folder / ".compact.lock"):
            for part in parts_of(store, node_id)[node_id]:
                months[part.month].append(part)
            for month, parts in months.items():
                if len(parts) > 1 or not parts[0].compacted:
                    made += _compact_month(store, node_id, month, parts, memory)
    except OSError as error:
        raise StorageError.of(error, "compact the table", error.filename or folder, "check rights and space") from error
    return made


def _compact_month(store: Store, node_id: str, month: str, parts: list[Part], memory: str) -> list[Part]:
    """Return the month's new file; none where its files are no longer in force."""
    folder = folder_of(store)
    chunks = tuple(sorted({sha256 for part in parts for sha256 in part.chunks}))
    name = name_of(node_id, f"{month}-set", chunks)
    temporary_file = folder / f"node_id={node_id}" / f".set-{secrets.token_hex(4)}.tmp"
    try:
        _write_set([folder / part.name for part in parts], temporary_file, memory)
        rows = rows_in(temporary_file)
        if rows is None or rows != sum(part.rows for part in parts):
            raise StorageError(f"the set has {rows} rows, and its files have others", path=temporary_file)
        part = Part(name, rows, temporary_file.stat().st_size, digest_of(temporary_file), chunks, compacted=True)
        files.rename_over(temporary_file, folder / name, sync=False)
    finally:
        with suppress(OSError):
            files.remove(temporary_file)
    with store.catalog.changing() as change:
        if not set(parts) <= set(parts_of(store, node_id)[node_id]):
            return []
        swap(change, node_id, parts, [part])
        seal(store, change, node_id)
    return [part]


def _write_set(parquet: list[Path], target: Path, memory: str) -> None:
    """Write the rows of the files into one file."""
    with temporary() as folder:
        backend = attach(folder, (), parquet, memory=memory, plain=True)
        to = str(target).replace("'", "''")
        rows = f"SELECT {', '.join(COLUMNS)} FROM known ORDER BY {_SORTED}"
        try:
            backend.con.execute(f"COPY ({rows}) TO '{to}' (FORMAT parquet, COMPRESSION zstd)")
        except Exception as error:  # duckdb's; of the disk, most often
            unless_interrupted(error)
            raise StorageError(f"cannot compact: {first_lines(error)}", path=target.parent) from error
        finally:
            backend.disconnect()
