"""Processes and threads that start and end, as real programs; adds to test_outbox_handler.py."""

from __future__ import annotations

import asyncio
import json
import logging
import logging.config
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from calyx_logging import Node
from calyx_logging.outbox.export import export
from conftest import REPO, config, events_of, lines_of, python

Configure = Callable[..., logging.Logger]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
HEAD = """
import json, logging, logging.config, os, sys, threading, time
settings = json.loads(sys.argv[1])
logging.config.dictConfig(settings)
log = logging.getLogger("harness")
"""


def run(node: Node, body: str, **options: object) -> list[str]:
    """Run a program with the handler, export, and return the messages found."""
    code = HEAD + "\n".join(line[8:] if line.startswith("        ") else line for line in body.splitlines())
    done = python(code, json.dumps(config(node, **options)), cwd=REPO / "tests")
    assert 'File "' not in done.stderr, done.stderr
    assert "calyx-logging:" not in done.stderr, done.stderr
    export(node)
    lines = lines_of(node.outbox)
    by_writer: dict[str, list[int]] = {}
    for path in node.outbox.glob("*.jsonl"):
        seqs = [json.loads(line)["seq"] for line in path.read_bytes().splitlines()]
        by_writer.setdefault(path.name.split("__")[2][:8], []).extend(seqs)
    for seqs in by_writer.values():
        assert sorted(seqs) == list(range(len(seqs)))
    assert list(node.outbox.glob("*.open")) == []
    logged = [line for line in lines if line["source"] != "calyx_logging"]
    # from Python 3.12 on os.fork() warns where there are threads
    return sorted(line["message"] for line in logged if line["logger"] != "py.warnings")


def test_os_exit_right_after_the_call(node: Node) -> None:
    """Events survive os._exit right after the call."""
    assert run(node, "log.info('a'); os._exit(0)") == ["a"]


def test_daemon_threads_at_the_end_of_the_interpreter(node: Node) -> None:
    """Events of daemon threads up to their stop are there, and the interpreter's exit does not hang."""
    body = """
        def work():
            n = 0
            while True:
                log.info("daemon")
                n += 1
        for _ in range(3):
            threading.Thread(target=work, daemon=True).start()
        time.sleep(0.1)
        log.info("main")
        """
    messages = run(node, body, max_bytes=5000)
    assert messages.count("main") == 1
    assert messages.count("daemon") > 10


def test_logging_after_shutdown_and_in_other_atexit_functions(node: Node) -> None:
    """A record after `logging.shutdown` gets a new writer, which ends with the process."""
    body = """
        import atexit
        atexit.register(lambda: log.info("in atexit"))
        log.info("before")
        logging.shutdown()
        log.info("after shutdown")
        """
    assert run(node, body) == ["after shutdown", "before", "in atexit"]


@needs_fork
def test_a_child_that_execs_another_program(node: Node) -> None:
    """The writer's descriptors and locks are not inherited through exec."""
    body = """
        log.info("before")
        import subprocess
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False,
                                 stdout=-3, stderr=-3)
        pid = os.fork()
        if pid == 0:
            os.execvp(sys.executable, [sys.executable, "-c", "pass"])
        os.waitpid(pid, 0)
        log.info("after")
        open(os.path.join(settings["handlers"]["outbox"]["root"], "pid"), "w").write(str(child.pid))
        os._exit(0)
        """
    try:
        assert run(node, body) == ["after", "before"]
    finally:
        os.kill(int((node.root / "pid").read_text()), 9)


@needs_fork
def test_grandchildren_and_fork_inside_a_processor(node: Node) -> None:
    """Each generation has its own writer; an event encoded across the fork appears twice with one id."""
    body = """
        for generation in range(4):
            log.info("generation %d", generation)
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
                log.info("parent %d", generation)
                os._exit(0)
        log.info("last")
        os._exit(0)
        """
    expected = [f"generation {n}" for n in range(4)] + ["last"] + [f"parent {n}" for n in range(4)]
    assert run(node, body) == sorted(expected)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pools(node: Node, tmp_path: Path, method: str) -> None:
    """multiprocessing.Pool (which terminates its workers) and ProcessPoolExecutor lose no event."""
    if sys.platform == "win32" and method != "spawn":
        pytest.skip("no fork on this system")
    program = tmp_path / "pools.py"
    program.write_text(
        """
import json, logging, logging.config, multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
settings = json.loads(sys.argv[1])
def begin(): logging.config.dictConfig(settings)
def work(n): logging.getLogger("harness").info("task %d", n); return n
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    begin()
    initializer = None if sys.argv[2] == "fork" else begin
    with context.Pool(3, initializer) as pool:
        assert pool.map(work, range(40)) == list(range(40))
    with ProcessPoolExecutor(3, context, initializer) as pool:
        assert list(pool.map(work, range(40, 80))) == list(range(40, 80))
"""
    )
    import subprocess

    done = subprocess.run(
        [sys.executable, str(program), json.dumps(config(node)), method],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    export(node)
    assert sorted(e["message"] for e in events_of(node.outbox)) == sorted(f"task {n}" for n in range(80))


def test_asyncio(node: Node, configure: Configure) -> None:
    """Every record has the context variables of its own task."""
    structlog = pytest.importorskip("structlog")
    logger = configure()

    async def case(n: int) -> None:
        structlog.contextvars.bind_contextvars(case=n)
        for _ in range(5):
            logger.info("step")
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(case(n) for n in range(20)))

    asyncio.run(main())
    cases = [event["case"] for event in events_of(node.outbox)]
    assert sorted(cases) == sorted(list(range(20)) * 5)


