"""Import: bundles from anywhere into the hub's store, each once, and only what is whole.

A bundle is copied into staging, and the copy is verified, so that nothing that happens to the source meanwhile
matters. Then, under the store's lock, it gets its final name by one rename, and the index is written. Killed at any
moment, an import leaves a store in which every bundle is whole or not there; what it could not do the next does.

Every event is in the store once: a chunk that is there already is not put in a second time; of a first-generation
chunk, which grows in place, the longest state is kept. A chunk with the name of another and other content is a
contradiction: the bundle is refused, and kept in quarantine.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from calyx_logging import durable
from calyx_logging.bundle import Fault, VerifiedBundle, check, is_junk
from calyx_logging.chunk import ChunkName, open_chunk, read_lines
from calyx_logging.errors import ChunkError, EventError, ManifestError, StorageError
from calyx_logging.event import decode, utc_text
from calyx_logging.jsonable import safe_repr
from calyx_logging.manifest import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    SUMS_NAME,
    TIMESTAMP_FORMAT,
    Manifest,
    is_safe_filename,
)
from calyx_logging.stats import blocks_of, several_at_once
from calyx_logging.store import Entry, Store

__all__ = ["ImportResult", "bundles_in", "import_bundle"]

_MAX_MANIFEST = 256 * 1024 * 1024
_MAX_NAMED = 100
"""So many bad lines of one chunk are named one by one."""

_MAX_FAULTS = 10_000
"""So many in all; what comes after them is not looked at any more."""

_STAMPED = ("node_id", "ts_utc", "event_id", "source")
_FOLDER = re.compile(r"[0-9]{8}_[0-9]{6}", re.ASCII)


@dataclass
class ImportResult:
    """What became of one bundle.

    Attributes:
        source: the folder it came from.
        outcome: `imported`, `already imported`, `refused`; with a dry run `would be imported`; `failed` when the file
            system said no.
        folder: where it is in the store; for one that contradicts the store, in quarantine.
        manifest: None where it cannot be read.
        faults: why it was refused, all of them.
        warnings: what the user should know.
    """

    source: Path
    outcome: str
    folder: Path | None = None
    manifest: Manifest | None = None
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def bundles_in(path: Path, leave_out: Path | None = None) -> list[Path]:
    """The bundles that a path names: itself, or all in the folders below it.

    Args:
        path: of a folder.
        leave_out: a folder below it that is not looked into (the store itself).

    Raises:
        StorageError: there is no such folder, or one cannot be read.
    """
    path = durable.reachable(path)
    if not path.is_dir():
        what = "it is no folder" if path.exists() else "there is no such folder"
        raise StorageError(what, path=path, hint="name the folder of a bundle, or of many")
    if (path / MANIFEST_NAME).exists():
        return [path]

    def refuse(error: OSError) -> None:
        raise StorageError.of(error, "look for bundles", error.filename or path) from error

    found = []
    for folder, names, files in os.walk(path, onerror=refuse):
        names.sort()
        names[:] = [name for name in names if not name.startswith(".") and Path(folder, name) != leave_out]
        if MANIFEST_NAME in files:
            names.clear()
            found.append(Path(folder))
    return found or [path]


def import_bundle(
    store: Store, source: Path, *, dry_run: bool = False, clock: Callable[[], float] = time.time
) -> ImportResult:
    """Put one bundle into the store.

    Args:
        store: the hub's.
        source: the bundle's folder; it is only read.
        dry_run: only say what would happen.
        clock: seconds since the epoch.

    Raises:
        StorageError: a file cannot be read or written; the store is as it was.
    """
    try:
        with store.staging() as staged:
            faults = list(_copy(source, staged))
            report = check(staged)
            result = ImportResult(source, "refused", manifest=report.manifest, warnings=list(report.warnings))
            result.faults = faults + [fault for fault in report.faults if not _is_known(fault, faults)]
            if report.manifest is None or report.manifest_sha256 is None or result.faults:
                return result
            result.faults = list(islice(_line_faults(staged, report.manifest), _MAX_FAULTS))
            if result.faults:
                return result
            if (staged / SIGNATURE_NAME).exists():
                result.warnings.append("its signature was not looked at")
            bundle = VerifiedBundle(staged, report.manifest, report.manifest_sha256, report.warnings)
            with store.alone():
                _put_in(store, bundle, result, dry_run, clock())
            return result
    except OSError as error:
        hint = "free some space" if error.errno == 28 else "check the folder's rights and the disk"
        raise StorageError.of(error, "import", error.filename or store.folder, hint) from error


# ------------------------------------------------------------------ into staging


def _copy(source: Path, staged: Path) -> Iterator[Fault]:
    """Copy the manifest and what it names, synced; what is no regular file of a plain name is a fault."""
    try:
        names = sorted(name for name in os.listdir(source) if not is_junk(name))
    except OSError as error:
        raise StorageError.of(error, "read the bundle", source) from error
    own = (MANIFEST_NAME, SUMS_NAME, SIGNATURE_NAME)
    fits = MANIFEST_NAME in names and _size(source / MANIFEST_NAME) <= _MAX_MANIFEST
    if fits and (fault := _copy_one(source / MANIFEST_NAME, staged / MANIFEST_NAME)):
        yield fault
    listed = {*own, *_chunks_of(staged / MANIFEST_NAME)}
    files = []
    for name in names:
        if not is_safe_filename(name):
            yield Fault("unsafe", repr(name)[:200], "a plain file name of a chunk")
        elif name in own and _size(source / name) > _MAX_MANIFEST:
            yield Fault("malformed", name, f"at most {_MAX_MANIFEST} bytes", "more")
        elif name not in listed:
            yield Fault("extra", name, "", "a file that the manifest does not name")
        elif name != MANIFEST_NAME:
            files.append(name)
    yield from filter(None, several_at_once(lambda name: _copy_one(source / name, staged / name), files))


def _chunks_of(manifest: Path) -> set[str]:
    """The chunks a manifest names; none where it cannot be read, which `check` says."""
    try:
        return {chunk.filename for chunk in Manifest.parse(durable.read_regular(manifest)).chunks}
    except (OSError, ManifestError):
        return set()


def _copy_one(path: Path, target: Path) -> Fault | None:
    try:
        with open_chunk(path) as stream:
            durable.write_new(target, blocks_of(stream))
    except (ChunkError, StorageError) as error:
        return Fault("unreadable", path.name, "a regular file", error.message)
    return None


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _is_known(fault: Fault, faults: Iterable[Fault]) -> bool:
    """A file that was not copied is not reported as missing, too."""
    return fault.kind in ("missing", "malformed") and any(known.path == fault.path for known in faults)


def _line_faults(folder: Path, manifest: Manifest) -> Iterator[Fault]:
    """Lines that are no events of the bundle's node: each by file and number, as many as one wants to read."""
    for found in several_at_once(
        lambda entry: list(_faults_of_chunk(folder / entry.filename, manifest.node_id)), manifest.chunks
    ):
        yield from found


