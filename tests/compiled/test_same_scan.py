"""The compiled core and the Python code read chunks alike: sound ones, and whatever somebody made of them."""

from __future__ import annotations

import io
import json
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from calyx_logging.compiled import CORE
from calyx_logging.core import reading
from calyx_logging.events.event import control_event, decode, encode, with_seq
from calyx_logging.format import chunk_stats, line_check, plain_lines
from calyx_logging.format.chunk import MAX_LINE

pytestmark = pytest.mark.skipif(CORE is None, reason="no compiled core is installed")

OURS, THEIRS = "20261122_080000__harness__3f9a1c20-0000.jsonl", "session.jsonl"
BEGIN = b'{"node_id":"n","ts_utc":"'


@contextmanager
def in_python() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_stats, "CORE", None)
        patch.setattr(plain_lines, "CORE", None)
        yield


def line(seq: int | None = 0, **fields: Any) -> bytes:
    stamped = {
        "node_id": "n",
        "ts_utc": f"2026-11-22T08:00:00.{(seq or 0) % 1_000_000:06d}+00:00",
        "event_id": f"id-{seq}",
        "source": "bench_harness",
        "level": "info",
    }
    found = encode({**stamped, **fields})
    return found + b"\n" if seq is None else with_seq(found, seq)


def both_stats(data: bytes, name: str, block: int = reading.BLOCK) -> tuple[Any, Any]:
    found = []
    for context in (None, in_python()):
        stats = chunk_stats.stats_for(name)
        with context or pytest.MonkeyPatch.context():
            for _ in stats.through(data[at : at + block] for at in range(0, len(data), block)):
                pass
        found.append((stats.entry(name), stats.node_ids, stats.bad_lines, stats.controls))
    return found[0], found[1]


def both_scans(path: Path) -> tuple[Any, Any]:
    found = []
    for context in (None, in_python()):
        with context or pytest.MonkeyPatch.context():
            scan = line_check.scan_chunk(path, "n", with_ids=True)
        ids = scan.ids if scan.ids is not None else array("q")
        found.append((scan.document(), sorted(ids)))
    return found[0], found[1]


def assert_same_in_one_pass(path: Path, node_id: str) -> None:
    """Stats and scan taken in one pass are those of a pass each."""
    for context in (pytest.MonkeyPatch.context(), in_python()):
        with context, path.open("rb") as stream:
            alone = chunk_stats.stats_of(stream, path.name)
            scan = line_check.scan_chunk(path, node_id)
            both = chunk_stats.stats_for(path.name, scanned_for=node_id)
            assert b"".join(both.through([path.read_bytes()])) == path.read_bytes()
        assert both.entry(path.name) == alone.entry(path.name)
        assert (both.bad_lines, both.controls, both.node_ids) == (alone.bad_lines, alone.controls, alone.node_ids)
        assert both.scanner is not None
        assert both.scanner.result().document() == scan.document()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.text(min_size=1).map("x".__add__), JSON, max_size=4)
SOUND = st.builds(line, st.integers(0, 10**6) | st.none(), message=st.text()) | st.builds(
    lambda seq, fields: line(seq, **fields), st.integers(0, 10**18), FIELDS
)
CONTROLS = st.integers(0, 99).map(
    lambda seq: with_seq(control_event("n", "gap", 1.5, "m", count=1, seqs=[[1, 1]]), seq)
)
TEXTS = st.sampled_from(
    [
        *(b'{"seq":1}\n', b"\n", b"  \n", b"null\n", b"[]\n", b"x" * 70 + b"\n", b"\xef\xbb\xbf{}\n"),
        line(3).replace(b'"n"', b'"other"'),
        line(3).replace(b'"level":"info"', b'"node_id":"n"'),
        line(3).replace(b'"level":"info"', b'"node\\u005fid":"evil"'),
        line(3).replace(b'"level":"info"', b'"seq":7'),
        line(3).replace(b'"level":"info"', b'"level":"\\ud800"'),
        line(3).replace(b'"level":"info"', b'"level":"\\ud83d\\ude00"'),
        line(3).replace(b'"level":"info"', b'"level":"\xed\xa0\x80"'),
        line(3).replace(b'"level":"info"', b'"level":01'),
        line(3).replace(b'"level":"info"', b'"level":1e999'),
        line(3).replace(b'"level":"info"', b'"level":-'),
        line(3).replace(b'"level":"info"', b'"level":1.'),
        line(3).replace(b'"level":"info"', b'"level":"a\tb"'),
        line(3).replace(b'"level":"info"', b'"level":' + b"[" * 1500 + b"]" * 1500),
        line(3).replace(b'"level":"info"', b'"level":nul'),
        line(3).replace(b'"level":"info"', b'"level":' + b"9" * 400),
        line(3).replace(b"id-3", b"id\\n3"),
        line(3).replace(b"bench_harness", b""),
        line(3).replace(b"bench_harness", b"calyx_logging"),
        line(3).replace(b'"seq":3', b'"seq":-3'),
        line(3).replace(b'"seq":3', b'"seq":03'),
        line(3).replace(b'"seq":3', b'"seq":9223372036854775807'),
        line(3).replace(b'"seq":3', b'"seq":9223372036854775808'),
        line(3).replace(b'"seq":3', b'"seq":"3"'),
        line(3).replace(b'"seq":3', b'"seq": 3'),
        line(3).replace(b"+00:00", b"+01:00"),
        line(3).replace(b"08:00:00", b"08:00:0x"),
        line(3)[:-2] + b"}}\n",
        line(3)[:-2] + b"\n",
        line(3)[:-2] + b"} \n",
    ]
)


