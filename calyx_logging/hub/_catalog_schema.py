"""The catalog's tables, and the initial content of a new one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from calyx_logging.core import files, json_bytes
from calyx_logging.errors import ManifestError
from calyx_logging.format.manifest import loads_object
from calyx_logging.node import is_node_id

__all__ = ["OURS", "SCHEMA", "VERSION", "add_notes", "indexed_in", "take_over"]

VERSION = 3
OURS = int.from_bytes(b"calx", "big")

SCHEMA = f"""
CREATE TABLE bundles (
    node_id TEXT NOT NULL, folder TEXT NOT NULL, manifest_sha256 TEXT NOT NULL, imported_at TEXT NOT NULL,
    mark TEXT NOT NULL DEFAULT '',           -- the state of the manifest's file: time, size, inode
    listed INTEGER NOT NULL DEFAULT 0,       -- whether .import_index.json names it
    tabled INTEGER NOT NULL DEFAULT 0,       -- the version of the table that has its rows
    PRIMARY KEY (node_id, folder, manifest_sha256)
) WITHOUT ROWID;
CREATE INDEX bundles_by_manifest ON bundles (manifest_sha256);
CREATE INDEX bundles_by_listed ON bundles (listed);
CREATE INDEX bundles_by_tabled ON bundles (tabled, node_id);
CREATE TABLE notes (                         -- findings of an import about a chunk
    node_id TEXT NOT NULL, manifest_sha256 TEXT NOT NULL, sha256 TEXT NOT NULL, filename TEXT NOT NULL,
    bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, scan TEXT NOT NULL,
    PRIMARY KEY (node_id, manifest_sha256, sha256)
) WITHOUT ROWID;
CREATE TABLE nodes (
    node_id TEXT PRIMARY KEY,
    mtime_ns INTEGER NOT NULL DEFAULT -1,    -- of its folder, at a time when its names were those of its bundles
    compared INTEGER NOT NULL DEFAULT 0,     -- whether repeated events have been looked for in its files
    repeats TEXT NOT NULL DEFAULT '',        -- the file that lists their rows; empty if there are none
    digest TEXT NOT NULL DEFAULT ''          -- hash of these two and of its files in force
) WITHOUT ROWID;
CREATE TABLE files (                         -- Parquet files of the table
    name TEXT PRIMARY KEY, node_id TEXT NOT NULL, version INTEGER NOT NULL, rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL, sha256 TEXT NOT NULL,
    chunks TEXT NOT NULL,                    -- hashes of the chunks whose rows it has, with spaces between
    compacted INTEGER NOT NULL DEFAULT 0,
    retired REAL                             -- since when it is not in force, in seconds since the epoch
) WITHOUT ROWID;
CREATE INDEX files_by_node ON files (node_id);
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;  -- index: the state of .import_index.json
PRAGMA application_id = {OURS};
PRAGMA user_version = {VERSION};
"""


def indexed_in(index: Path) -> list[tuple[str, str, str, str]] | None:
    """Return node id, folder, manifest hash and time of each bundle in an import index; None if it cannot be read."""
    try:
        document = loads_object(files.read_regular(index), "the import index")
    except (OSError, ManifestError):
        return None
    imports: Any = document.get("imports")
    found = []
    for one in imports if isinstance(imports, list) else ():
        if isinstance(one, dict):
            names = ("source_node_id", "export_folder", "manifest_sha256", "imported_at")
            node_id, folder, manifest_sha256, imported_at = (str(one.get(name)) for name in names)
            if all(isinstance(one.get(name), str) for name in names):  # those of the first generation have no hash
                found.append((node_id, folder, manifest_sha256, imported_at))
    return found


def take_over(connection: sqlite3.Connection, folder: Path, index: Path) -> None:
    """Fill a new catalog from the import index, and from the notes that version 0.1 kept in files."""
    entries = [entry for entry in indexed_in(index) or () if is_node_id(entry[0])]
    connection.executemany(
        "INSERT OR IGNORE INTO bundles (node_id, folder, manifest_sha256, imported_at, listed) VALUES (?, ?, ?, ?, 1)",
        entries,
    )
    connection.executemany("INSERT OR IGNORE INTO nodes (node_id) VALUES (?)", {(node_id,) for node_id, *_ in entries})
    for node_id, _, manifest_sha256, _ in entries:
        if manifest_sha256.isalnum():
            path = folder / ".checked" / node_id / f"{manifest_sha256}.json"
            with suppress(OSError, ManifestError, KeyError, TypeError, ValueError):
                notes = loads_object(files.read_regular(path), "notes")
                add_notes(connection, node_id, manifest_sha256, notes["chunks"])


def add_notes(
    connection: sqlite3.Connection, node_id: str, manifest_sha256: str, chunks: Iterable[dict[str, Any]]
) -> None:
    """Add notes about a bundle's chunks, as documents of a scan with `filename`, `sha256`, `bytes` and `mtime_ns`."""
    rows = [
        (
            *(node_id, manifest_sha256, str(one["sha256"]), str(one["filename"])),
            *(int(one["bytes"]), int(one["mtime_ns"]), json_bytes.dumps(one).decode()),
        )
        for one in chunks
    ]
    connection.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
