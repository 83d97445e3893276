"""EventFormatter: a LogRecord becomes one event line."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import math
import os
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from calyx_logging import EventFormatter, KeepContext, Node, StampEvent, configure_structlog
from calyx_logging.core.times import utc_text
from calyx_logging.errors import ConfigError, NodeNotProvisioned
from calyx_logging.events.stamp import take


class Lines(logging.Handler):
    """Collects the events of every record through a formatter."""

    def __init__(self, formatter: EventFormatter) -> None:
        super().__init__()
        self.setFormatter(formatter.bound_to(StampEvent("node-1")))
        self.events: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if line:
            self.events.append(json.loads(line))

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1]


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.getLogger("fmt.test")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    logger.handlers.clear()


@pytest.fixture
def lines(log: logging.Logger) -> Lines:
    handler = Lines(EventFormatter())
    log.addHandler(handler)
    return handler


def with_processors(log: logging.Logger, *processors: Any) -> Lines:
    handler = Lines(EventFormatter(processors=processors))
    log.addHandler(handler)
    return handler


def test_a_plain_record(log: logging.Logger, lines: Lines) -> None:
    """Level in lower case, logger, formatted message, then the caller's fields under their own names."""
    log.warning("took %d ms", 12, extra={"model": "m", "_private": 1})
    event = lines.last
    assert (event["level"], event["logger"], event["message"]) == ("warning", "fmt.test", "took 12 ms")
    assert (event["model"], event["_private"]) == ("m", 1)
    assert set(event) == {
        *("node_id", "ts_utc", "event_id", "source", "level", "logger", "message", "model", "_private")
    }


def test_the_time_is_the_records(log: logging.Logger, lines: Lines) -> None:
    """ts_utc is when the record was made, not when it was formatted."""
    record = logging.makeLogRecord({"name": "x", "msg": "m", "levelno": 20, "created": 86400.25})
    lines.emit(record)
    assert lines.last["ts_utc"] == "1970-01-02T00:00:00.250000+00:00"


@pytest.mark.parametrize("created", [float("nan"), 1e20, -1e20, None, "now"])
def test_a_records_impossible_time_is_said(lines: Lines, created: Any) -> None:
    """The current time replaces an impossible one, and the line says so."""
    lines.emit(logging.makeLogRecord({"name": "x", "msg": "m", "levelno": 20, "created": created}))
    assert lines.last["degraded"] == ["time of the record: ts_utc"]


def test_a_dict_message_gives_its_items_as_fields(log: logging.Logger, lines: Lines) -> None:
    """`message`, or else `event`, becomes the message; the dict itself is not changed."""
    given = {"event": "case done", "score": 1, "level": "mine"}
    log.info(given)
    assert lines.last["message"] == "case done"
    assert lines.last["score"] == 1
    assert lines.last["shadowed"] == {"level": "mine"}
    assert given == {"event": "case done", "score": 1, "level": "mine"}
    log.info({"message": "m", "event": "e"})
    assert (lines.last["message"], lines.last["event"]) == ("m", "e")
    log.info({})
    assert lines.last["message"] == ""
    log.info({"message": {"no": "text"}})
    assert lines.last["message"] == "{'no': 'text'}"
    assert lines.last["shadowed"] == {"message": {"no": "text"}}


@pytest.mark.parametrize(
    "name", ["node_id", "source", "seq", "level", "logger", "exception", "control", "shadowed", "degraded", "_record"]
)
def test_reserved_names_are_shadowed(log: logging.Logger, lines: Lines, name: str) -> None:
    """A caller's field with a reserved name moves to `shadowed`, whatever its value."""
    log.info("m", extra={name: {"mine": 1}})
    assert lines.last["shadowed"] == {name: {"mine": 1}}
    assert lines.last["level"] == "info"
    assert "seq" not in lines.last


@pytest.mark.parametrize(
    ("message", "args"),
    [
        ("%s %s", ("one",)),
        ("%d", ("x",)),
        ("no place", ("one",)),
        ("%(a)s", ("b",)),
        ("%", (1,)),
        ({"event": "d"}, (1,)),
    ],
)
def test_arguments_that_do_not_fit_are_kept(log: logging.Logger, lines: Lines, message: Any, args: Any) -> None:
    """The unformatted message is kept with its arguments beside it, and nothing is raised."""
    lines.handle(log.makeRecord("fmt.test", logging.INFO, __file__, 1, message, args, None))
    assert lines.last["message"] == (message if isinstance(message, str) else "d")
    assert lines.last["shadowed"] == {"args": list(args)}
    assert lines.last["degraded"][0].startswith("message not formatted: ")


