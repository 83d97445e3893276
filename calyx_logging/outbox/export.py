"""Export sealed chunks that are in no finished bundle as a new one, under the exporter's lock.

The order is the protocol (docs/format.md, "Export"): lock; recover; list; copy and hash into staging; manifest, sums;
sync; rename; copy of the manifest; index. Everything before the rename can be thrown away, and the next export
completes everything after it. So an export repeated after a crash at any point ends in the same state.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from calyx_logging.bundle.archive import write_archive
from calyx_logging.bundle.folder import sums_of
from calyx_logging.bundle.signing import MANIFEST_NAMESPACE, named_key, sign
from calyx_logging.core import files
from calyx_logging.core.parallel import several_at_once
from calyx_logging.core.reading import blocks_of, names_in, sha256_of
from calyx_logging.core.times import TIMESTAMP_FORMAT, parse_timestamp, utc_text
from calyx_logging.errors import CalyxError, StorageError
from calyx_logging.format import legacy
from calyx_logging.format.chunk import open_chunk
from calyx_logging.format.chunk_stats import ChunkStats, stats_for
from calyx_logging.format.manifest import (
    MANIFEST_NAME,
    MAX_CHUNKS,
    SIGNATURE_NAME,
    SUMS_NAME,
    ChunkEntry,
    Covered,
    Manifest,
)
from calyx_logging.node import Node
from calyx_logging.outbox import export_index
from calyx_logging.outbox.contents import OpenChunk
from calyx_logging.outbox.export_lock import exclusive
from calyx_logging.outbox.live import ask_to_seal
from calyx_logging.outbox.pending import Pending, find_pending
from calyx_logging.outbox.receipts import Acknowledged, load_acknowledged
from calyx_logging.outbox.recovery import Recovery, recover

__all__ = [
    "ExportOptions",
    "ExportResult",
    "export",
    "export_all",
]

_STAGING = ".staging"
Progress = Callable[[int, int], None]


@dataclass
class ExportResult:
    """The result of exporting one node.

    Attributes:
        node_id: the node.
        bundle: the new bundle's folder; None when there was nothing new.
        manifest: the new bundle's manifest.
        manifest_sha256: its hash.
        events: the events in it, without control lines.
        recovery: the result of recovery: chunks sealed, chunks still being written, orphaned chunks.
        archive: the new bundle as one file, if requested; the last bundle's if there was nothing new.
        quiet_soon: foreign chunks that changed too recently to be exported.
        warnings: warnings for the user.
        unanswered: open chunks that were not sealed though their writers were asked to.
        left: those of the warnings that say what is not exported because it cannot be read, or is no chunk.
    """

    node_id: str
    bundle: Path | None
    manifest: Manifest | None
    manifest_sha256: str | None
    recovery: Recovery
    quiet_soon: list[str]
    warnings: list[str]
    archive: Path | None = None
    unanswered: list[OpenChunk] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    events: int = 0


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        recover_orphans: also seal quiet open chunks whose writer's state cannot be determined here.
        since_receipt: also take chunks that were exported before but that no receipt covers.
        sign_with: the key to sign with, see `signing.sign`; None for the one named at provisioning, if any.
        unsigned: do not sign, even if a key was named.
        archive: `zip` or `tar.gz`: also pack the bundle into one file.
        live: ask living processes to seal what they have open, and wait for so many seconds; None: do not ask.
    """

    recover_orphans: bool = False
    since_receipt: bool = False
    sign_with: str | None = None
    unsigned: bool = False
    archive: str | None = None
    live: float | None = None


def export_all(
    node: Node,
    options: ExportOptions | None = None,
    *,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.time,
) -> list[ExportResult]:
    """Export the node, and chunks still pending under earlier ids of its root; one bundle for each id.

    Raises:
        LockHeld: another export is running.
        ConfigError: the bundle cannot be signed.
        StorageError: a file cannot be written, or the index cannot be read; the outbox is unchanged.
    """
    return [
        result
        for node_id in node.all_ids()
        for result in _export_one(node.with_id(node_id), options or ExportOptions(), progress, clock)
    ]


def export(
    node: Node,
    options: ExportOptions | None = None,
    *,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.time,
) -> ExportResult:
    """Export one node id's outbox; return the last result if its chunks need several bundles.

    Arguments and errors are those of `export_all`.
    """
    return _export_one(node, options or ExportOptions(), progress, clock)[-1]


