"""The compiled core heeds changes of logging at any time, as the Python code does."""

from __future__ import annotations

import copy
import gc
import json
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import structlog

from calyx_logging import Node, OutboxHandler, configure_structlog, install_fast_logger
from calyx_logging.compiled import CORE
from conftest import config, events_of, python

needs_core = pytest.mark.skipif(CORE is None, reason="no compiled core is installed")


@pytest.fixture
def handler(node: Node) -> Iterator[OutboxHandler]:
    """Attached to the fast logger `a`, whose cache of levels is filled."""
    made = OutboxHandler(root=node.root, identity=False, crashes=False, warnings=False)
    install_fast_logger()
    logger = logging.getLogger("a")
    logger.propagate = False
    logger.setLevel(1)
    logger.handlers = [logging.NullHandler()]
    logger.info("fills the cache")
    logger.handlers = [made]
    yield made
    logger.handlers = []
    logger.propagate = True
    logger.setLevel(logging.NOTSET)
    made.close()
    structlog.reset_defaults()


@pytest.fixture
def log(handler: OutboxHandler) -> logging.Logger:
    """The logger."""
    return logging.getLogger("a")


def messages(node: Node) -> list[str]:
    return [event["message"] for event in events_of(node.outbox)]


@pytest.mark.parametrize(
    "code",
    [
        "calyx_logging.install_fast_logger(); logging.basicConfig(); logging.getLogger('a').warning('x')",
        "from calyx_logging.events.fast_logger import FastLogger; FastLogger('a').warning('x')",
        "import calyx_logging.compiled as c; c.use(level_names={}); c.shortcut('handle')(print)('WARNING x')",
    ],
)
def test_before_anything_was_told(code: str) -> None:
    """The fast logger alone, without a handler of ours, and the core alone."""
    done = python(f"import logging, calyx_logging\n{code}")
    assert (done.returncode, (done.stdout + done.stderr).count("x")) == (0, 1)


def test_a_record_that_other_threads_write_into(node: Node, handler: OutboxHandler) -> None:
    """Each line is one of those that the record held."""
    interval, stop = sys.getswitchinterval(), threading.Event()
    cell = [logging.LogRecord("n", 20, "p", 1, "0" * 3000, (), None)]

    def other() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            cell[0].msg = str(n % 10) * 3000

    thread = threading.Thread(target=other)
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for k in range(3000):
            cell[0] = record = logging.LogRecord("n", 20, "p", 1, str(k % 10) * 3000, (), None)
            handler.handle(record)
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()
    found = messages(node)
    assert len(found) == 3000
    assert all(message == message[0] * 3000 for message in found)


def test_levels_that_are_properties(log: logging.Logger) -> None:
    """They may do anything, and are asked as often as by logging."""
    calls: list[str] = []

    class Odd(logging.Handler):
        @property
        def level(self) -> int:
            calls.append("level")
            log.handlers = [logging.NullHandler() for _ in range(3)]
            return 0

        @level.setter
        def level(self, value: int) -> None:
            pass

        def emit(self, record: logging.LogRecord) -> None:
            calls.append("emit")

    log.handlers = [Odd() for _ in range(6)]
    calls.clear()
    log.info("x %s", 1)
    assert calls == ["level", "emit"] * 6


def test_marks_of_records_in_cycles(node: Node, handler: OutboxHandler, capfd: pytest.CaptureFixture[str]) -> None:
    """The collection of garbage may come at any allocation."""
    before = gc.get_threshold()

    def one() -> None:
        record = logging.LogRecord("n", 20, "p", 1, "m", (), None)
        handler.handle(record)
        cycle: list[Any] = [record]
        cycle.append(cycle)

    try:
        for first in range(1, 20):
            for unused in range(3):
                gc.set_threshold(first, 1000, 1000)
                for _ in range(15):
                    one()
                    [[] for _ in range(unused)]
    finally:
        gc.set_threshold(*before)
    assert len(messages(node)) == 19 * 3 * 15
    assert "Exception ignored" not in capfd.readouterr().err


