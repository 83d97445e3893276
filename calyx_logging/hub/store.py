"""The hub's store: imported bundles by node, and the staging area.

    telemetry/federated/<node_id>/<YYYYMMDD_HHMMSS>/    an imported bundle's chunks, verbatim, and its manifest
    telemetry/federated/.catalog.sqlite3                what is known about them, see `catalog`
    telemetry/federated/.import_index.json              which bundles are in it, for the first generation
    telemetry/federated/.import.lock                    held while bundles are put in
    telemetry/federated/.staging/                       copies being verified, each with a lock while its importer lives
    telemetry/federated/.quarantine/                    what contradicts the store
    telemetry/federated/.receipts/<node_id>.json        what the hub acknowledges, and .json.sig
    telemetry/federated/.refused/                       which bundles were refused, and why
    telemetry/federated/.allowed_signers, .revoked_keys whose signatures are valid

Invariants: a bundle's folder has its final name only when it is whole; loading compares the catalog with the folders,
which are what counts.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from calyx_logging.core import files, json_bytes
from calyx_logging.core.carriers import left_by
from calyx_logging.core.os_lock import OsLock
from calyx_logging.core.reading import names_in, sha256_of
from calyx_logging.core.times import utc_text
from calyx_logging.errors import ConfigError, ManifestError, RootNotFound, StorageError
from calyx_logging.format.line_check import Scan
from calyx_logging.format.manifest import MANIFEST_NAME, Manifest, is_safe_filename
from calyx_logging.format.receipt import RECEIPTS_DIR
from calyx_logging.hub._catalog_schema import add_notes, indexed_in
from calyx_logging.hub._staging import staging_in
from calyx_logging.hub.catalog import Catalog, mark_of
from calyx_logging.node import is_node_id

__all__ = ["Entry", "Note", "Store", "find_hub"]

_STORE = Path("telemetry", "federated")
_TICK = 3.0
"""Seconds between two changes of a folder that give it different times of change on every file system."""


@dataclass(frozen=True)
class Entry:
    """One imported bundle.

    Attributes:
        node_id: whose.
        folder: its folder's name in the store.
        manifest_sha256: which it is.
        imported_at: UTC, as `ts_utc`.
    """

    node_id: str
    folder: str
    manifest_sha256: str
    imported_at: str


@dataclass(frozen=True)
class Note:
    """Facts about a chunk, noted at its import.

    Attributes:
        scan: what its lines say.
        size: its bytes.
        mtime_ns: when its file was last written to, which a rename does not change.
    """

    scan: Scan
    size: int
    mtime_ns: int

    def is_of(self, path: Path) -> bool:
        """Whether the chunk's file is as it was noted."""
        try:
            state = path.lstat()
        except OSError:
            return False
        return (self.size, self.mtime_ns) == (state.st_size, state.st_mtime_ns)


