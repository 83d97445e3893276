"""Find the bundles in an archive, and unpack each into a folder of its own.

Names are not trusted: only plain file names that a bundle's manifest lists are joined to a path, and no more bytes are
unpacked than the manifests say, and than an archive of that size may hold. An archive of several bundles gives all of
them; files that are in none of them are not read. Archives inside an archive are not opened.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from calyx_logging.bundle.archive import Member
from calyx_logging.bundle.verification import OWN_NAMES, Fault
from calyx_logging.core import files
from calyx_logging.core.carriers import Leftover, left_by, left_folder, shown, sort_names
from calyx_logging.errors import ArchiveError, ManifestError
from calyx_logging.format.chunk import SEALED_SUFFIX
from calyx_logging.format.chunk_stats import ChunkStats
from calyx_logging.format.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST,
    SIGNATURE_NAME,
    SUMS_NAME,
    Manifest,
    is_safe_filename,
)

__all__ = ["Copied", "listed_in", "manifest_in", "unlisted", "unpack", "was_a_bundle"]

_FOLDER = re.compile(r"[0-9]{8}_[0-9]{6}", re.ASCII)
_MAX_NAMED = 1000
"""The most surplus files of a bundle that are named one by one."""

_MAX_STRAYS = 20
"""The most files outside the bundles, and the most leftovers, that are named one by one."""

_MAX_BUNDLES = 10_000
"""The most bundles in one archive."""

_DEEPEST = 16
"""The most folders that a file of an archive may be in."""

_Path = tuple[str, ...]


@dataclass(frozen=True)
class Copied:
    """A copy of a bundle, made without any trust in it.

    Attributes:
        folder: the copy.
        faults: one for each file that was not copied.
        warnings: what was left out.
        inside: the bundle's folder in an archive of several; empty for anything else.
        seen: the stats and scans of chunks that were read while they were copied, by file name.
    """

    folder: Path
    faults: list[Fault]
    warnings: list[str]
    inside: str = ""
    seen: dict[str, ChunkStats] = field(default_factory=dict)


@dataclass
class _Bundle:
    """The members of an archive that are in one bundle's folder."""

    files: list[tuple[str, Member]] = field(default_factory=list)
    unsafe: list[str] = field(default_factory=list)
    leftovers: dict[str, Leftover] = field(default_factory=dict)


@dataclass
class _Budget:
    """The most bytes that an archive may still unpack to: all in all, and its manifests."""

    bytes: int
    manifests: int


@dataclass
class _Contents:
    """The members of an archive: by folder those of bundles, and the others."""

    bundles: dict[_Path, _Bundle] = field(default_factory=dict)
    unsafe: list[str] = field(default_factory=list)
    leftovers: dict[str, Leftover] = field(default_factory=dict)
    strays: list[str] = field(default_factory=list)


def unpack(members: Iterable[Member], staged: Path, limit: int) -> Iterator[Copied]:
    """Unpack the bundles of an archive, one at a time, at least one.

    Args:
        members: of the archive.
        staged: the folder for the copy; the caller makes it anew before it asks for the next.
        limit: the most bytes that all may unpack to.
    """
    contents = _contents_of(members)
    warnings = list(_left_out(contents.leftovers, "in the archive is not read"))
    for name in contents.strays[:_MAX_STRAYS]:
        warnings.append(f"{shown(name)[:200]} in the archive belongs to no bundle, and is not read")
    if len(contents.strays) > _MAX_STRAYS:
        warnings.append(f"{len(contents.strays) - _MAX_STRAYS} more files in the archive belong to no bundle")
    faults = list(_unsafe(contents.unsafe))
    if len(contents.bundles) > _MAX_BUNDLES:
        found = f"{len(contents.bundles)}: unpack it, and import that"
        faults.append(Fault("malformed", MANIFEST_NAME, f"at most {_MAX_BUNDLES} bundles in an archive", found))
    if faults or not contents.bundles:
        yield Copied(staged, faults, warnings)
        return
    budget = _Budget(limit, MAX_MANIFEST)
    for folder, bundle in sorted(contents.bundles.items()):
        own = Copied(staged, [], warnings, "/".join(folder) if len(contents.bundles) > 1 else "")
        _unpack_bundle(bundle, own, budget)
        yield own
        warnings = []


