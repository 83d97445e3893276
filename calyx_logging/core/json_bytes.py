"""JSON as bytes: orjson where it is installed, else the same functions in Python, several times slower.

This is the part of orjson's interface that the package uses, with its names. The Python way accepts and refuses what
orjson does, except that it may read less deep than 1024 levels; it may write a number with an exponent otherwise
(`1e+16` for `1e16`), as orjson's own versions do among themselves. `CALYX_PLAIN_JSON=1` takes the Python way though
orjson is there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

__all__ = [
    "IS_ORJSON",
    "OPT_APPEND_NEWLINE",
    "OPT_INDENT_2",
    "OPT_NON_STR_KEYS",
    "OPT_PASSTHROUGH_DATACLASS",
    "OPT_PASSTHROUGH_DATETIME",
    "OPT_PASSTHROUGH_SUBCLASS",
    "OPT_SORT_KEYS",
    "JSONDecodeError",
    "dumps",
    "loads",
]

_MAX_WRITTEN, _MAX_READ = 254, 1024
"""Levels of nesting that orjson writes, and reads."""

_LEAST_INTEGER, _GREATEST_INTEGER = -(2**63), 2**64 - 1
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_PLAIN: tuple[type, ...] = (str, int, float, bool, type(None))


class _Options:
    """orjson's bits for `option`."""

    OPT_INDENT_2 = 1
    OPT_NON_STR_KEYS = 4
    OPT_SORT_KEYS = 32
    OPT_PASSTHROUGH_SUBCLASS = 256
    OPT_PASSTHROUGH_DATETIME = 512
    OPT_APPEND_NEWLINE = 1024
    OPT_PASSTHROUGH_DATACLASS = 2048


def _dumps(value: Any, default: Callable[[Any], Any] | None = None, option: int | None = None) -> bytes:
    """Write a value as `orjson.dumps` does.

    Raises:
        TypeError: it has a part that JSON cannot say, and `default` knows no other for it.
    """
    bits = option or 0
    try:
        text = json.dumps(
            _lowered(value, default, bits, 0),
            ensure_ascii=False,
            allow_nan=False,
            sort_keys=bool(bits & _Options.OPT_SORT_KEYS),
            indent=2 if bits & _Options.OPT_INDENT_2 else None,
            separators=(",", ": ") if bits & _Options.OPT_INDENT_2 else (",", ":"),
        )
        return (text + "\n" if bits & _Options.OPT_APPEND_NEWLINE else text).encode()
    except UnicodeEncodeError as error:
        raise TypeError("str is not valid UTF-8: surrogates not allowed") from error


def _lowered(value: Any, default: Callable[[Any], Any] | None, bits: int, depth: int) -> Any:
    """Return a value of plain types that json writes as orjson writes the one given."""
    kind = type(value)
    if kind in _PLAIN:
        return _scalar(value)
    if depth >= _MAX_WRITTEN:
        raise TypeError("Recursion limit reached")
    if kind is dict:
        return {_key(key, bits): _lowered(item, default, bits, depth + 1) for key, item in value.items()}
    if kind in (list, tuple):
        return [_lowered(item, default, bits, depth + 1) for item in value]
    if not bits & _Options.OPT_PASSTHROUGH_SUBCLASS:
        if isinstance(value, Enum):
            return _lowered(value.value, default, bits, depth + 1)
        for plain in (str, int, dict, list):
            if isinstance(value, plain):
                as_plain: Any = plain(value)  # type: ignore[arg-type]
                return _lowered(as_plain, default, bits, depth)
    elif isinstance(value, Enum):
        return _lowered(value.value, default, bits, depth + 1)
    if kind is UUID:
        return str(value)
    if kind in (datetime, date, time) and not bits & _Options.OPT_PASSTHROUGH_DATETIME:
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type) and not bits & _Options.OPT_PASSTHROUGH_DATACLASS:
        items = {one.name: getattr(value, one.name) for one in fields(value) if not one.name.startswith("_")}
        return _lowered(items, default, bits, depth)
    if default is None:
        raise TypeError(f"Type is not JSON serializable: {kind.__name__}")
    return _lowered(default(value), default, bits, depth + 1)


def _scalar(value: Any) -> Any:
    if type(value) is int and not _LEAST_INTEGER <= value <= _GREATEST_INTEGER:
        raise TypeError("Integer exceeds 64-bit range")
    if type(value) is float and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def _key(key: Any, bits: int) -> str:
    if type(key) is str:
        return key
    if not bits & _Options.OPT_NON_STR_KEYS:
        raise TypeError("Dict key must be str")
    plain = key.value if isinstance(key, Enum) else key
    return plain if isinstance(plain, str) else json.dumps(_lowered(plain, None, bits, 0)).strip('"')


def _loads(data: bytes | bytearray | memoryview | str) -> Any:
    """Read JSON as `orjson.loads` does.

    Raises:
        JSONDecodeError: it is none, or not in UTF-8.
    """
    try:
        text = data if isinstance(data, str) else bytes(data).decode()
        if text.count("[") + text.count("{") > _MAX_READ:
            _check_depth(text)
        found = json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=_refuse)
        if _SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False).encode()
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:  # UnicodeError is a ValueError
        raise json.JSONDecodeError(str(error), "", 0) from None
    return found


def _check_depth(text: str) -> None:
    depth = 0
    for letter in re.findall(rb"[\[\]{}]", _STRING.sub(b"", text.encode("utf-8", "surrogatepass"))):
        depth += 1 if letter in b"[{" else -1
        if depth > _MAX_READ:
            raise ValueError("Recursion limit reached")


def _integer(text: str) -> int | float:
    if len(text) < 19:
        return int(text)
    return value if _LEAST_INTEGER <= (value := int(text)) <= _GREATEST_INTEGER else _number(text)


def _number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("number out of range")
    return value


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _has_orjson() -> bool:
    if os.environ.get("CALYX_PLAIN_JSON"):
        return False
    try:
        import orjson  # noqa: F401
    except ImportError:
        return False
    return True


IS_ORJSON = _has_orjson()
if TYPE_CHECKING or IS_ORJSON:
    from orjson import (
        OPT_APPEND_NEWLINE,
        OPT_INDENT_2,
        OPT_NON_STR_KEYS,
        OPT_PASSTHROUGH_DATACLASS,
        OPT_PASSTHROUGH_DATETIME,
        OPT_PASSTHROUGH_SUBCLASS,
        OPT_SORT_KEYS,
        JSONDecodeError,
        dumps,
        loads,
    )
else:
    OPT_APPEND_NEWLINE = _Options.OPT_APPEND_NEWLINE
    OPT_INDENT_2 = _Options.OPT_INDENT_2
    OPT_NON_STR_KEYS = _Options.OPT_NON_STR_KEYS
    OPT_PASSTHROUGH_DATACLASS = _Options.OPT_PASSTHROUGH_DATACLASS
    OPT_PASSTHROUGH_DATETIME = _Options.OPT_PASSTHROUGH_DATETIME
    OPT_PASSTHROUGH_SUBCLASS = _Options.OPT_PASSTHROUGH_SUBCLASS
    OPT_SORT_KEYS = _Options.OPT_SORT_KEYS
    JSONDecodeError, dumps, loads = json.JSONDecodeError, _dumps, _loads
