"""Say whose signatures count; `calyx-telemetry trust`."""

from __future__ import annotations

try:
    from pathlib import Path

    import click

    from calyx_logging.acknowledged import hub_signers
    from calyx_logging.node import Node, check_node_id, find_root
    from calyx_logging.scripts.cli import json_option, print_json, run, tell
    from calyx_logging.signature import (
        MANIFEST_NAMESPACE,
        RECEIPT_NAMESPACE,
        add_line,
        read_public_key,
        signer_line,
    )
    from calyx_logging.store import Store
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py trust") from None


@click.command("trust")
@click.argument("name", metavar="NODE_ID")
@click.argument("key", type=click.Path(path_type=Path), metavar="KEY.pub")
@click.option("--hub", is_flag=True, help="At a node: NODE_ID is the name of a hub, whose receipts are to count here.")
@click.option("--revoke", is_flag=True, help="At the hub: nothing that this key has signed is taken in any more.")
@click.option(
    "--root",
    "--repo-root",
    "root",
    metavar="FOLDER",
    help="The root of the hub, or with --hub of the node. Default: CALYX_ROOT, else the nearest folder with a node id.",
)
@json_option
def command(name: str, key: Path, hub: bool, revoke: bool, root: str | None, as_json: bool) -> None:
    """Trust an OpenSSH public key to sign for a node.

    At the hub this adds a line to telemetry/federated/.allowed_signers; from then on nothing of that node is taken in
    unsigned. With --hub, at a node, it adds one to runtime/hub_signers, which `prune` asks.
    """
    check_node_id(name)
    if hub and revoke:
        raise click.UsageError("--revoke is for the hub's own list: delete the line in runtime/hub_signers by hand")
    public = read_public_key(key)
    if hub:
        path = hub_signers(Node.find(root))
        new = add_line(path, signer_line(name, public, RECEIPT_NAMESPACE), public, name)
    else:
        store = Store(find_root(root))
        path = store.revoked if revoke else store.signers
        line = str(public) if revoke else signer_line(name, public, MANIFEST_NAMESPACE)
        new = add_line(path, line, public, "" if revoke else name)
    if as_json:
        print_json({"name": name, "key": public.fingerprint, "file": path, "added": new, "revoked": revoke})
        return
    what = "is revoked" if revoke else f"is trusted for {'hub' if hub else 'node'} {name}"
    tell(f"{public.kind} {public.fingerprint} {what}{'' if new else ' already'}")
    tell(f"  {path}")


if __name__ == "__main__":
    run(command)
