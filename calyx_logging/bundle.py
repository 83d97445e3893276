"""The bundle's layout, and its verification: every fault at once, each with what was expected and what was found.

`check` and `verify` never write; what they say of a folder does not depend on the order of its entries.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from calyx_logging import durable
from calyx_logging.chunk import SEALED_SUFFIX, open_chunk
from calyx_logging.errors import BundleError, ChunkError, ConfigError, ManifestError, StorageError
from calyx_logging.manifest import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    SUMS_NAME,
    TIMESTAMP_FORMAT,
    ChunkEntry,
    Manifest,
    format_sums,
    is_safe_filename,
    name_key,
    parse_sums,
)
from calyx_logging.node import check_node_id, is_node_id
from calyx_logging.stats import ChunkStats, blocks_of, several_at_once, stats_for, stats_of

__all__ = ["Fault", "Report", "VerifiedBundle", "check", "is_junk", "sums_of", "verify", "write_manifest"]

_JUNK = frozenset({".ds_store", "desktop.ini", "thumbs.db", ".fseventsd", ".trashes", ".spotlight-v100"})
_FIELDS = ("bytes", "events", "first_ts_utc", "last_ts_utc", "writer", "first_seq", "last_seq")
Progress = Callable[[int], None]


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
class VerifiedBundle:
    """A bundle without fault."""

    path: Path
    manifest: Manifest
    manifest_sha256: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What `check` found; `manifest` is None where it cannot be read."""

    path: Path
    manifest: Manifest | None
    manifest_sha256: str | None
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]


def verify(folder: Path, *, progress: Progress | None = None) -> VerifiedBundle:
    """The bundle in a folder.

    Raises:
        BundleError: it has faults; all of them are listed.
        StorageError: the folder cannot be read.
    """
    report = check(folder, progress=progress)
    if report.faults or report.manifest is None or report.manifest_sha256 is None:
        raise BundleError("the bundle is not whole", faults=report.faults, path=folder)
    return VerifiedBundle(folder, report.manifest, report.manifest_sha256, report.warnings)


def check(folder: Path, *, progress: Progress | None = None) -> Report:
    """Look at a bundle and say all that is wrong with it; `progress` is told of bytes read.

    Raises:
        StorageError: the folder cannot be listed.
    """
    folder = durable.reachable(folder)
    entries = _listing(folder)
    junk = sorted(name for name in entries if is_junk(name))
    warnings = tuple(f"{name} is not part of the bundle (left by an operating system)" for name in junk)
    if MANIFEST_NAME not in entries:
        below = sorted(name for name in entries if (folder / name / MANIFEST_NAME).is_file())
        found = (
            f"no such file; there are bundles in the folders below, such as {below[-1]}" if below else "no such file"
        )
        faults = [Fault("missing", MANIFEST_NAME, "the bundle's manifest", found)]
        return Report(folder, None, None, tuple(faults), warnings)
    try:
        with open_chunk(folder / MANIFEST_NAME) as stream:
            data = stream.read()
        manifest = Manifest.parse(data)
    except (ManifestError, ChunkError, StorageError) as error:
        return Report(folder, None, None, (Fault("malformed", MANIFEST_NAME, "", error.message),), warnings)
    digest = hashlib.sha256(data).hexdigest()
    faults = [*_manifest_faults(manifest), *_chunk_faults(folder, manifest, entries - set(junk), progress)]
    if manifest.version > 0 or SUMS_NAME in entries:
        faults += _sums_faults(folder, manifest, digest, entries)
    return Report(folder, manifest, digest, tuple(faults), warnings)


def is_junk(name: str) -> bool:
    """Whether a name is what operating systems leave on a stick by themselves."""
    return name.startswith("._") or name.lower() in _JUNK


def sums_of(manifest: Manifest, manifest_sha256: str) -> bytes:
    """The bundle's SHA256SUMS: every chunk, and the manifest."""
    return format_sums([*((c.filename, c.sha256) for c in manifest.chunks), (MANIFEST_NAME, manifest_sha256)])


