"""Import bundles from anywhere into the hub's store, each once, and only those that are complete and genuine.

A bundle is copied into staging, and the copy is verified, so that nothing that happens to the source meanwhile
matters. Then, under the store's lock, it gets its final name by one rename, and the index is written. Killed at any
moment, an import leaves a store in which every bundle is complete or absent; the next import finishes its work.

Every event is in the store once: a chunk that is there already is not put in a second time; of a first-generation
chunk, which grows in place, the longest state is kept. A chunk with the name of another and other content is a
contradiction: the bundle is refused, and kept in quarantine.

Whose signatures count is the hub's to say (`.allowed_signers`), never the bundle's.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from calyx_logging.bundle.folder import VerifiedBundle
from calyx_logging.bundle.signed import Trust, who_signed
from calyx_logging.bundle.signers import keys_in, signers_of
from calyx_logging.bundle.staging import Copied, Source, bring, verdict
from calyx_logging.bundle.verification import Fault, Progress
from calyx_logging.core import files
from calyx_logging.core.times import TIMESTAMP_FORMAT, parse_timestamp, utc_text
from calyx_logging.errors import CalyxError, StorageError
from calyx_logging.format.line_check import Scan
from calyx_logging.format.manifest import MANIFEST_NAME, SIGNATURE_NAME, Manifest
from calyx_logging.hub._conflicts import bring_back_manifest, compare, put_back, set_aside, tidy
from calyx_logging.hub._known import known_bundle
from calyx_logging.hub._next_step import next_step
from calyx_logging.hub.import_result import ImportResult, Policy
from calyx_logging.hub.inventory import holdings_of
from calyx_logging.hub.rejections import note_refused, note_taken
from calyx_logging.hub.rewritten import Rewrite, note_rewrites
from calyx_logging.hub.store import Entry, Store

__all__ = ["ImportResult", "Job", "Policy", "import_bundle", "import_bundles", "import_one", "settle"]

_MAX_FAULTS = 10_000
"""Maximum number of bad lines that are listed in all."""

_FOLDER = re.compile(r"[0-9]{8}_[0-9]{6}", re.ASCII)


def import_bundles(
    store: Store,
    source: Path | Source,
    *,
    policy: Policy | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.time,
) -> Iterator[ImportResult]:
    """Put the bundle at a place into the store; of an archive of several, all that are whole.

    Args:
        store: the hub's.
        source: the bundle's folder, or an archive, here or elsewhere; it is only read.
        policy: what is taken in.
        dry_run: only say what would happen.
        progress: is told of bytes copied.
        clock: seconds since the epoch.

    Yields:
        A result for each bundle.

    Raises:
        StorageError: a file cannot be read or written; the store is as it was after the last result.
        ConfigError: ssh-keygen is needed, and missing.
    """
    try:
        if isinstance(source, Path) and (known := _already_imported(store, source, policy or Policy())) is not None:
            if not dry_run:
                _note(store, known, clock())
            yield known
            return
        with store.staging() as room, closing(bring(source, room, progress)) as copies:
            for copied in copies:
                signed = (copied.folder / SIGNATURE_NAME).exists()
                result = _import_staged(store, source, copied, policy or Policy(), dry_run, clock())
                if result.outcome == "refused":
                    result.exit_code = 1
                    result.next_step = next_step(
                        result.faults, result.manifest, signed=signed, quarantined=result.folder
                    )
                if not dry_run:
                    _note(store, result, clock())
                yield result
    except OSError as error:
        hint = "free some space" if error.errno == 28 else "check the folder's rights and the disk"
        raise StorageError.of(error, "import", error.filename or store.folder, hint) from error


def import_bundle(
    store: Store,
    source: Path | Source,
    *,
    policy: Policy | None = None,
    dry_run: bool = False,
    clock: Callable[[], float] = time.time,
) -> ImportResult:
    """Import as `import_bundles` does, and return the result; of several, the first of the worst."""
    results = import_bundles(store, source, policy=policy, dry_run=dry_run, clock=clock)
    return max(results, key=lambda one: one.exit_code)


@dataclass(frozen=True)
class Job:
    """A folder or an archive to import, in any process: the hub's root, the location, the policy."""

    root: Path
    source: Path | Source
    policy: Policy = field(default_factory=Policy)
    dry_run: bool = False


def import_one(job: Job, progress: Progress | None = None) -> list[ImportResult]:
    """Import what is at one place; return a file system error as a result, too, so that the other imports go on."""
    results: list[ImportResult] = []
    try:
        store = _store(job.root)
        results.extend(import_bundles(store, job.source, policy=job.policy, dry_run=job.dry_run, progress=progress))
    except CalyxError as error:
        results.append(ImportResult(job.source, "failed", warnings=[str(error)], exit_code=error.exit_code))
    except (MemoryError, SystemError):  # orjson raises the latter where there is no memory
        why = "there is not enough memory for it"
        results.append(ImportResult(job.source, "failed", warnings=[why], exit_code=4))
    return results


@lru_cache(maxsize=1)
def _store(root: Path) -> Store:
    """Return the store, which caches the manifests that it has read."""
    return Store(root)


