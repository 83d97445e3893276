"""Convert any Python object to a JSON value by fixed rules, and name every loss.

The rules (docs/format.md, "Values") are the same at any depth:

| object | JSON |
|---|---|
| datetime, date, time | ISO-8601 text |
| timedelta | seconds, as a number |
| UUID, Path, Decimal, Fraction | their text |
| Enum | its value |
| dataclass, attrs, pydantic | an object of its fields |
| mapping, numpy scalar, numpy array, set, tuple, deque | object, number, array (sets sorted where they can be) |
| bytes | base64 text |
| exception | "Type: message" |
| subclasses of str, int, float, dict, list | as what they extend |

If the result is still not JSON, the value is altered and the alteration noted (kind, then place): NaN and the
infinities become the texts "NaN", "Infinity", "-Infinity"; an integer over 64 bit becomes its digits; a lone surrogate
its escape; a key that is not a string its text; a cycle, a value nested too deeply or any other object becomes a
bounded repr.
"""

from __future__ import annotations

import base64
import dataclasses
import math
from collections import deque
from collections.abc import Mapping, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

__all__ = ["MAX_DEPTH", "JsonValue", "by_rule", "has_nonfinite", "is_a", "lower", "lower_fields", "safe_repr"]

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

MAX_DEPTH = 100
"""Levels of nesting that are kept; deeper values become a repr."""

_MAX_REPR = 1000
_MAX_NOTES = 20
_MAX_PATH = 120
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1


def is_a(value: object, kind: type | tuple[type, ...]) -> bool:
    """Test a type as `isinstance` does, but ignore an object's `__class__`, which may raise or lie."""
    return issubclass(type(value), kind)


