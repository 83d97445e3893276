"""Find out the condition of the nodes of an outbox, a bundle or a hub: what is delivered or missing, whose clock
is ahead. Only looks, and takes no writer's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from calyx_logging.bundle.audit import audit_bundle
from calyx_logging.bundle.folder import check
from calyx_logging.core import files
from calyx_logging.core.times import moment_text, parse_timestamp, parse_utc
from calyx_logging.errors import CalyxError, ManifestError
from calyx_logging.format.completeness import NodeAudit
from calyx_logging.format.reader import ChunkRef
from calyx_logging.format.receipt import Receipt
from calyx_logging.hub.audit import audit_node
from calyx_logging.hub.inventory import holdings_of
from calyx_logging.hub.rejections import Refusal, refusals
from calyx_logging.hub.store import Store, find_hub
from calyx_logging.node import Node
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
            yield _or_why(node_id, partial(_at_node, node.with_id(node_id)))
    else:
        yield _of_bundle(Path(place), chunks_at(place, root)())


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


def _at_node(node: Node) -> Condition:
    status = status_of(node)
    last = status.last_export
    return Condition(
        status.audit,
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


def _of_bundle(folder: Path, refs: list[ChunkRef]) -> Condition:
    report = check(folder)
    manifest = report.manifest
    node_id = next((ref.node_id for ref in refs if ref.node_id is not None), folder.parent.name)
    if manifest is not None:
        node_id = manifest.node_id
    audit = audit_bundle(folder, [ref.path.name for ref in refs], node_id, manifest)
    audit.damaged = [*(str(fault) for fault in report.faults), *audit.damaged]
    found = Condition(audit, (Stock("in this bundle", len(refs), audit.events),), bundles=1)
    if manifest is not None:
        audit.bundles = 1
        found.last_bundle = manifest.exported_at
        found.notes += [f"still being written when it was made: {name}" for name in manifest.open_chunks]
        if manifest.previous_manifest_sha256 is not None:
            found.notes.append("it comes after another bundle: what is in that one is not looked at here")
    return found
