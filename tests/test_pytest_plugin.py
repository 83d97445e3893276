"""The pytest plugin: outcomes, durations and log records become events; no result changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from calyx_logging import Node
from conftest import controls_of, events_of, telemetry, tree

SUITE = """
    import logging, os, pytest

    @pytest.fixture
    def broken():
        raise RuntimeError("no fixture")

    @pytest.fixture
    def breaks_later():
        yield
        raise RuntimeError("no teardown")

    def test_passes():
        logging.getLogger("app").warning("careful %d", 7, extra={"case_id": "c-1"})

    def test_fails():
        logging.getLogger("app").error("about to")
        assert 1 == 2, "not equal"

    @pytest.mark.skip(reason="not today")
    def test_skipped(): pass

    @pytest.mark.xfail
    def test_xfails(): assert False

    @pytest.mark.xfail
    def test_xpasses(): pass

    def test_error(broken): pass

    def test_error_later(breaks_later): pass

    @pytest.mark.parametrize("n", range(5))
    def test_many(n, caplog):
        logging.getLogger("app").warning("many")
        assert [record.message for record in caplog.records] == ["many"]
        assert "_calyx" not in caplog.records[0].__dict__
"""
OUTCOMES = {"passed": 6, "failed": 1, "skipped": 1, "xfailed": 1, "xpassed": 1, "error": 2}


def run_pytest(folder: Path, *args: str, suite: str = SUITE) -> subprocess.CompletedProcess[str]:
    (folder / "test_suite.py").write_text(textwrap.dedent(suite))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no", *args, "test_suite.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        timeout=120,
        check=False,
    )


def summary(done: subprocess.CompletedProcess[str]) -> str:
    """The last line without its time."""
    return done.stdout.strip().splitlines()[-1].rpartition(" in ")[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "their_tests"
    made.mkdir()
    (made / "pytest.ini").write_text("[pytest]\n")
    return made


def asked(node: Node) -> list[str]:
    return ["-p", "calyx_logging.pytest_plugin", "--calyx-root", str(node.root)]


def test_each_test_is_an_event(node: Node, folder: Path) -> None:
    """Outcome, durations and reason; its log records before it, as they were captured."""
    plain = run_pytest(folder)
    done = run_pytest(folder, *asked(node), "--calyx-run-id", "nightly")
    assert (done.returncode, summary(done)) == (plain.returncode, summary(plain)) == (1, summary(plain))
    events = events_of(node.outbox)
    ended = [event for event in events if event.get("stage") == "case_ended"]
    assert Counter(event["test_outcome"] for event in ended) == OUTCOMES
    assert {(event["run_id"], event["suite"], event["source"]) for event in events} == {
        ("nightly", "their_tests", "pytest")
    }
    assert len({event["run_instance_id"] for event in events}) == 1
    by_test = {event["test"].rpartition("::")[2]: event for event in ended}
    assert "assert 1 == 2" in by_test["test_fails"]["reason"]
    assert by_test["test_fails"]["level"] == "error"
    assert by_test["test_skipped"]["reason"] == "Skipped: not today"
    assert "no fixture" in by_test["test_error"]["reason"]
    assert "no teardown" in by_test["test_error_later"]["reason"]
    assert "reason" not in by_test["test_passes"]
    assert by_test["test_passes"]["duration_s"] >= by_test["test_passes"]["call_s"] >= 0
    messages = [event["message"] for event in events]
    careful = events[messages.index("careful 7")]
    assert (careful["logger"], careful["level"], careful["case_id"], careful["when"]) == (
        "app",
        "warning",
        "c-1",
        "call",
    )
    assert careful["test"].endswith("::test_passes")
    assert (events[0]["stage"], events[0]["level"]) == ("run_started", "info")
    assert messages.index("careful 7") < events.index(by_test["test_passes"])
    assert events[-1]["stage"] == "run_ended"
    assert events[-1]["pytest_exit_code"] == 1
    assert [line["reason"] for line in controls_of(node.outbox) if line["control"] == "end"] == ["closed"]


def named(node: Node, query: str) -> list[dict[str, Any]]:
    pytest.importorskip("ibis")
    pytest.importorskip("duckdb")
    rows: list[dict[str, Any]] = json.loads(telemetry("query", "--root", node.root, "--named", query, "--json").stdout)
    return rows


PASSES = """
    import pytest
    def test_one(): pass
    @pytest.mark.skip
    def test_two(): pass
    @pytest.mark.xfail
    def test_three(): assert False
