"""Export sealed chunks that are in no finished bundle as a new one, under the exporter's lock.

The order is the protocol (docs/format.md, "Export"): lock; recover; list; copy and hash into staging; manifest, sums;
sync; rename; copy of the manifest; index. Everything before the rename can be thrown away, and the next export
completes everything after it. So an export repeated after a crash at any point ends in the same state.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from calyx_logging.bundle.archive import write_archive
from calyx_logging.bundle.folder import checker, sums_of
from calyx_logging.bundle.signing import MANIFEST_NAMESPACE, named_key, sign
from calyx_logging.core import files
from calyx_logging.core.carriers import CHECKER_NAME
from calyx_logging.core.reading import names_in, sha256_of
from calyx_logging.core.times import TIMESTAMP_FORMAT, parse_timestamp, utc_text
from calyx_logging.errors import StorageError
from calyx_logging.format import legacy
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
from calyx_logging.outbox.copying import Copies, Progress, copy_chunks, read_back
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

    def take(self, copies: Copies) -> None:
        """Add what was seen of the chunks."""
        self.events += copies.events
        self.quiet_soon += copies.quiet_soon
        self.left += copies.left
        self.warnings += copies.left + copies.warnings


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
        carrier: the folder, such as a stick, that the bundles go to; bundles that are there alone are known, too.
        checker: put a program beside the bundle's files that checks them with Python alone.
        direct: write the new bundle to `carrier/<node_id>` alone, without a copy in the node's exports.
    """

    recover_orphans: bool = False
    since_receipt: bool = False
    sign_with: str | None = None
    unsigned: bool = False
    archive: str | None = None
    live: float | None = None
    carrier: Path | None = None
    direct: bool = False
    checker: bool = False

    def exports(self, node: Node) -> Path:
        """Return the folder that gets the new bundle."""
        return self.carrier / node.id if self.direct and self.carrier is not None else node.exports


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
        hint = "check the folder's permissions and the disk"
        if files.is_full(error):
            hint = "free some space" + ("" if options.direct else ", or write to a stick alone: --to FOLDER --direct")
        place = node.root if options.direct else options.exports(node)
        raise StorageError.of(error, "export", error.filename or place, hint) from error


def _export_locked(
    node: Node, options: ExportOptions, progress: Progress | None, clock: Callable[[], float]
) -> Iterator[ExportResult]:
    files.remove_tree(node.exports / _STAGING)
    if options.direct:
        files.remove_tree(options.exports(node) / _staging_of(node))
    for name in names_in(node.exports):
        if name.startswith(".") and name.endswith(".tmp"):  # an unfinished archive
            files.remove(node.exports / name)
    carried = None if options.carrier is None else options.carrier / node.id
    done = export_index.load(node, carried)
    acknowledged = load_acknowledged(node)
    names, covered = done.names, None
    if options.since_receipt and not acknowledged.count:
        done.warnings.append("this node has no receipt from a hub yet (see prune): everything is exported again")
    if options.since_receipt:
        covered = {name: sha256 for name, sha256 in export_index.hashes(node).items() if sha256 in acknowledged.chunks}
        names = names & covered.keys()
    else:
        done.warnings += export_index.word_of_missing(node, done, acknowledged.chunks, carried)
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
    again = export_index.intended(node, done, acknowledged.bundles, pending.chunks)
    batches = _batches(pending.chunks, again)
    if batches:
        key = None if options.unsigned else options.sign_with or named_key(node.root)
        knows = acknowledged.count or options.since_receipt
        known = acknowledged if knows else None
        extras = _Extras(options.exports(node), key, options.checker, known, tuple(done.bundles))
    for number, pending.chunks in enumerate(batches or [[]]):
        if number:
            result = ExportResult(node.id, None, None, None, Recovery(), [], [])
        if pending.chunks:
            _make_bundle(node, done, pending, result, extras, progress, clock, None if number else again)
        last = done.last.timestamp if done.last is not None and not number else None
        last = last if result.bundle is None else result.bundle.name
        if options.archive is not None and last is not None:
            _archive(node, result, options.archive, last)
        yield result