INTERRUPTS = """
import json, logging, logging.config, signal, sys, time
logging.config.dictConfig(json.loads(sys.argv[1]))
log = logging.getLogger("harness")
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
caught = 0
def calls(n):  # in a function: Python 3.13 lets an interrupt at the end of a loop pass by the `except` around it
    signal.setitimer(signal.ITIMER_REAL, 0.0001 + n * 0.000003)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        log.info("m %d %r", 7, 8)
for n in range(300):
    try:
        calls(n)
    except KeyboardInterrupt:
        caught += 1
print(caught)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("fast", [False, True])
def test_an_interrupt_while_a_message_is_formatted(node: Node, fast: bool) -> None:
    """It reaches the caller, each time."""
    done = python(INTERRUPTS, json.dumps(config(node, fast=fast, identity=False)))
    assert (done.returncode, done.stdout) == (0, "300\n"), done.stderr


def test_handlers_that_change_the_list(node: Node, handler: OutboxHandler, log: logging.Logger) -> None:
    """One that is added or removed during a call gets the record or not, as with logging, which differs by version."""

    class Keeps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record.getMessage())

    def call_all(logger: logging.Logger, other: logging.Handler) -> None:
        class Adds(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if other not in logger.handlers:
                    logger.addHandler(other)

        class Removes(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                logger.removeHandler(other)

        logger.handlers = [Adds()]
        logger.info("first")
        logger.info("second")
        logger.handlers = [Removes(), other]
        logger.info("third")

    kept: list[str] = []
    stock = logging.Logger("stock")
    stock.propagate = False
    call_all(stock, Keeps())
    assert kept[:2] == ["first", "second"]
    call_all(log, handler)
    assert messages(node) == kept


def test_a_handler_that_raises(log: logging.Logger) -> None:
    """Its exception is the caller's, once."""

    class Raises(logging.Handler):
        calls = 0

        def handle(self, record: logging.LogRecord) -> bool:
            Raises.calls += 1
            raise RuntimeError("of the handler")

    log.handlers = [Raises(), Raises()]
    with pytest.raises(RuntimeError, match="of the handler"):
        log.info("x")
    assert Raises.calls == 1


def test_methods_replaced_on_classes(node: Node, handler: OutboxHandler, log: logging.Logger) -> None:
    """A replaced method is called, also if the replacement comes with another `__class__`."""
    for owner, name in (
        (OutboxHandler, "handle"),
        (logging.Logger, "info"),
        (logging.Logger, "_log"),
        (logging.Logger, "handle"),
        (logging.Logger, "callHandlers"),
        (logging.Logger, "makeRecord"),
        (logging.Logger, "findCaller"),
        (logging.Logger, "isEnabledFor"),
    ):
        before = len(messages(node))
        with mock.patch.object(owner, name, return_value=("f", 1, "g", None)) as patched:
            if name == "makeRecord":
                patched.return_value = logging.LogRecord("n", 20, "f", 1, "made", (), None)
            log.info("x")
        assert patched.call_count == 1, name
        assert (len(messages(node)) > before) == (name in ("makeRecord", "findCaller", "isEnabledFor")), name
    with mock.patch.object(logging.LogRecord, "getMessage", return_value="another"):
        log.info("x")
        handler.handle(logging.LogRecord("n", 20, "f", 1, "m", (), None))
    assert messages(node)[-2:] == ["another", "another"]

    class Sub(OutboxHandler):
        calls = 0

        def handle(self, record: logging.LogRecord) -> Any:
            Sub.calls += 1
            return super().handle(record)

    handler.__class__ = Sub
    log.info("x")
    handler.__class__ = OutboxHandler
    assert Sub.calls == 1
    log.info("x")
    assert messages(node)[-2:] == ["x", "x"]


