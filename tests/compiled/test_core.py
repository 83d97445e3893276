"""The compiled core keeps more than equal bytes: ids, references, memory, threads, interrupts, forks."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from calyx_logging import Node, OutboxHandler, install_fast_logger
from calyx_logging.compiled import CORE
from calyx_logging.events.fast_logger import FastLogger
from calyx_logging.events.stamp import StampEvent
from conftest import close_logging, config, controls_of, events_of, python
from faults.disk import python_way

Configure = Callable[..., logging.Logger]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
needs_core = pytest.mark.skipif(CORE is None, reason="no compiled core is installed")


def new_id() -> str:
    return str(StampEvent("test-node")(None, "info", {})["event_id"])


def test_ids_are_uuids_of_version_7_that_increase() -> None:
    """Many in each millisecond."""
    before = time.time()
    ids = [new_id() for _ in range(20_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    for text in ids[::997]:
        assert re.fullmatch("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", text)
        assert -1 < int(text[:8] + text[9:13], 16) / 1000 - before < 600


def test_ids_increase_between_both_ways(node: Node, configure: Configure) -> None:
    """Records that are plain, records that are not, and those of other handlers."""
    logger = configure()
    for n in range(300):
        logger.info("m", extra={"n": n, "odd": {1} if n % 3 else 0})
        if n % 50 == 0:
            with python_way():
                logger.info("m", extra={"n": n})
    ids = [event["event_id"] for event in events_of(node.outbox)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 306


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_no_two_of_64_forks_give_one_id(node: Node, configure: Configure) -> None:
    """64 children of a parent that has given ids give none twice, and each child's ids increase."""
    logger = configure()
    logger.info("before")
    pids = []
    for child in range(64):
        pid = os.fork()
        if pid == 0:
            for n in range(50):
                logger.info("m", extra={"child": child, "n": n})
            os._exit(0)
        pids.append(pid)
        logger.info("m", extra={"child": -1, "n": child})
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 64
    close_logging()
    found: dict[int, list[tuple[int, str]]] = {}
    for event in events_of(node.outbox):
        if event["message"] == "m":
            found.setdefault(event["child"], []).append((event["n"], event["event_id"]))
    ids = [found_id for events in found.values() for _, found_id in events]
    assert len(ids) == len(set(ids)) == 64 * 51
    for events in found.values():
        in_order = [found_id for _, found_id in sorted(events)]
        assert in_order == sorted(in_order)


@needs_core
def test_references_come_out_even(node: Node, configure: Configure) -> None:
    """Plain calls, odd ones and those that raise leave the reference counts of what they touch as they were."""
    install_fast_logger()
    logger, stock = configure(), logging.Logger("stock", logging.INFO)
    handler: Any = logger.handlers[0]
    stock.addHandler(handler)
    message, number, extra = "".join(["a ", "message %s"]), 10**12, {"field": [1, 2.5, "x"], "other": 10**15}
    odd = {"odd": {1, 2}}
    record = logging.LogRecord("r", logging.INFO, "", 0, message, (number,), None)
    watched = [
        message,
        number,
        extra,
        extra["field"],
        odd,
        handler,
        handler._way,
        handler._pool,
        logger,
        record,
        *handler._way,
    ]

    def work() -> None:
        for one in (logger, stock):
            for _ in range(200):
                one.info(message, number, extra=extra)
                one.info(message, number, extra=odd)
                one.info("m")
                one.debug("not logged")
                handler.handle(record)
                with pytest.raises(KeyError):
                    one.info("m", extra={"name": extra})

    work()
    gc.collect()
    before = [sys.getrefcount(one) for one in watched]
    work()
    gc.collect()
    assert [sys.getrefcount(one) for one in watched] == before


MEMORY = """
import json, logging, logging.config, resource, sys
logging.config.dictConfig(json.loads(sys.argv[1]))
import structlog, calyx_logging
log = logging.getLogger("harness")
fast = calyx_logging.events.fast_logger.FastLogger("fast", logging.INFO)
fast.manager = logging.root.manager
fast.handlers = log.handlers
calyx_logging.configure_structlog(log.handlers[0])
straight = structlog.get_logger("straight").bind(bound=1)

def work(count):
    for n in range(count):
        log.info("m %d", n, extra={"n": n, "ms": n / 7, "text": "é" * (n % 50), "inside": {"a": [n]}})
        fast.info("m %d %s", n, "x", extra={"n": n})
        straight.info("m", n=n, pad="x" * (n % 99))
        if n % 50 == 0:
            log.info("odd", extra={"n": {n}})
            log.warning("with an exception", exc_info=(ValueError, ValueError(n), None))

def resident():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * 4096

work(30_000)
before = resident()
work(int(sys.argv[2]))
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory by /proc")
def test_memory_stays_flat(node: Node) -> None:
    """Over 300,000 events of all kinds."""
    done = python(MEMORY, json.dumps(config(node, max_bytes=2**30, identity=False)), "100000")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 4 * 2**20


def test_threads_share_nothing_but_the_pool(node: Node, configure: Configure) -> None:
    """Each event of eight threads is there once, and each writer's lines are in order."""
    logger = configure(max_bytes=100_000)

    def work(worker: int) -> None:
        for n in range(1500):
            logger.info("m", extra={"worker": worker, "n": n, "text": "x" * (n % 200)})

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    close_logging()
    events = events_of(node.outbox)
    assert sorted((event["worker"], event["n"]) for event in events) == [(t, n) for t in range(8) for n in range(1500)]
    assert len({event["event_id"] for event in events}) == len(events)
    assert all(line["control"] in ("start", "end") for line in controls_of(node.outbox))


