"""Compute a chunk's manifest entry (hash, size, counts, ranges) in one pass over its bytes.

Lines in the form that our writers make (the same node id first, then `ts_utc`, and `seq` last) are read by position,
block by block, by the compiled core where there is one; any other line is parsed. Invariant: for chunks sealed by our
writers and recovery, the figures equal those from parsing every line. The middle of a line is not inspected, so chunks
with other names are always parsed.
"""

from __future__ import annotations

import bisect
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from calyx_logging.compiled import CORE
from calyx_logging.core import reading
from calyx_logging.core.times import moment_text, parse_utc
from calyx_logging.errors import EventError
from calyx_logging.events.event import CONTROL_SOURCE, decode
from calyx_logging.format.chunk import MAX_LINE, ChunkName
from calyx_logging.format.legacy import is_foreign
from calyx_logging.format.line_check import Scanner
from calyx_logging.format.manifest import ChunkEntry
from calyx_logging.format.plain_lines import PlainLines, read_plain_lines

__all__ = ["ChunkStats", "stats_for", "stats_of"]

_MARK = f'"source":"{CONTROL_SOURCE}"'.encode()
_FEW = 8
"""Up to this many lines are parsed one by one, which is faster than splitting the group further."""

_HEAD = re.compile(
    rb'\{"node_id":"([A-Za-z0-9._-]+)",'
    rb'"ts_utc":"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}\+00:00)"'
)
_TAIL = re.compile(rb',"seq":(0|[1-9][0-9]{0,18})\}$')


