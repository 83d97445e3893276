"""The pool of writers: one call a writer, whatever interrupts it, and what becomes of writers that are not needed."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calyx_logging import Node
from calyx_logging.core import files
from calyx_logging.outbox.export import export
from calyx_logging.recording import background, pool
from conftest import close_logging, config, controls_of, events_of, lines_of, python
from faults import interrupts

Configure = Callable[..., logging.Logger]
posix = pytest.mark.skipif(os.name == "nt", reason="Windows replaces and deletes no open file")


def pool_of(logger: logging.Logger) -> Any:
    return logger.handlers[0]._pool  # type: ignore[attr-defined]


def take(logger: logging.Logger) -> Any:
    """A seat, once housekeeping does not hold it."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            return pool_of(logger)._seats.idle.pop()
        except IndexError:
            time.sleep(0.001)
    pytest.fail("no writer is idle")


def seqs_of(node: Node) -> dict[str, list[int]]:
    """Each writer's seqs in the order in which they stand in its chunks, gap lines' seqs apart."""
    found: dict[str, list[int]] = defaultdict(list)
    for path in sorted(node.outbox.glob("*.jsonl*"), key=lambda path: path.name.split("__")[2]):
        found[path.name.split("__")[2][:8]] += [json.loads(line)["seq"] for line in path.read_bytes().splitlines()]
    return found


def assert_in_order(node: Node) -> None:
    """Every writer's lines are in order of seq, and none is missing."""
    for writer, seqs in seqs_of(node).items():
        assert seqs == list(range(len(seqs))), writer


class Watching:
    """Stands in for `os` in `core.files`: every descriptor that is opened is closed, and once."""

    def __init__(self) -> None:
        self.open_now: set[int] = set()
        self.opened: list[int] = []
        self.closed_twice: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, *args: Any) -> int:
        fd = os.open(*args)
        if not str(args[0]).endswith("node_id.txt"):  # which a file object closes
            self.opened.append(fd)
            self.open_now.add(fd)
        return fd

    def close(self, fd: int) -> None:
        if fd in self.open_now:
            self.open_now.discard(fd)  # before it is closed, and another thread is given its number
        else:
            self.closed_twice.append(fd)
        os.close(fd)


# ------------------------------------------------------------------ interrupts


@pytest.mark.slow
@pytest.mark.parametrize("situation", interrupts.SITUATIONS)
def test_ctrl_c_at_any_bytecode_of_a_call(tmp_path: Path, situation: str) -> None:
    """Injected at bytecodes of the pool, the writer and the chunk: nothing acknowledged is lost, no seq is there
    twice, every writer ends in order, each descriptor is closed once."""
    every = {"seal": 5, "close": 11, "first event": 3, "roll": 3, "another writer": 3}.get(situation, 1)
    tally = interrupts.at_each_bytecode(tmp_path, situation, every=every)
    assert tally.injected > 60, tally.text()
    assert tally.faults == [], tally.text()


