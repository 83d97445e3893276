"""Find arriving bundles, and copy one into staging, from a folder or an archive.

Names are not trusted: only plain file names that the manifest lists are joined to a path, and no more bytes of an
archive are unpacked than its manifest says. Each file that is not copied is a fault; `bundle.check` checks those that
are.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from calyx_logging.bundle.archive import Member, is_archive, members_of, unpacked_limit
from calyx_logging.bundle.folder import check
from calyx_logging.bundle.verification import Fault, Progress, Report, is_junk
from calyx_logging.core import files
from calyx_logging.core.parallel import several_at_once
from calyx_logging.core.reading import blocks_of
from calyx_logging.errors import ArchiveError, ChunkError, ManifestError, StorageError
from calyx_logging.format.chunk import SEALED_SUFFIX, open_chunk
from calyx_logging.format.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST,
    SIGNATURE_NAME,
    SUMS_NAME,
    Manifest,
    is_safe_filename,
)

__all__ = ["Found", "Source", "bring", "bundles_in", "bytes_of", "verdict"]

_OWN = (MANIFEST_NAME, SUMS_NAME, SIGNATURE_NAME)
_UNREAD = (".tar", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".part", ".crdownload", ".tmp")
_FOLDER = re.compile(r"[0-9]{8}_[0-9]{6}", re.ASCII)
_MAX_NAMED = 1000
"""The most surplus files of a bundle that are named one by one."""


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
    """

    bundles: list[Path] = field(default_factory=list)
    passed_over: list[Path] = field(default_factory=list)


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
        names.sort()
        names[:] = [
            name for name in names if not name.startswith(".") and os.path.realpath(Path(folder, name)) != store
        ]
        if MANIFEST_NAME in inside or _was_a_bundle(Path(folder).name, inside):
            names.clear()
            found.bundles.append(Path(folder))
            continue
        for name in sorted(inside):
            if name.startswith("."):
                continue
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


def _was_a_bundle(folder: str, inside: list[str]) -> bool:
    """Tell whether a folder without manifest looks like a bundle that arrived in part."""
    names = set(inside)
    has_chunks = bool(_FOLDER.fullmatch(folder)) and any(name.endswith(SEALED_SUFFIX) for name in names)
    return bool(names & {SUMS_NAME, SIGNATURE_NAME}) or has_chunks


def bytes_of(place: Path | Source) -> int:
    """Estimate the bytes to copy of a bundle, for a progress bar."""
    source = _Local(place) if isinstance(place, Path) else place
    try:
        return sum(map(source.size, [""] if source.is_archive else source.names()))
    except StorageError:
        return 0


def bring(place: Path | Source, room: Path, progress: Progress | None = None) -> tuple[Path, list[Fault]]:
    """Copy a bundle and sync the copy.

    Args:
        place: its folder, or an archive; it is only read.
        room: an empty folder for the copy alone.
        progress: receives the numbers of bytes copied.

    Returns:
        The folder with the copy, and a fault for each file that was not copied.

    Raises:
        StorageError: the source cannot be read.
        OSError: the copy cannot be written.
    """
    source = _Local(place) if isinstance(place, Path) else place
    staged = room / "bundle"
    files.make_dirs(staged)
    if not source.is_archive:
        return staged, list(_copy_folder(source, staged, progress))
    archive, scratch = (
        room / ("archive.zip" if source.name.lower().endswith(".zip") else "archive.tar.gz"),
        room / "tar",
    )
    try:
        files.write_new(archive, _counted(source.blocks(""), progress), sync=False)
        with members_of(archive, scratch) as members:
            faults = list(_unpack(members, staged, unpacked_limit(archive.stat().st_size)))
    except (ArchiveError, ChunkError, StorageError) as error:
        faults = [Fault("unreadable", source.name, "an archive of a bundle", error.message)]
    files.remove(scratch)
    files.remove(archive)
    return staged, faults


def verdict(staged: Path, faults: list[Fault]) -> Report:
    """Check a copy and add the faults of copying; a file that was not copied does not also count as missing.

    Raises:
        StorageError: the copy cannot be read.
    """
    report = check(staged)
    if faults and not any(staged.iterdir()):
        return replace(report, faults=tuple(faults))  # nothing was copied: only the reasons matter
    names = {fault.path for fault in faults}
    found = [fault for fault in report.faults if fault.kind not in ("missing", "malformed") or fault.path not in names]
    return replace(report, faults=(*faults, *found))


def _counted(blocks: Iterable[bytes], progress: Progress | None) -> Iterator[bytes]:
    for block in blocks:
        if progress is not None:
            progress(len(block))
        yield block


def _listed(staged: Path) -> dict[str, int | None]:
    """Return the files a bundle may have, with their lengths from the manifest if that is readable."""
    listed: dict[str, int | None] = dict.fromkeys(_OWN, MAX_MANIFEST)
    try:
        manifest = Manifest.parse(files.read_regular(staged / MANIFEST_NAME))
    except (OSError, ManifestError):
        return listed  # `check` reports what is wrong with it
    return {chunk.filename: chunk.bytes for chunk in manifest.chunks} | listed


