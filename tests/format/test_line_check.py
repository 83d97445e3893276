"""The line check decides which lines are events of the node, and what they say about their writer."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calyx_logging.format import chunk_stats, line_check
from calyx_logging.format.chunk_stats import stats_of
from calyx_logging.format.line_check import Scan, numbered_lines, scan_chunk, what_is_wrong

STAMP = {"node_id": "n-1", "ts_utc": "2026-01-01T00:00:00.000000+00:00", "event_id": "e", "source": "s"}


def line(**fields: object) -> bytes:
    """Make a line as our writers do."""
    return json.dumps({**STAMP, **fields}, separators=(",", ":")).encode()


@pytest.mark.parametrize("name", STAMP)
def test_a_stamped_field_that_is_there_twice(name: str) -> None:
    """A stamped field that occurs twice makes a line bad (readers differ), unless both values are equal."""
    plain = line(n=1, seq=3)
    assert what_is_wrong(plain, "n-1") is None
    for twice in (
        plain.replace(b"{", b'{"%s":"x",' % name.encode()),
        plain.replace(b'"n":1', b'"%s":"x"' % name.encode())
        if name != "node_id"
        else plain.replace(b"{", b'{"node_id":"n-2",'),
        plain.replace(b"{", b'{"%s\\u00%02x":"x",' % (name[:-1].encode(), ord(name[-1]))),
    ):
        assert what_is_wrong(twice, "n-1") in (f"{name} twice", "node_id is 'n-2'")
    same = plain.replace(b'"n":1', json.dumps({name: STAMP[name]})[1:-1].encode())
    assert what_is_wrong(same, "n-1") in (None, f"{name} twice")
    inside = plain.replace(b'"n":1', b'"n":{"%s":"x"}' % name.encode())
    assert what_is_wrong(inside, "n-1") is None


@given(
    st.dictionaries(st.sampled_from([*STAMP, "n", "seq"]), st.one_of(st.text(max_size=3), st.integers(), st.none())),
    st.booleans(),
)
def test_the_quick_way_and_the_other_agree(fields: dict[str, object], spaced: bool) -> None:
    """The fast and the slow check agree for any order, spacing and values."""
    document = {**STAMP, **fields}
    data = json.dumps(document).encode() if spaced else line(**fields)
    is_event = document["node_id"] == "n-1" and all(isinstance(document[k], str) and document[k] for k in STAMP)
    try:
        import orjson

        orjson.loads(data)
    except ValueError:
        is_event = False
    assert (what_is_wrong(data, "n-1") is None) == is_event


def test_seq_in_any_order(tmp_path: Path) -> None:
    """The scan gives runs of `seq`, and how often one occurred again."""
    path = tmp_path / "c.jsonl"
    path.write_bytes(b"".join(line(seq=seq) + b"\n" for seq in [2, 0, 1, 7, 7, 1, 9, 8, -1, True, 2**70, "3"]))
    found = scan_chunk(path, "n-1")
    assert (found.seqs, found.repeated) == ([[0, 2], [7, 9]], 2)
    assert Scan.of_document(json.loads(json.dumps(found.document()))) == found


def test_a_line_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is too long is one bad line for both readers, never wholly in memory, and harms no other."""
    monkeypatch.setattr(line_check, "MAX_LINE", 3_000_000)
    monkeypatch.setattr(chunk_stats, "MAX_LINE", 3_000_000)
    path = tmp_path / "c.jsonl"
    for before, after in ((b"", b""), (line(seq=0) + b"\n", b"\n" + line(seq=1) + b"\n"), (b"", b"\n" + line(seq=1))):
        for length in (2_000_000, 9_000_000):
            path.write_bytes(before + line(pad="x" * length) + after)
            found = scan_chunk(path, "n-1")
            count = 1 + (b"seq" in before) + (b"seq" in after)
            assert (found.events + found.bad_count, found.bad_count) == (count, int(length > 3_000_000))
            if found.bad:
                assert (found.bad[0].line, "longer than" in found.bad[0].why) == (1 + (b"seq" in before), True)
            with path.open("rb") as stream:
                assert stats_of(stream, "c.jsonl").events == count


def test_numbers_and_empty_lines() -> None:
    """Empty lines are numbered but not returned; a byte order mark is not part of the first line."""
    stream = io.BytesIO(b"\xef\xbb\xbfone\n\n  \ntwo\r\n\nthree")
    assert list(numbered_lines(stream)) == [(1, b"one"), (4, b"two\r"), (6, b"three")]
