"""Read the original lines of a report's events: of chosen runs, the last errors, the last ones outside of runs.

Lines are read from their chunks, so that what is shown is what was written. Invariant: however many there are, and
however large, what is taken is bounded, and what is left out is counted.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calyx_logging.core import json_bytes
from calyx_logging.errors import CalyxError
from calyx_logging.events.event import decode
from calyx_logging.format.chunk import open_chunk
from calyx_logging.format.line_check import numbered_lines
from calyx_logging.format.reader import ChunkRef
from calyx_logging.query.result_views import ERRORS, RUN
from calyx_logging.query.rows import column_text
from calyx_logging.report.runs import MAX_EVENTS, can_be_asked, of_some_runs, rows_of, run_key

__all__ = [
    "NOT_READ",
    "Excerpt",
    "Packed",
    "Paths",
    "document_of",
    "events_of",
    "excerpts_of",
    "newest_of",
    "pack",
    "packed_text",
    "paths_of",
    "shortened",
]

MAX_OF_RUNS = 200_000
"""Maximum number of events of all runs together."""

MAX_OUTSIDE = 1000
MAX_LINE = 32_000
"""Maximum length of an event in characters; in longer ones the long values are cut."""

_MAX_VALUE = 2_000
_MAX_NESTED = 24_000
"""Maximum length of a value with its texts shortened, in characters of JSON."""

_ALIKE = 3
"""Maximum number of events taken for one id."""

NOT_READ = b'{"message":"(its line cannot be read any more)"}'
"""Placeholder for an event whose chunk has gone since."""

_ORDER = ("ts", "writer", "seq", "chunk", "line")

Paths = Mapping[tuple[str | None, str], Path]
"""Chunks by node and name when sealed; the node is None where it is not known."""


@dataclass
class Excerpt:
    """Events of one kind, in order.

    Attributes:
        key: of the run; `errors`, or `outside`.
        places: chunk and line of each event.
        count: how many there are in all.
        lines: their text, UTF-8; empty before it is read.
        cut: bytes of the lines that were cut, by their number.
        gap: before which of them some are left out.
        keeps_last: whether the last stay, instead of the first, where there is no room for all.
    """

    key: str
    places: list[tuple[str | None, str, int]] = field(default_factory=list)
    count: int = 0
    lines: list[bytes] = field(default_factory=list)
    cut: dict[int, int] = field(default_factory=dict)
    gap: int | None = None
    keeps_last: bool = False


@dataclass(frozen=True)
class Packed:
    """An excerpt as stored in the page (gzip, base64), and how many of its events had room."""

    key: str
    data: str
    events: int
    count: int


def excerpts_of(backend: Any, paths: Paths, chosen: list[dict[str, Any]], also: Iterable[str] = ()) -> list[Excerpt]:
    """Select the events of the chosen runs, one excerpt each, then the last `errors`, then the last `outside` of runs.

    Of a run with more than `MAX_EVENTS`, the first and the last of them.

    Args:
        backend: of `query.connect`.
        paths: of the chunks of the same place.
        chosen: rows of the named query `runs`.
        also: ids of errors that are wanted, however long ago they were.

    Raises:
        ConfigError: the engine refuses.
    """
    found = _of_runs(backend, backend.table("events"), chosen)
    found += [_newest_of(backend, key, also) for key in ("errors", "outside")]
    _read(found, paths)
    return found


def newest_of(backend: Any, paths: Paths, key: str, also: Iterable[str] = ()) -> Excerpt:
    """Select and read the last `errors`, or the last events `outside` of runs, as `excerpts_of` does."""
    found = _newest_of(backend, key, also)
    _read([found], paths)
    return found


def events_of(
    backend: Any,
    paths: Paths,
    chosen: list[dict[str, Any]],
    *,
    case_id: str | None = None,
    first: int | None = None,
    event_id: str | None = None,
) -> list[Excerpt]:
    """Select and read the events of runs, one excerpt each, in the order of the runs.

    Args:
        backend: of `query.connect`.
        paths: of the chunks of the same place.
        chosen: the runs, rows of the named query `runs`.
        case_id: only those of this case; it is ignored if it cannot be put into a query.
        first: the number of the first event, from 0, if a run has more than `MAX_EVENTS`; None for its first and last.
        event_id: only those with this id; likewise.

    Raises:
        ConfigError: the engine refuses.
    """
    events = backend.table("events")
    if case_id is not None and can_be_asked(case_id):
        events = events.filter(events.case_id == case_id)
    if event_id is not None and can_be_asked(event_id):
        events = events.filter(events.event_id == event_id)
    found = _of_runs(backend, events, chosen, first)
    _read(found, paths)
    return found


def paths_of(chunks: Iterable[ChunkRef]) -> Paths:
    """Return where the chunks are."""
    return {(ref.node_id, _sealed(column_text(ref.path.name))): ref.path for ref in chunks}


def _backward() -> list[Any]:
    import ibis

    return [ibis.desc(name, nulls_first=True) for name in _ORDER]


def _of_runs(backend: Any, events: Any, chosen: list[dict[str, Any]], first: int | None = None) -> list[Excerpt]:
    import ibis

    found = {run_key(row): Excerpt(run_key(row)) for row in chosen}
    if not chosen:
        return []
    of_runs = events.filter(of_some_runs(events, chosen))
    by_run = {"group_by": [of_runs[name] for name in RUN]}
    most = _most_of_one([row["events"] for row in chosen])
    ranked = of_runs.mutate(
        rank=ibis.row_number().over(**by_run, order_by=list(_ORDER)),
        in_all=of_runs.chunk.count().over(**by_run),
    )
    is_wanted = (ranked.rank < most // 2) | (ranked.rank >= ranked.in_all - (most - most // 2))
    if first is not None:
        is_wanted = (ranked.rank >= first) & (ranked.rank < first + most)
    wanted = ranked.filter(is_wanted)
    for row in rows_of(backend, wanted.order_by(list(_ORDER)).select(*RUN, *_ORDER, "in_all")):
        if (excerpt := found.get(run_key(row))) is not None:
            excerpt.places.append((row["node_id"], row["chunk"], row["line"]))
            excerpt.count = row["in_all"]
            excerpt.gap = most // 2 if excerpt.count > most and first is None else None
    return list(found.values())


def _most_of_one(events: list[int]) -> int:
    """Return the maximum number of events of one run that keeps all runs together within `MAX_OF_RUNS`."""
    least, most = 1, MAX_EVENTS
    while least < most:
        middle = (least + most + 1) // 2
        if sum(min(count, middle) for count in events) <= MAX_OF_RUNS:
            least = middle
        else:
            most = middle - 1
    return least


def _newest_of(backend: Any, key: str, also: Iterable[str]) -> Excerpt:
    events, excerpt = backend.table("events"), Excerpt(key, keeps_last=True)
    if key == "outside":
        return _newest(backend, events.filter(events.run_id.isnull()), excerpt, MAX_OUTSIDE)
    ids = [one for one in also if can_be_asked(one)]
    return _newest(backend, events.filter(events.level.isin(ERRORS)), excerpt, MAX_EVENTS, ids)


def _newest(backend: Any, events: Any, excerpt: Excerpt, limit: int, also: Sequence[str] = ()) -> Excerpt:
    """Select the last `limit` of some events, and a few for each of some ids."""
    import ibis

    excerpt.count = rows_of(backend, events.aggregate(n=events.count()))[0]["n"]
    nth = ibis.row_number().over(group_by=events.event_id, order_by=_backward())
    ranked = events.mutate(rank=ibis.row_number().over(order_by=_backward()), **({"nth": nth} if also else {}))
    is_wanted = ranked.rank < limit
    if also:
        is_wanted |= ranked.event_id.isin(also) & (ranked.nth < _ALIKE)
    wanted = ranked.filter(is_wanted).order_by(list(_ORDER))
    for row in rows_of(backend, wanted.select("node_id", "chunk", "line")):
        excerpt.places.append((row["node_id"], row["chunk"], row["line"]))
    return excerpt


def _read(excerpts: Iterable[Excerpt], paths: Paths) -> None:
    """Read the lines of the excerpts, each chunk once."""
    wanted: dict[tuple[str | None, str], dict[int, list[tuple[Excerpt, int]]]] = defaultdict(dict)
    for excerpt in excerpts:
        excerpt.lines = [NOT_READ] * len(excerpt.places)
        for number, (node_id, chunk, line) in enumerate(excerpt.places):
            wanted[node_id, _sealed(chunk)].setdefault(line, []).append((excerpt, number))
    for (node_id, chunk), lines in wanted.items():
        path = paths.get((node_id, chunk)) or paths.get((None, chunk))
        for line, data in () if path is None else _lines_at(path, lines):
            text, is_cut = shortened(data)
            for excerpt, number in lines[line]:
                excerpt.lines[number] = text.encode("utf-8", "replace")
                if is_cut:
                    excerpt.cut[number] = len(data)


def _sealed(name: str) -> str:
    return name.removesuffix(".open")


def _lines_at(path: Path, numbers: Mapping[int, Any]) -> Iterator[tuple[int, bytes]]:
    """Yield some lines of a chunk, which may have been sealed since it was listed."""
    left = len(numbers)
    for one in (path, path.with_name(_sealed(path.name))):
        try:
            with open_chunk(one) as stream:
                for number, line in numbered_lines(stream):
                    if number in numbers:
                        yield number, line
                        left -= 1
                        if not left:
                            return
            return
        except (CalyxError, OSError):
            continue


def shortened(line: bytes) -> tuple[str, bool]:
    """Return an event's text, shortened (first fields, long values cut) above `MAX_LINE`, and whether it was."""
    text = line.decode("utf-8", "replace")
    if len(text) <= MAX_LINE:
        return text, False
    try:
        event = decode(line)
    except CalyxError:
        return json.dumps({"message": text[:_MAX_VALUE]}), True
    kept: dict[str, Any] = {}
    left = MAX_LINE
    for name, value in event.items():
        short = _short(value)
        left -= len(name[:200]) + len(short if isinstance(short, str) else json.dumps(short)) + 6
        if left < 0:
            kept["…"] = f"{len(event) - len(kept):,} more fields"
            break
        kept[name[:200]] = short
    return json.dumps(kept), True


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _MAX_VALUE else f"{value[:_MAX_VALUE]}… ({len(value):,} characters)"
    try:
        text = json.dumps(value)
        if len(text) <= _MAX_VALUE:
            return value
        inside = _with_short_texts(value)  # such as a conversation, which stays one
        if len(json.dumps(inside)) <= _MAX_NESTED:
            return inside
    except (ValueError, RecursionError):
        return "(it is too deep to be shown)"
    return f"{text[:_MAX_VALUE]}… ({len(text):,} characters of JSON)"