"""
ENDS_EARLY = (
    PASSES
    + """
    def test_four():
        raise KeyboardInterrupt
    def test_five(): pass
"""
)
BAD_FIXTURE = PASSES + "\n    def test_four(none_of_this_name): pass\n"


@pytest.mark.parametrize(
    ("suite", "args", "run"),
    [
        (SUITE, [], (12, 9, 8, "normal", "failed")),
        (PASSES, [], (3, 2, 2, "normal", "passed")),
        (PASSES, ["-k", "nothing"], (0, 0, 0, "normal", "completed")),
        (BAD_FIXTURE, [], (4, 2, 2, "normal", "failed")),
        (ENDS_EARLY, [], (3, 2, 2, "incomplete", "incomplete")),
        ("import nothing_of_this_name", [], (0, 0, 0, "error", "failed")),
        ("import nothing_of_this_name", ["--continue-on-collection-errors"], (0, 0, 0, "error", "failed")),
    ],
)
def test_a_session_is_a_run_and_its_tests_are_cases(
    node: Node, folder: Path, suite: str, args: list[str], run: tuple[int, int, int, str, str]
) -> None:
    """A session that ended has its outcome; skipped tests are neither passed nor failed."""
    run_pytest(folder, *asked(node), *args, suite=suite)
    (found,) = named(node, "runs")
    assert tuple(found[name] for name in ("cases", "completed", "passed", "exit_status", "outcome")) == run


def test_the_cases_of_a_session(node: Node, folder: Path) -> None:
    """Each test by its id, how it ended, whether it passed; a session that only collects is no run."""
    run_pytest(folder, *asked(node))
    found = {row["case_id"].partition("::")[2]: (row["outcome"], row["passed"]) for row in named(node, "cases")}
    del found[""]  # the case_id that a test's own record has
    assert found.pop("test_skipped") == ("skipped", None)
    assert found.pop("test_fails") == ("completed", False)
    assert found.pop("test_error") == found.pop("test_error_later") == ("error", False)
    assert set(found.values()) == {("completed", True)}
    run_pytest(folder, *asked(node), "--collect-only")
    assert len(named(node, "runs")) == 1


def test_what_pytest_benchmark_measures(node: Node, folder: Path) -> None:
    """Its statistics and `extra_info` are in the test's event, and in no other's; our names are kept for us."""
    pytest.importorskip("pytest_benchmark")
    suite = """
        def test_timed(benchmark):
            benchmark.extra_info.update(model="m-1", score=0.5, outcome="theirs", message="m")
            benchmark.pedantic(lambda: None, rounds=3, iterations=2)

        def test_fails_inside(benchmark):
            benchmark.extra_info["size"] = 4
            benchmark(lambda: 1 / 0)

        def test_plain(): pass
    """
    done = run_pytest(folder, *asked(node), "-p", "no:xdist", suite=suite)
    assert done.returncode == 1, done.stdout
    ended = {
        event["test"].rpartition("::")[2]: event
        for event in events_of(node.outbox)
        if event.get("stage") == "case_ended"
    }
    timed = ended["test_timed"]
    assert (timed["model"], timed["score"], timed["outcome"], timed["outcome_"]) == ("m-1", 0.5, "completed", "theirs")
    assert (timed["message"], timed["shadowed"]) == ("test passed", {"message": "m"})
    assert (timed["benchmark"]["rounds"], timed["benchmark"]["iterations"]) == (3, 2)
    assert 0 <= timed["benchmark"]["min"] <= timed["benchmark"]["median"] <= timed["benchmark"]["max"]
    assert (ended["test_fails_inside"]["size"], "benchmark" in ended["test_fails_inside"]) == (4, False)
    assert not {"benchmark", "model", "size"} & ended["test_plain"].keys()


def test_without_xdist(node: Node, folder: Path) -> None:
    """It need not be installed."""
    done = run_pytest(folder, *asked(node), "-p", "no:xdist")
    assert (done.returncode, "INTERNALERROR" in done.stdout) == (1, False)
    assert sum(event.get("stage") == "case_ended" for event in events_of(node.outbox)) == 12


def test_inert_unless_asked_for(node: Node, folder: Path) -> None:
    """Installed is not loaded."""
    before = tree(node.root)
    (folder / "conftest.py").write_text(
        "import sys\ndef pytest_unconfigure():\n    print('calyx_logging.pytest_plugin' in sys.modules)\n"
    )
    assert "False" in run_pytest(folder, "-s").stdout.splitlines()
    assert tree(node.root) == before


@pytest.mark.slow
def test_subtests_and_threads(node: Node, folder: Path) -> None:
    """Each record once, a failed subtest is said, and no thread is there that was not."""
    suite = """
        import logging, threading, unittest

        class TestOld(unittest.TestCase):
            def test_parts(self):
                for n in range(3):
                    with self.subTest(n=n):
                        logging.getLogger("app").warning("part %d", n)
                        self.assertNotEqual(n, 1)

        def test_threads():
            assert threading.active_count() == 1
    """
    plain = run_pytest(folder, suite=suite)
    done = run_pytest(folder, *asked(node), suite=suite)
    assert (done.returncode, summary(done)) == (plain.returncode, summary(plain))
    events = events_of(node.outbox)
    assert [event["message"] for event in events if event["logger"] == "app"] == ["part 0", "part 1", "part 2"]
    tests = [event for event in events if event["message"].startswith("test ")]
    ended = {event["test"].rpartition("::")[2]: event["test_outcome"] for event in tests}
    assert ended["test_threads"] == "passed"
    assert ended["test_parts"] == ("failed" if plain.returncode else "passed")


def test_secrets(node: Node, folder: Path) -> None:
    """Asked for, they are taken out of records and reasons."""
    suite = """
        import logging
        def test_it():
            logging.getLogger("app").warning("Bearer abcdefgh12345678")
            assert "Bearer abcdefgh12345678" == ""
    """
    run_pytest(folder, *asked(node), "--calyx-redact", suite=suite)
    data = b"".join(path.read_bytes() for path in node.outbox.glob("*.jsonl"))
    assert b"abcdefgh1234" not in data
    assert data.count(b"[redacted]") >= 2
    done = run_pytest(folder, *asked(node), "--calyx-run-id", "a/b")
    assert (done.returncode, "part of a file's name" in done.stderr) == (4, True)


def test_without_a_node_id_the_session_does_not_begin(folder: Path) -> None:
    """pytest's usage error, with what to do."""
    done = run_pytest(folder, "-p", "calyx_logging.pytest_plugin", "--calyx-root", str(folder))
    assert done.returncode == 4
    assert "calyx-telemetry provision" in done.stderr


