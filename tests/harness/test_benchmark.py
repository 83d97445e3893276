"""benchmark_run sets fields on every record of its block, and writes cases, receipts and envelopes."""

from __future__ import annotations

import ast
import asyncio
import concurrent.futures
import hashlib
import json
import logging
import logging.handlers
import multiprocessing
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from calyx_logging import KeepContext, Node, benchmark_run
from calyx_logging.core import files
from calyx_logging.errors import ConfigError, NodeNotProvisioned, RootNotFound, StorageError
from calyx_logging.events import context
from calyx_logging.format.run_envelope import RunEnvelope
from calyx_logging.format.run_paths import results_dir
from calyx_logging.handlers import ExecutionLogHandler
from calyx_logging.outbox.export import export
from conftest import REPO, close_logging, config, events_of, python, telemetry

Configure = Callable[..., logging.Logger]
RUN = ("suite", "run_id", "run_instance_id")


def fields_of(event: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(event.get(name) for name in RUN)


def test_every_record_of_the_block_bears_the_run(node: Node, configure: Configure) -> None:
    """Records of the harness and its libraries, by logging or structlog, have the run's fields, and a case's its id."""
    logger = configure()
    library = logging.getLogger("harness.library")
    logger.info("before")
    with benchmark_run(suite="s", run_id="r", run_instance_id="i", root=node.root, logger=logger) as run:
        library.info("in the block")
        with run.case("c-1", model="m") as case:
            library.info("in the case", extra={"suite": "the record's own"})
            case.note(score=1.0, outcome="passed", case_id="no", name="any name", event="x", message="y")
        library.info("after the case")
    logger.info("after")
    close_logging()
    events = {event["message"]: event for event in events_of(node.outbox)}
    assert list(events) == [
        *("before", "run started", "in the block", "in the case", "case completed", "after the case", "run ended"),
        "after",
    ]
    inside = [event for message, event in events.items() if message not in ("before", "after", "in the case")]
    assert {fields_of(event) for event in inside} == {("s", "r", "i")}
    assert fields_of(events["in the case"]) == ("the record's own", "r", "i")
    assert fields_of(events["before"]) == fields_of(events["after"]) == (None, None, None)
    assert events["in the case"]["case_id"] == events["case completed"]["case_id"] == "c-1"
    assert "case_id" not in events["after the case"]
    ended = events["case completed"]
    assert (ended["stage"], ended["outcome"], ended["outcome_"]) == ("case_ended", "completed", "passed")
    assert (ended["score"], ended["name"]) == (1.0, "any name")
    assert (ended["case_id_"], ended["event_"], ended["shadowed"]) == ("no", "x", {"message": "y"})
    assert events["run ended"]["exit_status"] == "normal"
    assert context.PROCESS_FIELDS == {}
    assert context.CHILD_VARIABLE not in os.environ


def test_the_files_of_a_run(node: Node, configure: Configure) -> None:
    """Envelope and receipt are with the node's results, and the hashes are right."""
    logger = configure()
    log = ExecutionLogHandler(run_id="r", run_instance_id="i", root=node.root)
    logger.addHandler(log)
    with benchmark_run(
        suite="s", run_id="r", run_instance_id="i", root=node.root, logger=logger, cases_expected=2
    ) as run:
        assert RunEnvelope.read(run.envelope_path).exit_status == "incomplete"
        for name in ("a", "b"):
            with run.case(name, answer={1, 2}):
                pass
    folder = node.root / "runtime/benchmarks/results/s/test-node"
    assert sorted(path.name for path in folder.iterdir()) == ["r__i.cases.jsonl", "r__i.envelope.json"]
    receipt = [json.loads(line) for line in (folder / "r__i.cases.jsonl").read_bytes().splitlines()]
    assert [(line["case_id"], line["outcome"], line["answer"]) for line in receipt] == [
        ("a", "completed", [1, 2]),
        ("b", "completed", [1, 2]),
    ]
    envelope = RunEnvelope.read(folder / "r__i.envelope.json")
    assert (envelope.exit_status, envelope.cases_expected, envelope.cases_completed) == ("normal", 2, 2)
    assert (envelope.node_id, envelope.suite, envelope.run_id) == ("test-node", "s", "r")
    assert envelope.ended_at is not None
    assert envelope.started_at <= envelope.ended_at
    assert envelope.execution_log is not None
    for digest in (envelope.execution_log, *envelope.receipts):
        data = (node.root / digest.path).read_bytes()
        assert (digest.sha256, digest.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    logger.removeHandler(log)
    log.close()


def test_who_passed(node: Node, configure: Configure) -> None:
    """The threshold decides where the harness does not; event, receipt, envelope and query say the same."""
    logger = configure()
    scores: dict[str, Any] = {
        "a": 0.5,
        "b": 0.49,
        "c": float("nan"),
        "d": "0.9",
        "e": True,
        "f": 1,
        "g": None,
        "h": 1.0,
    }
    scores |= {"j": 10**400, "k": Decimal("0.4"), "l": "none", "m": "1e400"}
    with benchmark_run(suite="s", run_id="r", root=node.root, logger=logger, pass_at=0.5) as run:
        for case_id, score in scores.items():
            with suppress(ValueError), run.case(case_id) as case:
                case.note(score=score)
                if case_id == "g":
                    case.note(passed=True)
                if case_id == "h":
                    raise ValueError("too late")
        with run.case("i"):
            pass
    close_logging()
    said = {"a": True, "b": False, "d": True, "f": True, "g": True, "k": False}
    events = events_of(node.outbox)
    assert {one["case_id"]: one["passed"] for one in events if "passed" in one} == said
    receipt = [json.loads(line) for line in run.receipt_path.read_bytes().splitlines()]
    assert {one["case_id"]: one["passed"] for one in receipt if "passed" in one} == said
    envelope = RunEnvelope.read(run.envelope_path)
    counts = (envelope.cases_completed, envelope.cases_judged, envelope.cases_passed)
    assert (envelope.pass_at, *counts) == (0.5, 12, 7, 4)
    assert next(one["pass_at"] for one in events if one.get("stage") == "run_started") == 0.5
    (ended,) = (one for one in events if one.get("stage") == "run_ended")
    assert (ended["cases_completed"], ended["cases_judged"], ended["cases_passed"]) == counts
    pytest.importorskip("ibis")
    (row,) = json.loads(telemetry("query", "--named", "runs", "--json", "--root", node.root).stdout)
    assert tuple(row[name] for name in ("completed", "judged", "passed")) == counts
    assert (row["outcome"], row["pass_rate"]) == ("failed", 4 / 7)


@pytest.mark.parametrize(
    ("error", "status", "outcome", "completed"),
    [
        (None, "incomplete", "completed", 1),
        (TimeoutError("slow"), "timeout", "timeout", 0),
        (ValueError("bad"), "error", "error", 0),
        (KeyboardInterrupt(), "incomplete", "interrupted", 0),
    ],
)
def test_how_a_run_ends(
    node: Node, configure: Configure, error: BaseException | None, status: str, outcome: str, completed: int
) -> None:
    """The exception propagates, and the envelope has the exit status."""
    logger = configure()
    run = benchmark_run(suite="s", run_id="r", root=node.root, logger=logger, cases_expected=2)

    def work() -> None:
        with run, run.case("c"):
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(type(error)):
            work()
    envelope = RunEnvelope.read(run.envelope_path)
    assert (envelope.exit_status, envelope.cases_completed) == (status, completed)
    assert json.loads(run.receipt_path.read_bytes())["outcome"] == outcome
    assert context.PROCESS_FIELDS == {}
    if error is not None:
        assert str(envelope.error).startswith(type(error).__name__)


def test_a_run_may_say_how_it_ends(node: Node, configure: Configure) -> None:
    """`end_as` overrides the derived exit status."""
    with benchmark_run(suite="s", run_id="r", root=node.root, logger=configure()) as run:
        run.end_as("timeout")
        with pytest.raises(ConfigError, match="give one of 'normal'"):
            run.end_as("fine")
    assert RunEnvelope.read(run.envelope_path).exit_status == "timeout"


def test_threads_and_tasks(node: Node, configure: Configure) -> None:
    """Records from new threads, pools and interleaved tasks have the right run and case."""
    logger = configure()

    def in_thread(run: Any, n: int) -> None:
        logger.info("bare thread", extra={"n": n})
        with run.case(f"t{n}"):
            logger.info("in a case", extra={"expected": f"t{n}"})

    async def task(run: Any, n: int) -> None:
        with run.case(f"a{n}"):
            for _ in range(3):
                await asyncio.sleep(0)
                logger.info("in a case", extra={"expected": f"a{n}"})

    async def tasks(run: Any) -> None:
        await asyncio.gather(*(task(run, n) for n in range(5)))

    with benchmark_run(suite="s", run_id="r", run_instance_id="i", root=node.root, logger=logger) as run:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: in_thread(run, n), range(8)))
        asyncio.run(tasks(run))
    close_logging()
    events = events_of(node.outbox)
    assert {fields_of(event) for event in events} == {("s", "r", "i")}
    cases = [event for event in events if event["message"] == "in a case"]
    assert len(cases) == 23
    assert all(event["case_id"] == event["expected"] for event in cases)
    assert RunEnvelope.read(run.envelope_path).cases_completed == 13


