"""ExecutionLogHandler writes one file from many processes, with the same events as the outbox."""

from __future__ import annotations

import json
import logging
import logging.config
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from concurrent_log_handler import ConcurrentRotatingFileHandler

from calyx_logging import Node
from calyx_logging.errors import ConfigError, NodeNotProvisioned, StorageError
from calyx_logging.handlers import ExecutionLogHandler
from calyx_logging.handlers.execution_log import ExecutionLogFile
from conftest import close_logging, config, events_of, python


def both(node: Node, **options: Any) -> dict[str, Any]:
    """Make a dictConfig with both handlers on one logger, as the documents show it."""
    settings = config(node)
    settings["handlers"]["execution_log"] = {
        "class": "calyx_logging.handlers.ExecutionLogHandler",
        "formatter": "event",
        "root": str(node.root),
        "run_id": "r-1",
        "run_instance_id": "i-1",
        **options,
    }
    settings["loggers"]["harness"]["handlers"].append("execution_log")
    return settings


def log_of(node: Node) -> Path:
    return node.root / "runtime/benchmarks/execution_logs/r-1__i-1.events.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("way", ["dict", "json", "yaml"])
def test_each_event_is_in_both_with_one_id(node: Node, way: str) -> None:
    """Both handlers on one logger write each event with one id; the lines differ only in `seq`."""
    settings = both(node)
    if way == "json":
        settings = json.loads(json.dumps(settings))
    if way == "yaml":
        settings = yaml.safe_load(yaml.safe_dump(settings))
    logging.config.dictConfig(settings)
    logger = logging.getLogger("harness")
    logger.info("plain", extra={"n": 1})
    logger.warning({"event": "as a dict", "name": "x"})
    try:
        raise ValueError("bad")
    except ValueError:
        logger.exception("failed", extra={"node_id": "claimed"})
    close_logging()
    here, there = lines(log_of(node)), events_of(node.outbox)
    assert len(here) == 3
    assert [{name: value for name, value in event.items() if name != "seq"} for event in there] == here
    assert isinstance(
        ExecutionLogHandler(run_id="r", run_instance_id="i", root=node.root), ConcurrentRotatingFileHandler
    )


def _work(settings: dict[str, Any], first: int) -> None:
    logging.config.dictConfig(settings)
    for n in range(first, first + 100):
        logging.getLogger("harness").info("event", extra={"n": n, "pad": "x" * (n % 3000)})
    close_logging()


