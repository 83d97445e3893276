"""pytest as a harness: each test's outcome, duration and captured log records become events.

Loaded on request only: `pytest -p calyx_logging.pytest_plugin`. Each test gives one event at its end (`stage`
`test_ended`), preceded by one for each log record that pytest captured in it, with `test` and `when`. The plugin reads
pytest's reports and changes neither logging's configuration nor any result. With pytest-xdist each worker writes its
own chunks, and the controller reports a worker that died.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator
from typing import Any

import pytest

from calyx_logging.errors import CalyxError, say
from calyx_logging.events.formatter import EventFormatter
from calyx_logging.format.run_paths import check_run_name, new_instance_id
from calyx_logging.handlers.outbox import OutboxHandler

__all__ = ["TestRecorder"]

LOGGER = "pytest"
_PHASES = ("setup", "call", "teardown")
_WORKER_COUNT = "PYTEST_XDIST_WORKER"


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

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, None]:
        """Record the test's log records and, after its last phase, its outcome; runs in the test's process."""
        outcome = yield
        try:
            report = outcome.get_result()
            self._take_records(item, report.when)
            if type(report) is pytest.TestReport:
                self._take_report(report)
        except Exception as error:  # reporting must not change a test's result
            say(f"test {item.nodeid} is not in the outbox: {type(error).__name__}: {error}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record a failed subtest and, in pytest-xdist's controller, a test whose worker died."""
        if report.when not in _PHASES:
            self._log(logging.ERROR, "test crashed its worker", report, outcome="crashed", duration_s=report.duration)
        elif type(report) is not pytest.TestReport and report.failed and not hasattr(report, "node"):
            self._subtests_failed.add(report.nodeid)
            self._log(logging.ERROR, "subtest failed", report, outcome="subtest failed", duration_s=report.duration)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Give a pytest-xdist worker the session's run instance for its events."""
        node.workerinput["calyx_run_instance_id"] = self._fields["run_instance_id"]

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Record the session's end, from the main process only."""
        if "worker" not in self._fields:
            message = "session ended"
            self._emit(
                logging.INFO,
                message,
                {"stage": "run_ended", "pytest_exit_code": int(exitstatus), "tests": session.testscollected},
            )

    def pytest_unconfigure(self) -> None:
        """Seal the chunks written."""
        self._handler.close()

    # -------------------------------------------------------------- inside

    def _take_records(self, item: pytest.Item, when: str) -> None:
        from _pytest.logging import caplog_records_key

        records = item.stash.get(caplog_records_key, {}).get(when, [])
        before = self._taken.get((item.nodeid, when), 0)  # each subtest reports the same phase again
        self._taken[item.nodeid, when] = len(records)
        for record in records[before:]:
            copy = logging.makeLogRecord({**self._fields, "test": item.nodeid, "when": when, **record.__dict__})
            self._handler.handle(copy)

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
        self._log(level, f"test {outcome}", deciding, outcome=outcome, duration_s=total, **durations)

    def _log(self, level: int, message: str, report: pytest.TestReport, **fields: Any) -> None:
        reason = str(report.longrepr) if report.longrepr is not None and report.outcome != "passed" else None
        if report.skipped and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2]
        more = {} if reason is None else {"reason": reason}
        self._emit(level, message, {"stage": "test_ended", "test": report.nodeid, **fields, **more})

    def _emit(self, level: int, message: str, fields: dict[str, Any]) -> None:
        record = logging.LogRecord(LOGGER, level, "", 0, message, (), None)
        record.__dict__.update({**self._fields, **fields})
        self._handler.handle(record)


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