def test_the_injection_notices_a_writer_put_back_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A campaign that cannot fail proves nothing: two calls that share a writer give one seq twice."""
    original = pool.WriterPool.keep

    def keep(self: pool.WriterPool, line: bytes) -> bool:
        kept = original(self, line)
        seats = self._seats.idle
        seats.append(pool.Seat(seats[-1].writer))
        chunk, _, size, gaps = seats[-1].writer.state
        seats[-1].writer.state = (chunk, 0, size, gaps)
        return kept

    monkeypatch.setattr(pool.WriterPool, "keep", keep)
    assert interrupts.at_each_bytecode(tmp_path, "usual", most=3).faults


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer on this system")
@pytest.mark.parametrize("threads", [1, 4])
def test_a_storm_of_interrupts(tmp_path: Path, threads: int) -> None:
    """Ctrl-C every millisecond: what was acknowledged is there once, no chunk is left open, no descriptor leaks."""
    tally = interrupts.storm(tmp_path, interrupts=1500, threads=threads)
    assert tally.injected >= 1500
    assert tally.acknowledged > 1000
    assert tally.faults == [], tally.text()


def test_an_interrupted_writer_comes_back(node: Node, configure: Configure) -> None:
    """A call that dropped its writer leaves it to housekeeping, and the next call uses it."""
    logger = configure()
    logger.info("a")
    (writer,) = pool_of(logger).writers
    seat = take(logger)
    assert writer.seat() is seat
    del seat
    pool_of(logger).upkeep()
    logger.info("b")
    assert pool_of(logger).writers == [writer]
    close_logging()
    assert [line["seq"] for line in lines_of(node.outbox)] == [0, 1, 2]


def test_a_line_whose_call_was_interrupted_after_the_write(node: Node, configure: Configure) -> None:
    """It stays, with its seq; a part of one is cut off."""
    logger = configure()
    logger.info("a")
    (writer,) = pool_of(logger).writers
    chunk, seq, size, _ = writer.state
    line = chunk.read()[: size - len(b',"seq":0}\n')]
    chunk.write(line + b',"seq":%d}\n' % seq + line[:40])
    take(logger)
    pool_of(logger).upkeep()
    logger.info("b")
    close_logging()
    assert [event["message"] for event in events_of(node.outbox)] == ["a", "a", "b"]
    assert_in_order(node)


# ------------------------------------------------------------------ threads, nested calls


@pytest.mark.parametrize("threads", [1, 4, 16, 64])
def test_lines_of_a_writer_stand_in_order(node: Node, configure: Configure, threads: int) -> None:
    """Threads that roll all the time lose nothing, with no more writers than threads, and a spare."""
    logger = configure(max_bytes=4000)
    together = threading.Barrier(threads)

    def work(worker: int) -> None:
        together.wait()
        for n in range(4000 // threads):
            logger.info("event", extra={"worker": worker, "n": n})

    workers = [threading.Thread(target=work, args=(worker,)) for worker in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    close_logging()
    events = Counter((event["worker"], event["n"]) for event in events_of(node.outbox))
    assert set(events.values()) == {1}
    assert len(events) == 4000 // threads * threads
    assert_in_order(node)
    assert len(seqs_of(node)) <= threads + 1
    assert [line["reason"] for line in controls_of(node.outbox) if line["control"] == "end"] == ["closed"] * len(
        seqs_of(node)
    )


def test_further_writers_of_a_process_name_the_first(node: Node, configure: Configure) -> None:
    """The start lines of further writers name the first, so that what a process logged can be read together."""
    logger = configure()
    logger.info("first")
    held = take(logger)
    logger.info("second")
    pool_of(logger)._seats.idle.append(held)
    close_logging()
    (start,) = [line for line in controls_of(node.outbox) if line["control"] == "start"]
    assert (start["process"], start["seq"]) == (held.writer.lock.writer, 0)


def test_a_further_writer_that_loses_its_first_event_names_the_first_all_the_same(
    node: Node, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start line is the first line that gets through."""
    logger = configure()
    logger.info("first")
    held = take(logger)
    with monkeypatch.context() as patched:
        patched.setattr(files.AppendFile, "write", lambda *_: 1 / 0)
        logger.info("lost")
    logger.info("second")
    pool_of(logger)._seats.idle.append(held)
    close_logging()
    writers = {path.name.split("__")[2][:8] for path in node.outbox.glob("*.jsonl")}
    starts = [line for line in controls_of(node.outbox) if line["control"] == "start"]
    assert len(starts) == len(writers) - 1 >= 1  # housekeeping may have had a writer in its hand
    assert {start["process"] for start in starts} == {held.writer.lock.writer}


