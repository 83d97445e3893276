"""Worker processes that are started without fork log as their parent does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from calyx_logging import Node, provision
from calyx_logging.outbox.export import export
from conftest import events_of

METHODS = ["spawn"] if os.name == "nt" else ["spawn", "forkserver", "fork"]

CONFIGURE = """
import logging, logging.config, os, sys
def configure(root, **options):
    logging.config.dictConfig({
        "version": 1, "disable_existing_loggers": False,
        "handlers": {"outbox": {"class": "calyx_logging.handlers.OutboxHandler", "root": root, **options}},
        "root": {"level": "INFO", "handlers": ["outbox"]},
        "loggers": {"detailed": {"level": "DEBUG"}},
    })
"""


def run(folder: Path, program: str, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a program from a file, as worker processes need it."""
    script = folder / "program.py"
    script.write_text(CONFIGURE + textwrap.dedent(program), "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(script), *args],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=folder,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    assert done.returncode == code, done.stderr
    return done


def messages(node: Node) -> Counter[str]:
    """Count how often each message is in the outbox, once every worker process has been recovered."""
    export(node)
    return Counter(event["message"] for event in events_of(node.outbox))


@pytest.mark.parametrize("method", METHODS)
def test_every_kind_of_worker_process(node: Node, tmp_path: Path, method: str) -> None:
    """Pool, ProcessPoolExecutor, Process, and processes started by those; levels are the parent's."""
    program = """
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        def work(n):
            logging.getLogger("detailed").debug("debug %d", n)
            logging.getLogger("other").debug("left out")
            logging.getLogger("other").info("info %d", n)
        def nested(method):
            child = multiprocessing.get_context(method).Process(target=work, args=(100,))
            child.start()
            child.join()
        if __name__ == "__main__":
            root, method = sys.argv[1:]
            configure(root)
            context = multiprocessing.get_context(method)
            pool = context.Pool(2)
            pool.map(work, range(6))
            pool.close()
            pool.join()
            with ProcessPoolExecutor(2, mp_context=context) as executor:
                list(executor.map(work, range(6, 9)))
            child = context.Process(target=nested, args=(method,))
            child.start()
            child.join()
            logging.info("parent")
    """
    done = run(tmp_path, program, str(node.root), method)
    assert done.stderr == ""
    expected = {f"{level} {n}": 1 for level in ("debug", "info") for n in (*range(9), 100)}
    assert messages(node) == {**expected, "parent": 1}


def test_joblibs_worker_processes(node: Node, tmp_path: Path) -> None:
    """Loky, which joblib uses, has a way of its own to start processes."""
    pytest.importorskip("loky")
    program = """
        def work(n):
            logging.info("info %d", n)
        if __name__ == "__main__":
            import loky
            configure(sys.argv[1])
            with loky.ProcessPoolExecutor(2) as executor:
                list(executor.map(work, range(4)))
    """
    run(tmp_path, program, str(node.root))
    assert messages(node) == {f"info {n}": 1 for n in range(4)}


@pytest.mark.parametrize("first", ["multiprocessing", "handler"])
def test_a_handler_made_in_code(node: Node, tmp_path: Path, first: str) -> None:
    """Formatter, filters and level come along, whether multiprocessing is imported before or after."""
    program = f"""
        if {first!r} == "multiprocessing":
            import multiprocessing
        from calyx_logging import EventFormatter, OutboxHandler
        def stamp(logger, name, event):
            event["stamped"] = True
            return event
        class Quiet(logging.Filter):
            def filter(self, record):
                return "secret" not in record.getMessage()
        def work():
            logging.info("info")
            logging.warning("a secret")
            logging.warning("warning")
        if __name__ == "__main__":
            handler = OutboxHandler(sys.argv[1], component="mine", level="WARNING")
            handler.setFormatter(EventFormatter(processors=[stamp], static_fields={{"team": "a"}}))
            handler.addFilter(Quiet())
            logging.getLogger().addHandler(handler)
            logging.getLogger().setLevel("INFO")
            import multiprocessing
            child = multiprocessing.get_context("spawn").Process(target=work)
            child.start()
            child.join()
    """
    run(tmp_path, program, str(node.root))
    export(node)
    (event,) = events_of(node.outbox)
    assert (event["message"], event["stamped"], event["team"]) == ("warning", True, "a")
    assert all("__mine__" in path.name for path in node.outbox.glob("*.jsonl"))


def test_a_child_that_configures_logging_itself(node: Node, tmp_path: Path) -> None:
    """It has its own handler alone, wherever that writes; while it is imported, too."""
    (tmp_path / "other").mkdir()
    other = provision(tmp_path / "other", "other").node
    program = """
        import multiprocessing
        if __name__ == "__mp_main__" and sys.argv[3] == "at import":
            configure(sys.argv[2])
        def work(root):
            if sys.argv[3] == "in the function":
                configure(root)
            logging.info("child")
        if __name__ == "__main__":
            configure(sys.argv[1])
            child = multiprocessing.get_context("spawn").Process(target=work, args=(sys.argv[2],))
            child.start()
            child.join()
            logging.info("parent")
    """
    for number, when in enumerate(("in the function", "at import"), 1):
        run(tmp_path, program, str(node.root), str(other.root), when)
        assert messages(node) == {"parent": number}
        assert messages(other) == {"child": number}


def test_a_childs_console_works_as_before(node: Node, tmp_path: Path) -> None:
    """`basicConfig` in a child finds no handlers, and another dictConfig does not take the outbox away."""
    program = """
        import multiprocessing
        def work():
            logging.basicConfig(level="INFO", format="console %(message)s", stream=sys.stdout)
            logging.info("one")
            logging.config.dictConfig({"version": 1, "root": {"level": "INFO"}})
            logging.info("two")
        if __name__ == "__main__":
            configure(sys.argv[1])
            child = multiprocessing.get_context("spawn").Process(target=work)
            child.start()
            child.join()
    """
    done = run(tmp_path, program, str(node.root))
    assert done.stdout == "console one\n"
    assert messages(node) == {"one": 1, "two": 1}


def test_it_can_be_turned_off(node: Node, tmp_path: Path) -> None:
    """`follow_children: false`; another value is refused."""
    program = """
        import multiprocessing
        def work():
            logging.info("child")
        if __name__ == "__main__":
            configure(sys.argv[1], follow_children=False)
            child = multiprocessing.get_context("spawn").Process(target=work)
            child.start()
            child.join()
            logging.info("parent")
            configure(sys.argv[1], follow_children="no")
    """
    done = run(tmp_path, program, str(node.root), code=1)
    assert "option 'follow_children' is 'no': give true or false" in done.stderr
    assert messages(node) == {"parent": 1, "uncaught ValueError": 1}


def test_what_cannot_be_sent_is_said_once(node: Node, tmp_path: Path) -> None:
    """A formatter with a lambda might keep secrets out: without it, the child does not log at all."""
    program = """
        import multiprocessing
        from calyx_logging import EventFormatter
        def work():
            logging.info("child")
        if __name__ == "__main__":
            configure(sys.argv[1])
            logging.getLogger().handlers[0].setFormatter(EventFormatter(processors=[lambda a, b, event: event]))
            for _ in range(2):
                child = multiprocessing.get_context("spawn").Process(target=work)
                child.start()
                child.join()
            logging.info("parent")
    """
    done = run(tmp_path, program, str(node.root))
    assert done.stderr.count("option 'formatter' of the OutboxHandler cannot be sent to them") == 1
    assert messages(node) == {"parent": 1}


def test_a_child_where_the_outbox_cannot_be_had(node: Node, tmp_path: Path) -> None:
    """It works, and says in one line why it does not log."""
    program = """
        import multiprocessing, shutil
        def work():
            logging.info("child")
            print("worked")
        if __name__ == "__main__":
            configure(sys.argv[1])
            os.rename(os.path.join(sys.argv[1], "runtime"), os.path.join(sys.argv[1], "away"))
            child = multiprocessing.get_context("spawn").Process(target=work)
            child.start()
            child.join()
            sys.exit(child.exitcode)
    """
    done = run(tmp_path, program, str(node.root))
    assert "worked" in done.stdout
    assert "this worker process cannot log as its parent does: NodeNotProvisioned" in done.stderr
    assert "Traceback" not in done.stderr


def test_behind_a_queue_and_in_a_run(node: Node, tmp_path: Path) -> None:
    """The queue's listener is the parent's: the child writes itself. The run's fields come along."""
    program = """
        import logging.handlers, multiprocessing, queue
        from calyx_logging import OutboxHandler
        from calyx_logging import benchmark_run
        def work():
            logging.info("child")
        if __name__ == "__main__":
            outbox = OutboxHandler(sys.argv[1])
            records = queue.Queue()
            listener = logging.handlers.QueueListener(records, outbox)
            logging.getLogger().addHandler(logging.handlers.QueueHandler(records))
            logging.getLogger().setLevel("INFO")
            listener.start()
            with benchmark_run(suite="s", run_id="r", root=sys.argv[1]):
                child = multiprocessing.get_context("spawn").Process(target=work)
                child.start()
                child.join()
            listener.stop()
    """
    run(tmp_path, program, str(node.root))
    export(node)
    (event,) = (event for event in events_of(node.outbox) if event["message"] == "child")
    assert (event["suite"], event["run_id"]) == ("s", "r")


def test_programs_that_start_no_processes_pay_nothing(node: Node, tmp_path: Path) -> None:
    """Configuring the handler does not import multiprocessing."""
    program = """
        configure(sys.argv[1])
        print("multiprocessing" in sys.modules, "pickle" in sys.modules)
    """
    before = run(tmp_path, 'print("pickle" in sys.modules)\n').stdout
    assert run(tmp_path, program, str(node.root)).stdout.split()[0] == "False", before


def test_options_are_all_sent(node: Node) -> None:
    """A handler made from the options of another one has the same."""
    from calyx_logging import OutboxHandler
    from calyx_logging.handlers import outbox

    one = OutboxHandler(node.root, max_bytes=5000, sync="record", capture=["captured_by_this_test"])
    two = OutboxHandler(**one.options)
    assert two.options == one.options
    left_out = {"follow_children", "level", "formatter", "filters"}
    assert set(one.options) == set(outbox._OPTIONS) - left_out
    assert json.loads(json.dumps(one.options)) == one.options
    for handler in (one, two):
        handler.close()