def _contents_of(members: Iterable[Member]) -> _Contents:
    contents = _Contents()
    placed: list[tuple[_Path, Member]] = []
    left: list[tuple[_Path, Leftover]] = []
    for member in members:
        parts = _parts_of(member)
        if member.kind == "folder":
            if not set(parts).isdisjoint(("", "..")):
                contents.unsafe.append(member.path)
        elif (found := _leftover_in(parts)) is not None:
            left.append(found)
        else:
            placed.append((parts, member))
    contents.bundles = {folder: _Bundle() for folder in _bundles_among([parts for parts, _ in placed])}
    for parts, member in placed:
        _place(contents, parts, member)
    for parts, leftover in left:
        folder = _bundle_of(parts, contents.bundles)
        owner = contents if folder is None else contents.bundles[folder]
        owner.leftovers["/".join(map(shown, parts[len(folder or ()) :]))] = leftover
    return contents


def _place(contents: _Contents, parts: _Path, member: Member) -> None:
    """Give a file to the bundle in whose folder it is; what its name makes of it is for its manifest to say."""
    folder = _bundle_of(parts, contents.bundles)
    if folder is not None:
        bundle = contents.bundles[folder]
        if len(parts) == len(folder) + 1 and not _is_dangerous(parts):
            bundle.files.append((parts[-1], member))
        else:
            bundle.unsafe.append(member.path)
    elif _is_dangerous(parts):
        contents.unsafe.append(member.path)
    elif (left := left_by(parts[-1])) is not None:
        contents.leftovers["/".join(map(shown, parts))] = left
    elif _is_plain(parts) or any(part.startswith(".") for part in parts):
        contents.strays.append(member.path)
    else:
        contents.unsafe.append(member.path)


def _parts_of(member: Member) -> _Path:
    parts = tuple(member.path.removeprefix("./").split("/"))
    if member.kind == "folder":
        return () if parts in (("",), (".",)) else parts[:-1] if parts[-1] == "" else parts
    return parts


def _is_dangerous(parts: _Path) -> bool:
    """Check whether a path could lead anywhere but down."""
    return len(parts) > _DEEPEST or any(part in ("", ".", "..") or set(part) & set("\\:\0") for part in parts)


def _is_plain(parts: _Path) -> bool:
    return len(parts) <= _DEEPEST and all(map(is_safe_filename, parts))


def _leftover_in(parts: _Path) -> tuple[_Path, Leftover] | None:
    """Return the outermost folder of a path that a carrier left, with its path."""
    if not _is_dangerous(parts):
        for depth, part in enumerate(parts[:-1], 1):
            if (left := left_folder(part)) is not None:
                return parts[:depth], left
    return None


def _bundles_among(paths: Iterable[_Path]) -> set[_Path]:
    """Return the folders of bundles, also of those without a manifest; none is inside another."""
    names: dict[_Path, set[str]] = {}
    for parts in paths:
        if _is_plain(parts[:-1]):
            names.setdefault(parts[:-1], set()).add(parts[-1])
    with_manifest = {folder for folder, here in names.items() if MANIFEST_NAME in here}
    without = {folder for folder, here in names.items() if was_a_bundle(folder[-1] if folder else "", here)}
    found = {folder for folder in with_manifest if _bundle_of(folder[:-1], with_manifest) is None or not folder}
    return found | {folder for folder in without - found if _bundle_of(folder, found) is None}


def _bundle_of(parts: _Path, bundles: Collection[_Path]) -> _Path | None:
    """Return the outermost of the bundles that a path is in."""
    return next((parts[:depth] for depth in range(min(len(parts), _DEEPEST) + 1) if parts[:depth] in bundles), None)


def was_a_bundle(folder: str, inside: Collection[str]) -> bool:
    """Check whether a folder without manifest looks like a bundle that arrived in part."""
    has_chunks = bool(_FOLDER.fullmatch(folder)) and any(
        name.endswith(SEALED_SUFFIX) and left_by(name) is None for name in inside
    )
    return SUMS_NAME in inside or SIGNATURE_NAME in inside or has_chunks


# ------------------------------------------------------------------ one bundle


