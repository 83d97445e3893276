"""Bring the hub's stored table up to date: one Parquet file for each bundle (several if it is large), or for a month.

    telemetry/federated/.table/node_id=<node_id>/<bundle>-<hash>.parquet       a bundle's rows
    telemetry/federated/.table/node_id=<node_id>/<YYYYMM>-set-<hash>.parquet   those of a month's bundles, compacted

The table is made from the chunks, which stay; it can be deleted at any time. Invariants: a file has its name only when
it is complete, and its name identifies its content, so making it a second time changes nothing; which files are in
force, and which of their rows repeat others, is in the catalog, and changes in one transaction (`in_force`).
"""

from __future__ import annotations

import re
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from calyx_logging.core import files
from calyx_logging.core.reading import sha256_of
from calyx_logging.errors import CalyxError, StorageError
from calyx_logging.hub.inventory import Held, Holdings, digest_of, holdings_of
from calyx_logging.hub.store import Entry, Note, Store
from calyx_logging.query.duckdb_views import find_repeats
from calyx_logging.query.executors import EACH, Engine, or_threads
from calyx_logging.query.in_force import (
    Part,
    folder_of,
    gone_of,
    is_as_written,
    note_repeats,
    parts_of,
    refuse_links,
    repeats_of,
    seal,
    swap,
    sweep,
)
from calyx_logging.query.rows import TABLE_VERSION, batches_of, rows_in, schema, write_parquet

__all__ = ["Made", "Refreshed", "Task", "make", "name_of", "refresh"]

_PORTION = 128 * 1024 * 1024
"""Bytes of chunks for one file: a large bundle has several, made at the same time."""

_OFTEN = 10.0
"""Seconds after which files are put in force while others are still being made."""

_IN_ORDER = re.compile(r"([0-9]{6}-set|[0-9]{8}_[0-9]{6})\Z", re.ASCII)


@dataclass(frozen=True)
class Task:
    """Chunks whose rows are to be written: where they are, their hashes, what is noted of them; the table's folder."""

    node_id: str
    bundle: str
    chunks: tuple[tuple[Path, str, Note | None], ...]
    folder: Path


@dataclass(frozen=True)
class Made:
    """Result of a task: its file, None if there is none, what was wrong with chunks, and whether writing failed."""

    node_id: str
    part: Part | None
    warnings: tuple[str, ...] = ()
    failed: bool = False


@dataclass
class Refreshed:
    """Result of `refresh`: files made, rows in them, what could not be made, and nodes with a file not written."""

    files: int = 0
    rows: int = 0
    warnings: list[str] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)


# ------------------------------------------------------------------ one bundle, on any engine


def name_of(node_id: str, begin: str, chunks: Iterable[str]) -> str:
    """Return the file name for the rows of these chunks (given by their hashes), beginning with a bundle or month."""
    content = "\n".join([str(TABLE_VERSION), begin, *sorted(chunks)])
    begin = begin if _IN_ORDER.match(begin) else "000000"
    return f"node_id={node_id}/{begin}-{sha256_of(content.encode('utf-8', 'surrogatepass'))[:32]}.parquet"


def make(task: Task) -> Made:
    """Write the rows of a bundle's chunks to a file.

    A chunk that has changed since it was imported gets no rows. Errors are returned as warnings.
    """
    good: dict[str, Path] = {}
    warnings = []
    for path, sha256, note in task.chunks:
        try:
            if (note is not None and note.is_of(path)) or digest_of(path) == sha256:
                good[sha256] = path
            else:
                warnings.append(f"{path} is damaged: see calyx-telemetry audit")
        except (CalyxError, OSError) as error:
            warnings.append(str(error))
    if not good:
        return Made(task.node_id, None, tuple(warnings))
    name = name_of(task.node_id, task.bundle, good)
    target = task.folder / name
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    batches = (batch for path in good.values() for batch in batches_of(path, task.node_id, bundle=task.bundle))
    try:
        files.make_dirs(target.parent)
        rows = write_parquet(temporary, batches)
        size, digest = temporary.stat().st_size, digest_of(temporary)
        files.rename_over(temporary, target, sync=False)
        return Made(task.node_id, Part(name, rows, size, digest, tuple(sorted(good))), tuple(warnings))
    except CalyxError as error:
        warnings.append(str(error))
    except OSError as error:
        warnings.append(f"{target}: {error.strerror or error}")
    except Exception as error:  # of one bundle: the others are not to go without rows for it
        warnings.append(f"{target}: {type(error).__name__}: {error}")
    with suppress(OSError):
        files.remove(temporary)
    return Made(task.node_id, None, tuple(warnings), failed=True)


# ------------------------------------------------------------------ nodes


