"""OutboxHandler by dictConfig: a harness's actions and their results on disk."""

from __future__ import annotations

import copy
import gc
import json
import logging
import logging.config
import os
import pickle
import shutil
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

import calyx_logging
from calyx_logging import ExecutionLogHandler, KeepContext, Node, OutboxHandler
from calyx_logging.errors import CalyxError, ConfigError, NodeError
from calyx_logging.format.chunk import ChunkName
from conftest import REPO, config, controls_of, events_of, lines_of, python, tree

Configure = Callable[..., logging.Logger]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def handler_of(logger: logging.Logger) -> OutboxHandler:
    (handler,) = logger.handlers
    assert isinstance(handler, OutboxHandler)
    return handler


def sealed(node: Node) -> list[str]:
    return sorted(path.name for path in node.outbox.glob("*.jsonl"))


def assert_no_hole(node: Node) -> None:
    """Assert that every writer's seq is without holes."""
    seqs: dict[str, list[int]] = {}
    for path in node.outbox.glob("*.jsonl*"):
        name = ChunkName.parse(path.name)
        assert name is not None
        seqs.setdefault(name.writer, []).extend(json.loads(line)["seq"] for line in path.read_bytes().splitlines())
    for found in seqs.values():
        assert sorted(found) == list(range(len(found)))


def test_no_chunk_before_the_first_event(node: Node, configure: Configure) -> None:
    """Neither configuring nor closing writes a chunk or leaves a lock."""
    before = tree(node.outbox)
    logger = configure()
    handler_of(logger).close()
    assert {**before, ".writers": None} == tree(node.outbox)


def test_the_event_is_on_disk_when_the_call_returns(node: Node, configure: Configure) -> None:
    """An open chunk with a valid name holds the event at once, and its writer's lock exists."""
    configure(component="case-runner").info("hello", extra={"n": 1})
    (path,) = node.outbox.glob("*.open")
    name = ChunkName.parse(path.name)
    assert name is not None
    assert (name.component, name.number) == ("case-runner", 0)
    assert (node.outbox / ".writers" / f"{name.writer}.lock").exists()
    (event,) = lines_of(node.outbox)
    assert (event["message"], event["n"], event["seq"], event["node_id"]) == ("hello", 1, 0, node.id)


def test_closing_writes_the_end_line_and_seals(node: Node, configure: Configure) -> None:
    """After close there is one sealed chunk whose last line is the end line, and no lock file."""
    logger = configure()
    logger.info("a")
    handler_of(logger).close()
    (name,) = sealed(node)
    assert [line["seq"] for line in lines_of(node.outbox)] == [0, 1]
    (end,) = controls_of(node.outbox)
    assert (end["control"], end["reason"]) == ("end", "closed")
    assert list((node.outbox / ".writers").iterdir()) == []
    assert ChunkName.parse(name) is not None


def test_an_event_after_close_opens_a_new_writer(node: Node, configure: Configure) -> None:
    """An event after close is kept by a new writer, which counts from 0."""
    logger = configure()
    handler = handler_of(logger)
    logger.info("a")
    handler.close()
    logger.info("b")
    handler.close()
    names = [ChunkName.parse(name) for name in sealed(node)]
    assert len({name.writer for name in names if name}) == 2
    assert sorted((e["message"], e["seq"]) for e in events_of(node.outbox)) == [("a", 0), ("b", 0)]


def test_rolling_by_size(node: Node, configure: Configure) -> None:
    """A chunk does not grow over max_bytes; numbers and seq go on without a hole."""
    logger = configure(max_bytes=2000)
    for n in range(50):
        logger.info("event", extra={"n": n, "pad": "x" * 100})
    handler_of(logger).close()
    names = sealed(node)
    assert [ChunkName.parse(name).number for name in names] == list(range(len(names)))  # type: ignore[union-attr]
    assert len(names) > 5
    assert all((node.outbox / name).stat().st_size <= 2000 for name in names)
    assert [event["n"] for event in events_of(node.outbox)] == list(range(50))
    assert [line["seq"] for line in lines_of(node.outbox)] == list(range(51))