def test_writers_that_are_not_used_are_ended(node: Node, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Down to one; each in order."""
    logger = configure()
    idle = pool_of(logger)._seats.idle
    held = []
    for n in range(3):
        logger.info("event", extra={"n": n})
        held.append(take(logger))
    idle.extend(held)
    assert len(pool_of(logger).writers) >= 3
    monkeypatch.setattr(pool, "_IDLE_SECONDS", -1.0)
    for _ in range(4):
        pool_of(logger).upkeep()
    assert len(pool_of(logger).writers) == 1
    close_logging()
    assert sorted(event["n"] for event in events_of(node.outbox)) == [0, 1, 2]
    assert_in_order(node)
    assert list((node.outbox / ".writers").iterdir()) == []


@pytest.mark.usefixtures("in_python")
def test_losses_of_several_writers_add_up(
    node: Node, configure: Configure, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A disk that is full for all: one line when it begins, one when it ends, and the sum in it."""
    logger = configure()
    barrier = threading.Barrier(4)
    write, full = files.AppendFile.write, threading.Event()

    def refuse(self: files.AppendFile, data: bytes) -> int:
        if full.is_set():
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(files.AppendFile, "write", refuse)
    held = []
    for _ in range(4):
        logger.info("begin")
        held.append(take(logger))
    pool_of(logger)._seats.idle.extend(held)

    def work() -> None:
        barrier.wait()
        for _ in range(25):
            logger.info("lost")

    full.set()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    full.clear()
    pool_of(logger).upkeep()
    close_logging()
    gaps = [line for line in controls_of(node.outbox) if line["control"] == "gap"]
    assert sum(gap["count"] for gap in gaps) == 100
    said = capfd.readouterr().err
    assert said.count("events are lost and counted") == 1
    assert said.count("100 events were lost") == 1


# ------------------------------------------------------------------ taken away from under it


@posix
def test_an_open_chunk_that_is_replaced_by_a_copy(
    node: Node, configure: Configure, capfd: pytest.CaptureFixture[str]
) -> None:
    """Events in a file that an editor or `git stash` replaced are written again."""
    logger = configure()
    for n in range(5):
        logger.info("before", extra={"n": n})
    (path,) = node.outbox.glob("*.open")
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)
    for n in range(5, 10):
        logger.info("after", extra={"n": n})
    logger.handlers[0].seal()  # type: ignore[attr-defined]
    logger.info("later", extra={"n": 10})
    close_logging()
    assert [event["n"] for event in events_of(node.outbox)] == list(range(11))
    assert_in_order(node)
    assert "changed, moved or deleted under its writer" in capfd.readouterr().err


@posix
def test_a_lock_file_that_is_deleted(node: Node, configure: Configure) -> None:
    """The writer ends in order at the next look, and another one, which has a lock, goes on."""
    logger = configure()
    logger.info("a")
    (lock,) = (node.outbox / ".writers").glob("*.lock")
    lock.unlink()
    pool_of(logger).upkeep()
    logger.info("b")
    assert len(list((node.outbox / ".writers").glob("*.lock"))) == 1
    close_logging()
    assert sorted(event["message"] for event in events_of(node.outbox)) == ["a", "b"]
    assert [line["reason"] for line in controls_of(node.outbox) if line["control"] == "end"] == ["closed", "closed"]
    assert_in_order(node)


