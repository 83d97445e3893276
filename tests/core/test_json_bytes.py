"""The Python way of JSON writes, reads and refuses as orjson does; ids of events increase whoever makes them."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calyx_logging.core import json_bytes
from calyx_logging.core.uuid7 import _Source

orjson = pytest.importorskip("orjson")


class _Colour(enum.Enum):
    RED = 1


class _Text(str):
    __slots__ = ()


class _Mapping(dict):  # type: ignore[type-arg]
    pass


@dataclasses.dataclass
class _Point:
    x: int = 1
    _hidden: int = 2


def nested(levels: int) -> Any:
    found: Any = []
    for _ in range(levels - 1):
        found = [found]
    return found


def outcome(function: Callable[..., Any], *args: Any) -> Any:
    """Return the result of a call, or `refused`."""
    try:
        return function(*args)
    except (TypeError, ValueError):
        return "refused"


OPTIONS = [
    0,
    orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE,
    orjson.OPT_NON_STR_KEYS,
    orjson.OPT_SORT_KEYS,
    orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS,
]
VALUES: list[Any] = [
    *(1, 1.5, None, True, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, math.nan, math.inf, -0.0),
    *('\u2028é\x7f\x00\n"\\', "\ud800", b"x", {1, 2}, object(), (1, (2, 3)), {"b": [], "a": {}}),
    *(_Colour.RED, _Text("x"), _Mapping(a=1), _Point(), uuid.UUID(int=5)),
    *({1: 2}, {_Text("k"): 1}, {_Colour.RED: 1}, {None: 1}, {True: 1}),
    *(datetime.date(2020, 1, 1), datetime.time(1, 2), datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)),
    *(nested(253), nested(254), nested(255), [nested(254)]),
]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("default", [None, lambda value: f"<{type(value).__name__}>"])
def test_values_are_written_alike(option: int, default: Any) -> None:
    """To the byte, or refused by both."""
    for number, value in enumerate(VALUES):
        expected = outcome(orjson.dumps, value, default, option)
        assert outcome(json_bytes._dumps, value, default, option) == expected, number


@pytest.mark.parametrize(
    "text",
    [
        *(
            b"",
            b" ",
            b"1",
            b"{",
            b'"\\ud800"',
            b'"\\ud83d\\ude00"',
            b'"\\uDBFF\\u0041"',
            b"NaN",
            b"-Infinity",
            b"1e999",
        ),
        *(b"18446744073709551616", b"-9223372036854775809", b"1" * 400, b'"\x00"', b'"\xff"', b"\xef\xbb\xbf1", b"01"),
        *(
            b"1.",
            b"-",
            b"1 2",
            b"[1,]",
            b'{"a":1,"a":2}',
            b"[" * 1025 + b"]" * 1025,
            b"[" * 100_000,
            b'"\\x"',
            b"1e-400",
        ),
    ],
)
def test_texts_are_read_alike(text: bytes) -> None:
    """To the same value, or refused by both."""
    assert repr(outcome(json_bytes._loads, text)) == repr(outcome(orjson.loads, text))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(-1e4, 1e4, width=32) | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
    max_leaves=20,
)


@given(_JSON)
def test_any_value_goes_there_and_back(value: Any) -> None:
    """Each reads what the other writes; texts and integers are the same bytes."""
    ours, theirs = json_bytes._dumps(value), orjson.dumps(value)
    assert json_bytes._loads(theirs) == orjson.loads(ours) == json.loads(theirs)
    if b"." not in theirs:
        assert ours == theirs


@given(st.binary(max_size=40))
def test_any_bytes_are_judged_alike(data: bytes) -> None:
    """Both accept the same bytes as JSON."""
    assert repr(outcome(json_bytes._loads, data)) == repr(outcome(orjson.loads, data))


def test_a_program_without_either_library() -> None:
    """The package is imported, logs and reads without orjson and uuid-utils."""
    code = (
        "import sys; sys.modules['orjson'] = sys.modules['uuid_utils'] = None\n"
        "from calyx_logging.core import json_bytes\n"
        "assert not json_bytes.IS_ORJSON\n"
        "from calyx_logging.scripts.cli import main\n"
        "sys.argv[1:] = ['smoke-test']\n"
        "main()\n"
    )
    for pure in ({}, {"CALYX_PURE": "1"}):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **pure}, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout.endswith("PASSED\n")) == (0, True), done.stdout + done.stderr


def test_ids_increase() -> None:
    """In one thread, by several at once without a repetition, and when the clock is set back."""
    source = _Source()
    ids = [source() for _ in range(5000)]
    assert ids == sorted(ids)
    assert {(one.version, one.variant) for one in ids} == {(7, uuid.RFC_4122)}
    source._milliseconds += 10_000
    later = source()
    assert later > ids[-1]
    source._counter = 2**42 - 1
    assert source() > later
    found: list[uuid.UUID] = []
    threads = [threading.Thread(target=lambda: found.extend(source() for _ in range(1000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 4000
