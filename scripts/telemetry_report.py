"""Write an HTML page about an outbox, a bundle or the hub; `calyx-telemetry report`."""

from __future__ import annotations

try:
    import re
    from pathlib import Path

    import click

    from calyx_logging.errors import ConfigError
    from calyx_logging.query.executors import Here, Pool
    from calyx_logging.report.collect import MAX_WHOLE, Choice
    from calyx_logging.report.report import MAX_BYTES, MEMORY, make_report, write_report
    from calyx_logging.report.source import Source
    from calyx_logging.scripts import completing
    from calyx_logging.scripts.cli import (
        count_text,
        json_option,
        print_json,
        remark,
        run,
        size_text,
        stepping,
        tell,
        warn_all,
    )
    from calyx_logging.scripts.engines import jobs_option
    from calyx_logging.scripts.sources import from_option
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py report") from None

_OUTPUT = "calyx-report.html"
_UNITS = {"": 1, "kb": 1000, "mb": 1_000_000, "gb": 1_000_000_000}


@click.command("report", short_help="Make an HTML page.")
@from_option
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    default=_OUTPUT,
    show_default=True,
    metavar="FILE",
    help="The page; one that is there is replaced.",
)
@click.option(
    "--run",
    "runs",
    multiple=True,
    metavar="RUN",
    shell_complete=completing.run_ids,
    help="Show this run whole: its run_id or instance. Again for more.",
)
@click.option(
    "--last",
    type=click.IntRange(0, MAX_WHOLE),
    metavar="N",
    help="Show the last N runs whole. Default: as many as fit.",
)
@click.option(
    "--max-size", default=f"{MAX_BYTES // 1_000_000}MB", show_default=True, metavar="SIZE", help="Of the page, at most."
)
@click.option("--memory", default=MEMORY, show_default=True, metavar="SIZE", help="What the database takes at most.")
@click.option("--open", "open_it", is_flag=True, help="Open it in the browser.")
@jobs_option
@json_option
def command(
    place: str,
    root: str | None,
    output: Path,
    runs: tuple[str, ...],
    last: int | None,
    max_size: str,
    memory: str,
    open_it: bool,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Write one HTML page that shows what ran where, what failed and what is missing.

    It holds everything that it shows, fetches nothing, and can be mailed. All runs are in it with their numbers; events
    are those of the last runs (or of those named with --run), the last errors, and the last ones outside of runs. Needs
    the extra "report".
    """
    if runs and last is not None:
        raise ConfigError("either --run or --last", hint="--run names the runs, --last takes the newest")
    choice = Choice(runs) if last is None else Choice(runs, last)
    engine = Here() if jobs == 1 else Pool(jobs)
    source = Source.find(place, root)
    if output.name == "-":
        raise ConfigError("--output - is no file", hint="name one, such as report.html")
    again = [*(word for one in runs for word in ("--run", one)), *([] if last is None else ["--last", str(last)])]
    again += [] if output == Path(_OUTPUT) else ["--output", str(output)]
    with stepping() as step:
        report = make_report(
            source, choice, engine=engine, memory=memory, max_bytes=_bytes(max_size), again=again, step=step
        )
    write_report(report, output)
    warn_all(report.facts.warnings)
    facts = report.facts
    if as_json:
        print_json(
            {
                "path": output.absolute(),
                "bytes": len(report.html),
                "nodes": facts.node_count,
                "events": facts.totals["events"] or 0,
                "runs": facts.answers["runs"].count,
                "runs_shown_whole": len(facts.chosen),
                "excerpts": {one.key: {"events": one.events, "of": one.count} for one in report.packed},
                "warnings": facts.warnings,
            }
        )
    else:
        about = f"{count_text(facts.node_count, 'node')}, {count_text(facts.answers['runs'].count, 'run')}"
        events = count_text(facts.totals["events"] or 0, "event")
        tell(f"{output} ({size_text(len(report.html))}): {about}, {events}")
        *of_runs, errors, outside = report.packed
        whole = f"{sum(one.events for one in of_runs)} events of {count_text(len(of_runs), 'run')}"
        rest = count_text(outside.events, "event")
        tell(f"  in it: {whole}, the last {count_text(errors.events, 'error')}, {rest} outside of runs")
        left = sum(one.count - one.events for one in of_runs)
        if left:
            tell(f"  {left} events of these runs are not in it; the page says how to see them")
    if open_it and click.launch(str(output.absolute())) != 0:
        remark(f"warning: no browser could be started: open {output.absolute()}")


def _bytes(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*([kmg]?b)?", text.strip().lower())
    if found is None:
        raise ConfigError(f"--max-size {text!r} is no size", hint="give a number with a unit, such as 20MB")
    return int(float(found[1]) * _UNITS[found[2] or ""])


if __name__ == "__main__":
    run(command)
