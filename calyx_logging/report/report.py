"""Make the report: one self-contained HTML page, from named queries and the condition of nodes.

Invariants: all content of events is shown as text (templates escape, scripts make text nodes only), and the page's
policy lets nothing run but its own two scripts, and nothing be fetched. What there is no room for is counted on the
page, with the query that shows it. Needs the extra `report`.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calyx_logging import __version__
from calyx_logging.core import files
from calyx_logging.errors import CalyxError, ConfigError, StorageError
from calyx_logging.format.run_envelope import RunEnvelope
from calyx_logging.format.run_paths import ENVELOPE_SUFFIX, benchmarks_of, is_run_name, results_dir, run_file
from calyx_logging.node import Node
from calyx_logging.query import connect
from calyx_logging.query.executors import Engine, Here
from calyx_logging.query.locations import chunks_at
from calyx_logging.report._rendering import cell, check_installed, clipped
from calyx_logging.report._view import PROCESS, Sheet
from calyx_logging.report.collect import Choice, Facts, ask_queries, look_for_missing
from calyx_logging.report.events import NOT_READ, Packed, excerpts_of, pack, packed_text, paths_of
from calyx_logging.report.runs import run_key
from calyx_logging.report.source import Source

__all__ = [
    "MAX_BYTES",
    "MEMORY",
    "TABLES",
    "Report",
    "case_rows",
    "envelopes_of",
    "errors_named",
    "make_report",
    "process_rows",
    "write_report",
]

MEMORY = "512MB"
"""Default memory limit of the database: with the processes beside it, less than 1 GiB in all."""

MAX_BYTES = 20_000_000
"""Default maximum size of the page."""

_EVENT_BYTES = 100
"""Bytes that a usual event takes in the page, packed."""

_ENVELOPE = 20_000
TABLES = ("ends", "runs", "cases")
"""Views from which most answers are made."""

_CASES, _DETAILS = 0.2, 0.1
"""Shares of the page that cases, and processes and envelopes of runs, may take."""

_LONGEST_ID = 4000

_CASE = (
    *("case_id", "started", "ended", "outcome", "passed", "attempts", "events", "errors"),
    *("duration_s", "score", "model", "exception_type"),
)


@dataclass(frozen=True)
class Report:
    """A page.

    Attributes:
        html: its bytes, UTF-8.
        facts: what it was made from.
        packed: the events in it.
    """

    html: bytes
    facts: Facts
    packed: list[Packed]


def make_report(
    source: Source,
    choice: Choice | None = None,
    *,
    engine: Engine | None = None,
    memory: str = MEMORY,
    max_bytes: int = MAX_BYTES,
    again: Sequence[str] = (),
    step: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.time,
) -> Report:
    """Make the page of an outbox, a bundle or a hub; nothing is written but in the temporary folder.

    Args:
        source: what it is made from.
        choice: which runs are shown whole; by default as many of the last ones as usually fit into the page.
        engine: does what there is to do; None for this process.
        memory: that the database takes at most.
        max_bytes: how large the page may become; events are left out, and counted, so that it does not.
        again: options of the command that makes this page again.
        step: is told what is being done.
        clock: seconds since the epoch.

    Raises:
        ConfigError: an extra is not installed, there is no such place, or run, or the page cannot be so small.
        CalyxError: something cannot be read.
    """
    check_installed()
    tell = step or (lambda text: None)
    warnings: list[str] = []
    tell("reading")
    engine = engine or Here()
    backend = connect(
        source.root, source.place, engine=engine, memory=memory, closed=True, warn=warnings.append, tables=TABLES
    )
    try:
        choice = replace(choice or Choice(), events=max_bytes // _EVENT_BYTES)
        facts = ask_queries(backend, source, choice, step=step, warnings=warnings)
        tell("looking for what is missing")
        look_for_missing(facts, engine)
        tell("fetching events")
        paths = paths_of(chunks_at(source.place, source.root)())
        excerpts = excerpts_of(backend, paths, facts.chosen, errors_named(facts))
    finally:
        backend.disconnect()
    gone = sum(excerpt.lines.count(NOT_READ) for excerpt in excerpts)
    if gone:
        facts.warnings.append(f"{gone} events cannot be shown: their chunks have gone since they were counted")
    tell("making the page")
    details = _details(facts, envelopes_of(source, facts.chosen), int(_DETAILS * max_bytes))
    sheet = Sheet(facts, clock(), __version__, _cases(facts, int(_CASES * max_bytes)), details, again)
    empty = [Packed(excerpt.key, "", 0, excerpt.count) for excerpt in excerpts]
    frame = len(sheet.render(empty)) + 200 * len(empty)
    if frame > max_bytes:
        hint = f"say {frame / 1e6 + 0.1:.1f}MB at least"
        raise ConfigError(f"the page is larger than {max_bytes / 1e6:g} MB without any event", hint=hint)
    packed = pack(excerpts, max_bytes - frame)
    return Report(sheet.render(packed), facts, packed)


def write_report(report: Report, path: Path) -> None:
    """Write the page to `path`, completely or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    hint = "name a file in a folder that is there and can be written, with --output"
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise StorageError("is no regular file", path=path, hint=hint)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")  # another report may be on its way to the same name
    try:
        try:
            files.write_new(temporary, [report.html])
            files.rename_over(temporary, path)
        finally:
            with suppress(OSError):
                files.remove(temporary)
    except OSError as error:
        raise StorageError.of(error, "write the report", path, hint) from error


