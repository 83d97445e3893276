"""Report what a node's outbox holds, what is exported and what is pending; without locks or changes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calyx_logging.core.locks import holder_of
from calyx_logging.format.chunk import SEALED_SUFFIX
from calyx_logging.format.completeness import NodeAudit
from calyx_logging.format.survey import Survey
from calyx_logging.node import Node
from calyx_logging.outbox import export_index
from calyx_logging.outbox.audit import audit_surveyed, survey_outbox
from calyx_logging.outbox.contents import OpenChunk, look
from calyx_logging.outbox.export_index import BundleRef
from calyx_logging.outbox.pending import find_pending
from calyx_logging.outbox.receipts import load_acknowledged

__all__ = ["NodeStatus", "Tally", "status_of"]


@dataclass
class Tally:
    """A number of chunks, with their events and bytes."""

    chunks: int = 0
    events: int = 0
    bytes: int = 0

    def count(self, events: int, size: int) -> None:
        """Count one chunk with these events and bytes."""
        self.chunks += 1
        self.events += events
        self.bytes += size


@dataclass(frozen=True)
class NodeStatus:
    """The state of one node id's outbox; control lines do not count as events.

    Attributes (some):
        left: those of the warnings that say what the next export cannot take.
    """

    node_id: str
    open: Tally
    sealed: Tally
    foreign: Tally
    exported: Tally
    acknowledged: Tally
    pending: Tally
    open_chunks: tuple[OpenChunk, ...]
    bundles: int
    last_export: BundleRef | None
    last_receipt: str | None
    receipt_chunks: int
    outbox_bytes: int
    exports_bytes: int
    free_bytes: int
    warnings: tuple[str, ...]
    left: tuple[str, ...]
    audit: NodeAudit

    def rows(self) -> Iterator[tuple[str, Tally]]:
        """Return the tallies with their names, in display order."""
        for name in ("open", "sealed", "foreign", "exported", "acknowledged", "pending"):
            yield name, getattr(self, name)

    def document(self) -> dict[str, Any]:
        """Return the status for `--json`."""
        return {
            "node_id": self.node_id,
            **self.audit.verdict.document(),
            **{name: asdict(tally) for name, tally in self.rows()},
            "open_chunks": [chunk.document() for chunk in self.open_chunks],
            "bundles": self.bundles,
            "last_export": None if self.last_export is None else asdict(self.last_export),
            "last_receipt": self.last_receipt,
            "receipt_chunks": self.receipt_chunks,
            "outbox_bytes": self.outbox_bytes,
            "exports_bytes": self.exports_bytes,
            "free_bytes": self.free_bytes,
            "warnings": list(self.warnings),
        }


def status_of(node: Node, *, clock: Callable[[], float] = time.time) -> NodeStatus:
    """Determine the status of one node id's outbox and exports.

    Raises:
        StorageError: a folder cannot be read.
    """
    contents = look(node.outbox)
    done = export_index.load(node)
    pending = find_pending(node, done.names, contents, clock())
    acknowledged = load_acknowledged(node)
    hashes = export_index.hashes(node) if acknowledged.chunks else {}
    missing = export_index.word_of_missing(node, done, acknowledged.chunks)
    waiting = set(pending.chunks) | set(pending.quiet_soon)
    surveys = survey_outbox(node, contents)
    tallies = {name: Tally() for name in ("open", "sealed", "foreign", "exported", "acknowledged", "pending")}
    sealed = [name.sealed for name in contents.sealed]
    for kind, names in (
        ("open", [name.open for name in contents.open]),
        ("sealed", sealed),
        ("foreign", contents.foreign),
        ("exported", [name for name in sealed + contents.foreign if name not in waiting]),
        ("pending", sorted(waiting)),
    ):
        for name in names:
            survey = surveys.get(name)
            if survey is None or isinstance(survey, str):  # gone, or unreadable: then the audit says so
                continue
            tallies[kind].count(survey.scan.logged, survey.size)
            if kind == "exported" and hashes.get(name) in acknowledged.chunks:
                tallies["acknowledged"].count(survey.scan.logged, survey.size)
    return NodeStatus(
        node_id=node.id,
        **tallies,
        open_chunks=tuple(OpenChunk(name, holder_of(node.outbox, name.writer)) for name in contents.open),
        bundles=len(done.bundles),
        last_export=done.last,
        last_receipt=acknowledged.last,
        receipt_chunks=len(acknowledged.chunks),
        outbox_bytes=_disk_use(node.outbox),
        exports_bytes=_disk_use(node.exports),
        free_bytes=shutil.disk_usage(node.root).free,
        warnings=(
            *done.warnings,
            *pending.left,
            *pending.leftovers,
            *acknowledged.warnings,
            *missing,
            *_without_lines(node, surveys),
        ),
        left=tuple(pending.left),
        audit=audit_surveyed(node, surveys),
    )


def _without_lines(node: Node, surveys: Mapping[str, Survey | str]) -> list[str]:
    return [
        f"{node.outbox / name} has {survey.size} bytes and no whole line: a power loss may have taken its content"
        for name, survey in surveys.items()
        if not isinstance(survey, str) and survey.size and not survey.scan.events and name.endswith(SEALED_SUFFIX)
    ]


def _disk_use(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if not path.is_symlink() and path.exists():
                total += path.stat().st_size
    return total