class Store:
    """The store below a hub's root.

    Args:
        root: the folder that holds `telemetry`.

    Attributes:
        catalog: records what is known about the bundles.
        unsettled: nodes with bundles that the catalog did not know when they were loaded; their import may have been
            killed before it finished.
    """

    def __init__(self, root: Path) -> None:
        self.root = files.reachable(root)
        self.folder = self.root / _STORE
        self.quarantine = self.folder / ".quarantine"
        self.signers = self.folder / ".allowed_signers"
        self.revoked = self.folder / ".revoked_keys"
        self.receipts = self.folder / RECEIPTS_DIR
        self.refused = self.folder / ".refused"
        self.catalog = Catalog(self.folder)
        self.unsettled: set[str] = set()
        self._read: dict[Path, tuple[str, str, Manifest | None]] = {}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the store's lock, so that no other import writes; wait for it if need be."""
        with OsLock(self.folder / ".import.lock"):
            yield

    def staging(self) -> AbstractContextManager[Path]:
        """Create a private folder to prepare a bundle in; remove it afterwards if it is still there."""
        return staging_in(self.folder)

    def bundle(self, entry: Entry) -> Path:
        """Return the folder of an imported bundle."""
        return self.folder / entry.node_id / entry.folder

    def spellings_of(self, node_id: str) -> list[str]:
        """Return the store's nodes with this id, or with the same id in another spelling."""
        return [name for name in self.nodes() if name.casefold() == node_id.casefold()]

    def nodes(self) -> list[str]:
        """Return the nodes that have a folder in the store."""
        return [name for name in names_in(self.folder) if is_node_id(name) and _is_folder(self.folder / name)]

    def load(self, node_id: str | None = None, *, anew: bool = False) -> list[Entry]:
        """List every bundle in the store, or of one node, in the order of their folders; write nothing.

        Args:
            node_id: of a node; None for all.
            anew: read every manifest, instead of only those whose files are not as the catalog knows them.

        Raises:
            StorageError: a folder or the catalog cannot be read.
        """
        entries = []
        self.unsettled = set()
        for node in self.nodes() if node_id is None else [node_id]:
            if not _is_folder(self.folder / node):
                continue
            known: dict[str, list[tuple[Entry, str]]] = defaultdict(list)
            for *values, mark in self.catalog.rows(f"SELECT {_ENTRY}, mark FROM bundles WHERE node_id = ?", [node]):
                known[values[1]].append((Entry(*values), mark))
            for name in names_in(self.folder / node):
                path = self.folder / node / name / MANIFEST_NAME
                if not is_safe_filename(name) or not _is_folder(path.parent) or path.is_symlink() or not path.is_file():
                    continue
                now = None if anew else mark_of(path)
                entry = next((entry for entry, mark in known[name] if mark == now), None)
                if entry is None:
                    digest = self._read_manifest(path, anew=anew)[0]
                    entry = next((entry for entry, _ in known[name] if entry.manifest_sha256 == digest), None)
                if entry is None:
                    self.unsettled.add(node)
                    entry = Entry(node, name, digest, utc_text(path.stat().st_mtime))
                entries.append(entry)
        return entries

    def asked_for(self, node_ids: Collection[str]) -> list[str]:
        """Return these nodes, or all if none is named.

        Raises:
            ConfigError: there is none, or not one of these.
        """
        known = self.all_nodes()
        if not known:
            hint = "name the root of the hub with --root, or import bundles first"
            if (self.root / "runtime" / "node_id.txt").is_file():
                hint = "this is the root of a node, which status is for; name the root of a hub with --root"
            raise ConfigError("there is no node in this store", path=self.folder, hint=hint)
        for node_id in node_ids:
            if node_id not in known:
                hint = f"its nodes: {', '.join(known[:20])}{' …' if len(known) > 20 else ''}"
                raise ConfigError(f"the store has no node {node_id!r}", path=self.folder, hint=hint)
        return list(node_ids) or known

    def strangers(self) -> list[str]:
        """List nodes whose folders are not those that the catalog knows; read no manifest."""
        return sorted(node for node, is_as_known in self._look_at_names() if not is_as_known)

    def _look_at_names(self) -> Iterator[tuple[str, bool]]:
        """Yield the nodes whose folders may have changed, and whether the names in them are those of the catalog."""
        noted = dict(self.catalog.rows("SELECT node_id, mtime_ns FROM nodes"))
        here = self.nodes()
        for node in {*here, *noted}:
            if node in here and (self.folder / node).stat().st_mtime_ns == noted.get(node):
                continue
            names = {name for (name,) in self.catalog.rows("SELECT folder FROM bundles WHERE node_id = ?", [node])}
            yield node, names == set(_bundles_in(self.folder / node) if node in here else ())

    def note_names(self) -> None:
        """Record which nodes' folders match the catalog, so that they are not listed again until they change."""
        old = []
        for node, is_as_known in list(self._look_at_names()):
            # a change from here on is seen: by its time, or because that is too young to be noted
            if is_as_known and _is_folder(self.folder / node):
                changed = self.folder.joinpath(node).stat().st_mtime_ns
                if changed < (time.time() - _TICK) * 1e9:
                    old.append((changed, node))
        if old:
            with self.catalog.changing() as change:
                change.executemany("UPDATE nodes SET mtime_ns = ? WHERE node_id = ?", old)

    def save(self, entries: list[Entry], node_ids: Collection[str]) -> None:
        """Put bundles into the catalog.

        Args:
            entries: every bundle of some nodes.
            node_ids: which.

        Raises:
            StorageError: it cannot be written.
        """
        marks = {entry: mark_of(self.bundle(entry) / MANIFEST_NAME) for entry in entries}
        with self.catalog.changing() as change:
            for node_id in node_ids:
                here = {entry: mark for entry, mark in marks.items() if entry.node_id == node_id}
                missing = set(self.missing(node_id, here))
                known = {
                    Entry(*values): mark
                    for *values, mark in self.catalog.rows(
                        f"SELECT {_ENTRY}, mark FROM bundles WHERE node_id = ?", [node_id]
                    )
                }
                key = "node_id = ? AND folder = ? AND manifest_sha256 = ?"
                gone = [one for one in known if one not in here and one not in missing]
                change.executemany(f"DELETE FROM bundles WHERE {key}", [_key(one) for one in gone])
                new = [(*_key(one), one.imported_at, mark) for one, mark in here.items() if one not in known]
                change.executemany(f"INSERT INTO bundles ({_ENTRY}, mark) VALUES (?, ?, ?, ?, ?)", new)
                other = [(mark, *_key(one)) for one, mark in here.items() if known.get(one, mark) != mark]
                change.executemany(f"UPDATE bundles SET mark = ? WHERE {key}", other)
                change.execute("INSERT OR IGNORE INTO nodes (node_id) VALUES (?)", [node_id])

    def missing(self, node_id: str, entries: Iterable[Entry]) -> list[Entry]:
        """List a node's bundles that have vanished, except those that were also removed from the import index.

        Args:
            node_id: of the node.
            entries: its bundles that are here.
        """
        here = {entry.manifest_sha256 for entry in entries}
        rows = self.catalog.rows(f"SELECT {_ENTRY}, listed FROM bundles WHERE node_id = ?", [node_id])
        gone = [(Entry(*values), listed) for *values, listed in rows if values[2] not in here]
        named = indexed_in(self.catalog.index) if gone else None
        hashes = None if named is None else {manifest_sha256 for _, _, manifest_sha256, _ in named}
        return [entry for entry, listed in gone if not listed or hashes is None or entry.manifest_sha256 in hashes]

    def manifest(self, entry: Entry) -> Manifest:
        """Return the manifest of an imported bundle.

        Raises:
            StorageError: it cannot be read.
            ManifestError: it is none any more.
        """
        path = self.bundle(entry) / MANIFEST_NAME
        _, manifest = self._read_manifest(path)
        return Manifest.parse(files.read_regular(path)) if manifest is None else manifest

    def _read_manifest(self, path: Path, *, anew: bool = False) -> tuple[str, Manifest | None]:
        """Return a manifest's hash and value (None if invalid), cached until its file is replaced."""
        try:
            mark = mark_of(path)
            known = self._read.get(path)
            if known is not None and known[0] == mark and not anew:
                return known[1:]
            data = files.read_regular(path)
        except OSError as error:
            raise StorageError.of(error, "read an imported manifest", path) from error
        try:
            manifest = Manifest.parse(data)
        except ManifestError:
            manifest = None
        self._read[path] = mark, sha256_of(data), manifest
        return self._read[path][1:]

    def has(self, manifest_sha256: str) -> bool:
        """Tell whether the catalog knows a bundle."""
        return bool(self.catalog.rows("SELECT 1 FROM bundles WHERE manifest_sha256 = ? LIMIT 1", [manifest_sha256]))

    def indexed(self, node_id: str) -> list[Entry]:
        """Return the bundles that the catalog knows of a node, without checking them."""
        rows = self.catalog.rows(f"SELECT {_ENTRY} FROM bundles WHERE node_id = ?", [node_id])
        return [Entry(*row) for row in rows]

    def all_nodes(self) -> list[str]:
        """Return the nodes that have a folder in the store or bundles in the catalog."""
        known = self.catalog.rows("SELECT DISTINCT node_id FROM bundles")
        return sorted({*self.nodes(), *(node_id for (node_id,) in known)})

    def is_sound(self, node_id: str) -> bool:
        """Tell whether a node's folder is a real folder or does not exist yet; a link is not sound."""
        return _is_folder(self.folder / node_id) or not os.path.lexists(self.folder / node_id)

    def notes(self, entries: Iterable[Entry]) -> dict[str, Note]:
        """Return the notes about the chunks of bundles, by hash; without those that cannot be read."""
        sql = "SELECT sha256, bytes, mtime_ns, scan FROM notes WHERE node_id = ? AND manifest_sha256 = ?"
        found: dict[str, Note] = {}
        for entry in entries:
            for sha256, size, mtime_ns, scan in self.catalog.rows(sql, [entry.node_id, entry.manifest_sha256]):
                with suppress(KeyError, TypeError, ValueError):
                    # the first that brought a chunk is, as a rule, where it lies
                    found.setdefault(sha256, Note(Scan.of_document(json_bytes.loads(scan)), size, mtime_ns))
        return found

    def note_checked(self, manifest: Manifest, manifest_sha256: str, scans: Mapping[str, Scan], folder: Path) -> None:
        """Note what the lines of a bundle's chunks say, and the state of their files, before it gets its final name.

        Raises:
            StorageError: the catalog cannot be written.
        """
        chunks = []
        for chunk in manifest.chunks:
            state = (folder / chunk.filename).stat()
            identity = {"filename": chunk.filename, "sha256": chunk.sha256, "bytes": state.st_size}
            chunks.append({**identity, "mtime_ns": state.st_mtime_ns, **scans[chunk.filename].document()})
        with self.catalog.changing() as change:
            add_notes(change, manifest.node_id, manifest_sha256, chunks)

    def quarantined(self, node_id: str, manifest_sha256: str) -> Path | None:
        """Return the folder of a bundle that is in quarantine already."""
        folders = [self.quarantine / node_id / name for name in names_in(self.quarantine / node_id)]
        paths = [folder / MANIFEST_NAME for folder in folders if _is_folder(folder)]
        return next((path.parent for path in paths if path.is_file() and _digest(path) == manifest_sha256), None)