def test_an_event_larger_than_a_chunk_has_one_alone(node: Node, configure: Configure) -> None:
    """max_bytes bounds chunks, not events."""
    logger = configure(max_bytes=1000)
    logger.info("small")
    logger.info("large", extra={"pad": "x" * 5000})
    logger.info("small")
    handler_of(logger).close()
    assert [e["message"] for e in events_of(node.outbox)] == ["small", "large", "small"]
    assert [len((node.outbox / name).read_bytes().splitlines()) for name in sealed(node)] == [1, 1, 2]


def test_rolling_by_age_also_when_idle(node: Node, configure: Configure) -> None:
    """An idle chunk is sealed by the upkeep thread."""
    configure(max_age=0.2).info("a")
    deadline = time.monotonic() + 20
    while not sealed(node) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(sealed(node)) == 1
    assert list(node.outbox.glob("*.open")) == []
    assert sum(thread.name == "calyx-logging-upkeep" for thread in threading.enumerate()) == 1


def test_after_the_last_chunk_number_a_new_writer_begins(node: Node, configure: Configure) -> None:
    """Number 9999 is the writer's last: it ends in order, and another begins."""
    logger = configure(max_bytes=300)
    handler = handler_of(logger)
    logger.info("first")
    (writer,) = handler._pool.writers
    writer._series._used = 9997
    for n in range(4):
        logger.info("event", extra={"n": n, "pad": "x" * 200})
    handler.close()
    names = [name for name in map(ChunkName.parse, sealed(node)) if name]
    assert [name.number for name in names if name.writer == writer.lock.writer] == [0, 9998, 9999]
    assert [name.number for name in names if name.writer != writer.lock.writer] == [0, 1, 2]
    assert sorted(event["n"] for event in events_of(node.outbox) if "n" in event) == [0, 1, 2, 3]
    assert sorted(line["control"] for line in controls_of(node.outbox)) == ["end", "end", "start"]


def test_seal_makes_what_was_logged_exportable(node: Node, configure: Configure) -> None:
    """A long-running process can seal its chunk by the handler's method or the library's function."""
    logger = configure()
    logger.info("a")
    handler_of(logger).seal()
    handler_of(logger).seal()
    logger.info("b")
    calyx_logging.seal()
    assert len(sealed(node)) == 2
    logger.info("c")
    handler_of(logger).close()
    assert [line["seq"] for line in lines_of(node.outbox)] == [0, 1, 2, 3]
    assert len({ChunkName.parse(name).writer for name in sealed(node)}) == 1  # type: ignore[union-attr]


def test_dict_config_again_seals_the_old_handlers_chunk(node: Node, configure: Configure) -> None:
    """Configuring again seals the old handler's chunk, and the new handler starts its own."""
    configure().info("old")
    logger = configure()
    assert len(sealed(node)) == 1
    logger.info("new")
    handler_of(logger).close()
    assert len(sealed(node)) == 2
    assert [line["reason"] for line in controls_of(node.outbox)] == ["closed", "closed"]


def test_two_handlers_write_the_same_event_id(node: Node) -> None:
    """A record is stamped once for both handlers; only their sources may differ."""
    both = config(node)
    both["handlers"]["second"] = {**both["handlers"]["outbox"], "component": "second", "source": "mirror"}
    both["loggers"]["harness"]["handlers"] = ["outbox", "second"]
    logging.config.dictConfig(both)
    logger = logging.getLogger("harness")
    logger.info("a")
    logger.info("b", extra={"event_id": "mine"})
    for handler in logger.handlers:
        handler.close()
    logger.handlers.clear()
    events = events_of(node.outbox)
    assert {event["source"] for event in events} == {"bench_harness", "mirror"}
    for message in ("a", "b"):
        same = [(e["event_id"], e["ts_utc"]) for e in events if e["message"] == message]
        assert len(same) == 2
        assert same[0] == same[1]


def test_one_handler_reached_twice_writes_once(node: Node, configure: Configure) -> None:
    """A handler on both a parent and a child logger writes the record once."""
    logger = configure()
    child = logging.getLogger("harness.child")
    child.addHandler(handler_of(logger))
    try:
        child.info("once")
    finally:
        child.handlers.clear()
    assert [event["message"] for event in events_of(node.outbox)] == ["once"]


