"""structlog straight to the outbox gives the same lines as through logging."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from calyx_logging import Node, OutboxHandler, StampEvent, configure_structlog
from calyx_logging.errors import ConfigError
from calyx_logging.events.event import RESERVED
from calyx_logging.events.formatter import EventFormatter
from calyx_logging.events.structlog_bridge import OutboxLogger
from conftest import controls_of, events_of, lines_of, python

Straight = Callable[..., OutboxHandler]


@pytest.fixture
def straight(node: Node) -> Iterator[Straight]:
    """`straight(level=…, **options)` configures structlog; reset after the test."""
    handlers = []

    def apply(level: int | str = "DEBUG", **options: Any) -> OutboxHandler:
        handlers.append(OutboxHandler(root=node.root, **{"identity": False, **options}))
        configure_structlog(handlers[-1], level=level)
        return handlers[-1]

    yield apply
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    for handler in handlers:
        handler.close()


def test_an_event(node: Node, straight: Straight) -> None:
    """An event is stamped, with level and logger; the writer ends like any other."""
    handler = straight()
    structlog.get_logger("bench").bind(model="m").info("case done", score=1)
    handler.close()
    event, end = lines_of(node.outbox)
    assert list(event)[:7] == ["node_id", "ts_utc", "event_id", "source", "level", "logger", "message"]
    assert (event["level"], event["logger"], event["message"]) == ("info", "bench", "case done")
    assert (event["model"], event["score"], event["seq"]) == ("m", 1, 0)
    assert end["reason"] == "closed"


def test_levels(node: Node, straight: Straight) -> None:
    """Events below the level are not logged; each method has its own level."""
    straight("WARNING")
    log = structlog.get_logger()
    for method in ("debug", "info", "warning", "warn", "error", "critical", "fatal", "exception"):
        getattr(log, method)(method)
    assert [(event["message"], event["level"]) for event in events_of(node.outbox)] == [
        ("warning", "warning"),
        ("warn", "warning"),
        ("error", "error"),
        ("critical", "critical"),
        ("fatal", "critical"),
        ("exception", "error"),
    ]
    assert {event["logger"] for event in events_of(node.outbox)} == {"root"}
    for level in ("LOUD", True, None):
        with pytest.raises(ConfigError, match="level"):
            straight(level)  # type: ignore[arg-type]


def test_context_exceptions_and_stacks(node: Node, straight: Straight) -> None:
    """Context variables, exceptions, the call's stack and arguments are in the event."""
    straight()
    log = structlog.get_logger("bench")
    with structlog.contextvars.bound_contextvars(run_id="r"):
        log.info("in context", case=1)
    try:
        raise ValueError("v")
    except ValueError as error:
        log.exception("failed")
        log.error("failed too", exc_info=error)
    log.info("where", stack_info=True)
    log.info("%d of %d", 1, 2)
    log.info("%d of", "many")
    log.info("no place for it", 1)
    context, failed, too, where, args, bad, more = events_of(node.outbox)
    assert (bad["message"], bad["positional_args"]) == ("%d of", ["many"])
    assert (more["message"], more["positional_args"]) == ("no place for it", [1])
    assert (context["run_id"], context["case"]) == ("r", 1)
    assert failed["exception"] == too["exception"]
    assert (failed["exception"][0]["type"], failed["exception"][0]["value"]) == ("ValueError", "v")
    assert "in test_context_exceptions_and_stacks" in where["stack_info"].splitlines()[-2]
    assert args["message"] == "1 of 2"


values = st.none() | st.floats() | st.integers() | st.text() | st.lists(st.text(), max_size=2)
names = st.text() | st.sampled_from([*sorted(RESERVED), "name", "args", "_record", "exc_info", "positional_args"])


@given(event=values, fields=st.dictionaries(names, values, max_size=4), level=st.sampled_from(["debug", "error"]))
def test_the_line_is_that_of_the_way_through_logging(event: Any, fields: dict[str, Any], level: str) -> None:
    """Any event gives the same line both ways, except for time and id."""
    made: list[bytes | None] = []
    formatter = EventFormatter().bound_to(StampEvent("node", new_id=lambda: "id"))

    class Handler(logging.Handler):
        event_formatter = formatter

        def submit(self, encode: Callable[[Any], bytes | None], item: Any) -> None:
            made.append(encode(item))

        def emit(self, record: logging.LogRecord) -> None:
            made.append(formatter.encode(record))

    handler = Handler()
    logger = logging.Logger("bench", logging.DEBUG)
    logger.addHandler(handler)
    fields = {name: value for name, value in fields.items() if name != "event"}
    stdlib = structlog.wrap_logger(logger, [_through_logging], structlog.stdlib.BoundLogger)
    try:
        getattr(stdlib.new(**fields), level)(event)
    except TypeError:
        return  # structlog does not accept fields with these names
    straight = structlog.wrap_logger(
        OutboxLogger(handler, "bench"),  # type: ignore[arg-type]
        [lambda _, __, event_dict: ((event_dict,), {})],
        structlog.make_filtering_bound_logger(0),
    )
    getattr(straight.new(**fields), level)(event)
    through_logging, past_it = (json.loads(line or b"null") for line in made)
    for line in (through_logging, past_it):
        del line["ts_utc"]
    assert through_logging == past_it


def _through_logging(logger: Any, name: str, event_dict: Any) -> Any:
    from calyx_logging.events.structlog_bridge import _to_log_kwargs

    return _to_log_kwargs(logger, name, event_dict)


def test_a_formatter_with_processors(node: Node, straight: Straight) -> None:
    """The handler's formatter applies with all its options."""
    handler = straight()
    handler.setFormatter(
        EventFormatter("%(levelno)d", processors=[lambda _, __, event: {**event, "gpu": 1}], static_fields={"rig": "a"})
    )
    structlog.get_logger("bench").info("m", x=1)
    (event,) = events_of(node.outbox)
    assert (event["gpu"], event["rig"], event["levelno"], event["x"]) == (1, "a", 20, 1)


@pytest.mark.usefixtures("in_python")
def test_nothing_raises_and_what_is_lost_is_counted(node: Node, straight: Straight) -> None:
    """No call raises, and losses are counted, as for records."""
    handler = straight()

    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    log = structlog.get_logger("bench")
    log.info("odd", value=Odd())
    handler._event_formatter = object()  # type: ignore[assignment]
    log.info("lost")
    handler.setFormatter(None)
    log.info("kept")
    handler.close()
    assert [event["message"] for event in events_of(node.outbox)] == ["odd", "kept"]
    assert [line["count"] for line in controls_of(node.outbox) if line["control"] == "gap"] == [1]


def test_kill_nine_after_the_call(node: Node) -> None:
    """An event logged before kill -9 is kept."""
    done = python(
        """
        import os, signal, sys, structlog, calyx_logging
        calyx_logging.configure_structlog(calyx_logging.OutboxHandler(root=sys.argv[1], identity=False))
        structlog.get_logger("bench").info("last words", n=1)
        os.kill(os.getpid(), signal.SIGTERM) if os.name == "nt" else os.kill(os.getpid(), signal.SIGKILL)
        """,
        str(node.root),
    )
    assert done.returncode != 0
    assert [event["message"] for event in events_of(node.outbox)] == ["last words"]


def test_a_level_that_is_none() -> None:
    """A bad level is refused on either path."""
    with pytest.raises(ConfigError, match="give the name or the number of a level"):
        configure_structlog(level="LOUD")
