"""A chunk's figures are the same by position and by parsing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calyx_logging.core import reading
from calyx_logging.core.times import utc_text
from calyx_logging.events.event import encode, with_seq
from calyx_logging.format import chunk_stats
from calyx_logging.format.chunk_stats import ChunkStats, stats_of
from calyx_logging.format.line_check import scan_chunk

OURS = "20260101_000000__x__0123abcd-0000.jsonl"
MARK = b"\xef\xbb\xbf"
FIGURES = ("size", "events", "bad_lines", "first_ts_utc", "last_ts_utc", "first_seq", "last_seq", "node_ids")


def line(seq: int, seconds: float = 1_700_000_000.0, node_id: str = "node", **fields: object) -> bytes:
    event = {"node_id": node_id, "ts_utc": utc_text(seconds), "event_id": "id", "source": "s", **fields}
    return with_seq(encode(event), seq)


def by_parsing(data: bytes) -> ChunkStats:
    stats = ChunkStats(size=len(data))
    for each in data.removeprefix(MARK).split(b"\n"):
        stats._see(each)
    return stats


def assert_same(data: bytes) -> None:
    found, expected = stats_of(io.BytesIO(data), OURS), by_parsing(data)
    assert [getattr(found, name) for name in FIGURES] == [getattr(expected, name) for name in FIGURES]


ours = st.builds(
    line,
    st.integers(0, 120),
    st.floats(0, 2e9),
    st.sampled_from(["node", "node", "node", "other-node"]),
    text=st.text(),
    deep=st.just({"seq": 7, "node_id": "x"}),
)
odd = st.sampled_from(
    [
        b"\n",
        b" \n",
        b"no json\n",
        b"[1]\n",
        b'{"node_id":"node"}\n',
        b'{"node_id":"node","ts_utc":"2026-11-22T08:00:00.000000+00:00"}\n',
        b'{"node_id":"node","ts_utc":"2026-11-22T08:00:00.000000+00:00","seq":-5}\n',
        b'{"node_id":"node","ts_utc":"2026-11-22T08:00:00.000000+00:00","seq":1e9}\n',
        b'{"node_id":"node","ts_utc":"2026-11-22T08:00:00+02:00","seq":5}\n',
        b'{"node_id":"node","ts_utc":"yesterday","seq":5}\n',
        b'{"node_id":"node","ts_utc":"2026-11-22T08:00:00.000000+00:00","seq":007}\n',
        b'{"node_id":"node","ts_utc":"2026-11-22T08:00:00.000000+00:00","seq":' + b"9" * 5000 + b"}\n",
        b'{"node_id":"node","ts_utc":null,"seq":5}\n',
        b'{"node_id":"node", "ts_utc":"2026-11-22T08:00:00.000000+00:00","seq":5}\r\n',
        b'\xef\xbb\xbf{"node_id":"node","seq":5}\n',
    ]
)


@given(
    lines=st.lists(ours, max_size=30) | st.lists(ours | odd, max_size=30),
    torn=st.binary(max_size=40) | st.just(b""),
    block=st.integers(50, 3000),
)
def test_by_position_as_by_parsing(lines: list[bytes], torn: bytes, block: int) -> None:
    """Both methods agree for any lines and any block boundaries."""
    before, reading.BLOCK = reading.BLOCK, block
    try:
        assert_same(b"".join(lines) + torn)
    finally:
        reading.BLOCK = before


def test_lines_alike_are_read_by_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uniform lines are read by position, and none is parsed."""
    data = b"".join(line(seq, 1_700_000_000 + seq, text="x" * 100) for seq in range(1000, 9999))
    expected = by_parsing(data)
    monkeypatch.setattr(chunk_stats, "decode", None)
    found = stats_of(io.BytesIO(data), OURS)
    assert [getattr(found, name) for name in FIGURES] == [getattr(expected, name) for name in FIGURES]
    assert (found.first_seq, found.last_seq, found.events) == (1000, 9998, 8999)


def test_memory_stays_flat(tmp_path: Path) -> None:
    """A chunk of 200 MB is read with only a few blocks in memory at a time."""
    import tracemalloc

    path = tmp_path / "large"
    with path.open("wb") as stream:
        part = b"".join(line(seq, text="x" * 900) for seq in range(1000, 2000))
        for _ in range(200):
            stream.write(part)
    tracemalloc.start()
    with path.open("rb") as stream:
        assert stats_of(stream, OURS).events == 200_000
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()


def test_other_peoples_chunks_are_parsed() -> None:
    """A damaged line in a foreign chunk is found, whatever its beginning and end."""
    data = b"".join(line(seq) for seq in range(10, 20)).replace(b'"event_id"', b"\x00event_id", 1)
    assert stats_of(io.BytesIO(data), "foreign.jsonl").bad_lines == 1


@pytest.mark.parametrize("data", [MARK, MARK + b"\n", b"\n" + MARK + b"\n", MARK + b"{}\n" + MARK + b"{}\n"])
def test_byte_order_marks(tmp_path: Path, data: bytes) -> None:
    """A byte order mark is skipped at the beginning and makes a line bad elsewhere; both readers agree."""
    path = tmp_path / "other.jsonl"
    path.write_bytes(data)
    scan = scan_chunk(path, "n-1")
    with path.open("rb") as stream:
        stats = stats_of(stream, path.name)
    assert stats.events == scan.events + scan.bad_count
    assert stats.events == len([line for line in data.removeprefix(MARK).splitlines() if line.strip()])