def _listing(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except FileNotFoundError as error:
        raise StorageError("there is no such folder", path=folder, hint="name the folder of a bundle") from error
    except OSError as error:
        raise StorageError.of(error, "read the folder", folder, "name the folder of a bundle") from error


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


def _chunk_faults(folder: Path, manifest: Manifest, entries: set[str], progress: Progress | None) -> list[Fault]:
    faults: list[Fault] = []
    missing: dict[str, str] = {}
    here: list[ChunkEntry] = []
    for entry in manifest.chunks:
        if not is_safe_filename(entry.filename):
            continue
        if entry.filename in entries:
            here.append(entry)
        else:
            missing[entry.sha256] = entry.filename
            faults.append(Fault("missing", entry.filename, f"sha256 {entry.sha256}", "no such file"))
    all_found = several_at_once(lambda entry: _entry_of(folder, entry.filename, progress), here)
    for entry, found in zip(here, all_found, strict=True):
        faults.extend([found] if isinstance(found, Fault) else _differences(entry, found))
    listed = {entry.filename for entry in manifest.chunks} | {MANIFEST_NAME, SUMS_NAME, SIGNATURE_NAME}
    for name in sorted(entries - listed):
        extra = _entry_of(folder, name, progress) if missing else None
        twin = missing.get(extra.sha256) if isinstance(extra, ChunkEntry) else None
        said = f"the content of {twin}: it was renamed" if twin else "a file that the manifest does not name"
        faults.append(Fault("extra", name, "", said))
    return faults


def _entry_of(folder: Path, name: str, progress: Progress | None) -> ChunkEntry | Fault:
    try:
        with open_chunk(folder / name) as stream:
            stats = stats_for(name)
            for block in stats.through(blocks_of(stream)):
                if progress is not None:
                    progress(len(block))
            return stats.entry(name)
    except (ChunkError, StorageError) as error:
        return Fault("unreadable", name, "a regular file", error.message)
    except OSError as error:
        return Fault("unreadable", name, "a regular file", error.strerror or str(error))


def _differences(expected: ChunkEntry, found: ChunkEntry) -> Iterable[Fault]:
    if expected.sha256 != found.sha256:
        yield Fault("changed", expected.filename, f"sha256 {expected.sha256}", f"sha256 {found.sha256}")
        return
    for name in _FIELDS:
        said, is_so = getattr(expected, name), getattr(found, name)
        if said is not None and said != is_so:
            yield Fault("malformed", MANIFEST_NAME, f"{name} {is_so} for {expected.filename}", f"{name} {said}")


def _sums_faults(folder: Path, manifest: Manifest, digest: str, entries: set[str]) -> list[Fault]:
    if SUMS_NAME not in entries:
        return [Fault("missing", SUMS_NAME, "a line for each file", "no such file")]
    try:
        with open_chunk(folder / SUMS_NAME) as stream:
            sums = parse_sums(stream.read())
    except (ManifestError, ChunkError, StorageError) as error:
        return [Fault("malformed", SUMS_NAME, "", error.message)]
    faults = []
    expected = {entry.filename: entry.sha256 for entry in manifest.chunks} | {MANIFEST_NAME: digest}
    for name in sorted(expected.keys() | sums.keys()):
        if name not in sums:
            faults.append(Fault("malformed", SUMS_NAME, f"a line for {name}", "none"))
        elif name not in expected:
            faults.append(Fault("malformed", SUMS_NAME, "", f"a line for {name!r}, which the manifest does not name"))
        elif sums[name] != expected[name]:
            if name == MANIFEST_NAME:
                said = f"sha256 {sums[name]} as {SUMS_NAME} says"
                faults.append(Fault("changed", name, said, f"sha256 {digest}"))
            else:
                faults.append(
                    Fault("malformed", SUMS_NAME, f"sha256 {expected[name]} for {name}", f"sha256 {sums[name]}")
                )
    return faults


def write_manifest(
    folder: Path, *, node_id: str | None, fallback_id: Callable[[], str], force: bool = False
) -> Manifest:
    """Write `manifest.json` and `SHA256SUMS` for a folder of chunks.

    Args:
        folder: holds `*.jsonl` files.
        node_id: whose they are; None for the one id that their events bear.
        fallback_id: asked when the events bear none.
        force: replace a manifest that is there.

    Raises:
        ConfigError: a manifest is there already, there is no chunk or there are other things in the folder, or the
            events bear several node ids.
        ChunkError: a chunk is no regular file.
        StorageError: the folder cannot be read or written.
    """
    names = sorted(name for name in _listing(folder) if name.endswith(SEALED_SUFFIX) and not is_junk(name))
    if not names:
        raise ConfigError("there is no chunk (*.jsonl) in the folder", path=folder, hint="name a folder of chunks")
    if MANIFEST_NAME in _listing(folder) and not force:
        raise ConfigError(
            f"{MANIFEST_NAME} is there already", path=folder, hint="compare with --check, or replace it with --force"
        )
    known = {MANIFEST_NAME, SUMS_NAME, SIGNATURE_NAME, *names}
    if other := sorted(name for name in _listing(folder) - known if not is_junk(name)):
        raise ConfigError(
            f"there are other things in the folder, such as {other[0]}",
            path=folder,
            hint="a manifest is for a folder of chunks alone: copy the chunks into one (an outbox is exported instead)",
        )
    stats = dict(zip(names, several_at_once(lambda name: _stats(folder / name), names), strict=True))
    now = datetime.now(UTC)
    manifest = Manifest(
        node_id=check_node_id(node_id or _one_node_id(folder, stats.values()) or fallback_id()),
        exported_at=now.isoformat(timespec="microseconds"),
        timestamp=now.strftime(TIMESTAMP_FORMAT),
        chunks=tuple(stats[name].entry(name) for name in names),
    )
    data = manifest.to_bytes()
    try:
        durable.remove(folder / SUMS_NAME)
        durable.replace_file(folder / MANIFEST_NAME, data)
        durable.replace_file(folder / SUMS_NAME, sums_of(manifest, hashlib.sha256(data).hexdigest()))
    except OSError as error:
        raise StorageError.of(error, "write the manifest", folder, "make the folder writable") from error
    return manifest


def _stats(path: Path) -> ChunkStats:
    with open_chunk(path) as stream:
        return stats_of(stream, path.name)


def _one_node_id(folder: Path, stats: Iterable[ChunkStats]) -> str | None:
    ids = set().union(*(each.node_ids for each in stats))
    if len(ids) > 1:
        raise ConfigError(
            f"the events are of several nodes: {', '.join(sorted(ids)[:5])}",
            path=folder,
            hint="name one with --node-id",
        )
    return ids.pop() if ids else None
