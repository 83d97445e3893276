"""The SQL that compares runs case by case (`changes`, `compare`), and that of `case`.

If both runs are judged, a case counts as 1 if it passed and as 0 if not, even if it did not complete; otherwise its
score counts. Means, changes and counts cover the cases that the two runs share and that count in both. The interval of
a mean change is that of paired differences (Student's t, from three of them on).
"""

from __future__ import annotations

from collections.abc import Sequence

from calyx_logging.query._scores import t_quantile

__all__ = ["RUN", "case", "changes", "compare", "is_of_runs"]

RUN = ("node_id", "suite", "run_id", "run_instance_id")
"""Columns that identify a run."""

_RUN = ", ".join(RUN)
_SUMS = "shared, n, better, worse, same, value, value_before, change"


def is_of_runs(texts: Sequence[str]) -> str:
    """Return the condition that selects runs by `run_id` or `run_instance_id`; the ids are quoted."""
    some = ", ".join(texts)
    return f"(run_id IN ({some}) OR run_instance_id IN ({some}))"


def case(text: str) -> str:
    """Return the SQL of a case, by its quoted id, in every run that has it."""
    return f"SELECT * FROM cases WHERE case_id = {text} ORDER BY suite NULLS LAST, started NULLS LAST, {_RUN}"


def changes() -> str:
    """Compare the last run of each configuration (suite, run_id and node) with the run before; only runs with cases."""
    ranked = "row_number() OVER (PARTITION BY suite, run_id, node_id ORDER BY ended DESC, run_instance_id) AS place"
    before = ("run_instance_id", "ended", "outcome")
    return f"""
WITH ranked AS (
    SELECT *, {ranked} FROM runs WHERE cases > 0 AND ended IS NOT NULL
), matched AS (
    SELECT {_names("a")}, {_names("b", "_before")}, a.judged > 0 AND b.judged > 0 AS is_judged
    FROM ranked AS a JOIN ranked AS b ON a.run_id = b.run_id AND a.node_id = b.node_id
        AND a.suite IS NOT DISTINCT FROM b.suite
    WHERE a.place = 1 AND b.place = 2
), {_summed()}
SELECT a.suite, a.run_id, a.node_id, a.run_instance_id, a.ended, a.outcome, {_results("s")},
    {", ".join(f"b.{name} AS {name}_before" for name in before)}
FROM summed AS s JOIN ranked AS a ON {_is_run("s", "a")} JOIN ranked AS b ON {_is_run("s", "b", "_before")}"""


def compare(texts: Sequence[str]) -> str:
    """Compare the runs with these quoted ids with a base: the newest run with the first of the ids."""
    place = " ".join(f"WHEN {text} IN (run_id, run_instance_id) THEN {n}" for n, text in enumerate(texts))
    return f"""
WITH chosen AS (
    SELECT *, CASE {place} END AS named FROM runs WHERE {is_of_runs(texts)}
), ordered AS (
    SELECT *, row_number() OVER (ORDER BY named, started DESC NULLS LAST, {_RUN}) AS place FROM chosen
), matched AS (
    SELECT {_names("a")}, {_names("b", "_before")}, a.judged > 0 AND b.judged > 0 AS is_judged
    FROM ordered AS a JOIN ordered AS b ON b.place = 1 AND a.place > 1
), {_summed()}
SELECT r.node_id, r.suite, r.run_id, r.run_instance_id, r.started, r.outcome, r.cases, r.completed, r.judged, r.passed,
    r.pass_rate, r.scores, r.mean_score, r.duration_s, {_results("s")}
FROM ordered AS r LEFT JOIN summed AS s ON {_is_run("s", "r")} ORDER BY r.place"""


def _names(table: str, suffix: str = "") -> str:
    return ", ".join(f"{table}.{name} AS {name}{suffix}" for name in RUN)


def _is_run(one: str, other: str, suffix: str = "") -> str:
    return " AND ".join(f"{one}.{name}{suffix} IS NOT DISTINCT FROM {other}.{name}" for name in RUN)


def _summed() -> str:
    """Return the table expressions over `matched`, which has pairs of runs: `summed` has a row for each pair."""
    keys = ", ".join(f"m.{name}{suffix}" for suffix in ("", "_before") for name in RUN)
    verdict = (
        "CASE WHEN outcome = 'skipped' OR attempts = 0 THEN NULL WHEN passed THEN 1 "
        "WHEN passed IS NOT NULL OR outcome IS DISTINCT FROM 'completed' THEN 0 END"
    )
    columns = f"{_RUN}, case_id, score, {verdict} AS verdict"
    value = "CASE WHEN m.is_judged THEN {0}.verdict ELSE {0}.score END"
    both = "CASE WHEN value IS NOT NULL AND value_before IS NOT NULL THEN {} END"
    return f"""said AS (
    SELECT {columns} FROM cases
), pairs AS (
    SELECT {keys}, m.is_judged, {value.format("c")} AS value, {value.format("o")} AS value_before
    FROM matched AS m JOIN said AS c ON {_is_run("m", "c")}
    JOIN said AS o ON {_is_run("m", "o", "_before")} AND o.case_id = c.case_id
), summed AS (
    SELECT {keys.replace("m.", "")}, is_judged, count(*) AS shared, count(value - value_before) AS n,
        count(CASE WHEN value > value_before THEN 1 END) AS better,
        count(CASE WHEN value < value_before THEN 1 END) AS worse,
        count(CASE WHEN value = value_before THEN 1 END) AS same, avg({both.format("value")}) AS value,
        avg({both.format("value_before")}) AS value_before, avg(value - value_before) AS change,
        stddev_samp(value - value_before) AS deviation
    FROM pairs GROUP BY {keys.replace("m.", "")}, is_judged
)"""


def _results(table: str) -> str:
    """Return the columns of results of a row of `summed`."""
    half = f"{t_quantile(f'{table}.n')} * {table}.deviation / sqrt({table}.n)"
    most = f"CASE WHEN {table}.is_judged THEN 1.0 ELSE 1e300 END"
    measure = (
        f"CASE WHEN {table}.is_judged THEN 'pass_rate' WHEN {table}.n IS NOT NULL THEN 'mean_score' END AS measure"
    )
    sums = ", ".join(f"{table}.{name}" for name in _SUMS.split(", "))
    return f"""{measure}, {sums},
    CASE WHEN {table}.n > 2 THEN greatest(-({most}), {table}.change - {half}) END AS low,
    CASE WHEN {table}.n > 2 THEN least({most}, {table}.change + {half}) END AS high"""
