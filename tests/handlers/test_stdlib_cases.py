"""OutboxHandler passes cases from CPython's Lib/test/test_logging.py, like any standard handler.

Each test names the case it was adapted from; it looks in the chunks for what a file handler would have in its file.
"""

from __future__ import annotations

import json
import logging
import logging.config
import logging.handlers
import os
import pathlib
import pickle
import queue
import random
import signal
import threading
import time
import warnings
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest

import calyx_logging
from calyx_logging import Node, OutboxHandler
from conftest import close_logging, config, controls_of, events_of, python

Configure = Callable[..., logging.Logger]


def messages(node: Node) -> list[str]:
    return [event["message"] for event in events_of(node.outbox)]


# ---------------------------------------------------------------- HandlerTest


def test_name(node: Node) -> None:
    """HandlerTest.test_name: the name can be set, changed and looked up."""
    handler = OutboxHandler(root=node.root, identity=False)
    handler.name = "generic"
    assert handler.name == "generic"
    handler.name = "anothergeneric"
    assert handler.name == "anothergeneric"
    assert logging._handlers["anothergeneric"] is handler  # type: ignore[attr-defined]
    assert "generic" not in logging._handlers  # type: ignore[attr-defined]
    handler.close()


def test_path_objects(node: Node) -> None:
    """HandlerTest.test_path_objects: an option that takes a path as text also takes a path object."""
    for root in (str(node.root), pathlib.Path(node.root), os.fspath(node.root)):
        handler = OutboxHandler(root=root, identity=False)
        handler.handle(logging.makeLogRecord({"msg": "m"}))
        handler.close()
    assert messages(node) == ["m"] * 3


def test_race(node: Node) -> None:
    """HandlerTest.test_race: the folder is deleted again and again while records are handled; none raises."""
    handler = OutboxHandler(root=node.root, identity=False)

    def remove_loop() -> None:
        for _ in range(200):
            for path in node.outbox.glob("*.open"):
                try:
                    path.unlink()
                except OSError:
                    return  # Windows cannot delete an open file
            time.sleep(0.001 * random.randint(0, 2))

    remover = threading.Thread(target=remove_loop)
    remover.start()
    try:
        for n in range(500):
            handler.handle(logging.makeLogRecord({"msg": "testing", "n": n}))
            if n % 20 == 0:
                handler.seal()
    finally:
        remover.join()
        handler.close()
    kept = {event["n"] for event in events_of(node.outbox)}
    lost = sum(line["count"] for line in controls_of(node.outbox) if line["control"] == "gap")
    assert len(kept) + lost == 500


