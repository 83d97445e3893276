"""Collect the content of a report: answers of named queries, the condition of nodes, and the runs shown whole.

Every number comes from a named query, or from `condition`; each list is bounded, and says how many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from calyx_logging.errors import CalyxError, ConfigError
from calyx_logging.format.run_paths import ENVELOPE_SUFFIX, RECEIPT_SUFFIX
from calyx_logging.hub.rejections import Refusal
from calyx_logging.query.executors import Engine
from calyx_logging.query.named import named
from calyx_logging.query.result_views import RUN
from calyx_logging.report.health import Condition, conditions_at, refused_at
from calyx_logging.report.runs import MAX_EVENTS, can_be_asked, cases_of, processes_of, rows_of
from calyx_logging.report.source import Source

__all__ = ["Answer", "Choice", "Facts", "ask_queries", "look_for_missing", "newest_first"]

MAX_NODES = 20_000
"""Maximum number of nodes that are queried."""

MAX_NODES_SHOWN = 300
"""Maximum number of nodes that are shown."""

MAX_RUNS = 5000
MAX_ROWS = 200
"""Maximum number of rows of every other list."""

MAX_RESULTS = 20_000
"""Maximum number of results of models, and of changes, that are looked at."""

MAX_WHOLE = 1000
"""Maximum number of runs that are shown whole."""

MAX_DAYS = 20_000
MAX_POINTS = 1500
"""Maximum number of points of a chart over time."""

_UNITS = (("minute", "events-by-minute", 60), ("hour", "events-by-hour", 3600), ("day", "events-by-day", 86400))


@dataclass(frozen=True)
class Answer:
    """Rows of a named query, as dicts, and how many it has in all."""

    name: str
    rows: list[dict[str, Any]]
    count: int

    @property
    def left_out(self) -> int:
        """Return how many rows were left out."""
        return self.count - len(self.rows)


@dataclass(frozen=True)
class Choice:
    """Choice of the runs that are shown whole: those with one of the ids, or else the last ones.

    Attributes:
        ids: of runs, or of their instances.
        last: how many of the newest; None for as many as `events` allows.
        events: maximum number of events of the chosen runs together, if neither of the others is given.
    """

    ids: tuple[str, ...] = ()
    last: int | None = None
    events: int = 100_000

    def newest_of(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the runs to show whole, of all runs, the newest first; at least one."""
        if self.last is not None:
            return rows[: self.last]
        room = self.events
        for number, row in enumerate(rows[:MAX_WHOLE]):
            room -= min(row["events"], MAX_EVENTS)
            if room < 0:
                return rows[: max(1, number)]
        return rows[:MAX_WHOLE]


@dataclass
class Facts:
    """Content of a report.

    Attributes:
        source: where it is from.
        answers: of named queries, by their names; of `runs` the newest, of `cases` none.
        outcomes: runs, cases and so on by the runs' outcome, over all runs.
        totals: over all nodes: events, errors, warnings, first and last time.
        unit: `minute`, `hour` or `day`.
        activity: begin of each such stretch that has any, events and errors of all nodes in it.
        undated: events that have no time.
        bad_lines: lines that are no events.
        conditions: of each node; empty until `look_for_missing`.
        was_looked_at: whether it has been.
        refused: bundles that were refused, and why.
        chosen: the runs that are shown whole, rows of `runs`, the newest first.
        cases: of these, by `run_key`: rows of `cases`.
        case_counts: how many there are in all.
        processes: of these runs, by `run_key`: rows of `processes`, the first ones, of those that logged its events.
        process_counts: how many there are in all.
        warnings: what could not be read.
    """

    source: Source
    answers: dict[str, Answer] = field(default_factory=dict)
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    totals: dict[str, Any] = field(default_factory=dict)
    unit: str = "minute"
    activity: list[tuple[datetime, int, int]] = field(default_factory=list)
    undated: int = 0
    bad_lines: int = 0
    conditions: list[Condition] = field(default_factory=list)
    was_looked_at: bool = False
    refused: list[Refusal] = field(default_factory=list)
    chosen: list[dict[str, Any]] = field(default_factory=list)
    cases: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    case_counts: dict[str, int] = field(default_factory=dict)
    processes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    process_counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def node_count(self) -> int:
        """Return the number of known nodes, with or without events."""
        return max(self.answers["nodes"].count, len(self.conditions))


Step = Callable[[str], None]


def ask_queries(
    backend: Any, source: Source, choice: Choice, *, step: Step | None = None, warnings: Iterable[str] = ()
) -> Facts:
    """Run all queries of a report.

    Args:
        backend: of `query.connect`, of the same place.
        source: the place.
        choice: which runs are shown whole.
        step: is told what is being done.
        warnings: of who connected.

    Raises:
        ConfigError: a run that was asked for is not there, or the engine refuses.
        CalyxError: something cannot be read.
    """
    tell = step or (lambda text: None)
    found = Facts(source, warnings=list(warnings))
    tell("asking: runs")
    _ask_runs(backend, found, choice)
    limits = {"nodes": MAX_NODES, "suites-by-node": 2 * MAX_ROWS, "leaderboard": MAX_RESULTS, "changes": MAX_RESULTS}
    for name in _NAMED:
        tell(f"asking: {name}")
        answer = named(backend, name)
        if name == "files":  # those that are sent by themselves are not worth a row
            for suffix in (ENVELOPE_SUFFIX, RECEIPT_SUFFIX):
                answer = answer.filter(~answer.name.fill_null("").endswith(suffix))
        found.answers[name] = _ask(backend, answer, name, limits.get(name, MAX_ROWS))
    tell("asking: events over time")
    _ask_totals(backend, found)
    _ask_activity(backend, found)
    tell("asking: cases")
    found.cases, found.case_counts = cases_of(backend, found.chosen)
    tell("asking: processes")
    found.processes, found.process_counts = processes_of(backend, found.chosen)
    return found


