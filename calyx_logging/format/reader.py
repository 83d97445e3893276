"""Events out of chunks, open or sealed, on any side; takes no locks, and changes nothing.

A line counts only with its newline. `Follower` goes on where it was when a chunk grows, is sealed under it, or is
sealed by recovery, which cuts off what was torn.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from calyx_logging.core.reading import BLOCK, BOM
from calyx_logging.core.times import utc_text
from calyx_logging.errors import CalyxError, EventError
from calyx_logging.events.event import decode
from calyx_logging.format.chunk import MAX_LINE, OPEN_SUFFIX, SEALED_SUFFIX, open_chunk

__all__ = ["ChunkRef", "Filter", "Follower", "Line", "last_events", "lines_of"]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "warn": 30, "error": 40, "critical": 50, "fatal": 50}


@dataclass(frozen=True)
class ChunkRef:
    """A chunk to be read.

    Attributes:
        path: of the file, open or sealed.
        node_id: whose events its lines have to be; None for any.
        bundle: the name of the bundle's folder it came in, if it came in one.
    """

    path: Path
    node_id: str | None = None
    bundle: str | None = None


@dataclass(frozen=True)
class Line:
    """One event, and where it is.

    Attributes:
        event: the fields.
        data: the line's bytes, without newline.
        path: of the chunk.
        number: of the line, from 1; 0 where lines were not counted.
    """

    event: dict[str, Any]
    data: bytes
    path: Path
    number: int


@dataclass(frozen=True)
class Filter:
    """Which events are wanted; what is None does not matter.

    Attributes:
        level: at least this one.
        source: exactly.
        run: its `run_id` or `run_instance_id`.
        control: also control lines.
    """

    level: str | None = None
    source: str | None = None
    run: str | None = None
    control: bool = False

    def __call__(self, event: dict[str, Any]) -> bool:
        if not self.control and "control" in event and event.get("source") == "calyx_logging":
            return False
        if self.source is not None and event.get("source") != self.source:
            return False
        if self.run is not None and self.run not in (event.get("run_id"), event.get("run_instance_id")):
            return False
        return self.level is None or _rank(event.get("level")) >= _rank(self.level)


def _rank(level: object) -> int:
    return _LEVELS.get(level.lower(), 20) if isinstance(level, str) else 20


def lines_of(path: Path) -> Iterator[Line]:
    """The events of a chunk; lines that are none, and a torn one at the end, are left out.

    Raises:
        ChunkError: it is no regular file.
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


def last_events(paths: Iterable[Path], count: int, wanted: Filter) -> list[Line]:
    """The last events of some chunks by their time, oldest first.

    Chunks are read from the one written to last, until what is left was written before the oldest event found.

    Raises:
        ChunkError, StorageError: a chunk cannot be read; one that has just been sealed or deleted is left out.
    """
    found: list[tuple[str, int, Line]] = []
    order = 0
    for changed, path in sorted(((_changed(path), path) for path in paths), reverse=True):
        if len(found) >= count and (not count or changed < found[0][0]):
            break
        try:
            for line in lines_of(path):
                if not wanted(line.event):
                    continue
                order += 1
                item = (str(line.event.get("ts_utc")), order, line)
                if len(found) < count:
                    heapq.heappush(found, item)
                elif item[:2] > found[0][:2]:
                    heapq.heapreplace(found, item)
        except CalyxError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
    return [line for _, _, line in sorted(found, key=lambda item: item[:2])]


def _changed(path: Path) -> str:
    """When a file was last written to, as `ts_utc`; one that has just been sealed or deleted long ago."""
    try:
        return utc_text(path.stat().st_mtime)
    except FileNotFoundError:
        return ""


class Follower:
    """What is appended to chunks from now on.

    Args:
        listing: the chunks there are at a moment; those that come later are read from their beginning.

    Raises:
        ChunkError, StorageError: as `listing` does.
    """

    def __init__(self, listing: Callable[[], Iterable[Path]]) -> None:
        self._listing = listing
        self._places: dict[str, int] = {}
        for path in listing():
            try:
                self._places[_key(path)] = path.stat().st_size
            except FileNotFoundError:
                continue

    def new(self) -> Iterator[Line]:
        """The whole lines since the last call, chunk by chunk."""
        for path in self._listing():
            key = _key(path)
            try:
                if path.stat().st_size != self._places.get(key, 0):
                    yield from self._read(key, path)
            except FileNotFoundError:
                continue  # it has just been sealed: the next call finds it under its other name
            except CalyxError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise

    def _read(self, key: str, path: Path) -> Iterator[Line]:
        place = self._places.get(key, 0)
        with open_chunk(path) as stream:
            size = stream.seek(0, 2)
            if place > size:  # what was torn has been cut off
                place = size
            # a line may have been half there when this began, and recovery takes out lines that are none
            place = _start_of_line(stream, place)
            stream.seek(place)
            self._places[key] = place
            while (data := stream.readline(MAX_LINE)).endswith(b"\n"):
                self._places[key] += len(data)
                yield from _line(data, path, 0)


def _start_of_line(stream: BinaryIO, place: int) -> int:
    """Where the line begins that `place` is in."""
    while place > 0:
        start = max(0, place - BLOCK)
        stream.seek(start)
        newline = stream.read(place - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        place = start
    return 0


def _key(path: Path) -> str:
    """A chunk's name, open or sealed."""
    return str(path.with_name(path.name.removesuffix(OPEN_SUFFIX).removesuffix(SEALED_SUFFIX)))
