"""The stamp sets four fields, and keeps or shadows a caller's values for them."""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import structlog

from calyx_logging import StampEvent
from calyx_logging.errors import ConfigError, InvalidNodeId
from calyx_logging.events.event import CONTROL_SOURCE


def stamped(**fields: Any) -> dict[str, Any]:
    return dict(StampEvent("node-1", "src", clock=lambda: 1.5)(None, "info", fields))


def test_the_stamp_gives_the_four_fields() -> None:
    """The stamp sets node_id, ts_utc, event_id (a UUIDv7) and source."""
    event = stamped(event="x")
    assert (event["node_id"], event["source"]) == ("node-1", "src")
    assert event["ts_utc"] == "1970-01-01T00:00:01.500000+00:00"
    assert uuid.UUID(event["event_id"]).version == 7
    assert event["event"] == "x"


def test_a_caller_cannot_replace_node_or_source() -> None:
    """A caller's values for them move to `shadowed`."""
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
    """A timestamp that is not aware or not valid is shadowed, and the record's own time is used."""
    event = stamped(ts_utc=given_time)
    assert event["ts_utc"] == "1970-01-01T00:00:01.500000+00:00"
    assert event["shadowed"] == {"ts_utc": given_time}


def test_a_callers_event_id_is_kept_when_it_is_a_text() -> None:
    """An event mirrored from elsewhere keeps its id; an id that is not a text is shadowed."""
    assert stamped(event_id="abc")["event_id"] == "abc"
    for bad in ("", 5, None):
        event = stamped(event_id=bad)
        assert uuid.UUID(event["event_id"]).version == 7
        assert event["shadowed"] == {"event_id": bad}


def test_the_stamp_works_in_any_structlog_chain() -> None:
    """The stamp works as a processor among structlog's own loggers and renderers."""
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
    """A source must be a text other than the control lines'."""
    with pytest.raises(ConfigError, match="source"):
        StampEvent("node-1", source)


def test_the_stamp_refuses_a_bad_node_id() -> None:
    """A node id that breaks the rule is refused."""
    with pytest.raises(InvalidNodeId):
        StampEvent("a/b")