def _already_imported(store: Store, source: Path, policy: Policy) -> ImportResult | None:
    """Return the result of a bundle that is here already, as far as its manifest and its signature tell."""
    if (found := known_bundle(store, source)) is None:
        return None
    bundle, folder = found
    result = ImportResult(source, "already imported", folder, bundle.manifest, bundle.manifest_sha256, bundle.events)
    result.warnings += bundle.warnings
    _check_signature(store, bundle, policy, result)
    return None if result.faults else result


def _import_staged(
    store: Store, source: Path | Source, copied: Copied, policy: Policy, dry_run: bool, now: float
) -> ImportResult:
    report = verdict(copied)
    result = ImportResult(source, "refused", manifest=report.manifest, warnings=list(report.warnings))
    result.inside = copied.inside
    result.manifest_sha256, result.events = report.manifest_sha256, report.events
    result.faults = list(report.faults)
    if report.manifest is None or report.manifest_sha256 is None or result.faults:
        return result
    bundle = VerifiedBundle(copied.folder, report.manifest, report.manifest_sha256, report.warnings, report.events)
    _check_signature(store, bundle, policy, result)
    if result.faults:
        return result
    with store.alone():
        _put_in(store, bundle, result, report.scans, policy, dry_run, now)
    return result


def _note(store: Store, result: ImportResult, now: float) -> None:
    """Record a refusal, or clear it, so that it can be seen at the hub later."""
    archive = str(result.source.absolute() if isinstance(result.source, Path) else result.source)
    source = f"{archive}/{result.inside}" if result.inside else archive
    if result.inside:
        note_taken(store, archive)  # it was refused as a whole before
    if result.outcome != "refused":
        note_taken(store, source)
        return
    names = {"node_id": None, "timestamp": None} if result.manifest is None else vars(result.manifest)
    try:
        note_refused(
            store,
            source,
            utc_text(now),
            result.faults,
            node_id=names["node_id"],
            timestamp=names["timestamp"],
            manifest_sha256=result.manifest_sha256,
        )
    except OSError as error:
        result.warnings.append(f"that it was refused cannot be noted in {store.refused}: {error}")


def settle(store: Store) -> list[str]:
    """Finish what killed imports left behind; return warnings about damage in the store.

    Raises:
        StorageError: a file cannot be read or written.
    """
    result = ImportResult(store.folder, "")
    try:
        with store.alone():
            strangers = store.strangers()
            entries = []
            for node_id in strangers:
                entries += (of_node := store.load(node_id))
                held = holdings_of(store, of_node)
                result.warnings += held.warnings
                tidy(store, node_id, held, result.warnings)
            if strangers:
                _save(store, entries, strangers, result)
            with suppress(StorageError):  # it only saves time
                store.note_names()
    except OSError as error:
        raise StorageError.of(error, "look through the store", error.filename or store.folder) from error
    return result.warnings


# ------------------------------------------------------------------ whether it is genuine


def _check_signature(store: Store, bundle: VerifiedBundle, policy: Policy, result: ImportResult) -> None:
    """Apply the hub's policy: require a signature where it demands one, and verify it where the node is known."""
    node_id, path = bundle.manifest.node_id, bundle.path / SIGNATURE_NAME
    known, signed = signers_of(store.signers, node_id), path.exists()
    trust = f"calyx-telemetry trust {node_id} KEY.pub"
    if not known:
        if policy.require_signature:
            found = f"one by a key that nobody trusts here yet ({trust})" if signed else "it is not signed"
            expected = f"one by a key that is trusted for node {node_id}"
            result.faults.append(Fault("signature", SIGNATURE_NAME, expected, found))
        elif signed and keys_in(store.revoked):
            _take_signature(store, bundle, "one by a key that is not revoked", result)
            result.signed_by = None  # nobody vouches for it
        if signed and not result.faults:
            result.warnings.append(f"its signature was not checked: no key is trusted for node {node_id} ({trust})")
        return
    if not signed:
        result.faults.append(Fault("signature", SIGNATURE_NAME, f"one by a key of node {node_id}", "it is not signed"))
        return
    _take_signature(store, bundle, f"one by a key of node {node_id}", result)


def _take_signature(store: Store, bundle: VerifiedBundle, expected: str, result: ImportResult) -> None:
    manifest, signature = (files.read_regular(bundle.path / name) for name in (MANIFEST_NAME, SIGNATURE_NAME))
    signed = who_signed(manifest, signature, bundle.manifest.node_id, Trust(store.signers, store.revoked))
    result.signed_by = signed.key
    if signed.fault:
        result.faults.append(Fault("signature", SIGNATURE_NAME, expected, signed.fault))


def _judge_lines(bundle: VerifiedBundle, scans: Mapping[str, Scan], policy: Policy, result: ImportResult) -> None:
    """Add a fault for each line that is no event of the node, or a warning if such lines are accepted."""
    manifest = bundle.manifest
    bad = {name: scan for name, scan in scans.items() if scan.bad_count}
    result.bad_lines = sum(scan.bad_count for scan in bad.values())
    if policy.accept_bad_lines:
        result.warnings += [
            f"{name}: {scan.bad_count} lines are no events of node {manifest.node_id}; taken in, never acknowledged"
            for name, scan in bad.items()
        ]
    else:
        result.faults = list(_line_faults(bad, manifest.node_id))