def test_two_runs_at_once(node: Node, configure: Configure) -> None:
    """Each thread's records have its own run; a thread of neither run has none."""
    logger = configure()
    both, done = threading.Barrier(2), threading.Barrier(3)

    def work(name: str) -> None:
        with benchmark_run(suite="s", run_id=name, root=node.root, logger=logger):
            both.wait()
            logger.info("mine", extra={"expected": name})
            done.wait()
            done.wait()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    done.wait()
    logger.info("nobody's")
    done.wait()
    for thread in threads:
        thread.join()
    close_logging()
    events = events_of(node.outbox)
    assert all(event["run_id"] == event["expected"] for event in events if event["message"] == "mine")
    assert [fields_of(event) for event in events if event["message"] == "nobody's"] == [(None, None, None)]


def _child(settings: dict[str, Any]) -> None:
    logging.config.dictConfig(settings)
    logging.getLogger("harness").info("in a child")
    close_logging()


@pytest.mark.parametrize("method", sorted({"fork", "spawn"} & set(multiprocessing.get_all_start_methods())))
def test_child_processes(node: Node, configure: Configure, method: str) -> None:
    """Records of forked and spawned children have the run of the parent process."""
    logger = configure()
    with benchmark_run(suite="s", run_id="r", run_instance_id="i", root=node.root, logger=logger) as run:
        child = multiprocessing.get_context(method).Process(target=_child, args=(config(node),))
        child.start()
        child.join(60)
        assert child.exitcode == 0
    code = "import sys, json, test_benchmark; test_benchmark._child(json.loads(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", code, json.dumps(config(node))],
        env={
            **os.environ,
            **run.environment,
            "PYTHONPATH": os.pathsep.join(map(str, (REPO / "tests", Path(__file__).parent))),
        },
        cwd=REPO.parent,
        check=True,
    )
    close_logging()
    found = [event for event in events_of(node.outbox) if event["message"] == "in a child"]
    assert [fields_of(event) for event in found] == [("s", "r", "i")] * 2


