"""The SQL of the views of results: runs, cases, suites, models, and what else the named queries give.

A case counts each time it ended (`stage` is `case_ended`); `_scores` says when it is completed, and when it passed.
One that was skipped is neither, and does not make its run fail.
"""

from __future__ import annotations

from calyx_logging.query._compare import RUN, changes
from calyx_logging.query._scores import COUNTS, OF_CASES, OF_EVENTS, RATE, count, intervals, judged_of

__all__ = ["ERRORS", "RUN", "result_views"]

_RUN = ", ".join(RUN)
_STATUSES = ("error", "timeout", "incomplete", "normal")
"""Statuses that a run may end with, worst first."""

ERRORS = ("error", "critical")
"""Levels that count as errors."""

_IS_ERROR = f"coalesce(level IN {ERRORS}, false)"

_AT = "coalesce(ts, CAST('0001-01-01 00:00:00' AS TIMESTAMP))"
"""When an event was; one without a time comes before all others."""

_EXTENT = "min(ts) AS started, max(ts) AS ended, count(*) AS events"


def result_views(text_of: str, micros: str, last: str) -> dict[str, str]:
    """Return the SQL of each view, in the order of their creation.

    Args:
        text_of: the engine's function of a JSON text and a path.
        micros: of a time, as a template: microseconds since the epoch.
        last: its aggregate function of a value and a time, which gives the value of the last time, even if it is null.
    """
    return {
        "run_events": _run_events(),
        "ends": _ends(),
        "runs": _runs(micros),
        "cases": _cases(last),
        "suites": _rates("suite"),
        "suites_by_node": _rates("suite, node_id"),
        "models": _models("suite, model", "WHERE model IS NOT NULL"),
        "leaderboard": _leaderboard("suite, model"),
        "leaderboard_by_node": _leaderboard("suite, model, node_id"),
        "changes": changes(),
        "nodes": _nodes(),
        **{f"events_by_{unit}": _events_by(unit) for unit in ("minute", "hour", "day")},
        "errors_by_kind": _errors_by_kind(text_of),
        "last_errors": _last_errors(text_of),
    }


def _same(one: str, other: str, names: tuple[str, ...]) -> str:
    return " AND ".join(f"{one}.{name} IS NOT DISTINCT FROM {other}.{name}" for name in names)


def _run_events() -> str:
    """The events of runs, with what the end of a case says.

    What a resumed run has done anew is left out, by the stage `superseded`: how its earlier instances ended, and cases
    that were done again. `resumed_as` tells its instances apart. Runs that were never resumed, which are nearly all,
    are left as they are.
    """
    part = "coalesce(resumed_as, '')"
    keys = ", ".join(f"e.{name}" for name in (*RUN, "case_id"))
    # no part is used twice but small ones: an engine would keep it in memory
    return f"""
WITH begun AS (
    SELECT {_RUN}, ts, {part} AS part FROM logged WHERE run_id IS NOT NULL AND stage = 'run_started'
), resumed AS (
    SELECT {_RUN}, max_by(part, {_AT}) AS last_part FROM begun GROUP BY {_RUN} HAVING {count("part <> ''")} > 0
), last_cases AS (
    SELECT {keys}, max_by({part}, {_AT}) AS last_part FROM logged AS e JOIN resumed AS r ON {_same("e", "r", RUN)}
    WHERE e.stage = 'case_ended' GROUP BY {keys}
), staged AS (
    SELECT {keys}, e.ts, e.event_id, e.level, e.model, e.outcome, e.passed, e.score, e.score_text, e.duration_s,
        e.exit_status, e.cases_expected, e.exception_type, CASE
            WHEN e.stage = 'run_ended' AND {part} <> r.last_part THEN 'superseded'
            WHEN e.stage = 'case_ended' AND {part} <> c.last_part THEN 'superseded'
            ELSE e.stage END AS stage
    FROM logged AS e LEFT JOIN resumed AS r ON {_same("e", "r", RUN)}
    LEFT JOIN last_cases AS c ON {_same("e", "c", (*RUN, "case_id"))}
    WHERE e.run_id IS NOT NULL
)
SELECT *, {_IS_ERROR} AS is_error, coalesce(stage = 'case_ended', false) AS has_ended,
    coalesce(stage = 'case_ended' AND outcome = 'completed', false) AS is_completed,
    coalesce(stage = 'case_ended' AND outcome = 'skipped', false) AS is_skipped,
    CASE WHEN stage = 'case_ended' AND outcome IS DISTINCT FROM 'skipped' AND passed IS NOT NULL
        THEN passed AND outcome IS NOT DISTINCT FROM 'completed' END AS verdict
FROM staged"""


