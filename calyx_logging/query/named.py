"""Ask the named queries: views in a certain order, and `around`, `compare` and `case`; the same on every engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calyx_logging.errors import ConfigError
from calyx_logging.format.completeness import Verdict
from calyx_logging.query._compare import case, compare, is_of_runs
from calyx_logging.query.sql import Rows, run_sql

__all__ = ["NAMES", "named", "run_named"]

_ORDER = {
    "nodes": "node_id",
    "runs": "started, run_id, run_instance_id",
    "cases": "node_id, suite, run_id, run_instance_id, started, case_id",
    "suites": "suite",
    "suites-by-node": "suite, node_id",
    "models": "suite, pass_rate DESC, mean_score DESC, model",
    "leaderboard": "suite, value DESC, model",
    "leaderboard-by-node": "suite, model, node_id",
    "changes": "suite, run_id, node_id",
    "events-by-minute": "node_id, minute",
    "events-by-hour": "node_id, hour",
    "events-by-day": "node_id, day",
    "last-errors": "node_id",
    "errors-by-kind": "events DESC, exception_type, logger",
    "files": "node_id, run_id, run_instance_id, case_id, name, ts",
    "gaps": "node_id, ts",
    "processes": "node_id, ts",
    "recoveries": "node_id, ts",
}
_WITH_ARGUMENTS = {"around": "--event-id ID", "compare": "--run ONE --run OTHER", "case": "--case ID"}
NAMES = (*_ORDER, *_WITH_ARGUMENTS)
"""All named queries."""


def named(
    backend: Any,
    name: str,
    *,
    event_id: str | None = None,
    count: int = 5,
    runs: Sequence[str] = (),
    case_id: str | None = None,
    verdicts: Mapping[str, Verdict] | None = None,
) -> Any:
    """The Ibis expression of a named query; `.to_pandas()`, `.to_pyarrow()` and so on run it.

    Args:
        backend: of `connect`.
        name: of `NAMES`.
        event_id: for `around`: of the event.
        count: for `around`: so many events before it, and after it.
        runs: for `compare`: ids of runs, or of their instances; the others are held against the first.
        case_id: for `case`: of the case.
        verdicts: for `nodes`: adds the columns `verdict` and `lost` (`calyx_logging.query.verdicts.verdicts_at`).

    Raises:
        ConfigError: there is no query of that name, or no such run; an argument is missing.
    """
    sql = _sql_of(backend, name, _Arguments(event_id, count, tuple(runs), case_id, verdicts or {}))
    if name in _WITH_ARGUMENTS or verdicts:
        return backend.sql(sql)
    import ibis

    keys = [ibis.desc(key.removesuffix(" DESC")) if key.endswith(" DESC") else key for key in _ORDER[name].split(", ")]
    return backend.table(name.replace("-", "_")).order_by(keys)


def run_named(
    backend: Any,
    name: str,
    *,
    event_id: str | None = None,
    count: int = 5,
    runs: Sequence[str] = (),
    case_id: str | None = None,
    verdicts: Mapping[str, Verdict] | None = None,
) -> Rows:
    """The rows of a named query; the arguments are those of `named`, and the backend also one of `run_sql`.

    Raises:
        ConfigError: as for `named`; or the engine refuses it.
    """
    return run_sql(backend, _sql_of(backend, name, _Arguments(event_id, count, tuple(runs), case_id, verdicts or {})))


@dataclass(frozen=True)
class _Arguments:
    """Arguments of a named query."""

    event_id: str | None
    count: int
    runs: tuple[str, ...]
    case_id: str | None
    verdicts: Mapping[str, Verdict]

    def queries(self) -> set[str]:
        """Return the queries whose arguments are given."""
        given = {"around": self.event_id is not None, "compare": bool(self.runs), "case": self.case_id is not None}
        return {name for name, is_given in given.items() if is_given}


def _sql_of(backend: Any, name: str, given: _Arguments) -> str:
    if name not in NAMES:
        raise ConfigError(f"there is no query {name!r}", hint=f"there are {', '.join(NAMES)}")
    for wants in sorted(given.queries() ^ ({name} & _WITH_ARGUMENTS.keys())):
        example = f"--named {wants} {_WITH_ARGUMENTS[wants]}"
        raise ConfigError(f"the query {wants}, and no other, needs {example.split()[2]}", hint=example)
    if given.event_id is not None:
        return _around(given.event_id, given.count)
    if given.case_id is not None:
        return case(_text(given.case_id))
    if given.runs:
        _find_runs(backend, given.runs)
        return compare([_text(one) for one in given.runs])
    view, order = name.replace("-", "_"), ", ".join(f"{key} NULLS LAST" for key in _ORDER[name].split(", "))
    if name == "nodes" and given.verdicts:
        return f"{_with_verdicts(given.verdicts)} ORDER BY {order}"
    return f"SELECT * FROM {view} ORDER BY {order}"


def _find_runs(backend: Any, wanted: Sequence[str]) -> None:
    """Check that there is a run with each of these ids.

    Raises:
        ConfigError: there is none with one of them, or there are fewer than two in all.
    """
    condition = is_of_runs([_text(one) for one in wanted])
    rows = run_sql(backend, f"SELECT DISTINCT run_id, run_instance_id FROM runs WHERE {condition}").to_pylist()
    there = {name for row in rows for name in row.values()}
    for one in wanted:
        if one not in there:
            raise ConfigError(
                f"there is no run {one!r}", hint="name a run_id or a run_instance_id, as --named runs has it"
            )
    if len(rows) < 2:
        raise ConfigError("there is one run with that id", hint=f"name another, too: {_WITH_ARGUMENTS['compare']}")


def _text(value: str) -> str:
    escaped = value.replace("'", "''").replace("\\", "' || chr(92) || '")  # a backslash is special to Spark alone
    return f"('{escaped}')"


def _with_verdicts(verdicts: Mapping[str, Verdict]) -> str:
    """Put the verdict after the node's id."""
    rows = ", ".join(f"({_text(node_id)}, {_text(one.kind)}, {one.lost})" for node_id, one in verdicts.items())
    return f"""
SELECT node_id, verdict, CAST(lost AS BIGINT) AS lost, events, errors, warnings, runs, writers, first_ts, last_ts
FROM nodes LEFT JOIN (SELECT * FROM (VALUES {rows}) AS said (whose, verdict, lost)) AS said ON node_id = whose"""


