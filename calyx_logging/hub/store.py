"""The hub's store: imported bundles by node, their index, and the staging area.

    telemetry/federated/<node_id>/<YYYYMMDD_HHMMSS>/    an imported bundle's chunks, verbatim, and its manifest
    telemetry/federated/.import_index.json              which bundles are in it
    telemetry/federated/.import.lock                    held while bundles are put in
    telemetry/federated/.staging/                       copies being verified, each with a lock while its importer lives
    telemetry/federated/.quarantine/                    what contradicts the store
    telemetry/federated/.checked/<node_id>/<manifest_sha256>.json   what a bundle's lines say, bad ones among it
    telemetry/federated/.receipts/<node_id>.json        what the hub acknowledges, and .json.sig
    telemetry/federated/.refused/                       which bundles were refused, and why
    telemetry/federated/.allowed_signers, .revoked_keys whose signatures are valid

Invariants: a bundle's folder has its final name only when it is whole; the index is a summary that loading mends from
the folders, so that a lost, outdated or damaged index does no harm.
"""

from __future__ import annotations

import os
import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from calyx_logging.core import files
from calyx_logging.core.carriers import left_by
from calyx_logging.core.os_lock import Held, OsLock
from calyx_logging.core.reading import names_in, sha256_of
from calyx_logging.core.times import utc_text
from calyx_logging.errors import ConfigError, ManifestError, RootNotFound, StorageError
from calyx_logging.format.line_check import Scan
from calyx_logging.format.manifest import MANIFEST_NAME, Manifest, is_safe_filename, loads_object
from calyx_logging.node import is_node_id

__all__ = ["Entry", "Note", "Store", "find_hub"]

