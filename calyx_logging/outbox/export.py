"""Export: the sealed chunks that are in no finished bundle become one, under the exporter's lock.

The order is the protocol (docs/format.md, "Export"): lock; recover; list; copy and hash into staging; manifest, sums;
sync; rename; copy of the manifest; index. Everything before the rename can be thrown away, everything after it is made
good by the next export, so that repeating an export after a crash at any point gives the same end.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from calyx_logging.bundle.archive import write_archive
from calyx_logging.bundle.folder import sums_of
from calyx_logging.bundle.signing import MANIFEST_NAMESPACE, named_key, sign
from calyx_logging.core import files
from calyx_logging.core.parallel import several_at_once
from calyx_logging.core.reading import blocks_of, names_in, sha256_of
from calyx_logging.core.times import TIMESTAMP_FORMAT, parse_timestamp, utc_text
from calyx_logging.errors import StorageError
from calyx_logging.format import legacy
from calyx_logging.format.chunk import open_chunk
from calyx_logging.format.chunk_stats import stats_for, stats_of
from calyx_logging.format.manifest import (
    MANIFEST_NAME,
    MAX_CHUNKS,
    SIGNATURE_NAME,
    SUMS_NAME,
    ChunkEntry,
    Covered,
    Manifest,
    is_safe_filename,
)
from calyx_logging.node import Node
from calyx_logging.outbox import export_index
from calyx_logging.outbox.contents import Contents, Recovery, recover
from calyx_logging.outbox.export_lock import exclusive
from calyx_logging.outbox.receipts import Acknowledged, load_acknowledged

__all__ = [
    "ExportOptions",
    "ExportResult",
    "Pending",
    "export",
    "export_all",
    "find_pending",
]

_STAGING = ".staging"
Progress = Callable[[int, int], None]


@dataclass
class Pending:
    """What the next bundle would take.

    Attributes:
        chunks: file names, sorted.
        bytes: their bytes in all.
        quiet_soon: foreign chunks that changed too lately.
        warnings: chunks that can never be taken, and why.
    """

    chunks: list[str] = field(default_factory=list)
    bytes: int = 0
    quiet_soon: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass
class ExportResult:
    """What an export of one node did.

    Attributes:
        node_id: whose outbox.
        bundle: the new bundle's folder; None when there was nothing new.
        manifest: the new bundle's manifest.
        manifest_sha256: its hash.
        recovery: what recovery found: chunks sealed, chunks still being written, orphaned ones.
        archive: the new bundle as one file, where that was asked for; with nothing new, the last bundle's.
        quiet_soon: foreign chunks that changed too lately to be taken.
        warnings: what the user should know.
    """

    node_id: str
    bundle: Path | None
    manifest: Manifest | None
    manifest_sha256: str | None
    recovery: Recovery
    quiet_soon: list[str]
    warnings: list[str]
    archive: Path | None = None


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
        recover_orphans: also seal open chunks that have no lock file.
        since_receipt: also take what was exported before and no receipt covers.
        sign_with: the key to sign with, see `signature.sign`; None for the one named at provisioning, if one was.
        unsigned: do not sign, whatever was named.
        archive: `zip` or `tar.gz`: also pack the bundle into one file.
    """

    recover_orphans: bool = False
    since_receipt: bool = False
    sign_with: str | None = None
    unsigned: bool = False
    archive: str | None = None


