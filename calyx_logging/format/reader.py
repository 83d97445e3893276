"""Read events from chunks, open or sealed, at node or hub; without locks or changes.

A line counts only with its newline. `Follower` keeps its place when a chunk grows, is sealed while it reads, or is
sealed by recovery, which cuts off a partial line.
"""

from __future__ import annotations

import contextlib
import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from calyx_logging.core.reading import BLOCK, BOM
from calyx_logging.core.times import utc_text
from calyx_logging.errors import CalyxError, EventError, say
from calyx_logging.events.event import decode
from calyx_logging.format.chunk import MAX_LINE, OPEN_SUFFIX, SEALED_SUFFIX, ChunkName, open_chunk

__all__ = ["ChunkRef", "Filter", "Follower", "Line", "last_events", "lines_of"]

_START_BYTES = 4096

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "warn": 30, "error": 40, "critical": 50, "fatal": 50}


@dataclass(frozen=True)
class ChunkRef:
    """A chunk to be read.

    Attributes:
        path: the file, open or sealed.
        node_id: the node to which its events must belong; None for any.
        bundle: the folder name of the bundle it came in, if any.
    """

    path: Path
    node_id: str | None = None
    bundle: str | None = None


@dataclass(frozen=True)
class Line:
    """One event and its place.

    Attributes:
        event: its fields.
        data: the line's bytes, without newline.
        path: the chunk.
        number: the line's number, from 1; 0 if lines were not counted.
    """

    event: dict[str, Any]
    data: bytes
    path: Path
    number: int


@dataclass(frozen=True)
class Filter:
    """Selects events; a criterion that is None is not applied.

    Attributes:
        level: the least level.
        source: the exact source.
        run: the `run_id` or `run_instance_id`.
        control: whether to include control lines.
        logger: a logger, or one above it.
        case: the `case_id`, as text.
        node: the `node_id`.
        since: the earliest `ts_utc`, as a UTC text.
        pattern: a regular expression that is found in one of the fields, as text.
    """

    level: str | None = None
    source: str | None = None
    run: str | None = None
    control: bool = False
    logger: str | None = None
    case: str | None = None
    node: str | None = None
    since: str | None = None
    pattern: re.Pattern[str] | None = None

    def __call__(self, event: dict[str, Any]) -> bool:
        if not self.control and "control" in event and event.get("source") == "calyx_logging":
            return False
        if self.source is not None and event.get("source") != self.source:
            return False
        if self.run is not None and self.run not in (event.get("run_id"), event.get("run_instance_id")):
            return False
        if self.level is not None and _rank(event.get("level")) < _rank(self.level):
            return False
        return self._is_of(event) and (self.pattern is None or any(map(self.pattern.search, _texts(event))))

    def _is_of(self, event: dict[str, Any]) -> bool:
        if self.logger is not None and not f"{event.get('logger')}.".startswith(f"{self.logger}."):
            return False
        if self.case is not None and str(event.get("case_id")) != self.case:
            return False
        if self.node is not None and event.get("node_id") != self.node:
            return False
        return self.since is None or str(event.get("ts_utc")) >= self.since


def _texts(event: dict[str, Any]) -> Iterator[str]:
    return (value if isinstance(value, str) else str(value) for value in event.values())


def _rank(level: object) -> int:
    return _LEVELS.get(level.lower(), 20) if isinstance(level, str) else 20


def lines_of(path: Path) -> Iterator[Line]:
    """Yield a chunk's events; skip bad lines and a partial line at the end.

    Raises:
        ChunkError: it is not a regular file.
        StorageError: it cannot be opened.
    """
    with open_chunk(path) as stream:
        for number, data in enumerate(stream, 1):
            if data.endswith(b"\n"):
                yield from _line(data, path, number)


def _line(data: bytes, path: Path, number: int) -> Iterator[Line]:
    data = data.rstrip(b"\r\n").removeprefix(BOM)
    if data.strip():
        try:
            yield Line(decode(data), data, path, number)
        except EventError:
            return


def last_events(paths: Iterable[Path], count: int, wanted: Filter, warn: Callable[[str], None] = say) -> list[Line]:
    """Return the last events of some chunks by their time, oldest first.

    Chunks are read latest first, until the remaining ones were last written before the oldest event found. One that
    has just been deleted is skipped; `warn` is told of others that cannot be read.
    """
    found: list[tuple[str, int, Line]] = []
    order = 0
    for changed, path in sorted(((_changed(path), path) for path in paths), reverse=True):
        if len(found) >= count and (not count or changed < found[0][0]):
            break
        for line in _lines_under(_names_of(path), warn):
            if not wanted(line.event):
                continue
            order += 1
            item = (str(line.event.get("ts_utc")), order, line)
            if len(found) < count:
                heapq.heappush(found, item)
            elif item[:2] > found[0][:2]:
                heapq.heapreplace(found, item)
    return [line for _, _, line in sorted(found, key=lambda item: item[:2])]