def test_post_fork_child_no_deadlock(node: Node, configure: Configure) -> None:
    """HandlerTest.test_post_fork_child_no_deadlock: a fork while another thread holds the handler's locks."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    logger = configure(warnings=False)  # one about a fork beside threads, from Python 3.12 on
    handler = logger.handlers[0]
    locked, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with handler.lock, handler._pool._care:  # type: ignore[attr-defined, union-attr]
            locked.set()
            forked.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait(20)
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        logger.info("from the child")
        os._exit(0)
    forked.set()
    thread.join()
    assert os.waitpid(pid, 0)[1] == 0
    logger.info("from the parent")
    assert sorted(event["message"] for event in events_of(node.outbox)) == ["from the child", "from the parent"]


def test_handlers_closed_twice_and_flushed(node: Node, configure: Configure) -> None:
    """ShutdownTest, FileHandlerTest: closing and flushing are harmless in any order."""
    handler = configure().handlers[0]
    for _ in range(2):
        handler.flush()
        handler.close()
    logging.getLogger("harness").info("a")
    handler.flush()
    logging.shutdown([lambda: handler])  # type: ignore[list-item]
    assert [event["message"] for event in events_of(node.outbox)] == ["a"]


def test_names_and_levels_as_other_handlers(node: Node) -> None:
    """HandlerTest.test_name, BasicFilterTest: by-name lookup, level, filter objects."""
    settings = config(node, level="WARNING")
    settings["filters"] = {"own": {"name": "harness.kept"}}
    settings["handlers"]["outbox"]["filters"] = ["own"]
    logging.config.dictConfig(settings)
    handler = logging.getLogger("harness").handlers[0]
    assert handler.get_name() == "outbox"
    logging.getLogger("harness.kept").warning("kept")
    logging.getLogger("harness.kept").info("too low")
    logging.getLogger("harness.other").warning("filtered")
    close_logging()
    assert [event["message"] for event in events_of(node.outbox)] == ["kept"]


def test_race_between_set_target_and_flush_like_reconfiguration(node: Node) -> None:
    """test_race_between_set_target_and_flush: configuring again and again while threads log."""
    logging.config.dictConfig(config(node))
    stop = threading.Event()
    counts = [0, 0]

    def work(place: int) -> None:
        logger = logging.getLogger("harness")
        while not stop.is_set():
            logger.info("m", extra={"place": place, "n": counts[place]})
            counts[place] += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    handlers = set()
    for _ in range(15):
        handlers.update(logging.getLogger("harness").handlers)
        logging.config.dictConfig(config(node))
    stop.set()
    for thread in threads:
        thread.join()
    close_logging()
    for handler in handlers:
        handler.close()
    seen = sorted((event["place"], event["n"]) for event in events_of(node.outbox))
    assert len(seen) == len(set(seen))
    # while dictConfig swaps handlers, a logger briefly has none; records that reached a handler are kept
    assert len(seen) > 0
    assert list(node.outbox.glob("*.open")) == []


# ---------------------------------------------------------------- FileHandlerTest, RotatingFileHandlerTest


def test_delay(node: Node) -> None:
    """FileHandlerTest.test_delay: no file before the first record."""
    handler = OutboxHandler(root=node.root, identity=False)
    assert list(node.outbox.glob("*.jsonl*")) == []
    handler.handle(logging.makeLogRecord({}))
    assert len(list(node.outbox.glob("*.open"))) == 1
    handler.close()


def test_emit_after_closing_in_write_mode(node: Node) -> None:
    """FileHandlerTest.test_emit_after_closing_in_write_mode: here the record is kept, by a new writer."""
    handler = OutboxHandler(root=node.root, identity=False)
    handler.setFormatter(calyx_logging.EventFormatter("%(message)s"))
    handler.emit(logging.makeLogRecord({"msg": "kept"}))
    handler.close()
    handler.emit(logging.makeLogRecord({"msg": "kept too"}))
    handler.close()
    assert sorted(messages(node)) == ["kept", "kept too"]
    assert len({path.name.split("__")[2][:8] for path in node.outbox.glob("*.jsonl")}) == 2


def test_should_not_rollover(node: Node) -> None:
    """RotatingFileHandlerTest.test_should_not_rollover: under max_bytes there is one file."""
    handler = OutboxHandler(root=node.root, identity=False)
    for _ in range(50):
        handler.handle(logging.makeLogRecord({"msg": "testing"}))
    handler.close()
    assert len(list(node.outbox.glob("*.jsonl"))) == 1


def test_rollover_filenames(node: Node) -> None:
    """RotatingFileHandlerTest.test_should_rollover, test_rollover_filenames: a record over the limit begins a file."""
    handler = OutboxHandler(root=node.root, identity=False, max_bytes=1)
    for n in range(3):
        handler.handle(logging.makeLogRecord({"msg": f"file {n}"}))
    handler.close()
    names = sorted(path.name for path in node.outbox.glob("*.jsonl"))
    assert [name.rpartition("-")[2] for name in names] == [f"000{n}.jsonl" for n in range(4)]
    assert messages(node) == [f"file {n}" for n in range(3)]
    assert all(path.read_bytes().count(b"\n") == 1 for path in node.outbox.glob("*.jsonl"))


def test_timed_rollover(node: Node) -> None:
    """TimedRotatingFileHandlerTest.test_rollover: an old file is closed and a new one begun."""
    handler = OutboxHandler(root=node.root, identity=False, max_age=0.2)
    handler.handle(logging.makeLogRecord({"msg": "testing - initial"}))
    end = time.monotonic() + 30
    while not list(node.outbox.glob("*.jsonl")) and time.monotonic() < end:
        time.sleep(0.05)
    handler.handle(logging.makeLogRecord({"msg": "testing - after delay"}))
    handler.close()
    assert len(list(node.outbox.glob("*.jsonl"))) == 2
    assert messages(node) == ["testing - initial", "testing - after delay"]


@pytest.mark.parametrize("text", ["foo\x80", "\u0434\u043e \u0441\u0432\u0438\u0434\u0430\u043d\u0438\u044f"])
def test_encoding(node: Node, configure: Configure, text: str) -> None:
    """EncodingTest.test_encoding_plain_file, test_encoding_cyrillic_unicode: texts are read back unchanged."""
    configure().warning(text)
    close_logging()
    assert messages(node) == [text]
    (path,) = node.outbox.glob("*.jsonl")
    assert text in path.read_bytes().decode("utf-8")


# ---------------------------------------------------------------- records


@pytest.mark.parametrize(
    ("args", "text"),
    [(({"less": "more"},), "less is more"), (({},), "%(less)s is %(less)s")],
)
def test_dict_arg(node: Node, configure: Configure, args: Any, text: str) -> None:
    """LogRecordTest.test_dict_arg: a dict as the one argument."""
    configure().info("less is %(less)s" if "more" in text else text, *args)
    assert messages(node) == [text]


def test_optional(node: Node, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """LogRecordTest.test_optional: records made without thread, process and multiprocessing names."""
    for name in ("logThreads", "logProcesses", "logMultiprocessing"):
        monkeypatch.setattr(logging, name, False)
    configure().info("bare")
    assert messages(node) == ["bare"]


def test_logrecord_class(node: Node, configure: Configure) -> None:
    """LogRecordFactoryTest.test_logrecord_class: a factory's own record class."""

    class DerivedLogRecord(logging.LogRecord):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.run = "derived"

    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(DerivedLogRecord)
    try:
        configure().info("m")
    finally:
        logging.setLogRecordFactory(before)
    assert [event["run"] for event in events_of(node.outbox)] == ["derived"]


