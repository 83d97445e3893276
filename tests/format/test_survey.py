"""The survey finds what a full scan finds."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calyx_logging.errors import CalyxError
from calyx_logging.format.chunk import ChunkName
from calyx_logging.format.completeness import NodeAudit, Verdict, WriterAudit, worst, writers_of
from calyx_logging.format.line_check import scan_chunk
from calyx_logging.format.survey import survey_chunk, survey_chunks

NAME = "20261122_080000__harness__3f9a1c20-0000.jsonl"


def line(seq: object, **fields: object) -> bytes:
    """An event's line."""
    stamp = {"node_id": "n", "ts_utc": "2026-11-22T08:00:00.000000+00:00", "event_id": "e", "source": "harness"}
    return json.dumps({**stamp, **fields, "seq": seq}, separators=(",", ":")).encode() + b"\n"


def control(seq: int, control: str, **fields: object) -> bytes:
    """A control line."""
    return line(seq, source="calyx_logging", control=control, **fields)


LINES = st.one_of(
    st.builds(lambda text: lambda seq: [line(seq, message=text)], st.text(max_size=20)),
    st.just(lambda seq: [line(seq, inside={"source": "calyx_logging", "control": "gap", "count": 5})]),
    st.just(lambda seq: [line(seq, message='"source":"calyx_logging"')]),
    st.builds(
        lambda n: lambda seq: [control(seq + n, "gap", count=n, seqs=[[seq, seq + n - 1]], cause="full")],
        st.integers(1, 3),
    ),
    st.just(lambda seq: [control(seq, "gap", count=1, seqs=[[0, 0]], cause="full", writer="00000000")]),
    st.just(lambda seq: [line(seq + 2)]),
    st.just(lambda seq: [control(seq, "end", reason="closed")]),
    st.just(lambda seq: [control(seq, "end", reason="recovered", torn_bytes=3, bad_lines=1)]),
)


@given(first=st.integers(0, 3), makers=st.lists(LINES, max_size=12), rest=st.sampled_from([b"", b'{"node_id":"n"']))
def test_it_finds_what_a_scan_finds(
    tmp_path_factory: pytest.TempPathFactory, first: int, makers: Sequence[object], rest: bytes
) -> None:
    """Lines, gaps, ends, and what is missing of `seq`, whatever stands in the chunk."""
    data, seq = b"", first
    for make in makers:
        lines = make(seq)  # type: ignore[operator]
        data += b"".join(lines)
        seq += len(lines) if len(lines) > 1 else max(1, seq_after(lines[-1], seq) - seq)
    path = tmp_path_factory.mktemp("chunk") / NAME
    path.write_bytes(data + rest)
    found, scan = survey_chunk(path, "n"), scan_chunk(path, "n")
    assert found.size == len(data + rest)
    assert (found.scan.gaps, found.scan.ends) == (scan.gaps, scan.ends)
    name = ChunkName.parse(NAME)
    assert name is not None
    before, after = (writers_of([(name, one)])[0] for one in (scan, found.scan))
    for what in ("missing_seqs", "gaps", "state", "last_seq", "torn_bytes"):
        assert getattr(before, what) == getattr(after, what), what
    if before.state != "holes" and not scan.bad_count:
        assert found.scan.events == scan.events


@pytest.mark.parametrize("odd", [line(1), line("no number"), b"no event\n", b"\n", b"\xef\xbb\xbf" + line(2)])
def test_lines_that_no_writer_of_ours_wrote(tmp_path: Path, odd: bytes) -> None:
    """Then every line is decoded."""
    path = tmp_path / NAME
    path.write_bytes(line(0) + line(1) + odd + line(2))
    found, scan = survey_chunk(path, "n").scan, scan_chunk(path, "n")
    assert (found.events, found.seqs, found.repeated) == (scan.events, scan.seqs, scan.repeated)


def seq_after(last: bytes, seq: int) -> int:
    """The `seq` that comes after a line."""
    try:
        found = json.loads(last)["seq"]
    except (ValueError, KeyError):
        return seq
    return int(found) + 1 if isinstance(found, int) else seq


def test_lines_longer_than_a_block(tmp_path: Path) -> None:
    """A control line is found wherever a block ends."""
    path = tmp_path / NAME
    big = [line(n, pad="x" * 700_000) for n in range(5)]
    path.write_bytes(b"".join([*big, control(6, "gap", count=1, seqs=[[5, 5]], cause="full")]))
    found = survey_chunk(path, "n").scan
    assert (found.events, [gap.count for gap in found.gaps]) == (6, [1])
    assert found.seqs in ([[0, 6]], [[0, 4], [6, 6]])  # the gap line tells of what is between


def test_chunks_that_cannot_be_read(tmp_path: Path) -> None:
    """One that was sealed since is found; one that is gone is left out; a folder of that name is said."""
    (tmp_path / NAME).write_bytes(line(0))
    folder = NAME.replace("0000.jsonl", "0001.jsonl")
    (tmp_path / folder).mkdir()
    gone = NAME.replace("0000.jsonl", "0002.jsonl")
    found = survey_chunks(tmp_path, [NAME + ".open", folder, gone], "n")
    assert sorted(found) == [NAME + ".open", folder]
    assert ("Permission denied" if os.name == "nt" else "regular file") in str(found[folder])
    with pytest.raises(CalyxError):
        survey_chunk(tmp_path / folder, "n")


def test_verdicts_from_best_to_worst() -> None:
    """Missing events outweigh lost ones, and these an unknown tail; `--strict` forgives neither."""
    audits = [
        NodeAudit("n"),
        NodeAudit("n", writers=[WriterAudit("a", "unfinished")], goes_on=True),
        NodeAudit("n", writers=[WriterAudit("a", "tail unknown")]),
        NodeAudit("n", writers=[WriterAudit("a", "tail unknown"), WriterAudit("b", gaps={"full": 1})]),
        NodeAudit("n", writers=[WriterAudit("a", gaps={"full": 1500, "odd": 1})]),
        NodeAudit("n", writers=[WriterAudit("a", gaps={"full": 2})], bad_lines=1),
        NodeAudit("n", writers=[WriterAudit("a", "holes", missing_seqs=[[1, 2], [4, 4]], missing_chunks=[[0, 0]])]),
        NodeAudit("n", writers=[WriterAudit("a", "unfinished")]),
    ]
    texts = [str(audit.verdict) for audit in audits]
    assert texts == [
        "complete",
        "complete so far",
        "complete but for unknown tails",
        "1 event lost",
        "1,501 events lost",
        "incomplete: 1 bad line; 2 events lost",
        "incomplete: 1 chunk missing, 3 events missing",
        "incomplete: 1 writer without an end",
    ]
    verdicts = [audit.verdict for audit in audits]
    assert [one.exit_code(strict=False) for one in verdicts] == [0, 0, 0, 0, 0, 1, 1, 1]
    assert [one.exit_code(strict=True) for one in verdicts] == [0, 0, 1, 1, 1, 1, 1, 1]
    assert [worst(verdicts[: n + 1]) for n in range(6)] == verdicts[:6]
    assert worst([]) == Verdict("complete")
