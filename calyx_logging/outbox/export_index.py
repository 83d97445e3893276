"""Keep track of exports: `.exported_index.json`, copies of manifests beside it, and the bundles themselves.

Invariants: the index names only chunks of finished bundles. It is only a summary: loading completes it from
`.manifests/` and from the bundles still present, so a lost, old or damaged index does no harm. An entry is never
dropped because its bundle was moved away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calyx_logging.bundle.archive import FORMATS
from calyx_logging.bundle.folder import verify
from calyx_logging.core import files, json_bytes
from calyx_logging.core.carriers import copy_of, left_by
from calyx_logging.core.reading import blocks_of, names_in, sha256_of, sha256_of_blocks
from calyx_logging.core.text import count_text
from calyx_logging.errors import BundleError, CalyxError, ManifestError, StorageError
from calyx_logging.format.chunk import open_chunk
from calyx_logging.format.manifest import MANIFEST_NAME, Manifest, loads_object
from calyx_logging.node import Node

__all__ = [
    "BundleRef",
    "Exported",
    "carry_out",
    "hashes",
    "intend",
    "intended",
    "last_seqs",
    "load",
    "manifests_of",
    "record",
    "save",
    "word_of_missing",
]

INDEX_NAME = ".exported_index.json"
MANIFESTS_DIR = ".manifests"
_INTENDED = ".intended.json"
_MAX_NAMED = 5


@dataclass(frozen=True, order=True)
class BundleRef:
    """A finished bundle: its folder's name, and the SHA-256 of its manifest."""

    timestamp: str
    manifest_sha256: str


@dataclass
class Exported:
    """The chunks in finished bundles, and the bundles.

    Attributes:
        names: the chunks' file names.
        bundles: the bundles, ordered by timestamp.
        warnings: what was repaired, and what could not be.
        changed: whether this holds more than the index on disk.
        unsaved: manifests without a copy in `.manifests/`, by timestamp.
        order: the names again, nearly in the order in which they are written.
    """

    names: set[str] = field(default_factory=set)
    bundles: list[BundleRef] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    changed: bool = False
    unsaved: dict[str, bytes] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)

    @staticmethod
    def digest(data: bytes) -> str:
        """Return a bundle's identity: the SHA-256 of its manifest."""
        return sha256_of(data)

    @property
    def last(self) -> BundleRef | None:
        """The newest bundle."""
        return self.bundles[-1] if self.bundles else None

    def _add(self, timestamp: str, data: bytes, manifest: Manifest) -> None:
        self.order += [entry.filename for entry in manifest.chunks]
        self.names.update(entry.filename for entry in manifest.chunks)
        self.bundles.append(BundleRef(timestamp, sha256_of(data)))
        self.bundles.sort()
        self.changed = True


def load(node: Node, carried: Path | None = None) -> Exported:
    """Load the index and add the manifests and bundles it does not list; writes nothing.

    Args:
        node: the node.
        carried: a folder on a stick with bundles of this node, which an export may have written there directly.

    Raises:
        StorageError: a folder cannot be read.
    """
    exported = _read_index(node.outbox / INDEX_NAME)
    known = {bundle.timestamp: bundle.manifest_sha256 for bundle in exported.bundles}
    copies = node.outbox / MANIFESTS_DIR
    copied = _manifests_in(copies)
    for name in copied:
        timestamp = name.removesuffix(".json")
        if timestamp in known:
            continue
        try:
            data = files.read_regular(copies / name)
            exported._add(timestamp, data, Manifest.parse(data))
            known[timestamp] = exported.digest(data)
        except (OSError, ManifestError) as error:
            exported.warnings.append(f"{copies / name} cannot be read and is ignored: {error}")
    there = {name.removesuffix(".json") for name in copied}
    for exports in (node.exports, *(() if carried is None else (carried,))):
        for timestamp in names_in(exports):
            folder = exports / timestamp
            if timestamp.startswith(".") or (timestamp in known and timestamp in there) or not folder.is_dir():
                continue
            if left_by(timestamp) is None:
                _complete(exported, node, folder, known)
    return exported


def _complete(exported: Exported, node: Node, folder: Path, known: dict[str, str]) -> None:
    """Add a bundle whose manifest has no copy, or that is not known at all; `known` are the hashes by timestamp."""
    timestamp, data = folder.name, _manifest_in(folder)
    digest = exported.digest(data)
    if timestamp in known:  # its copy is missing
        if digest == known[timestamp]:
            exported.unsaved[timestamp] = data
            exported.changed = True
        return
    if digest in known.values():
        return  # its folder was renamed or copied
    is_here = folder.parent == node.exports
    try:
        verified = verify(folder)
    except BundleError as error:
        if is_here:
            exported.warnings.append(f"{error}; its chunks do not count as exported")
        return
    if not is_here and not _is_ours(node, verified.manifest, timestamp, known):
        return  # it is of another machine with this id, of before a prune, or made by somebody else
    if verified.manifest.node_id != node.id:
        exported.warnings.append(f"{folder} is a bundle of node {verified.manifest.node_id}, and passed over")
        return
    exported._add(timestamp, data, verified.manifest)
    exported.unsaved[timestamp] = data
    known[timestamp] = digest


