"""Say what to do about a bundle that was refused: which command, where, and what it needs.

Invariant: for every kind of fault there is a step, and of several faults the one that stands in the way first names it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from calyx_logging.bundle.verification import Fault
from calyx_logging.format.legacy import is_foreign
from calyx_logging.format.manifest import MANIFEST_NAME, Manifest

__all__ = ["next_step"]


def next_step(faults: Collection[Fault], manifest: Manifest | None, *, signed: bool, quarantined: Path | None) -> str:
    """Return the next step for the user, as an instruction.

    Args:
        faults: why the bundle was refused; at least one.
        manifest: the bundle's; None if it cannot be read.
        signed: whether it has a signature.
        quarantined: where it is kept, if it contradicts the store.
    """
    node_id = None if manifest is None else manifest.node_id
    kinds = {fault.kind for fault in faults}
    contradictions = [fault for fault in faults if fault.kind == "contradicts"]
    if any(fault.path == MANIFEST_NAME for fault in contradictions):
        spelled = contradictions[0].expected.removeprefix("node ").partition(",")[0]
        one = f"if it is the same machine, at the node: calyx-telemetry provision {spelled} --force, then export"
        return f"{one}; if it is another, give it an id of its own"
    if contradictions and manifest is not None:
        return _about_contradictions([fault.path for fault in contradictions], manifest, quarantined)
    if signature := next((fault for fault in faults if fault.kind == "signature"), None):
        return _about_signature(node_id or "NODE_ID", signed=signed, is_revoked="revoked" in signature.found)
    if kinds == {"bad line"}:
        return (
            "look at these lines; if they are what the node wrote, take them in as they are: calyx-telemetry import "
            "PATH --accept-bad-lines"
        )
    again = f"copy the bundle from the exports folder of {node_id or 'its node'} again and import the copy"
    lost = "if it is damaged there, too, run calyx-telemetry export --since-receipt at the node, which packs it anew"
    if any(fault.kind == "missing" and fault.path == MANIFEST_NAME for fault in faults):
        return f"name the folder of a whole bundle, with {MANIFEST_NAME} in it; or {again}; {lost}"
    if kinds == {"extra"}:
        return f"move the files that do not belong to the bundle out of its folder; or {again}"
    return f"{again}; {lost}"


def _about_signature(node_id: str, *, signed: bool, is_revoked: bool) -> str:
    if signed and not is_revoked:
        trust = f"calyx-telemetry trust {node_id} KEY.pub and import again"
        return f"find out whose key it is; if it is the node's, {trust}; if not, do not believe the bundle"
    key = "NEW_KEY" if is_revoked else "KEY"
    sign = f"calyx-telemetry provision {node_id} --signing-key {key} and export --since-receipt"
    trust = f"calyx-telemetry trust {node_id} {key}.pub"
    return f"at the node, {sign}, which signs its chunks anew; at the hub, if that key is not trusted yet, {trust}"


def _about_contradictions(chunks: Collection[str], manifest: Manifest, quarantined: Path | None) -> str:
    option = f"--accept-rewritten {manifest.node_id}/{manifest.timestamp}"
    accept = f"calyx-telemetry import {quarantined or 'PATH'} {option}"
    steps = [f"compare its chunks with the store's; if they are what the node wrote: {accept}"]
    if all(map(is_foreign, chunks)):
        steps.append("if not: at the node, move that chunk out of the outbox and run export --since-receipt")
    else:
        steps.append("if two machines have one id, give one of them another: calyx-telemetry provision NEW_ID --force")
    if quarantined is not None:
        steps.append("delete the folder in quarantine when that is settled")
    return "; ".join(steps)
