"""The fast logger makes the records that logging.Logger makes."""

from __future__ import annotations

import asyncio
import json
import logging
import logging.config
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import calyx_logging
from calyx_logging import Node
from calyx_logging.errors import ConfigError
from calyx_logging.events.fast_logger import FastLogger, install_fast_logger
from conftest import config, events_of, python

TIMES = ("created", "msecs", "relativeCreated")


class Keeper(logging.Handler):
    """Keeps the records it receives."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def handle(self, record: logging.LogRecord) -> bool:
        self.records.append(record)
        return True


def pair() -> tuple[list[logging.Logger], Keeper]:
    keeper = Keeper()
    loggers: list[logging.Logger] = [logging.Logger("some.name"), FastLogger("some.name")]
    for logger in loggers:
        logger.addHandler(keeper)
    return loggers, keeper


def assert_alike(call: Callable[[logging.Logger], object]) -> None:
    """Assert that both loggers make the same record of a call, apart from its time."""
    loggers, keeper = pair()
    raised = []
    for logger in loggers:
        try:
            call(logger)
        except Exception as error:
            raised.append((type(error), error.args))
    if raised:
        assert raised[0] == raised[1]
        return
    stock, fast = keeper.records
    assert type(stock) is type(fast)
    assert list(stock.__dict__) == list(fast.__dict__)
    for name, value in stock.__dict__.items():
        if name in TIMES:
            assert type(value) is type(fast.__dict__[name])
            assert abs(value - fast.__dict__[name]) < 10_000
        else:
            assert (name, value) == (name, fast.__dict__[name])
    assert fast.msecs == pytest.approx((fast.created - int(fast.created)) * 1000, abs=1)
    assert stock.getMessage() == fast.getMessage()


values = st.none() | st.booleans() | st.integers() | st.text() | st.dictionaries(st.text(), st.integers(), max_size=2)


@given(
    level=st.integers(1, 60),
    args=st.lists(values, max_size=1),
    extra=st.none() | st.dictionaries(st.text() | st.sampled_from(["message", "name", "run", "taskName"]), values),
    stacklevel=st.sampled_from([1, 1, 2, 3, 50]),
    stack_info=st.booleans(),
    exc_info=st.sampled_from([None, None, True, ValueError("v")]),
)
def test_any_call(level: int, args: list[Any], extra: Any, stacklevel: int, stack_info: bool, exc_info: Any) -> None:
    """Any level, arguments, extra, stack and exception give equal attributes."""
    options: dict[str, Any] = {"extra": extra, "stacklevel": stacklevel, "exc_info": exc_info}
    assert_alike(lambda logger: logger.log(level, "m %s" if args else "m", *args, **options))
    if not stack_info:
        return
    loggers, keeper = pair()
    for logger in loggers:
        logger.log(level, "m", stack_info=True)
    texts = [record.stack_info or "" for record in keeper.records]
    assert all("in test_any_call" in text.splitlines()[-2] for text in texts)


@pytest.mark.parametrize("name", ["debug", "info", "warning", "error", "critical", "exception"])
def test_every_method(name: str) -> None:
    """Every method gives equal records, also through an adapter, whose frame is not the caller's."""
    assert_alike(lambda logger: getattr(logger, name)("m %d", 1))
    assert_alike(lambda logger: getattr(logging.LoggerAdapter(logger, {"run": 1}), name)("m"))


def test_threads_tasks_processes_and_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thread and task names, logging's own flags and child processes are handled alike."""
    thread = threading.Thread(target=assert_alike, args=(lambda logger: logger.info("m"),), name="worker")
    thread.start()
    thread.join()

    async def task() -> None:
        assert_alike(lambda logger: logger.info("m"))

    asyncio.run(task())
    for flag in ("logThreads", "logProcesses", "logMultiprocessing", "logAsyncioTasks"):
        with monkeypatch.context() as patch:
            patch.setattr(logging, flag, False, raising=False)
            assert_alike(lambda logger: logger.info("m"))
    if hasattr(os, "fork"):
        pid = os.fork()
        if pid == 0:
            try:
                assert_alike(lambda logger: logger.info("m"))
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0


def test_a_record_factory_is_used() -> None:
    """A custom record factory is used."""

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = logging.LogRecord(*args, **kwargs)
        record.run = 7
        return record

    logging.setLogRecordFactory(factory)
    try:
        assert_alike(lambda logger: logger.info("m"))
        (_, fast), keeper = pair()
        fast.info("m")
        assert keeper.records[0].__dict__["run"] == 7
    finally:
        logging.setLogRecordFactory(logging.LogRecord)


def test_methods_of_somebodys_own_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods patched into logging, or set on one logger, are used."""
    make = logging.Logger.makeRecord

    def marked(self: logging.Logger, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(self, *args, **kwargs)
        record.trace = 1
        return record

    with monkeypatch.context() as patch:
        patch.setattr(logging.Logger, "makeRecord", marked)
        assert_alike(lambda logger: logger.info("m"))
    with monkeypatch.context() as patch:
        patch.setattr(logging, "_srcfile", None)
        assert_alike(lambda logger: logger.info("m"))
    (_, fast), keeper = pair()
    fast.findCaller = lambda *_, **__: ("here.py", 7, "own", None)  # type: ignore[method-assign]
    fast.info("m")
    assert keeper.records[0].lineno == 7


@pytest.fixture
def stock_classes() -> Iterator[None]:
    """Undo an installation after the test."""
    before = {name: type(logger) for name, logger in logging.root.manager.loggerDict.items()}
    present = logging.getLoggerClass()
    logging.setLoggerClass(logging.Logger)
    yield
    logging.setLoggerClass(present)
    for name, logger in logging.root.manager.loggerDict.items():
        if type(logger) is FastLogger:
            logger.__class__ = before.get(name, logging.Logger)


def test_installed_for_loggers_there_are_and_to_come(stock_classes: None) -> None:
    """A second installation changes nothing, and other classes are left alone."""

    class Own(logging.Logger):
        pass

    there = logging.getLogger("fast.there")
    logging.setLoggerClass(Own)
    own = logging.getLogger("fast.own")
    with pytest.raises(ConfigError, match="Own already"):
        install_fast_logger()
    logging.setLoggerClass(logging.Logger)
    calyx_logging.install_fast_logger()
    calyx_logging.install_fast_logger()
    assert (type(there), type(own), type(logging.getLogger("fast.to.come"))) == (FastLogger, Own, FastLogger)
    assert type(logging.getLogger()) is logging.RootLogger


def test_by_configuration(node: Node, stock_classes: None) -> None:
    """The option `fast: true` gives the same lines."""
    done = python(
        """
        import json, logging, logging.config, sys
        log = logging.getLogger("harness")
        logging.config.dictConfig(json.loads(sys.argv[1]))
        assert type(log).__name__ == "FastLogger"
        log.info("step %d", 1, extra={"run": 7})
        """,
        json.dumps(config(node, fast=True)),
    )
    assert done.returncode == 0, done.stderr
    (event,) = events_of(node.outbox)
    assert (event["message"], event["run"], event["level"], event["logger"]) == ("step 1", 7, "info", "harness")
    with pytest.raises(ValueError, match="outbox"):
        logging.config.dictConfig(config(node, fast="yes"))
