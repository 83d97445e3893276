"""Make, check and compact the hub's stored table; `calyx-telemetry table`."""

from __future__ import annotations

try:
    import click

    from calyx_logging.hub.store import Store, find_hub
    from calyx_logging.query import delta, hub_table
    from calyx_logging.query.duckdb_views import MEMORY
    from calyx_logging.query.in_force import folder_of, parts_of
    from calyx_logging.query.table import refresh
    from calyx_logging.scripts import completing
    from calyx_logging.scripts.cli import count_text, hub_option, json_option, print_json, run, tell, warn_all
    from calyx_logging.scripts.engines import engine_of, engine_options
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py table") from None


@click.command("table", short_help="Make, check and compact the hub's table.")
@click.argument("nodes", nargs=-1, metavar="[NODE]…", shell_complete=completing.node_ids)
@hub_option
@click.option("--check", is_flag=True, help="Read every file of the table, and make those again that are damaged.")
@click.option("--anew", is_flag=True, help="Make every file again.")
@click.option("--compact", is_flag=True, help="One file a node and month, sorted by time: queries are faster.")
@click.option(
    "--publish",
    type=click.Choice(["delta"]),
    help="Make a Delta Lake table of the same files, which imports keep up to date from then on. Needs the extra "
    '"delta".',
)
@click.option("--memory", default=MEMORY, show_default=True, metavar="SIZE", help="What compacting takes at most.")
@engine_options
@json_option
def command(
    nodes: tuple[str, ...],
    root: str | None,
    check: bool,
    anew: bool,
    compact: bool,
    publish: str | None,
    memory: str,
    engine_name: str,
    master: str | None,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Bring the hub's table (Parquet, .table in the store) up to date with the chunks: of each NODE, or of all.

    Import and query do that by themselves; this is for a table that is damaged, lost, or to be compacted. The chunks
    are only read. Exit code 1 when a chunk or a bundle is damaged, and its rows are missing. Needs the extra "query".
    """
    store = Store(find_hub(root))
    node_ids = store.asked_for(nodes)
    engine = engine_of(engine_name, master, jobs)
    done = refresh(store, node_ids, engine, check=check, anew=anew, look=True)
    warn_all(done.warnings)
    compacted = [node_id for node_id in node_ids if compact and hub_table.compact(store, node_id, memory=memory)]
    published = delta.publish(store) if publish or delta.is_published(store) else None
    parts = [part for node_id, some in parts_of(store).items() if node_id in node_ids for part in some]
    files, rows = len(parts), sum(part.rows for part in parts)
    if as_json:
        print_json(
            {
                "folder": folder_of(store),
                "made": done.files,
                "compacted": compacted,
                "delta_version": published,
                "files": files,
                "rows": rows,
                "warnings": done.warnings,
            }
        )
    else:
        tell(f"{folder_of(store)}: {count_text(files, 'file')}, {count_text(rows, 'row')}; {done.files} made now")
        if compact:
            tell(f"{count_text(len(compacted), 'node')} compacted")
        if published is not None:
            tell(f"published as a Delta Lake table, version {published}")
    if done.warnings:
        raise SystemExit(1)


if __name__ == "__main__":
    run(command)
