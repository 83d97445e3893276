"""Scan a chunk's lines: find bad lines, the `seq` present, how the writer ended, and which events it lost.

Every line is decoded; nothing is taken from the manifest. Invariant: memory is bounded by the longest line allowed, the
runs of `seq`, and the number of lines named.
"""

from __future__ import annotations

import contextlib
import json
import threading
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

from calyx_logging.core import json_bytes
from calyx_logging.core.ranges import runs_of
from calyx_logging.core.reading import BOM, blocks_of, whole_lines
from calyx_logging.errors import EventError
from calyx_logging.events.event import CONTROL_SOURCE, LARGE, decode
from calyx_logging.events.values import safe_repr
from calyx_logging.format.chunk import MAX_LINE, open_chunk
from calyx_logging.format.plain_lines import PlainLines, beginning_of, read_plain_lines

__all__ = [
    "BadLine",
    "GapLine",
    "Scan",
    "Scanner",
    "event_of",
    "lines_in",
    "lines_of",
    "note_control",
    "numbered_lines",
    "scan_chunk",
    "what_is_wrong",
]

_MAX_NAMED = 100
"""The most bad lines of one chunk that are named one by one."""

_MAX_CONTROLS = 10_000
"""The most control lines of one chunk that are kept; our writers never make more."""

_MAX_SEQ = 2**63
_TOO_LONG = bytes(bytearray(b"a line that is too long"))
"""Placeholder for such a line, recognised by its identity."""

_STAMPED = ("node_id", "ts_utc", "event_id", "source")
_one_at_a_time = threading.Lock()
"""Held while a large line is decoded, which takes much memory."""

_stamped = itemgetter(*_STAMPED)
_TORN = ("torn_bytes", "bad_lines")


@dataclass(frozen=True)
class BadLine:
    """A line that is not an event of its node: its number, from 1, and the reason."""

    line: int
    why: str


@dataclass(frozen=True)
class GapLine:
    """Lost events that a writer reported: how many, which `seq`, the cause, and the writer."""

    count: int
    seqs: list[list[int]]
    cause: str
    writer: str | None = None


@dataclass
class Scan:
    """The result of scanning one chunk's lines.

    Attributes:
        events: lines that are events, including control lines.
        controls: control lines among them.
        seqs: first and last of each run of their `seq`.
        repeated: how often a `seq` occurred again.
        ends: of each end line, `reason`, and `torn_bytes` and `bad_lines` if recovery wrote it.
        gaps: the gap lines.
        machines: the fingerprints of machines that its start lines name.
        bad_count: lines that are not events of the node.
        bad: the first of them.
        ids: hashes of the event ids (Python's own, valid in this process only), if they were requested.
    """

    events: int = 0
    controls: int = 0
    seqs: list[list[int]] = field(default_factory=list)
    repeated: int = 0
    ends: list[dict[str, Any]] = field(default_factory=list)
    gaps: list[GapLine] = field(default_factory=list)
    machines: list[str] = field(default_factory=list)
    bad_count: int = 0
    bad: list[BadLine] = field(default_factory=list)
    ids: array[int] | None = None

    @property
    def logged(self) -> int:
        """Events that were logged: without control lines."""
        return self.events - self.controls

    def document(self) -> dict[str, Any]:
        """Return the scan for JSON, without the ids."""
        document = {name: value for name, value in vars(self).items() if name != "ids"}
        return {**document, "gaps": list(map(asdict, self.gaps)), "bad": list(map(asdict, self.bad))}

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Scan:
        """Rebuild a scan from what `document` returned.

        Raises:
            KeyError, TypeError, ValueError: it has another form.
        """
        scan = cls(
            events=int(document["events"]),
            controls=int(document.get("controls", 0)),
            seqs=[[int(first), int(last)] for first, last in document["seqs"]],
            repeated=int(document["repeated"]),
            ends=[dict(end) for end in document["ends"]],
            gaps=[GapLine(**gap) for gap in document["gaps"]],
            machines=[str(machine) for machine in document.get("machines", [])],
            bad_count=int(document["bad_count"]),
            bad=[BadLine(**bad) for bad in document["bad"]],
        )
        if any(first > last for first, last in scan.seqs):
            raise ValueError("a run of seq that ends before it begins")
        return scan