def _with_short_texts(value: Any) -> Any:
    """Shorten the texts inside a value."""
    if isinstance(value, dict):
        return {name: _with_short_texts(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_short_texts(inner) for inner in value]
    return _short(value) if isinstance(value, str) else value


def pack(excerpts: list[Excerpt], room: int) -> list[Packed]:
    """Pack as much of each excerpt as fits into `room` characters in all; unused room goes to the next ones.

    Of a run the first events are kept, of errors and of what is outside of runs the last.
    """
    whole = {number: _pack_one(excerpt, room) for number, excerpt in enumerate(excerpts)}
    packed: dict[int, Packed] = {}
    by_size = sorted(whole, key=lambda number: len(whole[number].data))
    for done, number in enumerate(by_size):  # the small ones leave more to the large
        share = room // (len(by_size) - done)
        one = whole[number] if len(whole[number].data) <= share else _pack_one(excerpts[number], share)
        packed[number] = one
        room -= len(one.data)
    return [packed[number] for number in sorted(packed)]


def document_of(excerpt: Excerpt, keep: range | None = None) -> dict[str, Any]:
    """Return an excerpt, or those of its events whose numbers are given, as the page's scripts take it."""
    keep = range(len(excerpt.lines)) if keep is None else keep
    return {
        "lines": [excerpt.lines[number].decode() for number in keep],
        "where": [excerpt.places[number][1:] for number in keep],
        "gap": excerpt.gap if excerpt.gap in keep else None,
        "cut": {str(number - keep.start): size for number, size in excerpt.cut.items() if number in keep},
    }


def packed_text(document: object) -> str:
    """Pack a document for the page: JSON, gzip, base64."""
    return base64.b64encode(gzip.compress(json_bytes.dumps(document), 6, mtime=0)).decode()


def _pack_one(excerpt: Excerpt, room: int) -> Packed:
    count = len(excerpt.lines)
    while True:
        first = len(excerpt.lines) - count if excerpt.keeps_last else 0
        data = packed_text(document_of(excerpt, range(first, first + count)))
        if len(data) <= room or not count:
            return Packed(excerpt.key, data, count, excerpt.count)
        count = max(0, min(count - 1, int(count * room / len(data) * 0.95)))