def test_large_levels(node: Node, handler: OutboxHandler, log: logging.Logger) -> None:
    """Beyond 64 bits."""
    for level, count in ((2**63, 0), (10**30, 0), (-(10**30), 1)):
        handler.setLevel(level)
        log.warning("x")
        assert len(messages(node)) == count


@pytest.mark.parametrize("name", ["message", "asctime", "name", "msg", "thread"])
def test_extras_that_conflict_raise(handler: OutboxHandler, log: logging.Logger, name: str) -> None:
    """Whether or not anybody wants the record."""
    for level in (logging.NOTSET, logging.ERROR):
        handler.setLevel(level)
        with pytest.raises(KeyError, match="Attempt to overwrite"):
            log.info("x", extra={name: 1})
    with pytest.raises(TypeError):
        log.info("x", extra=[("a", 1)])  # type: ignore[arg-type]


def test_attributes_that_were_put_elsewhere(node: Node, log: logging.Logger) -> None:
    """One that a filter takes out and puts in again is no field."""

    def shout(record: logging.LogRecord) -> bool:
        record.__dict__["msg"] = record.__dict__.pop("msg").upper()
        return True

    log.addFilter(shout)
    log.info("hello", extra={"x": 1})
    log.removeFilter(shout)
    (event,) = events_of(node.outbox)
    assert event["message"] == "HELLO"
    assert set(event) == {"node_id", "ts_utc", "event_id", "source", "level", "logger", "message", "x", "seq"}


def test_structlogs_loggers_that_are_changed(node: Node, handler: OutboxHandler) -> None:
    """Methods replaced on one, `capture_logs`, a field of its parameter's name, arguments that do not fit."""
    configure_structlog(handler)
    log = structlog.get_logger("s").bind()
    with structlog.testing.capture_logs() as captured:
        structlog.get_logger("t").info("captured")
    assert [entry["event"] for entry in captured] == ["captured"]
    log._logger.info = replaced = mock.Mock()
    log.info("replaced")
    assert replaced.call_count == 1
    with pytest.raises(TypeError):
        structlog.get_logger("s").bind().info("x", self=1)
    structlog.get_logger("s").info("letter %c", 0x110000)
    assert messages(node) == ["letter %c"]
    configure_structlog()
    logging.getLogger("a").handlers = [handler]
    structlog.get_logger("a").info("letter %c", 0x110000)
    assert messages(node) == ["letter %c", "letter %c"]


REPLACED_CLOCK = """
from unittest import mock
import json, logging, logging.config, sys, structlog
with mock.patch("time.time", return_value=1700000000):
    import calyx_logging
    logging.config.dictConfig(json.loads(sys.argv[1]))
    calyx_logging.install_fast_logger()
    calyx_logging.configure_structlog(logging.getLogger("harness").handlers[0])
    logging.getLogger("harness").info("x")
structlog.get_logger("s").info("z")
"""


def test_imported_while_the_clock_is_replaced(node: Node) -> None:
    """A clock that gives whole numbers is asked as logging asks it."""
    done = python(REPLACED_CLOCK, json.dumps(config(node, identity=False)))
    assert done.returncode == 0, done.stderr
    assert {event["ts_utc"][:4] for event in events_of(node.outbox)} <= {"2023", "2026"}


def test_ids_stay_with_the_clock(node: Node, handler: OutboxHandler) -> None:
    """Event ids increase whatever records say of their time."""
    now = time.time()
    for n in range(5000):
        handler.handle(logging.makeLogRecord({"name": "n", "levelno": 20, "msg": "q", "created": now + n * 0.009}))
    handler.handle(logging.makeLogRecord({"name": "n", "levelno": 20, "msg": "q", "created": 0.005}))
    ids = [event["event_id"] for event in events_of(node.outbox)]
    assert ids == sorted(ids)
    times = [int(text.replace("-", "")[:12], 16) / 1000 - now for text in ids]
    assert -1 < min(times) <= max(times) < 30