def test_a_message_whose_str_raises(log: logging.Logger, lines: Lines) -> None:
    """A message whose str raises still gives a line."""

    class Bad:
        def __str__(self) -> str:
            raise RuntimeError

        __repr__ = __str__

    lines.handle(log.makeRecord("fmt.test", logging.INFO, __file__, 1, Bad(), (), None))
    assert lines.last["message"] == "<Bad whose repr raises RuntimeError>"


def test_an_exception_is_structured(log: logging.Logger, lines: Lines) -> None:
    """Type, value and frames of the exception and of its cause; no local variables."""
    try:
        try:
            secret = "hunter2"
            raise KeyError("inner")
        except KeyError as inner:
            error = ValueError("outer")
            error.add_note("a note")
            raise error from inner
    except ValueError:
        log.exception("it failed")
    outer, inner_entry = lines.last["exception"]
    assert (outer["type"], outer["value"], outer["notes"]) == ("ValueError", "outer", ["a note"])
    assert outer["frames"][-1]["name"] == "test_an_exception_is_structured"
    assert outer["frames"][-1]["filename"] == __file__
    assert inner_entry["type"] == "KeyError"
    assert secret not in json.dumps(lines.last)


def test_exception_groups_suppressed_contexts_and_deep_stacks(log: logging.Logger, lines: Lines) -> None:
    """Groups hold their parts; `from None` cuts the chain; deep stacks keep both ends."""
    try:
        try:
            raise KeyError
        except KeyError:
            raise ExceptionGroup("g", [ValueError("a"), TypeError("b")]) from None
    except ExceptionGroup:
        log.exception("group")
    (entry,) = lines.last["exception"]
    assert [part[0]["type"] for part in entry["exceptions"]] == ["ValueError", "TypeError"]

    def dive(n: int) -> None:
        if n == 0:
            raise RuntimeError("deep")
        dive(n - 1)

    try:
        dive(200)
    except RuntimeError:
        log.exception("deep")
    (entry,) = lines.last["exception"]
    assert len(entry["frames"]) == 50
    assert entry["frames_omitted"] == 152


def test_an_exception_that_is_its_own_cause(log: logging.Logger, lines: Lines) -> None:
    """A loop of causes is followed only once."""
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first
    log.error("loop", exc_info=first)
    assert [entry["value"] for entry in lines.last["exception"]] == ["1", "2"]


class _TextRaises(ValueError):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class _TraceRaises(ValueError):
    @property
    def __traceback__(self) -> Any:
        raise RuntimeError("no traceback")


class _CauseIsText(ValueError):
    __cause__: Any = "a text"


class _CauseRaises(ValueError):
    @property
    def __cause__(self) -> Any:
        raise RuntimeError("no cause")


class _PartsAreTexts(ExceptionGroup[Exception]):
    exceptions: Any = ("a", "b")


class _Nameless(type):
    @property
    def __name__(cls) -> str:
        raise RuntimeError("no name")


class _OfNameless(ValueError, metaclass=_Nameless):
    pass


def _caused_by(cause: BaseException) -> ValueError:
    error = ValueError("x")
    error.__cause__ = cause
    return error


BAD_EXC_INFO = [
    ((ValueError, ValueError("x"), "no traceback"), "ValueError", "traceback is a str"),
    ((ValueError, ValueError("x"), object()), "ValueError", "traceback is a object"),
    ((ValueError, _TextRaises("x"), None), "_TextRaises", "text cannot be read"),
    ((ValueError, _caused_by(_TraceRaises("x")), None), "ValueError", "__traceback__ raises RuntimeError"),
    ((ValueError, _CauseIsText("x"), None), "_CauseIsText", "__cause__ is a str"),
    ((ValueError, _CauseRaises("x"), None), "_CauseRaises", "__cause__ raises RuntimeError"),
    ((ValueError, _PartsAreTexts("x", [ValueError("y")]), None), "_PartsAreTexts", None),
    ((ValueError, _OfNameless("x"), None), "", "cannot be read"),
    ((ValueError, "no exception", None), None, "exc_info has no exception"),
    ((1, 2), None, "exc_info has no exception"),
]


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize(("exc_info", "kind", "says"), BAD_EXC_INFO)
def test_an_exception_that_cannot_be_read_costs_the_event_nothing_else(
    log: logging.Logger, lines: Lines, exc_info: Any, kind: str | None, says: str | None, queued: bool
) -> None:
    """The event keeps its level, message and fields; `degraded` names what of the exception could not be read."""
    record = log.makeRecord(log.name, logging.WARNING, "", 0, "it %s", ("failed",), exc_info, extra={"case": 7})
    if queued:
        KeepContext().filter(record)
    lines.handle(record)  # alone, since pytest's own handler raises on these
    event = lines.last
    assert (event["level"], event["message"], event["case"]) == ("warning", "it failed", 7)
    assert (event["exception"][0]["type"] if kind is not None else event.get("exception")) == kind
    assert len(event.get("degraded", [])) == (says is not None)
    assert says is None or says in event["degraded"][0]


