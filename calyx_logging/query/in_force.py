"""List the files of the hub's stored table that are in force, according to the catalog.

Readers and writers use this list alone: a file that it does not name is not read. A file that is no longer in force
stays for a while, for queries that have already begun.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from calyx_logging.core import files
from calyx_logging.core.reading import names_in, sha256_of
from calyx_logging.errors import StorageError
from calyx_logging.hub.store import Store
from calyx_logging.node import is_node_id
from calyx_logging.query.rows import TABLE_VERSION

__all__ = [
    "Part",
    "behind",
    "folder_of",
    "gone_of",
    "is_as_written",
    "lost",
    "note_repeats",
    "parts_of",
    "refuse_links",
    "repeats_of",
    "seal",
    "swap",
    "sweep",
]

_GRACE = 600.0
"""Seconds for which a file is kept when it is no longer in force."""

_LEFT = 86_400.0
"""Seconds after which an unreferenced or unfinished file is deleted."""


@dataclass(frozen=True)
class Part:
    """A Parquet file.

    Attributes:
        name: below the table's folder: the node's folder, then the month of its bundles.
        rows: in it.
        bytes: its size.
        sha256: its own hash.
        chunks: the hashes of the chunks whose rows they are.
        compacted: whether it has the rows of a month, in order of time.
    """

    name: str
    rows: int
    bytes: int
    sha256: str
    chunks: tuple[str, ...]
    compacted: bool = False

    @property
    def month(self) -> str:
        """Return the year and the month in which its bundles were exported, as YYYYMM."""
        return self.name.partition("/")[2].partition("-")[0][:6]


def folder_of(store: Store) -> Path:
    """Return the table's folder."""
    return store.folder / ".table"


def parts_of(store: Store, node_id: str | None = None) -> dict[str, list[Part]]:
    """Return the files in force, by node; of one node, or of all."""
    sql = (
        "SELECT node_id, name, rows, bytes, sha256, chunks, compacted FROM files WHERE version = ? AND retired IS NULL"
    )
    found: dict[str, list[Part]] = {} if node_id is None else {node_id: []}
    one = () if node_id is None else (node_id,)
    rows = store.catalog.rows(f"{sql}{' AND node_id = ?' * len(one)} ORDER BY name", (TABLE_VERSION, *one))
    for node, name, count, size, sha256, chunks, compacted in rows:
        if _is_ours(name) and name.startswith(f"node_id={node}/"):
            part = Part(name, count, size, sha256, tuple(chunks.split()), bool(compacted))
            found.setdefault(node, []).append(part)
    return found


def behind(store: Store) -> list[str]:
    """Return the nodes with bundles that are not in the table, or with repeats that were not looked for; quick."""
    rows = store.catalog.rows(
        "SELECT node_id FROM bundles WHERE tabled < ?1 UNION SELECT node_id FROM bundles WHERE tabled > ?1 "
        "UNION SELECT node_id FROM nodes WHERE NOT compared",
        [TABLE_VERSION],
    )
    return sorted({node_id for (node_id,) in rows}.union(store.strangers()))


def lost(store: Store, parts: dict[str, list[Part]]) -> list[str]:
    """Return the nodes that lack a file that is in force, or have it with another size."""
    return sorted(node_id for node_id, some in parts.items() if gone_of(store, some))


def is_as_written(store: Store, parts: dict[str, list[Part]]) -> bool:
    """Tell whether the catalog's data on the table matches its digests; if not, it is damaged and must be rebuilt."""
    noted = {node_id: more for node_id, *more in store.catalog.rows(f"SELECT node_id, {_NOTED} FROM nodes")}
    if parts.keys() - noted.keys():
        return False
    return all(
        digest == _digest(parts.get(node_id, []), compared, repeats)
        for node_id, (compared, repeats, digest) in noted.items()
        if digest or compared or repeats or parts.get(node_id)
    )


_NOTED = "compared, repeats, digest"


def _digest(parts: Iterable[Part], compared: int, repeats: str) -> str:
    """Return a hash of the catalog's data on a node's table."""
    text = repr((sorted(map(repr, parts)), compared, repeats))
    return sha256_of(text.encode("utf-8", "surrogatepass"))[:32]


