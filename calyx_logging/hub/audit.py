"""The audit: is everything here that a node wrote? Per writer and per chain of bundles, from the store's own bytes.

Gaps can be detected because each writer numbers its events and chunks and records when it ends and what it could
not keep, and each bundle names the one before it. An audit believes what the import noted of a chunk whose file has the
length and the time of change that it had then; a deep one computes each chunk's hash again and trusts no notes. Both
only read, except that a deep one takes back the notes on chunks that it finds damaged.
"""

from __future__ import annotations

import contextlib
import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from calyx_logging.core import files
from calyx_logging.core.carriers import left_by, sort_names
from calyx_logging.core.parallel import several_at_once
from calyx_logging.core.reading import blocks_of, names_in, sha256_of_blocks
from calyx_logging.errors import CalyxError, EventError, ManifestError, StorageError
from calyx_logging.events.event import decode
from calyx_logging.format.chunk import SEALED_SUFFIX, ChunkName, open_chunk
from calyx_logging.format.completeness import NodeAudit, writers_of
from calyx_logging.format.line_check import Scan, numbered_lines, scan_chunk
from calyx_logging.format.manifest import MANIFEST_NAME, SUMS_NAME, parse_sums
from calyx_logging.hub.inventory import Held, Holdings, holdings_of, prefix_digests
from calyx_logging.hub.rewritten import rewrites
from calyx_logging.hub.store import Entry, Note, Store

__all__ = ["audit_node"]

_MAX_NAMED = 20
"""Maximum number of duplicate event ids that are listed."""

_PARTS = 64
"""Number of parts in which event ids are compared, one after the other, to bound the memory."""

Progress = Callable[[int], None]


def audit_node(store: Store, node_id: str, *, deep: bool = False, progress: Progress | None = None) -> NodeAudit:
    """Audit everything that the store holds of a node.

    Args:
        store: the hub's.
        node_id: of a node in the store.
        deep: read every chunk, and look for ids that events of different content share; otherwise read only chunks that
            the import noted nothing of, or that have changed since.
        progress: receives the number of bytes read.

    Raises:
        StorageError: a folder cannot be read.
        OSError: a file cannot be read.
    """
    result = _audit(store, node_id, deep, progress)
    if result.damaged:  # or an import has moved something meanwhile: once more, with nobody else at it
        with contextlib.suppress(OSError), store.alone():
            return _audit(store, node_id, deep, None)
    return result


def _audit(store: Store, node_id: str, deep: bool, progress: Progress | None) -> NodeAudit:
    entries = store.load(node_id, anew=deep)
    holdings = holdings_of(store, entries)
    result = NodeAudit(node_id, bundles=len(entries), damaged=list(holdings.warnings))
    _look_at_chain(holdings, result)
    _look_for_lost_chunks(holdings, result)
    _look_at_folders(store, entries, holdings, result)
    _look_at_sums(store, holdings, result)
    held = sorted(holdings.chunks.values(), key=lambda one: one.name)
    read = partial(_read, node_id=node_id, notes={} if deep else store.notes(entries), progress=progress)
    scans = dict(zip(held, several_at_once(read, held), strict=True))
    good = {one: scan for one, scan in scans.items() if not isinstance(scan, str)}
    result.damaged += [scan for scan in scans.values() if isinstance(scan, str)]
    if deep and len(good) < len(scans):
        with contextlib.suppress(StorageError):  # else an import or a quick audit would believe the notes
            store.catalog.forget_notes(node_id, [one.sha256 for one in scans.keys() - good.keys()])
    result.events = sum(scan.logged for scan in good.values())
    result.bad_lines = sum(scan.bad_count for scan in good.values())
    result.rewritten = [
        f"{one.filename}, as in bundle {entry.folder}" for entry in entries for one in rewrites(store, entry)
    ]
    result.foreign_chunks = sum(one.grows for one in good)
    named = ((ChunkName.parse(one.name), scan) for one, scan in good.items())
    result.writers = writers_of(((name, scan) for name, scan in named if name is not None), _open_writers(holdings))
    result.machines = sorted({machine for scan in good.values() for machine in scan.machines})
    _look_for_same_ids(good, result)
    return result


def _read(held: Held, node_id: str, notes: Mapping[str, Note], progress: Progress | None) -> Scan | str:
    """Scan a chunk's lines, unless a note tells of them; return a message if the chunk differs from its manifest."""
    if (note := notes.get(held.sha256)) is not None and note.is_of(held.path):
        return note.scan
    try:
        with open_chunk(held.path) as stream:
            digest, _ = sha256_of_blocks(_reported(blocks_of(stream), progress))
        if digest != held.sha256:
            return f"{held.path}: its hash is {digest}, and was {held.sha256} when it came"
        return scan_chunk(held.path, node_id, with_ids=True)
    except CalyxError as error:
        return str(error)


def _reported(blocks: Iterable[bytes], progress: Progress | None) -> Iterator[bytes]:
    for block in blocks:
        yield block
        if progress is not None:
            progress(len(block))


# ------------------------------------------------------------------ bundles


