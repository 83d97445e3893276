"""Write what the hub acknowledges of each node; `calyx-telemetry receipt`."""

from __future__ import annotations

try:
    from collections.abc import Iterable, Iterator

    import click

    from calyx_logging.bundle.signing import name_key, named_key
    from calyx_logging.hub.receipts import Written, write_receipt
    from calyx_logging.hub.store import Store, find_hub
    from calyx_logging.scripts import completing
    from calyx_logging.scripts.cli import (
        count_text,
        hub_option,
        json_option,
        print_json,
        remark,
        run,
        sign_options,
        tell,
    )
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py receipt") from None


@click.command("receipt", short_help="Write receipts for what the hub acknowledges.")
@click.argument("node_ids", nargs=-1, metavar="[NODE_ID]...", shell_complete=completing.node_ids)
@hub_option
@sign_options
@click.option("--signing-key", metavar="KEY", help="Sign every receipt of this hub from now on with this OpenSSH key.")
@json_option
def command(
    node_ids: tuple[str, ...],
    root: str | None,
    sign: str | None,
    no_sign: bool,
    signing_key: str | None,
    as_json: bool,
) -> None:
    """Write the receipts of these nodes, or of all, to telemetry/federated/.receipts; import does so by itself.

    Here every chunk's hash is computed anew; by import only that of chunks whose files have changed since they came.
    Carried back to its node, with the signature beside it, a receipt says what that node may delete (prune).
    """
    store = Store(find_hub(root))
    if signing_key is not None:
        name_key(store.root, signing_key)
    asked = [] if signing_key is not None and not store.nodes() else store.asked_for(node_ids)
    key = None if no_sign else sign or named_key(store.root)
    written = list(write_receipts(store, asked, key, anew=True))
    if as_json:
        print_json([document(one) for one in written])
        return
    for one in written:
        tell(receipt_text(one))


def write_receipts(store: Store, node_ids: Iterable[str], key: str | None, *, anew: bool) -> Iterator[Written]:
    """Write a receipt for each node; print warnings on standard error."""
    for node_id in node_ids:
        written = write_receipt(store, node_id, key=key, anew=anew)
        for warning in written.warnings:
            remark(f"warning: {warning}")
        yield written


def receipt_text(written: Written) -> str:
    """Describe a receipt in one line."""
    chunks = count_text(len(written.receipt.chunks), "chunk")
    return f"{written.path}: {chunks} acknowledged, {'signed' if written.signed else 'unsigned'}"


def document(written: Written) -> dict[str, object]:
    """Return a receipt for `--json`."""
    return {
        "node_id": written.receipt.node_id,
        "receipt": written.path,
        "written_at": written.receipt.written_at,
        "chunks": len(written.receipt.chunks),
        "signed": written.signed,
        "warnings": written.warnings,
    }


if __name__ == "__main__":
    run(command)