@pytest.mark.parametrize(
    "method", [name for name in ("fork", "spawn") if name in multiprocessing.get_all_start_methods()]
)
def test_many_processes_append_whole_lines(node: Node, method: str) -> None:
    """Eight processes append lines of all sizes; every line is whole and every event there once."""
    context = multiprocessing.get_context(method)
    processes = [context.Process(target=_work, args=(both(node), k * 100)) for k in range(8 if method == "fork" else 3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(event["n"] for event in lines(log_of(node))) == list(range(100 * len(processes)))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_events_survive_the_death_of_the_process(node: Node) -> None:
    """Events logged before kill -9 are in the file."""
    code = """
        import json, logging, logging.config, os, signal, sys
        logging.config.dictConfig(json.loads(sys.argv[1]))
        for n in range(50):
            logging.getLogger("harness").info("event", extra={"n": n})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert python(code, json.dumps(both(node))).returncode == -signal.SIGKILL
    assert [event["n"] for event in lines(log_of(node))] == list(range(50))


def test_a_line_that_a_dead_process_left_unfinished_harms_no_other(node: Node) -> None:
    """A partial line stays a line of its own."""
    log_of(node).parent.mkdir(parents=True)
    log_of(node).write_bytes(b'{"node_id":"test-node","half')
    logging.config.dictConfig(both(node))
    logging.getLogger("harness").info("next")
    close_logging()
    half, whole = log_of(node).read_bytes().splitlines()
    assert half == b'{"node_id":"test-node","half'
    assert json.loads(whole)["message"] == "next"


def test_a_disk_that_fails_is_counted_and_told(
    node: Node, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """No call raises; a gap line counts the missing events, and the outbox has them all."""
    logging.config.dictConfig(both(node))
    logger = logging.getLogger("harness")
    handler = logger.handlers[1]
    assert isinstance(handler, ExecutionLogHandler)
    logger.info("event", extra={"n": 0})
    with monkeypatch.context() as patched:
        patched.setattr(ExecutionLogFile, "_write_locked", _refuse)
        for n in (1, 2):
            logger.info("event", extra={"n": n})
    logger.info("event", extra={"n": 3})
    close_logging()
    assert handler.lost == 2
    found = lines(log_of(node))
    assert [event.get("n") for event in found] == [0, None, 3]
    assert (found[1]["control"], found[1]["count"]) == ("gap", 2)
    assert "No space" in found[1]["cause"]
    assert [event["n"] for event in events_of(node.outbox)] == [0, 1, 2, 3]
    said = capfd.readouterr().err
    assert said.count(" fails: ") == 1
    assert said.count("works again; 2 events are missing there") == 1


def _refuse(self: ExecutionLogFile, line: bytes, sync: bool) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.skipif(sys.platform == "win32" or not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_device_that_is_full(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    """Losses on a full device are counted and reported once, without an exception."""
    log_of(node).parent.mkdir(parents=True)
    log_of(node).symlink_to("/dev/full")
    logging.config.dictConfig(both(node))
    for _ in range(3):
        logging.getLogger("harness").info("event")
    close_logging()
    assert len(events_of(node.outbox)) == 3
    assert capfd.readouterr().err.count(" fails: ") == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"maxBytes": 1000}, "never rotated"),
        ({"maxBytes": False}, "never rotated"),
        ({"backupCount": 3}, "no option 'backupCount'"),
        ({"run_ids": "r"}, "did you mean 'run_id'"),
        ({"run_id": "a/b"}, "part of a file's name"),
        ({"run_id": ".."}, "part of a file's name"),
        ({"run_id": "a:b"}, "part of a file's name"),
        ({"run_id": "x" * 101}, "part of a file's name"),
        ({"run_id": "NUL"}, "part of a file's name"),
        ({"run_instance_id": None}, "does not know its run"),
        ({"filename": "x.jsonl"}, "'filename' and 'run_id' exclude"),
        ({"sync": "record"}, "give true or false"),
        ({"max_event_bytes": 1}, "max_event_bytes"),
        ({"source": "calyx_logging"}, "control lines"),
        ({"root": 3}, "give the path of a folder"),
    ],
)
def test_bad_options(node: Node, options: dict[str, Any], says: str) -> None:
    """Each bad option is refused at configuration, and the error says what to do."""
    with pytest.raises(ConfigError, match=says):
        ExecutionLogHandler(**{"root": node.root, "run_id": "r", "run_instance_id": "i", **options})
    assert not (node.root / "runtime/benchmarks").exists()


def test_a_root_without_node_id_and_a_folder_that_cannot_be_made(node: Node, tmp_path: Path) -> None:
    """Both are errors at configuration, as for the outbox."""
    with pytest.raises(NodeNotProvisioned, match="calyx-telemetry provision"):
        ExecutionLogHandler(run_id="r", run_instance_id="i", root=tmp_path)
    (node.root / "runtime/benchmarks").write_text("a file")
    with pytest.raises(StorageError, match="give a file that can be written"):
        ExecutionLogHandler(run_id="r", run_instance_id="i", root=node.root)
    with pytest.raises(ConfigError, match=r"takes a calyx_logging\.EventFormatter"):
        ExecutionLogHandler(filename=node.root / "x.jsonl").setFormatter(logging.Formatter())


def test_a_processor_that_logs(node: Node) -> None:
    """Nested logging calls end 8 levels deep, as in the outbox."""
    logger = logging.getLogger("harness")

    def chatty(one: object, method: str, event: Any) -> Any:
        logger.info("inner")
        logger.info("inner, too")
        return event

    settings = both(node)
    settings["formatters"]["event"]["processors"] = [chatty]
    del settings["handlers"]["outbox"]
    settings["loggers"]["harness"]["handlers"] = ["execution_log"]
    logging.config.dictConfig(settings)
    handler = logger.handlers[0]
    assert isinstance(handler, ExecutionLogHandler)
    logger.info("outer")
    assert handler.lost == 256
    close_logging()
    assert sum(line["message"] == "outer" for line in lines(log_of(node))) == 1


def test_a_file_by_name_and_its_root_above_it(node: Node) -> None:
    """`filename` alone is enough if the file is in a root."""
    path = node.root / "deep" / "down" / "log.jsonl"
    handler = ExecutionLogHandler(filename=path, sync=True)
    handler.handle(logging.makeLogRecord({"msg": "event", "levelno": 20, "name": "x"}))
    handler.handle(logging.makeLogRecord({"msg": "event %d", "args": ("no",), "levelno": 20, "name": "x"}))
    handler.close()
    first, second = lines(path)
    assert (first["node_id"], first["message"]) == (node.id, "event")
    assert second["degraded"] == ["message not formatted: TypeError"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_children_go_on(node: Node) -> None:
    """Forked children write on, even when forked while another thread writes."""
    code = """
        import json, logging, logging.config, os, sys, threading
        logging.config.dictConfig(json.loads(sys.argv[1]))
        log = logging.getLogger("harness")
        going = True
        def work():
            while going:
                log.info("other")
        thread = threading.Thread(target=work); thread.start()
        for n in range(10):
            if os.fork() == 0:
                log.info("child", extra={"n": n})
                os._exit(0)
        for n in range(10):
            assert os.wait()[1] == 0
        going = False
        thread.join()
    """
    done = python(code, json.dumps(both(node)))
    assert done.returncode == 0, done.stderr
    assert sorted(event["n"] for event in lines(log_of(node)) if event["message"] == "child") == list(range(10))


def test_the_handler_is_loaded_where_it_is_used() -> None:
    """concurrent-log-handler is imported only by programs that use the handler."""
    done = python(
        "import sys, calyx_logging.handlers as h; h.OutboxHandler; print('concurrent_log_handler' in sys.modules)"
    )
    assert done.stdout.strip() == "False"