def test_a_record_is_left_as_it_was(node: Node, configure: Configure) -> None:
    """Exporters that copy a record's attributes, queues that pickle it, and whoever waits for its end see no change."""
    logger = configure()
    record = logger.makeRecord("harness", logging.INFO, __file__, 1, "m %d", (1,), None, extra={"case": 7})
    before = dict(vars(record))
    logger.handle(record)
    logger.handle(record)
    assert list(vars(record).items()) == list(before.items())
    assert len(events_of(node.outbox)) == 1
    gone = weakref.ref(record)
    del record
    gc.collect()
    assert gone() is None


def test_a_record_that_crosses_a_queue_keeps_its_id(node: Node, configure: Configure) -> None:
    """With `KeepContext`, copies and pickles of a record stand for it, and a handler that took it ignores them."""
    logger = configure()
    record = logger.makeRecord("harness", logging.INFO, __file__, 1, "m", (), None)
    logger.handle(record)
    KeepContext().filter(record)
    for other in (pickle.loads(pickle.dumps(record.__dict__)), copy.copy(record).__dict__):
        logger.handle(logging.makeLogRecord(other))
    other_handler = ExecutionLogHandler(filename=node.root / "log.jsonl", root=node.root)
    other_handler.handle(logging.makeLogRecord(other))
    other_handler.close()
    (event,) = events_of(node.outbox)
    assert orjson.loads((node.root / "log.jsonl").read_bytes())["event_id"] == event["event_id"]


class _Equal(logging.LogRecord):
    """All of these are equal, and have no hash."""

    def __eq__(self, other: object) -> bool:
        return True


def test_records_that_are_equal_are_several(node: Node, configure: Configure) -> None:
    """Records of a class that compares by value are told apart."""
    logger = configure()
    records = [_Equal("harness", logging.INFO, __file__, 1, f"m{n}", (), None) for n in range(3)]
    for record in records:
        logger.handle(record)
    assert [event["message"] for event in events_of(node.outbox)] == ["m0", "m1", "m2"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_bites": 1}, "'max_bites'; did you mean 'max_bytes'"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_bytes": "1MB"}, "max_bytes"),
        ({"max_bytes": True}, "max_bytes"),
        ({"max_age": -1}, "max_age"),
        ({"max_age": "1h"}, "max_age"),
        ({"max_age": float("nan")}, "max_age"),
        ({"max_event_bytes": 10}, "max_event_bytes"),
        ({"sync": "always"}, "sync"),
        ({"sync": None}, "sync"),
        ({"sync_interval": 0}, "sync_interval"),
        ({"component": "Big"}, "component"),
        ({"component": "a__b"}, "component"),
        ({"component": "a" * 49}, "component"),
        ({"component": ""}, "component"),
        ({"component": "../x"}, "component"),
        ({"source": ""}, "source"),
        ({"source": "calyx_logging"}, "source"),
        ({"root": 5}, "root"),
        ({"root": ""}, "root"),
    ],
)
def test_bad_options_fail_when_configured(node: Node, options: dict[str, Any], named: str) -> None:
    """dictConfig raises, and the cause names the option and its valid values."""
    with pytest.raises(ValueError, match="outbox") as caught:
        logging.config.dictConfig(config(node, **options))
    assert isinstance(caught.value.__cause__, ConfigError)
    assert named in str(caught.value.__cause__)


def test_another_formatter_is_refused(node: Node) -> None:
    """A formatter that makes no event lines fails when configured."""
    wrong = config(node)
    wrong["formatters"]["event"] = {"format": "%(message)s"}
    with pytest.raises(ValueError, match="outbox") as caught:
        logging.config.dictConfig(wrong)
    assert "formatter" in str(caught.value.__cause__)


def test_without_a_formatter_the_default_one_serves(node: Node) -> None:
    """The default formatter is used if none is given."""
    plain = config(node)
    del plain["handlers"]["outbox"]["formatter"]
    logging.config.dictConfig(plain)
    logger = logging.getLogger("harness")
    logger.info("a")
    handler_of(logger).close()
    logger.handlers.clear()
    assert events_of(node.outbox)[0]["message"] == "a"


def test_a_formatter_shared_by_two_roots(tmp_path: Path) -> None:
    """Each handler stamps its own node."""
    nodes = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        nodes.append(calyx_logging.provision(tmp_path / name, f"node-{name}").node)
    both = config(nodes[0])
    both["handlers"]["other"] = {**both["handlers"]["outbox"], "root": str(nodes[1].root)}
    both["loggers"]["harness"]["handlers"] = ["outbox", "other"]
    logging.config.dictConfig(both)
    logger = logging.getLogger("harness")
    logger.info("m")
    for handler in logger.handlers:
        handler.close()
    logger.handlers.clear()
    assert [events_of(node.outbox)[0]["node_id"] for node in nodes] == ["node-a", "node-b"]