def by_rule(value: Any) -> Any:
    """Apply one conversion step; the result is closer to JSON than `value`.

    Raises:
        TypeError: there is no rule for such an object.
    """
    if is_a(value, (datetime, date, time)):
        return value.isoformat()
    if is_a(value, Enum):
        return value.value
    if is_a(value, str):
        return str.__str__(value)
    if is_a(value, int):
        return int(value)
    if is_a(value, float):
        return float(value)
    if is_a(value, (UUID, PurePath, Decimal, Fraction)):
        return str(value)
    if is_a(value, timedelta):
        return value.total_seconds()
    if is_a(value, Mapping):
        return dict(value)
    if is_a(value, (list, tuple, deque)):
        return list(value)
    if is_a(value, Set):
        return _sorted_where_possible(value)
    if is_a(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if is_a(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return _by_protocol(value)


_FINER_THAN_MICROSECONDS = ("[ns]", "[ps]", "[fs]", "[as]")


def _by_protocol(value: Any) -> Any:
    """Apply the rules for libraries not imported here, recognised by their objects' attributes."""
    kind = type(value)
    if dataclasses.is_dataclass(kind) and not is_a(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(kind)}
    if hasattr(kind, "__attrs_attrs__"):
        return {attribute.name: getattr(value, attribute.name) for attribute in kind.__attrs_attrs__}
    if hasattr(kind, "__pydantic_fields__"):
        return kind.model_dump(value)
    if kind.__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        if str(getattr(value, "dtype", "")).endswith(_FINER_THAN_MICROSECONDS):  # tolist would give bare integers
            is_moment = value.dtype.kind == "M"
            return value.astype("str").tolist() if is_moment else (value / value.dtype.type(1, "s")).tolist()
        plain = value.tolist()
        if type(plain) is not kind:
            return plain
        return float(value)  # a longdouble's tolist is a longdouble
    raise TypeError(f"no rule for {kind.__name__}")


def _sorted_where_possible(values: Set[Any]) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:
        return list(values)


def has_nonfinite(value: object) -> bool:
    """Tell whether a value may contain a NaN or infinity; True also where only `lower` can find out."""
    kind = type(value)
    if kind is float:
        return not math.isfinite(value)  # type: ignore[arg-type]
    if value is None or kind is str or kind is int or kind is bool:
        return False
    if kind is dict:
        return any(map(has_nonfinite, value.values()))  # type: ignore[attr-defined]
    if kind is list or kind is tuple:
        return any(map(has_nonfinite, value))  # type: ignore[call-overload]
    return True


def safe_repr(value: object) -> str:
    """Return a repr of at most 1,000 characters; never raises."""
    try:
        text = repr(value)
        if type(text) is not str:
            text = str.__str__(text)
    except Exception as error:  # a custom __repr__ raised: name the class instead
        text = f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
    return text if len(text) <= _MAX_REPR else f"{text[:_MAX_REPR]}…"


def lower(value: object) -> tuple[JsonValue, list[str]]:
    """Convert any object to JSON; also return notes of alterations (`"kind: where"`), at most 20 and a count."""
    walk = _Lowering()
    return walk.value(value, "", 0), walk.summary()


def lower_fields(
    fields: Mapping[str, object], reserved: Set[str] = frozenset()
) -> tuple[dict[str, JsonValue], list[str]]:
    """Apply `lower` to each field of an event separately, so that a failing field harms no other.

    A key that turns into one of the `reserved` names (an Enum, a Path) gets another name.
    """
    walk = _Lowering()
    lowered: dict[str, JsonValue] = {}
    for key, value in fields.items():
        name = walk.key(key, "", lowered if type(key) is str else {**lowered, **dict.fromkeys(reserved)})
        try:
            lowered[name] = walk.value(value, name, 0)
        except (Exception, RecursionError) as error:
            walk.holding.clear()
            lowered[name] = walk.altered(f"no JSON ({type(error).__name__})", name, safe_repr(value))
    return lowered, walk.summary()


class _Lowering:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.unsaid = 0
        self.holding: set[int] = set()

    def summary(self) -> list[str]:
        return [*self.notes, f"and {self.unsaid} more"] if self.unsaid else self.notes

    def altered(self, kind: str, where: str, value: str) -> str:
        if len(self.notes) < _MAX_NOTES:
            shown = where if len(where) <= _MAX_PATH else f"{where[:_MAX_PATH]}…"
            self.notes.append(f"{kind}: {_without_surrogates(shown)}" if shown else kind)
        else:
            self.unsaid += 1
        return _without_surrogates(value)

    def text(self, value: str, where: str) -> str:
        try:
            value.encode()
        except UnicodeEncodeError:
            return self.altered("lone surrogate", where, value)
        return value

    def value(self, value: Any, where: str, depth: int) -> JsonValue:
        kind = type(value)
        if kind is str:
            return self.text(value, where)
        if value is None or kind is bool:
            return value  # type: ignore[no-any-return]
        if kind is int:
            if _INT_MIN <= value <= _INT_MAX:
                return value  # type: ignore[no-any-return]
            return self.altered("integer over 64 bit", where, _digits(value))
        if kind is float:
            if math.isfinite(value):
                return value  # type: ignore[no-any-return]
            name = "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
            return self.altered(name, where, name)
        if depth >= MAX_DEPTH:
            return self.altered("nested too deeply", where, safe_repr(value))
        if id(value) in self.holding:
            return self.altered("cycle", where, f"<cycle to {kind.__name__}>")
        self.holding.add(id(value))
        try:
            return self.container(value, where, depth + 1)
        finally:
            self.holding.discard(id(value))

    def container(self, value: Any, where: str, depth: int) -> JsonValue:
        if type(value) is dict:
            lowered: dict[str, JsonValue] = {}
            for key, item in list(value.items()):
                name = self.key(key, where, lowered)
                lowered[name] = self.value(item, f"{where}.{name}" if where else name, depth)
            return lowered
        if type(value) is list:
            return [self.value(item, f"{where}[{n}]", depth) for n, item in enumerate(value)]
        try:
            plain = by_rule(value)
        except Exception:  # foreign code may raise anything; the note says enough
            return self.altered(f"repr of {type(value).__name__}", where, safe_repr(value))
        return self.value(plain, where, depth)

    def key(self, key: object, where: str, taken: Mapping[str, object]) -> str:
        """Return a key as text that differs from all those in `taken`."""
        if type(key) is str:
            name = self.text(key, f"{where} key" if where else "key")
        else:
            name = str.__str__(key) if is_a(key, str) else self._key_text(key, where)
            name = _without_surrogates(name)
        if name not in taken:
            return name
        n = 2
        while f"{name} ({n})" in taken:
            n += 1
        return self.altered("two keys of one text", where, f"{name} ({n})")

    def _key_text(self, key: object, where: str) -> str:
        if key is None or type(key) is bool:
            text = {None: "null", True: "true", False: "false"}[key]
        elif type(key) is int:
            text = _digits(key)
        else:
            try:
                plain = by_rule(key)
            except Exception:  # as in `container`
                plain = None
            text = plain if type(plain) is str else safe_repr(key)
        return self.altered(f"key of type {type(key).__name__}", where, text)


def _digits(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # more digits than sys.get_int_max_str_digits() allows
        return hex(value)


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
