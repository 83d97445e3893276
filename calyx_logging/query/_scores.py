"""The SQL of results of cases: how many completed, were judged and passed, their scores, and how sure that is.

A case that ended is completed if its `outcome` is `completed`, and skipped if that is `skipped`. It passed only if the
harness said so (`passed`), and it is completed. In a run in which any case was judged, one that did not complete counts
as judged and not passed; so do the cases of a run of which none completed, if its suite is judged elsewhere. In other
runs nothing is judged, and there is no pass rate. A score is not a verdict.
"""

from __future__ import annotations

__all__ = ["COUNTS", "OF_CASES", "OF_EVENTS", "RATE", "count", "intervals", "judged_of", "t_quantile"]

_Z = 1.959964
"""Quantile of the normal distribution for an interval of 95 %."""

RATE = "CASE WHEN judged > 0 THEN passed / judged END AS pass_rate"

COUNTS = ("cases", "completed", "skipped", "judged", "passed", "scores")
"""Columns of results that can be summed."""


def count(condition: str) -> str:
    """Return the SQL that counts the rows for which a condition is true."""
    return f"count(CASE WHEN {condition} THEN 1 END)"


def _counts(is_end: str) -> str:
    """Return aggregates over rows, of which some are ends of cases; scores too large to be squared count as none."""
    score = f"CASE WHEN {is_end} AND score BETWEEN -1e100 AND 1e100 THEN score END"
    return f"""
        {count(is_end)} AS cases, {count("is_completed")} AS completed, {count("is_skipped")} AS skipped,
        count({score}) AS scores, avg({score}) AS mean_score, stddev_samp({score}) AS stddev_score"""


OF_CASES = f"{_counts('true')}, count(judgement) AS judged, {count('judgement')} AS passed"
"""Aggregates over rows of `ends`."""

OF_EVENTS = f"""{_counts("has_ended")}, {count("verdict")} AS passed, count(verdict) AS verdicts,
        {count("has_ended AND verdict IS NULL AND NOT is_completed AND NOT is_skipped")} AS broken"""
"""Aggregates over rows of `run_events` of a run; `judged_of` says how many of `broken` were judged."""


def judged_of(runs: str) -> str:
    """Return the column `judged` of a run; `runs` is the SQL of a window over the runs of its suite."""
    return f"""verdicts + CASE WHEN verdicts > 0 OR (sum(verdicts) OVER ({runs}) > 0 AND completed = 0) THEN broken
        ELSE 0 END AS judged"""


def _double(value: float) -> str:
    """Return a number with an exponent, so that no engine takes it for a decimal one."""
    return f"{value:.12e}"


def intervals() -> str:
    """Return columns with the 95 % intervals of `pass_rate` (Wilson) and `mean_score` (Student's t, from 3 scores)."""
    z = _Z
    whole = f"(judged + {_double(z * z)})"
    middle = f"(passed + {_double(z * z / 2)}) / {whole}"
    half = f"{_double(z)} * sqrt(passed * CAST(judged - passed AS DOUBLE) / judged + {_double(z * z / 4)}) / {whole}"
    rate = f"CASE WHEN judged > 0 THEN {middle} {{}} {half} END AS pass_{{}}"
    t = t_quantile("scores")
    mean = f"CASE WHEN scores > 2 THEN mean_score {{}} {t} * stddev_score / sqrt(scores) END AS score_{{}}"
    ends = (("-", "low"), ("+", "high"))
    return ", ".join([*(rate.format(*end) for end in ends), *(mean.format(*end) for end in ends)])


def t_quantile(count: str) -> str:
    """Return the quantile of Student's t for a two-sided 95 % interval of a mean of `count` numbers.

    It is the expansion around the normal quantile (Abramowitz and Stegun, 26.7.5), within 1 % from three numbers on.
    """
    z = _Z
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    powers = [f"{_double(term)} / pow({count} - 1, {power})" for power, term in enumerate(terms, 1)]
    return f"({' + '.join([_double(z), *powers])})"
