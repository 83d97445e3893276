"""The audit: is everything here that a node wrote? Per writer and per chain of bundles, from the store's own bytes.

What is missing can be told because each writer numbers its events and its chunks, says when it ends and what it could
not keep, and each bundle names the one before it. Nothing is taken from notes or manifests that a chunk's lines can
say; each chunk's hash is computed anew. Only looks.
"""

from __future__ import annotations

import contextlib
import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from calyx_logging import durable
from calyx_logging.chunk import SEALED_SUFFIX, ChunkName, names_in, open_chunk
from calyx_logging.errors import CalyxError, EventError, ManifestError
from calyx_logging.event import decode
from calyx_logging.gap import runs_of
from calyx_logging.holdings import Held, Holdings, holdings_of, prefix_digests
from calyx_logging.manifest import MANIFEST_NAME, SUMS_NAME, parse_sums
from calyx_logging.scan import Scan, numbered_lines, scan_chunk
from calyx_logging.stats import blocks_of, several_at_once
from calyx_logging.store import Entry, Store

__all__ = ["NodeAudit", "WriterAudit", "audit_node"]

_MAX_NAMED = 20
"""So many ids that two events bear are named."""

_PARTS = 64
"""Event ids are compared in so many parts, one after the other, which bounds the memory."""

Progress = Callable[[int], None]


@dataclass
class WriterAudit:
    """What is known of one writer.

    Attributes:
        writer: its id.
        state: `complete`; `holes`: some of its events or chunks are not here; `tail unknown`: it was killed, and what
            it wrote last may not have reached the disk; `unfinished`: it has no end yet, it writes on or more is to
            come.
        events: lines here, control lines among them.
        chunks: of it here.
        last_seq: the greatest here; None without any.
        missing_seqs: runs that neither a line nor a gap line accounts for.
        missing_chunks: runs of chunk numbers.
        gaps: events that it says it could not keep, by cause.
        torn_bytes, bad_lines: what recovery could not keep.
        repeated: how often a `seq` is here more than once.
        open_in: the last bundle that says that a chunk of it was being written, where that has not come since.
    """

    writer: str
    state: str = "complete"
    events: int = 0
    chunks: int = 0
    last_seq: int | None = None
    missing_seqs: list[list[int]] = field(default_factory=list)
    missing_chunks: list[list[int]] = field(default_factory=list)
    gaps: dict[str, int] = field(default_factory=dict)
    torn_bytes: int = 0
    bad_lines: int = 0
    repeated: int = 0
    open_in: str | None = None


@dataclass
class NodeAudit:
    """What is known of one node.

    Attributes:
        node_id: which.
        bundles: of it in the store.
        events: lines here, of all chunks.
        writers: of our own chunks.
        foreign_chunks: of the first generation, whose completeness nobody can tell.
        missing_bundles: hashes of manifests that others name as the one before them, and that are not here.
        followers: for each missing bundle the folder of the one that names it.
        histories: bundles that begin a chain, and such as follow one that another follows, too; more than one when a
            machine was cloned, or lost what it knew of its exports.
        damaged: what is in the store and not what its manifest says.
        quarantined: bundles of it that contradict the store, and are kept apart.
        bad_lines: lines that are no events of the node, in chunks that were accepted with them.
        same_id: event ids that events with other content share, the first of them.
        same_ids: how many there are.
    """

    node_id: str
    bundles: int = 0
    events: int = 0
    writers: list[WriterAudit] = field(default_factory=list)
    foreign_chunks: int = 0
    missing_bundles: list[str] = field(default_factory=list)
    followers: dict[str, str] = field(default_factory=dict)
    histories: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    bad_lines: int = 0
    same_id: list[str] = field(default_factory=list)
    same_ids: int = 0

    @property
    def complete(self) -> bool:
        """Whether everything is here."""
        return self.verdict == "complete"

    @property
    def verdict(self) -> str:
        """`complete`; `complete but for unknown tails`: all is here that is known of, some writers were killed;
        `not complete`.
        """
        states = {writer.state for writer in self.writers}
        wrong = (self.missing_bundles, self.histories, self.damaged, self.bad_lines, self.quarantined)
        if any(wrong) or states & {"holes", "unfinished"}:
            return "not complete"
        return "complete but for unknown tails" if "tail unknown" in states else "complete"