@st.composite
def altered(draw: Any) -> bytes:
    """A sound line with some of its bytes changed, cut out or put twice."""
    found = bytearray(draw(SOUND))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(found) - 1))
        kind = draw(st.sampled_from(("change", "delete", "insert", "double")))
        if kind == "change":
            found[at] = draw(st.integers(0, 255))
        elif kind == "delete":
            del found[at : at + draw(st.integers(1, 9))]
        elif kind == "insert":
            found[at:at] = draw(
                st.sampled_from((b'"', b"\\", b"{", b"}", b",", b"\n", b'"node_id":"n",', b"\x00", b"\xff"))
            )
        else:
            found[at:at] = found[at : at + 20]
        found = found or bytearray(b"\n")
    return bytes(found)


@settings(max_examples=400)
@given(st.lists(SOUND | CONTROLS, max_size=30), st.sampled_from((64, 1000, reading.BLOCK)))
def test_sound_chunks_of_ours(lines: list[bytes], block: int) -> None:
    """Figures of the manifest, from blocks of any size, of lines in any order."""
    compiled, python = both_stats(b"".join(lines), OURS, block)
    assert compiled == python


@settings(max_examples=1000)
@given(st.lists(SOUND | CONTROLS | TEXTS | altered(), max_size=8), st.sampled_from((64, reading.BLOCK)))
@example([b"\xef\xbb\xbf" + line(0), line(1)[:-1]], 64)
def test_chunks_of_others(lines: list[bytes], block: int) -> None:
    """Figures of the manifest, of any bytes."""
    compiled, python = both_stats(b"".join(lines), THEIRS, block)
    assert compiled == python


@settings(max_examples=1500)
@given(st.lists(SOUND | CONTROLS | TEXTS | altered(), max_size=8))
def test_what_is_found_in_lines(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    """Events, bad lines and why, runs of seq, ends, gaps, ids: of any bytes."""
    path = tmp_path_factory.getbasetemp() / "scanned.jsonl"
    path.write_bytes(b"".join(lines))
    compiled, python = both_scans(path)
    assert compiled == python


@settings(max_examples=600)
@given(
    st.lists(SOUND | CONTROLS | TEXTS | altered(), max_size=8), st.sampled_from((OURS, THEIRS)), st.sampled_from("no")
)
def test_one_pass_finds_what_two_do(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], name: str, node_id: str
) -> None:
    """Stats and scan of a chunk taken together, of the node's and of another's, ours and foreign."""
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(b"".join(lines))
    assert_same_in_one_pass(path, node_id)


@settings(max_examples=3000)
@given(SOUND | TEXTS | altered())
def test_what_the_core_calls_plain_is_an_event(data: bytes) -> None:
    """A plain line is JSON to two other parsers, with each stamped field once."""
    events, *_, others, hashes = CORE.scan(data, BEGIN, True, True)
    assert events + len(others) == data.count(b"\n") + (not data.endswith(b"\n"))
    bad = {start for _, start, _ in others}
    at = 0
    for found in data.removesuffix(b"\n").split(b"\n"):
        if at not in bad:
            event = orjson.loads(found)
            assert event["node_id"] == "n"
            names = json.loads(found, object_pairs_hook=lambda pairs: [name for name, _ in pairs])
            assert all(names.count(name) == 1 for name in ("node_id", "ts_utc", "event_id", "source"))
            assert decode(found) == event
            assert hash(event["event_id"]) in hashes
        at += len(found) + 1


def test_lines_that_span_blocks(tmp_path: Path) -> None:
    """Larger than a block, larger than what the core takes, larger than what anybody takes."""
    lines = [
        line(0),
        line(1, pad="x" * 700_000),
        line(2),
        line(3, pad="é" * 1_200_000),
        line(4),
        b"x" * (MAX_LINE + 1) + b"\n",
        line(5),
    ]
    path = tmp_path / OURS
    path.write_bytes(b"".join(lines))
    compiled, python = both_scans(path)
    assert compiled == python
    assert (compiled[0]["events"], compiled[0]["bad_count"], compiled[0]["seqs"]) == (6, 1, [[0, 5]])
    assert [bad["line"] for bad in compiled[0]["bad"]] == [6]
    first, second = both_stats(path.read_bytes(), OURS)
    assert first == second


def test_lines_are_numbered_as_they_stand() -> None:
    """The readers that do not check lines find the same both ways, too."""
    data = line(0) + b"\n" + line(1) + b"x" * (MAX_LINE + 1) + b"\n" + line(2)
    assert [number for number, _ in line_check.numbered_lines(io.BytesIO(data))] == [1, 3, 5]
