"""List the chunks that the store holds of a node, each once, in whichever bundle's folder it lies. Only reads.

A chunk that came in several bundles lies in the folder of one of them. Of a first-generation chunk, which grows in
place, the longest state counts; a shorter one beside it is what a killed import left.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from calyx_logging.core.reading import BLOCK, blocks_of
from calyx_logging.errors import CalyxError, ManifestError, StorageError
from calyx_logging.format.chunk import open_chunk
from calyx_logging.format.legacy import is_foreign
from calyx_logging.format.manifest import Manifest, is_safe_filename
from calyx_logging.hub.rewritten import replaced_by
from calyx_logging.hub.store import Entry, Store

__all__ = ["Held", "Holdings", "begins_with", "digest_of", "holdings_of", "prefix_digests"]


@dataclass(frozen=True)
class Held:
    """A chunk in the store.

    Attributes:
        name: its file name.
        path: where it lies.
        sha256: its hash, as the manifest says that it came with.
        entry: the bundle in whose folder it lies.
    """

    name: str
    path: Path
    sha256: str
    entry: Entry

    @property
    def grows(self) -> bool:
        """Tell whether the chunk is of the first generation, which appends in place."""
        return is_foreign(self.name)

    def is_whole(self) -> bool:
        """Tell whether the chunk's bytes are those that were imported."""
        try:
            return digest_of(self.path) == self.sha256
        except (CalyxError, OSError):
            return False

    @property
    def size(self) -> int:
        """Return the file's size in bytes, from the file system."""
        return self.path.lstat().st_size


@dataclass
class Holdings:
    """Chunks and manifests that the store holds of a node.

    Attributes:
        chunks: by file name.
        by_hash: the same by hash.
        manifests: of the node's bundles, as far as they can be read.
        left_over: files of one chunk, the shorter one first.
        states: by file name the hashes it came with, in whichever bundle, and how many bytes each had, where known.
        replaced: by file name the hashes of content that no longer counts, see `rewritten`.
        warnings: what is damaged.
    """

    chunks: dict[str, Held] = field(default_factory=dict)
    by_hash: dict[str, Held] = field(default_factory=dict)
    manifests: list[tuple[Entry, Manifest]] = field(default_factory=list)
    left_over: list[tuple[Held, Held]] = field(default_factory=list)
    states: dict[str, dict[str, int | None]] = field(default_factory=dict)
    replaced: Mapping[str, set[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def holdings_of(store: Store, entries: Iterable[Entry]) -> Holdings:
    """Collect the chunks of a node's bundles.

    Args:
        store: the hub's.
        entries: every bundle of the node.

    Raises:
        OSError: a file cannot be looked at.
    """
    found, entries = Holdings(), list(entries)
    found.replaced = replaced_by(store, entries)
    for entry in entries:
        try:
            manifest = store.manifest(entry)
        except (ManifestError, StorageError) as error:
            found.warnings.append(f"{store.bundle(entry)} is in the store, and damaged: {error.message}")
            continue
        found.manifests.append((entry, manifest))
        notes = store.notes([entry]) if any(chunk.bytes is None for chunk in manifest.chunks) else {}
        for chunk in manifest.chunks:
            if chunk.sha256 in found.replaced.get(chunk.filename, ()):
                continue
            path = store.bundle(entry) / chunk.filename
            size = notes[chunk.sha256].size if chunk.sha256 in notes else chunk.bytes
            found.states.setdefault(chunk.filename, {}).setdefault(chunk.sha256, size)
            if not is_safe_filename(chunk.filename) or path.is_symlink() or not path.is_file():
                continue  # it is in another bundle's folder, or nothing of the store's
            held, known = Held(chunk.filename, path, chunk.sha256, entry), found.chunks.get(chunk.filename)
            if known is not None and known.path == path:
                continue
            if known is not None:  # the import that put it in was killed before it removed the shorter one
                shorter, longer = sorted((known, held), key=lambda one: one.size)
                found.left_over.append((shorter, longer))
                held = longer
            found.chunks[chunk.filename] = held
    found.by_hash = {held.sha256: held for held in found.chunks.values()}
    return found


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        CalyxError, OSError: it cannot be read.
    """
    return prefix_digests(path, [path.lstat().st_size]).popitem()[1]


def prefix_digests(path: Path, sizes: Iterable[int]) -> dict[int, str]:
    """Return the SHA-256 of a file's first bytes, for each of the sizes that the file reaches.

    Raises:
        CalyxError, OSError: it cannot be read.
    """
    found: dict[int, str] = {}
    digest, done = hashlib.sha256(), 0
    with open_chunk(path) as stream:
        for size in sorted(set(sizes)):
            while done < size and (block := stream.read(min(BLOCK, size - done))):
                digest.update(block)
                done += len(block)
            if done < size:
                break
            found[size] = digest.hexdigest()
    return found


def begins_with(longer: Path, shorter: Path) -> bool:
    """Tell whether a file begins with the whole content of another.

    Raises:
        StorageError, OSError: one cannot be read.
    """
    with open_chunk(longer) as long, open_chunk(shorter) as short:
        return all(long.read(len(block)) == block for block in blocks_of(short))