def _changed(path: Path) -> str:
    """Return when a chunk was last written, as `ts_utc`, even if it was just sealed; a deleted one counts as old."""
    for name in _names_of(path):
        with contextlib.suppress(OSError):
            return utc_text(name.lstat().st_mtime)
    return ""


def _names_of(path: Path) -> tuple[Path, ...]:
    """Return the name of a chunk when it was listed, and the one that it has if it has been sealed since."""
    return (path, Path(f"{_key(path)}{SEALED_SUFFIX}")) if path.name.endswith(OPEN_SUFFIX) else (path,)


def _lines_under(names: Iterable[Path], warn: Callable[[str], None]) -> Iterator[Line]:
    """Yield a chunk's events, under the first of its names that there is."""
    for name in names:
        try:
            yield from lines_of(name)
            return
        except CalyxError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                warn(str(error))
                return


@dataclass
class _Rewritable:
    """Our knowledge of a first-generation chunk, which its writer may truncate, replace or make again.

    Attributes:
        state: size, time and inode when it was read last.
        start: its first bytes, by which it is known again.
        lines: how often each line was in it, by hash, so that a copy with more lines gives only those.
    """

    state: tuple[int, int, int] = (0, 0, 0)
    start: bytes = b""
    lines: Counter[int] = field(default_factory=Counter)


class Follower:
    """Follows what is appended to chunks from now on; of a first-generation chunk that is made anew, its new lines.

    Args:
        listing: lists the chunks that exist now; chunks that appear later are read from their beginning.
        warn: is told, each time, of a chunk that cannot be read.

    Raises:
        StorageError: raised by `listing`.
    """

    def __init__(self, listing: Callable[[], Iterable[Path]], warn: Callable[[str], None] = say) -> None:
        self._listing = listing
        self._warn = warn
        self._places: dict[str, int] = {}
        self._foreign: dict[Path, _Rewritable] = {}
        for path in listing():
            try:
                if ChunkName.parse(path.name) is None:
                    for _ in self._read_foreign(path):
                        pass
                else:
                    self._places[_key(path)] = path.lstat().st_size
            except OSError:
                continue
            except CalyxError:
                self._pass_over(path)

    def new(self) -> Iterator[Line]:
        """Yield the complete lines added since the last call, chunk by chunk."""
        for path in self._listing():
            for name in _names_of(path):
                try:
                    yield from self._new_in(name)
                    break
                except FileNotFoundError:
                    continue
                except CalyxError as error:
                    if not isinstance(error.__cause__, FileNotFoundError):
                        self._warn(str(error))
                        break

    def _new_in(self, path: Path) -> Iterator[Line]:
        key = _key(path)
        if ChunkName.parse(path.name) is None:
            yield from self._read_foreign(path)
        elif path.lstat().st_size != self._places.get(key, 0):
            yield from self._read(key, path)

    def _pass_over(self, path: Path) -> None:
        """Count nothing as new that a chunk has now, which cannot be read yet."""
        with contextlib.suppress(OSError):
            found = path.lstat()
            self._foreign[path] = _Rewritable((0, 0, found.st_ino))
            self._places[str(path)] = found.st_size

    def _read_foreign(self, path: Path) -> Iterator[Line]:
        known = self._foreign.setdefault(path, _Rewritable())
        found = path.lstat()
        state = (found.st_size, found.st_mtime_ns, found.st_ino)
        if state == known.state:
            return
        key = str(path)
        with open_chunk(path) as stream:
            place = self._places.get(key, 0)
            if state[2] != known.state[2] or state[0] < place or stream.read(len(known.start)) != known.start:
                place = 0  # it is another file by now
            known.state = state
            here = Counter() if not place else known.lines
            stream.seek(place)
            is_anew = not place
            while (data := stream.readline(MAX_LINE)).endswith(b"\n"):
                place += len(data)
                here[hash(data)] += 1
                if not is_anew or here[hash(data)] > known.lines[hash(data)]:
                    yield from _line(data, path, 0)
            known.lines |= here
            self._places[key] = place
            stream.seek(0)
            known.start = stream.read(min(place, _START_BYTES))

    def _read(self, key: str, path: Path) -> Iterator[Line]:
        place = self._places.get(key, 0)
        with open_chunk(path) as stream:
            size = stream.seek(0, 2)
            if place > size:  # a partial line was cut off
                place = size
            # a line may have been partial at the start, and recovery removes bad lines
            place = _start_of_line(stream, place)
            stream.seek(place)
            self._places[key] = place
            while (data := stream.readline(MAX_LINE)).endswith(b"\n"):
                self._places[key] += len(data)
                yield from _line(data, path, 0)


def _start_of_line(stream: BinaryIO, place: int) -> int:
    """Return where the line that contains `place` begins."""
    while place > 0:
        start = max(0, place - BLOCK)
        stream.seek(start)
        newline = stream.read(place - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        place = start
    return 0


def _key(path: Path) -> str:
    """Return a chunk's name, the same whether it is open or sealed."""
    return str(path.with_name(path.name.removesuffix(OPEN_SUFFIX).removesuffix(SEALED_SUFFIX)))