def _export_one(
    node: Node, options: ExportOptions, progress: Progress | None, clock: Callable[[], float]
) -> list[ExportResult]:
    try:
        with exclusive(node, clock):
            return list(_export_locked(node, options, progress, clock))
    except OSError as error:
        hint = "free some space" if error.errno == 28 else "check the folder's permissions and the disk"
        raise StorageError.of(error, "export", error.filename or node.exports, hint) from error


def _export_locked(
    node: Node, options: ExportOptions, progress: Progress | None, clock: Callable[[], float]
) -> Iterator[ExportResult]:
    files.remove_tree(node.exports / _STAGING)
    for name in names_in(node.exports):
        if name.startswith(".") and name.endswith(".tmp"):  # an unfinished archive
            files.remove(node.exports / name)
    done = export_index.load(node)
    acknowledged = load_acknowledged(node)
    names, covered = done.names, None
    if options.since_receipt and not acknowledged.count:
        done.warnings.append("this node has no receipt from a hub yet (see prune): everything is exported again")
    if options.since_receipt:
        covered = {name: sha256 for name, sha256 in export_index.hashes(node).items() if sha256 in acknowledged.chunks}
        names = names & covered.keys()
    else:
        done.warnings += export_index.word_of_missing(node, done, acknowledged.chunks)
    leave_out = legacy.without_foreign(names)
    unanswered: list[OpenChunk] = []
    if options.live is not None:
        try:
            _, unanswered = ask_to_seal(node.outbox, options.live, clock=clock)
        except StorageError as error:  # what is sealed can be taken nevertheless
            done.warnings.append(str(error))
    recovery = recover(node.outbox, node.id, orphans=options.recover_orphans, leave_out=leave_out, clock=clock)
    contents = recovery.contents
    if done.changed and (done.names or done.bundles):
        export_index.save(node, done)
    pending = find_pending(node, names, contents, clock(), covered)
    unknown = [f"{node.outbox / name} belongs to no known writer: inspect it by hand" for name in contents.unknown]
    left_out = [*pending.left, *recovery.unreadable]
    warnings = [*done.warnings, *left_out, *pending.leftovers, *unknown]
    result = ExportResult(node.id, None, None, None, recovery, pending.quiet_soon, warnings, left=left_out)
    result.unanswered = unanswered
    left = pending.chunks[MAX_CHUNKS:]
    del pending.chunks[MAX_CHUNKS:]
    if pending.chunks:
        key = None if options.unsigned else options.sign_with or named_key(node.root)
        knows = acknowledged.count or options.since_receipt
        extras = _Extras(key, acknowledged if knows else None, tuple(done.bundles))
        _make_bundle(node, done, pending, result, extras, progress, clock)
    if options.archive is not None and done.last is not None:
        _archive(node, result, options.archive, done.last.timestamp)
    yield result
    while left:
        pending.chunks, left = left[:MAX_CHUNKS], left[MAX_CHUNKS:]
        result = ExportResult(node.id, None, None, None, Recovery(), [], [])
        _make_bundle(node, done, pending, result, extras, progress, clock)
        if options.archive is not None and result.bundle is not None:
            _archive(node, result, options.archive, result.bundle.name)
        yield result


def _archive(node: Node, result: ExportResult, suffix: str, last: str) -> None:
    """Pack the new bundle, or the last one if there is none and a killed export did not pack it."""
    bundle = result.bundle or node.exports / last
    target = bundle.with_name(f"{bundle.name}.{suffix}")
    if bundle.is_dir() and not target.exists():
        write_archive(bundle, target)
    result.archive = target if target.exists() else None


@dataclass(frozen=True)
class _Extras:
    """Values shared by the bundles of one export.

    Attributes:
        key: the key to sign with.
        acknowledged: what hubs are known to have; None if nothing is known.
        earlier: the bundles exported before this export.
        taken: hashes of the chunks that this export takes, in all its bundles.
    """

    key: str | None
    acknowledged: Acknowledged | None
    earlier: tuple[export_index.BundleRef, ...]
    taken: set[str] = field(default_factory=set)


