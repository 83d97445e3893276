"""Find out the condition of the nodes of an outbox, a bundle or a hub: what is delivered or missing, whose clock
is ahead. Only looks, and takes no writer's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from calyx_logging.bundle.folder import check
from calyx_logging.core import files
from calyx_logging.core.times import moment_text, parse_timestamp, parse_utc
from calyx_logging.errors import CalyxError, ManifestError, StorageError
from calyx_logging.format.chunk import OPEN_SUFFIX, ChunkName
from calyx_logging.format.completeness import Elsewhere, NodeAudit, writers_of
from calyx_logging.format.line_check import Scan, scan_chunk
from calyx_logging.format.manifest import Manifest
from calyx_logging.format.reader import ChunkRef
from calyx_logging.format.receipt import Receipt
from calyx_logging.hub.audit import audit_node
from calyx_logging.hub.inventory import holdings_of
from calyx_logging.hub.rejections import Refusal, refusals
from calyx_logging.hub.store import Store, find_hub
from calyx_logging.node import Node
from calyx_logging.outbox import export_index
from calyx_logging.outbox.contents import look
from calyx_logging.outbox.status import status_of
from calyx_logging.query.executors import Engine
from calyx_logging.query.locations import chunks_at

__all__ = ["Condition", "Stock", "conditions_at", "refused_at"]


@dataclass(frozen=True)
class Stock:
    """Number of chunks in one state, and of their events (lines, control lines included; None if not counted)."""

    name: str
    chunks: int
    events: int | None = None


@dataclass
class Condition:
    """Condition of one node, without its events.

    Attributes:
        audit: whether everything is here.
        delivery: its chunks, by how far they have come.
        bundles: how many there are of it.
        last_bundle: when the newest came (at a hub), or was made; UTC, None without one.
        clock_ahead_s: seconds that its clock was ahead of the hub's at least, negative where nothing shows that it was
            (then it is how long the fastest bundle was on its way, as the two clocks say); None away from a hub.
        notes: what else there is to be said.
        why_not: why it could not be looked at; None where it was.
    """

    audit: NodeAudit
    delivery: tuple[Stock, ...] = ()
    bundles: int = 0
    last_bundle: str | None = None
    clock_ahead_s: float | None = None
    notes: list[str] = field(default_factory=list)
    why_not: str | None = None

    @property
    def node_id(self) -> str:
        """Return the node's id."""
        return self.audit.node_id

    @property
    def clock(self) -> str | None:
        """Describe the node's clock in words; None if nothing is known."""
        if self.clock_ahead_s is None:
            return None
        if self.clock_ahead_s <= 0:
            return "no sign that it is ahead of the hub's"
        return f"ahead of the hub's by {self.clock_ahead_s:.0f} s at least"


def conditions_at(place: str, root: str | Path | None, engine: Engine) -> Iterator[Condition]:
    """Yield the condition of each node that is known there.

    Args:
        place: `outbox`, `hub`, or the path of a bundle's folder.
        root: of the node or hub; None for the one that is found.
        engine: reads the chunks.

    Raises:
        CalyxError: there is no such place, or it cannot be read.
    """
    if place == "hub":
        store = Store(find_hub(root))
        nodes = store.asked_for(())
        tasks = [_AuditTask(store.root, node_id) for node_id in nodes]
        size = sum(path.lstat().st_size for path in store.folder.glob("[!.]*/*/*.jsonl"))
        for audit in engine.map(_audit, tasks, size):
            yield _or_why(audit.node_id, partial(_at_hub, store, audit))
    elif place == "outbox":
        node = Node.find(root)
        for node_id in node.all_ids():
            yield _or_why(node_id, partial(_at_node, node.with_id(node_id), engine))
    else:
        yield _of_bundle(Path(place), chunks_at(place, root)(), engine)


def _or_why(node_id: str, look: Callable[[], Condition]) -> Condition:
    """Return a node's condition, or why it failed, so that one node's fault does not hide the others."""
    try:
        return look()
    except (CalyxError, OSError) as error:
        return Condition(NodeAudit(node_id), notes=[f"it cannot be looked at: {error}"], why_not=str(error))


def refused_at(place: str, root: str | Path | None) -> list[Refusal]:
    """List the bundles that the hub refused and has not imported since; none for other places."""
    return refusals(Store(find_hub(root))) if place == "hub" else []


# ------------------------------------------------------------------ at a hub


@dataclass(frozen=True)
class _AuditTask:
    root: Path
    node_id: str


def _audit(task: _AuditTask) -> NodeAudit:
    try:
        return audit_node(Store(task.root), task.node_id)
    except OSError as error:
        return NodeAudit(task.node_id, damaged=[f"cannot be read: {error}"])


def _at_hub(store: Store, audit: NodeAudit) -> Condition:
    entries = store.load(audit.node_id)
    holdings = holdings_of(store, entries)
    found = Condition(audit, bundles=len(entries))
    found.last_bundle = max((entry.imported_at for entry in entries), default=None)
    acknowledged = None
    try:
        acknowledged = Receipt.parse(files.read_regular(store.receipts / f"{audit.node_id}.json"))
    except FileNotFoundError:
        found.notes.append("no receipt has been written for it")
    except (OSError, ManifestError) as error:
        found.notes.append(f"its receipt cannot be read: {error}")
    here = set() if acknowledged is None else set(acknowledged.chunks) & holdings.by_hash.keys()
    found.delivery = (Stock("imported", len(holdings.chunks), audit.events), Stock("acknowledged", len(here)))
    ahead = [
        seconds
        for entry, manifest in holdings.manifests
        if (seconds := _seconds_between(entry.imported_at, manifest.exported_at)) is not None
    ]
    found.clock_ahead_s = max(ahead, default=None)
    return found