def test_a_queue_handler_in_front(node: Node) -> None:
    """Each record through QueueHandler and QueueListener is written once, with its own time."""
    import logging.handlers
    import queue

    logging.config.dictConfig(config(node))
    logger = logging.getLogger("harness")
    (outbox,) = logger.handlers
    logger.handlers.clear()
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(records, outbox)
    logger.addHandler(logging.handlers.QueueHandler(records))
    listener.start()
    try:
        for n in range(100):
            logger.info("m %d", n, extra={"n": n})
        try:
            raise ValueError("bad")
        except ValueError:
            logger.exception("failed", extra={"n": 100})
    finally:
        listener.stop()
        logger.handlers.clear()
        outbox.close()
    events = events_of(node.outbox)
    assert [event["n"] for event in events] == list(range(101))
    assert "ValueError: bad" in events[-1]["message"]  # a QueueHandler turns the exception into text


@pytest.mark.skipif(sys.version_info < (3, 12), reason="dictConfig makes QueueHandlers from Python 3.12 on")
def test_a_queue_handler_by_dict_config(node: Node) -> None:
    """Python 3.12's dictConfig of a QueueHandler can feed the outbox."""
    settings = config(node)
    settings["handlers"]["queue"] = {"class": "logging.handlers.QueueHandler", "handlers": ["outbox"]}
    settings["loggers"]["harness"]["handlers"] = ["queue"]
    body = """
        listener = logging.getHandlerByName("queue").listener
        listener.start()
        for n in range(50):
            log.info("m")
        listener.stop()
        """
    code = HEAD + "\n".join(line[8:] for line in body.splitlines())
    done = python(code, json.dumps(settings))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(events_of(node.outbox)) == 50


def test_a_memory_handler_in_front(node: Node, configure: Configure) -> None:
    """Records flushed late by a MemoryHandler are written once."""
    import logging.handlers

    logger = configure()
    (outbox,) = logger.handlers
    memory = logging.handlers.MemoryHandler(1000, target=outbox)
    logger.addHandler(memory)
    logger.info("a")
    memory.flush()
    memory.close()
    logger.removeHandler(memory)
    assert [event["message"] for event in events_of(node.outbox)] == ["a"]


def test_pytests_capture(node: Node, configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
    """Both caplog and the outbox get the record."""
    logger = configure()
    logger.propagate = True
    with caplog.at_level(logging.INFO, logger="harness"):
        logger.info("seen %s", "twice")
    assert caplog.messages == ["seen twice"]
    assert [event["message"] for event in events_of(node.outbox)] == ["seen twice"]


def test_a_keyboard_interrupt_inside_a_call_leaves_the_handler_usable(node: Node) -> None:
    """After Ctrl-C at any moment, completed calls are on disk and the next call works."""
    if not hasattr(__import__("signal"), "setitimer"):
        pytest.skip("no interval timer on this system")
    body = """
        import signal
        returned = []
        def interrupt(*_): raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, interrupt)
        n = 0
        while n < 400:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002)
                for _ in range(2000):  # an interrupt inside a weak reference's callback is ignored by Python
                    n += 1
                    log.info("event %d", n)
                    returned.append(n)
            except KeyboardInterrupt:
                signal.setitimer(signal.ITIMER_REAL, 0)
        log.info("last")
        open(os.path.join(settings["handlers"]["outbox"]["root"], "returned"), "w").write(json.dumps(returned))
        logging.shutdown()
        """
    code = HEAD + "\n".join(line[8:] for line in body.splitlines())
    done = python(code, json.dumps(config(node, max_bytes=3000)))
    assert done.returncode == 0, done.stderr
    export(node)
    messages = [event["message"] for event in events_of(node.outbox)]
    returned = json.loads((node.root / "returned").read_text())
    assert {f"event {n}" for n in returned} <= set(messages)
    assert len(messages) == len(set(messages))
    assert "last" in messages