def seal(store: Store, change: sqlite3.Connection, node_id: str, **values: int | str) -> None:
    """Set values of a node (`compared`, `repeats`), and update its digest; call this after each change of its files."""
    change.execute("INSERT OR IGNORE INTO nodes (node_id) VALUES (?)", [node_id])
    for name, value in values.items():
        change.execute(f"UPDATE nodes SET {name} = ? WHERE node_id = ?", [value, node_id])
    (noted,) = change.execute("SELECT compared, repeats FROM nodes WHERE node_id = ?", [node_id])
    digest = _digest(parts_of(store, node_id)[node_id], *noted)
    change.execute("UPDATE nodes SET digest = ? WHERE node_id = ?", [digest, node_id])


def refuse_links(store: Store, node_id: str) -> None:
    """Refuse to work in a folder that is a symbolic link, because its target is not the hub's.

    Raises:
        StorageError: the table's folder is one, or the node's in it.
    """
    for folder in (folder_of(store), folder_of(store) / f"node_id={node_id}"):
        if folder.is_symlink():
            raise StorageError("is a symbolic link", path=folder, hint="delete the link: the table is then made again")


def gone_of(store: Store, parts: Iterable[Part]) -> set[str]:
    """Return the names of files that are not there, or have another size."""
    folder = folder_of(store)
    links: dict[Path, bool] = {}

    def is_link(path: Path) -> bool:
        if path not in links:
            links[path] = path.is_symlink()
        return links[path]

    return {
        part.name
        for part in parts
        if is_link(folder) or is_link((folder / part.name).parent) or _size(folder / part.name) != part.bytes
    }


def _is_ours(name: str) -> bool:
    """Tell whether a name has the form of the table's file names."""
    folder, _, file = name.partition("/")
    is_plain = not (set(file) & set("/\\:\0")) and file.endswith(".parquet") and not file.startswith(".")
    return is_plain and folder.startswith("node_id=") and is_node_id(folder.removeprefix("node_id="))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return -1


def swap(change: sqlite3.Connection, node_id: str, old: Iterable[Part], new: Iterable[Part]) -> None:
    """Put files in force in the place of others."""
    names = [(time.time(), part.name) for part in old]
    change.executemany("UPDATE files SET retired = ? WHERE name = ?", names)
    rows = [
        (part.name, node_id, TABLE_VERSION, part.rows, part.bytes, part.sha256, " ".join(part.chunks), part.compacted)
        for part in new
    ]
    change.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)", rows)


def repeats_of(store: Store, node_id: str) -> list[Path] | None:
    """Return the file that lists a node's repeated rows, or an empty list if it has none; None if it is unknown."""
    found = store.catalog.rows("SELECT repeats FROM nodes WHERE node_id = ? AND compared", [node_id])
    paths = [folder_of(store) / name for (name,) in found if name and _is_ours(name)]
    return paths if found and all(path.is_file() and not path.is_symlink() for path in paths) else None


def note_repeats(store: Store, node_id: str, parts: Sequence[Part], name: str) -> None:
    """Record the file that lists a node's repeated rows ('' if it has none), if its files have not changed since.

    Raises:
        StorageError: the catalog cannot be written.
    """
    with store.catalog.changing() as change:
        if parts_of(store, node_id)[node_id] == list(parts):
            seal(store, change, node_id, compared=1, repeats=name)


def sweep(store: Store, node_ids: Iterable[str]) -> None:
    """Delete files that have long been out of force, and those that were left half-made.

    Raises:
        StorageError: the catalog cannot be written.
    """
    folder, now = folder_of(store), time.time()
    known = dict(store.catalog.rows("SELECT name, retired FROM files UNION ALL SELECT repeats, NULL FROM nodes"))
    gone = [name for name, retired in known.items() if retired is not None and retired < now - _GRACE]
    for node_id in node_ids:
        refuse_links(store, node_id)
        for file in names_in(folder / f"node_id={node_id}"):
            path = folder / f"node_id={node_id}" / file
            with suppress(OSError):
                if f"node_id={node_id}/{file}" not in known and path.lstat().st_mtime < now - _LEFT:
                    files.remove(path)
    with suppress(OSError):
        files.remove(folder / "current.json")  # of an earlier version's table
    for name in gone:
        with suppress(OSError):  # on Windows somebody reads it
            if _is_ours(name):
                files.remove(folder / name)
    if gone:
        with store.catalog.changing() as change:
            change.executemany(
                "DELETE FROM files WHERE name = ? AND retired < ?", [(name, now - _GRACE) for name in gone]
            )
