"""benchmark_run: a run and its cases as context managers, for new harnesses.

    with benchmark_run(suite="arithmetic", run_id="r-42", cases_expected=2) as run:
        with run.case("2+2") as case:
            case.note(score=1.0, passed=True)

Every record logged during the block has `run_id`, `suite` and `run_instance_id`, and inside a case also `case_id`. The
thread and its tasks get them from context variables; threads started meanwhile and child processes get them from the
process's fields (`calyx_logging.events.context`). The run leaves an envelope and a receipt among the results.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from calyx_logging.core import files
from calyx_logging.core.times import utc_text
from calyx_logging.errors import ConfigError, StorageError, say
from calyx_logging.events import context
from calyx_logging.events.formatter import EventFormatter, StructlogMessage
from calyx_logging.events.processors import NamedProcessor, is_drop, run_all
from calyx_logging.events.tracebacks import plain_text
from calyx_logging.events.values import lower
from calyx_logging.format import run_paths
from calyx_logging.format.run_envelope import EXIT_STATUSES, FileDigest, RunEnvelope
from calyx_logging.format.run_paths import new_instance_id
from calyx_logging.handlers.base import check_root
from calyx_logging.handlers.execution_log import ExecutionLogHandler
from calyx_logging.harness._attach import MAX_BYTES, attach
from calyx_logging.harness._bound import bind, bound_case, unbind
from calyx_logging.harness._earlier import Earlier, case_id_of, earlier_instances
from calyx_logging.harness._tally import Tally
from calyx_logging.harness.doctor import goes_into_a_queue, outbox_handlers, outbox_handlers_for
from calyx_logging.node import Node, find_root

__all__ = ["BenchmarkRun", "Case", "benchmark_run"]

_C = TypeVar("_C")

_OWN = ("event", "stage", "case_id", "started_at", "outcome", "duration_s", "error")
"""The library's own fields in a case's event and receipt."""


class Case:
    """One case of a run in progress.

    Attributes:
        case_id: the case's id.
        fields: the fields added by `note`, for the closing event and the receipt.
    """

    def __init__(self, case_id: str) -> None:
        self.case_id = case_id
        self.fields: dict[str, Any] = {}

    def note(self, /, **fields: Any) -> None:
        """Add fields to the case's result.

        `score` and `passed` are the case's result, `model` is whose it is; queries and the report read them. The names
        `event`, `stage`, `case_id`, `started_at`, `outcome`, `duration_s` and `error` get a `_` appended.
        """
        self.fields.update({f"{name}_" if name in _OWN else name: value for name, value in fields.items()})


class BenchmarkRun:
    """A benchmark run; see `benchmark_run`, which makes it.

    Attributes:
        suite, run_id, run_instance_id, node_id: identify the run; `node_id` is None if the root has none.
        results_dir: this node's results of the suite.
        envelope_path, receipt_path: the run's files in that folder.
        fields: the fields on every record of the run.
        environment: environment variables for child processes started with an environment of their own.
        continues: the instances before it that it resumes, the first one first.
    """

    def __init__(
        self,
        root: Path,
        suite: str,
        run_id: str,
        run_instance_id: str,
        *,
        tally: Tally,
        execution_log: bool,
        logger: logging.Logger,
        resume: bool = False,
    ) -> None:
        self.suite, self.run_id, self.run_instance_id = suite, run_id, run_instance_id
        self.node_id = run_paths.node_id_of(root / "runtime")
        self.results_dir = run_paths.results_dir(run_paths.benchmarks_of(root), suite, self.node_id)
        self.envelope_path = self.results_dir / run_paths.run_file(run_id, run_instance_id, run_paths.ENVELOPE_SUFFIX)
        self.receipt_path = self.results_dir / run_paths.run_file(run_id, run_instance_id, run_paths.RECEIPT_SUFFIX)
        outbox = None if self.node_id is None else Node(root, self.node_id).outbox
        earlier = earlier_instances(self.results_dir, outbox, suite, run_id) if resume else Earlier()
        self.continues = tuple(earlier.instances)
        self._completed, self._tally = earlier.completed, tally
        tally.before = len(earlier.completed)
        self.fields = {"suite": suite, "run_id": run_id, context.RUN_INSTANCE: run_instance_id}
        if self.continues:  # one run, in queries and in the report
            self.fields |= {context.RUN_INSTANCE: self.continues[0], "resumed_as": run_instance_id}
        self.environment = {context.CHILD_VARIABLE: json.dumps(self.fields)}
        self._root = root
        self._logger = logger
        self._has_log = execution_log
        self._torn = False
        self._exit_status: str | None = None
        self._began = 0.0
        self._envelope: RunEnvelope | None = None
        self._receipt: files.AppendFile | None = None
        self._left: ExitStack | None = None
        self._block = context.Block()

    def __repr__(self) -> str:
        return f"<BenchmarkRun {self.suite} {self.run_id} {self.run_instance_id}>"

    # -------------------------------------------------------------- as a context

    def __enter__(self) -> Self:
        if self._envelope is not None:
            raise ConfigError(f"run {self.run_id!r} has already begun", hint="call benchmark_run again for another run")
        with ExitStack() as undo:
            self._begin_files(undo)
            if self._has_log:
                self._attach_log(undo)
            context.begin(self.fields)
            undo.callback(context.end, self.fields)
            undo.callback(unbind, bind(self.fields, self._block), self.fields, self._block)
            self._began = time.monotonic()
            declared = {} if self._tally.pass_at is None else {"pass_at": self._tally.pass_at}
            expected = self._tally.expected
            self._log(logging.INFO, "run started", None, stage="run_started", cases_expected=expected, **declared)
            self._left = undo.pop_all()
        heard = outbox_handlers_for(self._logger, logging.INFO) or goes_into_a_queue(self._logger)
        if self.node_id is not None and not heard:
            say(
                f"no OutboxHandler receives what logger {self._logger.name!r} logs of run {self.run_id!r}; "
                "calyx-telemetry doctor YOUR_PROGRAM.py finds out why"
            )
        return self

    def _begin_files(self, undo: ExitStack) -> None:
        try:
            files.make_dirs(self.results_dir)
            if self.receipt_path.exists():
                raise ConfigError(
                    f"run {self.run_id!r} has an instance {self.run_instance_id!r} already",
                    path=self.receipt_path,
                    hint="leave run_instance_id out, or give a new one",
                )
            self._receipt = files.AppendFile(self.receipt_path)
        except OSError as error:
            raise StorageError.of(error, "begin the run", self.receipt_path, "make the folder writable") from error
        undo.callback(self._receipt.close)
        self._envelope = RunEnvelope.start(
            self.suite,
            self.run_id,
            self.run_instance_id,
            node_id=self.node_id,
            cases_expected=self._tally.expected,
            pass_at=self._tally.pass_at,
            continues=self.continues,
        )
        self._envelope.write(self.envelope_path)

    def _attach_log(self, undo: ExitStack) -> None:
        """Attach the execution log to the root logger and to the run's own logger."""
        handler = ExecutionLogHandler(self.run_id, self.run_instance_id, root=self._root)
        handler.setFormatter(EventFormatter(processors=[processor for _, processor in _processors_in_force()]))
        undo.callback(handler.close)
        for logger in {logging.getLogger(), self._logger}:
            logger.addHandler(handler)  # a record that reaches both is written once
            undo.callback(logger.removeHandler, handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        status = self._exit_status or self._tally.status_after(error)
        level = logging.INFO if status == "normal" else logging.WARNING if status != "error" else logging.ERROR
        counts = {"cases_expected": self._tally.expected, "cases_completed": self._tally.completed}
        if self._tally.judged:
            counts |= {"cases_judged": self._tally.judged, "cases_passed": self._tally.passed}
        seconds = round(time.monotonic() - self._began, 6)
        self._log(level, "run ended", error, stage="run_ended", exit_status=status, duration_s=seconds, **counts)
        assert self._left is not None
        assert self._receipt is not None
        with suppress(OSError):  # so that the hash is of what is on disk
            self._receipt.sync()
        self._left.close()
        try:
            self._end_envelope(status, error)
        except (StorageError, OSError) as failure:
            say(f"the end of run {self.run_id!r} is not in its envelope: {failure}")
        if self.node_id is not None and (handlers := outbox_handlers_for(self._logger, logging.INFO)):
            for path in (self.envelope_path, self.receipt_path):
                attach(handlers, path, None, self.fields)
        return False

    def _end_envelope(self, status: str, error: BaseException | None) -> None:
        assert self._envelope is not None
        log = run_paths.execution_log(self._root, self.run_id, self.run_instance_id)
        reason = None if error is None else self._cleaned({"error": _text_of(error)}).get("error")
        ended = self._envelope.end(
            status,
            cases_completed=self._tally.completed,
            cases_judged=self._tally.judged,
            cases_passed=self._tally.passed,
            execution_log=FileDigest.of(log, self._root) if log.is_file() else None,
            receipts=[FileDigest.of(self.receipt_path, self._root)],
            error=None if reason is None else plain_text(reason),
        )
        ended.write(self.envelope_path)

    # -------------------------------------------------------------- in the block

    @contextmanager
    def case(self, case_id: str, /, **fields: Any) -> Iterator[Case]:
        """Run one case: its records get `case_id`, and at its end its outcome is logged and added to the receipt.

        The outcome is `completed` or, if an exception leaves the block, `timeout` (a TimeoutError), `interrupted`
        (Ctrl-C and the like) or `error`; the exception propagates. Cases of one run may run in several threads or
        tasks.

        Args:
            case_id: the case's id.
            **fields: fields of the case's result; `Case.note` adds more.

        Raises:
            ConfigError: the run has not begun, or has ended.
        """
        if self._receipt is None or self._receipt.closed:
            raise ConfigError(f"case {case_id!r} is outside its run", hint="use it in the block of benchmark_run")
        case = Case(case_id)
        case.note(**fields)
        started_at, began = utc_text(time.time()), time.monotonic()
        block = context.Block()
        bound = bind(self.fields, self._block) | bind({"case_id": case_id}, block)
        outcome, failure = "completed", None
        try:
            yield case
        except BaseException as error:
            failure = error
            outcome = "timeout" if isinstance(error, TimeoutError) else "error"
            if not isinstance(error, Exception):
                outcome = "interrupted"
            raise
        finally:
            result = {"outcome": outcome, "duration_s": round(time.monotonic() - began, 6), **case.fields}
            result |= self._tally.verdict(outcome, case.fields)
            level = logging.INFO if failure is None else logging.ERROR
            self._log(level, f"case {outcome}", failure, stage="case_ended", case_id=case_id, **result)
            unbind(bound, ("case_id",), block)
            case_entry = {"case_id": case_id, "started_at": started_at, **result}
            self._take_down(outcome, case_entry | ({} if failure is None else {"error": _text_of(failure)}))

    def attach(self, path: str | os.PathLike[str], name: str | None = None, *, max_bytes: int = MAX_BYTES) -> bool:
        """Send a copy of a file along with the run's events, such as a log or predictions.

        The compressed bytes are kept in the outbox like events; `calyx-telemetry files` writes the file again. Called
        inside a case, it records the case. Processors do not see the bytes. Envelope and receipt follow at the end.

        Args:
            path: the file.
            name: the name to record; the file's own by default.
            max_bytes: larger files are not attached.

        Returns:
            Whether it was attached. If not, standard error and the outbox say why, and the run goes on.

        Raises:
            ConfigError: the name cannot be a file's name everywhere, or the limit is no number of bytes.
        """
        case_id = bound_case()
        fields = self.fields if case_id is None else {**self.fields, "case_id": case_id}
        return attach(outbox_handlers_for(self._logger, logging.INFO), Path(path), name, fields, max_bytes)

    def completed(self, case_id: str) -> bool:
        """Return whether a case was completed in this instance or, with `resume`, in an earlier one on this node."""
        return case_id in self._completed

    def remaining(self, cases: Iterable[_C]) -> list[_C]:
        """Return the cases that are not completed yet, in order: ids, or things that have an `id` or a `case_id`.

        Raises:
            ConfigError: a case has neither.
        """
        return [case for case in cases if not self.completed(case_id_of(case))]

    def end_as(self, exit_status: str) -> None:
        """Set the run's exit status, which is otherwise derived from the exception and the cases.

        Raises:
            ConfigError: the exit status is unknown.
        """
        if exit_status not in EXIT_STATUSES:
            raise ConfigError(f"exit status {exit_status!r}: give one of {', '.join(map(repr, EXIT_STATUSES))}")
        self._exit_status = exit_status

    # -------------------------------------------------------------- inside

    def _take_down(self, outcome: str, case_entry: dict[str, Any]) -> None:
        line = json.dumps(lower(self._cleaned(case_entry))[0], ensure_ascii=True).encode() + b"\n"
        self._tally.take(outcome, case_entry.get("passed"))
        if outcome == "completed":
            self._completed.add(case_entry["case_id"])
        try:
            assert self._receipt is not None
            data = b"\n" + line if self._torn else line  # keep a partial line on a line of its own
            self._torn = self._receipt.write(data) != len(data)
            if self._torn:
                raise OSError(errno.ENOSPC, "the disk took a part of it")
        except OSError as error:
            say(f"case {case_entry['case_id']!r} is not in {self.receipt_path}: {error}")

    def _cleaned(self, fields: dict[str, Any]) -> Mapping[str, Any]:
        """Run the outbox's processors over fields, so that the run's files do not hold what these remove."""
        try:
            return run_all(_processors_in_force(), self._logger, "info", dict(fields))
        except BaseException as error:
            if is_drop(error):
                return {name: fields[name] for name in ("case_id", "outcome") if name in fields}
            raise

    def _log(self, level: int, message: str, error: BaseException | None, /, **fields: Any) -> None:
        self._logger.log(level, StructlogMessage({"event": message, **fields}), exc_info=error)


def benchmark_run(
    *,
    suite: str,
    run_id: str,
    run_instance_id: str | None = None,
    cases_expected: int | None = None,
    pass_at: float | None = None,
    root: str | Path | None = None,
    execution_log: bool = False,
    logger: str | logging.Logger = "benchmark",
    resume: bool = False,
) -> BenchmarkRun:
    """Make a run, as a context manager for `with`.

    At the end of the block its exit status is `normal`; `incomplete` if fewer cases ended than expected, or on Ctrl-C;
    `timeout` if a TimeoutError leaves the block; `error` for any other exception. Exceptions propagate.

    Args:
        suite: the suite's name; part of the results' path.
        run_id: the id of this configuration.
        run_instance_id: the id of this execution; new by default.
        cases_expected: the number of cases that should end, those of earlier instances included.
        pass_at: the least `score` with which a completed case passes; it is noted as `passed`, unless the harness notes
            that itself. Without either, a case has completed, and nobody says that it passed.
        root: the folder with `runtime`; default as in `OutboxHandler`. A root given here need not have a node id.
        execution_log: whether to write an execution log (`ExecutionLogHandler`) of all records that reach the root
            logger during the run.
        logger: the logger for the run's own events.
        resume: continue earlier instances of this run on this node, whatever ended them: `BenchmarkRun.remaining` and
            `completed` tell what is left, and queries and the report show one run. Its events have the first instance's
            `run_instance_id`, and its own as `resumed_as`. Without earlier instances it is a run like any other.

    Raises:
        ConfigError: an id may not be part of a file name, the instance is not new, or an argument is wrong.
        NodeError: there is no root.
        StorageError: the results folder cannot be written.
    """
    if not isinstance(logger, (str, logging.Logger)):
        raise ConfigError(f"logger is {logger!r}: give a logger, or its name")
    check_root(root)
    if not isinstance(resume, bool):
        raise ConfigError(f"resume is {resume!r}: give true or false")
    return BenchmarkRun(
        find_root(root),
        suite,
        run_paths.check_run_name("run_id", run_id),
        run_paths.check_run_name("run_instance_id", new_instance_id() if run_instance_id is None else run_instance_id),
        tally=Tally(cases_expected, pass_at),
        execution_log=execution_log,
        logger=logging.getLogger(logger) if isinstance(logger, str) else logger,
        resume=resume,
    )


def _processors_in_force() -> list[NamedProcessor]:
    """Return the processors of all OutboxHandlers of the process, each once."""
    found = [named for handler in outbox_handlers() for named in handler.event_formatter.processors]
    return list({id(processor): (name, processor) for name, processor in found}.values())


def _text_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {plain_text(error)}"