_SHOWN = (
    "node_id, ts, writer, seq, level, logger, message, event_id, source, run_id, case_id, chunk, line, process, place"
)


def _around(event_id: str, count: int) -> str:
    """The events with an id, and what their process logged before and after; without `seq`, the lines of the chunk.

    Lines of one writer keep the order of their `seq`; those of a process's writers are put together by time.
    """
    is_it = f"event_id = {_text(event_id)}"
    return f"""
WITH joined AS (
    SELECT e.*, coalesce(s.process, e.writer) AS process
    FROM logged AS e LEFT JOIN starts AS s ON e.node_id = s.node_id AND e.writer = s.writer
), found AS (
    SELECT node_id, process, chunk, line, seq FROM joined WHERE {is_it}
), moments AS (
    SELECT *, max(ts) OVER (PARTITION BY node_id, writer ORDER BY seq) AS moment FROM joined AS j
    WHERE seq IS NOT NULL
        AND EXISTS (SELECT 1 FROM found WHERE found.node_id = j.node_id AND found.process = j.process)
), placed AS (
    SELECT *, row_number() OVER (PARTITION BY node_id, process ORDER BY moment NULLS LAST, writer, seq) AS place
    FROM moments
), its AS (
    SELECT node_id, process, place FROM placed WHERE {is_it}
), near AS (
    SELECT {", ".join(f"p.{name}" for name in _SHOWN.split(", "))} FROM placed AS p
    JOIN its ON p.node_id = its.node_id AND p.process = its.process
    WHERE p.place - its.place BETWEEN -{count} AND {count}
    UNION
    SELECT {", ".join(f"j.{name}" for name in _SHOWN.split(", ")[:-1])}, j.line FROM joined AS j
    JOIN found ON j.node_id = found.node_id AND j.chunk = found.chunk
    WHERE found.seq IS NULL AND j.line - found.line BETWEEN -{count} AND {count}
)
SELECT {_SHOWN.removesuffix(", process, place")} FROM near
ORDER BY node_id, process NULLS LAST, place, chunk, line"""
