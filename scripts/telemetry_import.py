"""Put bundles into the hub's store; `calyx-telemetry import`."""

from __future__ import annotations

try:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import Any

    import click

    from calyx_logging.errors import CalyxError
    from calyx_logging.hub import ImportResult, bundles_in, import_bundle
    from calyx_logging.node import find_root
    from calyx_logging.scripts.cli import contents_text, count_text, json_option, print_json, remark, run
    from calyx_logging.store import Store
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py import") from None


@click.command("import")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH…")
@click.option(
    "--root",
    "--repo-root",
    "root",
    metavar="FOLDER",
    help="The hub's root; the store is telemetry/federated below it. Default: CALYX_ROOT, else as for a node.",
)
@click.option("--dry-run", is_flag=True, help="Verify (in staging), and say what would happen; nothing is put in.")
@json_option
def command(paths: tuple[Path, ...], root: str | None, dry_run: bool, as_json: bool) -> None:
    """Verify bundles and put those that are whole into the hub's store, each once.

    PATH is a bundle's folder, or one with bundles in the folders below it. A bundle that was imported before is none of
    the faults. Exit code 1 when one was refused, 4 when the file system said no for one; the others are in.
    """
    store = Store(find_root(root))
    results, code = [], 0
    for result in _import_all(store, paths, dry_run):
        results.append(result)
        code = max(code, {"refused": 1, "failed": 4}.get(result.outcome, 0))
        if not as_json:
            _tell(result)
    if as_json:
        print_json([_document(result) for result in results])
    elif len(results) > 1:
        refused = sum(result.outcome in ("refused", "failed") for result in results)
        click.echo(f"{count_text(len(results), 'bundle')}, {refused} refused")
    if code:
        raise SystemExit(code)


def _import_all(store: Store, paths: Iterable[Path], dry_run: bool) -> Iterator[ImportResult]:
    """What becomes of each; one that the file system will not have stops none of the others."""
    for path in paths:
        try:
            sources = bundles_in(path, store.folder)
        except CalyxError as error:
            yield ImportResult(path, "failed", warnings=[str(error)])
            continue
        for source in sources:
            try:
                yield import_bundle(store, source, dry_run=dry_run)
            except CalyxError as error:
                yield ImportResult(source, "failed", warnings=[str(error)])


def _tell(result: ImportResult) -> None:
    about = "" if result.manifest is None else f" (node {result.manifest.node_id}, {contents_text(result.manifest)})"
    click.echo(f"{result.outcome}: {result.source}{about}")
    if result.folder is not None:
        click.echo(f"  {'kept in quarantine: ' if result.outcome == 'refused' else ''}{result.folder}")
    for fault in result.faults:
        click.echo(f"  {fault}")
    for warning in result.warnings:
        remark(f"{'error' if result.outcome == 'failed' else 'warning'}: {result.source}: {warning}")


def _document(result: ImportResult) -> dict[str, Any]:
    manifest = result.manifest
    return {
        "source": result.source,
        "outcome": result.outcome,
        "folder": result.folder,
        "node_id": None if manifest is None else manifest.node_id,
        "chunks": None if manifest is None else len(manifest.chunks),
        "events": None if manifest is None else manifest.events,
        "bytes": None if manifest is None else manifest.total_bytes,
        "faults": [
            {"kind": fault.kind, "path": fault.path, "expected": fault.expected, "found": fault.found}
            for fault in result.faults
        ],
        "warnings": result.warnings,
    }


if __name__ == "__main__":
    run(command)
