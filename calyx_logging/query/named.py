"""The named queries, each in one place, as Ibis expressions: the same on every engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from calyx_logging.errors import ConfigError
from calyx_logging.format.completeness import Verdict
from calyx_logging.query import run_results
from calyx_logging.query.duckdb_views import Rows, clear_errors, run_sql
from calyx_logging.query.run_results import ERRORS, RUN, field_of

if TYPE_CHECKING:
    import ibis

__all__ = ["NAMES", "QUERIES", "named", "run_named"]


def _events_by(unit: str) -> Callable[[ibis.Table], ibis.Table]:
    """Events, and errors among them, of each node in each stretch of time (UTC)."""
    name = {"h": "hour", "m": "minute", "D": "day"}[unit]

    def query(events: ibis.Table) -> ibis.Table:
        begins = events.ts.truncate(unit).name(name)
        is_error = events.level.isin(ERRORS)
        return (
            events.group_by([events.node_id, begins])
            .aggregate(events=events.count(), errors=is_error.sum().cast("int64"))
            .order_by(["node_id", name])
        )

    return query


def _nodes(events: ibis.Table) -> ibis.Table:
    """Each node: what it logged, and when."""
    import ibis

    run = ibis.literal("\x1f").join([events[name].fill_null("") for name in RUN])
    return (
        events.group_by("node_id")
        .aggregate(
            events=events.count(),
            errors=events.level.isin(ERRORS).sum().cast("int64"),
            warnings=(events.level == "warning").sum().cast("int64"),
            runs=run.nunique(where=events.run_id.notnull()),
            writers=events.writer.nunique(),
            first_ts=events.ts.min(),
            last_ts=events.ts.max(),
        )
        .order_by("node_id")
    )


def _errors_by_kind(events: ibis.Table) -> ibis.Table:
    """Errors by the type of their exception (null without one) and their logger, the most frequent first."""
    import ibis

    errors = events.filter(events.level.isin(ERRORS))
    errors = errors.mutate(exception_type=field_of(errors, "$.exception[0].type"))
    return (
        errors.group_by(["exception_type", "logger"])
        .aggregate(
            events=errors.count(),
            nodes=errors.node_id.nunique(),
            first_ts=errors.ts.min(),
            last_ts=errors.ts.max(),
            last_message=errors.message.substr(0, 500).argmax(errors.ts),
            last_event_id=errors.event_id.argmax(errors.ts),
        )
        .order_by([ibis.desc("events"), "exception_type", "logger"])
    )


def _last_errors(events: ibis.Table) -> ibis.Table:
    """The last error of each node."""
    import ibis

    errors = events.filter(events.level.isin(ERRORS))
    errors = errors.mutate(at=errors.ts.fill_null(ibis.timestamp("0001-01-01 00:00:00")))
    newest = errors.group_by("node_id").aggregate(at=errors.at.max())
    errors = errors.semi_join(newest, ["node_id", "at"])  # few are left to be put in order
    rank = ibis.row_number().over(group_by=errors.node_id, order_by=[errors.ts.desc(), errors.event_id])
    last = errors.mutate(rank=rank).filter(lambda one: one.rank == 0)
    names = ("node_id", "ts", "event_id", "logger", "message", "suite", "run_id", "case_id")
    return last.select(
        *names, exception_type=field_of(last, "$.exception[0].type"), exception=field_of(last, "$.exception[0].value")
    ).order_by("node_id")


def _around(events: ibis.Table, starts: ibis.Table, event_id: str, count: int) -> ibis.Table:
    """The events with an id, and what their process logged before and after; without `seq`, the lines of the chunk.

    Lines of one writer keep the order of their `seq`; those of a process's writers are put together by time.
    """
    import ibis

    started = starts.select(start_node=starts.node_id, start_writer=starts.writer, process=starts.process)
    joined = events.left_join(started, [events.node_id == started.start_node, events.writer == started.start_writer])
    joined = joined.mutate(process=ibis.coalesce(joined.process, joined.writer)).drop("start_node", "start_writer")
    found = joined.filter(joined.event_id == event_id)
    in_seq = joined.filter(joined.seq.notnull()).semi_join(found, ["node_id", "process"])
    so_far = ibis.cumulative_window(group_by=[in_seq.node_id, in_seq.writer], order_by=in_seq.seq)
    in_seq = in_seq.mutate(moment=in_seq.ts.max().over(so_far))
    place = ibis.row_number().over(
        group_by=[in_seq.node_id, in_seq.process], order_by=[in_seq.moment, in_seq.writer, in_seq.seq]
    )
    in_seq = in_seq.mutate(place=place)
    its = in_seq.filter(in_seq.event_id == event_id)
    its = its.select(its_node=its.node_id, its_process=its.process, its_place=its.place)
    near = in_seq.join(its, [in_seq.node_id == its.its_node, in_seq.process == its.its_process])
    by_seq = near.filter((near.place - near.its_place).between(-count, count))
    old = found.filter(found.seq.isnull())
    old = old.select(its_node=old.node_id, its_chunk=old.chunk, its_line=old.line)
    near = joined.join(old, [joined.node_id == old.its_node, joined.chunk == old.its_chunk])
    by_line = near.filter((near.line - near.its_line).between(-count, count))
    by_line = by_line.mutate(place=by_line.line)
    names = ("node_id", "ts", "writer", "seq", "level", "logger", "message", "event_id", "source", "run_id", "case_id")
    both = ibis.union(
        *(one.select(*names, "chunk", "line", "process", "place") for one in (by_seq, by_line)), distinct=True
    )
    return both.order_by(["node_id", "process", "place", "chunk", "line"]).drop("process", "place")


QUERIES: dict[str, Callable[[Any], Any]] = {
    "nodes": _nodes,
    "runs": run_results.runs,
    "cases": run_results.cases,
    "suites": run_results.suites,
    "suites-by-node": run_results.suites_by_node,
    "models": run_results.models,
    "events-by-minute": _events_by("m"),
    "events-by-hour": _events_by("h"),
    "events-by-day": _events_by("D"),
    "last-errors": _last_errors,
    "errors-by-kind": _errors_by_kind,
}
"""Named queries: from the table `events` of an Ibis backend to an Ibis expression."""


_VIEWS = {"gaps": "gaps", "processes": "processes", "recoveries": "recoveries"}

NAMES = (*QUERIES, *_VIEWS, "around")
"""All named queries."""


def named(
    backend: Any,
    name: str,
    *,
    event_id: str | None = None,
    count: int = 5,
    verdicts: Mapping[str, Verdict] | None = None,
) -> Any:
    """The expression of a named query on a backend; `.to_pandas()`, `.to_pyarrow()` and so on run it.

    Args:
        backend: of `connect`.
        name: of `NAMES`.
        event_id: for `around`: of the event.
        count: for `around`: so many events before it, and after it.
        verdicts: for `nodes`: adds the columns `verdict` and `lost` (`calyx_logging.query.verdicts.verdicts_at`).

    Raises:
        ConfigError: there is none of that name, or the event id is missing.
    """
    if name not in NAMES:
        raise ConfigError(f"there is no query {name!r}", hint=f"there are {', '.join(NAMES)}")
    if (name == "around") != (event_id is not None):
        raise ConfigError("the query around, and no other, needs an event id", hint="--named around --event-id ID")
    if name in _VIEWS:
        return backend.table(_VIEWS[name]).order_by(["node_id", "ts"])
    events = backend.table("events")
    if event_id is None:
        found = QUERIES[name](events)
        return _with_verdicts(found, verdicts) if name == "nodes" and verdicts else found
    return _around(events, backend.table("starts"), event_id, count)


def _with_verdicts(nodes: ibis.Table, verdicts: Mapping[str, Verdict]) -> ibis.Table:
    """Put the verdict after the node's id."""
    import ibis

    cases = [(nodes.node_id == node_id, verdict) for node_id, verdict in verdicts.items()]
    nothing = ibis.null("string")
    verdict = ibis.cases(*((is_it, ibis.literal(one.kind)) for is_it, one in cases), else_=nothing)
    lost = ibis.cases(*((is_it, ibis.literal(one.lost, "int64")) for is_it, one in cases), else_=ibis.null("int64"))
    return nodes.mutate(verdict=verdict, lost=lost).relocate("verdict", "lost", after="node_id")


def run_named(
    backend: Any,
    name: str,
    *,
    event_id: str | None = None,
    count: int = 5,
    verdicts: Mapping[str, Verdict] | None = None,
) -> Rows:
    """The rows of a named query; the arguments are those of `named`.

    Raises:
        ConfigError: there is none of that name, the event id is missing, or the engine refuses it.
    """
    with clear_errors():
        sql = backend.compile(named(backend, name, event_id=event_id, count=count, verdicts=verdicts))
    return run_sql(backend, sql)