@pytest.mark.parametrize("text", ["", "{}", "[1]", "no json", '{"run_instance_id": 3}'])
def test_a_variable_that_names_no_run(text: str) -> None:
    """A malformed variable is ignored."""
    assert context.inherited({context.CHILD_VARIABLE: text}) == {}
    kept = context.inherited({context.CHILD_VARIABLE: '{"run_instance_id": "i", "n": 3}'})
    assert kept == {"run_instance_id": "i"}


def behind_a_queue(
    node: Node,
) -> tuple[logging.Logger, logging.Handler, queue.Queue[Any], logging.Handler]:
    """Make a logger with a context-keeping QueueHandler; return it with handler, queue and OutboxHandler."""
    logging.config.dictConfig(config(node))
    records: queue.Queue[Any] = queue.Queue()
    handler = logging.handlers.QueueHandler(records)
    handler.addFilter(KeepContext())
    logger = logging.getLogger("queued")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    return logger, handler, records, logging.getLogger("harness").handlers[0]


def test_through_a_queue(node: Node) -> None:
    """The filter carries context variables to the listener's thread, also through pickle."""
    import structlog

    logger, handler, records, outbox = behind_a_queue(node)
    with structlog.contextvars.bound_contextvars(who="caller", odd=object):
        logger.info("plain", extra={"n": 1})
        logger.error("failed %s", "x", exc_info=(ValueError, ValueError("v"), None))
    logger.info("unbound")
    thread = threading.Thread(target=lambda: [_handle(outbox, records.get()) for _ in range(3)])
    with structlog.contextvars.bound_contextvars(who="listener"):
        thread.start()
        thread.join()
    logger.removeHandler(handler)
    close_logging()
    plain, failed, unbound = events_of(node.outbox)
    assert (plain["who"], plain["n"], plain["odd"]) == ("caller", 1, "<class 'object'>")
    assert failed["who"] == "caller"
    assert "who" not in unbound