def test_an_exc_info_that_is_none(log: logging.Logger, lines: Lines) -> None:
    """`logger.exception` outside of an except block, and a record that says False, are no alterations."""
    log.exception("x")
    lines.emit(logging.makeLogRecord({"name": "x", "msg": "m", "levelno": 40, "exc_info": False}))
    assert all("exception" not in event and "degraded" not in event for event in lines.events)
    lines.emit(logging.makeLogRecord({"name": "x", "msg": "m", "levelno": 40, "exc_info": "a text"}))
    assert lines.last["degraded"] == ["exc_info is a str, not an exception"]


def test_exception_text_without_exception_and_stack_info(log: logging.Logger, lines: Lines) -> None:
    """Records from another process have only the exception's text; a stack is a field."""
    lines.emit(logging.makeLogRecord({"name": "x", "msg": "m", "levelno": 40, "exc_text": "Traceback …"}))
    assert lines.last["exception"] == [{"type": "", "value": "Traceback …", "frames": []}]
    log.info("m", stack_info=True)
    assert "test_exception_text" in lines.last["stack_info"]


def test_context_variables_appear_on_stdlib_records(log: logging.Logger, lines: Lines) -> None:
    """Fields bound by structlog's contextvars are in every record; the record's own field wins."""
    with structlog.contextvars.bound_contextvars(run_id="r1", level="odd", case="ctx"):
        log.info("m", extra={"case": "own"})
    assert lines.last["run_id"] == "r1"
    assert lines.last["case"] == "own"
    assert lines.last["shadowed"] == {"level": "odd"}
    log.info("m")
    assert "run_id" not in lines.last


def test_structlog_and_stdlib_give_the_same_line(log: logging.Logger, lines: Lines) -> None:
    """The same event logged both ways differs only in id and time."""
    configure_structlog()
    try:
        structlog.get_logger("fmt.test").info("case done", score=1, name="n", level="x", args=(1,))
        log.info({"event": "case done", "score": 1, "name": "n", "level": "x", "args": (1,)})
    finally:
        structlog.reset_defaults()
    first, second = (
        {key: value for key, value in event.items() if key not in ("event_id", "ts_utc")} for event in lines.events
    )
    assert first == second
    assert first["name"] == "n"
    assert first["shadowed"] == {"level": "x"}


def test_structlog_fields_of_any_name(log: logging.Logger, lines: Lines) -> None:
    """`exc_info` in structlog's sense gives the exception, with any other value a field; `message` is shadowed."""
    configure_structlog()
    try:
        slog = structlog.get_logger("fmt.test").bind(model="m")
        try:
            raise ValueError("bad")
        except ValueError:
            slog.exception("oops", message="mine")
        assert lines.last["exception"][0]["type"] == "ValueError"
        assert (lines.last["message"], lines.last["shadowed"]) == ("oops", {"message": "mine"})
        slog.info("x", exc_info="a text", stacklevel="s")
        assert (lines.last["exc_info"], lines.last["stacklevel"]) == ("a text", "s")
        slog.info("took %d ms", 3)
        assert lines.last["message"] == "took 3 ms"
        slog.info("took %d ms", "x")
        assert lines.last["positional_args"] == ["x"]
        with structlog.contextvars.bound_contextvars(run_id="r"):
            slog.debug("y")
        assert (lines.last["run_id"], lines.last["model"], lines.last["level"]) == ("r", "m", "debug")
    finally:
        structlog.reset_defaults()


def test_structlog_reads_well_on_other_handlers(log: logging.Logger) -> None:
    """A console beside the outbox shows text, not a dict."""
    stream = io.StringIO()
    log.addHandler(logging.StreamHandler(stream))
    configure_structlog()
    try:
        structlog.get_logger("fmt.test").info("case done", score=1)
    finally:
        structlog.reset_defaults()
    assert stream.getvalue() == "case done  score=1\n"


