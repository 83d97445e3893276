"""Outcomes of runs, cases, suites and models, as Ibis expressions over events: the same on every engine.

A case counts each time it ended (`stage` is `case_ended`). It is completed if its `outcome` is
`completed`, and passed if it is completed and has no false `passed`. One whose `outcome` is `skipped` is neither, and
does not make its run fail. A score is not a verdict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calyx_logging.query.duckdb_views import TEXT_OF

if TYPE_CHECKING:
    import ibis

__all__ = ["ERRORS", "RUN", "cases", "field_of", "models", "runs", "suites", "suites_by_node"]

RUN = ("node_id", "suite", "run_id", "run_instance_id")
"""Columns that identify a run."""

_STATUSES = ("error", "timeout", "incomplete", "normal")
"""Statuses that a run may end with, worst first."""

_DIGITS = 6
"""Decimals of sums of seconds (microseconds); further digits depend on which thread adds first."""

ERRORS = ("error", "critical")
"""Levels that count as errors."""


def field_of(events: ibis.Table, path: str, where: Any = None) -> Any:
    """Return a field that has no column of its own, as text.

    Args:
        events: the table.
        path: in JSON, such as `$.model`.
        where: condition on the rows; the JSON of other rows is not parsed.
    """
    import ibis

    def text_at(document: Any, path: Any) -> Any:
        """The engine's own function."""

    name, signature = TEXT_OF[events.get_backend().name], (("string", "string"), "string")
    text_of: Any = ibis.udf.scalar.builtin(text_at, name=name, signature=signature)
    found = text_of(events.rest, path)
    return found if where is None else ibis.ifelse(where, found, ibis.null("string"))


def _seconds(text: Any) -> Any:
    """Return a text as seconds; null if it is no plausible duration."""
    return _between(text.try_cast("float64"), 0, 1e12)


def _between(value: Any, least: float, most: float) -> Any:
    """Return null for values out of range, NaN and infinities, which would spoil every sum."""
    import ibis

    return ibis.ifelse(value.between(least, most), value, ibis.null("float64"))


def _without_superseded(events: ibis.Table) -> ibis.Table:
    """Leave out what a resumed run has done anew: how its earlier instances ended, and cases that were done again.

    `resumed_as` tells its instances apart. Runs that were never resumed, which are nearly all, are left as they are.
    """
    import ibis

    def instance(found: ibis.Table, where: Any = None) -> Any:
        return field_of(found, "$.resumed_as", where).fill_null("")

    begins = events.filter(events.stage == "run_started")
    begins = begins.mutate(part=instance(begins))
    last = begins.group_by(list(RUN)).aggregate(
        last_part=begins.part.argmax(begins.ts), resumed=(begins.part != "").sum()
    )
    last = last.filter(last.resumed > 0).drop("resumed")
    events = events.left_join(last, list(RUN)).drop(*(f"{name}_right" for name in RUN))
    is_end = (events.last_part.notnull() & events.stage.isin(["case_ended", "run_ended"])).fill_null(False)
    events = events.mutate(part=instance(events, is_end))
    ends = events.filter(is_end & (events.stage == "case_ended"))
    keys = [*RUN, "case_id"]
    cases_last = ends.group_by(keys).aggregate(last_of_case=ends.part.argmax(ends.ts))
    events = events.left_join(cases_last, keys).drop(*(f"{name}_right" for name in keys))
    counts = ibis.ifelse(events.stage == "run_ended", events.last_part, events.last_of_case)
    is_superseded = (events.part != counts).fill_null(False)
    is_end = (events.last_part.notnull() & events.stage.isin(["case_ended", "run_ended"])).fill_null(False)
    stage = ibis.ifelse(is_end & is_superseded, "superseded", events.stage)
    return events.mutate(stage=stage).drop("last_part", "part", "last_of_case")


def _with_ends(events: ibis.Table) -> ibis.Table:
    """Return the events of runs, with columns for what the begin and end of a case or run record."""
    events = _without_superseded(events.filter(events.run_id.notnull()))
    has_ended = (events.stage == "case_ended").fill_null(False)
    outcome = field_of(events, "$.outcome", has_ended)
    completed = has_ended & (outcome == "completed").fill_null(False)
    passed = field_of(events, "$.passed", completed)
    return events.mutate(
        has_ended=has_ended,
        outcome=outcome,
        is_completed=completed,
        is_skipped=has_ended & (outcome == "skipped").fill_null(False),
        is_passed=completed & (passed != "false").fill_null(True),
        is_error=events.level.isin(ERRORS).fill_null(False),
    )


def _extent(events: ibis.Table) -> dict[str, Any]:
    """Aggregate a group of events: first and last time, number of events, number of errors."""
    return {
        "started": events.ts.min(),
        "ended": events.ts.max(),
        "events": events.count(),
        "errors": events.is_error.sum().cast("int64"),
    }