@posix
@pytest.mark.parametrize("cut", [0, 1, 150])
def test_an_open_chunk_that_is_truncated(
    node: Node, configure: Configure, cut: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Lines that were cut off are counted, later ones kept, and no line stands behind a fragment."""
    logger = configure()
    for n in range(5):
        logger.info("before", extra={"n": n})
    (path,) = node.outbox.glob("*.open")
    os.truncate(path, path.stat().st_size - 300 if cut else 0)
    for n in range(5, 8):
        logger.info("after", extra={"n": n})
    close_logging()
    export(node)
    kept = [event["n"] for event in events_of(node.outbox)]
    lost = sum(line.get("count", 0) for line in controls_of(node.outbox))
    assert {5, 6, 7} <= set(kept)
    assert len(kept) + lost == 8
    assert list(node.outbox.glob("*.open")) == []
    assert "of its events are lost" in capfd.readouterr().err


@posix
def test_a_chunk_that_an_exporter_took_for_a_dead_writers(node: Node, configure: Configure) -> None:
    """Somebody sealed it under its name: another writer writes what is not in there."""
    logger = configure()
    for n in range(3):
        logger.info("before", extra={"n": n})
    (path,) = node.outbox.glob("*.open")
    sealed = path.with_suffix("")
    sealed.write_bytes(path.read_bytes())
    path.unlink()
    for n in range(3, 6):
        logger.info("after", extra={"n": n})
    logger.handlers[0].seal()  # type: ignore[attr-defined]
    logger.info("later", extra={"n": 6})
    close_logging()
    assert sorted(event["n"] for event in events_of(node.outbox)) == list(range(7))
    assert len(seqs_of(node)) == 2
    assert_in_order(node)


def test_no_descriptors_left_for_another_chunk(
    node: Node, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The full chunk's own descriptor still works, so it goes on in that one."""
    logger = configure(max_bytes=1000)
    logger.info("event", extra={"n": 0})

    class NoMore:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def open(self, *_: Any) -> int:
            raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(files, "os", NoMore())
        for n in range(1, 20):
            logger.info("event", extra={"n": n})
    for n in range(20, 22):
        logger.info("event", extra={"n": n})
    close_logging()
    assert [event["n"] for event in events_of(node.outbox)] == list(range(22))
    assert all(line["control"] == "end" for line in controls_of(node.outbox))


# ------------------------------------------------------------------ descriptors, the end


def test_each_descriptor_is_closed_once(node: Node, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through rolls, seals, the end, and a collection of what is left."""
    watching = Watching()
    with monkeypatch.context() as patched:
        patched.setattr(files, "os", watching)
        logger = configure(max_bytes=1000)
        for n in range(60):
            logger.info("event", extra={"n": n})
            if n % 20 == 0:
                logger.handlers[0].seal()  # type: ignore[attr-defined]
        close_logging()
        gc.collect()
        deadline = time.monotonic() + 20
        while watching.open_now and time.monotonic() < deadline:
            time.sleep(0.01)  # housekeeping syncs a folder
    assert watching.closed_twice == []
    assert watching.open_now == set()
    assert len(watching.opened) > 10


def test_events_after_the_close_at_exit_end_in_order(node: Node) -> None:
    """An atexit function that runs after logging's own, a finalizer, a generator: the writer that keeps them ends."""
    done = python(
        """
        import atexit, json, sys
        def last():
            logging.getLogger("harness").info("runs last")
        atexit.register(last)
        import logging, logging.config
        logging.config.dictConfig(json.loads(sys.argv[1]))
        class Noisy:
            def __del__(self):
                logging.getLogger("harness").info("deleted at exit")
        sys.modules["kept"] = Noisy()
        logging.getLogger("harness").info("a")
        """,
        json.dumps(config(node)),
    )
    assert (done.returncode, done.stderr) == (0, "")
    messages = [event["message"] for event in events_of(node.outbox)]
    assert {"a", "runs last"} <= set(messages)
    assert list(node.outbox.glob("*.open")) == []
    assert all(line.get("reason", "closed") == "closed" for line in controls_of(node.outbox))
    assert_in_order(node)
    assert not export(node).recovery.recovered


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_hooks_of_others_that_log_in_a_forked_child(node: Node) -> None:
    """Registered before this library was imported, they run before its own: the child has writers of its own."""
    done = python(
        """
        import os, sys, json, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        def hook():
            import logging
            logging.getLogger("harness").info("hook in child")
        os.register_at_fork(after_in_child=hook)
        import logging, logging.config, threading
        logging.config.dictConfig(json.loads(sys.argv[1]))
        log = logging.getLogger("harness")
        stop = False
        def busy():
            while not stop:
                log.info("busy")
        thread = threading.Thread(target=busy)
        thread.start()
        log.info("one")
        children = []
        for _ in range(8):
            pid = os.fork()
            if pid == 0:
                log.info("child")
                logging.shutdown()
                os._exit(0)
            children.append(pid)
        assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
        stop = True
        thread.join()
        """,
        json.dumps(config(node)),
    )
    assert (done.returncode, done.stderr) == (0, "")
    messages = Counter(event["message"] for event in events_of(node.outbox))
    assert (messages["hook in child"], messages["child"], messages["one"]) == (8, 8, 1)
    assert_in_order(node)


def test_a_share_of_a_pool_outlives_a_closed_one(node: Node, configure: Configure) -> None:
    """A call that is under way while the handler is closed ends its writer; nothing of it is lost."""
    logger = configure()
    logger.info("a")
    its = pool_of(logger)
    seat = take(logger)
    its._local.calls.depth += 1  # as inside the call that holds it, so that nobody waits for it
    logger.handlers[0].close()
    its._local.calls.depth -= 1
    assert len(list(node.outbox.glob("*.open"))) == 1
    seat.writer.append(b'{"node_id":"n","source":"s","message":"b"}')
    its._closing[0].idle.append(seat)
    del seat
    its.upkeep()
    close_logging()
    assert sorted(event["message"] for event in events_of(node.outbox)) == ["a", "b"]
    assert list(node.outbox.glob("*.open")) == []
    assert_in_order(node)


def test_background_members_are_looked_after(node: Node, configure: Configure) -> None:
    """The thread's own way: a pool that was interrupted is mended without anybody asking."""
    logger = configure()
    logger.info("a")
    take(logger)
    background.wake()
    deadline = time.monotonic() + 20
    while not pool_of(logger)._seats.idle and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(pool_of(logger)._seats.idle) == 1


# ------------------------------------------------------------------ the end of the process, forks inside of calls


@pytest.mark.parametrize("cycle", [False, True])
def test_a_destructor_that_logs_while_the_interpreter_ends(node: Node, cycle: bool) -> None:
    """The thread has ended before the interpreter stops threads where they are, so that none holds a lock then."""
    code = """
        import json, logging, logging.config, sys
        logging.config.dictConfig(json.loads(sys.argv[1]))
        log = logging.getLogger("harness")
        class Noisy:
            def __del__(self):
                log.info("deleted")
        noisy = Noisy()
        noisy.itself = noisy if sys.argv[2] == "True" else None
        log.info("one")
    """
    for _ in range(5):
        done = python(code, json.dumps(config(node)), str(cycle))
        assert (done.returncode, done.stderr) == (0, "")
    export(node)
    messages = Counter(event["message"] for event in events_of(node.outbox))
    assert messages == {"one": 5, "deleted": 5}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_writer_that_found_no_descriptors_touches_nobodys_file(node: Node, tmp_path: Path) -> None:
    """The lock file took the last descriptor, which the program's own file gets next: the end does not truncate it."""
    done = python(
        """
        import json, logging, logging.config, os, resource, sys
        logging.config.dictConfig(json.loads(sys.argv[1]))
        log = logging.getLogger("harness")
        log.info("parent")
        pid = os.fork()
        if pid == 0:
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            held = []
            try:
                while True:
                    held.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                pass
            os.close(held.pop())
            log.info("lost")
            results = open(sys.argv[2], "wb", buffering=0)
            results.write(b"x" * 100_000)
            logging.shutdown()
            os._exit(os.fstat(results.fileno()).st_size != 100_000)
        sys.exit(os.waitpid(pid, 0)[1])
        """,
        json.dumps(config(node)),
        str(tmp_path / "results.csv"),
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_signal_handler_that_forks_inside_of_calls(node: Node) -> None:
    """The child goes on with the interrupted call: with a writer of its own, never in the parent's chunk."""
    done = python(
        """
        import json, logging, logging.config, os, signal, sys
        logging.config.dictConfig(json.loads(sys.argv[1]))
        log = logging.getLogger("harness")
        parent, children, number = os.getpid(), [], 0
        def fork(*_):
            if os.getpid() == parent:
                pid = os.fork()
                if pid:
                    children.append(pid)
                    signal.setitimer(signal.ITIMER_REAL, 0.002)
        signal.signal(signal.SIGALRM, fork)
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        after = 0
        while len(children) < 150 and after < 3:
            number += 1
            after += os.getpid() != parent
            log.info("event", extra={"mark": f"{os.getpid()} {number}", "pad": "x" * 1500})
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        logging.shutdown()
        if os.getpid() != parent:
            os._exit(0)
        sys.exit(sum(os.waitpid(pid, 0)[1] for pid in children))
        """,
        json.dumps(config(node, max_bytes=4000)),
    )
    assert done.returncode == 0, done.stderr
    export(node)
    for writer, seqs in seqs_of(node).items():
        assert len(seqs) == len(set(seqs)), writer
    assert sum(line["count"] for line in controls_of(node.outbox) if line["control"] == "gap") == 0


def test_calls_where_the_stack_is_full(node: Node, configure: Configure) -> None:
    """Near the recursion limit the call returns, and an event that could not be kept is counted."""
    logger = configure()
    logger.info("before")
    handled: list[int] = []

    def deep(depth: int) -> None:
        with contextlib.suppress(RecursionError):
            deep(depth + 1)
        record = logger.makeRecord("harness", logging.INFO, "f", 1, "deep", (), None)
        try:
            pass_on(record)
        except RecursionError:
            return
        handled.append(depth)

    handle = logger.handlers[0].handle

    def pass_on(record: logging.LogRecord) -> None:
        handle(record)

    deep(0)
    close_logging()
    kept = sum(event["message"] == "deep" for event in events_of(node.outbox))
    lost = sum(line["count"] for line in controls_of(node.outbox) if line["control"] == "gap")
    assert kept + lost == len(handled)


def test_pools_are_listed_while_others_are_made(tmp_path: Path) -> None:
    """Sealing everything looks at the pools there are, whatever other threads do."""
    made: list[Any] = []

    class Member:
        outbox = tmp_path

        def seal(self) -> None: ...

        def upkeep(self) -> float:
            return 1.0

    def make() -> None:
        for _ in range(20_000):
            made.append(Member())
            background.join(made[-1])
        made.clear()

    thread = threading.Thread(target=make)
    thread.start()
    while thread.is_alive():
        background.seal()
    thread.join()
    del thread
    gc.collect()
    assert not any(isinstance(member, Member) for member in background.members())