def test_structlogs_own_processor_formatter_chain(log: logging.Logger, lines: Lines) -> None:
    """structlog configured for ProcessorFormatter works too; its private attributes are not fields."""
    structlog.configure(
        processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    try:
        structlog.get_logger("fmt.test").info("hello", a=1)
    finally:
        structlog.reset_defaults()
    assert lines.last["message"] == "hello"
    assert {"_logger", "_name"}.isdisjoint(lines.last)
    log.info("m", extra={"_name": "mine"})
    assert lines.last["_name"] == "mine"


def add_field(logger: Any, method: str, event: Any) -> Any:
    event["added"] = (logger.name, method)
    return event


class AddValue:
    def __init__(self, value: int = 0) -> None:
        self.value = value

    def __call__(self, logger: Any, method: str, event: Any) -> Any:
        event["value"] = self.value
        return event


def spoil(logger: Any, method: str, event: Any) -> Any:
    event.update(node_id="evil", seq=5, level=None, degraded="x", message=["no text"])
    event.pop("kept")
    event.pop("_record", None)
    return event


def raise_after_damage(logger: Any, method: str, event: Any) -> Any:
    event.clear()
    raise ZeroDivisionError


def drop(logger: Any, method: str, event: Any) -> Any:
    raise structlog.DropEvent


def test_processors_run_before_the_stamp(log: logging.Logger) -> None:
    """Processors given by dotted name, dict or object see the event as structlog's do."""
    lines = with_processors(log, f"{__name__}.add_field", {"()": f"{__name__}.AddValue", "value": 7})
    log.info("m")
    assert (lines.last["added"], lines.last["value"]) == (["fmt.test", "info"], 7)


def test_structlogs_own_processors_work(log: logging.Logger) -> None:
    """A class is called without arguments; callsite parameters find the record."""
    lines = with_processors(log, "structlog.processors.CallsiteParameterAdder", structlog.processors.UnicodeDecoder())
    log.info("m")
    assert lines.last["func_name"] == "test_structlogs_own_processors_work"
    assert "degraded" not in lines.last


def test_a_processor_cannot_take_reserved_places(log: logging.Logger) -> None:
    """A processor's value for a reserved field is shadowed; fields that it removes stay removed."""
    lines = with_processors(log, spoil)
    log.info("m", extra={"kept": 1})
    event = lines.last
    assert (event["node_id"], event["level"], event["message"]) == ("node-1", "info", "m")
    assert event["shadowed"] == {
        "node_id": "evil",
        "seq": 5,
        "level": None,
        "degraded": "x",
        "message": ["no text"],
    }
    assert "kept" not in event


@pytest.mark.parametrize("processor", [raise_after_damage, lambda *_: "no dict", lambda: None])
def test_a_processor_that_fails_is_skipped(log: logging.Logger, processor: Any) -> None:
    """If a processor fails, the line is kept as before and says so."""
    lines = with_processors(log, processor, add_field)
    log.info("m", extra={"a": 1})
    assert lines.last["a"] == 1
    assert "added" in lines.last
    assert lines.last["degraded"][0].startswith("processor ")


def test_drop_event_drops(log: logging.Logger) -> None:
    """structlog's DropEvent drops the event and is not a failure."""
    lines = with_processors(log, drop)
    log.info("m")
    assert lines.events == []


@pytest.mark.parametrize(
    "options",
    [
        {"processors": "a.b"},
        {"processors": ["no.such.module"]},
        {"processors": ["json.no_such_name"]},
        {"processors": [3]},
        {"processors": [{"()": f"{__name__}.AddValue", "wrong": 1}]},
        {"processors": [""]},
        {"prefix": "x"},
        {"source": ""},
    ],
)
def test_bad_options_fail_when_configured(options: Any) -> None:
    """Each error names the bad option."""
    with pytest.raises(ConfigError, match=next(iter(options))):
        EventFormatter(**options)


def test_with_another_librarys_handler(node: Node, tmp_path: Any) -> None:
    """With a StreamHandler the formatter stamps the root's node."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(EventFormatter("%(process)d", root=str(node.root), source="console", static_fields={"s": 1}))
    handler.handle(logging.makeLogRecord({"name": "x", "msg": "m", "levelno": 20, "process": 42}))
    event = json.loads(stream.getvalue())
    assert (event["node_id"], event["source"], event["process"], event["s"]) == ("test-node", "console", 42, 1)
    with pytest.raises(NodeNotProvisioned):
        EventFormatter(root=tmp_path)


def test_the_class_form_of_dict_config(node: Node) -> None:
    """`"class":` works as well as `"()":`, with logging's own keys."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "a": {"class": "calyx_logging.EventFormatter", "format": "%(process)d"},
                "b": {
                    "()": "calyx_logging.EventFormatter",
                    "format": "%(process)d",
                    "processors": ["ext://json.dumps"],
                },
            },
            "handlers": {"n": {"class": "logging.NullHandler", "formatter": "a"}},
        }
    )
    handler = logging.getHandlerByName("n") if hasattr(logging, "getHandlerByName") else logging._handlers["n"]
    assert isinstance(handler.formatter, EventFormatter)
    record = logging.makeLogRecord({"name": "x", "msg": "m", "levelno": 20, "process": 42})
    bound = handler.formatter.bound_to(StampEvent("node-1"))
    assert json.loads(bound.format(record))["process"] == 42