def _staging_of(node: Node) -> str:
    """Return a name on a stick that another root with the same id does not use."""
    return f"{_STAGING}-{sha256_of(f'{socket.gethostname()} {node.root}'.encode('utf-8', 'surrogatepass'))[:8]}"


def _batches(chunks: list[str], again: bytes | None) -> list[list[str]]:
    """Divide chunks among bundles; the first has those of a bundle that is to be made again."""
    first = [] if again is None else [chunk.filename for chunk in Manifest.parse(again).chunks]
    taken = set(first)
    rest = [chunk for chunk in chunks if chunk not in taken]
    parts = [rest[at : at + MAX_CHUNKS] for at in range(0, len(rest), MAX_CHUNKS)]
    return [first, *parts] if first else parts


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
        exports: the folder that gets them.
        key: the key to sign with.
        checker: whether `verify.py` comes with them.
        acknowledged: what hubs are known to have; None if nothing is known.
        earlier: the bundles exported before this export.
        taken: hashes of the chunks that this export takes, in all its bundles.
    """

    exports: Path
    key: str | None
    checker: bool
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
    again: bytes | None,
) -> None:
    """Make one bundle; `again` is the manifest of one that a killed export may have left on another stick."""
    is_here = extras.exports == node.exports
    staging = extras.exports / (_STAGING if is_here else _staging_of(node))
    files.make_dirs(staging)
    try:
        copies = copy_chunks(node.outbox, pending, staging, progress)
        result.take(copies)
        entries = copies.entries
        if not entries:
            files.remove_tree(staging)
            return
        manifest = None if again is None else Manifest.parse(again)
        if manifest is None or again is None or manifest.chunks != tuple(entries):
            manifest, again = _manifest(node, done, result, extras, entries, clock()), None
        timestamp = manifest.timestamp
        data = manifest.to_bytes() if again is None else again
        digest = sha256_of(data)
        files.write_new(staging / SUMS_NAME, [sums_of(manifest, digest)])
        files.write_new(staging / MANIFEST_NAME, [data])
        if extras.checker:
            files.write_new(staging / CHECKER_NAME, [checker()])
        if extras.key is not None:
            files.write_new(staging / SIGNATURE_NAME, [sign(data, extras.key, MANIFEST_NAMESPACE)])
        if not is_here:
            read_back(staging, entries)
            export_index.intend(node, data)
        files.publish(staging, bundle := extras.exports / timestamp)
    except BaseException:
        files.remove_tree(staging)
        raise
    export_index.record(done, timestamp, data, manifest)
    if not is_here:
        export_index.carry_out(node, done, timestamp)
    try:
        export_index.save(node, done)
    except OSError as error:
        if is_here or not files.is_full(error):  # on a full disk the copy of the manifest is enough
            raise
    result.bundle, result.manifest, result.manifest_sha256 = bundle, manifest, digest


def _manifest(
    node: Node,
    done: export_index.Exported,
    result: ExportResult,
    extras: _Extras,
    entries: list[ChunkEntry],
    now: float,
) -> Manifest:
    return Manifest(
        node_id=node.id,
        exported_at=utc_text(now),
        timestamp=_free_timestamp({node.exports, extras.exports}, done, now),
        chunks=tuple(entries),
        previous_manifest_sha256=None if done.last is None else done.last.manifest_sha256,
        open_chunks=tuple(chunk.name.open for chunk in result.recovery.live + result.recovery.orphaned),
        covers=_covered(node, extras, entries),
    )


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


def _free_timestamp(folders: Iterable[Path], done: export_index.Exported, now: float) -> str:
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
        if name not in taken and not any(os.path.lexists(folder / name) for folder in folders):
            return name
        moment += timedelta(seconds=1)
