"""Judge the nodes of an outbox, a hub or a bundle, without reading every line."""

from __future__ import annotations

import os
from pathlib import Path

from calyx_logging.bundle.audit import audit_bundle
from calyx_logging.bundle.folder import check
from calyx_logging.format.completeness import Verdict
from calyx_logging.hub.audit import audit_node
from calyx_logging.hub.store import Store, find_hub
from calyx_logging.node import Node
from calyx_logging.outbox.audit import audit_outbox
from calyx_logging.query.locations import chunks_at

__all__ = ["verdicts_at"]


def verdicts_at(root: str | os.PathLike[str] | None, place: str) -> dict[str, Verdict]:
    """Return the verdict on each node; the arguments are those of `connect`.

    Raises:
        CalyxError: there is no such place, or it cannot be read.
        OSError: a file cannot be read.
    """
    if place == "hub":
        store = Store(find_hub(root))
        return {node_id: audit_node(store, node_id).verdict for node_id in store.asked_for(())}
    if place == "outbox":
        node = Node.find(root)
        return {node_id: audit_outbox(node.with_id(node_id)).verdict for node_id in node.all_ids()}
    folder, report = Path(place), check(Path(place))
    chunks = chunks_at(place, root)()
    node_id = next((ref.node_id for ref in chunks if ref.node_id is not None), folder.parent.name)
    audit = audit_bundle(folder, [ref.path.name for ref in chunks], node_id, report.manifest)
    audit.damaged += map(str, report.faults)
    return {node_id: audit.verdict}