def _make_bundle(
    node: Node,
    done: export_index.Exported,
    pending: Pending,
    result: ExportResult,
    extras: _Extras,
    progress: Progress | None,
    clock: Callable[[], float],
) -> None:
    staging = node.exports / _STAGING
    files.make_dirs(staging)
    try:
        entries = list(_copy_chunks(node, pending, staging, result, progress))
        if not entries:
            files.remove_tree(staging)
            return
        now = clock()
        timestamp = _free_timestamp(node, done, now)
        manifest = Manifest(
            node_id=node.id,
            exported_at=utc_text(now),
            timestamp=timestamp,
            chunks=tuple(entries),
            previous_manifest_sha256=None if done.last is None else done.last.manifest_sha256,
            open_chunks=tuple(chunk.name.open for chunk in result.recovery.live + result.recovery.orphaned),
            covers=_covered(node, extras, entries),
        )
        data = manifest.to_bytes()
        digest = sha256_of(data)
        files.write_new(staging / SUMS_NAME, [sums_of(manifest, digest)])
        files.write_new(staging / MANIFEST_NAME, [data])
        if extras.key is not None:
            files.write_new(staging / SIGNATURE_NAME, [sign(data, extras.key, MANIFEST_NAMESPACE)])
        files.publish(staging, node.exports / timestamp)
    except BaseException:
        files.remove_tree(staging)
        raise
    export_index.record(done, timestamp, data, manifest)
    export_index.save(node, done)
    result.bundle, result.manifest, result.manifest_sha256 = node.exports / timestamp, manifest, digest


def _covered(node: Node, extras: _Extras, entries: list[ChunkEntry]) -> tuple[Covered, ...]:
    """Find earlier manifests that no hub needs, because all their chunks are in this export or acknowledged.

    For a first-generation chunk, which may grow, a later state replaces an earlier one.
    """
    extras.taken.update(entry.sha256 for entry in entries)
    if extras.acknowledged is None:
        return ()
    there = extras.taken | extras.acknowledged.chunks
    grown = {entry.filename: entry.bytes or 0 for entry in entries if legacy.is_foreign(entry.filename)}
    unknown = [bundle for bundle in extras.earlier if bundle.manifest_sha256 not in extras.acknowledged.bundles]
    return tuple(
        Covered(bundle.manifest_sha256, manifest.previous_manifest_sha256)
        for bundle, manifest in export_index.manifests_of(node, unknown)
        if all(chunk.sha256 in there or (chunk.bytes or 0) < grown.get(chunk.filename, 0) for chunk in manifest.chunks)
    )


def _copy_chunks(
    node: Node, pending: Pending, staging: Path, result: ExportResult, progress: Progress | None
) -> Iterator[ChunkEntry]:
    copied = 0

    def copy(filename: str) -> tuple[ChunkEntry, ChunkStats] | str | None:
        stats, source = stats_for(filename), node.outbox / filename
        try:
            with open_chunk(source) as stream:
                before = os.fstat(stream.fileno())
                files.write_new(staging / filename, stats.through(_read(stream, source)))
                after = os.fstat(stream.fileno())
        except CalyxError as error:
            files.remove(staging / filename)
            return f"{error}; it is not exported until it can be read"
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            files.remove(staging / filename)
            return None
        return stats.entry(filename), stats

    for filename, found in zip(pending.chunks, several_at_once(copy, pending.chunks), strict=True):
        if found is None:
            result.quiet_soon.append(filename)  # a foreign writer appended to it meanwhile
            continue
        if isinstance(found, str):
            result.left.append(found)
            result.warnings.append(found)
            continue
        entry, stats = found
        result.events += stats.logged
        if stats.bad_lines:
            result.warnings.append(f"{filename} has {stats.bad_lines} lines that are not events; exported unchanged")
        copied += entry.bytes or 0
        if progress is not None:
            progress(copied, pending.bytes)
        yield entry


def _read(stream: BinaryIO, path: Path) -> Iterator[bytes]:
    """Read blocks; that the disk does not give one is not to be taken for an error of the copy."""
    try:
        yield from blocks_of(stream)
    except OSError as error:
        raise StorageError.of(error, "read the chunk", path) from error


def _free_timestamp(node: Node, done: export_index.Exported, now: float) -> str:
    """Return the first free timestamp from now on that is later than every bundle's, so that names sort by age."""
    moment = datetime.fromtimestamp(int(now), UTC)
    taken = {bundle.timestamp for bundle in done.bundles}
    for bundle in reversed(done.bundles):
        if (last := parse_timestamp(bundle.timestamp)) is None:
            continue  # a first-generation folder may have any name
        with contextlib.suppress(OverflowError):  # a folder is named 99991231_235959
            moment = max(moment, last + timedelta(seconds=1))
        break
    while True:
        name = moment.strftime(TIMESTAMP_FORMAT)
        if name not in taken and not os.path.lexists(node.exports / name):
            return name
        moment += timedelta(seconds=1)
