"""Results: who is best, how sure that is, what has changed; a verdict is the harness's, a score is a number."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest

from calyx_logging.errors import ConfigError
from calyx_logging.events.event import encode, with_seq
from calyx_logging.format.reader import ChunkRef

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

from calyx_logging.query.duckdb_views import connect_chunks
from calyx_logging.query.named import run_named

CHUNK = "20261122_080000__harness__3f9a1c20-0000.jsonl"
T = {2: 4.302653, 3: 3.182446, 9: 2.262157}
"""Quantiles of Student's t for 95 %, by degrees of freedom (NIST/SEMATECH e-Handbook, 1.3.6.7.2)."""


def ask(
    folder: Path, name: str, session: list[tuple[dict[str, Any], list[dict[str, Any]]]], **arguments: Any
) -> list[dict[str, Any]]:
    """Return the rows of a named query, of runs with their cases, one run after the other."""
    events = []
    for number, (run, cases) in enumerate(session):
        own = {"suite": "s", "run_id": "r", "run_instance_id": f"i-{number}", **run}
        events.append({**own, "stage": "run_started"})
        for n, case in enumerate(cases):
            events.append({**own, "stage": "case_ended", "case_id": str(n), "outcome": "completed", **case})
        events.append({**own, "stage": "run_ended", "exit_status": "normal"})
    lines = []
    for seq, event in enumerate(events):
        stamp = {"node_id": "n-1", "ts_utc": f"2026-11-22T08:00:00.{seq:06d}+00:00", "event_id": f"id-{seq}"}
        lines.append(with_seq(encode({**stamp, "source": "bench_harness", "level": "info", **event}), seq))
    path = folder / CHUNK
    path.write_bytes(b"".join(lines))
    return run_named(connect_chunks([ChunkRef(path, "n-1")], plain=True), name, **arguments).to_pylist()


def passing(passed: int, n: int) -> list[dict[str, Any]]:
    return [{"passed": k < passed} for k in range(n)]


def scoring(*scores: float) -> list[dict[str, Any]]:
    return [{"score": score} for score in scores]


@pytest.mark.parametrize(
    ("passed", "n", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0000),
    ],
)
def test_the_interval_of_a_pass_rate(tmp_path: Path, passed: int, n: int, low: float, high: float) -> None:
    """Wilson's score interval, as published."""
    (row,) = ask(tmp_path, "leaderboard", [({"model": "m"}, passing(passed, n))])
    assert (row["measure"], row["value"], row["n"]) == ("pass_rate", passed / n, n)
    assert (row["low"], row["high"]) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


@pytest.mark.parametrize("scores", [(0.1, 0.4, 0.9), (0.1, 0.2, 0.3, 0.9), tuple(k / 10 for k in range(10))])
def test_the_interval_of_a_mean_score(tmp_path: Path, scores: tuple[float, ...]) -> None:
    """Student's t, within a hundredth of its width."""
    (row,) = ask(tmp_path, "leaderboard", [({"model": "m"}, scoring(*scores))])
    assert (row["measure"], row["n"], row["judged"], row["passed"]) == ("mean_score", len(scores), 0, 0)
    half = T[len(scores) - 1] * statistics.stdev(scores) / len(scores) ** 0.5
    assert row["value"] == pytest.approx(statistics.mean(scores))
    assert row["stddev_score"] == pytest.approx(statistics.stdev(scores))
    assert row["high"] - row["value"] == pytest.approx(half, rel=0.01)
    assert row["value"] - row["low"] == pytest.approx(half, rel=0.01)


@pytest.mark.parametrize("scores", [(), (0.5,), (0.5, 0.7), (1e300, 1e308), (float("nan"),)])
def test_too_little_for_an_interval(tmp_path: Path, scores: tuple[float, ...]) -> None:
    """No interval of fewer than three scores; absurd ones count as none, and spoil nothing."""
    (row,) = ask(tmp_path, "models", [({"model": "m"}, [{}, *scoring(*scores)])])
    assert (row["score_low"], row["score_high"], row["pass_rate"], row["pass_low"]) == (None, None, None, None)
    assert row["scores"] == sum(score < 1 for score in scores)


