"""Query the events of an outbox, a bundle or the hub; `calyx-telemetry query`."""

from __future__ import annotations

try:
    import csv
    import os
    import secrets
    import shutil
    import sys
    from contextlib import suppress
    from datetime import date, datetime, time
    from itertools import islice
    from pathlib import Path
    from typing import Any

    import click

    from calyx_logging.core import files
    from calyx_logging.errors import ConfigError, EventError, StorageError
    from calyx_logging.query import connect
    from calyx_logging.query.duckdb_views import MEMORY
    from calyx_logging.query.named import NAMES, run_named
    from calyx_logging.query.sql import Rows, run_sql
    from calyx_logging.query.verdicts import verdicts_at
    from calyx_logging.scripts import completing
    from calyx_logging.scripts.cli import (
        count_text,
        json_option,
        machine_stream,
        print_json,
        remark,
        run,
        shown,
        tell,
        warn_all,
    )
    from calyx_logging.scripts.engines import engine_of, engine_options
    from calyx_logging.scripts.sources import from_option
    from calyx_logging.scripts.sql_shell import converse
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py query") from None

_MAX_ROWS = 1000
"""Maximum number of rows of a table for people."""

_NUMBERS = ("int", "uint", "double", "float", "decimal")


@click.command("query", short_help="Query events in SQL.", epilog=f"Named queries: {', '.join(NAMES)}.")
@click.argument("sql", required=False)
@from_option
@click.option(
    "--named", "name", metavar="NAME", shell_complete=completing.query_names, help="A named query, instead of SQL."
)
@click.option("--event-id", metavar="ID", help="For --named around: id of the event.")
@click.option(
    "--around",
    "count",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    metavar="N",
    help="Number of events before and after it.",
)
@click.option(
    "--run",
    "runs",
    multiple=True,
    metavar="RUN",
    shell_complete=completing.run_ids,
    help="For --named compare: a run_id or instance; the first is the base.",
)
@click.option("--case", "case_id", metavar="ID", help="For --named case: id of the case.")
@click.option("--shell", is_flag=True, help="A prompt for SQL, with history and completion.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--parquet", type=click.Path(path_type=Path), metavar="FILE", help="Write a Parquet file.")
@click.option("--memory", default=MEMORY, show_default=True, metavar="SIZE", help="Memory limit of the database.")
@engine_options
@json_option
def command(
    sql: str | None,
    place: str,
    root: str | None,
    name: str | None,
    event_id: str | None,
    count: int,
    runs: tuple[str, ...],
    case_id: str | None,
    shell: bool,
    as_csv: bool,
    parquet: Path | None,
    memory: str,
    engine_name: str,
    master: str | None,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Query events in SQL (DuckDB's), over the views events, runs, cases, suites, models, leaderboard, changes, nodes,
    chunks, bundles, gaps, processes, recoveries, files and lines. Without a query it is read from standard input.

    Columns of events: node_id, ts (UTC), event_id, source, seq, level, logger, message, run_id, run_instance_id, suite,
    stage, case_id, decision_type, model, outcome, passed, score (a number), score_text, duration_s, exit_status,
    cases_expected, exception_type, rest (all fields without a column of their own, JSON: rest.prompt), writer, chunk,
    line, bundle. An event that is there twice counts once. Needs the extra "query".
    """
    if sql == "-" or (sql is None and name is None and not shell and not _is_terminal(sys.stdin)):
        sql = _from_input()
    if (sql is not None) + (name is not None) + shell != 1:
        example = "SELECT level, count(*) FROM events GROUP BY 1"
        raise click.UsageError(f'give one query: as SQL (such as "{example}"), with --named, or in the --shell')
    if as_csv + as_json + (parquet is not None) > 1 or (shell and (as_csv or as_json or parquet)):
        raise click.UsageError("--csv, --json, --parquet and --shell exclude each other")
    if engine_name == "spark" and (place != "hub" or shell):
        raise click.UsageError("--engine spark is for --from hub, and not for the shell")
    engine = engine_of(engine_name, master, jobs)
    warnings: list[str] = []
    backend = connect(root, place, engine=engine, memory=memory, warn=warnings.append, closed=True, plain=True)
    warn_all(warnings)
    verdicts = verdicts_at(root, place) if name == "nodes" else {}
    if shell:
        converse(backend, lambda one: _draw(run_sql(backend, one)))
        return
    if sql is not None:
        rows = run_sql(backend, _as_unicode(sql))
    else:
        rows = run_named(
            backend, name or "", event_id=event_id, count=count, runs=runs, case_id=case_id, verdicts=verdicts
        )
    if name == "around" and not rows.any():
        raise EventError(f"there is no event {event_id!r}", hint="name one that is there, as tail or query shows it")
    if parquet is not None:
        remark(f"{parquet}: {count_text(_write(rows, parquet), 'row')}")
    else:
        _print(rows, as_json=as_json, as_csv=as_csv)
    for node_id, verdict in verdicts.items():
        if verdict.is_bad:
            remark(f"{node_id}: {verdict}")


def _is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()


def _from_input() -> str | None:
    """Read SQL from standard input; None if there is none."""
    return (sys.stdin.read().strip() or None) if sys.stdin is not None else None


def _print(rows: Rows, *, as_json: bool, as_csv: bool) -> None:
    if as_json:
        print_json(rows.to_pylist())
    elif as_csv:
        safe = shown if _is_terminal(sys.stdout) else str
        with machine_stream() as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(map(safe, rows.schema.names))
            writer.writerows([safe(_text(value)) for value in row] for row in rows.values())
    else:
        _draw(rows)


def _as_unicode(sql: str) -> str:
    """Return SQL as it was typed, where the locale's encoding cannot say it."""
    try:
        return os.fsencode(sql).decode("utf-8")
    except UnicodeError:
        return sql.encode("utf-8", "replace").decode()


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat(" ")
    return value.isoformat() if isinstance(value, (date, time)) else str(value)


def _brief(value: Any) -> str:
    """Return a value for people: the last digits of a sum are noise."""
    return f"{value:.10g}" if isinstance(value, float) else _text(value)


def _draw(batches: Rows) -> None:
    """Draw a table, or one value per line if it is wider than the terminal; a pipe is as wide as COLUMNS says."""
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = [shown(name) for name in batches.schema.names]
    found = batches.values()
    rows = [[shown(_brief(value)) for value in row] for row in islice(found, _MAX_ROWS)]
    more = sum(1 for _ in found)
    widths = [max(map(cell_len, column)) for column in zip(names, *rows, strict=True)]
    width = sum(widths) + 3 * len(widths) + 1
    has_limit = _is_terminal(sys.stdout) or "COLUMNS" in os.environ
    room = shutil.get_terminal_size().columns if has_limit else width
    if width > room:
        label = max(map(len, names))
        for number, row in enumerate(rows, 1):
            tell(f"-- {number} --")
            for name, value in zip(names, row, strict=True):
                tell(f"{name:<{label}}  {value}")
    else:
        table = Table(box=box.SIMPLE)
        for name, field in zip(names, batches.schema, strict=True):
            right = str(field.type).startswith(_NUMBERS)
            table.add_column(Text(name), justify="right" if right else "left", no_wrap=True)
        for row in rows:
            table.add_row(*map(Text, row))  # which is no markup
        Console(width=width, highlight=False).print(table)
    if more:
        remark(f"{more} more rows: say --csv, --json, or LIMIT in the query")


def _write(batches: Rows, path: Path) -> int:
    """Write the rows to a temporary file, renamed when complete; return how many there are."""
    import pyarrow.parquet

    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ConfigError("is not a regular file, and would be replaced", path=path, hint="name a new file")
    temporary, count = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp"), 0
    try:
        with pyarrow.parquet.ParquetWriter(temporary, batches.schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch)
                count += batch.num_rows
        files.rename_over(temporary, path)
    except pyarrow.ArrowNotImplementedError as error:
        raise ConfigError(f"a value has no type in Parquet: {error}", hint="cast it to VARCHAR in the query") from None
    except OSError as error:
        raise StorageError.of(error, "write the Parquet file", path, "name a file in a folder that is there") from error
    finally:
        with suppress(OSError):
            files.remove(temporary)
    return count


if __name__ == "__main__":
    run(command)
