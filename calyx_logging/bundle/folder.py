"""The bundle as a folder: looking at one, and making the manifest of one.

`check` and `verify` never write; what is right and wrong is for `verification` to say.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from calyx_logging.bundle.verification import Progress, Report, is_junk, judge
from calyx_logging.core import files
from calyx_logging.core.parallel import several_at_once
from calyx_logging.core.reading import blocks_of, sha256_of
from calyx_logging.core.times import TIMESTAMP_FORMAT
from calyx_logging.errors import BundleError, ConfigError, StorageError
from calyx_logging.format.chunk import SEALED_SUFFIX, open_chunk
from calyx_logging.format.chunk_stats import ChunkStats, stats_of
from calyx_logging.format.manifest import MANIFEST_NAME, SIGNATURE_NAME, SUMS_NAME, Manifest, format_sums
from calyx_logging.node import check_node_id

__all__ = ["VerifiedBundle", "check", "sums_of", "verify", "write_manifest"]


@dataclass(frozen=True)
class VerifiedBundle:
    """A bundle without fault."""

    path: Path
    manifest: Manifest
    manifest_sha256: str
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
    folder = files.reachable(folder)
    names = _listing(folder)
    report = judge(names, lambda name: _blocks(folder / name), progress=progress)
    if MANIFEST_NAME not in names:
        below = sorted(name for name in names if (folder / name / MANIFEST_NAME).is_file())
        if below:
            found = f"no such file; there are bundles in the folders below, such as {below[-1]}"
            return replace(report, faults=(replace(report.faults[0], found=found),))
    return report


def _blocks(path: Path) -> Iterator[bytes]:
    with open_chunk(path) as stream:
        yield from blocks_of(stream)


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
        files.remove(folder / SUMS_NAME)
        files.replace_file(folder / MANIFEST_NAME, data)
        files.replace_file(folder / SUMS_NAME, sums_of(manifest, sha256_of(data)))
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