def refresh(
    store: Store,
    node_ids: Iterable[str],
    engine: Engine | None = None,
    *,
    check: bool = False,
    anew: bool = False,
    look: bool = False,
) -> Refreshed:
    """Make the files that are missing, and put them in force; drop those of chunks that are no longer in the store.

    Args:
        store: the hub's.
        node_ids: whose.
        engine: makes them; None for this process.
        check: look at every file that is in force, and make again what is not whole.
        anew: make everything again.
        look: compare with the chunks of all these nodes, even if the catalog says that the table has them.

    Raises:
        StorageError: a folder cannot be read, or the table cannot be written.
        ConfigError: pyarrow is not installed.
    """
    schema()  # says which extra it needs
    result, made, damaged = Refreshed(), dict[str, list[Part]](), set[str]()
    tasks: list[Task] = []
    nodes = list(node_ids)
    is_needed = False
    if (check or look) and not is_as_written(store, parts_of(store)):
        store.catalog.renew()
    for node_id in nodes:
        plan = _plan(store, node_id, result, check=check, anew=anew, look=look)
        if plan is not None:
            made[node_id] = []
            tasks += plan.tasks
            damaged |= plan.damaged
            is_needed = is_needed or plan.is_needed
    size = sum(path.lstat().st_size for task in tasks for path, _, _ in task.chunks)
    _find_out_whether_writable(store, tasks)
    since = time.monotonic()
    for one in or_threads(engine, size).map(make, tasks, size):
        result.warnings += one.warnings
        if one.failed:
            result.failed.add(one.node_id)
        if one.part is not None:
            made[one.node_id].append(one.part)
            result.files += 1
            result.rows += one.part.rows
        if time.monotonic() > since + _OFTEN:  # what is done is kept, if this process is killed
            _put_all_in_force(store, made, damaged, anew=anew)
            since = time.monotonic()
    if made and (is_needed or check):
        try:
            _put_all_in_force(store, made, damaged, anew=anew)
            sweep(store, made)
        except StorageError:
            if is_needed:
                raise  # else it was to tidy up
    for node_id in nodes:
        _look_for_repeats(store, node_id)
    return result


@dataclass(frozen=True)
class _Plan:
    """Work for a node: files to make, files that are damaged, and whether anything is to change."""

    tasks: list[Task]
    damaged: set[str]
    is_needed: bool


def _plan(store: Store, node_id: str, result: Refreshed, *, check: bool, anew: bool, look: bool) -> _Plan | None:
    """Compare a node's files with its chunks; None if, according to the catalog, there is nothing to do."""
    entries, parts = store.load(node_id), parts_of(store, node_id)[node_id]
    damaged, tabled = gone_of(store, parts), _tabled(store, node_id)
    if not (damaged or check or anew or look) and tabled == {entry.manifest_sha256 for entry in entries}:
        return None
    holdings = holdings_of(store, entries)
    result.warnings += [*holdings.warnings, *_missing(store, holdings)]
    if check:
        with suppress(StorageError), store.catalog.changing() as change:
            seal(store, change, node_id, compared=0)
        result.warnings += _damaged(parts, holdings)
        damaged |= {part.name for part in parts if not _is_whole(store, part)}
    good = [] if anew else _good(parts, holdings, damaged)
    tasks = _tasks(store, node_id, holdings, good)
    done = _done(holdings, good) & {entry.manifest_sha256 for entry in store.indexed(node_id)}
    return _Plan(tasks, damaged, bool(tasks) or good != parts or done != tabled)


def _tabled(store: Store, node_id: str) -> set[str]:
    """Return the manifests' hashes of a node's bundles whose rows are in force."""
    rows = store.catalog.rows(
        "SELECT manifest_sha256 FROM bundles WHERE node_id = ? AND tabled = ?", [node_id, TABLE_VERSION]
    )
    return {manifest_sha256 for (manifest_sha256,) in rows}


def _tasks(store: Store, node_id: str, holdings: Holdings, good: Iterable[Part]) -> list[Task]:
    """Return tasks for the chunks that are not in a good file, bundle by bundle."""
    there = {sha256 for part in good for sha256 in part.chunks}
    missing: dict[Entry, list[Held]] = {}
    for sha256, held in holdings.by_hash.items():
        if sha256 not in there:
            missing.setdefault(held.entry, []).append(held)
    notes: Mapping[str, Note] = store.notes(entry for entry, _ in holdings.manifests) if missing else {}
    tasks = []
    for entry, chunks in sorted(missing.items(), key=lambda item: item[0].folder):
        for some in _portions(sorted(chunks, key=lambda one: one.name)):
            what = tuple((one.path, one.sha256, notes.get(one.sha256)) for one in some)
            tasks.append(Task(node_id, entry.folder, what, folder_of(store)))
    return tasks


def _portions(chunks: Iterable[Held]) -> Iterator[list[Held]]:
    """Yield chunks in portions that are large enough for a file of their own."""
    portion: list[Held] = []
    size = 0
    for one in chunks:
        portion.append(one)
        size += one.size + EACH
        if size >= _PORTION:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _good(parts: Sequence[Part], holdings: Holdings, damaged: set[str]) -> list[Part]:
    """Return the undamaged files that hold only chunks of the store."""
    return [part for part in parts if part.name not in damaged and holdings.by_hash.keys() >= set(part.chunks)]


