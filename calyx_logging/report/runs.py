"""Ask about some runs: their names in links, their cases, the processes that logged their events."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from calyx_logging.query.named import named
from calyx_logging.query.result_views import RUN
from calyx_logging.query.sql import clear_errors, run_sql

__all__ = ["MAX_EVENTS", "can_be_asked", "cases_of", "of_some_runs", "processes_of", "rows_of", "run_key"]

MAX_EVENTS = 5000
"""Maximum number of events of one run, and of errors."""

MAX_CASES = 5000
"""Maximum number of cases of one run."""

MAX_PROCESSES = 20
"""Maximum number of processes that are named of one run."""


def run_key(row: dict[str, Any]) -> str:
    """Return a run's name in links: 16 hex digits derived from the columns that identify it."""
    text = json.dumps([row[name] for name in RUN])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def of_some_runs(table: Any, chosen: list[dict[str, Any]]) -> Any:
    """Preselect the rows of chosen runs, and few others, quickly; `run_key` then decides exactly."""
    wanted = is_one_of(table.node_id, [row["node_id"] for row in chosen])
    wanted &= is_one_of(table.run_id, [row["run_id"] for row in chosen])
    return wanted & is_one_of(table.run_instance_id, [row["run_instance_id"] for row in chosen])


def is_one_of(column: Any, values: Sequence[str | None]) -> Any:
    """Test whether a column has one of these values; always true if one cannot be put into a query."""
    import ibis

    if any(value is not None and not can_be_asked(value) for value in values):
        return ibis.literal(True)
    found = column.isin([value for value in values if value is not None])
    return found | column.isnull() if None in values else found


def can_be_asked(text: str) -> bool:
    """Tell whether a text can be put into a query: not with NUL, and only valid UTF-8."""
    return "\0" not in text and text.encode("utf-8", "replace").decode() == text


def rows_of(backend: Any, expression: Any) -> list[dict[str, Any]]:
    """Return the rows of an expression.

    Raises:
        ConfigError: the engine refuses it.
    """
    with clear_errors():
        sql = backend.compile(expression)
    return run_sql(backend, sql).to_pylist()


def cases_of(
    backend: Any, chosen: list[dict[str, Any]], first: int = 0, *, case_id: str | None = None
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, int]]:
    """Query the cases of runs.

    Args:
        backend: of `query.connect`.
        chosen: the runs, rows of `runs`.
        first: how many of each run's cases are passed over.
        case_id: only this case.

    Returns:
        By `run_key`: at most `MAX_CASES` rows of `cases`, in the order of their beginning; and how many there are.
    """
    import ibis

    if not chosen:
        return {}, {}
    cases = named(backend, "cases")
    cases = cases.filter(of_some_runs(cases, chosen))
    if case_id is not None:
        cases = cases.filter(cases.case_id == case_id if can_be_asked(case_id) else ibis.literal(False))
    rank = ibis.row_number().over(group_by=list(RUN), order_by=["started", "case_id"])
    ranked = cases.mutate(rank=rank, in_all=cases.case_id.count().over(group_by=list(RUN)))
    wanted = ranked.filter((ranked.rank >= first) & (ranked.rank < first + MAX_CASES))
    return _by_run(rows_of(backend, wanted.order_by([*RUN, "rank"])), chosen)


def processes_of(backend: Any, chosen: list[dict[str, Any]]) -> tuple[dict[str, list[dict[str, Any]]], dict[str, int]]:
    """Query the processes that logged events of runs, at most `MAX_PROCESSES` of each, as `cases_of` does."""
    import ibis

    if not chosen:
        return {}, {}
    events, starts, processes = (backend.table(name) for name in ("events", "starts", "processes"))
    wrote = events.filter(of_some_runs(events, chosen)).select(*RUN, "writer").distinct()
    of_runs = wrote.join(starts, ["node_id", "writer"]).select(*RUN, "process").distinct()
    joined = of_runs.join(processes, ["node_id", "process"])
    rank = ibis.row_number().over(group_by=list(RUN), order_by=["ts", "process"])
    ranked = joined.mutate(rank=rank, in_all=joined.process.count().over(group_by=list(RUN)))
    rows = rows_of(backend, ranked.filter(ranked.rank < MAX_PROCESSES).order_by([*RUN, "rank"]))
    return _by_run(rows, chosen)


def _by_run(
    rows: list[dict[str, Any]], chosen: list[dict[str, Any]]
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, int]]:
    """Put rows with `rank` and `in_all` under the keys of their runs, and count."""
    wanted = {run_key(row) for row in chosen}
    found, counts = dict[str, list[dict[str, Any]]](), dict[str, int]()
    for row in rows:
        key = run_key(row)
        if key in wanted:
            del row["rank"]
            counts[key] = row.pop("in_all")
            found.setdefault(key, []).append(row)
    return found, counts