def test_names_replaced_in_modules(handler: OutboxHandler, log: logging.Logger) -> None:
    """`threading.get_ident`, as gevent does; `logging.getLevelName`."""
    seen: list[logging.LogRecord] = []

    class Other(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    log.handlers = [Other()]
    greenlet = threading.Thread(name="greenlet")
    threads: Any = threading._active  # type: ignore[attr-defined]
    threads[4242] = greenlet
    try:
        with mock.patch("threading.get_ident", return_value=4242):
            log.info("x")
    finally:
        del threads[4242]
    with mock.patch("logging.getLevelName", return_value="LOUD"):
        log.info("x")
    with mock.patch("logging.logThreads", False):
        log.info("x")
    with mock.patch("time.time", return_value=5.0), mock.patch("time.time_ns", return_value=5 * 10**9):
        log.info("x")
    assert (seen[0].threadName, seen[0].thread) == ("greenlet", 4242)
    assert seen[1].levelname == "LOUD"
    assert seen[2].threadName is None
    assert seen[3].created == 5.0


def test_methods_are_methods(handler: OutboxHandler, log: logging.Logger) -> None:
    """The methods can be held weakly, copied, pickled and read about."""
    calls: list[Callable[..., Any]] = [log.info, handler.handle]
    for method in calls:
        assert weakref.WeakMethod(method)() == method  # type: ignore[arg-type]
        assert copy.copy(type(method.__self__).__dict__.get(method.__name__, method)) is not None  # type: ignore[attr-defined]
        assert method.__doc__
    assert log.info.__name__ == "info"


@needs_core
def test_what_configure_structlog_makes_goes_again(handler: OutboxHandler) -> None:
    """Configured again and again, as tests do."""

    def work() -> int:
        for _ in range(50):
            configure_structlog(handler)
        structlog.reset_defaults()
        gc.collect()
        return sys.getallocatedblocks()

    work()
    figures = [work() for _ in range(6)]  # other threads of the process allocate, too
    assert min(figures[3:]) - min(figures[:3]) < 50


REPLACED_BEFORE = """
import functools, json, logging, logging.config, sys

called = []

def around(owner, name):
    before = getattr(owner, name)
    @functools.wraps(before)
    def replaced(*args, **kwargs):
        called.append(name)
        return before(*args, **kwargs)
    setattr(owner, name, replaced)

what = sys.argv[2]
if what == "factory":
    class Record(logging.LogRecord):
        pass
    logging.setLogRecordFactory(Record)
elif what == "flags":
    logging.logThreads = False
elif what == "place":
    logging._srcfile = None
elif what == "getLevelName":
    around(logging, what)
else:
    owner, name = what.split(".")
    around(getattr(logging, owner), name)

seen = []
class Other(logging.Handler):
    def emit(self, record):
        seen.append(record)

logging.config.dictConfig(json.loads(sys.argv[1]))
logger = logging.getLogger("harness")
logger.info("fills the cache of levels")
called.clear()
for handlers in (1, 2):
    if handlers == 2:
        logger.addHandler(Other())
    logger.info("m %d", 1)
record = seen[0]
if what == "factory":
    called += [1, 1] if type(record) is Record else []
elif what == "flags":
    called += [1, 1] if record.threadName is None else []
elif what == "place":
    called += [1, 1] if record.pathname == "(unknown file)" else []
print(len(called))
"""


@pytest.mark.parametrize(
    "what",
    [
        *("factory", "flags", "place", "getLevelName", "LogRecord.__init__", "LogRecord.getMessage"),
        *(f"Logger.{name}" for name in ("info", "_log", "makeRecord", "findCaller", "handle", "callHandlers")),
        *("Logger.isEnabledFor", "Filterer.filter"),
    ],
)
def test_what_was_replaced_before_the_import(node: Node, what: str) -> None:
    """Instrumentation may come first: its hooks are no less heeded."""
    done = python(REPLACED_BEFORE, json.dumps(config(node, fast=True, identity=False)), what)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2
    assert len(events_of(node.outbox)) == 3