_STORE = Path("telemetry", "federated")


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
        unsettled: nodes of bundles that the index did not know when it was loaded: the import that put them in may have
            been killed before it was done.
    """

    def __init__(self, root: Path) -> None:
        self.root = files.reachable(root)
        self.folder = self.root / _STORE
        self.quarantine = self.folder / ".quarantine"
        self.signers = self.folder / ".allowed_signers"
        self.revoked = self.folder / ".revoked_keys"
        self.receipts = self.folder / ".receipts"
        self.refused = self.folder / ".refused"
        self._staging = self.folder / ".staging"
        self._index = self.folder / ".import_index.json"
        self.unsettled: set[str] = set()
        self._indexed: tuple[tuple[int, int, int], list[Entry]] | None = None
        self._read: dict[Path, tuple[tuple[int, int, int], str, Manifest | None]] = {}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the store's lock, so that no other import writes; wait for it if need be."""
        with OsLock(self.folder / ".import.lock"):
            yield

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Create a private folder to prepare a bundle in; remove it afterwards if it is still there."""
        if self._staging.is_symlink():
            raise StorageError("is a symbolic link", path=self._staging, hint="delete it: what is in it gets deleted")
        token = secrets.token_hex(8)
        folder, lock = self._staging / token, OsLock(self._staging / f"{token}.lock")
        with OsLock(self.folder / ".staging.lock"):  # or a lock that is just being made would be taken for a dead one's
            self._sweep()
            lock.acquire()
        try:
            files.make_dirs(folder)
            yield folder
        finally:
            files.remove_tree(folder)
            lock.release()  # first, because Windows deletes no open file
            files.remove(self._staging / f"{token}.lock")

    def _sweep(self) -> None:
        """Remove what dead importers left behind."""
        for name in names_in(self._staging):
            token = name.removesuffix(".lock")
            lock = OsLock(self._staging / f"{token}.lock")
            try:
                lock.acquire(blocking=False)
            except Held:
                continue  # it lives
            except OSError:
                continue  # somebody's folder of that name
            try:
                with suppress(OSError, RecursionError):  # somebody's own, nobody's harm
                    files.remove_tree(self._staging / token)
            finally:
                lock.release()
            with suppress(OSError):
                files.remove(self._staging / f"{token}.lock")

    def bundle(self, entry: Entry) -> Path:
        """Return the folder of an imported bundle."""
        return self.folder / entry.node_id / entry.folder

    def spellings_of(self, node_id: str) -> list[str]:
        """Return the store's nodes with this id, or with the same id in another spelling."""
        return [name for name in self.nodes() if name.casefold() == node_id.casefold()]

    def nodes(self) -> list[str]:
        """Return the nodes that have a folder in the store."""
        return [name for name in names_in(self.folder) if is_node_id(name) and _is_folder(self.folder / name)]

    def load(self, node_id: str | None = None) -> list[Entry]:
        """List every bundle in the store, or of one node, in the order of their folders; write nothing.

        Raises:
            StorageError: a folder cannot be read.
        """
        indexed = {(entry.node_id, entry.folder): entry for entry in self._read_index()}
        entries = []
        self.unsettled = set()
        for node in self.nodes() if node_id is None else [node_id]:
            if not _is_folder(self.folder / node):
                continue
            for name in names_in(self.folder / node):
                path = self.folder / node / name / MANIFEST_NAME
                if not is_safe_filename(name) or not _is_folder(path.parent) or path.is_symlink() or not path.is_file():
                    continue
                digest, entry = self._read_manifest(path)[0], indexed.get((node, name))
                if entry is None or entry.manifest_sha256 != digest:
                    self.unsettled.add(node)
                    entry = Entry(node, name, digest, utc_text(path.stat().st_mtime))
                entries.append(entry)
        return entries

    def _read_index(self) -> list[Entry]:
        """Return the index's entries, cached until its file is replaced, since it may be long."""
        try:
            mark = _mark(self._index.stat())
            if self._indexed is None or self._indexed[0] != mark:
                self._indexed = mark, list(self._parse_index(files.read_regular(self._index)))
            return self._indexed[1]
        except (OSError, ManifestError):
            return []  # it is made anew

    @staticmethod
    def _parse_index(data: bytes) -> Iterator[Entry]:
        document = loads_object(data, "the import index")
        imports: Any = document.get("imports")
        for one in imports if isinstance(imports, list) else ():
            if isinstance(one, dict):
                values = [
                    one.get(name) for name in ("source_node_id", "export_folder", "manifest_sha256", "imported_at")
                ]
                if all(isinstance(value, str) for value in values):  # those of the first generation have no hash
                    yield Entry(*values)  # type: ignore[arg-type]

    def asked_for(self, node_ids: Collection[str]) -> list[str]:
        """Return these nodes, or all if none is named.

        Raises:
            ConfigError: there is none, or not one of these.
        """
        known = self.all_nodes()
        if not known:
            hint = "name the root of the hub with --root, or import bundles first"
            raise ConfigError("there is no node in this store", path=self.folder, hint=hint)
        for node_id in node_ids:
            if node_id not in known:
                hint = f"its nodes: {', '.join(known[:20])}{' …' if len(known) > 20 else ''}"
                raise ConfigError(f"the store has no node {node_id!r}", path=self.folder, hint=hint)
        return list(node_ids) or known

    def strangers(self) -> list[str]:
        """List nodes whose folders and index entries do not match; read no manifest."""
        indexed: dict[str, set[str]] = defaultdict(set)
        for entry in self._read_index():
            indexed[entry.node_id].add(entry.folder)
        here = {node: set(_bundles_in(self.folder / node)) for node in self.nodes()}
        return sorted(node for node in indexed.keys() | here.keys() if indexed[node] != here.get(node, set()))

    def save(self, entries: list[Entry], node_ids: Collection[str]) -> None:
        """Write the index, in the first generation's form, with the manifests' hashes beside it.

        Args:
            entries: every bundle of some nodes.
            node_ids: which; what the index says of others stays.
        """
        here = {entry.manifest_sha256 for entry in entries}
        others = [
            entry  # also what was here and is gone, until it comes again: the audit says so
            for entry in self._read_index()
            if entry.node_id not in node_ids or entry.manifest_sha256 not in here
        ]
        entries = sorted([*others, *entries], key=lambda entry: (entry.node_id, entry.folder))
        imports = [
            {
                "source_node_id": entry.node_id,
                "export_folder": entry.folder,
                "path": f"{_STORE.as_posix()}/{entry.node_id}/{entry.folder}",
                "imported_at": entry.imported_at,
                "manifest_sha256": entry.manifest_sha256,
            }
            for entry in entries
        ]
        files.replace_file(self._index, orjson.dumps({"imports": imports}, option=orjson.OPT_INDENT_2) + b"\n")
        self._indexed = _mark(self._index.stat()), entries

    def manifest(self, entry: Entry) -> Manifest:
        """Return the manifest of an imported bundle.

        Raises:
            StorageError: it cannot be read.
            ManifestError: it is none any more.
        """
        path = self.bundle(entry) / MANIFEST_NAME
        _, manifest = self._read_manifest(path)
        return Manifest.parse(files.read_regular(path)) if manifest is None else manifest

    def _read_manifest(self, path: Path) -> tuple[str, Manifest | None]:
        """Return a manifest's hash and value (None if invalid), cached until its file is replaced."""
        try:
            mark = _mark(path.stat())
            known = self._read.get(path)
            if known is not None and known[0] == mark:
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

    def indexed(self, node_id: str | None = None) -> list[Entry]:
        """Return the index's entries for a node, or for all, without checking them."""
        return [entry for entry in self._read_index() if node_id is None or entry.node_id == node_id]

    def all_nodes(self) -> list[str]:
        """Return the nodes that have a folder in the store or are named in the index."""
        return sorted({*self.nodes(), *(entry.node_id for entry in self._read_index() if is_node_id(entry.node_id))})

    def is_sound(self, node_id: str) -> bool:
        """Tell whether a node's folder is a real folder or does not exist yet; a link is not sound."""
        return _is_folder(self.folder / node_id) or not os.path.lexists(self.folder / node_id)

    def checked(self, entry: Entry) -> dict[str, Note]:
        """Return the notes about a bundle's chunks, by hash; empty if they cannot be read."""
        try:
            document = loads_object(files.read_regular(self._checked(entry.node_id, entry.manifest_sha256)), "notes")
            return {
                chunk["sha256"]: Note(Scan.of_document(chunk), int(chunk["bytes"]), int(chunk["mtime_ns"]))
                for chunk in document["chunks"]
            }
        except (OSError, ManifestError, KeyError, TypeError, ValueError):
            return {}

    def notes(self, entries: Iterable[Entry]) -> dict[str, Note]:
        """Return the notes about the chunks of bundles, by hash; empty for those that cannot be read."""
        found: dict[str, Note] = {}
        for entry in entries:
            found = self.checked(entry) | found  # the first that brought a chunk is, as a rule, where it lies
        return found

    def note_checked(self, manifest: Manifest, manifest_sha256: str, scans: Mapping[str, Scan], folder: Path) -> None:
        """Note what the lines of a bundle's chunks say, and the state of their files, before it gets its final name."""
        chunks = []
        for chunk in manifest.chunks:
            state = (folder / chunk.filename).stat()
            identity = {"filename": chunk.filename, "sha256": chunk.sha256, "bytes": state.st_size}
            chunks.append({**identity, "mtime_ns": state.st_mtime_ns, **scans[chunk.filename].document()})
        path = self._checked(manifest.node_id, manifest_sha256)
        files.make_dirs(path.parent)
        files.replace_file(path, orjson.dumps({"chunks": chunks}, option=orjson.OPT_APPEND_NEWLINE))

    def _checked(self, node_id: str, manifest_sha256: str) -> Path:
        return self.folder / ".checked" / node_id / f"{manifest_sha256}.json"

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


def _mark(state: os.stat_result) -> tuple[int, int, int]:
    """Return values that change when a file is replaced."""
    return state.st_mtime_ns, state.st_size, state.st_ino


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