def look_for_missing(found: Facts, engine: Engine) -> None:
    """Add each node's condition, and the refused bundles; where that cannot be said, a warning.

    Args:
        found: the facts.
        engine: reads the chunks.
    """
    place, root = found.source.place, found.source.root
    try:
        found.conditions = list(conditions_at(place, root, engine))
    except (CalyxError, OSError) as error:
        found.warnings.append(f"whether anything is missing cannot be said: {error}")
    try:
        found.refused = refused_at(place, root)
    except (CalyxError, OSError) as error:
        found.warnings.append(f"which bundles were refused cannot be said: {error}")
    found.was_looked_at = True


_NAMED = (
    *("nodes", "suites", "suites-by-node", "models", "leaderboard", "leaderboard-by-node", "changes"),
    *("last-errors", "errors-by-kind", "files", "gaps", "recoveries"),
)


def _ask(backend: Any, expression: Any, name: str, limit: int) -> Answer:
    rows = rows_of(backend, expression.limit(limit + 1))
    count = len(rows)
    if count > limit:
        (counted,) = rows_of(backend, expression.aggregate(n=expression.count()))
        count = counted["n"]
    return Answer(name, rows[:limit], count)


def newest_first() -> list[Any]:
    """Return the order of runs in the page."""
    import ibis

    return [ibis.desc("ended"), ibis.desc("started"), *RUN]


def _ask_runs(backend: Any, found: Facts, choice: Choice) -> None:
    runs = named(backend, "runs")
    newest = newest_first()
    found.answers["runs"] = _ask(backend, runs.order_by(newest), "runs", MAX_RUNS)
    numbers = ("events", "errors", "cases", "completed", "skipped", "judged", "passed")
    sums = {name: runs[name].sum().cast("int64") for name in numbers}
    by_outcome = runs.group_by("outcome").aggregate(runs=runs.count(), seconds=runs.duration_s.sum(), **sums)
    found.outcomes = rows_of(backend, by_outcome.order_by("outcome"))
    if not choice.ids:
        found.chosen = choice.newest_of(found.answers["runs"].rows)
        return
    ids = [one for one in choice.ids if can_be_asked(one)]
    chosen = runs.filter(runs.run_id.isin(ids) | runs.run_instance_id.isin(ids))
    names = rows_of(backend, chosen.select("run_id", "run_instance_id").distinct())
    there = {row[name] for row in names for name in ("run_id", "run_instance_id")}
    for one in choice.ids:
        if one not in there:
            some = ", ".join(dict.fromkeys(str(row["run_id"]) for row in found.answers["runs"].rows[:50]))
            hint = f"there are {some[:300]}" if some else "no event there has a run_id"
            raise ConfigError(f"there is no run {one!r}", hint=hint)
    answer = _ask(backend, chosen.order_by(newest), "runs", MAX_ROWS)
    found.chosen = answer.rows
    if answer.left_out:
        found.warnings.append(f"--run names {answer.count} runs: the last {MAX_ROWS} of them are shown whole")


def _ask_totals(backend: Any, found: Facts) -> None:
    nodes = named(backend, "nodes")
    (found.totals,) = rows_of(
        backend,
        nodes.aggregate(
            events=nodes.events.sum().cast("int64"),
            errors=nodes.errors.sum().cast("int64"),
            warnings=nodes.warnings.sum().cast("int64"),
            first_ts=nodes.first_ts.min(),
            last_ts=nodes.last_ts.max(),
        ),
    )
    lines = backend.table("chunks")
    (bad,) = rows_of(backend, lines.aggregate(n=lines.bad_lines.sum().cast("int64")))
    found.bad_lines = bad["n"] or 0


def _ask_activity(backend: Any, found: Facts) -> None:
    """Query activity in the smallest unit that does not give too many points from first to last event."""
    import ibis

    first, last = found.totals["first_ts"], found.totals["last_ts"]
    if first is None:
        found.undated = found.totals["events"] or 0
        return
    try:
        seconds = (last - first).total_seconds()
    except TypeError:  # a year that Python does not know comes as text
        seconds = float("inf")
    found.unit, name, _ = next((unit for unit in _UNITS if seconds / unit[2] <= MAX_POINTS), _UNITS[-1])
    by_node = named(backend, name)
    of_all = by_node.group_by(found.unit).aggregate(
        events=by_node.events.sum().cast("int64"), errors=by_node.errors.sum().cast("int64")
    )
    dated = of_all.filter(of_all[found.unit].notnull()).order_by(ibis.desc(found.unit))
    rows = rows_of(backend, dated.limit(MAX_DAYS))
    found.activity = [(row[found.unit], row["events"], row["errors"]) for row in reversed(rows)]
    (undated,) = rows_of(
        backend, of_all.filter(of_all[found.unit].isnull()).aggregate(n=of_all.events.sum().cast("int64"))
    )
    found.undated = undated["n"] or 0
    left = found.totals["events"] - found.undated - sum(events for _, events, _ in found.activity)
    if left:
        found.warnings.append(f"{left} events before the last {MAX_DAYS} days that have any are not drawn over time")