def test_the_best_comes_first(tmp_path: Path) -> None:
    """By suite; where a suite is judged all its models are measured by that, and cases without a model have a row."""
    rows = ask(
        tmp_path,
        "leaderboard",
        [
            ({"model": "worse"}, passing(1, 4)),
            ({"model": "better"}, passing(3, 4)),
            ({}, passing(2, 4)),
            ({"model": "unjudged"}, scoring(1.0, 1.0)),
            ({"model": "x", "suite": "scored"}, scoring(0.2, 0.4)),
            ({"model": "y", "suite": "scored"}, scoring(0.3, 0.5)),
        ],
    )
    assert [(row["suite"], row["model"], row["measure"], row["value"], row["n"]) for row in rows] == [
        ("s", "better", "pass_rate", 0.75, 4),
        ("s", None, "pass_rate", 0.5, 4),
        ("s", "worse", "pass_rate", 0.25, 4),
        ("s", "unjudged", "pass_rate", None, 0),
        ("scored", "y", "mean_score", pytest.approx(0.4), 2),
        ("scored", "x", "mean_score", pytest.approx(0.3), 2),
    ]


def test_what_did_not_complete_did_not_pass(tmp_path: Path) -> None:
    """It counts as judged where anything is; a verdict before an exception does not hold, nor one of a skipped case."""
    cases = [
        {"passed": True},
        {"passed": True, "outcome": "error"},
        {"outcome": "timeout"},
        {},
        {"passed": False, "outcome": "skipped"},
    ]
    (run,) = ask(tmp_path, "runs", [({}, cases)])
    assert [run[name] for name in ("cases", "completed", "skipped", "judged", "passed")] == [5, 2, 1, 3, 1]
    assert (run["pass_rate"], run["outcome"]) == (pytest.approx(1 / 3), "failed")
    found = ask(tmp_path, "cases", [({}, cases)])
    assert [row["passed"] for row in found] == [True, False, None, None, None]


def test_all_views_agree_on_who_was_judged(tmp_path: Path) -> None:
    """Where all of a run crashed in a suite that is judged, all failed; where others completed, nothing is said."""
    crashed: list[dict[str, Any]] = [{"outcome": "error"}] * 10
    session: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        ({"model": "m"}, passing(10, 10)),
        ({"model": "m"}, crashed),
        ({"run_id": "b", "model": "broken"}, crashed),
        ({"run_id": "u", "model": "unjudged"}, [*scoring(0.1, 0.2), {"outcome": "error"}]),
        ({"run_id": "o", "model": "other", "suite": "scored"}, [*scoring(0.1), {"outcome": "error"}]),
    ]
    (suite, scored) = ask(tmp_path, "suites", session)
    assert (suite["suite"], suite["judged"], suite["passed"], scored["judged"]) == ("s", 30, 10, 0)
    best = ask(tmp_path, "leaderboard", session)
    assert [(row["model"], row["value"], row["n"]) for row in best if row["suite"] == "s"] == [
        ("m", 0.5, 20),
        ("broken", 0.0, 10),
        ("unjudged", None, 0),
    ]
    assert sum(row["judged"] for row in best) == sum(row["judged"] for row in ask(tmp_path, "runs", session)) == 30
    assert sum(row["judged"] for row in ask(tmp_path, "leaderboard-by-node", session)) == 30
    (change,) = ask(tmp_path, "changes", session)
    assert (change["measure"], change["change"], change["worse"]) == ("pass_rate", -1, 10)


def test_what_has_changed(tmp_path: Path) -> None:
    """The last two runs of each configuration on a node, by the cases that both have; others are left out."""
    rows = ask(
        tmp_path,
        "changes",
        [
            ({}, passing(1, 2)),
            ({}, passing(48, 80)),
            ({}, passing(56, 70)),
            ({"run_id": "once"}, passing(1, 2)),
            ({"run_id": "once", "node_id": "n-2"}, passing(2, 2)),
            ({"run_id": "empty"}, []),
            ({"run_id": "empty"}, passing(1, 2)),
            ({"run_id": "scored", "suite": None}, scoring(0.1, 0.2, 0.3)),
            ({"run_id": "scored", "suite": None}, scoring(0.4, 0.5)),
            ({"run_id": "stopped"}, passing(3, 10)),
            ({"run_id": "stopped"}, passing(3, 6)),
        ],
    )
    assert [(row["suite"], row["run_id"], row["measure"]) for row in rows] == [
        ("s", "r", "pass_rate"),
        ("s", "stopped", "pass_rate"),
        (None, "scored", "mean_score"),
    ]
    judged, stopped, scored = rows
    assert (judged["run_instance_id"], judged["run_instance_id_before"]) == ("i-2", "i-1")
    assert (judged["value"], judged["value_before"], judged["n"]) == (0.8, 48 / 70, 70)
    assert (judged["shared"], judged["better"], judged["worse"], judged["same"]) == (70, 8, 0, 62)
    assert judged["change"] == pytest.approx(8 / 70)
    half = 1.994945 * statistics.stdev([1] * 8 + [0] * 62) / 70**0.5  # Student's t with 69 degrees of freedom
    assert judged["low"] == pytest.approx(8 / 70 - half, rel=1e-3)
    assert judged["high"] == pytest.approx(8 / 70 + half, rel=1e-3)
    assert (stopped["n"], stopped["change"], stopped["low"], stopped["high"]) == (6, 0, 0, 0)
    assert (scored["n"], scored["value"], scored["change"]) == (2, pytest.approx(0.45), pytest.approx(0.3))
    assert (scored["low"], scored["high"]) == (None, None)