INTERRUPTED = """
import itertools, json, logging, logging.config, signal, sys
is_armed = False
def interrupt(*_):  # only in `calls`: elsewhere one could come after the `except`, or at the end of a loop
    global is_armed
    if is_armed:
        is_armed = False
        raise KeyboardInterrupt
signal.signal(signal.SIGINT, interrupt)
logging.config.dictConfig(json.loads(sys.argv[1]))
log = logging.getLogger("harness")
kept, interrupts, numbers = [], 0, itertools.count()
def calls():
    global is_armed
    is_armed = True
    while True:
        n = next(numbers)
        log.info("m %d", n, extra={"n": n})
        kept.append(n)
print("ready", flush=True)
while interrupts < 300:
    try:
        calls()
    except KeyboardInterrupt:
        interrupts += 1
signal.signal(signal.SIGINT, signal.SIG_IGN)
print(json.dumps(kept))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_again_and_again(node: Node) -> None:
    """Real signals: each event whose call returned is there once, no line is torn, every writer ends in order."""
    settings = json.dumps(config(node, max_bytes=50_000))
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, settings], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    reader = threading.Thread(target=lambda: out.append(process.stdout.read()))  # type: ignore[union-attr]
    out: list[bytes] = []
    reader.start()
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.0007)
    reader.join()
    kept = json.loads(out[0])
    numbers = [event["n"] for event in events_of(node.outbox)]
    assert len(numbers) == len(set(numbers))
    assert set(kept) <= set(numbers)
    assert all(line.get("reason", "closed") == "closed" for line in controls_of(node.outbox))


@needs_core
def test_a_full_table_of_marks_empties_itself(node: Node, configure: Configure) -> None:
    """Records that somebody keeps are known again; those that nobody keeps are forgotten."""
    logger = configure()
    handler = logger.handlers[0]
    kept = [logging.LogRecord("r", logging.INFO, "", 0, f"m{n}", (), None) for n in range(100)]
    for _ in range(2):
        for record in kept:
            handler.handle(record)
        for record in reversed(kept):
            handler.handle(record)
    assert [event["message"] for event in events_of(node.outbox)] == [f"m{n}" for n in range(100)]
    size = len(gc.get_objects())
    del kept, record
    for n in range(1000):
        logger.info("m", extra={"n": n})
    gc.collect()
    assert len(gc.get_objects()) < size


def test_a_logger_that_is_changed_in_the_midst(node: Node) -> None:
    """Each call looks at levels, handlers, filters and propagation anew."""
    handler = OutboxHandler(root=node.root, identity=False)
    install_fast_logger()
    parent, logger = logging.getLogger("changed"), logging.getLogger("changed.midst")
    assert isinstance(logger, FastLogger)
    parent.setLevel(logging.INFO)
    parent.propagate = False
    parent.handlers = [handler]
    logger.info("one")
    parent.setLevel(logging.ERROR)
    logger.info("not this")
    logger.error("two")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    logger.error("nor this")
    logger.handlers.clear()
    logger.propagate = True
    handler.setLevel(logging.CRITICAL)
    logger.error("nor this")
    handler.setLevel(logging.NOTSET)
    logger.filters.append(lambda record: False)  # type: ignore[arg-type]
    logger.error("nor this")
    logger.filters.clear()
    logging.disable(logging.ERROR)
    logger.error("nor this")
    logging.disable(logging.NOTSET)
    logger.disabled = True
    logger.error("nor this")
    logger.disabled = False
    seen: list[logging.LogRecord] = []

    class Other(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    parent.addHandler(Other())
    logger.error("three", extra={"x": 1})
    parent.handlers.clear()
    handler.close()
    assert [event["message"] for event in events_of(node.outbox)] == ["one", "two", "three"]
    assert [(record.getMessage(), record.x, record.funcName) for record in seen] == [  # type: ignore[attr-defined]
        ("three", 1, "test_a_logger_that_is_changed_in_the_midst")
    ]