@pytest.mark.slow
def test_with_xdist(node: Node, folder: Path) -> None:
    """The same outcomes, each test once, from workers that write chunks of their own."""
    pytest.importorskip("xdist")
    plain = run_pytest(folder)
    done = run_pytest(folder, *asked(node), "-n", "2")
    assert (done.returncode, summary(done)) == (plain.returncode, summary(plain))
    events = events_of(node.outbox)
    ended = [event for event in events if event.get("stage") == "case_ended"]
    assert Counter(event["test_outcome"] for event in ended) == OUTCOMES
    assert len({event["test"] for event in ended}) == 12
    assert {event["worker"] for event in ended} == {"gw0", "gw1"}
    assert len({event["run_instance_id"] for event in events}) == 1
    assert sum(event.get("stage") == "run_ended" for event in events) == 1
    ends = [line for line in controls_of(node.outbox) if line["control"] == "end"]
    assert {end["reason"] for end in ends} == {"closed"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_a_worker_that_dies(node: Node, folder: Path) -> None:
    """The controller names the test that was running."""
    pytest.importorskip("xdist")
    crash = "\n    def test_crash():\n        os.kill(os.getpid(), 9)\n"
    done = run_pytest(folder, *asked(node), "-n", "2", suite=SUITE + crash)
    assert done.returncode == 1
    crashed = [event for event in events_of(node.outbox) if event.get("test_outcome") == "crashed"]
    assert [(event["test"], event["outcome"]) for event in crashed] == [("test_suite.py::test_crash", "interrupted")]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows deletes no open file")
def test_an_outbox_that_fails_changes_no_result(node: Node, folder: Path) -> None:
    """The folder is taken away in the middle: the tests end as they would have."""
    plain = run_pytest(folder)
    (folder / "conftest.py").write_text(
        "import shutil, pytest\n@pytest.hookimpl(trylast=True)\ndef pytest_runtest_setup(item):\n"
        f"    if item.name == 'test_fails': shutil.rmtree({json.dumps(str(node.root))})\n"
    )
    done = run_pytest(folder, *asked(node))
    assert (done.returncode, summary(done)) == (plain.returncode, summary(plain))