def export_all(
    node: Node,
    options: ExportOptions | None = None,
    *,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.time,
) -> list[ExportResult]:
    """Export the node, and whatever is pending under ids its root bore before; one bundle for each id.

    Raises:
        LockHeld: another export is running.
        ChunkError: something that is no regular file bears a chunk's name.
        ConfigError: it cannot be signed.
        StorageError: a file cannot be read or written; the outbox is as it was.
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
    """Export one node id's outbox; the last result, where there are more chunks than a bundle takes.

    Arguments and errors as in `export_all`.
    """
    return _export_one(node, options or ExportOptions(), progress, clock)[-1]


def _export_one(
    node: Node, options: ExportOptions, progress: Progress | None, clock: Callable[[], float]
) -> list[ExportResult]:
    try:
        with exclusive(node, clock):
            return list(_export_locked(node, options, progress, clock))
    except OSError as error:
        hint = "free some space" if error.errno == 28 else "check the folder's rights and the disk"
        raise StorageError.of(error, "export", error.filename or node.exports, hint) from error


def find_pending(
    node: Node, done: Set[str], contents: Contents, now: float, covered: Mapping[str, str] | None = None
) -> Pending:
    """Which chunks are in no finished bundle; reads foreign chunks whose names were exported before.

    Args:
        node: whose outbox.
        done: names of chunks that are not wanted.
        contents: of the outbox.
        now: seconds since the epoch.
        covered: states of foreign chunks that are not wanted, by name and hash; by default those exported last.
    """
    pending = Pending()
    for name in contents.sealed:
        if name.sealed not in done:
            pending.chunks.append(name.sealed)
            pending.bytes += (node.outbox / name.sealed).stat().st_size
    known = covered if covered is not None else export_index.hashes(node) if contents.foreign else {}
    spellings = {name.casefold() for name in pending.chunks}
    for filename in contents.foreign:
        path = node.outbox / filename
        if not is_safe_filename(filename) or filename.casefold() in spellings:
            pending.warnings.append(
                f"{str(path)!r} is not exported: rename it to a plain file name that no other is like"
            )
            continue
        spellings.add(filename.casefold())
        state = path.stat()
        if now - state.st_mtime < legacy.QUIET_SECONDS:
            pending.quiet_soon.append(filename)
            continue
        if filename in known:
            with open_chunk(path) as stream:
                if stats_of(stream, filename).entry(filename).sha256 == known[filename]:
                    continue
        pending.chunks.append(filename)
        pending.bytes += state.st_size
    pending.chunks.sort()
    return pending


def _export_locked(
    node: Node, options: ExportOptions, progress: Progress | None, clock: Callable[[], float]
) -> Iterator[ExportResult]:
    files.remove_tree(node.exports / _STAGING)
    for name in names_in(node.exports):
        if name.startswith(".") and name.endswith(".tmp"):  # of an archive that was being written
            files.remove(node.exports / name)
    done = export_index.load(node)
    acknowledged = load_acknowledged(node)
    names, covered = done.names, None
    if options.since_receipt and not acknowledged.count:
        done.warnings.append("no receipt of a hub was taken here yet (see prune): everything is packed again")
    if options.since_receipt:
        covered = {name: sha256 for name, sha256 in export_index.hashes(node).items() if sha256 in acknowledged.chunks}
        names = names & covered.keys()
    leave_out = legacy.without_foreign(names)
    recovery = recover(node.outbox, node.id, orphans=options.recover_orphans, leave_out=leave_out, clock=clock)
    contents = recovery.contents
    if done.changed and (done.names or done.bundles):
        export_index.save(node, done)
    pending = find_pending(node, names, contents, clock(), covered)
    unknown = [f"{node.outbox / name} is no chunk of any writer: look at it by hand" for name in contents.unknown]
    result = ExportResult(
        node.id, None, None, None, recovery, pending.quiet_soon, [*done.warnings, *pending.warnings, *unknown]
    )
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
    """Pack the new bundle; where there is none, the last one, if an export that was killed has not."""
    bundle = result.bundle or node.exports / last
    target = bundle.with_name(f"{bundle.name}.{suffix}")
    if bundle.is_dir() and not target.exists():
        write_archive(bundle, target)
    result.archive = target if target.exists() else None


@dataclass(frozen=True)
class _Extras:
    """The key to sign with; what hubs are known to have, None where nothing is; what was exported before this export,
    and the hashes that this one takes, into however many bundles.
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
    """Earlier manifests that no hub is known to have, and need not have: all they name is taken now, or there.

    Of a first-generation chunk, which grows, a later state is taken for an earlier one.
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

    def copy(filename: str) -> tuple[ChunkEntry, int] | None:
        stats = stats_for(filename)
        with open_chunk(node.outbox / filename) as stream:
            before = os.fstat(stream.fileno())
            files.write_new(staging / filename, stats.through(blocks_of(stream)))
            after = os.fstat(stream.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            files.remove(staging / filename)
            return None
        return stats.entry(filename), stats.bad_lines

    for filename, found in zip(pending.chunks, several_at_once(copy, pending.chunks), strict=True):
        if found is None:
            result.quiet_soon.append(filename)  # a foreign writer appended while it was read
            continue
        entry, bad_lines = found
        if bad_lines:
            result.warnings.append(f"{filename} has {bad_lines} lines that are no events; exported as it is")
        copied += entry.bytes or 0
        if progress is not None:
            progress(copied, pending.bytes)
        yield entry


def _free_timestamp(node: Node, done: export_index.Exported, now: float) -> str:
    """This second's name, or the next that is free and later than every bundle's: names sort as they were made."""
    moment = datetime.fromtimestamp(int(now), UTC)
    taken = {bundle.timestamp for bundle in done.bundles}
    for bundle in reversed(done.bundles):
        if (last := parse_timestamp(bundle.timestamp)) is None:
            continue  # a first-generation folder may be called anything
        with contextlib.suppress(OverflowError):  # somebody called a folder 99991231_235959
            moment = max(moment, last + timedelta(seconds=1))
        break
    while True:
        name = moment.strftime(TIMESTAMP_FORMAT)
        if name not in taken and not os.path.lexists(node.exports / name):
            return name
        moment += timedelta(seconds=1)
