"""Survey a chunk: count its lines and read its control lines, at the speed of the disk.

The numbers of a chunk's first and last line, its count of lines, and its gap lines together show whether a `seq` is
missing; only where they disagree is every line decoded. The compiled core reads each line's number. Invariant: for
chunks of our writers and of recovery, lines, gaps, ends, and what is missing of `seq` are those of `scan_chunk`. It is
not checked whether each line is an event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from calyx_logging.compiled import CORE
from calyx_logging.core.parallel import several_at_once
from calyx_logging.core.ranges import runs_of
from calyx_logging.core.reading import blocks_of, lines_with, whole_lines
from calyx_logging.errors import CalyxError, EventError, StorageError
from calyx_logging.events.event import CONTROL_SOURCE, decode
from calyx_logging.format.chunk import ChunkName, open_chunk
from calyx_logging.format.completeness import Elsewhere, NodeAudit, writers_of
from calyx_logging.format.line_check import Scan, note_control, scan_chunk
from calyx_logging.format.plain_lines import read_plain_lines

__all__ = ["Survey", "audit_surveys", "survey_chunk", "survey_chunks"]

_MARK = f'"source":"{CONTROL_SOURCE}"'.encode()


@dataclass
class Survey:
    """The result of surveying a chunk.

    Attributes:
        size: bytes.
        scan: its lines, as `scan_chunk` would say, without bad lines; of a chunk that is not ours, their number alone.
    """

    size: int = 0
    scan: Scan = field(default_factory=Scan)


def survey_chunk(path: Path, node_id: str) -> Survey:
    """Survey one chunk; a line that is still being written is not counted.

    Raises:
        ChunkError: it is not a regular file.
        StorageError: it cannot be opened.
        OSError: it cannot be read.
    """
    found, name = Survey(), ChunkName.parse(path.name)
    with open_chunk(path) as stream:
        pieces = _whole_lines(stream, found)
        if CORE is not None and name is not None:
            is_known = _read_by_core(pieces, found.scan, node_id)
        else:
            is_known = _read(pieces, found.scan, name)
    if not is_known:
        found.scan = scan_chunk(path, node_id)
        found.scan.bad, found.scan.bad_count = [], 0
    return found


def _read(pieces: Iterable[memoryview], scan: Scan, name: ChunkName | None) -> bool:
    """Count lines, note control lines; whether that tells each `seq`."""
    first, last = b"", b""
    for piece in pieces:
        lines = bytes(piece)
        first = first or lines[: lines.index(b"\n")]
        last = lines[lines.rfind(b"\n", 0, -1) + 1 : -1]
        scan.events += lines.count(b"\n")
        for line in lines_with(lines, _MARK):
            _note(scan, line)
    return name is None or not scan.events or _is_gapless(scan, name.writer, first, last)


def _read_by_core(pieces: Iterable[memoryview], scan: Scan, node_id: str) -> bool:
    """Do the same by the compiled core, which reads each line's ends."""
    for lines in pieces:
        plain = read_plain_lines(lines, node_id, ends_only=True)
        assert plain is not None
        scan.events += plain.events + len(plain.others)
        runs = plain.runs
        for _, start, end in plain.others:
            line = bytes(lines[start:end])
            _note(scan, line)
            seq = _seq(line)
            if seq is None:
                return False
            runs.append((seq, seq))
        scan.repeated += sum(last - first + 1 for first, last in runs)
        scan.seqs = runs_of([*scan.seqs, *map(list, runs)])
    scan.repeated -= sum(last - first + 1 for first, last in scan.seqs)
    return True


def survey_chunks(folder: Path, names: Iterable[str], node_id: str) -> dict[str, Survey | str]:
    """Survey several chunks, by file name; one that cannot be read gives a message, and one that is gone nothing."""
    names = list(names)
    found = zip(names, several_at_once(lambda name: _survey(folder, name, node_id), names), strict=True)
    return {name: survey for name, survey in found if survey is not None}


def _survey(folder: Path, filename: str, node_id: str) -> Survey | str | None:
    for name in dict.fromkeys((filename, filename.removesuffix(".open"))):  # it may have been sealed meanwhile
        try:
            return survey_chunk(folder / name, node_id)
        except StorageError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                return str(error)
        except (CalyxError, OSError) as error:
            return str(error)
    return None


def audit_surveys(node_id: str, surveys: Mapping[str, Survey | str], elsewhere: Iterable[Elsewhere]) -> NodeAudit:
    """Audit a node by the surveys of chunks of its outbox or of a bundle; what comes later is not missing.

    Args:
        node_id: the node.
        surveys: of the chunks, by file name.
        elsewhere: what is not here and need not be.
    """
    audit = NodeAudit(node_id, goes_on=True)
    named = []
    for filename, survey in surveys.items():
        if isinstance(survey, str):
            audit.damaged.append(survey)
            continue
        name = ChunkName.parse(filename)
        audit.events += survey.scan.logged
        audit.foreign_chunks += name is None
        if name is not None:
            named.append((name, survey.scan))
    audit.writers = writers_of(named, elsewhere=elsewhere)
    audit.machines = sorted({machine for _, scan in named for machine in scan.machines})
    return audit


def _whole_lines(stream: BinaryIO, found: Survey) -> Iterator[memoryview]:
    """Yield runs of whole lines, each ended by its newline; take the size."""
    for lines in whole_lines(blocks_of(stream)):
        if lines is not None:
            found.size += len(lines)
            if lines[-1] == ord("\n"):
                yield lines


def _note(scan: Scan, line: bytes) -> None:
    try:
        event = decode(line)
    except EventError:
        return
    if event.get("source") == CONTROL_SOURCE:  # and not deeper inside
        note_control(scan, event)


def _is_gapless(scan: Scan, writer: str, first: bytes, last: bytes) -> bool:
    """Whether lines and gap lines account for each `seq` between the first line's and the last one's; note them."""
    begins, ends = _seq(first), _seq(last)
    if begins is None or ends is None:
        return False
    told = [run for gap in scan.gaps if gap.writer in (None, writer) for run in gap.seqs]
    inside = sum(max(0, min(end, ends) - max(begin, begins) + 1) for begin, end in told)
    if scan.events + inside != ends - begins + 1:
        return False
    scan.seqs = [[begins, ends]]
    return True


def _seq(line: bytes) -> int | None:
    try:
        seq = decode(line).get("seq")
    except EventError:
        return None
    return seq if type(seq) is int and seq >= 0 else None