def _seconds_between(earlier: str, later: str) -> float | None:
    """Return the seconds between two times; None if one is not a time with a zone."""
    began, ended = parse_utc(earlier), parse_utc(later)
    return None if began is None or ended is None else (ended - began).total_seconds()


# ------------------------------------------------------------------ at a node, and of a bundle


@dataclass(frozen=True)
class _ScanTask:
    path: Path
    node_id: str


def _scan(task: _ScanTask) -> Scan | str | None:
    """Scan a chunk's lines; return a message if it cannot be read, None if it no longer exists."""
    sealed = task.path.with_name(task.path.name.removesuffix(".open"))
    for path in (task.path, sealed):
        try:
            scan = scan_chunk(path, task.node_id)
        except StorageError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                return str(error)
        except (CalyxError, OSError) as error:
            return str(error)
        else:
            if path.name.endswith(OPEN_SUFFIX):  # a line may be half written; recovery says what is torn
                scan.bad, scan.bad_count = [], 0
            return scan
    return None


def _looked_at(
    node_id: str, refs: Sequence[ChunkRef], engine: Engine, elsewhere: Callable[[list[ChunkName]], Iterable[Elsewhere]]
) -> NodeAudit:
    """Audit the writers of some chunks."""
    audit = NodeAudit(node_id, goes_on=True)
    tasks = [_ScanTask(ref.path, node_id) for ref in refs]
    size = sum(path.lstat().st_size for path in (task.path for task in tasks) if path.exists())
    named: list[tuple[ChunkName, Scan]] = []
    for task, scan in zip(tasks, engine.map(_scan, tasks, size), strict=True):
        name = ChunkName.parse(task.path.name)
        if isinstance(scan, str):
            audit.damaged.append(scan)
        elif scan is not None:
            audit.events += scan.events
            audit.bad_lines += scan.bad_count
            audit.foreign_chunks += name is None
            named += [] if name is None else [(name, scan)]
    audit.writers = writers_of(named, elsewhere=elsewhere([name for name, _ in named]))
    return audit


def _at_node(node: Node, engine: Engine) -> Condition:
    status = status_of(node)
    contents = look(node.outbox)
    names = [*(name.sealed for name in contents.sealed), *contents.foreign, *(name.open for name in contents.open)]
    here = set(names)
    entries = [
        entry
        for _, manifest in export_index.manifests_of(node, export_index.load(node).bundles)
        for entry in manifest.chunks
        if entry.filename not in here
    ]

    def pruned(_: list[ChunkName]) -> Iterator[Elsewhere]:
        for entry in entries:
            name = ChunkName.parse(entry.filename)
            if name is not None:
                is_known = entry.first_seq is not None and entry.last_seq is not None
                seqs = [[entry.first_seq or 0, entry.last_seq or 0]] if is_known else []
                yield Elsewhere(name.writer, [[name.number, name.number]], seqs)

    audit = _looked_at(node.id, [ChunkRef(node.outbox / name, node.id) for name in names], engine, pruned)
    audit.bundles = status.bundles
    last = status.last_export
    return Condition(
        audit,
        tuple(
            Stock(name, tally.chunks, tally.events)
            for name, tally in status.rows()
            if name in ("open", "pending", "exported", "acknowledged")
        ),
        bundles=status.bundles,
        last_bundle=None if last is None else _time_of(last.timestamp),
        notes=[*(f"being written: {chunk}" for chunk in status.open_chunks), *status.warnings],
    )


def _time_of(timestamp: str) -> str:
    """Convert a bundle's name to a time; return it unchanged if it has another form."""
    moment = parse_timestamp(timestamp)
    return timestamp if moment is None else moment_text(moment)


def _of_bundle(folder: Path, refs: list[ChunkRef], engine: Engine) -> Condition:
    report = check(folder)
    manifest = report.manifest
    node_id = next((ref.node_id for ref in refs if ref.node_id is not None), folder.parent.name)
    if manifest is not None:
        node_id = manifest.node_id

    def before(names: list[ChunkName]) -> Iterator[Elsewhere]:
        """Yield what the same writers wrote before: it is in other bundles."""
        least: dict[str, int] = {}
        for name in names:
            least[name.writer] = min(name.number, least.get(name.writer, name.number))
        seqs = {} if manifest is None else _least_seqs(manifest)
        for writer, number in least.items():
            earlier = [[0, seqs[writer] - 1]] if number and seqs.get(writer) else []
            yield Elsewhere(writer, [[0, number - 1]] if number else [], earlier)

    audit = _looked_at(node_id, refs, engine, before)
    audit.damaged = [*(str(fault) for fault in report.faults), *audit.damaged]
    found = Condition(audit, (Stock("in this bundle", len(refs), audit.events),), bundles=1)
    if manifest is not None:
        audit.bundles = 1
        found.last_bundle = manifest.exported_at
        found.notes += [f"still being written when it was made: {name}" for name in manifest.open_chunks]
        if manifest.previous_manifest_sha256 is not None:
            found.notes.append("it comes after another bundle: what is in that one is not looked at here")
    return found


def _least_seqs(manifest: Manifest) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in manifest.chunks:
        if entry.writer is not None and entry.first_seq is not None:
            found[entry.writer] = min(entry.first_seq, found.get(entry.writer, entry.first_seq))
    return found