def _ends() -> str:
    """The ends of cases; `judgement` is the harness's verdict, or false for a case that failed without one."""
    return f"""
WITH ended AS (
    SELECT * FROM run_events WHERE has_ended
), of_runs AS (
    SELECT {_RUN}, {count("verdict IS NOT NULL")} AS verdicts, {count("is_completed")} AS completed FROM ended
    GROUP BY {_RUN}
), of_suites AS (
    SELECT suite AS name, sum(verdicts) AS verdicts FROM of_runs GROUP BY suite
)
SELECT e.*, CASE WHEN e.verdict IS NOT NULL THEN e.verdict WHEN NOT e.is_completed AND NOT e.is_skipped
    AND (r.verdicts > 0 OR (s.verdicts > 0 AND r.completed = 0)) THEN false END AS judgement
FROM ended AS e JOIN of_runs AS r ON {_same("e", "r", RUN)}
JOIN of_suites AS s ON e.suite IS NOT DISTINCT FROM s.name"""


def _runs(micros: str) -> str:
    """Each run: its cases, how many completed and passed, how it ended, how long it took.

    `outcome` is `failed` where a case was neither completed nor skipped, or the run ended with an error; `timeout`;
    `incomplete` where it says so, has not ended, or fewer cases ended than were expected; otherwise `passed` where the
    harness said of every case that it passed, and `completed` where it did not. Of several ends the worst counts.
    """
    status = "CASE WHEN stage = 'run_ended' THEN exit_status END"
    known = ", ".join(f"'{name}'" for name in _STATUSES)
    counts = ", ".join(count(f"{status} = '{name}'") + f" AS ends_{name}" for name in _STATUSES)
    worst = " ".join(f"WHEN ends_{name} > 0 THEN '{name}'" for name in _STATUSES)
    return f"""
WITH found AS (
    SELECT {_RUN}, {_EXTENT}, {count("is_error")} AS errors, {OF_EVENTS},
        max(CASE WHEN stage = 'run_started' THEN cases_expected END) AS cases_expected,
        max(CASE WHEN {status} NOT IN ({known}) THEN {status} END) AS other, {counts}
    FROM run_events GROUP BY {_RUN}
), ended AS (
    SELECT *, {judged_of("PARTITION BY suite")}, CASE WHEN other IS NOT NULL THEN other {worst} END AS exit_status
    FROM found
)
SELECT {_RUN}, started, ended, events, errors, cases, completed, skipped, judged, passed, scores, mean_score,
    stddev_score, cases_expected, exit_status, CASE
        WHEN exit_status IS NULL OR exit_status = 'incomplete' THEN 'incomplete'
        WHEN exit_status = 'timeout' THEN 'timeout'
        WHEN exit_status <> 'normal' OR completed + skipped < cases THEN 'failed'
        WHEN cases_expected > cases THEN 'incomplete'
        WHEN passed > 0 AND passed + skipped = cases THEN 'passed'
        ELSE 'completed' END AS outcome,
    {RATE}, ({micros.format("ended")} - {micros.format("started")}) / 1e6 AS duration_s
FROM ended"""


def _cases(last: str) -> str:
    """Each case of each run; `outcome` and what follows it are those of the last time it ended, null before.

    `passed` is also null where the harness did not say.
    """

    def at_last(value: str) -> str:
        return f"{last}({value}, {_AT}) FILTER (WHERE has_ended)"

    names = ("duration_s", "score", "score_text", "model", "exception_type")
    return f"""
SELECT {_RUN}, case_id, {_EXTENT}, {count("is_error")} AS errors, {count("has_ended")} AS attempts,
    {at_last("outcome")} AS outcome, {at_last("verdict")} AS passed,
    {", ".join(f"{at_last(name)} AS {name}" for name in names)}
FROM run_events WHERE case_id IS NOT NULL GROUP BY {_RUN}, case_id"""