def _line_faults(bad: Mapping[str, Scan], node_id: str) -> Iterator[Fault]:
    left = _MAX_FAULTS
    for name, scan in bad.items():
        for line in scan.bad[:left]:
            yield Fault("bad line", f"{name}:{line.line}", f"an event of node {node_id}", line.why)
        named = len(scan.bad[:left])
        left -= named
        if named < scan.bad_count:
            more = f"{scan.bad_count - named} more lines that are none"
            yield Fault("bad line", name, f"events of node {node_id}", more)
        if left <= 0:
            return


# ------------------------------------------------------------------ into the store


def _put_in(
    store: Store,
    bundle: VerifiedBundle,
    result: ImportResult,
    scans: Mapping[str, Scan],
    policy: Policy,
    dry_run: bool,
    now: float,
) -> None:
    """Refuse, or rename into place and index, holding the store's lock."""
    node_id = bundle.manifest.node_id
    if not store.is_sound(node_id):
        raise StorageError(
            "is no folder of the store's own", path=store.folder / node_id, hint="no links: move the store as a whole"
        )
    if not dry_run:
        bring_back_manifest(store, bundle, result.warnings)
    entries = store.load(node_id)
    held = holdings_of(store, entries)
    result.warnings += held.warnings
    if not dry_run:
        if tidy(store, node_id, held, result.warnings):
            held = holdings_of(store, entries)
        if store.unsettled:
            _save(store, entries, [node_id], result)
    if known := next((entry for entry in entries if entry.manifest_sha256 == bundle.manifest_sha256), None):
        result.outcome, result.folder = "already imported", store.bundle(known)
        if not dry_run:
            put_back(store, bundle, held, result.folder, result.warnings)
        return
    _judge_lines(bundle, scans, policy, result)
    if result.faults:
        return
    others = [name for name in store.spellings_of(node_id) if name != node_id]
    if others:
        result.faults.append(Fault("contradicts", MANIFEST_NAME, f"node {others[0]}, which is here", f"node {node_id}"))
        return
    rewritten: list[Rewrite] = []
    accepted = rewritten if policy.accepts_rewritten(bundle.manifest) else None
    there, superseded = compare(bundle, held, result.faults, accepted)
    if dry_run:
        result.outcome = "refused" if result.faults else "would be imported"
        return
    if result.faults:
        result.folder = store.quarantined(node_id, bundle.manifest_sha256) or _quarantine(store, bundle, now)
        return
    if rewritten:
        _accept(store, bundle, rewritten, result)
    store.note_checked(bundle.manifest, bundle.manifest_sha256, scans, bundle.path)
    for name in there:
        files.remove(bundle.path / name)
    target = _free_folder(store.folder / node_id, bundle.manifest, now)
    files.make_dirs(target.parent)
    files.publish(bundle.path, target)
    for one in superseded:
        if one.is_whole():
            files.remove(one.path)
        else:
            set_aside(store, node_id, one.path, result.warnings)
    result.outcome, result.folder = "imported", target
    _save(store, [*entries, Entry(node_id, target.name, bundle.manifest_sha256, utc_text(now))], [node_id], result)


def _quarantine(store: Store, bundle: VerifiedBundle, now: float) -> Path:
    folder = _free_folder(store.quarantine / bundle.manifest.node_id, bundle.manifest, now)
    files.make_dirs(folder.parent)
    files.publish(bundle.path, folder)
    return folder


def _accept(store: Store, bundle: VerifiedBundle, rewritten: list[Rewrite], result: ImportResult) -> None:
    node_id = bundle.manifest.node_id
    note_rewrites(store, node_id, bundle.manifest_sha256, rewritten)
    names = ", ".join(one.filename for one in rewritten[:5]) + ", …" * (len(rewritten) > 5)
    result.warnings.append(
        f"accepted as the word of node {node_id}, in place of earlier content, which is kept: {names}"
    )
    if (copy := store.quarantined(node_id, bundle.manifest_sha256)) is not None:
        result.warnings.append(f"its copy in quarantine is no longer needed: delete {copy}")


def _save(store: Store, entries: list[Entry], node_ids: list[str], result: ImportResult) -> None:
    try:
        store.save(entries, node_ids)
    except StorageError as error:  # it follows the folders
        result.warnings.append(f"{error}; the next import does it")


def _free_folder(parent: Path, manifest: Manifest, now: float) -> Path:
    """Choose the bundle's own name or the next free second; for a name of another form, the time of the import."""
    moment = parse_timestamp(manifest.timestamp) if _FOLDER.fullmatch(manifest.timestamp) else None
    if moment is None or not 1970 <= moment.year <= 9998:
        moment = datetime.fromtimestamp(int(now), UTC)
    while os.path.lexists(parent / moment.strftime(TIMESTAMP_FORMAT)):
        moment += timedelta(seconds=1)
    return parent / moment.strftime(TIMESTAMP_FORMAT)