def test_runs_beside_the_first(tmp_path: Path) -> None:
    """By the cases that both have: verdicts where both are judged, else scores; intervals of paired differences."""
    first = [{"passed": True}, {"passed": True}, {"passed": False}, {"outcome": "error"}, {"outcome": "skipped"}]
    second = [{"passed": False}, {"passed": True}, {"passed": True}, {"passed": True}, {"passed": True}, {}]
    scores, others = (0.1, 0.5, 0.7, 0.2), (0.4, 0.5, 0.1, 0.9, 1.0)
    runs: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        ({"run_id": "a"}, first),
        ({"run_id": "b"}, second),
        ({"run_id": "c"}, scoring(*scores)),
        ({"run_id": "d"}, scoring(*others)),
    ]
    base, other = ask(tmp_path, "compare", runs, runs=["a", "b"])
    assert (base["run_id"], base["judged"], base["passed"], base["shared"]) == ("a", 4, 2, None)
    assert [other[name] for name in ("run_id", "shared", "n", "better", "worse", "same")] == [*("b", 5, 4, 2, 1, 1)]
    assert other["change"] == 0.25
    half = T[3] * statistics.stdev([-1, 0, 1, 1]) / 2
    assert (other["low"], other["high"]) == (pytest.approx(max(-1, 0.25 - half)), 1)
    base, same, other = ask(tmp_path, "compare", runs, runs=["c", "i-2", "d", "b"])[:3]
    assert [row["run_id"] for row in (base, same, other)] == ["c", "d", "b"]
    assert (same["shared"], same["n"], same["better"], same["worse"], same["same"]) == (4, 4, 2, 1, 1)
    differences = [new - old for new, old in zip(others, scores, strict=False)]
    assert same["change"] == pytest.approx(statistics.mean(differences))
    half = T[3] * statistics.stdev(differences) / 2
    assert same["high"] == pytest.approx(same["change"] + half, rel=0.01)
    assert (other["shared"], other["n"], other["change"], other["low"]) == (4, 0, None, None)


def test_runs_that_cannot_be_compared(tmp_path: Path) -> None:
    """A run that is not there is named; one alone has nothing beside it."""
    runs: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [({"run_id": "a'b"}, passing(1, 2)), ({}, passing(1, 2))]
    with pytest.raises(ConfigError, match="there is no run 'none'"):
        ask(tmp_path, "compare", runs, runs=["a'b", "none"])
    with pytest.raises(ConfigError, match="there is one run with that id"):
        ask(tmp_path, "compare", runs, runs=["a'b"])
    for name, arguments in (("compare", {}), ("runs", {"runs": ["r"]}), ("case", {}), ("around", {"case_id": "0"})):
        with pytest.raises(ConfigError, match="needs --"):
            ask(tmp_path, name, runs, **arguments)
    assert [row["run_id"] for row in ask(tmp_path, "compare", runs, runs=["a'b", "r"])] == ["a'b", "r"]


def test_a_case_in_all_runs(tmp_path: Path) -> None:
    """As it last ended in each."""
    runs: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        ({"model": "x"}, [{"case_id": "it's", "score": 0.5}]),
        ({"model": "y"}, [{"case_id": "it's", "passed": True}, {"case_id": "other"}]),
    ]
    rows = ask(tmp_path, "case", runs, case_id="it's")
    assert [(row["model"], row["score"], row["passed"]) for row in rows] == [("x", 0.5, None), ("y", None, True)]
    assert ask(tmp_path, "case", runs, case_id="none") == []
