"""Record which files of the hub's stored table are in force: `current.json`, the only list readers and writers use.

It is replaced in one step; a file that it does not name has no rows. A file that is no longer in force stays for a
while, for readers of the previous `current.json`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from calyx_logging.core import files
from calyx_logging.core.os_lock import OsLock
from calyx_logging.core.reading import names_in
from calyx_logging.errors import StorageError
from calyx_logging.hub.store import Store
from calyx_logging.node import is_node_id
from calyx_logging.query.rows import TABLE_VERSION

__all__ = ["Current", "NodeTable", "Part", "behind", "changing", "current", "folder_of", "lost", "note_unique", "swap"]

_CURRENT = "current.json"
_GRACE = 600.0
"""Seconds for which a file is kept when it is no longer in force."""


@dataclass(frozen=True)
class Part:
    """A file in force.

    Attributes:
        name: below the table's folder.
        rows: in it.
        sha256: its own hash.
        chunks: the hashes of the chunks whose rows they are.
        compacted: whether `repeated` says which of its rows are there more than once.
    """

    name: str
    rows: int
    sha256: str
    chunks: tuple[str, ...]
    compacted: bool = False


@dataclass
class NodeTable:
    """Files in force of one node.

    Attributes:
        parts: the files.
        bundles: hashes of the manifests whose chunks they hold.
        unique: whether it is known that no event is in them twice.
    """

    parts: list[Part] = field(default_factory=list)
    bundles: set[str] = field(default_factory=set)
    unique: bool = False

    @property
    def chunks(self) -> set[str]:
        """The hashes of the chunks that the files hold."""
        return {sha256 for part in self.parts for sha256 in part.chunks}


@dataclass
class Current:
    """Files in force, by node, and when (seconds since the epoch) others ceased to be."""

    nodes: dict[str, NodeTable] = field(default_factory=dict)
    retired: dict[str, float] = field(default_factory=dict)


def folder_of(store: Store) -> Path:
    """Return the table's folder."""
    return store.folder / ".table"


def current(store: Store) -> Current:
    """Read what is in force; empty if it cannot be read or another version wrote it."""
    try:
        document = orjson.loads(files.read_regular(folder_of(store) / _CURRENT))
        if document["table_version"] != TABLE_VERSION:
            return Current()
        nodes = {
            node_id: NodeTable(
                [_part(node_id, one) for one in table["files"]],
                set(map(str, table["bundles"])),
                table.get("unique") is True,
            )
            for node_id, table in document["nodes"].items()
            if is_node_id(node_id)
        }
        retired = {name: float(since) for name, since in document["retired"].items() if _is_ours(name)}
        return Current(nodes, retired)
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return Current()  # it is made anew


def _part(node_id: str, entry: dict[str, Any]) -> Part:
    name: str = entry["name"]
    if not name.startswith(f"node_id={node_id}/") or not _is_ours(name):
        raise ValueError("a file outside the table")
    return Part(name, int(entry["rows"]), entry["sha256"], tuple(entry["chunks"]), entry["compacted"] is True)


def _is_ours(name: str) -> bool:
    """Tell whether a name has the form of the table's file names."""
    folder, _, file = name.partition("/")
    is_plain = not (set(file) & set("/\\:\0")) and file.endswith(".parquet") and not file.startswith(".")
    return is_plain and folder.startswith("node_id=") and is_node_id(folder.removeprefix("node_id="))


def lost(store: Store, found: Current) -> list[str]:
    """Return the nodes that lack a file that is in force."""
    folder = folder_of(store)
    there = {node_id: set(names_in(folder / f"node_id={node_id}")) for node_id in found.nodes}
    return sorted(
        node_id
        for node_id, table in found.nodes.items()
        if any(part.name.partition("/")[2] not in there[node_id] for part in table.parts)
    )


def behind(store: Store, found: Current) -> list[str]:
    """Return the nodes whose bundles, by import index and folder names, differ from the table's; quick."""
    indexed: dict[str, set[str]] = {node_id: set() for node_id in found.nodes}
    for entry in store.indexed():
        indexed.setdefault(entry.node_id, set()).add(entry.manifest_sha256)
    other = {node for node, hashes in indexed.items() if hashes != found.nodes.get(node, NodeTable()).bundles}
    return sorted(other.union(store.strangers()))


@contextmanager
def changing(store: Store) -> Iterator[Current]:
    """Lock the table and yield what is in force, to be changed; write it at the end."""
    folder = folder_of(store)
    try:
        with OsLock(folder / ".lock"):
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
                "table_version": TABLE_VERSION,
                "nodes": {
                    node_id: {
                        "bundles": sorted(table.bundles),
                        "files": [_document(part) for part in table.parts],
                        "unique": table.unique,
                    }
                    for node_id, table in sorted(found.nodes.items())
                },
                "retired": found.retired,
            }
            files.replace_file(folder / _CURRENT, orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE))
            for name in set(gone) - names:
                with suppress(OSError):  # on Windows somebody reads it
                    files.remove(folder / name)
    except OSError as error:
        raise StorageError.of(error, "write the table", error.filename or folder, "check rights and space") from error


def _document(part: Part) -> dict[str, Any]:
    named = {"name": part.name, "rows": part.rows, "sha256": part.sha256}
    return {**named, "chunks": list(part.chunks), "compacted": part.compacted}


def note_unique(store: Store, node_id: str, parts: Sequence[Part]) -> None:
    """Note that no event is twice in a node's files, if these are still its files.

    Raises:
        StorageError: the table cannot be written.
    """
    with changing(store) as found:
        table = found.nodes.get(node_id, NodeTable())
        table.unique = table.unique or table.parts == list(parts)


def swap(store: Store, node_id: str, old: Sequence[Part], new: Sequence[Part]) -> bool:
    """Put files in force in the place of others; False where those are not in force any more.

    Raises:
        StorageError: the table cannot be written.
    """
    with changing(store) as found:
        table = found.nodes.get(node_id, NodeTable())
        if not set(old) <= set(table.parts):
            return False
        table.parts = sorted([*(set(table.parts) - set(old)), *new], key=lambda part: part.name)
        table.unique = False
        return True