def _rates(keys: str) -> str:
    """The runs of each suite (on each node) and their cases, and how long the runs took."""
    return f"""
WITH found AS (
    SELECT {keys}, count(*) AS runs, {count("outcome IN ('passed', 'completed')")} AS runs_completed,
        {", ".join(f"CAST(sum({name}) AS BIGINT) AS {name}" for name in COUNTS)},
        sum(mean_score * scores) / nullif(sum(scores), 0) AS mean_score, round(sum(duration_s), 6) AS run_seconds,
        median(duration_s) AS median_run_s
    FROM runs GROUP BY {keys}
)
SELECT *, {RATE} FROM found"""


def _models(keys: str, where: str) -> str:
    """Each model in each suite: how its cases ended, their scores, how long they took."""
    return f"""
WITH found AS (
    SELECT {keys}, count(DISTINCT {_run_key()}) AS runs, {OF_CASES},
        round(sum(duration_s), 6) AS case_seconds, median(duration_s) AS median_case_s
    FROM ends {where} GROUP BY {keys}
), rated AS (
    SELECT *, {RATE} FROM found
)
SELECT *, {intervals()} FROM rated"""


def _leaderboard(keys: str) -> str:
    """Each model in each suite (on each node) with one number: its pass rate if the suite is judged, else its score.

    `low` and `high` are the ends of its 95 % interval, `n` the cases behind it. A suite is judged if the harness said
    of any of its cases whether it passed. Cases without a model are a row of their own.
    """
    judged = "max(judged) OVER (PARTITION BY suite) > 0"
    columns = {"value": "mean_score", "low": "score_low", "high": "score_high", "n": "scores"}
    rates = {"value": "pass_rate", "low": "pass_low", "high": "pass_high", "n": "judged"}
    chosen = ", ".join(f"CASE WHEN {judged} THEN {rates[name]} ELSE {columns[name]} END AS {name}" for name in columns)
    return f"""
SELECT {keys}, CASE WHEN {judged} THEN 'pass_rate' ELSE 'mean_score' END AS measure, {chosen}, stddev_score,
    runs, cases, completed, skipped, judged, passed, scores, mean_score, median_case_s
FROM ({_models(keys, "")}) AS models"""


def _run_key() -> str:
    names = ", ".join(f"coalesce({name}, '')" for name in RUN)
    return f"concat_ws(chr(31), {names})"


def _nodes() -> str:
    """Each node: what it logged, and when."""
    return f"""
SELECT node_id, count(*) AS events, {count(_IS_ERROR)} AS errors, {count("level = 'warning'")} AS warnings,
    count(DISTINCT CASE WHEN run_id IS NOT NULL THEN {_run_key()} END) AS runs, count(DISTINCT writer) AS writers,
    min(ts) AS first_ts, max(ts) AS last_ts
FROM logged GROUP BY node_id"""


def _events_by(unit: str) -> str:
    """Events, and errors among them, of each node in each stretch of time (UTC)."""
    return f"""
SELECT node_id, date_trunc('{unit}', ts) AS {unit}, count(*) AS events, {count(_IS_ERROR)} AS errors
FROM logged GROUP BY node_id, date_trunc('{unit}', ts)"""


def _errors_by_kind(text_of: str) -> str:
    """Errors by the type of their exception (null without one) and their logger."""
    return f"""
SELECT exception_type, logger, count(*) AS events, count(DISTINCT node_id) AS nodes, min(ts) AS first_ts,
    max(ts) AS last_ts, max_by(substr(message, 1, 500), ts) AS last_message, max_by(event_id, ts) AS last_event_id,
    max_by(substr({text_of}(rest, '$.exception[0].value'), 1, 500), ts) AS last_exception
FROM logged WHERE {_IS_ERROR} GROUP BY exception_type, logger"""


def _last_errors(text_of: str) -> str:
    """The last error of each node; those that have no time come before all others."""
    names = "node_id, ts, event_id, logger, message, suite, run_id, case_id, exception_type"
    return f"""
WITH newest AS (
    SELECT node_id AS whose, max({_AT}) AS newest FROM logged WHERE {_IS_ERROR} GROUP BY node_id
), ranked AS (
    SELECT {names}, rest, row_number() OVER (PARTITION BY node_id ORDER BY event_id) AS place
    FROM logged JOIN newest ON node_id = whose AND {_AT} = newest WHERE {_IS_ERROR}
)
SELECT {names}, {text_of}(rest, '$.exception[0].value') AS exception FROM ranked WHERE place = 1"""
