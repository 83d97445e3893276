"""Show what the outbox holds and what is exported; `calyx-telemetry status`."""

from __future__ import annotations

try:
    import click

    from calyx_logging.format.completeness import findings, worst
    from calyx_logging.node import Node
    from calyx_logging.outbox.status import NodeStatus, status_of
    from calyx_logging.scripts.cli import count_text, json_option, print_json, remark, root_option, run, size_text, tell
    from calyx_logging.scripts.sources import usual_place
    from calyx_logging.scripts.telemetry_audit import command as audit
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py status") from None


@click.command("status")
@root_option
@click.option(
    "--strict",
    is_flag=True,
    help="Exit with 1 also when events were lost, a writer was killed, or something cannot be exported.",
)
@json_option
def command(root: str | None, strict: bool, as_json: bool) -> None:
    """Show whether anything was lost, open and sealed chunks, what is exported and what is pending. Changes nothing.

    Exit code 1 when something that was kept is missing from the outbox. In a hub's folder this is `audit`.
    """
    if usual_place(root) == "hub":
        click.get_current_context().invoke(audit, root=root, strict=strict, as_json=as_json)
        return
    node = Node.find(root)
    statuses = [status_of(node.with_id(node_id)) for node_id in node.all_ids()]
    if as_json:
        print_json({"root": node.root, "nodes": [status.document() for status in statuses]})
    else:
        _show(node, statuses)
    code = worst(status.audit.verdict for status in statuses).exit_code(strict=strict)
    if code or (strict and any(status.left for status in statuses)):
        raise SystemExit(code or 1)


def _show(node: Node, statuses: list[NodeStatus]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True)
    console.print(f"root  {node.root}", markup=False, highlight=False)
    for status in statuses:
        table = Table(box=box.SIMPLE)
        for heading in ("", "chunks", "events", "size"):
            table.add_column(heading, justify="left" if heading == "" else "right")
        for name, tally in status.rows():
            table.add_row(name, str(tally.chunks), str(tally.events), size_text(tally.bytes))
        console.print(f"node {status.node_id}: {status.audit.verdict}", style="bold", markup=False, highlight=False)
        for finding in findings(status.audit) if status.audit.verdict.is_bad else ():
            tell(f"  {finding}")
        console.print(table)
        _tell(status)


def _tell(status: NodeStatus) -> None:
    last = status.last_export
    tell(f"last export  {last.timestamp if last else 'none yet'}  ({count_text(status.bundles, 'bundle')} in all)")
    acknowledged = (
        f"  ({count_text(status.receipt_chunks, 'chunk')} acknowledged in all)" if status.last_receipt else ""
    )
    tell(f"receipt      {status.last_receipt or 'none yet'}{acknowledged}")
    tell(
        f"disk         outbox {size_text(status.outbox_bytes)}, exports {size_text(status.exports_bytes)}, "
        f"free {size_text(status.free_bytes)}"
    )
    for chunk in status.open_chunks:
        tell(f"open         {chunk}")
    for warning in status.warnings:
        remark(f"warning: {warning}")


if __name__ == "__main__":
    run(command)