@dataclass
class ChunkStats:
    """Figures of a chunk, gathered while its bytes are copied or read.

    Attributes:
        size: bytes so far.
        events: lines that are not empty.
        bad_lines: lines that are not events.
        controls: control lines.
        first_ts_utc, last_ts_utc: the least and the greatest.
        first_seq, last_seq: the least and the greatest.
        node_ids: the node ids in the events.
        by_position: whether lines may be read by position; otherwise each one is parsed.
        scanner: checks every line in the same pass, if that is wanted.
    """

    by_position: bool = True
    scanner: Scanner | None = None
    size: int = 0
    events: int = 0
    bad_lines: int = 0
    controls: int = 0
    first_ts_utc: str | None = None
    last_ts_utc: str | None = None
    first_seq: int | None = None
    last_seq: int | None = None
    node_ids: set[str] = field(default_factory=set)
    _hash: Any = field(default_factory=hashlib.sha256)
    _cutter: reading.LineCutter = field(default_factory=lambda: reading.LineCutter(MAX_LINE))
    _is_first: bool = True

    def through(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the blocks unchanged while a helper thread analyses them, in parallel with the caller's work."""
        seeing: Future[None] | None = None
        helper: ThreadPoolExecutor | None = None
        try:
            for block in blocks:
                if seeing is not None:
                    seeing.result()
                    seeing = None
                self.size += len(block)
                if len(block) < reading.BLOCK or CORE is not None:  # the last block, for most chunks the only one
                    self._see_block(block)
                else:
                    helper = helper or ThreadPoolExecutor(1, "calyx-logging-stats")
                    seeing = helper.submit(self._see_block, block)
                self._hash.update(block)
                yield block
            if seeing is not None:
                seeing.result()
        finally:
            if helper is not None:
                helper.shutdown()
        for rest in self._cutter.rest():
            self._see_lines(rest)

    @property
    def logged(self) -> int:
        """Events that were logged: without control lines and lines that are not events."""
        return self.events - self.bad_lines - self.controls

    def entry(self, filename: str) -> ChunkEntry:
        """Return the manifest's entry for these bytes under a file name."""
        name = ChunkName.parse(filename)
        return ChunkEntry(
            filename=filename,
            sha256=self._hash.hexdigest(),
            bytes=self.size,
            events=self.events,
            first_ts_utc=self.first_ts_utc,
            last_ts_utc=self.last_ts_utc,
            writer=None if name is None else name.writer,
            first_seq=self.first_seq,
            last_seq=self.last_seq,
        )

    def _see_block(self, block: bytes) -> None:
        if self._is_first:  # a byte order mark is not part of the first line
            block, self._is_first = block.removeprefix(reading.BOM), False
        for lines in self._cutter.feed(block):
            self._see_lines(lines)

    def _see_lines(self, lines: memoryview | None) -> None:
        """Read whole lines, and have them scanned; None is one that is too long to be an event."""
        plain = None if self.scanner is None else self.scanner.see(lines)
        if lines is None:
            self.events += 1
            self.bad_lines += 1
        elif (head := _HEAD.match(lines)) is None or not self._see_by_core(lines, head[1].decode(), plain):
            data = bytes(lines).removesuffix(b"\n")
            if self.by_position:
                self._count_controls(data)
                for group in _by_digits(data.split(b"\n")):
                    self._see_alike(group)
            else:
                for line in data.split(b"\n"):
                    self._see(line, may_be_control=True)

    def _see_by_core(self, lines: memoryview, node_id: str, scanned: PlainLines | None) -> bool:
        """Read lines by the compiled core: those that are read by position by their ends, others as a whole.

        Lines that the scan found plain have good ends, so only its other lines are read again.
        """
        if scanned is None or self.scanner is None or self.scanner.node_id != node_id:
            plain = read_plain_lines(lines, node_id, ends_only=self.by_position)
            if plain is None:
                return False
            self._take_plain(plain, node_id)
            left = [lines[start:end] for _, start, end in plain.others]
        else:
            self._take_plain(scanned, node_id)
            left = []
            for _, start, end in scanned.others:
                plain = read_plain_lines(lines[start:end], node_id, ends_only=True) if self.by_position else None
                if plain is not None and plain.events:
                    self._take_plain(plain, node_id)
                else:
                    left.append(lines[start:end])
        for line in left:
            self._see(bytes(line), may_be_control=True)
        return True

    def _take_plain(self, plain: PlainLines, node_id: str) -> None:
        if not plain.events:
            return
        self.events += plain.events
        self.node_ids.add(node_id)
        self._take(plain.first_ts_utc, min((first for first, _ in plain.runs), default=None))
        self._take(plain.last_ts_utc, max((last for _, last in plain.runs), default=None))

    def _count_controls(self, lines: bytes) -> None:
        for line in reading.lines_with(lines, _MARK):
            with suppress(EventError):
                self.controls += _is_control(decode(line))

    def _see_alike(self, lines: list[bytes]) -> None:
        """Read lines by position if they share a beginning and the length of their end; otherwise split the group."""
        head, tail = _HEAD.match(lines[0]), _TAIL.search(lines[0])
        if head and tail:
            # If the least and the greatest line share a beginning, all lines between them do, and their times are in
            # order. Sorting nearly sorted lines costs one comparison per line.
            ordered = sorted(lines)
            end = -len(tail[0])
            tails = sorted([line[end:] for line in lines])
            earliest, latest = _HEAD.match(ordered[0]), _HEAD.match(ordered[-1])
            first, last = _TAIL.fullmatch(tails[0]), _TAIL.fullmatch(tails[-1])
            if first and last and earliest and latest and earliest[1] == latest[1]:
                self.events += len(lines)
                self.node_ids.add(earliest[1].decode())
                self._take(earliest[2].decode(), int(first[1]))
                self._take(latest[2].decode(), int(last[1]))
                return
        if len(lines) <= _FEW:
            for line in lines:
                self._see(line)
        else:
            middle = len(lines) // 2
            self._see_alike(lines[:middle])
            self._see_alike(lines[middle:])

    def _see(self, line: bytes, *, may_be_control: bool = False) -> None:
        if not line.strip():
            return
        self.events += 1
        try:
            event = decode(line)
        except EventError:
            self.bad_lines += 1
            return
        if may_be_control:
            self.controls += _is_control(event)
        if isinstance(node_id := event.get("node_id"), str):
            self.node_ids.add(node_id)
        seq = event.get("seq")
        self._take(_normal_time(event.get("ts_utc")), seq if type(seq) is int else None)

    def _take(self, when: str | None, seq: int | None) -> None:
        if when is not None:
            self.first_ts_utc = when if self.first_ts_utc is None else min(self.first_ts_utc, when)
            self.last_ts_utc = when if self.last_ts_utc is None else max(self.last_ts_utc, when)
        if seq is not None:
            self.first_seq = seq if self.first_seq is None else min(self.first_seq, seq)
            self.last_seq = seq if self.last_seq is None else max(self.last_seq, seq)


def _is_control(event: Mapping[str, Any]) -> bool:
    return event.get("source") == CONTROL_SOURCE and "control" in event


def _by_digits(lines: list[bytes]) -> Iterator[list[bytes]]:
    """Group lines by the number of digits in their `seq`, as far as they are in order."""
    start = 0
    while start < len(lines):
        digits = _digits(lines[start])
        if _digits(lines[-1]) == digits:
            yield lines[start:] if start else lines
            return
        end = bisect.bisect_right(lines, digits, start, key=_digits)
        yield lines[start : max(end, start + 1)]
        start = max(end, start + 1)


def _digits(line: bytes) -> int:
    return len(line) - line.rfind(b":")


def _normal_time(text: object) -> str | None:
    if not isinstance(text, str):
        return None
    if len(text) == 32 and text.endswith("+00:00"):
        return text  # the form that we write
    moment = parse_utc(text)
    return None if moment is None else moment_text(moment)


def stats_for(filename: str, *, scanned_for: str | None = None) -> ChunkStats:
    """Create empty stats for a file; only our own chunks are read by position.

    Args:
        filename: of the chunk.
        scanned_for: the node to which its events must belong, if its lines are to be scanned, too.
    """
    return ChunkStats(not is_foreign(filename), None if scanned_for is None else Scanner(scanned_for))


def stats_of(stream: BinaryIO, filename: str) -> ChunkStats:
    """Compute the stats of a whole file."""
    stats = stats_for(filename)
    for _ in stats.through(reading.blocks_of(stream)):
        pass
    return stats
