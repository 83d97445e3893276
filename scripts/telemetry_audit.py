"""Whether everything is at the hub; `calyx-telemetry audit`."""

from __future__ import annotations

try:
    from dataclasses import asdict
    from functools import partial
    from typing import Any

    import click

    from calyx_logging.audit import NodeAudit, WriterAudit, audit_node
    from calyx_logging.scripts.cli import (
        advancing,
        count_text,
        hub_option,
        json_option,
        print_json,
        run,
        tell,
    )
    from calyx_logging.store import Store, find_hub
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py audit") from None


@click.command("audit", short_help="Say what is missing at the hub, by node and writer.")
@click.argument("node_ids", nargs=-1, metavar="[NODE_ID]...")
@hub_option
@click.option("--strict", is_flag=True, help="Exit with 1 also when all that is unknown is the tail of killed writers.")
@json_option
def command(node_ids: tuple[str, ...], root: str | None, strict: bool, as_json: bool) -> None:
    """Say of each node and writer in the hub's store whether all of its events are there, and what is missing.

    Every chunk is read, and its hash computed anew. Exit code 1 when a node is not complete; a writer that was killed,
    and all of whose known events are here, makes it so with --strict only.
    """
    store = Store(find_hub(root))
    audits = []
    for node_id in store.asked_for(node_ids):
        with advancing(f"auditing {node_id}", partial(_size, store, node_id)) as advance:
            audit = audit_node(store, node_id, progress=advance)
        audits.append(audit)
        if not as_json:
            _tell(audit)
    if as_json:
        print_json([_document(audit) for audit in audits])
    if not all(audit.complete or (not strict and audit.verdict != "not complete") for audit in audits):
        raise SystemExit(1)


def _size(store: Store, node_id: str) -> int:
    return sum(path.lstat().st_size for path in store.folder.glob(f"{node_id}/*/*.jsonl"))


def _tell(audit: NodeAudit) -> None:
    about = f"{count_text(audit.bundles, 'bundle')}, {count_text(len(audit.writers), 'writer')}"
    tell(f"{audit.node_id}: {audit.verdict} ({about}, {count_text(audit.events, 'event')})")
    for sha256 in audit.missing_bundles:
        after = audit.followers[sha256]
        tell(f"  a bundle is missing: the one before {after}, whose manifest has sha256 {sha256}")
    if audit.missing_bundles:
        tell("  (if it is lost: carry the receipt to the node, prune with it there, and export --since-receipt)")
    for history in audit.histories:
        tell(f"  two histories under one node id (a cloned machine, or a lost index): {history}")
    for place in audit.quarantined:
        tell(f"  in quarantine (look at it, and delete it when that is settled): {place}")
    for damage in audit.damaged:
        tell(f"  damaged: {damage}")
    if audit.bad_lines:
        tell(f"  lines that are no events, in chunks accepted with them: {audit.bad_lines}")
    for writer in audit.writers:
        for said in _of_writer(writer):
            tell(f"  writer {writer.writer}: {said}")
    if audit.foreign_chunks:
        tell(f"  {count_text(audit.foreign_chunks, 'chunk')} of the first generation: nobody can tell what is missing")
    if audit.same_ids:
        named = ", ".join(repr(one)[:80] for one in audit.same_id[:3])
        ids = count_text(audit.same_ids, "event id")
        tell(f"  {ids} that events of other content share, such as {named}")


def _of_writer(writer: WriterAudit) -> list[str]:
    said = []
    if writer.missing_seqs:
        said.append(f"holes: seq {_runs_text(writer.missing_seqs)} are not here")
    if writer.missing_chunks:
        said.append(f"holes: chunks {_runs_text(writer.missing_chunks)} are not here")
    if writer.repeated:
        said.append(f"{count_text(writer.repeated, 'seq')} more than once")
    if writer.state == "tail unknown":
        lost = f"; not kept: {writer.torn_bytes} torn bytes, {writer.bad_lines} bad lines" if writer.torn_bytes else ""
        said.append(f"tail unknown: it was killed; all up to seq {writer.last_seq} is here{lost}")
    if writer.open_in is not None:
        said.append(f"unfinished: a chunk of it was being written when {writer.open_in} was exported, and is not here")
    elif writer.state == "unfinished":
        said.append(f"unfinished: it has not ended, or more is to come; all up to seq {writer.last_seq} is here")
    said += [f"{count_text(count, 'event')} it could not keep: {cause}" for cause, count in writer.gaps.items()]
    return said


def _runs_text(runs: list[list[int]]) -> str:
    """`3, 5-9`; the first twenty."""
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:20]]
    return ", ".join(texts) + (f" and {len(runs) - 20} more runs" if len(runs) > 20 else "")


def _document(audit: NodeAudit) -> dict[str, Any]:
    return {"complete": audit.complete, "verdict": audit.verdict, **asdict(audit)}


if __name__ == "__main__":
    run(command)