def _done(holdings: Holdings, parts: Iterable[Part]) -> set[str]:
    """Return the manifest hashes of the bundles whose chunks, as far as the store has them, are all in files."""
    missing = holdings.by_hash.keys() - {sha256 for part in parts for sha256 in part.chunks}
    return {  # a chunk that another superseded is in no file, and its bundle is done all the same
        entry.manifest_sha256
        for entry, manifest in holdings.manifests
        if not missing or missing.isdisjoint(chunk.sha256 for chunk in manifest.chunks)
    }


def _put_all_in_force(store: Store, made: Mapping[str, list[Part]], damaged: set[str], *, anew: bool) -> None:
    with store.catalog.changing() as change:
        for node_id, new in made.items():
            _put_in_force(store, change, node_id, new, damaged, anew=anew)


def _put_in_force(
    store: Store, change: sqlite3.Connection, node_id: str, made: list[Part], damaged: set[str], *, anew: bool
) -> None:
    """Put files in force by what the store holds now, since others may have added more meanwhile."""
    holdings = holdings_of(store, store.load(node_id))
    before = parts_of(store, node_id)[node_id]
    parts = _good(before, holdings, damaged)
    if anew:  # but what holds a chunk that is damaged now, and could not be made again
        again = {sha256 for part in made for sha256 in part.chunks}
        parts = [part for part in parts if not again.issuperset(part.chunks)]
    there = {sha256 for part in parts for sha256 in part.chunks}
    for part in made:
        if there.isdisjoint(part.chunks) and holdings.by_hash.keys() >= set(part.chunks):
            parts.append(part)
            there.update(part.chunks)
    if set(parts) != set(before):
        swap(
            change,
            node_id,
            [part for part in before if part not in parts],
            [part for part in parts if part not in before],
        )
        seal(store, change, node_id, compared=0)
    else:
        seal(store, change, node_id)
    change.execute("UPDATE bundles SET tabled = 0 WHERE node_id = ?", [node_id])
    done = [(TABLE_VERSION, node_id, manifest_sha256) for manifest_sha256 in _done(holdings, parts)]
    change.executemany("UPDATE bundles SET tabled = ? WHERE node_id = ? AND manifest_sha256 = ?", done)


def _look_for_repeats(store: Store, node_id: str) -> None:
    """Find a node's repeated rows and record them, so that queries need not look for them."""
    if repeats_of(store, node_id) is not None:
        return
    folder, parts = folder_of(store), parts_of(store, node_id)[node_id]
    made = folder / f"node_id={node_id}" / f".{secrets.token_hex(8)}.tmp"
    try:
        name = ""
        if find_repeats([folder / part.name for part in parts], made):
            name = f"node_id={node_id}/repeats-{digest_of(made)[:32]}.parquet"
            files.rename_over(made, folder / name, sync=False)
        note_repeats(store, node_id, parts, name)
    except (CalyxError, OSError):  # without the database, and where nothing can be noted, it stays unknown
        with suppress(OSError):
            files.remove(made)


# ------------------------------------------------------------------ what is wrong


def _missing(store: Store, holdings: Holdings) -> Iterator[str]:
    """Yield the chunks that were imported but are no longer in the store."""
    for entry, manifest in holdings.manifests:
        for chunk in manifest.chunks:
            if chunk.filename not in holdings.chunks:
                yield f"{chunk.filename} of bundle {store.bundle(entry)} is not in the store any more"


def _damaged(parts: Iterable[Part], holdings: Holdings) -> Iterator[str]:
    """Yield the chunks that have rows but have changed since."""
    there = {sha256 for part in parts for sha256 in part.chunks}
    for held in holdings.chunks.values():
        if held.sha256 in there and not held.is_whole():
            yield f"{held.path} is damaged: see calyx-telemetry audit"


def _is_whole(store: Store, part: Part) -> bool:
    path = folder_of(store) / part.name
    try:
        return rows_in(path) == part.rows and digest_of(path) == part.sha256
    except (CalyxError, OSError):
        return False


def _find_out_whether_writable(store: Store, tasks: Sequence[Task]) -> None:
    """Check once that the table can be written, before thousands of tasks fail."""
    try:
        for node_id in {task.node_id for task in tasks}:
            refuse_links(store, node_id)
        for task in tasks[:1]:
            folder = task.folder / f"node_id={task.node_id}"
            files.make_dirs(folder)
            path = folder / f".{secrets.token_hex(4)}.tmp"
            files.write_new(path, [], sync=False)
            files.remove(path)
    except OSError as error:
        raise StorageError.of(
            error, "write the table", error.filename or folder_of(store), "check rights and space"
        ) from error