class Scanner:
    """Scan a chunk's lines as they come, many at once.

    Args:
        node_id: the node to which its events must belong.
        with_ids: whether to keep a hash of each event id.
    """

    def __init__(self, node_id: str, *, with_ids: bool = False) -> None:
        self._scan = Scan(ids=array("q") if with_ids else None)
        self.node_id = node_id
        self._number = 1
        self._seqs: list[int] = []

    def see(self, lines: memoryview | None) -> PlainLines | None:
        """Check the next lines, as `lines_of` gives them; return what the compiled core found, or None without it."""
        scan, number = self._scan, self._number
        plain = None if lines is None else read_plain_lines(lines, self.node_id, with_ids=scan.ids is not None)
        if plain is None or lines is None:
            split = lines_in(lines)
            _see_lines(scan, split, number, self.node_id, self._seqs)
            self._number += len(split)
        else:
            _take_plain(scan, plain)
            for before, start, end in plain.others:
                _see_lines(scan, [bytes(lines[start:end])], number + before, self.node_id, self._seqs)
            self._number += plain.events + len(plain.others)
        _join(scan, self._seqs)
        return plain

    def result(self) -> Scan:
        """Return the scan of all lines seen."""
        scan = self._scan
        runs = runs_of(scan.seqs)
        return replace(scan, seqs=runs, repeated=scan.repeated - sum(last - first + 1 for first, last in runs))


def scan_chunk(path: Path, node_id: str, *, with_ids: bool = False) -> Scan:
    """Read every line of a chunk.

    Args:
        path: the chunk.
        node_id: the node to which its events must belong.
        with_ids: whether to keep a hash of each event id.

    Raises:
        ChunkError: it is not a regular file.
        StorageError: it cannot be opened.
        OSError: it cannot be read.
    """
    scanner = Scanner(node_id, with_ids=with_ids)
    with open_chunk(path) as stream:
        for lines in lines_of(stream):
            scanner.see(lines)
    return scanner.result()


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield non-empty lines with their numbers, without newline and byte order mark; skip those that are too long."""
    number = 1
    for lines in lines_of(stream):
        split = lines_in(lines)
        if lines is not None:
            yield from ((number + k, line) for k, line in enumerate(split) if line.strip())
        number += len(split)


def lines_of(stream: BinaryIO) -> Iterator[memoryview | None]:
    """Yield whole lines, many at once, without the byte order mark; None for one that is too long.

    Args:
        stream: a chunk, from its beginning.
    """
    blocks = blocks_of(stream)
    return whole_lines((block.removeprefix(BOM) if n == 0 else block for n, block in enumerate(blocks)), MAX_LINE)


def lines_in(lines: memoryview | None) -> list[bytes]:
    """Return the single lines, without newlines; for None a stand-in."""
    return [_TOO_LONG] if lines is None else bytes(lines).removesuffix(b"\n").split(b"\n")


def what_is_wrong(line: bytes, node_id: str) -> str | None:
    """Say why a line is not an event of a node; None if it is one."""
    scan = Scan()
    _see_lines(scan, [line], 1, node_id, [])
    return scan.bad[0].why if scan.bad else None


def _see_lines(scan: Scan, lines: list[bytes], number: int, node_id: str, seqs: list[int]) -> None:
    """Check lines, quickly if they have our writers' form, otherwise by `_why`."""
    begins, ids, events = beginning_of(node_id), scan.ids, 0
    for number, line in enumerate(lines, number):  # noqa: B020
        if (event := _plain_event(line, node_id, begins)) is not None:
            event_id, source = event["event_id"], event["source"]
        else:
            if not line.strip() and line is not _TOO_LONG:
                continue
            if (why := _why(line, node_id)) is not None:
                scan.bad_count += 1
                if len(scan.bad) < _MAX_NAMED:
                    scan.bad.append(BadLine(number, why))
                continue
            event = decode(line)
            event_id, source = event["event_id"], event["source"]
        events += 1
        if ids is not None:
            ids.append(hash(event_id))
        seq = event.get("seq")
        if type(seq) is int and 0 <= seq < _MAX_SEQ:
            seqs.append(seq)
        if source == CONTROL_SOURCE:
            note_control(scan, event)
    scan.events += events


def _take_plain(scan: Scan, plain: PlainLines) -> None:
    """Add the lines that the compiled core has read."""
    scan.events += plain.events
    if scan.ids is not None:
        scan.ids.extend(plain.id_hashes)
    for first, last in plain.runs:
        scan.repeated += last - first + 1
        if scan.seqs and scan.seqs[-1][1] == first - 1:
            scan.seqs[-1][1] = last
        else:
            scan.seqs.append([first, last])
    if len(plain.runs) > 1:
        scan.seqs = runs_of(scan.seqs)