def test_pickling(node: Node) -> None:
    """LoggerTest.test_pickling, SocketHandlerTest.test_output: a pickled record gives an equal event, its id apart."""
    handler = OutboxHandler(root=node.root, identity=False)
    record = logging.makeLogRecord({"msg": "over the wire", "levelno": logging.INFO, "levelname": "INFO", "run": 7})
    handler.handle(record)
    handler.handle(logging.makeLogRecord(pickle.loads(pickle.dumps(record.__dict__))))
    handler.close()
    first, second = events_of(node.outbox)
    assert first.pop("event_id") != second.pop("event_id")
    del first["seq"], second["seq"]
    assert first == second


def test_exception_formatting(node: Node, configure: Configure) -> None:
    """ExceptionTest.test_formatting: the event has both exception and stack."""
    try:
        raise RuntimeError("deliberate mistake")
    except RuntimeError:
        configure().exception("failed", stack_info=True)
    (event,) = events_of(node.outbox)
    assert (event["exception"][0]["type"], event["exception"][0]["value"]) == ("RuntimeError", "deliberate mistake")
    assert event["stack_info"].startswith("Stack (most recent call last):")


def test_adapter_nested(node: Node, configure: Configure) -> None:
    """LoggerAdapterTest.test_nested: extras of nested adapters apply as in the standard library."""
    adapter = logging.LoggerAdapter(logging.LoggerAdapter(configure(), {"run": "inner"}), {"run": "outer"})  # type: ignore[type-var]
    adapter.info("m")
    (event,) = events_of(node.outbox)
    assert event["run"] == "inner"  # each adapter replaces extra, the innermost last


def test_config_namedtuple_and_callable_filter(node: Node) -> None:
    """ConfigDictTest.test_namedtuple, test_config_callable_filter_works: namedtuples and callables from dictConfig."""
    resource = namedtuple("resource", ["id", "name"])("3", "n")  # type: ignore[name-match]
    settings = config(node)
    settings["formatters"]["event"]["static_fields"] = {"resource": resource}
    settings["filters"] = {"all": {"()": lambda: lambda record: record.levelno > logging.INFO}}
    settings["handlers"]["outbox"]["filters"] = ["all"]
    logging.config.dictConfig(settings)
    logging.getLogger("harness").info("filtered")
    logging.getLogger("harness").warning("kept")
    close_logging()
    assert [(event["message"], event["resource"]) for event in events_of(node.outbox)] == [("kept", ["3", "n"])]


def test_incremental_config(node: Node, configure: Configure) -> None:
    """ConfigDictTest.test_config_10, test_config_8: an incremental configuration leaves the handler unchanged."""
    logger = configure()
    handler = logger.handlers[0]
    logger.info("before")
    logging.config.dictConfig(
        {"version": 1, "incremental": True, "handlers": {"outbox": {"level": "ERROR"}}, "loggers": {}}
    )
    assert logger.handlers == [handler]
    logger.info("too low")
    logger.error("after")
    assert messages(node) == ["before", "after"]
    assert len(list(node.outbox.glob("*.jsonl*"))) == 1


