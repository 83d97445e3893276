"""The named queries, each in one place, as Ibis expressions: the same on every engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from calyx_logging.database import TEXT_OF, Rows, run_sql, said
from calyx_logging.errors import ConfigError

if TYPE_CHECKING:
    import ibis

__all__ = ["NAMES", "QUERIES", "named", "run_named"]


def _events_by_hour(events: ibis.Table) -> ibis.Table:
    """Events, and errors among them, of each node and hour (UTC)."""
    hour = events.ts.truncate("h").name("hour")
    is_error = events.level.isin(["error", "critical"])
    return (
        events.group_by([events.node_id, hour])
        .aggregate(events=events.count(), errors=is_error.sum().cast("int64"))
        .order_by(["node_id", "hour"])
    )


def _field(events: ibis.Table, path: str) -> Any:
    """A field that has no column of its own, as text."""
    import ibis

    def text_at(document: Any, path: Any) -> Any:
        """The engine's own function."""

    name, signature = TEXT_OF[events.get_backend().name], (("string", "string"), "string")
    text_of: Any = ibis.udf.scalar.builtin(text_at, name=name, signature=signature)
    return text_of(events.rest, path)


def _runs(events: ibis.Table) -> ibis.Table:
    """Each run: its cases, how many completed, how it ended, how long it took."""
    import ibis

    events = events.filter(events.run_id.notnull())
    ended = (events.stage == "case_ended").fill_null(False)
    completed = ended & (_field(events, "$.outcome") == "completed").fill_null(False)
    found = events.group_by(["node_id", "suite", "run_id", "run_instance_id"]).aggregate(
        started=events.ts.min(),
        ended=events.ts.max(),
        events=events.count(),
        errors=events.level.isin(["error", "critical"]).sum().cast("int64"),
        cases=ended.sum().cast("int64"),
        completed=completed.sum().cast("int64"),
        exit_status=_field(events, "$.exit_status").max(where=events.stage == "run_ended"),
    )
    return found.mutate(
        pass_rate=ibis.ifelse(found.cases > 0, found.completed / found.cases, ibis.null()),
        duration_s=(found.ended.cast("timestamp").delta(found.started.cast("timestamp"), unit="microsecond")) / 1e6,
    ).order_by(["started", "run_id", "run_instance_id"])


def _last_errors(events: ibis.Table) -> ibis.Table:
    """The last error of each node."""
    import ibis

    errors = events.filter(events.level.isin(["error", "critical"]))
    rank = ibis.row_number().over(group_by=errors.node_id, order_by=[errors.ts.desc(), errors.event_id])
    last = errors.mutate(rank=rank).filter(lambda one: one.rank == 0)
    names = ("node_id", "ts", "event_id", "logger", "message", "suite", "run_id", "case_id")
    return last.select(
        *names, exception_type=_field(last, "$.exception[0].type"), exception=_field(last, "$.exception[0].value")
    ).order_by("node_id")


def _around(events: ibis.Table, event_id: str, count: int) -> ibis.Table:
    """The events with an id, and what the same writer wrote before and after; without `seq`, the lines of the chunk."""
    found = events.filter(events.event_id == event_id)
    found = found.select(
        found.node_id, its_writer=found.writer, its_seq=found.seq, its_chunk=found.chunk, its_line=found.line
    )
    near = events.join(found.distinct(), "node_id")
    by_seq = (near.writer == near.its_writer) & (near.seq - near.its_seq).between(-count, count)
    by_line = (
        near.its_seq.isnull() & (near.chunk == near.its_chunk) & (near.line - near.its_line).between(-count, count)
    )
    names = ("node_id", "ts", "writer", "seq", "level", "logger", "message", "event_id", "source", "run_id", "case_id")
    near = near.filter(by_seq | by_line).select(*names, "chunk", "line").distinct()
    return near.order_by(["node_id", "writer", "seq", "chunk", "line"])


QUERIES: dict[str, Callable[[Any], Any]] = {
    "events-by-hour": _events_by_hour,
    "runs": _runs,
    "last-errors": _last_errors,
}
"""Named queries: from the table `events` of an Ibis backend to an Ibis expression."""


NAMES = (*QUERIES, "gaps", "around")
"""All named queries."""


def named(backend: Any, name: str, *, event_id: str | None = None, count: int = 5) -> Any:
    """The expression of a named query on a backend; `.to_pandas()`, `.to_pyarrow()` and so on run it.

    Args:
        backend: of `connect`.
        name: of `NAMES`.
        event_id: for `around`: of the event.
        count: for `around`: so many events before it, and after it.

    Raises:
        ConfigError: there is none of that name, or the event id is missing.
    """
    if name not in NAMES:
        raise ConfigError(f"there is no query {name!r}", hint=f"there are {', '.join(NAMES)}")
    if (name == "around") != (event_id is not None):
        raise ConfigError("the query around, and no other, needs an event id", hint="--named around --event-id ID")
    if name == "gaps":
        return backend.table("gaps").order_by(["node_id", "ts"])
    events = backend.table("events")
    return QUERIES[name](events) if event_id is None else _around(events, event_id, count)


def run_named(backend: Any, name: str, *, event_id: str | None = None, count: int = 5) -> Rows:
    """The rows of a named query, as of `named`.

    Raises:
        ConfigError: there is none of that name, the event id is missing, or the engine refuses it.
    """
    with said():
        sql = backend.compile(named(backend, name, event_id=event_id, count=count))
    return run_sql(backend, sql)