def _faults_of_chunk(path: Path, node_id: str) -> Iterator[Fault]:
    count = 0
    with open_chunk(path) as stream:
        for number, (line, _) in enumerate(read_lines(stream), 1):
            why = _what_is_wrong(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, node_id)
            if why is None:
                continue
            count += 1
            if count <= _MAX_NAMED:
                yield Fault("bad line", f"{path.name}:{number}", f"an event of node {node_id}", why)
    if count > _MAX_NAMED:
        yield Fault(
            "bad line", path.name, f"events of node {node_id}", f"{count - _MAX_NAMED} more lines that are none"
        )


def _what_is_wrong(line: bytes, node_id: str) -> str | None:
    if not line.strip():
        return None
    try:
        event = decode(line)
    except EventError as error:
        return error.message[:200]
    for name in _STAMPED:
        if not isinstance(event.get(name), str) or not event[name]:
            return f"{name} is {safe_repr(event.get(name))[:100]}"
    return None if event["node_id"] == node_id else f"node_id is {safe_repr(event['node_id'])[:100]}"


# ------------------------------------------------------------------ into the store


def _put_in(store: Store, bundle: VerifiedBundle, result: ImportResult, dry_run: bool, now: float) -> None:
    """With the store's lock held: refuse, or rename into place and index."""
    entries, node_id = store.load(), bundle.manifest.node_id
    if store.unsettled and not dry_run:
        for unsettled in store.unsettled:
            _present(store, [entry for entry in entries if entry.node_id == unsettled], result, dry_run)
        _save(store, entries, result)
    known = next((entry for entry in entries if entry.manifest_sha256 == bundle.manifest_sha256), None)
    present = _present(store, [entry for entry in entries if entry.node_id == node_id], result, dry_run)
    if known is not None:
        result.outcome, result.folder = "already imported", store.bundle(known)
        if not dry_run:
            _put_back(bundle, present, result.folder, result)
        return
    others = [name for name in store.spellings_of(node_id) if name != node_id]
    if others:
        result.faults.append(Fault("contradicts", MANIFEST_NAME, f"node {others[0]}, which is here", f"node {node_id}"))
        return
    there, superseded = _compare(bundle, present, result.faults)
    if dry_run:
        result.outcome = "refused" if result.faults else "would be imported"
        return
    if result.faults:
        result.folder = store.quarantined(node_id, bundle.manifest_sha256)
        if result.folder is not None:
            return
        result.folder = _free_folder(store.quarantine / node_id, bundle.manifest, now)
        durable.make_dirs(result.folder.parent)
        durable.publish(bundle.path, result.folder)
        return
    for name in there:
        durable.remove(bundle.path / name)
    target = _free_folder(store.folder / node_id, bundle.manifest, now)
    durable.make_dirs(target.parent)
    durable.publish(bundle.path, target)
    for path in superseded:
        durable.remove(path)
    result.outcome, result.folder = "imported", target
    _save(store, [*entries, Entry(node_id, target.name, bundle.manifest_sha256, utc_text(now))], result)