def test_configuring_without_a_node_id(tmp_path: Path) -> None:
    """dictConfig raises and says how to provision."""
    with pytest.raises(ValueError, match="outbox") as caught:
        logging.config.dictConfig(config(Node(tmp_path, "x")))
    assert isinstance(caught.value.__cause__, NodeError)
    assert "provision" in str(caught.value.__cause__)


def test_configuring_on_an_outbox_that_cannot_be_written(node: Node) -> None:
    """A file in the lock folder's place is an error at configuration, not at the first event."""
    (node.outbox / ".writers").write_text("in the way")
    with pytest.raises(ValueError, match="outbox") as caught:
        logging.config.dictConfig(config(node))
    assert isinstance(caught.value.__cause__, CalyxError)
    assert str(node.outbox) in str(caught.value.__cause__)


@pytest.mark.parametrize("load", [json.loads, yaml.safe_load])
def test_configs_from_json_and_yaml(node: Node, load: Callable[[str], Any]) -> None:
    """All options are plain values."""
    text = json.dumps(config(node, max_age=None, max_bytes=1000, sync="record", sync_interval=0.5, level="INFO"))
    logging.config.dictConfig(load(text))
    logger = logging.getLogger("harness")
    logger.debug("below the handler's level")
    logger.info("kept")
    handler_of(logger).close()
    logger.handlers.clear()
    assert [event["message"] for event in events_of(node.outbox)] == ["kept"]


def test_filters_are_respected(node: Node, configure: Configure) -> None:
    """A handler's filter may refuse a record, or change it."""
    logger = configure()
    handler_of(logger).addFilter(lambda record: "secret" not in record.getMessage())
    logger.info("a secret")
    logger.info("plain")
    assert [event["message"] for event in events_of(node.outbox)] == ["plain"]


@pytest.mark.parametrize("sync", ["seal", "interval", "record"])
def test_every_sync_mode_keeps_every_event(node: Node, configure: Configure, sync: str) -> None:
    """Sync modes differ in what survives a power loss, not in what is written."""
    logger = configure(sync=sync, sync_interval=0.05)
    for n in range(20):
        logger.info("m", extra={"n": n})
    handler_of(logger).close()
    assert [event["n"] for event in events_of(node.outbox)] == list(range(20))


class LogsInside:
    """A processor that logs: a re-entrant emit."""

    depth = 0

    def __call__(self, logger: Any, method: str, event: Any) -> Any:
        if event["message"] == "outer":
            logging.getLogger("harness").info("inner")
        return event


def test_logging_from_inside_a_processor(node: Node) -> None:
    """The inner event is written at once."""
    reentrant = config(node)
    reentrant["formatters"]["event"]["processors"] = [LogsInside()]
    logging.config.dictConfig(reentrant)
    logger = logging.getLogger("harness")
    logger.info("outer")
    messages = [event["message"] for event in events_of(node.outbox)]
    handler_of(logger).close()
    logger.handlers.clear()
    assert messages == ["inner", "outer"]


def test_logging_from_del(node: Node, configure: Configure) -> None:
    """A finalizer that runs anywhere inside the library may log."""
    logger = configure(max_bytes=3000)

    class Noisy:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            logger.info("deleted")
            deleted.append(1)

    deleted: list[int] = []
    gc.set_threshold(10)
    try:
        for n in range(300):
            Noisy()
            logger.info("event", extra={"n": n})
    finally:
        gc.set_threshold(700, 10, 10)
    deadline = time.monotonic() + 60
    while len(deleted) < 300 and time.monotonic() < deadline:
        gc.collect()  # which does nothing while another thread collects
        time.sleep(0.001)
    handler_of(logger).close()
    events = events_of(node.outbox)
    assert sorted(event["n"] for event in events if "n" in event) == list(range(300))
    assert sum(event["message"] == "deleted" for event in events) == 300
    assert_no_hole(node)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer on this system")