def _unlisted(names: Iterable[str], listed: Iterable[str]) -> Iterator[Fault]:
    extra = sorted(set(names) - set(listed))
    for name in extra[:_MAX_NAMED]:
        yield Fault("extra", name, "", "a file that the manifest does not name")
    if len(extra) > _MAX_NAMED:
        yield Fault("extra", extra[_MAX_NAMED], "", f"this and {len(extra) - _MAX_NAMED - 1} more such files")


# ------------------------------------------------------------------ from a folder


def _copy_folder(source: Source, staged: Path, progress: Progress | None) -> Iterator[Fault]:
    names = sorted(name for name in source.names() if not is_junk(name))
    unsafe = [name for name in names if not is_safe_filename(name)]
    for name in unsafe[:_MAX_NAMED]:
        yield Fault("unsafe", repr(name)[:200], "a plain file name of a chunk")
    names = [name for name in names if is_safe_filename(name)]
    for name in _OWN:
        if name in names and source.size(name) > MAX_MANIFEST:
            yield Fault("malformed", name, f"at most {MAX_MANIFEST} bytes", "more")
            names.remove(name)

    def copy(name: str) -> Fault | None:
        try:
            files.write_new(staged / name, _counted(source.blocks(name), progress))
        except (ChunkError, StorageError) as error:
            return Fault("unreadable", name, "a regular file", error.message)
        return None

    if MANIFEST_NAME in names:
        names.remove(MANIFEST_NAME)
        if (fault := copy(MANIFEST_NAME)) is not None:
            yield fault
    listed = _listed(staged)
    yield from _unlisted(names, listed)
    yield from filter(None, several_at_once(copy, [name for name in names if name in listed]))


# ------------------------------------------------------------------ from an archive


def _unpack(members: list[Member], staged: Path, limit: int) -> Iterator[Fault]:
    """Unpack the manifest, then the files that it names, each up to the length that it states."""
    by_name: dict[str, Member] = {}
    placed: list[tuple[str, str, Member]] = []
    for member in members:
        folder, name = _place_of(member)
        if name is None:
            yield Fault("unsafe", repr(member.path)[:200], "a plain file name, in one folder at most")
        elif name and not is_junk(name) and folder != "__MACOSX":
            placed.append((folder, name, member))
    folders = sorted({folder for folder, _, _ in placed})
    if len(folders) > 1:
        found = ", ".join(repr(folder)[:50] for folder in folders[:5])
        found_text = f"files of several folders ({found}): unpack it, and import that"
        yield Fault("malformed", MANIFEST_NAME, "an archive of one bundle", found_text)
        return
    for _, name, member in placed:
        if member.kind != "file":
            yield Fault("unreadable", name, "a regular file", member.kind)
        elif name in by_name:
            yield Fault("malformed", name, "each file once", "it is in the archive twice")
        else:
            by_name[name] = member
    manifest = by_name.pop(MANIFEST_NAME, None)
    if manifest is None:
        return
    yield from _unpack_one(MANIFEST_NAME, manifest, MAX_MANIFEST, staged)
    listed = _listed(staged)
    yield from _unlisted(by_name, listed)
    wanted = {name: member for name, member in by_name.items() if name in listed}
    total = sum(listed[name] or 0 for name in wanted if name not in _OWN)
    free = shutil.disk_usage(staged).free
    if total > limit or total > free:
        why = f"{free} bytes are free" if total > free else "that is far more than an archive of this size holds"
        yield Fault("unsafe", MANIFEST_NAME, f"chunks of {total} bytes", why)
        return
    for name, member in wanted.items():
        if (most := listed[name]) is None:
            hint = "the archive can be unpacked by hand, and the folder imported"
            yield Fault("malformed", name, "its number of bytes in the manifest", f"none; {hint}")
        else:
            yield from _unpack_one(name, member, most, staged)


def _place_of(member: Member) -> tuple[str, str | None]:
    """Return a member's folder and plain name (empty for a folder, None for a name that is not allowed)."""
    parts = member.path.removeprefix("./").split("/")
    if member.kind == "folder":
        return "", "" if (len(parts) <= 2 and parts[0] not in ("..", "")) or parts in ([""], ["."]) else None
    folder, name = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[-1])
    plain = is_junk(name) or is_safe_filename(name)
    if len(parts) > 2 or not plain or (len(parts) == 2 and not is_safe_filename(folder)):
        return folder, None
    return folder, name


def _unpack_one(name: str, member: Member, most: int, staged: Path) -> Iterator[Fault]:
    if member.size > most:
        yield Fault("changed", name, f"at most {most} bytes", f"{member.size} bytes in the archive")
        return
    try:
        files.write_new(staged / name, member.blocks())
    except ArchiveError as error:
        yield Fault("unreadable", name, "a whole file", error.message)
