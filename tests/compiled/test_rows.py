"""The core's rows of the hub's table are those that Python makes, or it leaves the line to Python."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calyx_logging.compiled import CORE

pytest.importorskip("pyarrow")

from calyx_logging.query import rows

pytestmark = pytest.mark.skipif(CORE is None, reason="the compiled core is not in use")

NODE = "n-1"
BEGIN = '{"node_id":"n-1","ts_utc":"%s","event_id":"%s","source":"%s"'
USUAL = "2026-01-31T23:59:59.123456+00:00"
NAMES = (
    *(
        "level",
        "logger",
        "message",
        "control",
        "run_id",
        "run_instance_id",
        "suite",
        "stage",
        "case_id",
    ),
    *(
        "decision_type",
        "score",
        "model",
        "outcome",
        "exit_status",
        "passed",
        "duration_s",
        "cases_expected",
    ),
    *(
        "exception_type",
        "resumed_as",
        "exception",
        "seq",
        "node_id",
        "event_id",
        "a",
        "b",
        "aa",
        "über",
        "z z",
        "Score",
    ),
    *("ts_utc",),
)
NUMBERS = (
    *(
        "0",
        "-0",
        "0.0",
        "-0.0",
        "1",
        "-1",
        "5.0",
        "5.00",
        "0.1",
        "0.10",
        "1e5",
        "1E-5",
        "1e400",
        "0.0001",
    ),
    *(
        "0.00001",
        "123456789012345.0",
        "1234567890123456.0",
        "12345678901234567.0",
        "0.1234567890123456",
    ),
    *(
        "0.12345678901234567",
        "9007199254740993",
        "99999999999999999",
        "999999999999999999",
    ),
    *(
        "123456789012345678901",
        "3.141592653589793",
        "2.675",
        "274.0817246314956",
        "274.08172463149561",
    ),
    *(
        "1000000000000",
        "1000000000001",
        "-2.5",
        "1.7976931348623157",
    ),
)
TEXTS = (
    *(
        '""',
        '"x"',
        '"true"',
        '"False"',
        '"TRUE"',
        '"nan"',
        '"inf"',
        '"-1.5"',
        '"1_000"',
        '" 1"',
        '"1e3"',
    ),
    *(
        '"1.2.3"',
        '"+5"',
        '"\\n\\t\\"\\\\"',
        '"\\/"',
        '"\\u0041"',
        '"\\u0007"',
        '"\\u000a"',
        '"\\u001f"',
    ),
    *(
        '"\\u001F"',
        '"\\u00e9"',
        '"é"',
        '"\U0001f600"',
        '"\\ud83d\\ude00"',
        '"\x7f"',
        '"000000000000000000"',
    ),
    *(
        '"00000000000000000"',
        '"high"',
        '"5.0"',
        '"9e99"',
    ),
)
OTHERS = (
    *(
        "null",
        "true",
        "false",
        "[]",
        "{}",
        "[1,2]",
        '{"a":1,"b":2}',
        '{"b":1,"a":2}',
        '{"a":1,"a":2}',
    ),
    *(
        '{"\\u0061":1}',
        '{"a":{"d":1,"c":2}}',
        '{"a":1, "b":2}',
        "[0.10]",
    ),
    *(
        '[{"type":"ValueError","value":"x","frames":[]}]',
        "[[[]]]",
    ),
)
TIMES = (
    *(
        USUAL,
        "2024-02-29T00:00:00.000000+00:00",
        "2023-02-29T00:00:00.000000+00:00",
    ),
    *(
        "0001-01-01T00:00:00.000000+00:00",
        "0000-01-01T00:00:00.000000+00:00",
    ),
    *(
        "9999-12-31T23:59:59.999999+00:00",
        "1969-12-31T23:59:59.999999+00:00",
    ),
    *(
        "2026-13-01T00:00:00.000000+00:00",
        "2026-01-01T24:00:00.000000+00:00",
    ),
    *(
        "2026-01-01T00:00:60.000000+00:00",
        "2026-01-01T00:00:00+00:00",
        "2026-01-01T02:00:00.000000+02:00",
    ),
    *(
        "1900-02-28T12:00:00.000001+00:00",
        "2000-02-29T12:30:15.5+00:00",
        "2026-04-31T00:00:00.000000+00:00",
    ),
    *("no time at all",),
)


def line_of(fields: Sequence[tuple[str, str]], when: str = USUAL, event_id: str = "id", source: str = "s") -> bytes:
    """A line of our writers' form, with fields that are written as they are given."""
    return (BEGIN % (when, event_id, source) + "".join(f',"{name}":{text}' for name, text in fields) + "}").encode()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3),
    max_leaves=8,
)
written = st.sampled_from((*NUMBERS, *TEXTS, *OTHERS)) | st.builds(
    lambda value, is_ascii: json.dumps(value, ensure_ascii=is_ascii, separators=(",", ":")), json_values, st.booleans()
)
lines = st.builds(
    lambda when, event_id, source, fields: line_of(fields, when, event_id, source),
    st.sampled_from((*(USUAL,) * 10, *TIMES)),
    st.sampled_from(["id-1", "018f", "ü"]),
    st.sampled_from(["bench_harness", "bench_harness", "calyx_logging"]),
    st.lists(st.tuples(st.sampled_from(NAMES), written), max_size=6),
)
odd_lines = st.sampled_from(
    [b"", b" ", b"no json", b"{}", b'{"node_id":"n-2"}', b"\xff", b'{"node_id":"n-1","ts_utc":"']
)