def test_signal_handlers_that_log(node: Node, configure: Configure) -> None:
    """A signal in the middle of an emit, a roll or a seal loses nothing and does not hang."""
    logger = configure(max_bytes=2000)
    fired = 0

    def on_alarm(*_: object) -> None:
        nonlocal fired
        fired += 1
        logger.info("signal")
        signal.setitimer(signal.ITIMER_REAL, 0.0005)  # only now, or they pile up where the machine is slow

    previous = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
    try:
        for n in range(3000):
            logger.info("event", extra={"n": n})
            if n % 100 == 0:
                handler_of(logger).seal()
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # first, for a handler that runs now would set the timer again
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    handler_of(logger).close()
    events = events_of(node.outbox)
    assert sorted(event["n"] for event in events if "n" in event) == list(range(3000))
    assert sum(event["message"] == "signal" for event in events) == fired
    assert fired > 0
    assert_no_hole(node)


def test_threads_write_side_by_side(node: Node, configure: Configure) -> None:
    """Each thread's events are there once and each writer's lines in order of seq, over many rolls and seals."""
    logger = configure(max_bytes=5000)

    def work(thread: int) -> None:
        for n in range(500):
            logger.info("event", extra={"worker": thread, "n": n})
            if n % 50 == 0:
                handler_of(logger).seal()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler_of(logger).close()
    events = events_of(node.outbox)
    assert sorted((e["worker"], e["n"]) for e in events) == [(t, n) for t in range(8) for n in range(500)]
    assert_no_hole(node)
    seqs: dict[str, list[int]] = {}
    for path in sorted(node.outbox.glob("*.jsonl"), key=lambda path: path.stem[-13:]):  # by writer and number
        seqs.setdefault(path.stem[-13:-5], []).extend(json.loads(line)["seq"] for line in path.open())
    assert all(found == sorted(found) for found in seqs.values())


@needs_fork
def test_a_forked_child_has_a_writer_of_its_own(node: Node, configure: Configure) -> None:
    """The child leaves the parent's chunk and lock alone, and its event survives os._exit."""
    logger = configure(warnings=False)  # one about threads, of which pytest has one
    logger.info("parent before")
    pid = os.fork()
    if pid == 0:
        logger.info("child")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    logger.info("parent after")
    handler_of(logger).close()
    events = events_of(node.outbox)
    assert sorted(event["message"] for event in events) == ["child", "parent after", "parent before"]
    assert len(list(node.outbox.glob("*.open"))) == 1  # the child's chunk, for recovery
    assert len({event["event_id"] for event in events}) == 3


@needs_fork
def test_forks_while_another_thread_logs(node: Node, configure: Configure) -> None:
    """No child hangs on a lock that was held when it was made."""
    logger = configure()
    stop = threading.Event()

    def chatter() -> None:
        while not stop.is_set():
            logger.info("chatter")

    thread = threading.Thread(target=chatter)
    thread.start()
    try:
        for n in range(30):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                logger.info("child", extra={"n": n})
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        stop.set()
        thread.join()
    handler_of(logger).close()
    assert sorted(e["n"] for e in events_of(node.outbox) if e["message"] == "child") == list(range(30))