def find_hub(
    root: str | os.PathLike[str] | None, *, environ: Mapping[str, str] = os.environ, cwd: Path | None = None
) -> Path:
    """Find a hub's root: `root`, any folder; else `CALYX_ROOT` or the nearest parent of `cwd`, if they have a store.

    Raises:
        RootNotFound: the root that was named is no folder.
        ConfigError: there is none.
    """
    if root is not None:
        folder = files.reachable(Path(root).expanduser())
        if not folder.is_dir():
            raise RootNotFound("there is no such folder", path=folder, hint="make it first, or name another root")
        return folder
    here = files.reachable(Path.cwd() if cwd is None else cwd)
    named = [files.reachable(Path(environ["CALYX_ROOT"]))] if environ.get("CALYX_ROOT") else []
    for folder in (*named, here, *here.parents):
        if (folder / _STORE).is_dir():
            return folder
    raise ConfigError(
        f"there is no hub ({_STORE.as_posix()}) in this folder or above it",
        path=here,
        hint="name the hub's root with --root FOLDER; any folder will do, import makes the store in it",
    )


_ENTRY = "node_id, folder, manifest_sha256, imported_at"


def _key(entry: Entry) -> tuple[str, str, str]:
    return entry.node_id, entry.folder, entry.manifest_sha256


def _bundles_in(folder: Path) -> list[str]:
    return [name for name in names_in(folder) if name[0] != "." and left_by(name) is None]


def _is_folder(path: Path) -> bool:
    """Tell whether a path is a folder and not a link: what a link leads to does not belong to the store."""
    return path.is_dir() and not path.is_symlink()


def _digest(path: Path) -> str:
    try:
        return sha256_of(files.read_regular(path))
    except OSError as error:
        raise StorageError.of(error, "read an imported manifest", path) from error