def _is_ours(node: Node, manifest: Manifest, timestamp: str, known: Mapping[str, str]) -> bool:
    """Tell whether a bundle on a stick is what this root would have made: its chunks, next in its chain."""
    if manifest.timestamp != timestamp or manifest.previous_manifest_sha256 not in {None, *known.values()}:
        return False
    try:
        return all(_sha256_in(node.outbox / chunk.filename) == chunk.sha256 for chunk in manifest.chunks)
    except (OSError, CalyxError):
        return False


def _sha256_in(path: Path) -> str:
    with open_chunk(path) as stream:
        return sha256_of_blocks(blocks_of(stream))[0]


def _manifests_in(copies: Path) -> list[str]:
    """List the copies of manifests, without what sync programs and systems put beside them."""
    names = [name for name in names_in(copies) if name.endswith(".json") and not name.startswith(".")]
    there = frozenset(names)
    return [name for name in names if copy_of(name, there) is None]


def _manifest_in(folder: Path) -> bytes:
    try:
        return files.read_regular(folder / MANIFEST_NAME)
    except OSError:
        return b""  # `verify` reports why


def record(exported: Exported, timestamp: str, data: bytes, manifest: Manifest) -> None:
    """Add a bundle that has just received its final name."""
    exported._add(timestamp, data, manifest)
    exported.unsaved[timestamp] = data


def save(node: Node, exported: Exported) -> None:
    """Write the missing copies of manifests, then the index, each atomically."""
    copies = node.outbox / MANIFESTS_DIR
    files.make_dirs(copies)
    for timestamp, data in sorted(exported.unsaved.items()):
        files.replace_file(copies / f"{timestamp}.json", data)
    exported.unsaved.clear()
    in_order = sorted(exported.order)  # fast, because it is nearly sorted
    document = {
        "exported": in_order if len(in_order) == len(exported.names) else sorted(exported.names),
        "bundles": [
            {"timestamp": bundle.timestamp, "manifest_sha256": bundle.manifest_sha256} for bundle in exported.bundles
        ],
    }
    files.replace_file(
        node.outbox / INDEX_NAME,
        json_bytes.dumps(document, option=json_bytes.OPT_INDENT_2 | json_bytes.OPT_APPEND_NEWLINE),
    )
    exported.changed = False


def intend(node: Node, data: bytes) -> None:
    """Write down the manifest of a bundle that is about to get its name on a stick."""
    files.make_dirs(node.outbox / MANIFESTS_DIR)
    files.replace_file(node.outbox / MANIFESTS_DIR / _INTENDED, data)


def carry_out(node: Node, exported: Exported, timestamp: str) -> None:
    """Note that the bundle that was intended has its name; this takes no room on the disk."""
    files.rename_over(node.outbox / MANIFESTS_DIR / _INTENDED, node.outbox / MANIFESTS_DIR / f"{timestamp}.json")
    exported.unsaved.pop(timestamp, None)


def intended(node: Node, exported: Exported, arrived: Set[str], pending: Iterable[str]) -> bytes | None:
    """Return the manifest of a bundle that a killed export may have left on a stick, and that is to be made again.

    The hub takes the same bundle once, wherever it comes from. One that is known by now, or that cannot be made again,
    is forgotten.

    Args:
        node: the node.
        exported: the index, loaded; a bundle that a hub has is added to it.
        arrived: hashes of the manifests that hubs have.
        pending: the chunks that are to be exported.
    """
    path = node.outbox / MANIFESTS_DIR / _INTENDED
    try:
        data = files.read_regular(path)
        manifest = Manifest.parse(data)
    except FileNotFoundError:
        return None
    except (OSError, ManifestError) as error:
        exported.warnings.append(f"{path} cannot be read and is ignored: {error}")
        return None
    digest = exported.digest(data)
    if digest not in {bundle.manifest_sha256 for bundle in exported.bundles}:
        if digest in arrived:
            record(exported, manifest.timestamp, data, manifest)
            save(node, exported)
        elif set(pending).issuperset(chunk.filename for chunk in manifest.chunks):
            return data
    files.remove(path)
    return None


def hashes(node: Node) -> dict[str, str]:
    """Map file names to the hash last exported, from every manifest present (for chunks that may have grown since)."""
    found: dict[str, str] = {}
    for manifest in _manifests(node):
        found.update({entry.filename: entry.sha256 for entry in manifest.chunks})
    return found


def last_seqs(outbox: Path) -> dict[str, int]:
    """Map writers to the greatest `seq` exported, from the copies of manifests present."""
    found: dict[str, int] = {}
    for name in _manifests_in(outbox / MANIFESTS_DIR):
        try:
            chunks = Manifest.parse(files.read_regular(outbox / MANIFESTS_DIR / name)).chunks
        except (OSError, ManifestError):
            continue  # `load` warns of those
        for entry in chunks:
            if entry.writer is not None and entry.last_seq is not None:
                found[entry.writer] = max(found.get(entry.writer, -1), entry.last_seq)
    return found


