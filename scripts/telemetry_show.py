"""Show one event completely; `calyx-telemetry show`."""

from __future__ import annotations

try:
    import heapq
    from collections import defaultdict
    from collections.abc import Iterator
    from functools import cache
    from itertools import accumulate
    from pathlib import Path
    from typing import Any

    import click

    from calyx_logging.errors import CalyxError
    from calyx_logging.format.chunk import ChunkName
    from calyx_logging.format.reader import Line, lines_of
    from calyx_logging.query.locations import chunks_at
    from calyx_logging.scripts.cli import json_text, print_json, put, remark, run, tell
    from calyx_logging.scripts.sources import from_option
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py show") from None


_SHORT_ID = 8


@click.command("show")
@click.argument("event_id")
@from_option
@click.option("--before", type=click.IntRange(0), default=0, help="Also so many events before it, of its process.")
@click.option("--after", type=click.IntRange(0), default=0, help="Also so many after it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(event_id: str, place: str, root: str | None, before: int, after: int, as_json: bool) -> None:
    """Print an event whole, and where it is. Exit code 1 when there is none of that id.

    An id is a label that callers may choose: if several events have it, all are printed. The last eight characters or
    more of an id, as `tail` prints them, will do.
    """
    paths = [ref.path for ref in chunks_at(place, root)()]
    found = list(_find(paths, event_id))
    if not found and len(event_id) >= _SHORT_ID:
        found = list(_find(paths, event_id, is_end=True))
    shown = [(line, _around(paths, line, before, after)) for line in found]
    if as_json:
        print_json([_document(line, around) for line, around in shown])
    for line, around in () if as_json else shown:
        tell(f"{line.path}, line {line.number}")
        for other in around:
            put(json_text(other.event, indent=other == line))
        if not around:
            put(json_text(line.event, indent=True))
    if not found:
        remark(f"there is no event {event_id} in {len(paths)} chunks of {place}")
        raise SystemExit(1)


def _find(paths: list[Path], event_id: str, *, is_end: bool = False) -> Iterator[Line]:
    wanted = event_id.encode()
    for path in paths:
        for line in _lines(path):
            if wanted in line.data or b"\\" in line.data:
                its = line.event.get("event_id")
                if its == event_id or (is_end and isinstance(its, str) and its.endswith(event_id)):
                    yield line


def _around(paths: list[Path], line: Line, before: int, after: int) -> list[Line]:
    """The event with those that its process logged before and after it; nothing where none were asked for.

    Lines of one writer keep the order of their `seq`; those of a process's writers are put together by time.
    """
    name = ChunkName.parse(line.path.name)
    if not (before or after) or type(line.event.get("seq")) is not int or name is None:
        return []
    process_of = _processes(paths)
    by_writer: dict[str, list[Line]] = defaultdict(list)
    for path in paths:
        other = ChunkName.parse(path.name)
        if other is not None and process_of[other.writer] == process_of[name.writer]:
            by_writer[other.writer] += [one for one in _lines(path) if type(one.event.get("seq")) is int]
    for lines in by_writer.values():
        lines.sort(key=lambda one: int(one.event["seq"]))
    moments = (
        accumulate(((str(one.event.get("ts_utc")), one) for one in lines), _later) for lines in by_writer.values()
    )
    merged = [one for _, one in heapq.merge(*moments, key=lambda pair: pair[0])]
    place = merged.index(line)
    return merged[max(place - before, 0) : place + after + 1]


def _later(one: tuple[str, Line], other: tuple[str, Line]) -> tuple[str, Line]:
    """The second line, at its own time or that of the one before it in its writer, whichever is later."""
    return max(one[0], other[0]), other[1]


def _processes(paths: list[Path]) -> dict[str, str]:
    """The first writer of each writer's process, as its start line names it; itself where there is none."""
    found: dict[str, str] = {}
    for path in paths:
        name = ChunkName.parse(path.name)
        if name is not None:
            found.setdefault(name.writer, name.writer)
            first = next(_lines(path), None) if name.number == 0 else None
            if first is not None and first.event.get("control") == "start":
                found[name.writer] = str(first.event.get("process"))
    return found


def _lines(path: Path) -> Iterator[Line]:
    try:
        yield from lines_of(path)
    except CalyxError as error:
        if not isinstance(error.__cause__, FileNotFoundError):  # it has just been sealed, or pruned
            _warn_once(str(error))


@cache
def _warn_once(text: str) -> None:
    remark(f"warning: {text}")


def _document(line: Line, around: list[Line]) -> dict[str, Any]:
    return {
        "chunk": line.path,
        "line": line.number,
        "event": line.event,
        "around": [one.event for one in around],
    }


if __name__ == "__main__":
    run(command)