def table_of(path: Path) -> list[str]:
    """The rows of a chunk, in the order of its lines, as text that tells -0.0 from 0.0 and 1 from True."""
    found = [row for batch in rows.batches_of(path, NODE, bundle="b") for row in batch.to_pylist()]
    return [repr(row) for row in sorted(found, key=lambda row: row["line"])]


def both(path: Path) -> tuple[list[str], list[str]]:
    """The rows of the core and Python, and those of Python alone."""
    mixed = table_of(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "plain_rows", lambda *args: None)
        return mixed, table_of(path)


@settings(max_examples=1500, deadline=None)
@given(st.lists(lines | odd_lines, max_size=8), st.booleans())
def test_the_same_rows(tmp_path_factory: pytest.TempPathFactory, some: list[bytes], is_ended: bool) -> None:
    """Lines of any kind, among others, in a chunk with or without a newline at its end."""
    path = tmp_path_factory.getbasetemp() / "chunk.jsonl"
    path.write_bytes(b"\n".join(some) + b"\n" * is_ended)
    mixed, alone = both(path)
    assert mixed == alone


@pytest.mark.parametrize("name", NAMES)
def test_each_field_with_each_value(tmp_path: Path, name: str) -> None:
    """A field of each name with everything that is written in some other way, and twice."""
    path = tmp_path / "chunk.jsonl"
    values = (*NUMBERS, *TEXTS, *OTHERS)
    some = [line_of([(name, value)], when) for value in values for when in (USUAL, TIMES[2])]
    path.write_bytes(b"\n".join([*some, line_of([(name, "1"), ("x", "2"), (name, "3")])]))
    mixed, alone = both(path)
    assert mixed == alone


def test_times(tmp_path: Path) -> None:
    """Each day of four centuries around leap years, and times that are none."""
    path = tmp_path / "chunk.jsonl"
    years = (1, 4, 1600, 1700, 1900, 1970, 2000, 2023, 2024, 2100, 9999)
    days = [(year, month, day) for year in years for month in range(14) for day in range(33)]
    texts = [f"{year:04d}-{month:02d}-{day:02d}T01:02:03.000004+00:00" for year, month, day in days]
    path.write_bytes(b"\n".join(line_of([], when) for when in (*TIMES, *texts)))
    mixed, alone = both(path)
    assert mixed == alone


def test_what_the_core_does_itself(tmp_path: Path) -> None:
    """Usual lines are not left to Python: a core that left all would pass the tests above."""
    from calyx_logging.query._core_rows import plain_rows

    fields = [("level", '"info"'), ("message", '"caf\\u0007\u00e9 \\"x\\""'), ("score", "0.5"), ("passed", "true")]
    fields += [("tokens", '{"in":1,"out":[2.5,null]}'), ("seq", "7")]
    block = (line_of(fields) + b"\n") * 3
    found = plain_rows(memoryview(block), NODE, 11, rows.schema())
    assert found is not None
    count, columns, others = found
    assert (count, others) == (3, [])
    assert columns["line"].to_pylist() == [11, 12, 13]
    assert columns["message"][0].as_py() == 'caf\x07é "x"'
    assert columns["rest"][0].as_py() == '{"passed":true,"tokens":{"in":1,"out":[2.5,null]}}'


def test_many_and_large(tmp_path: Path) -> None:
    """Many blocks, a line that spans them, texts of a megabyte, three hundred fields, and an open chunk."""
    path = tmp_path / "chunk.jsonl.open"
    some = [line_of([("message", '"' + "x" * (n % 700) + '"'), ("seq", str(n))]) for n in range(3000)]
    some[1000] = line_of([("message", '"' + "y" * 900_000 + '"')])
    some[1001] = line_of([("message", '"' + "\\n" * 600_000 + '"')])
    some[1002] = line_of([(f"f{n}", str(n)) for n in range(300)])
    some[1003] = line_of([(f"f{n}", str(n)) for n in range(252)])
    path.write_bytes(b"\n".join([*some, some[0][:-5]]))
    mixed, alone = both(path)
    assert mixed == alone
    assert len(mixed) == 3000
