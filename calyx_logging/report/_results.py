"""Results for the page's first screen: models by suites as a heat map, and what changed since the last run.

Every number is a named query's (`leaderboard`, `changes`); here they are put in rows and columns, and into words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from typing import Any

from calyx_logging.report._rendering import percent, score
from calyx_logging.report.runs import run_key

__all__ = ["changes", "heat_map"]

_MAX_SUITES = 12
_MAX_MODELS = 25
_SHADES = 10
_NEAR = 0.2
"""A range of values from 0 to 1 that is not to look larger than it is."""

Row = dict[str, Any]


def heat_map(rows: list[Row]) -> dict[str, Any]:
    """Arrange the leaderboard: a column for each suite, a row for each model, the best first.

    Suites with the most cases come first. A cell's shade goes from 1, the lowest value of its suite, to 10, the
    highest; values from 0 to 1 that are all near the highest have the upper shades. Models are in the order of their
    mean shade.

    Args:
        rows: of the named query.

    Returns:
        `suites`, each with `name` and `measure`; `models`, each with `name` and `cells` (None: no value); and how many
        of both are left out.
    """
    cases: dict[str | None, int] = {}
    for row in rows:
        cases[row["suite"]] = cases.get(row["suite"], 0) + row["cases"]
    names = sorted(cases, key=lambda suite: (-cases[suite], str(suite)))
    suites, cells = [], dict[tuple[Any, Any], Row]()
    for suite in names[:_MAX_SUITES]:
        of_suite = [row for row in rows if row["suite"] == suite]
        unjudged = [row for row in of_suite if not _is_number(row["value"]) and row["scores"]]
        cells |= {(row["model"], suite): _unjudged(row) for row in unjudged}
        some = [row for row in of_suite if _is_number(row["value"])]
        shade_of = _shading([row["value"] for row in some])
        best = max((row["value"] for row in some), default=None)
        for row in some:
            is_best = row["value"] == best and len(some) > 1
            cells[row["model"], suite] = {**_cell(row), "shade": shade_of(row["value"]), "is_best": is_best}
        suites.append({"name": suite, "measure": some[0]["measure"] if some else "mean_score"})
    models: dict[str | None, list[int]] = {}
    for (model, _), cell in cells.items():
        models.setdefault(model, []).append(cell.get("shade", 0))
    ordered = sorted(models, key=lambda model: (-sum(models[model]) / len(models[model]), str(model)))
    shown = names[:_MAX_SUITES]
    return {
        "suites": suites,
        "models": [
            {"name": model, "cells": [cells.get((model, suite)) for suite in shown]} for model in ordered[:_MAX_MODELS]
        ],
        "suites_left_out": len(names) - len(shown),
        "models_left_out": max(0, len(ordered) - _MAX_MODELS),
        "has_scores": any(suite["measure"] == "mean_score" for suite in suites),
    }


def changes(rows: list[Row], keys: Container[str]) -> list[Row]:
    """Put changes into words, clear ones first, the largest of them first.

    A change is clear if its 95 % interval does not contain 0.

    Args:
        rows: of the named query; those without two values are left out.
        keys: of the runs that have a place in the page.
    """
    found = []
    for row in rows:
        if not _is_number(row["change"]):
            continue
        is_clear = _is_number(row["low"]) and (row["low"] > 0 or row["high"] < 0)
        key = run_key(row)
        before = {"value": row["value_before"], "measure": row["measure"]}
        found.append(
            {
                **{name: row[name] for name in ("suite", "run_id", "node_id", "ended", "outcome", "change", "measure")},
                "key": key if key in keys else None,
                "now": _value(row),
                "before": _value(before),
                **{name: row[name] for name in ("n", "better", "worse", "same")},
                "is_clear": is_clear,
                "way": "same" if row["change"] == 0 else "up" if row["change"] > 0 else "down",
                "size": _signed(row["change"], row["measure"]),
                "range": _range(row["low"], row["high"], row["measure"], _signed),
            }
        )
    return sorted(
        found, key=lambda row: (not row["is_clear"], -abs(row["change"]), str(row["suite"]), row["key"] or "")
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _shading(values: list[float]) -> Callable[[float], int]:
    least, most = min(values, default=0.0), max(values, default=1.0)
    if least >= 0 and most <= 1:
        least = min(least, max(0.0, most - _NEAR))
    most_less_one = _SHADES - 1
    return lambda value: 1 + round(most_less_one * (value - least) / (most - least)) if most > least else _SHADES // 2


def _cell(row: Row) -> Row:
    return {
        "value": row["value"],
        "text": _value(row),
        "n": row["n"],
        "range": _range(row["low"], row["high"], row["measure"], _plain),
    }


def _unjudged(row: Row) -> Row:
    """Return the cell of a model whose cases have no verdict, in a suite in which others have."""
    return {"value": None, "text": f"mean score {score(row['mean_score'])}", "n": row["scores"]}


def _value(row: Row) -> str:
    return _plain(row["value"], row["measure"]) if _is_number(row["value"]) else "–"


def _plain(value: float, measure: str) -> str:
    return percent(value) if measure == "pass_rate" else score(value)


def _signed(value: float, measure: str) -> str:
    sign = "+" if value > 0 else "−" if value < 0 else "±"  # the sign for minus
    size = abs(value)
    if measure == "pass_rate":
        return f"{sign}{100 * size:.1f} points"
    return f"{sign}{size:.3f}" if size == 0 or 0.0005 <= size < 10 else f"{sign}{score(size)}"


def _range(low: Any, high: Any, measure: str, said: Callable[[float, str], str]) -> str:
    if not (_is_number(low) and _is_number(high)):
        return ""
    first, last = said(low, measure), said(high, measure)
    for unit in (" %", " points"):
        if first.endswith(unit) and last.endswith(unit):
            first = first.removesuffix(unit)
    return f"{first} to {last}"
