"""The stamp, and the one way from fields to a line and back."""

from __future__ import annotations

import hashlib
import json
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from calyx_logging import StampEvent
from calyx_logging.core.times import utc_text
from calyx_logging.errors import ConfigError, EventError, InvalidNodeId
from calyx_logging.events.event import CONTROL_SOURCE, control_event, decode, encode, with_seq


def stamped(**fields: Any) -> dict[str, Any]:
    return dict(StampEvent("node-1", "src", clock=lambda: 1.5)(None, "info", fields))


def test_the_stamp_gives_the_four_fields() -> None:
    """node_id, ts_utc, event_id (UUIDv7) and source."""
    event = stamped(event="x")
    assert (event["node_id"], event["source"]) == ("node-1", "src")
    assert event["ts_utc"] == "1970-01-01T00:00:01.500000+00:00"
    assert uuid.UUID(event["event_id"]).version == 7
    assert event["event"] == "x"


def test_a_caller_cannot_replace_node_or_source() -> None:
    """Their values stand under `shadowed`."""
    event = stamped(node_id="evil", source="other")
    assert (event["node_id"], event["source"]) == ("node-1", "src")
    assert event["shadowed"] == {"node_id": "evil", "source": "other"}


@pytest.mark.parametrize(
    ("given_time", "kept"),
    [
        ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05.000000+00:00"),
        ("2026-01-02T03:04:05.123456Z", "2026-01-02T03:04:05.123456+00:00"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=-5))), "2026-01-02T08:04:05.000000+00:00"),
    ],
)
def test_a_callers_aware_timestamp_is_kept_normalised(given_time: object, kept: str) -> None:
    """A valid aware timestamp becomes UTC with microseconds."""
    event = stamped(ts_utc=given_time)
    assert event["ts_utc"] == kept
    assert "shadowed" not in event


@pytest.mark.parametrize("given_time", ["yesterday", "2026-01-02T03:04:05", 17, None, "", "0001-01-01T00:00:00+14:00"])
def test_a_callers_other_timestamp_is_shadowed(given_time: object) -> None:
    """What is not aware or not valid is kept aside, and the record's own time counts."""
    event = stamped(ts_utc=given_time)
    assert event["ts_utc"] == "1970-01-01T00:00:01.500000+00:00"
    assert event["shadowed"] == {"ts_utc": given_time}


def test_a_callers_event_id_is_kept_when_it_is_a_text() -> None:
    """An event mirrored from elsewhere keeps its id; an id that is no text is kept aside."""
    assert stamped(event_id="abc")["event_id"] == "abc"
    for bad in ("", 5, None):
        event = stamped(event_id=bad)
        assert uuid.UUID(event["event_id"]).version == 7
        assert event["shadowed"] == {"event_id": bad}


def test_the_stamp_works_in_any_structlog_chain() -> None:
    """It is a structlog processor, with structlog's own loggers and renderers around it."""
    log = structlog.wrap_logger(
        structlog.testing.CapturingLogger(),
        processors=[StampEvent("node-1"), structlog.processors.JSONRenderer()],
    )
    log.info("hello", a=1)
    event = json.loads(log._logger.calls[0].args[0])
    assert event["node_id"] == "node-1"
    assert event["event"] == "hello"
    assert event["a"] == 1


@pytest.mark.parametrize("source", ["", " ", None, 3, CONTROL_SOURCE])
def test_sources_that_are_refused(source: Any) -> None:
    """A source is a text, and not the one of control lines."""
    with pytest.raises(ConfigError, match="source"):
        StampEvent("node-1", source)


def test_the_stamp_refuses_a_bad_node_id() -> None:
    """A node id breaks no rule on the way in."""
    with pytest.raises(InvalidNodeId):
        StampEvent("a/b")


@given(st.floats(min_value=0, max_value=4e9))
def test_times_are_utc_with_microseconds(seconds: float) -> None:
    """The text reads back as the same moment, to the microsecond."""
    text = utc_text(seconds)
    assert len(text) == 32
    assert text.endswith("+00:00")
    assert abs(datetime.fromisoformat(text).timestamp() - seconds) <= 1e-6


def test_seq_is_the_last_field_and_the_line_ends() -> None:
    """A chunk's line is the event with `seq`, and one newline at its end."""
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
    """Over the limit the largest values give way, and say how many bytes they were and which."""
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
    """`message` stays a text."""
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
    """Whatever makes it long, the line with its seq is within the limit and keeps the four fields."""
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
    """Large payloads below the limit are untouched."""
    payload = {"samples": ["ü\n" * 500] * 1400}
    line = encode(base_event(payload=payload))
    assert len(line) > 2_000_000
    assert b"\n" not in line
    assert decode(line)["payload"] == payload


@pytest.mark.parametrize("size", [0, 1, 2**20, 15 * 2**20, 17 * 2**20, 32 * 2**20])
def test_payloads_from_nothing_to_32_megabytes(size: int) -> None:
    """One valid line each; over the default limit of 16 MiB the payload is its length and hash."""
    payload = "ü" * (size // 2)
    line = encode(base_event(payload=payload))
    event = decode(line)
    if len(payload.encode()) < 16 * 2**20:
        assert event["payload"] == payload
    else:
        assert event["payload"]["bytes"] == len(payload.encode())
        assert len(line) < 1000


def test_utc_is_not_the_systems_zone() -> None:
    """The zone written is UTC, whatever the process's is."""
    assert datetime.fromisoformat(utc_text(0)).tzinfo == UTC