def audit_node(store: Store, node_id: str, *, progress: Progress | None = None) -> NodeAudit:
    """Look at all that the store has of a node; `progress` is told of bytes read.

    Raises:
        StorageError: a folder cannot be read.
        OSError: a file cannot be read.
    """
    result = _audit(store, node_id, progress)
    if result.damaged:  # or an import has moved something meanwhile: once more, with nobody else at it
        with contextlib.suppress(OSError), store.alone():
            return _audit(store, node_id, None)
    return result


def _audit(store: Store, node_id: str, progress: Progress | None) -> NodeAudit:
    entries = store.load(node_id)
    holdings = holdings_of(store, entries)
    result = NodeAudit(node_id, bundles=len(entries), damaged=list(holdings.warnings))
    _look_at_chain(holdings, result)
    _look_for_lost_chunks(holdings, result)
    _look_at_folders(store, entries, holdings, result)
    _look_at_sums(store, holdings, result)
    held = sorted(holdings.chunks.values(), key=lambda one: one.name)
    scans = dict(zip(held, several_at_once(lambda one: _read(one, node_id, progress), held), strict=True))
    good: dict[Held, Scan] = {}
    for one, scan in scans.items():
        if isinstance(scan, str):
            result.damaged.append(scan)
        else:
            good[one] = scan
    result.events = sum(scan.events for scan in good.values())
    result.bad_lines = sum(scan.bad_count for scan in good.values())
    result.foreign_chunks = sum(ChunkName.parse(one.name) is None for one in good)
    result.writers = _writers(good, _open_writers(holdings))
    _look_for_same_ids(good, result)
    return result


def _read(held: Held, node_id: str, progress: Progress | None) -> Scan | str:
    """What a chunk's lines say; in words, where it is not what its manifest says."""
    digest = hashlib.sha256()
    try:
        with open_chunk(held.path) as stream:
            for block in blocks_of(stream):
                digest.update(block)
                if progress is not None:
                    progress(len(block))
        if digest.hexdigest() != held.sha256:
            return f"{held.path}: its hash is {digest.hexdigest()}, and was {held.sha256} when it came"
        return scan_chunk(held.path, node_id, with_ids=True)
    except CalyxError as error:
        return str(error)


# ------------------------------------------------------------------ bundles


def _look_at_chain(holdings: Holdings, result: NodeAudit) -> None:
    """Which bundles others come after, and are not here; where a chain begins twice, or parts."""
    covered = [(entry, one) for entry, manifest in holdings.manifests for one in manifest.covers]
    here = {entry.manifest_sha256 for entry, _ in holdings.manifests} | {one.manifest_sha256 for _, one in covered}
    for entry, one in covered:  # it need not come, but what came before it has to be accounted for
        if one.previous_manifest_sha256 is not None and one.previous_manifest_sha256 not in here:
            result.missing_bundles.append(one.previous_manifest_sha256)
            result.followers[one.previous_manifest_sha256] = entry.folder
    ours = [(entry, manifest) for entry, manifest in holdings.manifests if manifest.version > 0]
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
    """Manifests that are not what the sums beside them say: the index may have been made from them."""
    for entry, manifest in holdings.manifests:
        path = store.bundle(entry) / SUMS_NAME
        try:
            said = parse_sums(durable.read_regular(path)).get(MANIFEST_NAME)
        except FileNotFoundError:
            said = None if manifest.version > 0 else entry.manifest_sha256
        except (OSError, ManifestError) as error:
            result.damaged.append(f"{path} cannot be read: {error}")
            continue
        if said != entry.manifest_sha256:
            result.damaged.append(f"{path} and the manifest beside it do not belong together")


