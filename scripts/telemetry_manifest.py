"""Make or check the manifest of any folder of chunks; `calyx-telemetry manifest`."""

from __future__ import annotations

try:
    from pathlib import Path

    import click

    from calyx_logging.bundle.folder import write_manifest
    from calyx_logging.node import Node
    from calyx_logging.scripts.cli import json_option, print_json, root_option, run
    from calyx_logging.scripts.telemetry_verify import checked, document, tell_report
except ImportError as error:
    raise SystemExit(
        f"calyx-logging is not installed for this Python ({error}): run  python3 run.py manifest"
    ) from None


@click.command("manifest", short_help="Make or check the manifest of a folder of chunks.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--check", "only_check", is_flag=True, help="Write nothing; compare the folder with its manifest.")
@click.option(
    "--node-id", help="Whose chunks they are. Default: the node id that all their events have, else the root's."
)
@click.option("--force", is_flag=True, help="Replace a manifest that is there.")
@root_option
@json_option
def command(folder: Path, only_check: bool, node_id: str | None, force: bool, root: str | None, as_json: bool) -> None:
    """Make manifest.json and SHA256SUMS for a folder of chunks (*.jsonl), or check it against them."""
    if not only_check:
        write_manifest(folder, node_id=node_id, fallback_id=lambda: Node.find(root).id, force=force)
    [found] = checked(folder)
    if as_json:
        print_json(document(found))
    else:
        tell_report(found)
    if not found.is_good:
        raise SystemExit(1)


if __name__ == "__main__":
    run(command)