def event_of(line: bytes, node_id: str | None) -> dict[str, Any] | None:
    """Return the event that a line is; None if it is none of the node (None: of any node)."""
    event = None if node_id is None else _plain_event(line, node_id, beginning_of(node_id))
    return _odd_event(line, node_id) if event is None else event


def _plain_event(line: bytes, node_id: str, begins: str) -> dict[str, Any] | None:
    """Decode a line of our writers' form; None for any other."""
    try:
        if len(line) > LARGE:
            return None  # it must be inspected before parsing
        event: dict[str, Any] = json_bytes.loads(line)
        stamped_node, when, event_id, source = _stamped(event)
        is_plain = (
            stamped_node == node_id
            and type(when) is type(event_id) is type(source) is str
            # the first value equals the last, so a field that occurs twice has one value
            and line.startswith(f'{begins}{when}","event_id":"{event_id}","source":"{source}"'.encode())
            and when
            and event_id
            and source
        )
    except Exception:  # not JSON, not an object, or a field is missing; lone surrogates cannot occur
        return None
    return event if is_plain else None


def _odd_event(line: bytes, node_id: str | None) -> dict[str, Any] | None:
    """Decode a line of any form."""
    try:
        event = decode(line)
        whose = event.get("node_id") if node_id is None else node_id
        return event if isinstance(whose, str) and _why(line, whose) is None else None
    except EventError:
        return None


def _why(line: bytes, node_id: str) -> str | None:
    """Say why a line is not an event of the node."""
    if line is _TOO_LONG:
        return f"longer than {MAX_LINE} bytes"
    with _one_at_a_time if len(line) > LARGE else contextlib.nullcontext():
        try:
            event = decode(line)
        except EventError as error:
            return error.message[:200]
    for name in _STAMPED:
        value = event.get(name)
        if type(value) is not str or not value:
            return f"{name} is {safe_repr(value)[:100]}"
    if event["node_id"] != node_id:
        return f"node_id is {safe_repr(event['node_id'])[:100]}"
    twice = _said_twice(line)
    return None if twice is None else f"{twice} twice"


def _said_twice(line: bytes) -> str | None:
    """Return a stamped field that occurs twice in a line, because readers differ in which value they use."""
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in items]
        twice[:] = [name for name in _STAMPED if names.count(name) > 1]  # the outermost object is parsed last
        return {}

    try:
        json.loads(line, object_pairs_hook=pairs, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None
    return twice[0] if twice else None


def note_control(scan: Scan, event: Mapping[str, Any]) -> None:
    """Note what a control line says: a start, an end, or a gap."""
    scan.controls += "control" in event
    if event.get("control") == "start":
        machine = event.get("machine")
        if isinstance(machine, str) and machine[:32] not in scan.machines and len(scan.machines) < _MAX_CONTROLS:
            scan.machines.append(machine[:32])
    if event.get("control") == "end" and len(scan.ends) < _MAX_CONTROLS:
        counts = {name: event[name] for name in _TORN if type(event.get(name)) is int}
        scan.ends.append({"reason": str(event.get("reason"))[:100], **counts})
    elif event.get("control") == "gap" and len(scan.gaps) < _MAX_CONTROLS:
        count, seqs, writer = event.get("count"), event.get("seqs"), event.get("writer")
        runs = [run for run in seqs if _is_run(run)] if isinstance(seqs, list) else []
        scan.gaps.append(
            GapLine(
                count=count if type(count) is int and count >= 0 else 0,
                seqs=runs_of(runs),
                cause=str(event.get("cause"))[:200],
                writer=writer if type(writer) is str else None,
            )
        )


def _is_run(run: object) -> bool:
    if not isinstance(run, list) or len(run) != 2 or not all(type(seq) is int for seq in run):
        return False
    first, last = run
    return bool(0 <= first <= last < _MAX_SEQ)


def _join(scan: Scan, seqs: list[int]) -> None:
    """Merge single `seq` numbers into runs."""
    scan.repeated += len(seqs)
    for seq in sorted(seqs):
        if scan.seqs and scan.seqs[-1][1] == seq - 1:
            scan.seqs[-1][1] = seq
        else:
            scan.seqs.append([seq, seq])
    seqs.clear()
