"""The hub's stored table: one Parquet file for each chunk, and which files are in force.

    telemetry/federated/.table/node_id=<node_id>/<chunk sha256>.parquet   a chunk's rows
    telemetry/federated/.table/node_id=<node_id>/set-<hash>.parquet       those of all chunks of the node, compacted
    telemetry/federated/.table/current.json                               the files in force, and what they hold
    telemetry/federated/.table/.lock, .compact.lock                       held while that is changed, or one compacts

The table is made from the chunks, which stay; it can be deleted at any time. Invariants: a file has its name only when
it is complete, and its name identifies its content, so making it a second time changes nothing; readers and
writers go by `current.json` alone, which is replaced in one step: a file that it does not name has no rows. A file that
is no longer in force stays for a while, for readers of the previous `current.json`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from calyx_logging.core import files
from calyx_logging.core.reading import names_in
from calyx_logging.errors import CalyxError, ConfigError, StorageError
from calyx_logging.hub.inventory import Holdings, digest_of, holdings_of
from calyx_logging.hub.store import Store
from calyx_logging.query.duckdb_views import has_repeats
from calyx_logging.query.executors import Engine, Here
from calyx_logging.query.rows import batches_of, rows_in, schema, write_parquet
from calyx_logging.query.snapshot import Current, NodeTable, Part, changing, current, folder_of, note_unique

__all__ = ["Made", "Refreshed", "Task", "make", "refresh"]

_LEFT = 86_400.0
"""Seconds after which an unreferenced or unfinished file is deleted."""


@dataclass(frozen=True)
class Task:
    """A chunk whose rows are to be written: where it is, to which file, and whether one that is there is good."""

    path: Path
    node_id: str
    bundle: str
    sha256: str
    target: Path
    anew: bool = False


@dataclass(frozen=True)
class Made:
    """Result of a task: the rows and the hash of its file, or why there is none."""

    node_id: str
    sha256: str
    rows: int = 0
    file_sha256: str = ""
    why_not: str | None = None


@dataclass
class Refreshed:
    """Result of `refresh`: files made, rows in them, and what could not be made."""

    files: int = 0
    rows: int = 0
    warnings: list[str] = field(default_factory=list)


# ------------------------------------------------------------------ one chunk, on any engine


def make(task: Task) -> Made:
    """Write a chunk's rows to its file; one that is there and whole stays.

    A chunk whose hash is another than it was when it came has no rows. Errors are for the one who asked: they are
    returned.
    """
    temporary = task.target.with_name(f".{task.target.stem}.{secrets.token_hex(4)}.tmp")
    try:
        if task.anew or (rows := rows_in(task.target, whole=True)) is None:
            files.make_dirs(task.target.parent)
            if digest_of(task.path) != task.sha256:
                return Made(task.node_id, task.sha256, why_not=f"{task.path} is damaged: see calyx-telemetry audit")
            rows = write_parquet(temporary, batches_of(task.path, task.node_id, bundle=task.bundle))
            files.rename_over(temporary, task.target)
        return Made(task.node_id, task.sha256, rows, digest_of(task.target))
    except CalyxError as error:
        return Made(task.node_id, task.sha256, why_not=str(error))
    except OSError as error:
        with suppress(OSError):
            files.remove(temporary)
        return Made(task.node_id, task.sha256, why_not=f"{task.target}: {error.strerror or error}")
    except Exception as error:  # of one chunk: the others are not to go without rows for it
        return Made(task.node_id, task.sha256, why_not=f"{task.path}: {type(error).__name__}: {error}")


def refresh(
    store: Store, node_ids: Iterable[str], engine: Engine | None = None, *, check: bool = False, anew: bool = False
) -> Refreshed:
    """Make the files that are missing, and put them in force, with what is in the store no longer left out.

    Args:
        store: the hub's.
        node_ids: whose.
        engine: makes them; None for this process.
        check: look at every file that is in force, and make again what is not whole.
        anew: make everything again.

    Raises:
        StorageError: a folder cannot be read, or the table cannot be written.
        ConfigError: pyarrow is not installed.
    """
    schema()  # says which extra it needs
    result, found = Refreshed(), current(store)
    made: dict[str, list[Made]] = {}
    damaged: set[str] = set()
    tasks: list[Task] = []
    for node_id in node_ids:
        table = NodeTable() if anew else found.nodes.get(node_id, NodeTable())
        entries = store.load(node_id)
        if not (check or anew) and table.bundles == {entry.manifest_sha256 for entry in entries}:
            continue
        made[node_id] = []
        holdings = holdings_of(store, entries)
        result.warnings += [*holdings.warnings, *_missing(store, holdings)]
        if check:
            result.warnings += _damaged(table, holdings)
            damaged |= {part.name for part in table.parts if not _is_whole(store, part)}
        there = {sha256 for part in _in_force(table, holdings, damaged) for sha256 in part.chunks}
        for sha256 in holdings.by_hash.keys() - there:
            one = holdings.by_hash[sha256]
            target = folder_of(store) / f"node_id={node_id}" / f"{sha256}.parquet"
            tasks.append(Task(one.path, node_id, one.entry.folder, sha256, target, anew or check))
    size = sum(task.path.lstat().st_size for task in tasks)
    tasks.sort(key=lambda task: (task.node_id, task.path))
    _find_out_whether_writable(store, tasks)
    for one_made in (engine or Here()).map(make, tasks, size):
        if one_made.why_not is not None:
            result.warnings.append(one_made.why_not)
            continue
        made[one_made.node_id].append(one_made)
        result.files += 1
        result.rows += one_made.rows
    is_needed = bool(tasks or damaged) or any(_changes(store, found, node_id) for node_id in made)
    if made and (is_needed or check):
        try:
            _put_in_force(store, made, damaged, anew=anew)
        except StorageError:
            if is_needed:
                raise  # else it was to tidy up
        for node_id in made:
            _look_for_repeats(store, node_id)
    return result


def _missing(store: Store, holdings: Holdings) -> Iterator[str]:
    """Yield the chunks that were imported but are no longer in the store."""
    for entry, manifest in holdings.manifests:
        for chunk in manifest.chunks:
            if chunk.filename not in holdings.chunks:
                yield f"{chunk.filename} of bundle {store.bundle(entry)} is not in the store any more"


def _damaged(table: NodeTable, holdings: Holdings) -> Iterator[str]:
    """Yield the chunks that have rows but have changed since."""
    there = table.chunks
    for held in holdings.chunks.values():
        if held.sha256 in there and not held.is_whole():
            yield f"{held.path} is damaged: see calyx-telemetry audit"


def _changes(store: Store, found: Current, node_id: str) -> bool:
    """Tell whether the files in force differ from what the store holds."""
    table, entries = found.nodes.get(node_id, NodeTable()), store.load(node_id)
    holdings = holdings_of(store, entries)
    return (
        table.bundles != {entry.manifest_sha256 for entry in entries} or table.chunks - holdings.by_hash.keys() != set()
    )


def _is_whole(store: Store, part: Part) -> bool:
    path = folder_of(store) / part.name
    try:
        return rows_in(path) == part.rows and digest_of(path) == part.sha256
    except (CalyxError, OSError):
        return False


def _in_force(table: NodeTable, holdings: Holdings, damaged: Collection[str]) -> list[Part]:
    """Return the undamaged files that hold only chunks of the store."""
    return [
        part
        for part in table.parts
        if part.name not in damaged and all(sha256 in holdings.by_hash for sha256 in part.chunks)
    ]


def _find_out_whether_writable(store: Store, tasks: Sequence[Task]) -> None:
    """Check once that the table can be written, before thousands of tasks fail."""
    try:
        for folder in {task.target.parent for task in tasks[:1]}:
            files.make_dirs(folder)
            path = folder / f".{secrets.token_hex(4)}.tmp"
            files.write_new(path, [], sync=False)
            files.remove(path)
    except OSError as error:
        raise StorageError.of(
            error, "write the table", error.filename or folder_of(store), "check rights and space"
        ) from error


def _put_in_force(store: Store, made: dict[str, list[Made]], damaged: set[str], *, anew: bool) -> None:
    """Put files in force by what the store holds now, since others may have added more meanwhile."""
    with changing(store) as found:
        for node_id, new in made.items():
            holdings = holdings_of(store, store.load(node_id))
            table = found.nodes.setdefault(node_id, NodeTable())
            parts = _in_force(table, holdings, damaged)
            if anew:  # but what holds a chunk that is damaged now, and could not be made again
                again = {one.sha256 for one in new}
                parts = [part for part in parts if not again.issuperset(part.chunks)]
            there = {sha256 for part in parts for sha256 in part.chunks}
            for one in new:
                if one.sha256 not in there and one.sha256 in holdings.by_hash:
                    name = f"node_id={node_id}/{one.sha256}.parquet"
                    parts.append(Part(name, one.rows, one.file_sha256, (one.sha256,)))
                    there.add(one.sha256)
            parts.sort(key=lambda part: part.name)
            table.unique = table.unique and table.parts == parts
            table.parts = parts
            # a chunk that another superseded is in no file, and its bundle is done all the same
            missing = holdings.by_hash.keys() - there
            table.bundles = {
                entry.manifest_sha256
                for entry, manifest in holdings.manifests
                if not missing or missing.isdisjoint(chunk.sha256 for chunk in manifest.chunks)
            }
        _sweep(store, found, made)


def _look_for_repeats(store: Store, node_id: str) -> None:
    """Note of a node that none of its events is there twice; else each query has to look for those that are."""
    table = current(store).nodes.get(node_id, NodeTable())
    if table.unique or not table.parts or all(part.compacted for part in table.parts):
        return
    with suppress(ConfigError, StorageError):  # without the database, and where nothing can be noted, it stays unknown
        if not has_repeats([folder_of(store) / part.name for part in table.parts]):
            note_unique(store, node_id, table.parts)


def _sweep(store: Store, found: Current, node_ids: Iterable[str]) -> None:
    """Delete what was left half-made, or made and never put in force."""
    for node_id in node_ids:
        folder = folder_of(store) / f"node_id={node_id}"
        named = {Path(part.name).name for part in found.nodes[node_id].parts} | {
            Path(name).name for name in found.retired if name.startswith(f"node_id={node_id}/")
        }
        for name in names_in(folder):
            path = folder / name
            with suppress(OSError):
                if name not in named and path.lstat().st_mtime < time.time() - _LEFT:
                    files.remove(path)