def _look_at_chain(holdings: Holdings, result: NodeAudit) -> None:
    """Find predecessors that are missing, and chains of bundles that begin twice or fork."""
    covered = [(entry, one) for entry, manifest in holdings.manifests for one in manifest.covers]
    here = {entry.manifest_sha256 for entry, _ in holdings.manifests} | {one.manifest_sha256 for _, one in covered}
    for entry, one in covered:  # it need not come, but what came before it has to be accounted for
        if one.previous_manifest_sha256 is not None and one.previous_manifest_sha256 not in here:
            result.missing_bundles.append(one.previous_manifest_sha256)
            result.followers[one.previous_manifest_sha256] = entry.folder
    ours = [(entry, manifest) for entry, manifest in holdings.manifests if not manifest.is_legacy]
    after: dict[str | None, list[Entry]] = defaultdict(list)
    for entry, manifest in ours:
        after[manifest.previous_manifest_sha256].append(entry)
    for previous, entries in after.items():
        if previous is not None and previous not in here and previous not in result.followers:
            result.missing_bundles.append(previous)
            result.followers[previous] = entries[0].folder
        if len(entries) > 1:
            what = "begin a chain" if previous is None else f"follow {previous[:16]}"
            result.histories.append(f"{', '.join(entry.folder for entry in entries)} {what}")


def _look_at_sums(store: Store, holdings: Holdings, result: NodeAudit) -> None:
    """Report manifests that do not match the SHA256SUMS beside them: the index may have been made from them."""
    for entry, manifest in holdings.manifests:
        path = store.bundle(entry) / SUMS_NAME
        try:
            digest = parse_sums(files.read_regular(path)).get(MANIFEST_NAME)
        except FileNotFoundError:
            digest = entry.manifest_sha256 if manifest.is_legacy else None
        except (OSError, ManifestError) as error:
            result.damaged.append(f"{path} cannot be read: {error}")
            continue
        if digest != entry.manifest_sha256:
            result.damaged.append(f"{path} and the manifest beside it do not belong together")


def _look_for_lost_chunks(holdings: Holdings, result: NodeAudit) -> None:
    """Report chunks that a manifest names but the store lacks; for a growing chunk, each of its states."""
    begins: dict[str, dict[int, str]] = {}
    for entry, manifest in holdings.manifests:
        for chunk in manifest.chunks:
            if chunk.sha256 in holdings.by_hash or chunk.sha256 in holdings.replaced.get(chunk.filename, ()):
                continue
            held, states = holdings.chunks.get(chunk.filename), holdings.states[chunk.filename]
            if held is not None and held.grows:
                if chunk.filename not in begins:
                    with contextlib.suppress(CalyxError, OSError):
                        sizes = [size for size in states.values() if size is not None]
                        begins[chunk.filename] = prefix_digests(held.path, sizes)
                size = states[chunk.sha256]
                if size is not None and begins.get(chunk.filename, {}).get(size) == chunk.sha256:
                    continue
            result.damaged.append(f"{chunk.filename} of bundle {entry.folder} is not in the store any more")


def _look_at_folders(store: Store, entries: list[Entry], holdings: Holdings, result: NodeAudit) -> None:
    """Report bundles that are gone, folders that are no bundles, unlisted chunks, and the quarantine."""
    node_id, folder = result.node_id, store.folder / result.node_id
    if not store.is_sound(node_id):
        result.damaged.append(f"{folder} is no folder of the store's own")
        return
    here = {entry.folder for entry in entries}
    for entry in store.missing(node_id, entries):
        result.damaged.append(f"bundle {entry.folder}, imported {entry.imported_at}, is not in the store any more")
    named = {entry.folder: {chunk.filename for chunk in manifest.chunks} for entry, manifest in holdings.manifests}
    for name in names_in(folder):
        if name not in here and left_by(name) is None:
            result.damaged.append(f"{folder / name} is no bundle's folder")
        for file in sort_names(names_in(folder / name), named[name]).others if name in named else ():
            if file.endswith(SEALED_SUFFIX):
                result.damaged.append(f"{folder / name / file} is no chunk that its bundle's manifest names")
    aside = [name for name in names_in(store.quarantine / node_id) if left_by(name) is None]
    result.quarantined = [str(store.quarantine / node_id / name) for name in aside]


# ------------------------------------------------------------------ writers


def _open_writers(holdings: Holdings) -> dict[str, str]:
    """Map each writer whose open chunk was left out of a bundle, and has not arrived since, to that bundle."""
    found = {}
    for entry, manifest in holdings.manifests:
        for name in manifest.open_chunks:
            parsed = ChunkName.parse(name)
            if parsed is not None and parsed.sealed not in holdings.chunks:
                found[parsed.writer] = entry.folder
    return found


# ------------------------------------------------------------------ ids


def _look_for_same_ids(scans: dict[Held, Scan], result: NodeAudit) -> None:
    """Report ids that several events share. An id is a label: lines with different content are different events."""
    parts = [array("q") for _ in range(_PARTS)]
    for scan in scans.values():
        for number in scan.ids or ():
            parts[number % _PARTS].append(number)
    suspects: set[int] = set()
    for part in parts:
        if len(set(part)) != len(part):
            suspects.update(number for number, count in Counter(part).items() if count > 1)
    if not suspects:
        return
    contents: dict[str, bytes] = {}
    shared: set[str] = set()
    for held in scans:
        for event_id, digest in _contents(held, suspects):
            if contents.setdefault(event_id, digest) != digest:
                shared.add(event_id)
    result.same_ids = len(shared)
    result.same_id = sorted(shared)[:_MAX_NAMED]


def _contents(held: Held, suspects: set[int]) -> Iterator[tuple[str, bytes]]:
    """Yield possibly repeated ids of a chunk's lines, each with a hash of the event without its `seq`."""
    with contextlib.suppress(CalyxError), open_chunk(held.path) as stream:
        for _, line in numbered_lines(stream):
            try:
                event = decode(line)
            except EventError:
                continue
            event_id = event.get("event_id")
            if isinstance(event_id, str) and hash(event_id) in suspects:
                event.pop("seq", None)
                yield event_id, hashlib.sha256(repr(sorted(event.items())).encode("utf-8", "replace")).digest()
