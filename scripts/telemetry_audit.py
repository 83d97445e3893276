"""Check whether everything is at the hub; `calyx-telemetry audit`."""

from __future__ import annotations

try:
    from collections.abc import Iterable
    from dataclasses import asdict
    from functools import partial
    from typing import Any

    import click

    from calyx_logging.format.completeness import NodeAudit, findings, worst
    from calyx_logging.hub.audit import audit_node
    from calyx_logging.hub.rejections import Refusal, refusals
    from calyx_logging.hub.store import Store, find_hub
    from calyx_logging.scripts import completing
    from calyx_logging.scripts.cli import (
        advancing,
        count_text,
        hub_option,
        json_option,
        print_json,
        remark,
        run,
        tell,
    )
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py audit") from None


@click.command("audit", short_help="Say what is missing at the hub, by node and writer.")
@click.argument("node_ids", nargs=-1, metavar="[NODE_ID]...", shell_complete=completing.node_ids)
@hub_option
@click.option("--strict", is_flag=True, help="Exit with 1 also when events were lost, or a writer was killed.")
@click.option("--deep", is_flag=True, help="Read every chunk and compute its hash anew.")
@json_option
def command(node_ids: tuple[str, ...], root: str | None, strict: bool, deep: bool, as_json: bool) -> None:
    """Say of each node and writer in the hub's store whether all of its events are there, and what is missing.

    The audit relies on what each import noted, and reads only chunks whose files have changed since. With --deep it
    reads every chunk, computes its hash anew, and lists event ids that several events share. Exit code 1 when
    something is missing; with --strict also when a writer reported events that it could not keep, or was killed, so
    that its last ones are unknown, or when a bundle was refused and has not been imported since.
    """
    store = Store(find_hub(root))
    audits = []
    for node_id in store.asked_for(node_ids):
        with advancing(f"auditing {node_id}", partial(_size, store, node_id)) as advance:
            audit = audit_node(store, node_id, deep=deep, progress=advance)
        audits.append(audit)
        if not as_json:
            _tell(audit)
    refused = [one for one in refusals(store) if not node_ids or one.node_id in node_ids]
    if as_json:
        print_json([_document(audit, refused) for audit in audits])
    for one in refused:
        (remark if as_json else tell)(_refused_text(one))
    if strict and refused:
        raise SystemExit(1)
    if code := worst(audit.verdict for audit in audits).exit_code(strict=strict):
        raise SystemExit(code)


def _size(store: Store, node_id: str) -> int:
    return sum(path.lstat().st_size for path in store.folder.glob(f"{node_id}/*/*.jsonl"))


def _tell(audit: NodeAudit) -> None:
    about = f"{count_text(audit.bundles, 'bundle')}, {count_text(len(audit.writers), 'writer')}"
    tell(f"{audit.node_id}: {audit.verdict} ({about}, {count_text(audit.events, 'event')})")
    for finding in findings(audit):
        tell(f"  {finding}")


def _refused_text(one: Refusal) -> str:
    whose = "a bundle that names no node" if one.node_id is None else f"a bundle of {one.node_id}"
    why = one.faults[0] if one.faults else "its faults are not known"
    return f"refused, and not imported since: {whose}, from {one.source}, at {one.refused_at}: {why}"


def _document(audit: NodeAudit, refused: Iterable[Refusal]) -> dict[str, Any]:
    known = {name: value for name, value in asdict(audit).items() if name != "goes_on"}  # of a hub, never
    verdict = audit.verdict
    others = [asdict(one) for one in refused if one.node_id == audit.node_id]
    return {"complete": verdict.is_complete, **verdict.document(), **known, "refused": others}


if __name__ == "__main__":
    run(command)
