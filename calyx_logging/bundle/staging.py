"""Find arriving bundles, and copy one into staging, from a folder or an archive.

Names are not trusted: only plain file names that the manifest lists are joined to a path. Each file that is not copied
is a fault, or a warning where a carrier left it; `verdict` checks those that are. A chunk of a folder is read once:
it is hashed and its lines are scanned while it is copied.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from calyx_logging.bundle._unpacking import Copied, listed_in, manifest_in, unlisted, unpack, was_a_bundle
from calyx_logging.bundle.archive import is_archive, members_of, unpacked_limit
from calyx_logging.bundle.folder import check
from calyx_logging.bundle.verification import OWN_NAMES, Fault, Progress, Report
from calyx_logging.core import files
from calyx_logging.core.carriers import left_folder, sort_names
from calyx_logging.core.parallel import several_at_once
from calyx_logging.core.reading import blocks_of
from calyx_logging.errors import ArchiveError, ChunkError, ManifestError, StorageError
from calyx_logging.format.chunk import open_chunk
from calyx_logging.format.chunk_stats import stats_for
from calyx_logging.format.manifest import MANIFEST_NAME, MAX_MANIFEST
from calyx_logging.node import is_node_id

__all__ = ["Copied", "Found", "Source", "bring", "bundles_in", "bytes_of", "verdict"]

_UNREAD = (".tar", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".part", ".crdownload", ".tmp")


class Source(Protocol):
    """A place that holds a bundle: its files, or an archive as one file under the empty name."""

    @property
    def name(self) -> str:
        """The last part of its path or URL."""
        ...  # pragma: no cover

    @property
    def is_archive(self) -> bool:
        """Whether it is an archive."""
        ...  # pragma: no cover

    def names(self) -> list[str]:
        """List the names of its files; StorageError if that fails."""
        ...  # pragma: no cover

    def size(self, name: str) -> int:
        """Return a file's size in bytes, 0 if unknown."""
        ...  # pragma: no cover

    def blocks(self, name: str) -> Iterator[bytes]:
        """Yield a file's bytes; ChunkError or StorageError if it cannot be read."""
        ...  # pragma: no cover