def manifests_of(node: Node, bundles: Iterable[BundleRef]) -> Iterator[tuple[BundleRef, Manifest]]:
    """Yield the manifests of bundles from their copies; skip a bundle whose copy is missing or does not match."""
    for bundle in bundles:
        try:
            data = files.read_regular(node.outbox / MANIFESTS_DIR / f"{bundle.timestamp}.json")
            if sha256_of(data) == bundle.manifest_sha256:
                yield bundle, Manifest.parse(data)
        except (OSError, ManifestError):
            continue


def word_of_missing(node: Node, exported: Exported, acknowledged: Set[str], carried: Path | None = None) -> list[str]:
    """Say which bundles are not in exports/, though neither a receipt nor another bundle there has their chunks.

    Args:
        node: the node.
        exported: the index, loaded.
        acknowledged: hashes of the chunks that hubs are known to have.
        carried: as in `load`.
    """
    names = {*names_in(node.exports), *(() if carried is None else names_in(carried))}
    forms = {
        bundle: {bundle.timestamp, *(f"{bundle.timestamp}.{suffix}" for suffix in FORMATS)}
        for bundle in exported.bundles
    }
    gone = [bundle for bundle in exported.bundles if names.isdisjoint(forms[bundle])]
    if gone:  # or its folder was renamed
        unknown = names.difference(bundle.timestamp for bundle in exported.bundles)
        here = {exported.digest(_manifest_in(node.exports / name)) for name in unknown}
        gone = [bundle for bundle in gone if bundle.manifest_sha256 not in here]
    if not gone:
        return []
    there = set(exported.bundles).difference(gone)
    safe = acknowledged | {chunk.sha256 for _, manifest in manifests_of(node, there) for chunk in manifest.chunks}
    chunks_of = {bundle: manifest.chunks for bundle, manifest in manifests_of(node, gone)}
    missing = {
        bundle: [chunk.filename for chunk in chunks_of.get(bundle, ()) if chunk.sha256 not in safe]
        for bundle in gone
        if bundle not in chunks_of or any(chunk.sha256 not in safe for chunk in chunks_of[bundle])
    }
    if not missing:
        return []
    what = f"{count_text(len(missing), 'exported bundle')} {'is' if len(missing) == 1 else 'are'}"
    named = ", ".join(bundle.timestamp for bundle in list(missing)[:_MAX_NAMED]) + ", …" * (len(missing) > _MAX_NAMED)
    word = (
        f"{what} not in {node.exports}, moved, deleted or written to a stick alone, and no receipt of a hub covers "
        f"{'it' if len(missing) == 1 else 'them'} ({named})"
    )
    remedy = "if they did not arrive, calyx-telemetry export --since-receipt packs their chunks again"
    lost = sum(not (node.outbox / name).exists() for names in missing.values() for name in names)
    return [
        f"{word}: {remedy}"
        + (f", but for {count_text(lost, 'chunk')} that {'is' if lost == 1 else 'are'} deleted" if lost else "")
    ]


def _manifests(node: Node) -> Iterator[Manifest]:
    copies = node.outbox / MANIFESTS_DIR
    paths = {Path(name).stem: copies / name for name in _manifests_in(copies)}
    for timestamp in names_in(node.exports):
        paths.setdefault(timestamp, node.exports / timestamp / MANIFEST_NAME)
    for _, path in sorted(paths.items()):
        try:
            yield Manifest.parse(files.read_regular(path))
        except (OSError, ManifestError):
            continue  # `load` warns of those; a chunk of unknown hash is exported again, which is harmless


def _read_index(path: Path) -> Exported:
    exported = Exported()
    try:
        document = loads_object(files.read_regular(path), "the exported index")
        names, bundles = document.get("exported", []), document.get("bundles", [])
        if not _are_texts(names) or not isinstance(bundles, list):
            raise ManifestError("the exported index has no list 'exported'")
        exported.bundles = sorted(_bundle_ref(bundle) for bundle in bundles)
        exported.names.update(names)
        exported.order = names
    except FileNotFoundError:
        exported.changed = True
    except OSError as error:
        raise StorageError.of(error, "read the exported index", path) from error
    except ManifestError as error:
        exported.warnings.append(f"{path}: {error.message}; it is rebuilt from the manifests")
        exported.changed = True
    return exported


def _bundle_ref(entry: Any) -> BundleRef:
    if not isinstance(entry, dict) or not _are_texts([entry.get("timestamp"), entry.get("manifest_sha256")]):
        raise ManifestError("the exported index has a bundle without timestamp and manifest_sha256")
    return BundleRef(entry["timestamp"], entry["manifest_sha256"])


def _are_texts(values: object) -> bool:
    return isinstance(values, list) and set(map(type, values)) <= {str}
