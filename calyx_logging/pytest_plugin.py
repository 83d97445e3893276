"""pytest as a harness: each test's outcome, duration and captured log records become events.

Loaded on request only: `pytest -p calyx_logging.pytest_plugin`. A session is a run, and each test a case of it: its
events have the fields of `benchmark_run`'s. A test gives one event at its end, preceded by one for each log record that
pytest captured in it, with `test` and `when`. The plugin reads pytest's reports and changes neither logging's
configuration nor any result. With pytest-xdist each worker writes its own chunks, and the controller reports a worker
that died.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator
from typing import Any

import pytest

from calyx_logging.errors import CalyxError, say
from calyx_logging.events.formatter import EventFormatter, StructlogMessage
from calyx_logging.format.run_paths import check_run_name, new_instance_id
from calyx_logging.handlers.outbox import OutboxHandler

__all__ = ["TestRecorder"]

LOGGER = "pytest"
_PHASES = ("setup", "call", "teardown")
_WORKER_COUNT = "PYTEST_XDIST_WORKER"
_CASE_OUTCOMES = {"error": "error", "crashed": "interrupted", "skipped": "skipped"}
"""How a case ended whose test had this outcome; all others are completed."""

_PASSED = ("passed", "xfailed", "xpassed")
_OWN = ("event", "stage", "case_id", "test", "test_outcome", "outcome", "passed", "reason", "duration_s", "benchmark")
_OWN_FIELDS = frozenset([*_OWN, "suite", "run_id", "run_instance_id", "worker", *(f"{when}_s" for when in _PHASES)])


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options `--calyx-root`, `--calyx-run-id` and `--calyx-redact`."""
    group = parser.getgroup("calyx", "calyx-logging")
    group.addoption(
        "--calyx-root", metavar="FOLDER", help="the folder with runtime/node_id.txt; default: found as by the handler"
    )
    group.addoption("--calyx-run-id", metavar="ID", help="the events' run_id; default: pytest")
    group.addoption("--calyx-redact", action="store_true", help="remove secrets (calyx_logging.redact)")


def pytest_configure(config: pytest.Config) -> None:
    """Create the handler; without a node id the session does not start."""
    try:
        check_run_name("--calyx-run-id", config.getoption("--calyx-run-id") or "pytest")
        handler = _Handler(root=config.getoption("--calyx-root"), component="pytest", source="pytest")
        if config.getoption("--calyx-redact"):
            handler.setFormatter(EventFormatter(processors=["calyx_logging.redact.RedactSecrets"]))
    except CalyxError as error:
        raise pytest.UsageError(f"calyx_logging.pytest_plugin: {error}") from None
    config.pluginmanager.register(TestRecorder(handler, config), "calyx-test-recorder")


class _Handler(OutboxHandler):
    """An outbox handler without a background thread, because tests may count threads."""

    _in_background = False


