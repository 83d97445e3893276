"""The order of events across the writers of one process: by time, and within a writer by `seq`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from calyx_logging import Node
from conftest import close_logging, events_of, telemetry


def log_in_turns(node: Node, logger: logging.Logger) -> list[str]:
    """Eight events, written by two writers in turns, one of them with a time of its own; their ids in order."""
    idle = logger.handlers[0]._pool._seats.idle  # type: ignore[attr-defined]
    logger.info("event", extra={"n": 0, "event_id": "id-0"})
    one = idle.pop()
    logger.info("event", extra={"n": 1, "event_id": "id-1"})
    idle.append(one)
    for n in range(2, 8):
        idle.rotate(1)
        early = {"ts_utc": datetime(2020, 1, 1, tzinfo=UTC)} if n == 5 else {}
        logger.info("event", extra={"n": n, "event_id": f"id-{n}", **early})
    close_logging()
    assert len({path.name.split("__")[2][:8] for path in node.outbox.glob("*.jsonl")}) >= 2
    return [event["event_id"] for event in sorted(events_of(node.outbox), key=lambda event: event["n"])]


@pytest.mark.parametrize("command", ["show", "query"])
def test_what_a_process_logged_before_and_after(
    node: Node, configure: Callable[..., logging.Logger], command: str
) -> None:
    """Though several of its writers wrote it, and one event has a time that its caller gave it."""
    ids = log_in_turns(node, configure())
    if command == "show":
        done = telemetry("show", "id-3", "--root", node.root, "--before", "2", "--after", "2", "--json")
        (found,) = json.loads(done.stdout)
        around = [event["event_id"] for event in found["around"] if event["source"] != "calyx_logging"]
    else:
        options = ("--named", "around", "--event-id", "id-3", "--around", "2", "--json")
        done = telemetry("query", "--root", node.root, *options)
        around = [row["event_id"] for row in json.loads(done.stdout)]
    assert done.returncode == 0, done.stderr
    assert around[0] == ids[1]
    assert set(around) <= set(ids[1:6])
    assert around.index("id-3") == 2