def test_custom_levels_and_colours(log: logging.Logger, lines: Lines) -> None:
    """The level is the registered name, even if a colouring formatter changed the record."""
    logging.addLevelName(25, "NOTICE")
    record = logging.makeLogRecord({"name": "x", "msg": "m", "levelno": 25, "levelname": "\x1b[31mNOTICE\x1b[0m"})
    lines.emit(record)
    assert lines.last["level"] == "notice"
    log.log(17, "m")
    assert lines.last["level"] == "level 17"


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=2)
names = (
    st.sampled_from(["run", "node_id", "seq", "message", "_record", "_calyx", "asctime", "name", "x y", ""]) | st.text()
)


@given(
    extra=st.dictionaries(names, values, max_size=4),
    message=values | st.sampled_from(["%s", "%d of %d", "100 %"]),
    args=st.lists(values, max_size=2),
    level=st.sampled_from([0, 10, 20, 25, 30]),
    name=st.text() | st.none(),
    odd=st.sampled_from(
        [{}, {}, {"exc_text": ""}, {"stack_info": ""}, {"created": 5}, {"args": "x"}, {"exc_info": ()}]
    ),
    deleted=st.lists(st.sampled_from(["args", "exc_info", "process", "processName", "taskName"]), max_size=1),
    taken=st.booleans(),
)
def test_the_plain_way_gives_what_the_hooks_give(
    extra: dict[str, Any],
    message: Any,
    args: list[Any],
    level: int,
    name: Any,
    odd: dict[str, Any],
    deleted: list[str],
    taken: bool,
) -> None:
    """The fast path and the hooks give the same bytes for any record."""

    def record() -> logging.LogRecord:
        made = logging.LogRecord(name, level, "file", 1, message, tuple(args), None)
        made.__dict__.update(extra)
        for attribute in deleted:
            made.__dict__.pop(attribute, None)
            if "run" in extra:
                made.__dict__[attribute] = None
        made.created = 1_700_000_000.25
        made.__dict__.update(odd)
        if taken:
            take(made, "handler")
        return made

    formatter = EventFormatter().bound_to(StampEvent("node", new_id=lambda: "id"))
    assert formatter.encode(record()) == formatter._encode_by_hooks(record())


LEAST, GREATEST = (-1e9, 1e11) if os.name == "posix" else (0, 3e10)  # the range of the system's datetime


@given(st.floats(LEAST, GREATEST) | st.integers(0, 2**33).map(lambda n: n + 0.9999999))
def test_the_stamps_time_is_datetimes(seconds: float) -> None:
    """The stamp's time is rounded as datetime rounds, cached or not."""
    stamp = StampEvent("node")
    for created in (seconds, seconds, math.floor(seconds), seconds + 0.25):
        record = logging.makeLogRecord({"created": created, "msg": "m"})
        line = json.loads(EventFormatter().bound_to(stamp).encode(record) or b"")
        assert line["ts_utc"] == utc_text(created)


def test_options_that_are_none() -> None:
    """Bad options are refused: a misspelt name with a suggestion, and fields that are not an object."""
    with pytest.raises(ConfigError, match="did you mean 'processors'"):
        EventFormatter(proccessors=[])
    with pytest.raises(ConfigError, match="give an object of fields"):
        EventFormatter(static_fields=["a"])  # type: ignore[arg-type]