class TestRecorder:
    """Turns pytest's reports into events.

    Args:
        handler: receives the events.
        config: the session's configuration.
    """

    __test__ = False

    def __init__(self, handler: OutboxHandler, config: pytest.Config) -> None:
        self._handler = handler
        self._fields = {
            "suite": config.rootpath.name,
            "run_id": config.getoption("--calyx-run-id") or "pytest",
            "run_instance_id": _instance(config),
        }
        if worker := os.environ.get(_WORKER_COUNT):
            self._fields["worker"] = worker
        self._reports: dict[str, dict[str, pytest.TestReport]] = {}
        self._taken: dict[tuple[str, str], int] = {}
        self._subtests_failed: set[str] = set()
        self._benchmarks: dict[str, dict[str, Any]] = {}
        self._uncollected = 0
        self._only_collects = bool(config.getoption("collectonly", default=False))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, None]:
        """Record the test's log records and, after its last phase, its outcome; runs in the test's process."""
        outcome = yield
        try:
            report = outcome.get_result()
            self._take_records(item, report.when)
            if report.when == "teardown":
                self._take_benchmark(item)
            if type(report) is pytest.TestReport:
                self._take_report(report)
        except Exception as error:  # reporting must not change a test's result
            say(f"test {item.nodeid} is not in the outbox: {type(error).__name__}: {error}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record a failed subtest and, in pytest-xdist's controller, a test whose worker died."""
        if report.when not in _PHASES:
            self._end_case(logging.ERROR, "test crashed its worker", report, "crashed", {"duration_s": report.duration})
        elif type(report) is not pytest.TestReport and report.failed and not hasattr(report, "node"):
            self._subtests_failed.add(report.nodeid)
            fields = {"stage": "subtest_failed", "test": report.nodeid, "case_id": report.nodeid}
            self._emit(logging.ERROR, "subtest failed", {**fields, "duration_s": report.duration, **_reason(report)})

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record a file whose tests could not be collected, from the main process only."""
        if report.failed and "worker" not in self._fields:
            self._uncollected += 1
            fields = {"stage": "collection_failed", "collected": report.nodeid, **_reason(report)}
            self._emit(logging.ERROR, "tests not collected", fields)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Give a pytest-xdist worker the session's run instance for its events."""
        node.workerinput["calyx_run_instance_id"] = self._fields["run_instance_id"]

    def pytest_sessionstart(self) -> None:
        """Record the session's start, from the main process only."""
        if self._is_session:
            self._emit(logging.INFO, "session started", {"stage": "run_started"})

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Record the session's end, from the main process only."""
        if self._is_session:
            status = self._exit_status(session, int(exitstatus))
            level = {"normal": logging.INFO, "incomplete": logging.WARNING}.get(status, logging.ERROR)
            counts = {"pytest_exit_code": int(exitstatus), "tests": session.testscollected}
            self._emit(level, "session ended", {"stage": "run_ended", "exit_status": status, **counts})

    def pytest_unconfigure(self) -> None:
        """Seal the chunks written."""
        self._handler.close()

    # -------------------------------------------------------------- inside

    @property
    def _is_session(self) -> bool:
        """Whether this process is the one that speaks for the session, and the session runs tests."""
        return "worker" not in self._fields and not self._only_collects

    def _exit_status(self, session: pytest.Session, code: int) -> str:
        """Say how the run ended; that tests failed is said by its cases."""
        if code == pytest.ExitCode.INTERRUPTED and not self._uncollected:
            return "incomplete"
        failed = session.testsfailed > self._uncollected
        normal = code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        return "normal" if normal or (code == pytest.ExitCode.TESTS_FAILED and failed) else "error"

    def _take_records(self, item: pytest.Item, when: str) -> None:
        from _pytest.logging import caplog_records_key

        records = item.stash.get(caplog_records_key, {}).get(when, [])
        before = self._taken.get((item.nodeid, when), 0)  # each subtest reports the same phase again
        self._taken[item.nodeid, when] = len(records)
        own = {**self._fields, "case_id": item.nodeid, "test": item.nodeid, "when": when}
        for record in records[before:]:
            copy = logging.makeLogRecord({**own, **record.__dict__})
            self._handler.handle(copy)

    def _take_benchmark(self, item: pytest.Item) -> None:
        try:
            if found := _benchmark_of(item):
                self._benchmarks[item.nodeid] = found
        except Exception as error:
            say(f"what test {item.nodeid} measured is not in the outbox: {type(error).__name__}: {error}")

    def _take_report(self, report: pytest.TestReport) -> None:
        phases = self._reports.setdefault(report.nodeid, {})
        phases[report.when] = report
        if report.when != "teardown":
            return
        del self._reports[report.nodeid]
        for when in _PHASES:
            self._taken.pop((report.nodeid, when), None)
        outcome, deciding = _outcome(phases)
        if outcome == "passed" and report.nodeid in self._subtests_failed:
            outcome = "failed"
        level = logging.ERROR if outcome in ("failed", "error") else logging.INFO
        durations = {f"{when}_s": round(one.duration, 6) for when, one in phases.items()}
        total = round(sum(one.duration for one in phases.values()), 6)
        more = self._benchmarks.pop(report.nodeid, {})
        self._end_case(level, f"test {outcome}", deciding, outcome, {"duration_s": total, **durations, **more})

    def _end_case(
        self, level: int, message: str, report: pytest.TestReport, outcome: str, fields: dict[str, Any]
    ) -> None:
        ended = {"stage": "case_ended", "case_id": report.nodeid, "test": report.nodeid, "test_outcome": outcome}
        case = {"outcome": _CASE_OUTCOMES.get(outcome, "completed")}
        passed = {} if outcome == "skipped" else {"passed": outcome in _PASSED}
        self._emit(level, message, {**ended, **case, **passed, **fields, **_reason(report)})

    def _emit(self, level: int, message: str, fields: dict[str, Any]) -> None:
        event = StructlogMessage({"event": message, **self._fields, **fields})
        self._handler.handle(logging.LogRecord(LOGGER, level, "", 0, event, (), None))


def _reason(report: pytest.TestReport | pytest.CollectReport) -> dict[str, str]:
    """Return why a test failed or was skipped, as a field; empty if it passed."""
    if report.longrepr is None or report.outcome == "passed":
        return {}
    if report.skipped and isinstance(report.longrepr, tuple):
        return {"reason": report.longrepr[2]}
    return {"reason": str(report.longrepr)}


def _benchmark_of(item: pytest.Item) -> dict[str, Any]:
    """Return what pytest-benchmark measured in a test: its statistics in `benchmark`, its `extra_info` as fields."""
    module = sys.modules.get("pytest_benchmark.fixture")
    fixtures = (getattr(item, "funcargs", None) or {}).values() if module is not None else ()
    found: dict[str, Any] = {}
    for fixture in fixtures:
        if type(fixture) is not getattr(module, "BenchmarkFixture", None):
            continue
        extra = {str(name): value for name, value in fixture.extra_info.items()}
        found.update({f"{name}_" if name in _OWN_FIELDS else name: value for name, value in extra.items()})
        if fixture.stats:  # not where it measures nothing, as with pytest-xdist
            measured = {**fixture.stats.stats.as_dict(), "iterations": fixture.stats.iterations}
            found["benchmark"] = {"group": fixture.group, **measured}
    return found


def _outcome(phases: dict[str, pytest.TestReport]) -> tuple[str, pytest.TestReport]:
    """Return the test's outcome as in pytest's summary, and the report that decides it."""
    for when in ("setup", "teardown"):
        if when in phases and phases[when].failed:
            return "error", phases[when]
    deciding = phases.get("call") or next(iter(phases.values()))
    if hasattr(deciding, "wasxfail"):
        return ("xfailed" if deciding.skipped else "xpassed"), deciding
    return deciding.outcome, deciding


def _instance(config: pytest.Config) -> str:
    given = getattr(config, "workerinput", {}).get("calyx_run_instance_id")
    return str(given) if given else new_instance_id()