def _handle(outbox: logging.Handler, record: logging.LogRecord) -> None:
    import structlog

    with structlog.contextvars.bound_contextvars(who="listener's own"):
        outbox.handle(pickle.loads(pickle.dumps(record)))


def test_without_node_id(tmp_path: Path) -> None:
    """Without a node id the results are in the suite's folder, and the envelope has no node_id."""
    with benchmark_run(suite="s", run_id="r", root=tmp_path) as run, run.case("c"):
        pass
    assert run.results_dir == files.reachable(tmp_path) / "runtime/benchmarks/results/s"
    assert "node_id" not in json.loads(run.envelope_path.read_bytes())


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_a_run_that_dies_is_incomplete(node: Node) -> None:
    """After kill -9 in the second case, the start envelope, the first case's receipt and every event remain."""
    code = """
        import json, logging, logging.config, os, signal, sys
        from calyx_logging import benchmark_run
        logging.config.dictConfig(json.loads(sys.argv[1]))
        with benchmark_run(suite="s", run_id="r", run_instance_id="i", root=sys.argv[2], logger="harness") as run:
            with run.case("one"):
                pass
            with run.case("two"):
                os.kill(os.getpid(), signal.SIGKILL)
    """
    assert python(code, json.dumps(config(node)), str(node.root)).returncode == -signal.SIGKILL
    folder = node.root / "runtime/benchmarks/results/s/test-node"
    envelope = RunEnvelope.read(folder / "r__i.envelope.json")
    assert (envelope.exit_status, envelope.ended_at) == ("incomplete", None)
    assert json.loads((folder / "r__i.cases.jsonl").read_bytes())["case_id"] == "one"
    assert [event["message"] for event in events_of(node.outbox)] == ["run started", "case completed"]


def test_an_execution_log_of_its_own(node: Node, configure: Configure) -> None:
    """A requested execution log has every event of the block, from all loggers; its hash is in the envelope."""
    logger = configure()
    elsewhere = logging.getLogger("elsewhere")
    elsewhere.setLevel(logging.INFO)
    before = (list(logging.getLogger().handlers), list(logger.handlers))
    with benchmark_run(
        suite="s", run_id="r", run_instance_id="i", root=node.root, logger=logger, execution_log=True
    ) as run:
        elsewhere.info("elsewhere")
        with run.case("c"):
            pass
    assert (logging.getLogger().handlers, logger.handlers) == before
    path = node.root / "runtime/benchmarks/execution_logs/r__i.events.jsonl"
    log = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["message"] for line in log] == ["run started", "elsewhere", "case completed", "run ended"]
    assert {fields_of(line) for line in log} == {("s", "r", "i")}
    digest = RunEnvelope.read(run.envelope_path).execution_log
    assert digest is not None
    assert digest.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_secrets_are_in_no_file_of_the_run(node: Node) -> None:
    """Secrets that the handler's processors remove are in neither receipt, execution log nor envelope."""
    settings = config(node)
    settings["formatters"]["event"]["processors"] = ["calyx_logging.redact.RedactSecrets"]
    logging.config.dictConfig(settings)
    run = benchmark_run(suite="s", run_id="r", root=node.root, logger="harness", execution_log=True)

    def work() -> None:
        with run, run.case("c", api_key="sk-abcdefabcdefabcdef") as case:
            case.note(text="Bearer abcdefgh12345678")
            raise ValueError("password=hunter2xyz")

    with pytest.raises(ValueError, match="hunter2"):
        work()
    close_logging()
    data = b"".join(path.read_bytes() for path in node.root.rglob("*") if path.is_file())
    for secret in (b"sk-abcdef", b"abcdefgh1234", b"hunter2"):
        assert secret not in data
    assert json.loads(run.receipt_path.read_bytes())["api_key"] == "[redacted]"
    assert RunEnvelope.read(run.envelope_path).error == "ValueError: [redacted]"


