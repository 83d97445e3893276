"""Questions to the events of an outbox, a bundle or the hub; `calyx-telemetry query`."""

from __future__ import annotations

try:
    import csv
    import sys
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    import click

    from calyx_logging import durable
    from calyx_logging.database import MEMORY, Rows, run_sql
    from calyx_logging.errors import StorageError
    from calyx_logging.named import NAMES, run_named
    from calyx_logging.query import connect
    from calyx_logging.scripts.cli import json_option, print_json, remark, run, shown, warn_all
    from calyx_logging.scripts.engines import engine_of, engine_options
    from calyx_logging.scripts.sources import from_option
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py query") from None

_MAX_ROWS = 1000
"""Rows of a table for people."""


@click.command("query", short_help="Ask events in SQL.", epilog=f"Named queries: {', '.join(NAMES)}.")
@click.argument("sql", required=False)
@from_option
@click.option("--named", "name", metavar="NAME", help="A named query, instead of SQL.")
@click.option("--event-id", metavar="ID", help="For --named around: of which event.")
@click.option(
    "--around", "count", default=5, show_default=True, metavar="N", help="So many events before and after it."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--parquet", type=click.Path(path_type=Path), metavar="FILE", help="Write a Parquet file.")
@click.option("--memory", default=MEMORY, show_default=True, metavar="SIZE", help="What the database takes at most.")
@engine_options
@json_option
def command(
    sql: str | None,
    place: str,
    root: str | None,
    name: str | None,
    event_id: str | None,
    count: int,
    as_csv: bool,
    parquet: Path | None,
    memory: str,
    engine_name: str,
    master: str | None,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Ask events in SQL (DuckDB's), over the views events, chunks, bundles, nodes, gaps and lines.

    Columns of events: node_id, ts (UTC), event_id, source, seq, level, logger, message, run_id, run_instance_id, suite,
    stage, case_id, decision_type, score, rest (all other fields, JSON), writer, chunk, line, bundle. An event that is
    there twice counts once. Needs the extra "query".
    """
    if (sql is None) == (name is None):
        example = "SELECT level, count(*) FROM events GROUP BY 1"
        raise click.UsageError(f'say one query, in SQL or with --named; such as "{example}"')
    if as_csv + as_json + (parquet is not None) > 1:
        raise click.UsageError("one of --csv, --json and --parquet")
    if engine_name == "spark" and place != "hub":
        raise click.UsageError("--engine spark is for --from hub")
    engine = engine_of(engine_name, master, jobs)
    warnings: list[str] = []
    backend = connect(root, place, engine=engine, memory=memory, warn=warnings.append)
    warn_all(warnings)
    rows = run_sql(backend, sql) if sql is not None else run_named(backend, name or "", event_id=event_id, count=count)
    if parquet is not None:
        _write(rows, parquet)
    elif as_json:
        print_json(rows.to_pylist())
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(rows.schema.names)
        writer.writerows([_text(value) for value in row] for row in _rows(rows))
    else:
        _draw(rows)


def _rows(batches: Rows) -> Iterator[list[Any]]:
    for batch in batches:
        for row in batch.to_pylist():
            yield list(row.values())


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.isoformat(" ") if hasattr(value, "isoformat") else str(value)


def _draw(batches: Rows) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for column in batches.schema:
        is_number = str(column.type).startswith(("int", "uint", "double", "float", "decimal"))
        table.add_column(shown(column.name), justify="right" if is_number else "left", overflow="fold")
    count = 0
    for row in _rows(batches):
        count += 1
        if count <= _MAX_ROWS:
            table.add_row(*(shown(_text(value)).replace("[", "\\[") for value in row))
    Console(soft_wrap=not sys.stdout.isatty(), highlight=False).print(table)
    if count > _MAX_ROWS:
        remark(f"{count - _MAX_ROWS} more rows: say --csv, --json, or LIMIT in the query")


def _write(batches: Rows, path: Path) -> None:
    import pyarrow.parquet

    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with pyarrow.parquet.ParquetWriter(temporary, batches.schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch)
        durable.rename_over(temporary, path)
    except OSError as error:
        durable.remove(temporary)
        raise StorageError.of(error, "write the Parquet file", path, "name a file in a folder that is there") from error


if __name__ == "__main__":
    run(command)
