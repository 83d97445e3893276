"""Give a root its node id and outbox; `calyx-telemetry provision`."""

from __future__ import annotations

try:
    from pathlib import Path

    import click

    from calyx_logging.bundle.signing import check_key, name_key
    from calyx_logging.core import files
    from calyx_logging.errors import StorageError
    from calyx_logging.node import NODE_ID_RULE, Provisioned, provision
    from calyx_logging.scripts.cli import json_option, print_json, remark, run
except ImportError as error:
    raise SystemExit(
        f"calyx-logging is not installed for this Python ({error}): run  python3 run.py provision"
    ) from None

DEFAULT_RECEIPT = Path("docs", "NODE_PROVISIONING_RECEIPT.md")


@click.command("provision", help=f"Give this machine its node id, once.\n\nNODE_ID: {NODE_ID_RULE}.")
@click.argument("node_id")
@click.option(
    "--root", "--repo-root", "root", metavar="FOLDER", default=".", help="The root to provision. Default: this folder."
)
@click.option("--force", is_flag=True, help="Replace another node id.")
@click.option(
    "--adopt",
    is_flag=True,
    help="Take over a root with this id that a machine had which this one replaces.",
)
@click.option("--no-gitignore", is_flag=True, help="Leave .gitignore alone, where the root is in a git repository.")
@click.option(
    "--receipt",
    is_flag=False,
    flag_value="",
    metavar="[PATH]",
    help=f"Also write a provisioning receipt in Markdown. Default path: {DEFAULT_RECEIPT.as_posix()} in the root.",
)
@click.option(
    "--signing-key",
    metavar="KEY",
    help="Also sign every export from now on with this OpenSSH key (or the .pub of one that ssh-agent has).",
)
@json_option
def command(
    node_id: str,
    root: str,
    force: bool,
    adopt: bool,
    no_gitignore: bool,
    receipt: str | None,
    signing_key: str | None,
    as_json: bool,
) -> None:
    if signing_key is not None:
        check_key(signing_key)
    done = provision(root, node_id, force=force, adopt=adopt, gitignore=not no_gitignore)
    node = done.node
    made = [str(path) for path in done.made]
    if signing_key is not None:
        made.append(str(name_key(node.root, signing_key)))
    if receipt is not None:
        path = _write_receipt(done, node.root / (receipt or DEFAULT_RECEIPT))
        made.append(str(path))
    if as_json:
        print_json({"node_id": node.id, "root": node.root, "made": made, "replaced": done.replaced})
        return
    if done.replaced:
        click.echo(f"node {node.id} replaces {done.replaced}; the old outbox stays and is still exported")
    elif done.made:
        click.echo(f"node {node.id} is provisioned")
    elif made:
        click.echo(f"node {node.id} was provisioned before")
    else:
        click.echo(f"node {node.id} was provisioned before; nothing to do")
    for name in made:
        click.echo(f"  wrote {name}")
    remark(f'next: calyx-telemetry smoke-test --root "{node.root}"')


def _write_receipt(done: Provisioned, path: Path) -> Path:
    try:
        files.make_dirs(path.parent)
        files.replace_file(path, receipt_text(done).encode())
    except OSError as error:
        raise StorageError.of(error, "write the receipt", path, "name another path after --receipt") from error
    return path


def receipt_text(done: Provisioned) -> str:
    """Return the provisioning receipt in Markdown."""
    node = done.node
    made = "\n".join(f"- `{path}`" for path in done.made) or "- none: the node was provisioned before"
    replaced = f"It replaces `{done.replaced}`, whose outbox stays and is still exported.\n\n" if done.replaced else ""
    return f"""# Node provisioning receipt

Node id: `{node.id}`

Root: `{node.root}`

{replaced}## Files made

{made}

## Where telemetry goes

- outbox: `{node.outbox}`
- exports: `{node.exports}`

## Commands

Export after a session:

    calyx-telemetry export --root "{node.root}"

Smoke test:

    calyx-telemetry smoke-test --root "{node.root}"

Nothing else that existed was moved, renamed, changed or deleted.
"""


if __name__ == "__main__":
    run(command)
