"""Events are encoded as lines and decoded again."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calyx_logging.core.times import utc_text
from calyx_logging.errors import EventError
from calyx_logging.events.event import CONTROL_SOURCE, control_event, decode, encode, with_seq


def test_seq_is_the_last_field_and_the_line_ends() -> None:
    """A chunk's line is the event with `seq` and one newline at its end."""
    line = with_seq(encode({"a": 1}), 7)
    assert line == b'{"a":1,"seq":7}\n'
    assert decode(line) == {"a": 1, "seq": 7}


@pytest.mark.parametrize("line", [b"", b"[]", b"1", b"{", b"\x00\x00", b'{"a":NaN}', b"\xff"])
def test_lines_that_are_no_event(line: bytes) -> None:
    """Only a JSON object is an event."""
    with pytest.raises(EventError):
        decode(line)


def test_a_control_line_bears_the_reserved_source() -> None:
    """Control lines are events of source calyx_logging with a `control` field."""
    event = decode(control_event("node-1", "end", 0.0, "done", reason="closed"))
    assert (event["source"], event["control"], event["reason"]) == (CONTROL_SOURCE, "end", "closed")


def base_event(**fields: Any) -> dict[str, Any]:
    return {
        "node_id": "n",
        "ts_utc": utc_text(0),
        "event_id": "e",
        "source": "s",
        "level": "info",
        "logger": "l",
        "message": "m",
        **fields,
    }


def test_the_largest_value_of_an_oversized_event_is_replaced_by_its_hash() -> None:
    """Above the limit the largest values are replaced by their size and hash."""
    big, small = "x" * 10_000, "y" * 1000
    line = encode(base_event(big=big, small=small), max_bytes=4096)
    event = decode(line)
    assert len(line) <= 4096
    assert event["big"] == {
        "truncated": True,
        "bytes": 10_000,
        "sha256": hashlib.sha256(big.encode()).hexdigest(),
    }
    assert event["small"] == small
    assert event["degraded"] == ["truncated: big"]


def test_an_oversized_message_is_cut_and_its_hash_kept() -> None:
    """A truncated `message` stays a text."""
    event = decode(encode(base_event(message="z" * 9000), max_bytes=4096))
    assert event["message"] == "z" * 200 + "…"
    assert event["shadowed"]["message"]["bytes"] == 9000


@given(
    st.integers(0, 3000),
    st.integers(0, 20_000),
    st.integers(0, 6000),
    st.sampled_from(["message", "logger", "event_id", "payload", "exception"]),
)
def test_no_event_is_longer_than_the_limit(many: int, length: int, other: int, where: str) -> None:
    """The line of an event of any length is within the limit and keeps the four stamped fields."""
    value: Any = [{"type": "T", "value": "x" * length, "frames": []}] if where == "exception" else "x" * length
    fields = {f"key{n}": n for n in range(many)} | {"other": "o" * other}
    line = with_seq(encode(base_event(**fields | {where: value}), max_bytes=4096), 2**40)
    assert len(line) <= 4096
    event = decode(line)
    assert event["node_id"] == "n"
    assert isinstance(event["message"], str)
    whole = sum(len(k) + len(str(v)) for k, v in (fields | {where: value}).items()) < 3000
    assert whole or "degraded" in event or len(line) < 4096


def test_a_two_megabyte_event_is_one_line() -> None:
    """A payload below the limit is kept unchanged."""
    payload = {"samples": ["ü\n" * 500] * 1400}
    line = encode(base_event(payload=payload))
    assert len(line) > 2_000_000
    assert b"\n" not in line
    assert decode(line)["payload"] == payload


@pytest.mark.parametrize("size", [0, 1, 2**20, 15 * 2**20, 17 * 2**20, 32 * 2**20])
def test_payloads_from_nothing_to_32_megabytes(size: int) -> None:
    """Each payload gives one valid line; above the default limit of 16 MiB it is replaced by its length and hash."""
    payload = "ü" * (size // 2)
    line = encode(base_event(payload=payload))
    event = decode(line)
    if len(payload.encode()) < 16 * 2**20:
        assert event["payload"] == payload
    else:
        assert event["payload"]["bytes"] == len(payload.encode())
        assert len(line) < 1000