def _unpack_bundle(bundle: _Bundle, copied: Copied, budget: _Budget) -> None:
    """Unpack the manifest, then the files that it names, each up to the length that it states."""
    faults, staged = copied.faults, copied.folder
    faults += _unsafe(bundle.unsafe)
    copied.warnings.extend(_left_out(bundle.leftovers, "is not part of the bundle"))
    by_name = dict(reversed(bundle.files))
    manifest = by_name.get(MANIFEST_NAME)
    if manifest is None or manifest.kind != "file":
        if manifest is not None:
            faults.append(Fault("unreadable", MANIFEST_NAME, "a regular file", manifest.kind))
        copied.warnings.extend(sort_names(by_name, OWN_NAMES).warnings())
        return
    if min(manifest.size, MAX_MANIFEST) > budget.manifests:
        expected = f"at most {MAX_MANIFEST} bytes of manifests in an archive"
        faults.append(Fault("malformed", MANIFEST_NAME, expected, "more: unpack it, and import that"))
        return
    faults += _unpack_file(MANIFEST_NAME, manifest, MAX_MANIFEST, staged)
    listed = listed_in(manifest_in(staged))
    there = sort_names(by_name, listed)
    copied.warnings.extend(there.warnings())
    faults += _irregular(bundle, there.leftovers)
    faults += unlisted([name for name in there.others if by_name[name].kind == "file"])
    wanted = {name: by_name[found] for name, found in there.found.items() if by_name[found].kind == "file"}
    wanted.pop(MANIFEST_NAME)
    chunks = sum(listed[name] or 0 for name in wanted if name not in OWN_NAMES)
    total = chunks + sum(min(member.size, MAX_MANIFEST) for name, member in wanted.items() if name in OWN_NAMES)
    free = shutil.disk_usage(staged).free
    budget.bytes -= manifest.size
    budget.manifests -= manifest.size
    if total > budget.bytes or total > free:
        why = f"{free} bytes are free" if total > free else "that is far more than an archive of this size holds"
        faults.append(Fault("unsafe", MANIFEST_NAME, f"chunks of {chunks} bytes", why))
        return
    budget.bytes -= total
    for name, member in sorted(wanted.items()):
        if (most := listed[name]) is None:
            hint = "the archive can be unpacked by hand, and the folder imported"
            faults.append(Fault("malformed", name, "its number of bytes in the manifest", f"none; {hint}"))
        else:
            faults += _unpack_file(name, member, most, staged)


def _irregular(bundle: _Bundle, leftovers: Collection[str]) -> Iterator[Fault]:
    """Yield a fault for each member that is no file, or has another one's name."""
    seen: set[str] = set()
    for name, member in bundle.files:
        if name in leftovers:
            continue
        if member.kind != "file":
            yield Fault("unreadable", name, "a regular file", member.kind)
        elif name in seen:
            yield Fault("malformed", name, "each file once", "it is in the archive twice")
        seen.add(name)


def _unpack_file(name: str, member: Member, most: int, staged: Path) -> Iterator[Fault]:
    if member.size > most:
        yield Fault("changed", name, f"at most {most} bytes", f"{member.size} bytes in the archive")
        return
    try:
        files.write_new(staged / name, member.blocks())
    except ArchiveError as error:
        yield Fault("unreadable", name, "a whole file", error.message)


def _left_out(leftovers: Mapping[str, Leftover], what: str) -> Iterator[str]:
    for path in sorted(leftovers)[:_MAX_STRAYS]:
        yield f"{path[:200]} {what} ({leftovers[path]})"
    if len(leftovers) > _MAX_STRAYS:
        yield f"{len(leftovers) - _MAX_STRAYS} more files and folders were left in the archive by such programs"


def _unsafe(paths: list[str]) -> Iterator[Fault]:
    for path in paths[:_MAX_NAMED]:
        yield Fault("unsafe", repr(path)[:200], "a plain file name in a bundle's folder")
    if len(paths) > _MAX_NAMED:
        yield Fault("unsafe", "", "plain file names", f"{len(paths) - _MAX_NAMED} more that are none")


# ------------------------------------------------------------------ what is listed


def manifest_in(staged: Path) -> Manifest | None:
    """Return a copy's manifest, or None if it cannot be read; `check` reports why."""
    try:
        return Manifest.parse(files.read_regular(staged / MANIFEST_NAME))
    except (OSError, ManifestError):
        return None


def listed_in(manifest: Manifest | None) -> dict[str, int | None]:
    """Return the files that a bundle may have, with their lengths from the manifest if that is readable."""
    listed: dict[str, int | None] = dict.fromkeys(OWN_NAMES, MAX_MANIFEST)
    if manifest is None:
        return listed
    return {chunk.filename: chunk.bytes for chunk in manifest.chunks if is_safe_filename(chunk.filename)} | listed


def unlisted(names: list[str]) -> Iterator[Fault]:
    """Yield a fault for each file that the manifest does not name."""
    for name in names[:_MAX_NAMED]:
        if is_safe_filename(name):
            yield Fault("extra", name, "", "a file that the manifest does not name")
        else:
            yield Fault("unsafe", repr(name)[:200], "a plain file name of a chunk")
    if len(names) > _MAX_NAMED:
        yield Fault("extra", names[_MAX_NAMED], "", f"this and {len(names) - _MAX_NAMED - 1} more such files")