def _look_for_lost_chunks(holdings: Holdings, result: NodeAudit) -> None:
    """Chunks that a manifest in the store names, and that lie nowhere in it; of one that grows, each of its states."""
    begins: dict[str, dict[int, str]] = {}
    for entry, manifest in holdings.manifests:
        for chunk in manifest.chunks:
            if chunk.sha256 in holdings.by_hash:
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
    """Bundles that were here, folders that are none, chunks that no manifest names, and what is in quarantine."""
    node_id, folder = result.node_id, store.folder / result.node_id
    if not store.is_sound(node_id):
        result.damaged.append(f"{folder} is no folder of the store's own")
        return
    here, hashes = {entry.folder for entry in entries}, {entry.manifest_sha256 for entry in entries}
    for entry in store.said(node_id):
        if entry.manifest_sha256 not in hashes:
            result.damaged.append(f"bundle {entry.folder}, imported {entry.imported_at}, is not in the store any more")
    named = {entry.folder: {chunk.filename for chunk in manifest.chunks} for entry, manifest in holdings.manifests}
    for name in names_in(folder):
        if name not in here:
            result.damaged.append(f"{folder / name} is no bundle's folder")
        for file in names_in(folder / name) if name in named else ():
            if file.endswith(SEALED_SUFFIX) and file not in named[name]:
                result.damaged.append(f"{folder / name / file} is no chunk that its bundle's manifest names")
    result.quarantined = [str(store.quarantine / node_id / name) for name in names_in(store.quarantine / node_id)]


# ------------------------------------------------------------------ writers


def _open_writers(holdings: Holdings) -> dict[str, str]:
    """Writers whose chunk was being written when a bundle was made, and has not come since: in which bundle."""
    found = {}
    for entry, manifest in holdings.manifests:
        for name in manifest.open_chunks:
            parsed = ChunkName.parse(name)
            if parsed is not None and parsed.sealed not in holdings.chunks:
                found[parsed.writer] = entry.folder
    return found


def _writers(scans: dict[Held, Scan], still_open: dict[str, str]) -> list[WriterAudit]:
    by_writer: dict[str, list[tuple[ChunkName, Scan]]] = defaultdict(list)
    told: dict[str, list[list[int]]] = defaultdict(list)
    for held, scan in scans.items():
        name = ChunkName.parse(held.name)
        if name is not None:
            by_writer[name.writer].append((name, scan))
            for gap in scan.gaps:
                told[gap.writer or name.writer] += gap.seqs
    found = {writer: _writer(writer, chunks, told[writer]) for writer, chunks in by_writer.items()}
    for writer, folder in still_open.items():
        one = found.setdefault(writer, WriterAudit(writer))
        one.open_in = folder
        if one.state != "holes":
            one.state = "unfinished"
    return sorted(found.values(), key=lambda one: one.writer)


def _writer(writer: str, chunks: list[tuple[ChunkName, Scan]], told: list[list[int]]) -> WriterAudit:
    scans = [scan for _, scan in chunks]
    found = WriterAudit(writer, events=sum(scan.events for scan in scans), chunks=len(chunks))
    seqs = [list(run) for scan in scans for run in scan.seqs]
    lines = runs_of(seqs)
    found.repeated = sum(scan.repeated for scan in scans) + _length(seqs) - _length(lines)
    found.last_seq = lines[-1][1] if lines else None
    found.missing_seqs = _holes(runs_of([*map(list, seqs), *map(list, told)]))
    found.missing_chunks = _holes(runs_of([[name.number, name.number] for name, _ in chunks]))
    causes: Counter[str] = Counter()
    for gap in (gap for scan in scans for gap in scan.gaps):
        causes[gap.cause] += gap.count
    found.gaps = dict(causes)
    ends = [end for scan in scans for end in scan.ends]
    recovered = [end for end in ends if end["reason"] != "closed"]
    found.torn_bytes = sum(end.get("torn_bytes", 0) for end in recovered)
    found.bad_lines = sum(end.get("bad_lines", 0) for end in recovered)
    if found.missing_seqs or found.missing_chunks or found.repeated:
        found.state = "holes"
    elif recovered:
        found.state = "tail unknown"
    elif not ends:
        found.state = "unfinished"
    return found


def _length(runs: Iterable[list[int]]) -> int:
    return sum(last - first + 1 for first, last in runs)


def _holes(runs: list[list[int]]) -> list[list[int]]:
    """What is between 0 and the last, and not in the runs."""
    holes, next_one = [], 0
    for first, last in runs:
        if first > next_one:
            holes.append([next_one, first - 1])
        next_one = last + 1
    return holes


# ------------------------------------------------------------------ ids


def _look_for_same_ids(scans: dict[Held, Scan], result: NodeAudit) -> None:
    """An id is a label: two lines with one id and other content are two events, and that is said."""
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
    """Ids of a chunk's lines that may be there twice, and a hash of each such event apart from its `seq`."""
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
