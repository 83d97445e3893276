"""Compare a bundle with its manifest, and report all faults at once.

This module opens, lists and writes nothing: a bundle is given by its file names and a function that reads one of them.
The result does not depend on the order of the names, and each fault says what was expected and what was found. Files
that carriers leave beside the bundle's are warnings, by the list in `core.carriers`; they are never read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from calyx_logging.core.carriers import SortedNames, pair_names, sort_names
from calyx_logging.core.parallel import several_at_once
from calyx_logging.core.reading import sha256_of
from calyx_logging.errors import CalyxError, ChunkError, ManifestError, StorageError
from calyx_logging.format.chunk import SEALED_SUFFIX
from calyx_logging.format.chunk_stats import ChunkStats, stats_for
from calyx_logging.format.line_check import Scan
from calyx_logging.format.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST,
    SIGNATURE_NAME,
    SUMS_NAME,
    ChunkEntry,
    Manifest,
    is_safe_filename,
    name_key,
    parse_sums,
)
from calyx_logging.node import is_node_id

__all__ = ["OWN_NAMES", "Fault", "Progress", "Read", "Report", "judge", "names_of"]

OWN_NAMES = (MANIFEST_NAME, SUMS_NAME, SIGNATURE_NAME)
"""The files of a bundle that are no chunks."""

_FIELDS = ("bytes", "events", "first_ts_utc", "last_ts_utc", "writer", "first_seq", "last_seq")
Progress = Callable[[int], None]
Read = Callable[[str], Iterable[bytes]]
"""Yields a file's bytes by its name, block by block; raises ChunkError, StorageError or OSError."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a bundle.

    Attributes:
        kind: `missing`, `extra`, `changed`, `malformed`, `unsafe` or `unreadable`.
        path: the file's name in the bundle.
        expected: what the manifest or the layout says.
        found: what is there.
    """

    kind: str
    path: str
    expected: str = ""
    found: str = ""

    def __str__(self) -> str:
        text = f"{self.kind}: {self.path}"
        if self.expected:
            text += f", expected {self.expected}"
        if self.found:
            text += f", found {self.found}"
        return text


@dataclass(frozen=True)
class Report:
    """The result of checking a bundle.

    Attributes:
        manifest: None if it cannot be read.
        manifest_sha256: likewise.
        faults: all of them.
        warnings: what the user should know.
        events: the events in its chunks, without control lines, as far as the chunks can be read.
        scans: of its chunks' lines, by file name, if they were wanted.
    """

    manifest: Manifest | None
    manifest_sha256: str | None
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]
    events: int = 0
    scans: Mapping[str, Scan] = field(default_factory=dict)


_StatsOf = Callable[[str, str], ChunkStats | Fault]


def judge(
    names: Collection[str],
    read: Read,
    *,
    progress: Progress | None = None,
    with_scans: bool = False,
    seen: Mapping[str, ChunkStats] | None = None,
) -> Report:
    """Find all faults of a bundle.

    Args:
        names: the names of its files.
        read: reads one of them; several are read at once, in threads.
        progress: receives the numbers of chunk bytes read.
        with_scans: whether to scan the chunks' lines in the same pass; bad lines are no faults here.
        seen: the stats of chunks, by file name, that need not be read again.
    """
    if MANIFEST_NAME not in names:
        fault = Fault("missing", MANIFEST_NAME, "the bundle's manifest", "no such file")
        return Report(None, None, (fault,), tuple(sort_names(names, OWN_NAMES).warnings()))
    try:
        data = _whole(MANIFEST_NAME, read)
        manifest = Manifest.parse(data)
    except (ManifestError, ChunkError, StorageError, OSError) as error:
        fault = Fault("malformed", MANIFEST_NAME, "", _error_text(error))
        return Report(None, None, (fault,), tuple(sort_names(names, OWN_NAMES).warnings()))
    there = sort_names(names, names_of(manifest))
    digest = sha256_of(data)
    stats_of = partial(
        _stats_of,
        read=read,
        progress=progress,
        scanned_for=manifest.node_id if with_scans and is_node_id(manifest.node_id) else None,
        seen=seen or {},
    )
    read_of: dict[str, ChunkStats] = {}
    faults = _manifest_faults(manifest)
    faults += _chunk_faults(manifest, there, stats_of, read_of)
    if SUMS_NAME in names:
        try:
            faults += _sums_faults(manifest, digest, parse_sums(_whole(SUMS_NAME, read)))
        except (ManifestError, ChunkError, StorageError, OSError) as error:
            faults.append(Fault("malformed", SUMS_NAME, "", _error_text(error)))
    elif not manifest.is_legacy:
        faults.append(Fault("missing", SUMS_NAME, "a line for each file", "no such file"))
    logged = sum(stats.logged for stats in read_of.values())
    scans = {name: stats.scanner.result() for name, stats in read_of.items() if stats.scanner is not None}
    return Report(manifest, digest, tuple(faults), tuple(there.warnings()), logged, scans)


def names_of(manifest: Manifest) -> set[str]:
    """Return the names that the files of a bundle have."""
    return {entry.filename for entry in manifest.chunks}.union(OWN_NAMES)


def _whole(name: str, read: Read) -> bytes:
    """Read a small file; stop once it is larger than allowed."""
    found = bytearray()
    for block in read(name):
        found += block
        if len(found) > MAX_MANIFEST:
            break
    return bytes(found)


def _error_text(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return error.message if isinstance(error, CalyxError) else str(error)


def _manifest_faults(manifest: Manifest) -> list[Fault]:
    faults = []
    if not is_node_id(manifest.node_id):
        faults.append(Fault("malformed", MANIFEST_NAME, "a node id", repr(manifest.node_id)[:100]))
    seen: set[str] = set()
    for entry in manifest.chunks:
        key = name_key(entry.filename)
        if not is_safe_filename(entry.filename) or not entry.filename.endswith(SEALED_SUFFIX):
            faults.append(Fault("unsafe", repr(entry.filename)[:200], "a plain file name of a chunk"))
        if key in seen:
            faults.append(
                Fault("malformed", MANIFEST_NAME, "each chunk once", f"{entry.filename!r} twice, or what is like it")
            )
        seen.add(key)
    return faults


def _chunk_faults(
    manifest: Manifest, there: SortedNames, stats_of: _StatsOf, read_of: dict[str, ChunkStats]
) -> list[Fault]:
    """Find the faults of the chunks; put each chunk's stats into `read_of`."""
    faults: list[Fault] = []
    missing: dict[str, str] = {}
    here: list[ChunkEntry] = []
    for entry in manifest.chunks:
        if not is_safe_filename(entry.filename):
            continue
        if entry.filename in there.found:
            here.append(entry)
        else:
            missing[entry.sha256] = entry.filename
            faults.append(Fault("missing", entry.filename, f"sha256 {entry.sha256}", "no such file"))

    def look_at(entry: ChunkEntry) -> ChunkStats | Fault:
        return stats_of(entry.filename, there.found[entry.filename])

    for entry, found in zip(here, several_at_once(look_at, here), strict=True):
        if isinstance(found, Fault):
            faults.append(found)
        else:
            faults.extend(_differences(entry, found.entry(entry.filename)))
            read_of[entry.filename] = found
    for name in there.others:
        extra = stats_of(name, name) if missing else None
        twin = missing.get(extra.entry(name).sha256) if isinstance(extra, ChunkStats) else None
        found_text = f"the content of {twin}: it was renamed" if twin else "a file that the manifest does not name"
        faults.append(Fault("extra", name, "", found_text))
    return faults


