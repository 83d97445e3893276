"""Print the last events, and follow new ones; `calyx-telemetry tail`."""

from __future__ import annotations

try:
    import re
    import sys
    import time
    from datetime import UTC, datetime, tzinfo
    from functools import lru_cache
    from typing import Any

    import click

    from calyx_logging.core.times import moment_text, parse_utc, utc_text
    from calyx_logging.errors import ConfigError
    from calyx_logging.format.reader import Filter, Follower, Line, last_events
    from calyx_logging.query.locations import chunks_at
    from calyx_logging.scripts import completing
    from calyx_logging.scripts.cli import remark, run, shown
    from calyx_logging.scripts.sources import from_option, level_option
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py tail") from None

_POLL_SECONDS = 0.2
_COLOURS = {"debug": "bright_black", "warning": "yellow", "error": "red", "critical": "bright_red"}
_NO_FIELD = frozenset(
    ["node_id", "ts_utc", "event_id", "source", "seq", "level", "logger", "message", "exception", "degraded"]
)
_SHORT_ID = 8
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MAX_TEXT = 200
"""Maximum number of characters shown of one field; `show` prints all."""


@click.command("tail", short_help="Print the last events, and follow new ones.")
@from_option
@click.option("-n", "--lines", "count", type=click.IntRange(0), help="Number of events. Default: 10; with --since all.")
@click.option("-f", "--follow", is_flag=True, help="Keep printing new events, until Ctrl-C.")
@level_option
@click.option("--source", help="Only of this source.")
@click.option(
    "--run",
    "run_id",
    metavar="ID",
    shell_complete=completing.run_ids,
    help="Only of the run with this run_id or run_instance_id.",
)
@click.option("--case", "case_id", metavar="ID", help="Only of the case with this case_id.")
@click.option("--logger", metavar="NAME", help="Only of this logger and those below it.")
@click.option("--node", "node_id", metavar="ID", shell_complete=completing.node_ids, help="Only of this node.")
@click.option("--since", metavar="TIME", help="Only from then on: 10m, 2h, 3d, or a time such as 2026-03-01T12:00.")
@click.option("--grep", metavar="REGEX", help="Only events in which a field matches.")
@click.option("--utc", is_flag=True, help="Print times in UTC. Default: local time.")
@click.option("--control", is_flag=True, help="Also control lines: ends and gaps.")
@click.option("--json", "as_json", is_flag=True, help="Print the lines as they stand in the chunks.")
def command(
    place: str,
    root: str | None,
    count: int | None,
    follow: bool,
    level: str | None,
    source: str | None,
    run_id: str | None,
    case_id: str | None,
    logger: str | None,
    node_id: str | None,
    since: str | None,
    grep: str | None,
    utc: bool,
    control: bool,
    as_json: bool,
) -> None:
    """Print the last events, by their time; with -f also new ones as they arrive.

    Each line has the time with its zone, the end of the event's id, which `show` takes, level, node, logger, message
    and fields.

    Takes no locks and disturbs no harness. New writers, and chunks that are sealed meanwhile, are followed as well.
    """
    if follow and place == "hub":
        raise click.UsageError("-f follows an outbox: nothing is written to a hub's store line by line")
    refs = chunks_at(place, root)
    begin = None if since is None else _since(since)
    pattern = None if grep is None else _pattern(grep)
    wanted = Filter(level, source, run_id, control, logger, case_id, node_id, begin, pattern)
    count = count if count is not None else sys.maxsize if since is not None else 10
    zone = UTC if utc else None
    warn_once = lru_cache(lambda text: remark(f"warning: {text}"))  # an unreadable chunk is met again and again
    # first, so that nothing is missed between the two
    follower = Follower(lambda: [ref.path for ref in refs()], warn_once) if follow else None
    seen = set()
    for line in last_events([ref.path for ref in refs()], count, wanted, warn_once):
        _print(line, as_json, zone)
        seen.add(line.data)
    try:
        while follower is not None:
            for line in follower.new():
                if wanted(line.event) and line.data not in seen:
                    _print(line, as_json, zone)
            seen.clear()
            sys.stdout.flush()
            time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        return  # the way to end it


def _since(text: str) -> str:
    """Return a time, or that long ago, as a UTC text."""
    if found := re.fullmatch(r"(\d{1,6})([smhd])", text):
        return utc_text(time.time() - int(found[1]) * _UNITS[found[2]])
    try:
        return moment_text(datetime.fromisoformat(text))  # without a zone it is local
    except (ValueError, OverflowError):
        hint = "give 10m, 2h or 3d, or a time such as 2026-03-01T12:00"
        raise ConfigError(f"--since {text!r} is no time", hint=hint) from None


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ConfigError(f"--grep {text!r} is no regular expression: {error}") from None


def _when(text: object, zone: tzinfo | None) -> str:
    """Return a time in a zone (None: here), with its offset."""
    moment = parse_utc(str(text))
    if moment is None:
        return str(text)[:40]
    try:
        return moment.astimezone(zone).isoformat(" ", "milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError):
        return str(text)[:40]


def _print(line: Line, as_json: bool, zone: tzinfo | None) -> None:
    if as_json:
        click.echo(line.data)
        return
    event = line.event
    level = str(event.get("level", ""))
    when, short_id = _when(event.get("ts_utc", ""), zone), str(event.get("event_id", ""))[-_SHORT_ID:]
    head = f"{when} {short_id} {level.upper():8} {event.get('node_id', '')} {event.get('logger', '')}: "
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