def test_warnings(node: Node, configure: Configure) -> None:
    """WarningsTest.test_warnings: captured warnings are events."""
    handler = configure().handlers[0]
    logger = logging.getLogger("py.warnings")
    logger.addHandler(handler)
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("always", category=UserWarning)
            warnings.warn("I'm warning you...", stacklevel=1)
    finally:
        logging.captureWarnings(False)
        logger.removeHandler(handler)
    (event,) = events_of(node.outbox)
    assert "UserWarning: I'm warning you..." in event["message"]
    assert (event["logger"], event["level"]) == ("py.warnings", "warning")


# ---------------------------------------------------------------- other handlers in front


def test_memory_handler_flush(node: Node, configure: Configure) -> None:
    """MemoryHandlerTest.test_flush, test_flush_on_close: records arrive when a buffering handler flushes them."""
    target = configure().handlers[0]
    logger = logging.getLogger("mem")
    buffer = logging.handlers.MemoryHandler(10, logging.WARNING, target)
    logger.addHandler(buffer)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.info("one")
    assert messages(node) == []
    logger.warning("two")
    assert messages(node) == ["one", "two"]
    logger.info("three")
    logger.removeHandler(buffer)
    buffer.close()
    assert messages(node) == ["one", "two", "three"]


def test_queue_listener_with_multiple_handlers(node: Node, configure: Configure) -> None:
    """QueueHandlerTest.test_queue_listener_with_multiple_handlers: both handlers get the record unchanged."""
    target = configure().handlers[0]
    seen: list[str] = []

    class Other(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(self.format(record))

    other = Other()
    other.setFormatter(logging.Formatter("[%(message)s]"))
    records: queue.Queue[Any] = queue.Queue()
    listener = logging.handlers.QueueListener(records, other, target, respect_handler_level=True)
    listener.start()
    logger = logging.getLogger("que")
    logger.propagate = False
    front = logging.handlers.QueueHandler(records)
    logger.addHandler(front)
    for word in ("this", "is %s"):
        logger.error(word, *(["it"] if "%" in word else []))
    logger.removeHandler(front)
    listener.stop()
    assert messages(node) == ["this", "is it"]
    assert seen == ["[this]", "[is it]"]


# ---------------------------------------------------------------- the end of a program


def test_logging_at_shutdown(node: Node) -> None:
    """ModuleLevelMiscTest.test_logging_at_shutdown: logging from __del__ at interpreter exit; other events are kept."""
    done = python(
        """
        import json, logging, logging.config, sys
        logging.config.dictConfig(json.loads(sys.argv[1]))
        class A:
            def __del__(self):
                try:
                    raise ValueError("some error")
                except Exception:
                    logging.getLogger("harness").exception("exception in __del__")
        a = A()
        """,
        json.dumps(config(node)),
    )
    assert done.returncode == 0, done.stderr
    assert messages(node) == ["exception in __del__"]
    assert events_of(node.outbox)[0]["exception"][0]["value"] == "some error"


def test_recursion_error(node: Node) -> None:
    """ModuleLevelMiscTest.test_recursion_error: an exhausted stack ends the program, not the outbox."""
    done = python(
        """
        import json, logging, logging.config, sys
        logging.config.dictConfig(json.loads(sys.argv[1]))
        logging.getLogger("harness").info("before")
        def rec():
            logging.getLogger("harness").error("foo")
            rec()
        rec()
        """,
        json.dumps(config(node)),
    )
    assert "RecursionError: maximum recursion depth exceeded" in done.stderr
    assert "Cannot recover from stack overflow" not in done.stderr
    assert done.returncode == 1
    assert messages(node)[:2] == ["before", "foo"]
    assert controls_of(node.outbox)[-1]["reason"] == "closed"


@pytest.mark.parametrize("error", [OSError, ValueError])
@pytest.mark.parametrize("method", ["acquire", "flush", "close"])
def test_shutdown_with_errors(node: Node, configure: Configure, method: str, error: type[Exception]) -> None:
    """ShutdownTest: another handler that fails at shutdown does no harm."""
    handler = configure().handlers[0]

    class Failing(logging.NullHandler):
        pass

    def fail(*_: object) -> None:
        raise error

    failing = Failing()
    setattr(failing, method, fail)
    logging.getLogger("harness").info("m")
    logging.shutdown([lambda: handler, lambda: failing])  # type: ignore[list-item]
    assert messages(node) == ["m"]
    assert controls_of(node.outbox)[-1]["reason"] == "closed"