def _save(store: Store, entries: list[Entry], result: ImportResult) -> None:
    try:
        store.save(entries)
    except OSError as error:  # it is only a summary
        result.warnings.append(f"the import index cannot be written: {error}; the next import does")


def _put_back(bundle: VerifiedBundle, present: dict[str, tuple[Path, str]], folder: Path, result: ImportResult) -> None:
    """Chunks that somebody deleted in the store, or emptied, come back with the bundle that has them."""
    missing = []
    for chunk in bundle.manifest.chunks:
        path = present.get(chunk.filename, (folder / chunk.filename, ""))[0]
        size, expected = _size(path), _size(bundle.path / chunk.filename)
        grows = ChunkName.parse(chunk.filename) is None
        if not path.is_file() or size < expected or (size != expected and not grows):
            durable.remove(path)
            durable.rename_new(bundle.path / chunk.filename, path)
            missing.append(chunk.filename)
    if missing:
        durable.sync_dir(folder)
        result.warnings.append(f"{len(missing)} chunks were missing in the store, or cut, and were put back")


def _present(
    store: Store, entries: Iterable[Entry], result: ImportResult, dry_run: bool
) -> dict[str, tuple[Path, str]]:
    """A node's chunks in the store: path and hash by name; of what an import left twice, the longer is kept."""
    present: dict[str, tuple[Path, str]] = {}
    for entry in entries:
        try:
            manifest = store.manifest(entry)
        except (ManifestError, StorageError) as error:
            result.warnings.append(f"{store.bundle(entry)} is in the store, and damaged: {error.message}")
            continue
        for chunk in manifest.chunks:
            path = store.bundle(entry) / chunk.filename
            if not is_safe_filename(chunk.filename) or path.is_symlink() or not path.is_file():
                continue  # it is in another bundle's folder, or nothing of the store's
            known = present.get(chunk.filename)
            if known is not None and known[0] == path:
                continue
            if known is not None:  # the import that put it in was killed before it removed the shorter one
                shorter, longer = sorted((known[0], path), key=lambda one: one.stat().st_size)
                if not dry_run and _begins_with(longer, shorter):
                    durable.remove(shorter)
                if longer == known[0]:
                    continue
            present[chunk.filename] = path, chunk.sha256
    return present


def _compare(
    bundle: VerifiedBundle, present: dict[str, tuple[Path, str]], faults: list[Fault]
) -> tuple[list[str], list[Path]]:
    """Names that are not to be put in again, and files of the store that are shorter states of what comes."""
    there, superseded = [], []
    for chunk in bundle.manifest.chunks:
        if chunk.filename not in present:
            continue
        path, sha256 = present[chunk.filename]
        new = bundle.path / chunk.filename
        if sha256 == chunk.sha256:
            if path.stat().st_size == new.stat().st_size:
                there.append(chunk.filename)
            else:  # somebody cut it, or wrote into it
                superseded.append(path)
        elif ChunkName.parse(chunk.filename) is None and _begins_with(new, path):
            superseded.append(path)
        elif ChunkName.parse(chunk.filename) is None and _begins_with(path, new):
            there.append(chunk.filename)
        else:
            faults.append(
                Fault("contradicts", chunk.filename, f"sha256 {sha256}, as in {path.parent}", f"sha256 {chunk.sha256}")
            )
    return there, superseded


def _begins_with(longer: Path, shorter: Path) -> bool:
    """Whether a file begins with all of another."""
    with open_chunk(longer) as long, open_chunk(shorter) as short:
        return all(long.read(len(block)) == block for block in blocks_of(short))


def _free_folder(parent: Path, manifest: Manifest, now: float) -> Path:
    """The bundle's own name, or the next second's that is free; of another form, the time of the import."""
    try:
        if not _FOLDER.fullmatch(manifest.timestamp):
            raise ValueError
        moment = datetime.strptime(manifest.timestamp, TIMESTAMP_FORMAT).replace(tzinfo=UTC)
        if not 1970 <= moment.year <= 9998:
            raise ValueError
    except ValueError:
        moment = datetime.fromtimestamp(int(now), UTC)
    while os.path.lexists(parent / moment.strftime(TIMESTAMP_FORMAT)):
        moment += timedelta(seconds=1)
    return parent / moment.strftime(TIMESTAMP_FORMAT)