@dataclass(frozen=True)
class _Local:
    """A folder or archive on this machine."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def is_archive(self) -> bool:
        return self.path.is_file()

    def names(self) -> list[str]:
        try:
            return os.listdir(self.path)
        except OSError as error:
            raise StorageError.of(error, "read the bundle", self.path) from error

    def size(self, name: str) -> int:
        try:
            return (self.path / name).lstat().st_size
        except OSError:
            return 0

    def blocks(self, name: str) -> Iterator[bytes]:
        with open_chunk(self.path / name) as stream:
            yield from blocks_of(stream)


@dataclass
class Found:
    """The result of a search for bundles.

    Attributes:
        bundles: folders and archives, including folders that look like a bundle without its manifest.
        passed_over: files that look like archives of a kind that cannot be read here.
        leftovers: folders that a system or a sync program left, and by whom.
    """

    bundles: list[Path] = field(default_factory=list)
    passed_over: list[Path] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)


def bundles_in(path: Path, leave_out: Path | None = None) -> Found:
    """Find the bundles at a path: the folder or archive itself, or all in the folders below it.

    Args:
        path: a folder or an archive.
        leave_out: a folder below it to skip (the store itself).

    Raises:
        StorageError: there is no such folder, or one cannot be read.
        ManifestError: there is no bundle in it.
    """
    path = files.reachable(path)
    if is_archive(path):
        return Found([path])
    if not path.is_dir():
        what = "it is no folder and no archive (.zip, .tar.gz)" if path.exists() else "there is no such folder"
        raise StorageError(what, path=path, hint="name the folder of a bundle, an archive, or a folder of many")
    if (path / MANIFEST_NAME).exists():
        return Found([path])

    def refuse(error: OSError) -> None:
        raise StorageError.of(error, "look for bundles", error.filename or path) from error

    found = Found()
    store = None if leave_out is None else os.path.realpath(leave_out)
    for folder, names, inside in os.walk(path, onerror=refuse):
        inside = [name for name in inside if not name.startswith(".")]
        if MANIFEST_NAME in inside or was_a_bundle(Path(folder).name, inside):
            names.clear()
            found.bundles.append(Path(folder))
            continue
        names[:] = sorted(_folders_to_search(Path(folder), names, store, found))
        for name in sorted(inside):
            if is_archive(Path(folder, name)):
                found.bundles.append(Path(folder, name))
            elif name.lower().endswith(_UNREAD):
                found.passed_over.append(Path(folder, name))
    if not found.bundles:
        raise ManifestError(
            "there is no bundle in this folder, or below it",
            path=path,
            hint="name the folder of a bundle, or of many; at the node, export makes them",
        )
    return found


def _folders_to_search(folder: Path, names: list[str], store: str | None, found: Found) -> Iterator[str]:
    for name in names:
        if name.startswith(".") or os.path.realpath(folder / name) == store:
            continue
        if (left := left_folder(name)) is not None:
            found.leftovers.append(f"{folder / name} is not searched ({left})")
        else:
            yield name


def bytes_of(place: Path | Source) -> int:
    """Estimate the bytes to copy of a bundle, for a progress bar."""
    source = _Local(place) if isinstance(place, Path) else place
    try:
        return sum(map(source.size, [""] if source.is_archive else source.names()))
    except StorageError:
        return 0


def bring(place: Path | Source, room: Path, progress: Progress | None = None) -> Generator[Copied, None, None]:
    """Copy the bundle at a place and sync the copy; of an archive of several, one after the other.

    Args:
        place: its folder, or an archive; it is only read.
        room: an empty folder for the copy alone. When the next copy is asked for, what is left of the one before is
            deleted; nothing else is left in it at the end.
        progress: receives the numbers of bytes copied.

    Raises:
        StorageError: the source cannot be read.
        OSError: the copy cannot be written.
    """
    source = _Local(place) if isinstance(place, Path) else place
    staged = room / "bundle"
    files.make_dirs(staged)
    if not source.is_archive:
        copied = Copied(staged, [], [])
        copied.faults.extend(_copy_folder(source, copied, progress))
        yield copied
        return
    archive, scratch = (
        room / ("archive.zip" if source.name.lower().endswith(".zip") else "archive.tar.gz"),
        room / "tar",
    )
    try:
        files.write_new(archive, _counted(source.blocks(""), progress), sync=False)
        with members_of(archive, scratch) as members:
            for copied in unpack(members, staged, unpacked_limit(archive.stat().st_size)):
                yield copied
                files.remove_tree(staged)
                files.make_dirs(staged)
    except (ArchiveError, ChunkError, StorageError) as error:
        yield Copied(staged, [Fault("unreadable", source.name, "an archive of a bundle", error.message)], [])
    files.remove(scratch)
    files.remove(archive)


def verdict(copied: Copied) -> Report:
    """Check a copy and add the faults of copying; a file that was not copied does not also count as missing.

    Raises:
        StorageError: the copy cannot be read.
    """
    report = check(copied.folder, with_scans=True, seen=copied.seen)
    warnings = tuple(dict.fromkeys([*copied.warnings, *report.warnings]))
    if copied.faults and not any(copied.folder.iterdir()):
        return replace(report, faults=tuple(copied.faults), warnings=warnings)  # only the reasons matter
    names = {fault.path for fault in copied.faults}
    found = [fault for fault in report.faults if fault.kind not in ("missing", "malformed") or fault.path not in names]
    return replace(report, faults=(*copied.faults, *found), warnings=warnings)


def _counted(blocks: Iterable[bytes], progress: Progress | None) -> Iterator[bytes]:
    for block in blocks:
        if progress is not None:
            progress(len(block))
        yield block


def _copy_folder(source: Source, copied: Copied, progress: Progress | None) -> Iterator[Fault]:
    """Copy the manifest, then the files that it names, under the names that it gives them."""
    names = set(source.names())
    for name in OWN_NAMES:
        if name in names and source.size(name) > MAX_MANIFEST:
            yield Fault("malformed", name, f"at most {MAX_MANIFEST} bytes", "more")
            names.remove(name)

    def copy(name: str, there: str, node_id: str | None) -> Fault | None:
        blocks = _counted(source.blocks(there), progress)
        stats = None if node_id is None or name in OWN_NAMES else stats_for(name, scanned_for=node_id)
        try:
            files.write_new(copied.folder / name, blocks if stats is None else stats.through(blocks))
        except (ChunkError, StorageError) as error:
            return Fault("unreadable", name, "a regular file", error.message)
        if stats is not None:
            copied.seen[name] = stats
        return None

    if MANIFEST_NAME in names:
        names.remove(MANIFEST_NAME)
        if (fault := copy(MANIFEST_NAME, MANIFEST_NAME, None)) is not None:
            yield fault
    manifest = manifest_in(copied.folder)
    node_id = manifest.node_id if manifest is not None and is_node_id(manifest.node_id) else None
    there = sort_names(names, listed_in(manifest))
    copied.warnings.extend(there.warnings())
    yield from unlisted(there.others)
    yield from filter(None, several_at_once(lambda pair: copy(*pair, node_id), sorted(there.found.items())))