def errors_named(facts: Facts) -> Iterator[str]:
    """Yield the ids of events that the tables of errors link to."""
    for name, column in (("last-errors", "event_id"), ("errors-by-kind", "last_event_id")):
        yield from (row[column] for row in facts.answers[name].rows if row[column] is not None)


def _with_score(case: dict[str, Any]) -> dict[str, Any]:
    """Show a score that is no number as the text that it is."""
    return case | {"score": case["score_text"]} if case["score"] is None else case


def case_rows(found: list[dict[str, Any]]) -> list[list[Any]]:
    """Return cases as the page's scripts take them."""
    return [[_case_id(case), *(cell(case[name]) for name in _CASE[1:])] for case in map(_with_score, found)]


def process_rows(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return processes as the page's scripts take them."""
    return [{name: cell(row[name]) for name in PROCESS} for row in found]


def _cases(facts: Facts, room: int) -> str:
    """Pack the chosen runs' cases into this many characters; if there are too many, long runs lose their last ones."""
    rows = {key: case_rows(found) for key, found in facts.cases.items() if found}
    most = max(map(len, rows.values()), default=0)
    while True:
        data = packed_text({key: found[:most] for key, found in rows.items()} if most else {})
        if len(data) <= room or not most:
            return data
        most = most * 2 // 3


def _case_id(case: dict[str, Any]) -> str:
    """Return a case's whole id, because its events are found by it."""
    return str(case["case_id"])[:_LONGEST_ID]


def _details(facts: Facts, envelopes: dict[str, str], room: int) -> str:
    """Pack the chosen runs' processes and envelopes into this many characters; if need be, without the oldest runs'."""
    keys = [run_key(row) for row in facts.chosen]
    while True:
        processes = {key: process_rows(facts.processes[key]) for key in keys if key in facts.processes}
        data = packed_text({"processes": processes, "envelopes": {k: envelopes[k] for k in keys if k in envelopes}})
        if len(data) <= room or not keys:
            return data
        keys = keys[: len(keys) * 2 // 3]


def envelopes_of(source: Source, chosen: list[dict[str, Any]]) -> dict[str, str]:
    """Read the envelopes of runs from the results folder, which exists only at their own node."""
    if source.place != "outbox":
        return {}
    root = Node.find(source.root).root
    found: dict[str, str] = {}
    for row in chosen:
        names = [row[name] for name in ("suite", "run_id", "run_instance_id")]
        if not all(is_run_name(name) for name in names):
            continue
        suite, run_id, instance = names
        try:
            folder = results_dir(benchmarks_of(root), suite, row["node_id"])
            path = folder / run_file(run_id, instance, ENVELOPE_SUFFIX)
            if path.is_file():
                text = RunEnvelope.read(path).to_bytes().decode()
                found[run_key(row)] = text if len(text) <= _ENVELOPE else "its envelope is too large to be shown"
        except (CalyxError, OSError, RecursionError) as error:
            found[run_key(row)] = f"its envelope cannot be read: {clipped(str(error))}"
    return found
