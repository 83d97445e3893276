"""Delete at the node what a hub has acknowledged; `calyx-telemetry prune`."""

from __future__ import annotations

try:
    import sys
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    import click

    from calyx_logging.errors import ConfigError
    from calyx_logging.node import Node
    from calyx_logging.outbox.prune import Plan, carry_out, plan, take_note
    from calyx_logging.outbox.receipts import CarriedReceipt, read_receipt, receipt_in
    from calyx_logging.scripts.cli import (
        count_text,
        json_option,
        print_json,
        remark,
        root_option,
        run,
        size_text,
        tell,
    )
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py prune") from None


_MAX_NAMED = 20


@click.command("prune")
@root_option
@click.option(
    "--receipt",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The hub's receipt for this node, with its signature (FILE.sig) beside it, or the folder, such as a stick, "
    "that it came back in. Nothing is deleted without one.",
)
@click.option("--accept-unsigned", is_flag=True, help="Accept an unsigned receipt as long as no hub's key is trusted.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@json_option
def command(root: str | None, receipt: Path, accept_unsigned: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete the sealed chunks and the bundles whose every chunk a hub has acknowledged.

    Each file's hash is computed anew before it goes. What is not acknowledged, has changed, or is no chunk of ours
    stays.
    """
    here = Node.find(root)
    if receipt.is_dir():
        receipt = receipt_in(receipt, here)
    carried = read_receipt(here, receipt, accept_unsigned=accept_unsigned)
    node = here.with_id(carried.receipt.node_id)
    found = plan(node, carried)
    if receipt.resolve().is_relative_to((node.root / "telemetry").resolve()):
        remark("warning: the receipt is of a hub in this very root; what is deleted is then in its store alone")
    asks = bool(found) and not (dry_run or yes)
    if asks or not as_json:
        _tell(found, carried, remark if as_json else tell)
    if not dry_run:
        take_note(node, carried)
        if asks:
            _ask()
        found = carry_out(node, carried)
    if as_json:
        print_json(_document(node, found, carried, deleted=not dry_run))
    elif dry_run:
        tell("nothing was deleted (--dry-run)")
    else:
        tell(f"deleted {_what(found)}")
    for kept in found.kept:
        remark(f"warning: {kept}")


def _ask() -> None:
    if not sys.stdin.isatty():
        raise ConfigError("there is no terminal to ask at; nothing was deleted", hint="say --yes, or --dry-run")
    try:
        answer = click.confirm("delete?", err=True)
    except click.Abort:  # Ctrl-C, or, where the null device counts as a terminal, no end of input
        raise ConfigError("there was no answer; nothing was deleted", hint="say --yes, or --dry-run") from None
    if not answer:
        remark("nothing was deleted")
        raise SystemExit(1)


def _what(found: Plan) -> str:
    kinds = ((found.chunks, "chunk"), (found.bundles, "bundle"), (found.archives, "archive"))
    parts = [count_text(len(sizes), kind) for sizes, kind in kinds if sizes]
    return f"{', '.join(parts)}, {size_text(found.bytes)}" if parts else "nothing"


def _tell(found: Plan, carried: CarriedReceipt, tell: Callable[[str], None]) -> None:
    receipt = carried.receipt
    signed = f"signed with {carried.signed_by}" if carried.signed_by else "unsigned"
    tell(f"receipt of {receipt.written_at} for node {receipt.node_id}, {signed}")
    tell(f"it acknowledges {count_text(len(receipt.chunks), 'chunk')}; here that is {_what(found)}")
    names = [*found.chunks, *found.bundles, *found.archives]
    for name in names[:_MAX_NAMED]:
        tell(f"  {name}")
    if len(names) > _MAX_NAMED:
        tell(f"  and {len(names) - _MAX_NAMED} more")


def _document(node: Node, found: Plan, carried: CarriedReceipt, *, deleted: bool) -> dict[str, Any]:
    return {
        "root": node.root,
        "node_id": node.id,
        "written_at": carried.receipt.written_at,
        "signed_by": carried.signed_by,
        "deleted": deleted,
        "chunks": sorted(found.chunks),
        "bundles": sorted(found.bundles),
        "archives": sorted(found.archives),
        "bytes": found.bytes,
        "kept": found.kept,
    }


if __name__ == "__main__":
    run(command)
