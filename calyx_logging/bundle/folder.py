"""Check a bundle's folder, and write the manifest of one.

`check` and `verify` never write; `verification` decides what is a fault.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from calyx_logging.bundle.verification import OWN_NAMES, Progress, Report, judge
from calyx_logging.core import files
from calyx_logging.core.carriers import left_by, left_folder
from calyx_logging.core.parallel import several_at_once
from calyx_logging.core.reading import blocks_of, sha256_of
from calyx_logging.core.times import TIMESTAMP_FORMAT
from calyx_logging.errors import BundleError, ConfigError, StorageError
from calyx_logging.format.chunk import SEALED_SUFFIX, open_chunk
from calyx_logging.format.chunk_stats import ChunkStats, stats_of
from calyx_logging.format.manifest import MANIFEST_NAME, SUMS_NAME, Manifest, format_sums
from calyx_logging.node import check_node_id

__all__ = ["VerifiedBundle", "check", "checker", "sums_of", "verify", "write_manifest"]


def checker() -> bytes:
    """Return the program that checks a bundle with Python alone.

    Raises:
        ConfigError: this installation has no sources of its modules.
    """
    try:
        return resources.files("calyx_logging.bundle").joinpath("verify_alone.py").read_bytes()
    except OSError as error:
        hint = "export without --self-verifying: SHA256SUMS is in the bundle for sha256sum"
        raise ConfigError("verify.py is not part of this installation", hint=hint) from error


@dataclass(frozen=True)
class VerifiedBundle:
    """A bundle without faults; `events` are those in its chunks, without control lines."""

    path: Path
    manifest: Manifest
    manifest_sha256: str
    warnings: tuple[str, ...]
    events: int = 0


def verify(folder: Path, *, progress: Progress | None = None) -> VerifiedBundle:
    """Check the bundle in a folder and return it, or raise if it has faults.

    Raises:
        BundleError: it has faults; the error lists all of them.
        StorageError: the folder cannot be read.
    """
    report = check(folder, progress=progress)
    if report.faults or report.manifest is None or report.manifest_sha256 is None:
        raise BundleError("the bundle has faults", faults=report.faults, path=folder)
    return VerifiedBundle(folder, report.manifest, report.manifest_sha256, report.warnings, report.events)


def check(
    folder: Path,
    *,
    progress: Progress | None = None,
    with_scans: bool = False,
    seen: Mapping[str, ChunkStats] | None = None,
) -> Report:
    """Check a bundle and report all its faults.

    Args:
        folder: of the bundle.
        progress: receives the numbers of bytes read.
        with_scans: whether to scan the chunks' lines in the same pass.
        seen: the stats of chunks, by file name, that need not be read again.

    Raises:
        StorageError: the folder cannot be listed.
    """
    folder = files.reachable(folder)
    names = _listing(folder)
    report = judge(names, lambda name: _blocks(folder / name), progress=progress, with_scans=with_scans, seen=seen)
    if MANIFEST_NAME not in names:
        below = sorted(
            name for name in names if left_folder(name) is None and (folder / name / MANIFEST_NAME).is_file()
        )
        if below:
            found = f"no such file; there are bundles in the folders below, such as {below[-1]}"
            return replace(report, faults=(replace(report.faults[0], found=found),))
    return report


def _blocks(path: Path) -> Iterator[bytes]:
    with open_chunk(path) as stream:
        yield from blocks_of(stream)


def sums_of(manifest: Manifest, manifest_sha256: str) -> bytes:
    """Make the bundle's SHA256SUMS, with every chunk and the manifest."""
    return format_sums([*((c.filename, c.sha256) for c in manifest.chunks), (MANIFEST_NAME, manifest_sha256)])


def _listing(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except FileNotFoundError as error:
        raise StorageError("there is no such folder", path=folder, hint="name the folder of a bundle") from error
    except OSError as error:
        raise StorageError.of(error, "read the folder", folder, "name the folder of a bundle") from error


def write_manifest(
    folder: Path, *, node_id: str | None, fallback_id: Callable[[], str], force: bool = False
) -> Manifest:
    """Write `manifest.json` and `SHA256SUMS` for a folder of chunks.

    Args:
        folder: holds `*.jsonl` files.
        node_id: their node; None for the one id in their events.
        fallback_id: called for the id if the events have none.
        force: replace an existing manifest.

    Raises:
        ConfigError: there is a manifest already, there are no chunks, the folder holds other files, or the events have
            several node ids.
        ChunkError: a chunk is not a regular file.
        StorageError: the folder cannot be read or written.
    """
    listing = {name for name in _listing(folder) if not _is_metadata(name)}
    names = sorted(name for name in listing if name.endswith(SEALED_SUFFIX))
    if not names:
        raise ConfigError("the folder has no chunks (*.jsonl)", path=folder, hint="name a folder of chunks")
    if MANIFEST_NAME in listing and not force:
        raise ConfigError(
            f"{MANIFEST_NAME} is there already", path=folder, hint="compare with --check, or replace it with --force"
        )
    if other := sorted(listing.difference(OWN_NAMES, names)):
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
        files.remove(folder / SUMS_NAME)
        files.replace_file(folder / MANIFEST_NAME, data)
        files.replace_file(folder / SUMS_NAME, sums_of(manifest, sha256_of(data)))
    except OSError as error:
        raise StorageError.of(error, "write the manifest", folder, "make the folder writable") from error
    return manifest


def _is_metadata(name: str) -> bool:
    """Check whether a new manifest may leave a file out silently; a copy may be all there is of a chunk."""
    left = left_by(name)
    return left is not None and left.is_metadata


def _stats(path: Path) -> ChunkStats:
    with open_chunk(path) as stream:
        return stats_of(stream, path.name)


def _one_node_id(folder: Path, stats: Iterable[ChunkStats]) -> str | None:
    ids = set().union(*(each.node_ids for each in stats))
    if len(ids) > 1:
        raise ConfigError(
            f"the events belong to several nodes: {', '.join(sorted(ids)[:5])}",
            path=folder,
            hint="name one with --node-id",
        )
    return ids.pop() if ids else None