MULTIPROCESSING = """
    import logging, logging.config, multiprocessing, sys
    from conftest import config
    from calyx_logging import Node

    def work(n):
        logging.getLogger("harness").info("child", extra={"n": n})

    def begin(root):
        logging.config.dictConfig(config(Node.find(root)))

    def main():
        method, root = sys.argv[1:]
        context = multiprocessing.get_context(method)
        begin(root)
        initializer = (None, ()) if method == "fork" else (begin, (root,))
        children = [context.Process(target=run, args=(initializer, n)) for n in range(3)]
        for child in children: child.start()
        for child in children: child.join()

    def run(initializer, n):
        function, args = initializer
        if function: function(*args)
        work(n)

    if __name__ == "__main__":
        main()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_children_end_their_writers(node: Node, tmp_path: Path, method: str) -> None:
    """Children that run no atexit functions still seal their chunks."""
    if sys.platform == "win32" and method != "spawn":
        pytest.skip("no fork on this system")
    import textwrap

    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(MULTIPROCESSING))
    done = python(
        "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_path(sys.argv.pop(1), run_name='__main__')"
        if method == "fork"
        else f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, {str(program)!r}, *sys.argv[3:]]))",
        str(REPO / "tests"),
        str(program),
        method,
        str(node.root),
        PYTHONPATH=str(REPO / "tests"),
    )
    assert done.returncode == 0, done.stderr
    assert sorted(event["n"] for event in events_of(node.outbox)) == [0, 1, 2]
    assert [line["reason"] for line in controls_of(node.outbox)] == ["closed"] * 3
    assert list(node.outbox.glob("*.open")) == []


def test_the_end_of_a_program_seals(node: Node) -> None:
    """Chunks are sealed at exit without any call."""
    done = python(
        """
        import json, logging, logging.config, sys
        logging.config.dictConfig(json.loads(sys.argv[1]))
        logging.getLogger("harness").info("a")
        """,
        json.dumps(config(node)),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.get("reason") for line in lines_of(node.outbox)] == [None, "closed"]
    assert len(sealed(node)) == 1


def test_a_program_that_is_killed_keeps_what_it_logged(node: Node) -> None:
    """After kill -9 right after the call, the event is in the open chunk."""
    done = python(
        """
        import json, logging, logging.config, os, signal, sys
        logging.config.dictConfig(json.loads(sys.argv[1]))
        logging.getLogger("harness").info("a")
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        """,
        json.dumps(config(node)),
    )
    assert done.returncode != 0
    assert [event["message"] for event in events_of(node.outbox)] == ["a"]
    assert sealed(node) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows moves no folder with an open file in it")
def test_what_cannot_be_written_is_counted_and_said(
    node: Node, configure: Configure, capfd: pytest.CaptureFixture[str]
) -> None:
    """A failing write gives one line on stderr, no exception, and a gap line once writing works again."""
    logger = configure()
    logger.info("kept 0")
    handler_of(logger).seal()
    away = node.outbox.with_name("away")
    node.outbox.rename(away)
    node.outbox.write_text("a file in the way")
    for n in range(5):
        logger.info("lost", extra={"n": n})
    node.outbox.unlink()
    away.rename(node.outbox)
    logger.info("kept 1")
    handler_of(logger).close()
    assert [event["message"] for event in events_of(node.outbox)] == ["kept 0", "kept 1"]
    gap, end = controls_of(node.outbox)
    assert (gap["control"], gap["count"], gap["seqs"]) == ("gap", 5, [[1, 5]])
    assert gap["from"] <= gap["to"]
    assert end["reason"] == "closed"
    assert [line["seq"] for line in lines_of(node.outbox)] == [0, 6, 7, 8]
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 2
    assert "cannot write" in said[0]
    assert "5 events were lost" in said[1]


@pytest.mark.usefixtures("in_python")
def test_an_event_that_cannot_be_encoded_is_counted(
    node: Node, configure: Configure, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error inside the formatter does not reach the harness, but is counted as a loss."""
    logger = configure()
    monkeypatch.setattr(handler_of(logger)._event_formatter, "encode", lambda *_, **__: 1 / 0)
    logger.info("lost")
    monkeypatch.undo()
    logger.info("kept")
    handler_of(logger).close()
    gap = next(line for line in controls_of(node.outbox) if line["control"] == "gap")
    assert (gap["control"], gap["count"], gap["seqs"]) == ("gap", 1, [[0, 0]])
    assert "ZeroDivisionError" in gap["cause"]
    assert "cannot keep an event" in capfd.readouterr().err


def test_a_removed_outbox_comes_back(node: Node, configure: Configure, capfd: pytest.CaptureFixture[str]) -> None:
    """If the folder is deleted after a seal, the next event recreates it."""
    logger = configure()
    logger.info("gone with the folder")
    handler_of(logger).close()
    shutil.rmtree(node.outbox)
    logger.info("kept")
    handler_of(logger).close()
    assert [event["message"] for event in events_of(node.outbox)] == ["kept"]


def test_configuring_loads_nothing_heavy(node: Node) -> None:
    """Importing the handler loads neither click nor rich nor the exporter."""
    done = python(
        """
        import json, logging.config, sys
        import calyx_logging
        assert not any(name.startswith("calyx_logging.") and name != "calyx_logging._version" for name in sys.modules)
        logging.config.dictConfig(json.loads(sys.argv[1]))
        logging.getLogger("harness").info("a")
        heavy = {"click", "rich", "structlog", "calyx_logging.outbox.export", "calyx_logging.bundle.folder"}
        print(sorted(heavy & set(sys.modules)))
        """,
        json.dumps(config(node)),
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