def _stats_of(
    name: str,
    there: str,
    *,
    read: Read,
    progress: Progress | None,
    scanned_for: str | None,
    seen: Mapping[str, ChunkStats],
) -> ChunkStats | Fault:
    """Return the stats of a chunk whose file has the name `there`."""
    if name in seen:
        return seen[name]
    try:
        stats = stats_for(name, scanned_for=scanned_for)
        for block in stats.through(read(there)):
            if progress is not None:
                progress(len(block))
        return stats
    except (ChunkError, StorageError, OSError) as error:
        return Fault("unreadable", name, "a regular file", _error_text(error))


def _differences(expected: ChunkEntry, found: ChunkEntry) -> Iterable[Fault]:
    if expected.sha256 != found.sha256:
        yield Fault("changed", expected.filename, f"sha256 {expected.sha256}", f"sha256 {found.sha256}")
        return
    for name in _FIELDS:
        stated, is_so = getattr(expected, name), getattr(found, name)
        if stated is not None and stated != is_so:
            yield Fault("malformed", MANIFEST_NAME, f"{name} {is_so} for {expected.filename}", f"{name} {stated}")


def _sums_faults(manifest: Manifest, digest: str, sums: Mapping[str, str]) -> list[Fault]:
    faults = []
    expected = {entry.filename: entry.sha256 for entry in manifest.chunks} | {MANIFEST_NAME: digest}
    spelt = pair_names(expected, sums)
    sums = {name: sums[there] for name, there in spelt.items()} | {
        name: sums[name] for name in sums.keys() - set(spelt.values())
    }
    for name in sorted(expected.keys() | sums.keys()):
        if name not in sums:
            faults.append(Fault("malformed", SUMS_NAME, f"a line for {name}", "none"))
        elif name not in expected:
            faults.append(Fault("malformed", SUMS_NAME, "", f"a line for {name!r}, which the manifest does not name"))
        elif sums[name] != expected[name]:
            if name == MANIFEST_NAME:
                expected_text = f"sha256 {sums[name]} as {SUMS_NAME} says"
                faults.append(Fault("changed", name, expected_text, f"sha256 {digest}"))
            else:
                faults.append(
                    Fault("malformed", SUMS_NAME, f"sha256 {expected[name]} for {name}", f"sha256 {sums[name]}")
                )
    return faults