def test_cases_that_are_lost_on_purpose_or_by_mistake(node: Node, configure: Configure) -> None:
    """Cases with errors or timeouts that the harness catches are recorded; a case outside its run is refused."""
    logger = configure()
    run = benchmark_run(suite="s", run_id="r", root=node.root, logger=logger, cases_expected=3)
    with pytest.raises(ConfigError, match="outside its run"), run.case("early"):
        pass
    with run:
        for error in (ValueError("x"), TimeoutError("y"), None):
            try:
                with run.case("c"):
                    if error is not None:
                        raise error
            except (ValueError, TimeoutError):
                pass
    with pytest.raises(ConfigError, match="outside its run"), run.case("late"):
        pass
    with pytest.raises(ConfigError, match="call benchmark_run again"), run:
        pass
    envelope = RunEnvelope.read(run.envelope_path)
    assert (envelope.exit_status, envelope.cases_completed) == ("normal", 1)
    assert repr(run).startswith("<BenchmarkRun s r ")


def test_a_run_behind_a_queue(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    """Events keep fields, dict messages and exceptions through a queue, and a handler takes none of them twice."""
    logger, handler, records, outbox = behind_a_queue(node)
    listener = logging.handlers.QueueListener(records, outbox)
    listener.start()
    try:
        with benchmark_run(suite="s", run_id="r", root=node.root, logger=logger) as run:
            with pytest.raises(ValueError, match="v"), run.case("c", score=1.0):
                raise ValueError("v")
            logger.info({"event": "a dict", "n": 1}, stack_info=True)
            logger.addHandler(outbox)
            logger.info("taken once", extra={"n": 2})
            logger.info({"event": "taken once, too"})
    finally:
        listener.stop()
        logger.removeHandler(handler)
        logger.removeHandler(outbox)
    close_logging()
    events = sorted(events_of(node.outbox), key=lambda event: str(event["ts_utc"]))
    assert [event["message"] for event in events] == [
        *("run started", "case error", "a dict", "taken once", "taken once, too", "run ended"),
    ]
    assert (events[1]["stage"], events[1]["outcome"], events[1]["score"]) == ("case_ended", "error", 1.0)
    assert events[1]["exception"][0]["value"] == "v"
    assert (events[2]["n"], "stack_info" in events[2]) == (1, True)
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_cases_in_forks_signals_and_exits(node: Node) -> None:
    """Cases end correctly in a child forked meanwhile, and in a signal handler that interrupts another case's end."""
    code = """
        import json, logging, logging.config, os, signal, sys, threading
        from calyx_logging import benchmark_run
        logging.config.dictConfig(json.loads(sys.argv[1]))
        with benchmark_run(suite="s", run_id="r", root=sys.argv[2], logger="harness", cases_expected=50) as run:
            going = True
            def work():
                while going:
                    with run.case("thread"):
                        pass
            threads = [threading.Thread(target=work) for _ in range(3)]
            for thread in threads:
                thread.start()
            for n in range(10):
                pid = os.fork()
                if pid == 0:
                    with run.case("child"):
                        pass
                    os._exit(0)
                assert os.waitpid(pid, 0)[1] == 0
            going = False
            for thread in threads:
                thread.join()
            def handle(number, frame):
                with run.case("signal"):
                    pass
                signal.setitimer(signal.ITIMER_REAL, 0.001)
            signal.signal(signal.SIGALRM, handle)
            signal.setitimer(signal.ITIMER_REAL, 0.001)
            for n in range(300):
                with run.case("main"):
                    pass
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            sys.exit(0)
    """
    done = python(code, json.dumps(config(node)), str(node.root))
    assert done.returncode == 0, done.stderr
    folder = node.root / "runtime/benchmarks/results/s/test-node"
    (envelope,) = folder.glob("*.envelope.json")
    assert RunEnvelope.read(envelope).exit_status == "normal"
    (receipt,) = folder.glob("*.cases.jsonl")
    names = [json.loads(line)["case_id"] for line in receipt.read_bytes().splitlines()]
    assert (names.count("child"), names.count("main")) == (10, 300)
    assert "signal" in names


class Unsayable(Exception):
    """An exception whose text cannot be read."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_an_exception_that_cannot_be_said_goes_on(node: Node, configure: Configure) -> None:
    """The caller gets that exception; receipt and envelope name its type."""
    logger = configure()
    run = benchmark_run(suite="s", run_id="r", root=node.root, logger=logger)

    def work() -> None:
        with run, run.case("c"):
            raise Unsayable

    with pytest.raises(Unsayable):
        work()
    assert json.loads(run.receipt_path.read_bytes())["error"].startswith("Unsayable: ")
    assert RunEnvelope.read(run.envelope_path).exit_status == "error"


def test_bad_input(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input is refused, and the error says what to do."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NodeNotProvisioned, match="calyx-telemetry provision"):
        benchmark_run(suite="s", run_id="r")
    with pytest.raises(RootNotFound):
        benchmark_run(suite="s", run_id="r", root=tmp_path / "none")
    for bad in (
        {"suite": "../s"},
        {"run_id": "a/b"},
        {"run_instance_id": "a|b"},
        {"run_instance_id": ""},
        {"run_id": "日" * 100},
        {"cases_expected": -1},
        {"pass_at": "0.5"},
        {"pass_at": True},
        {"pass_at": 10**400},
        {"pass_at": float("nan")},
        {"logger": None},
        {"root": 123},
        {"root": b"x"},
    ):
        with pytest.raises(ConfigError):
            benchmark_run(**{"suite": "s", "run_id": "r", "root": node.root, **bad})
    with benchmark_run(suite="s", run_id="r", run_instance_id="i", root=node.root):
        pass
    again = benchmark_run(suite="s", run_id="r", run_instance_id="i", root=node.root)
    with pytest.raises(ConfigError, match="has an instance 'i' already"):
        again.__enter__()
    (node.root / "runtime/benchmarks/results/file").write_text("")
    blocked = benchmark_run(suite="file", run_id="r", root=node.root)
    with pytest.raises(StorageError, match="begin the run"):
        blocked.__enter__()
    assert context.PROCESS_FIELDS == {}


def test_it_says_when_nobody_listens(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    """If no OutboxHandler receives the run's own events, one line names the doctor."""
    with benchmark_run(suite="s", run_id="r", root=node.root, logger="nobody.listens"):
        pass
    assert "calyx-telemetry doctor" in capfd.readouterr().err


def test_a_receipt_that_cannot_be_written_is_said(
    node: Node, configure: Configure, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing receipt is reported, the harness goes on, and the case's event is in the outbox."""
    logger = configure()

    write = files.AppendFile.write

    def short(self: files.AppendFile, data: bytes) -> int:
        if self.path.name.endswith(".cases.jsonl") and b'"second"' in data:
            return write(self, data[:20])
        if self.path.name.endswith(".cases.jsonl") and b'"third"' in data:
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(files.AppendFile, "write", short)
    with benchmark_run(suite="s", run_id="r", root=node.root, logger=logger, cases_expected=4) as run:
        for name in ("first", "second", "third", "fourth"):
            with run.case(name):
                pass
    assert capfd.readouterr().err.count("is not in") == 2
    assert RunEnvelope.read(run.envelope_path).cases_completed == 4
    first, fragment, fourth = run.receipt_path.read_bytes().splitlines()
    assert (json.loads(first)["case_id"], len(fragment), json.loads(fourth)["case_id"]) == ("first", 20, "fourth")


# ------------------------------------------------------------------ resume

RESUMED = """
import json, logging, logging.config, os, signal, sys
from calyx_logging import benchmark_run
logging.config.dictConfig(json.loads(sys.argv[1]))
run = benchmark_run(suite="s", run_id="r", cases_expected=5, resume=True, logger="harness", root=sys.argv[2])
print(run.remaining(["a", "b", "c", "d", "e"]), flush=True)
with run:
    for case_id in run.remaining(["a", "b", "c", "d", "e"]):
        if case_id == sys.argv[3]:
            os._exit(9) if sys.argv[4] == "dies" else sys.exit("stops")
        try:
            with run.case(case_id):
                if case_id == sys.argv[5]:
                    raise ValueError("fails")
        except ValueError:
            pass
"""


def resumed(node: Node, stop_at: str = "", how: str = "", fail_at: str = "") -> tuple[list[str], int]:
    """Run it; what it found remaining, and its exit code."""
    done = python(RESUMED, json.dumps(config(node)), str(node.root), stop_at, how, fail_at)
    return ast.literal_eval(done.stdout), done.returncode


def test_a_run_is_resumed(node: Node) -> None:
    """After a death, a failure and an end: each time what is not completed; queries show one run."""
    assert resumed(node, "c", "dies") == (["a", "b", "c", "d", "e"], 9)
    assert resumed(node, "e", "stops", "d") == (["c", "d", "e"], 1)
    assert resumed(node) == (["d", "e"], 0)
    assert resumed(node) == ([], 0)
    export(node)
    folder = results_dir(node.root / "runtime" / "benchmarks", "s", node.id)
    envelopes = sorted((RunEnvelope.read(path) for path in folder.glob("*.json")), key=lambda one: len(one.continues))
    assert [len(one.continues) for one in envelopes] == [0, 1, 2, 3]
    assert envelopes[2].continues == (envelopes[0].run_instance_id, envelopes[1].run_instance_id)
    assert [one.exit_status for one in envelopes] == ["incomplete", "incomplete", "normal", "normal"]
    assert envelopes[2].cases_completed == 5
    ended = [event for event in events_of(node.outbox) if event.get("stage") == "case_ended"]
    assert {event["run_instance_id"] for event in ended} == {envelopes[0].run_instance_id}
    assert {event.get("resumed_as") for event in ended} == {None, *(one.run_instance_id for one in envelopes[1:3])}
    pytest.importorskip("ibis")
    done = telemetry("query", "--named", "runs", "--json", "--root", node.root)
    (row,) = json.loads(done.stdout)
    assert {name: row[name] for name in ("cases", "completed", "passed", "exit_status", "outcome")} == {
        "cases": 5,
        "completed": 5,
        "passed": 0,
        "exit_status": "normal",
        "outcome": "completed",
    }


@pytest.mark.parametrize("lost", ["receipts", "outbox", "torn"])
def test_resume_from_what_is_left(node: Node, lost: str) -> None:
    """A run goes on from receipts alone, from the outbox alone, and with a receipt whose last line is torn."""
    resumed(node, "d", "dies")
    folder = results_dir(node.root / "runtime" / "benchmarks", "s", node.id)
    (receipt,) = folder.glob("*.cases.jsonl")
    if lost == "receipts":
        receipt.unlink()
    elif lost == "torn":
        receipt.write_bytes(receipt.read_bytes()[:-20] + b"\n[]\n\xff\n")
    else:
        for path in node.outbox.glob("*.jsonl*"):
            path.unlink()
    assert resumed(node, "d", "dies")[0] == ["d", "e"]


def test_resume_minds_suite_and_run(node: Node) -> None:
    """Another run, another suite, and a run without `resume` begin at the beginning."""
    resumed(node, "d", "dies")
    for options in ({"run_id": "r2", "resume": True}, {"run_id": "r"}, {"run_id": "r_", "resume": True}):
        run = benchmark_run(suite="s", root=node.root, **options)  # type: ignore[arg-type]
        assert (run.remaining(["a"]), run.continues) == (["a"], ())
    assert benchmark_run(suite="other", run_id="r", root=node.root, resume=True).remaining(["a"]) == ["a"]
    with pytest.raises(ConfigError, match="resume is 'yes'"):
        benchmark_run(suite="s", run_id="r", root=node.root, resume="yes")  # type: ignore[arg-type]


def test_resume_of_a_run_whose_id_begins_another(node: Node) -> None:
    """Cases of run `r__b` are none of run `r`, whether or not its envelope can be read."""
    with benchmark_run(suite="s", run_id="r__b", root=node.root) as other, other.case("a"):
        pass
    for content in (other.envelope_path.read_bytes(), b"{"):
        other.envelope_path.write_bytes(content)
        assert benchmark_run(suite="s", run_id="r", root=node.root, resume=True).remaining(["a"]) == ["a"]
        assert benchmark_run(suite="s", run_id="r__b", root=node.root, resume=True).remaining(["a"]) == []


def test_resume_beside_odd_receipts(node: Node) -> None:
    """A line too deep to be read is passed over; so is what is no file."""
    with benchmark_run(suite="s", run_id="r", root=node.root) as run, run.case("a"):
        pass
    run.receipt_path.write_bytes(b"[" * 100_000 + b"\n" + run.receipt_path.read_bytes())
    run.receipt_path.with_name("r__folder.cases.jsonl").mkdir()
    assert benchmark_run(suite="s", run_id="r", root=node.root, resume=True).remaining(["a"]) == []


def test_what_remaining_takes(node: Node) -> None:
    """Ids, and things that bear one; what is completed in this instance counts, too."""
    with benchmark_run(suite="s", run_id="r", root=node.root) as run:
        with run.case("a"):
            pass
        cases = [{"id": "a"}, {"case_id": "b", "id": "a"}, SimpleNamespace(id="c")]
        assert run.remaining(cases) == cases[1:]
        assert (run.completed("a"), run.completed("b")) == (True, False)
        with pytest.raises(ConfigError, match="give ids of cases"):
            run.remaining([3])