def runs(events: ibis.Table) -> ibis.Table:
    """Each run: its cases, how many completed and passed, how it ended, how long it took.

    `outcome` is `passed`; `failed` where a case was neither passed nor skipped, or the run ended with an error;
    `timeout`; `incomplete` where it says so, has not ended, or fewer cases ended than were expected. Of several ends
    the worst counts.
    """
    import ibis

    events = _with_ends(events)
    begins, ends = events.stage == "run_started", (events.stage == "run_ended").fill_null(False)
    events = events.mutate(status=field_of(events, "$.exit_status", ends))
    is_known = events.status.isin(_STATUSES)
    found = events.group_by(list(RUN)).aggregate(
        **_extent(events),
        cases=events.has_ended.sum().cast("int64"),
        completed=events.is_completed.sum().cast("int64"),
        passed=events.is_passed.sum().cast("int64"),
        skipped=events.is_skipped.sum().cast("int64"),
        cases_expected=field_of(events, "$.cases_expected", begins).try_cast("int64").max(),
        other_status=events.status.max(where=~is_known),
        **{f"ends_{name}": (events.status == name).fill_null(False).sum() for name in _STATUSES},
    )
    worst = [(found.other_status.notnull(), found.other_status)]
    worst += [(found[f"ends_{name}"] > 0, ibis.literal(name)) for name in _STATUSES]
    found = found.mutate(exit_status=ibis.cases(*worst, else_=ibis.null("string")))
    found = found.drop("other_status", *(f"ends_{name}" for name in _STATUSES))
    status, is_short = found.exit_status, (found.cases_expected > found.cases).fill_null(False)
    found = found.mutate(
        outcome=ibis.cases(
            (status.isnull() | (status == "incomplete"), "incomplete"),
            (status == "timeout", "timeout"),
            ((status == "normal") & (found.passed + found.skipped < found.cases), "failed"),
            ((status == "normal") & is_short, "incomplete"),
            (status == "normal", "passed"),
            else_="failed",
        ),
        pass_rate=_rate(found),
        duration_s=(found.ended.cast("timestamp").delta(found.started.cast("timestamp"), unit="microsecond")) / 1e6,
    )
    return found.drop("skipped").order_by(["started", "run_id", "run_instance_id"])


def _rate(found: ibis.Table) -> Any:
    import ibis

    return ibis.ifelse(found.cases > 0, found.passed / found.cases, ibis.null())


def cases(events: ibis.Table) -> ibis.Table:
    """Each case of each run; `outcome` and what follows it are those of the last time it ended, null before."""
    events = _with_ends(events)
    events = events.filter(events.case_id.notnull()).mutate(
        is_pass=events.is_passed.ifelse("true", "false"),
        duration=_seconds(field_of(events, "$.duration_s", events.has_ended)),
        model=field_of(events, "$.model", events.has_ended),
        error=field_of(events, "$.exception[0].type", events.has_ended),
    )

    def last(name: str) -> Any:
        return events[name].argmax(events.ts, where=events.has_ended)

    return (
        events.group_by([*RUN, "case_id"])
        .aggregate(
            **_extent(events),
            attempts=events.has_ended.sum().cast("int64"),
            outcome=last("outcome"),
            passed=last("is_pass"),
            duration_s=last("duration"),
            score=last("score"),
            model=last("model"),
            exception_type=last("error"),
        )
        .order_by([*RUN, "started", "case_id"])
    )


def suites(events: ibis.Table) -> ibis.Table:
    """Each suite: its runs and their cases, and how long its runs took."""
    return _rates(events, ["suite"])


def suites_by_node(events: ibis.Table) -> ibis.Table:
    """Each suite on each node, likewise."""
    return _rates(events, ["suite", "node_id"])


def _rates(events: ibis.Table, keys: list[str]) -> ibis.Table:
    one = runs(events)
    found = one.group_by(keys).aggregate(
        runs=one.count(),
        runs_passed=(one.outcome == "passed").sum().cast("int64"),
        cases=one.cases.sum().cast("int64"),
        completed=one.completed.sum().cast("int64"),
        passed=one.passed.sum().cast("int64"),
        run_seconds=one.duration_s.sum().round(_DIGITS),
        median_run_s=one.duration_s.median(),
    )
    return found.mutate(pass_rate=_rate(found)).order_by(keys)


def models(events: ibis.Table) -> ibis.Table:
    """Each model in each suite, of cases that say their `model`: how they ended, their scores, how long they took."""
    import ibis

    events = _with_ends(events)
    ended = events.filter(events.has_ended)
    ended = ended.mutate(
        model=field_of(ended, "$.model"),
        duration=_seconds(field_of(ended, "$.duration_s")),
        number=_between(ended.score.try_cast("float64"), -1e300, 1e300),
        run=ibis.literal("\x1f").join([ended[name].fill_null("") for name in RUN]),
    )
    ended = ended.filter(ended.model.notnull())
    found = ended.group_by(["suite", "model"]).aggregate(
        runs=ended.run.nunique(),
        cases=ended.count(),
        completed=ended.is_completed.sum().cast("int64"),
        passed=ended.is_passed.sum().cast("int64"),
        scores=ended.number.count(),
        mean_score=ended.number.mean(),
        case_seconds=ended.duration.sum().round(_DIGITS),
        median_case_s=ended.duration.median(),
    )
    return found.mutate(pass_rate=_rate(found)).order_by(["suite", "model"])
