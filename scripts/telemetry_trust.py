"""Trust or revoke signing keys; `calyx-telemetry trust`."""

from __future__ import annotations

try:
    from pathlib import Path

    import click

    from calyx_logging.bundle.signers import add_line, is_listed, keys_in, read_public_key, signer_line, signers_in
    from calyx_logging.bundle.signing import MANIFEST_NAMESPACE, RECEIPT_NAMESPACE
    from calyx_logging.errors import ConfigError
    from calyx_logging.hub.store import Store, find_hub
    from calyx_logging.node import NODE_ID_RULE, Node, check_node_id, is_node_id
    from calyx_logging.outbox.receipts import hub_signers
    from calyx_logging.scripts import completing
    from calyx_logging.scripts.cli import json_option, named_root, print_json, remark, run, tell
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py trust") from None


@click.command("trust")
@click.argument("name", metavar="NODE_ID", required=False, shell_complete=completing.node_ids)
@click.argument("key", type=click.Path(path_type=Path), metavar="KEY.pub", required=False)
@click.option("--list", "list_them", is_flag=True, help="Only print the keys that are trusted and revoked.")
@click.option("--hub", is_flag=True, help="At a node: NODE_ID is the name of a hub, whose receipts are to count here.")
@click.option("--revoke", is_flag=True, help="At the hub: nothing that this key has signed is taken in any more.")
@named_root(
    "The root of the hub, or with --hub of the node. Default: CALYX_ROOT, else the nearest folder with a node id."
)
@json_option
def command(
    name: str | None, key: Path | None, list_them: bool, hub: bool, revoke: bool, root: str | None, as_json: bool
) -> None:
    """Trust an OpenSSH public key to sign for a node.

    At the hub this adds a line to telemetry/federated/.allowed_signers; from then on nothing of that node is taken in
    unsigned. With --hub, at a node, it adds one to runtime/hub_signers, which `prune` asks.
    """
    if list_them:
        if name is not None or revoke:
            raise click.UsageError("--list takes no key, and lists the revoked ones, too")
        store = None if hub else Store(find_hub(root))
        _list(
            hub_signers(Node.find(root)) if store is None else store.signers,
            None if store is None else store.revoked,
            as_json,
        )
        return
    if name is None or key is None:
        raise click.UsageError("name a node and a key, or say --list")
    if hub and revoke:
        raise click.UsageError("--revoke is for the hub's own list: delete the line in runtime/hub_signers by hand")
    public = read_public_key(key)
    if hub:
        check_hub_name(name)
        path = hub_signers(Node.find(root))
        new = add_line(path, signer_line(name, public, RECEIPT_NAMESPACE))
    else:
        store = _hub(check_node_id(name), root)
        path = store.revoked if revoke else store.signers
        line = str(public) if revoke else signer_line(name, public, MANIFEST_NAMESPACE)
        if not revoke and is_listed(store.revoked, public):
            raise ConfigError("this key is revoked", path=store.revoked, hint="use another key, or delete it there")
        new = add_line(path, line)
    if as_json:
        print_json({"name": name, "key": public.fingerprint, "file": path, "added": new, "revoked": revoke})
        return
    what = "is revoked, for every node" if revoke else f"is trusted for {'hub' if hub else 'node'} {name}"
    tell(f"{public.kind} {public.fingerprint} {what}{'' if new else ' already'}")
    tell(f"  {path}")


def _list(path: Path, revoked_path: Path | None, as_json: bool) -> None:
    """Print who may sign, and which keys are revoked."""
    revoked = [] if revoked_path is None else keys_in(revoked_path)
    signers = list(signers_in(path))
    if as_json:
        keys = [*((one.names, one.key, False) for one in signers), *((None, key, True) for key in revoked)]
        print_json([{"name": name, "key": key.fingerprint, "revoked": gone} for name, key, gone in keys])
        return
    for one in signers:
        tell(f"{one.names}: {one.key.kind} {one.key.fingerprint} {one.key.comment}".rstrip())
    for key in revoked:
        tell(f"revoked: {key.kind} {key.fingerprint} {key.comment}".rstrip())
    if not signers and not revoked:
        tell("no key is trusted here")
    tell(f"  {path}")


def _hub(node_id: str, root: str | None) -> Store:
    """Return the hub's store; refuse a node's root, so that a forgotten option does not make it a hub."""
    store = Store(find_hub(root))
    if not store.folder.is_dir() and (store.root / "runtime" / "node_id.txt").exists():
        hint = "to trust a hub's receipts here say --hub; else name the hub's root"
        raise ConfigError("this is the root of a node, and there is no store in it", path=store.root, hint=hint)
    spellings = store.spellings_of(node_id)
    if spellings and node_id not in spellings:
        raise ConfigError(
            f"node {spellings[0]} is here, and {node_id} is the same in another spelling", path=store.folder
        )
    if store.nodes() and not spellings:
        remark(f"no bundle of node {node_id} is here yet; here are {', '.join(store.nodes()[:10])}")
    return store


def check_hub_name(name: str) -> None:
    """Check that a hub's name follows the rule for node ids."""
    if not is_node_id(name):
        raise ConfigError(f"{name[:80]!r} is no name for a hub", hint=f"a name is {NODE_ID_RULE}")


if __name__ == "__main__":
    run(command)
