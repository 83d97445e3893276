"""The hub's stored table: one Parquet file for each chunk, and which files are in force.

    telemetry/federated/.table/node_id=<node_id>/<chunk sha256>.parquet   a chunk's rows
    telemetry/federated/.table/node_id=<node_id>/set-<hash>.parquet       those of all chunks of the node, compacted
    telemetry/federated/.table/current.json                               the files in force, and what they hold
    telemetry/federated/.table/.lock, .compact.lock                       held while that is changed, or one compacts

The table is made from the chunks, which stay; it can be deleted at any time. Invariants: a file has its name only when
it is whole, and its name says what is in it, so that whoever makes it a second time changes nothing; readers and
writers go by `current.json` alone, which is replaced in one step: a file that it does not name has no rows. A file that
is no longer in force stays for a while, for who has just read the `current.json` before.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from calyx_logging import durable
from calyx_logging.chunk import names_in
from calyx_logging.engine import Engine, Here
from calyx_logging.errors import CalyxError, StorageError
from calyx_logging.holdings import Holdings, digest_of, holdings_of
from calyx_logging.locks import os_lock
from calyx_logging.node import is_node_id
from calyx_logging.store import Store
from calyx_logging.table import batches_of, rows_in, schema, write_parquet

__all__ = [
    *("Current", "Made", "NodeTable", "Part", "Refreshed", "Task"),
    *("behind", "current", "folder_of", "lost", "make", "refresh", "swap"),
]

VERSION = 1
_CURRENT = "current.json"
_GRACE = 600.0
"""Seconds that a file stays when it is no longer in force."""

_LEFT = 86_400.0
"""Seconds after which a file that nobody names, and nobody finished, is deleted."""


@dataclass(frozen=True)
class Part:
    """A file in force.

    Attributes:
        name: below the table's folder.
        rows: in it.
        chunks: the hashes of the chunks whose rows they are.
        compacted: whether `repeated` says which of its rows are there more than once.
    """

    name: str
    rows: int
    chunks: tuple[str, ...]
    compacted: bool = False


@dataclass
class NodeTable:
    """What is in force of one node: its files, and the bundles (hashes of manifests) whose chunks they hold."""

    parts: list[Part] = field(default_factory=list)
    bundles: set[str] = field(default_factory=set)

    @property
    def chunks(self) -> set[str]:
        """The hashes of the chunks that the files hold."""
        return {sha256 for part in self.parts for sha256 in part.chunks}


@dataclass
class Current:
    """What is in force, by node, and since when (seconds since the epoch) files are not."""

    nodes: dict[str, NodeTable] = field(default_factory=dict)
    retired: dict[str, float] = field(default_factory=dict)


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
    """What became of it: the rows of its file, or why there is none."""

    node_id: str
    sha256: str
    rows: int = 0
    why_not: str | None = None


@dataclass
class Refreshed:
    """What `refresh` did: files made, rows in them, and what could not be made."""

    files: int = 0
    rows: int = 0
    warnings: list[str] = field(default_factory=list)


def folder_of(store: Store) -> Path:
    """Where the table is."""
    return store.folder / ".table"


# ------------------------------------------------------------------ one chunk, on any engine


def make(task: Task) -> Made:
    """Write a chunk's rows to its file; one that is there and whole stays.

    A chunk whose hash is another than it was when it came has no rows. Errors are for the one who asked: they are
    returned.
    """
    temporary = task.target.with_name(f".{task.target.stem}.{secrets.token_hex(4)}.tmp")
    try:
        if task.anew or (rows := rows_in(task.target)) is None:
            durable.make_dirs(task.target.parent)
            if digest_of(task.path) != task.sha256:
                return Made(task.node_id, task.sha256, why_not=f"{task.path} is damaged: see calyx-telemetry audit")
            rows = write_parquet(temporary, batches_of(task.path, task.node_id, bundle=task.bundle))
            durable.rename_over(temporary, task.target)
        return Made(task.node_id, task.sha256, rows)
    except CalyxError as error:
        return Made(task.node_id, task.sha256, why_not=str(error))
    except OSError as error:
        with suppress(OSError):
            durable.remove(temporary)
        return Made(task.node_id, task.sha256, why_not=f"{task.target}: {error.strerror or error}")


# ------------------------------------------------------------------ what is in force


def current(store: Store) -> Current:
    """What is in force; nothing where that cannot be read, or was written by another version."""
    try:
        document = orjson.loads(durable.read_regular(folder_of(store) / _CURRENT))
        if document["table_version"] != VERSION:
            return Current()
        nodes = {
            node_id: NodeTable([_part(node_id, one) for one in said["files"]], set(map(str, said["bundles"])))
            for node_id, said in document["nodes"].items()
            if is_node_id(node_id)
        }
        return Current(nodes, {str(name): float(since) for name, since in document["retired"].items()})
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return Current()  # it is made anew


def _part(node_id: str, said: dict[str, Any]) -> Part:
    name: str = said["name"]
    folder, _, file = name.partition("/")
    if folder != f"node_id={node_id}" or "/" in file or "\\" in file or not file.endswith(".parquet"):
        raise ValueError("a file outside the table")
    return Part(name, int(said["rows"]), tuple(said["chunks"]), said["compacted"] is True)


def lost(store: Store, found: Current) -> list[str]:
    """The nodes of which a file that is in force is not there."""
    folder = folder_of(store)
    there = {node_id: set(names_in(folder / f"node_id={node_id}")) for node_id in found.nodes}
    return sorted(
        node_id
        for node_id, table in found.nodes.items()
        if any(part.name.partition("/")[2] not in there[node_id] for part in table.parts)
    )


def behind(store: Store, found: Current) -> list[str]:
    """The nodes of which the import index knows bundles that the table has not; reads no manifest."""
    said: dict[str, set[str]] = {}
    for entry in store.said():
        said.setdefault(entry.node_id, set()).add(entry.manifest_sha256)
    return sorted(node for node, hashes in said.items() if hashes - found.nodes.get(node, NodeTable()).bundles)


@contextmanager
def _changing(store: Store) -> Iterator[Current]:
    """What is in force, to be changed, with nobody else at it; written when it has been."""
    folder = folder_of(store)
    try:
        with os_lock(folder / ".lock"):
            found = current(store)
            before = {part.name for table in found.nodes.values() for part in table.parts}
            yield found
            now = time.time()
            names = {part.name for table in found.nodes.values() for part in table.parts}
            found.retired |= dict.fromkeys(before - names, now)
            gone = [name for name, since in found.retired.items() if name in names or since < now - _GRACE]
            for name in gone:
                del found.retired[name]
            document = {
                "table_version": VERSION,
                "nodes": {
                    node_id: {"bundles": sorted(table.bundles), "files": [_document(part) for part in table.parts]}
                    for node_id, table in sorted(found.nodes.items())
                },
                "retired": found.retired,
            }
            durable.replace_file(folder / _CURRENT, orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE))
            for name in set(gone) - names:
                with suppress(OSError):  # on Windows somebody reads it
                    durable.remove(folder / name)
    except OSError as error:
        raise StorageError.of(error, "write the table", error.filename or folder, "check rights and space") from error


def _document(part: Part) -> dict[str, Any]:
    return {"name": part.name, "rows": part.rows, "chunks": list(part.chunks), "compacted": part.compacted}


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
    size = 0
    for node_id in node_ids:
        table = NodeTable() if anew else found.nodes.get(node_id, NodeTable())
        entries = store.load(node_id)
        if not (check or anew) and table.bundles == {entry.manifest_sha256 for entry in entries}:
            continue
        made[node_id] = []
        holdings = holdings_of(store, entries)
        result.warnings += holdings.warnings
        if check:
            damaged |= {part.name for part in table.parts if not _is_whole(store, part)}
        parts = _in_force(table, holdings, damaged)
        there = {sha256 for part in parts for sha256 in part.chunks}
        for sha256 in holdings.by_hash.keys() - there:
            one = holdings.by_hash[sha256]
            target = folder_of(store) / f"node_id={node_id}" / f"{sha256}.parquet"
            tasks.append(Task(one.path, node_id, one.entry.folder, sha256, target, anew))
            size += one.size
    tasks.sort(key=lambda task: (task.node_id, task.path))
    _find_out_whether_writable(store, tasks)
    for one_made in (engine or Here()).map(make, tasks, size):
        if one_made.why_not is not None:
            result.warnings.append(one_made.why_not)
            continue
        made[one_made.node_id].append(one_made)
        result.files += 1
        result.rows += one_made.rows
    if made:
        _put_in_force(store, made, damaged, anew=anew)
    return result


def _is_whole(store: Store, part: Part) -> bool:
    return rows_in(folder_of(store) / part.name, whole=True) == part.rows


def _in_force(table: NodeTable, holdings: Holdings, damaged: Collection[str]) -> list[Part]:
    """The files that are not damaged and hold chunks of the store alone."""
    return [
        part
        for part in table.parts
        if part.name not in damaged and all(sha256 in holdings.by_hash for sha256 in part.chunks)
    ]


def _find_out_whether_writable(store: Store, tasks: Sequence[Task]) -> None:
    """Once, before thousands of tasks say so."""
    try:
        for folder in {task.target.parent for task in tasks[:1]}:
            durable.make_dirs(folder)
            path = folder / f".{secrets.token_hex(4)}.tmp"
            durable.write_new(path, [], sync=False)
            durable.remove(path)
    except OSError as error:
        raise StorageError.of(
            error, "write the table", error.filename or folder_of(store), "check rights and space"
        ) from error


def _put_in_force(store: Store, made: dict[str, list[Made]], damaged: set[str], *, anew: bool) -> None:
    """By what the store holds now: somebody else may have brought more, and put it in force, meanwhile."""
    with _changing(store) as found:
        for node_id, new in made.items():
            holdings = holdings_of(store, store.load(node_id))
            table = found.nodes.setdefault(node_id, NodeTable())
            # what was there before is damaged, or its chunks were made again, under other names or the same
            parts = _in_force(table, holdings, damaged)
            if anew:
                again = {one.sha256 for one in new}
                parts = [part for part in parts if not again.intersection(part.chunks)]
            there = {sha256 for part in parts for sha256 in part.chunks}
            for one in new:
                if one.sha256 not in there and one.sha256 in holdings.by_hash:
                    parts.append(Part(f"node_id={node_id}/{one.sha256}.parquet", one.rows, (one.sha256,)))
                    there.add(one.sha256)
            table.parts = sorted(parts, key=lambda part: part.name)
            # a chunk that another superseded is in no file, and its bundle is done all the same
            missing = holdings.by_hash.keys() - there
            table.bundles = {
                entry.manifest_sha256
                for entry, manifest in holdings.manifests
                if not missing or missing.isdisjoint(chunk.sha256 for chunk in manifest.chunks)
            }
        _sweep(store, found, made)


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
                    durable.remove(path)


def swap(store: Store, node_id: str, old: Sequence[Part], new: Sequence[Part]) -> bool:
    """Put files in force in the place of others; False where those are not in force any more.

    Raises:
        StorageError: the table cannot be written.
    """
    with _changing(store) as found:
        table = found.nodes.get(node_id, NodeTable())
        if not set(old) <= set(table.parts):
            return False
        table.parts = sorted([*(set(table.parts) - set(old)), *new], key=lambda part: part.name)
        return True
