"""Any object is converted to JSON by rule, and every alteration is named."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import pathlib
import uuid
from collections import OrderedDict, defaultdict, deque, namedtuple
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import attrs
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calyx_logging.events.event import decode, encode


def through(value: Any) -> Any:
    """Return a value as read back from its line, which must be valid."""
    line = encode({"v": value})
    assert b"\n" not in line
    json.loads(line.decode())
    return decode(line)


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    def __str__(self) -> str:
        return "a disguise"


class Point(namedtuple("Point", "x y")):
    pass


@dataclasses.dataclass
class Data:
    a: int
    _b: Any
    c: list[int] = dataclasses.field(default_factory=list)


@attrs.define
class Attrs:
    x: int
    y: Any


class Model(pydantic.BaseModel):
    name: str
    when: datetime


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2026-01-02T03:04:05.000006+00:00"),
        (datetime(2026, 1, 2), "2026-01-02T00:00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (time(1, 2), "01:02:00"),
        (timedelta(minutes=1.5), 90.0),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Data(1, None, [2]), {"a": 1, "_b": None, "c": [2]}),
        (Attrs(1, date(2026, 1, 2)), {"x": 1, "y": "2026-01-02"}),
        (Model(name="m", when=datetime(2026, 1, 2)), {"name": "m", "when": "2026-01-02T00:00:00"}),
        (Decimal("1.10"), "1.10"),
        (Fraction(1, 3), "1/3"),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset("ba"), ["a", "b"]),
        (b"\x00\xff", "AP8="),
        (bytearray(b"hi"), "aGk="),
        (ValueError("bad"), "ValueError: bad"),
        ((1, "a"), [1, "a"]),
        (Point(1, 2), [1, 2]),
        (deque([1]), [1]),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (Text("plain"), "plain"),
        (type("I", (int,), {})(5), 5),
        (type("F", (float,), {})(0.5), 0.5),
        ("nul \x00 and \u2028", "nul \x00 and \u2028"),
        (2**64 - 1, 2**64 - 1),
        (-(2**63), -(2**63)),
    ],
)
def test_what_is_written_by_rule_is_not_degraded(value: Any, written: Any) -> None:
    """The conversions in the table of docs/format.md are not degraded, at the top or inside a list."""
    assert through(value) == {"v": written}
    assert through([{"deep": value}]) == {"v": [{"deep": written}]}
    # … and the same by the slow path, which another bad value forces
    assert through([value, 2**70])["v"] == [written, str(2**70)]


def test_numpy_is_written_by_rule() -> None:
    """numpy scalars become numbers and arrays arrays, with NaN named, on the fast and the slow path."""
    np = pytest.importorskip("numpy")
    for value, written in [
        (np.float32(1.5), 1.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        (np.longdouble(2.5), 2.5),
    ]:
        assert through(value) == {"v": written}
        assert through([value, 2**70])["v"] == [written, str(2**70)]
    assert through(np.array([1.0, np.nan])) == {"v": [1.0, "NaN"], "degraded": ["NaN: v[1]"]}
    assert through(np.float64("nan")) == {"v": "NaN", "degraded": ["NaN: v"]}


class BadRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no eq")

    __hash__ = None  # type: ignore[assignment]


class BadProperty:
    __attrs_attrs__ = property(lambda self: 1 / 0)


def cycle() -> list[Any]:
    loop: list[Any] = [1]
    loop.append({"back": loop})
    return loop


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "written", "note"),
    [
        (float("nan"), "NaN", "NaN: v"),
        (float("inf"), "Infinity", "Infinity: v"),
        (-math.inf, "-Infinity", "-Infinity: v"),
        ({"a": [math.nan, None]}, {"a": ["NaN", None]}, "NaN: v.a[0]"),
        (2**64, str(2**64), "integer over 64 bit: v"),
        (-(2**63) - 1, str(-(2**63) - 1), "integer over 64 bit: v"),
        ("a\ud800b", "a\\ud800b", "lone surrogate: v"),
        ({1: "x"}, {"1": "x"}, "key of type int: v"),
        ({None: 1}, {"null": 1}, "key of type NoneType: v"),
        ({"\udc00": 1}, {"\\udc00": 1}, "lone surrogate: v key"),
        ({(1, 2): "x"}, {"(1, 2)": "x"}, "key of type tuple: v"),
        (BadRepr(), "<BadRepr whose repr raises RuntimeError>", "repr of BadRepr: v"),
        (1j, "1j", "repr of complex: v"),
        (int, "<class 'int'>", "repr of type: v"),
    ],
)
def test_what_had_to_be_altered_is_named(value: Any, written: Any, note: str) -> None:
    """Each note gives the kind of alteration and its place."""
    event = through(value)
    assert event["v"] == written
    assert event["degraded"] == [note]


def test_keys_that_become_alike_are_both_kept() -> None:
    """The keys 1 and "1" have the same text; neither is lost."""
    event = through({1: "a", "1": "b", "1 (2)": "c"})
    assert sorted(event["v"].values()) == ["a", "b", "c"]
    assert event["v"]["1"] == "a"


def test_cycles_and_depth_are_bounded() -> None:
    """A cycle is cut where it closes, and deep nesting ends in a repr."""
    event = through(cycle())
    assert event["v"] == [1, {"back": "<cycle to list>"}]
    assert event["degraded"] == ["cycle: v[1].back"]
    assert through(deep(50))["v"] == deep(50)
    assert "degraded" not in through(deep(50))
    assert through(deep(5000))["degraded"][0].startswith("nested too deeply: v[0][0]")


def test_a_value_that_stands_twice_is_no_cycle() -> None:
    """Only an object that contains itself is a cycle."""
    shared = {"a": math.nan}
    assert through([shared, shared])["v"] == [{"a": "NaN"}, {"a": "NaN"}]


def test_a_repr_is_bounded_and_notes_are_counted() -> None:
    """Neither a huge repr nor a thousand alterations make a huge line."""
    assert len(through(type("Huge", (), {"__repr__": lambda self: "x" * 10**6})())["v"]) == 1001
    notes = through([math.nan] * 1000)["degraded"]
    assert len(notes) == 21
    assert notes[-1] == "and 980 more"


def test_an_object_whose_class_raises_harms_no_other_field() -> None:
    """A field that cannot be converted leaves the others unchanged."""
    event = decode(encode({"good": 1, "bad": BadProperty(), "also": [2]}))
    assert (event["good"], event["also"]) == (1, [2])
    assert event["degraded"] == ["repr of BadProperty: bad"]


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=[]))
    | st.binary()
    | st.datetimes()
    | st.decimals()
    | st.uuids()
    | st.complex_numbers()
    | st.builds(BadRepr)
)
keys = st.text(st.characters(exclude_categories=[])) | st.integers() | st.none() | st.booleans() | st.floats()
anything = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner), max_leaves=20
)


@given(anything)
@settings(max_examples=500)
def test_any_value_gives_one_valid_line(value: Any) -> None:
    """Any value gives one line of valid JSON, and a value that JSON can express comes back equal unless degraded."""
    event = through(value)
    if "degraded" not in event and is_plain(value):
        assert event["v"] == (list(value) if isinstance(value, tuple) else value) or has_tuple(value)


def is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    return value is None or type(value) in (str, int, float, bool)


def has_tuple(value: Any) -> bool:
    if isinstance(value, tuple):
        return True
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(has_tuple, inner))
