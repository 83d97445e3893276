"""Print the last events, and follow new ones; `calyx-telemetry tail`."""

from __future__ import annotations

try:
    import sys
    import time
    from functools import lru_cache
    from typing import Any

    import click

    from calyx_logging.format.reader import Filter, Follower, Line, last_events
    from calyx_logging.query.locations import chunks_at
    from calyx_logging.scripts.cli import remark, run, shown
    from calyx_logging.scripts.sources import from_option, level_option
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py tail") from None

_POLL_SECONDS = 0.2
_COLOURS = {"debug": "bright_black", "warning": "yellow", "error": "red", "critical": "bright_red"}
_NO_FIELD = frozenset(
    ["node_id", "ts_utc", "event_id", "source", "seq", "level", "logger", "message", "exception", "degraded"]
)
_MAX_TEXT = 200
"""Maximum number of characters shown of one field; `show` prints all."""


@click.command("tail", short_help="Print the last events, and follow new ones.")
@from_option
@click.option("-n", "--lines", "count", type=click.IntRange(0), default=10, show_default=True, help="Number of events.")
@click.option("-f", "--follow", is_flag=True, help="Keep printing new events, until Ctrl-C.")
@level_option
@click.option("--source", help="Only of this source.")
@click.option("--run", "run_id", metavar="ID", help="Only of the run with this run_id or run_instance_id.")
@click.option("--control", is_flag=True, help="Also control lines: ends and gaps.")
@click.option("--json", "as_json", is_flag=True, help="Print the lines as they stand in the chunks.")
def command(
    place: str,
    root: str | None,
    count: int,
    follow: bool,
    level: str | None,
    source: str | None,
    run_id: str | None,
    control: bool,
    as_json: bool,
) -> None:
    """Print the last events, by their time; with -f also new ones as they arrive.

    Takes no locks and disturbs no harness. New writers, and chunks that are sealed meanwhile, are followed as well.
    """
    if follow and place == "hub":
        raise click.UsageError("-f follows an outbox: nothing is written to a hub's store line by line")
    refs = chunks_at(place, root)
    wanted = Filter(level, source, run_id, control)
    warn_once = lru_cache(lambda text: remark(f"warning: {text}"))  # an unreadable chunk is met again and again
    # first, so that nothing is missed between the two
    follower = Follower(lambda: [ref.path for ref in refs()], warn_once) if follow else None
    seen = set()
    for line in last_events([ref.path for ref in refs()], count, wanted, warn_once):
        _print(line, as_json)
        seen.add(line.data)
    try:
        while follower is not None:
            for line in follower.new():
                if wanted(line.event) and line.data not in seen:
                    _print(line, as_json)
            seen.clear()
            sys.stdout.flush()
            time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        return  # the way to end it


def _print(line: Line, as_json: bool) -> None:
    if as_json:
        click.echo(line.data)
        return
    event = line.event
    level = str(event.get("level", ""))
    when = str(event.get("ts_utc", ""))[:23].replace("T", " ")
    head = f"{when} {level.upper():8} {event.get('node_id', '')} {event.get('logger', '')}: "
    text = f"{head}{_short(event.get('message', ''))}"
    fields = [f"{name}={_short(value)}" for name, value in event.items() if name not in _NO_FIELD]
    if exception := event.get("exception"):
        fields.append(f"exception={_exception(exception)}")
    click.secho(shown("  ".join([text, *fields])), fg=_COLOURS.get(level))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"


def _exception(chain: Any) -> str:
    first = chain[0] if isinstance(chain, list) and chain and isinstance(chain[0], dict) else {}
    return _short(f"{first.get('type')}: {first.get('value')}")


if __name__ == "__main__":
    run(command)
