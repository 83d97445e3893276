"""Turn facts into the rows and words of the page, for the templates and the scripts."""

from __future__ import annotations

from collections.abc import Container, Sequence
from functools import cached_property
from typing import Any

from calyx_logging.core.text import count_text, runs_text
from calyx_logging.core.times import utc_text
from calyx_logging.format.completeness import Verdict, WriterAudit, findings, worst
from calyx_logging.report._rendering import (
    ago,
    cell,
    clipped,
    duration,
    fill,
    for_script,
    frame,
    milliseconds,
    moment_of,
    number,
    percent,
    when,
)
from calyx_logging.report._results import changes, heat_map
from calyx_logging.report.collect import MAX_NODES_SHOWN, MAX_ROWS, Answer, Facts
from calyx_logging.report.events import Packed
from calyx_logging.report.health import Condition
from calyx_logging.report.runs import run_key

__all__ = ["PROCESS", "Sheet", "run_rows"]

_MAX_FINDINGS = 20
_MAX_RUN_CHARACTERS = 1_000_000
_OUTCOMES = (("passed", "✓"), ("completed", "●"), ("failed", "✗"), ("timeout", "◷"), ("incomplete", "…"))
_RUN = (
    *("suite", "run_id", "run_instance_id", "started", "ended", "events", "errors", "cases", "completed", "skipped"),
    *("judged", "passed", "scores", "mean_score", "cases_expected", "exit_status", "outcome", "duration_s"),
)
PROCESS = (
    *("process", "host", "user", "program", "cwd", "python", "platform", "pid", "git_commit", "git_dirty"),
    "packages_sha256",
    *("cpu", "cpus", "memory_bytes", "ts", "ended", "reason", "exit_code", "signal", "exception_type"),
)


class Sheet:
    """A page to be made of facts.

    Args:
        facts: what it shows.
        made_at: seconds since the epoch.
        version: of the program.
        cases: packed.
        details: processes and envelopes of runs, packed.
        again: options of the command that makes this page again.
        live: for a page that a server shows: its `version`, and whether it `follows` what is written.
    """

    def __init__(
        self,
        facts: Facts,
        made_at: float,
        version: str,
        cases: str,
        details: str,
        again: Sequence[str] = (),
        live: dict[str, Any] | None = None,
    ) -> None:
        self.live = live
        self.facts, self.made_at, self.version, self.cases = facts, made_at, version, cases
        self.details = details
        self._again = facts.source.command("report" if live is None else "view", *again)
        self._conditions = {condition.node_id: condition for condition in facts.conditions}
        self._values = self._all_values()

    def render(self, packed: list[Packed]) -> bytes:
        """Render the page with these events."""
        from markupsafe import Markup

        blobs = {one.key: {"events": one.events, "count": one.count} for one in packed}
        data = [{"key": one.key, "data": Markup(one.data)} for one in packed]  # base64
        values = {
            **frame(is_live=self.live is not None),
            **self._values,
            "packed": data,
            "facts": for_script({**self._for_scripts(), "blobs": blobs}),
        }
        return fill(values)

    # -------------------------------------------------------------- for the templates

    def _all_values(self) -> dict[str, Any]:
        from markupsafe import Markup

        facts, source = self.facts, self.facts.source
        runs = facts.answers["runs"]
        what = {"outbox": "the outbox of", "hub": "the hub at"}.get(source.place, "the bundle")
        outcomes = {row["outcome"]: row for row in facts.outcomes}
        nodes = self._nodes()
        to_be_shown = [node for node in nodes if node["findings"] or node["state"] != "fine"]
        writers = self._writers()
        changed = changes(facts.answers["changes"].rows, {run_key(row) for row in self._run_rows})
        return {
            "live": self.live,
            "title": source.where,
            "what": what,
            "where": source.where,
            "version": self.version,
            "made_at": utc_text(self.made_at),
            "command": self._again,
            "warnings": facts.warnings[:_MAX_FINDINGS],
            "nothing": not facts.totals["events"],
            "verdict": self._verdict(nodes, outcomes),
            "totals": self._totals(outcomes),
            "leaderboard": heat_map(facts.answers["leaderboard"].rows),
            "changes": Answer("changes", changed[:MAX_ROWS], len(changed)),
            "nodes": nodes[:MAX_NODES_SHOWN],
            "nodes_left_out": facts.node_count - len(nodes[:MAX_NODES_SHOWN]),
            "run_count": runs.count,
            "runs_left_out": runs.count - len(self._run_rows),
            "outcome_names": [
                {"name": name, "sign": sign, "count": outcomes.get(name, {}).get("runs", 0)} for name, sign in _OUTCOMES
            ],
            "all_chosen": runs.count == len(facts.chosen) or self.live is not None,
            "chosen_text": "one" if len(facts.chosen) == 1 else f"{len(facts.chosen):,}",
            "answers": facts.answers,
            "queries": self._queries(),
            "unit": facts.unit,
            "activity": facts.activity,
            "activity_said": self._activity_said(),
            "findings": [
                {
                    "node_id": node["node_id"],
                    "verdict": node["verdict"],
                    "texts": node["findings"],
                    "left_out": node["finding_count"] - len(node["findings"]),
                }
                for node in to_be_shown[:MAX_ROWS]
            ],
            "findings_left_out": max(0, len(to_be_shown) - MAX_ROWS),
            "conditions_known": bool(nodes) and all(node["is_known"] for node in nodes),
            "warnings_left_out": max(0, len(facts.warnings) - _MAX_FINDINGS),
            "writers": Answer("writers", writers[:MAX_ROWS], len(writers)),
            "is_hub": source.place == "hub",
            "refused": Answer("refused", [vars(one) for one in facts.refused[:MAX_ROWS]], len(facts.refused)),
            "cases": Markup(self.cases),  # base64
            "details": Markup(self.details),
        }

    def _verdict(self, nodes: list[dict[str, Any]], outcomes: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
        """Return the summary at the top of the page."""
        lines: list[dict[str, str]] = []

        def say(state: str, text: str) -> None:
            lines.append({"state": state, "text": text})

        if not self.facts.was_looked_at:
            say("some", "Checking whether anything is missing.")
        elif nodes:
            say(*_on_completeness([_verdict_on(self._conditions.get(node["node_id"])) for node in nodes]))
        if self.facts.refused:
            say("problem", f"{_counted(len(self.facts.refused), 'bundle')} refused.")
        if outcomes:
            runs = sum(row["runs"] for row in outcomes.values())
            words = {"failed": "failed", "timeout": "timed out", "incomplete": "did not complete"}
            parts = [f"{outcomes[name]['runs']:,} {word}" for name, word in words.items() if name in outcomes]
            every = "all passed" if set(outcomes) == {"passed"} else "all completed"
            said = f"Of {_counted(runs, 'run')} {', '.join(parts)}." if parts else f"{_counted(runs, 'run')}, {every}."
            say("problem" if parts else "fine", said)
        return lines

    def _totals(self, outcomes: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
        totals, sums = self.facts.totals, dict.fromkeys(("runs", "cases", "completed", "judged", "passed"), 0)
        for row in outcomes.values():
            for name in sums:
                sums[name] += row[name]
        seconds = sum(row["seconds"] or 0 for row in outcomes.values())
        rate = f"{number(sums['completed'])} completed" if sums["cases"] else ""
        if sums["judged"]:
            rate += f"; {percent(sums['passed'] / sums['judged'])} of {number(sums['judged'])} passed"
        found = [
            ("Nodes", number(self.facts.node_count), ""),
            ("Runs", number(sums["runs"]), f"{duration(seconds)} in all" if sums["runs"] else ""),
            ("Cases", number(sums["cases"]), rate),
            ("Events", number(totals["events"] or 0), ""),
            ("Errors", number(totals["errors"] or 0), ""),
            ("Warnings", number(totals["warnings"] or 0), ""),
            ("Last event", when(totals["last_ts"]), ago(totals["last_ts"], self.made_at)),
        ]
        if self.facts.bad_lines:
            found.append(("Lines that are no events", number(self.facts.bad_lines), ""))
        if self.facts.undated:
            found.append(("Events without a time", number(self.facts.undated), ""))
        return [{"name": name, "value": value, "more": more} for name, value, more in found]

    def _nodes(self) -> list[dict[str, Any]]:
        """Return the nodes' rows, those with problems first."""
        rows = {row["node_id"]: row for row in self.facts.answers["nodes"].rows}
        names = [*rows, *(name for name in self._conditions if name not in rows)]
        rows_of_nodes = [self._node_row(name, rows.get(name), self._conditions.get(name)) for name in names]
        order = {"problem": 0, "some": 1, "fine": 2}
        return sorted(rows_of_nodes, key=lambda row: (order[row["state"]], str(row["node_id"])))

    def _node_row(self, node_id: str | None, row: dict[str, Any] | None, condition: Condition | None) -> dict[str, Any]:
        nothing = None if self.facts.answers["nodes"].left_out else 0
        numbers = row or {"events": nothing, "errors": nothing, "runs": nothing, "first_ts": None, "last_ts": None}
        verdict = _verdict_on(condition)
        texts = [] if condition is None else [*findings(condition.audit), *condition.notes]
        ahead = 0.0 if condition is None else condition.clock_ahead_s or 0.0
        is_fine = verdict is not None and verdict.kind in ("complete", "complete so far") and ahead <= 0
        is_bad = verdict is not None and verdict.is_bad
        return {
            "node_id": "(none)" if node_id is None else node_id,
            **{name: numbers[name] for name in ("events", "errors", "runs", "first_ts", "last_ts")},
            "age": ago(numbers["last_ts"], self.made_at),
            "is_known": verdict is not None,
            "verdict": "not looked at" if verdict is None else str(verdict),
            "state": "problem" if is_bad else "fine" if is_fine else "some",
            "delivery": () if condition is None else [one for one in condition.delivery if one.chunks],
            "bundles": None if condition is None else condition.bundles,
            "last_bundle": None if condition is None else condition.last_bundle,
            "clock": None if condition is None else condition.clock,
            "clock_is_ahead": ahead > 0,
            "findings": texts[:_MAX_FINDINGS],
            "finding_count": len(texts),
        }

    def _writers(self) -> list[dict[str, Any]]:
        """Return rows of the writers that are incomplete or lost events."""
        return [
            {
                "node_id": condition.node_id,
                "writer": writer.writer,
                "state": writer.state,
                "events": writer.events,
                "chunks": writer.chunks,
                "holes": _holes(writer) or "–",
                "not_kept": "; ".join(f"{n} ({why})" for why, n in writer.gaps.items()) or "–",
            }
            for condition in self.facts.conditions
            for writer in condition.audit.writers
            if writer.state != "complete" or writer.gaps
        ]

    def _queries(self) -> dict[str, str]:
        source = self.facts.source
        of_name = {name: source.command("query", "--named", name) for name in self.facts.answers}
        return {
            **of_name,
            "choose": source.command("report", "--run", "RUN"),
            "audit": source.audit_command(),
            "writers": source.audit_command() if source.place == "hub" else "",
            "activity": source.command("query", "--named", f"events-by-{self.facts.unit}"),
            "cases": source.command("query", "--named", "cases"),
            "errors": source.command("query", "SELECT * FROM events WHERE level IN ('error', 'critical') ORDER BY ts"),
            "outside": source.command("query", "SELECT * FROM events WHERE run_id IS NULL ORDER BY ts"),
        }

    def _activity_said(self) -> str:
        if not self.facts.activity:
            return ""
        most = max(self.facts.activity, key=lambda point: point[1])
        of_all = sum(point[1] for point in self.facts.activity)
        when = moment_of(most[0])
        at = "" if when is None else f", at {when:%Y-%m-%d %H:%M} UTC"
        return f"{of_all:,} events; the most in one {self.facts.unit}: {most[1]:,}{at}."

    # -------------------------------------------------------------- for the scripts

    @cached_property
    def _run_rows(self) -> list[dict[str, Any]]:
        """Return rows of the runs in the page: the newest and the chosen ones."""
        rows = {run_key(row): row for row in [*self.facts.chosen, *self.facts.answers["runs"].rows]}
        kept, room = [], _MAX_RUN_CHARACTERS
        for row in rows.values():
            room -= len(for_script([100 * " ", *(cell(row[name]) for name in _RUN)]))
            if room < 0:
                break
            kept.append(row)
        return kept

    def _for_scripts(self) -> dict[str, Any]:
        facts, source = self.facts, self.facts.source
        rows = sorted(self._run_rows, key=lambda row: milliseconds(row["ended"]) or 0, reverse=True)
        chosen = {run_key(row) for row in (facts.chosen if self.live is None else rows)}
        return {
            **({} if self.live is None else {"live": self.live}),
            "unit_ms": {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}[facts.unit],
            "activity": [[milliseconds(at), events, errors] for at, events, errors in facts.activity],
            **run_rows(rows, chosen),
            "case_counts": facts.case_counts if self.live is None else {run_key(row): row["cases"] for row in rows},
            "process_counts": facts.process_counts,
            "show": source.command("show"),
            "report": source.command("report"),
            "query": source.command("query"),
            "query_processes": source.command("query", "--named", "processes"),
            "query_cases": source.command("query", "--named", "cases"),
        }


def run_rows(rows: list[dict[str, Any]], chosen: Container[str] | None = None) -> dict[str, Any]:
    """Return runs as the page's scripts take them: `runs`, and the `nodes` that they refer to by number.

    Args:
        rows: of the named query `runs`.
        chosen: keys of those that are shown whole; None for all.
    """
    nodes = list(dict.fromkeys(row["node_id"] for row in rows))
    index = {node: number for number, node in enumerate(nodes)}
    keyed = [(run_key(row), row) for row in rows]
    return {
        "nodes": [clipped(node) for node in nodes],
        "runs": [
            [key, index[row["node_id"]], *(cell(row[name]) for name in _RUN), chosen is None or key in chosen]
            for key, row in keyed
        ],
    }


def _verdict_on(condition: Condition | None) -> Verdict | None:
    return None if condition is None or condition.why_not is not None else condition.audit.verdict


def _on_completeness(verdicts: list[Verdict | None]) -> tuple[str, str]:
    """Sum up the nodes' verdicts (None: not looked at): the state of the sentence, and the sentence."""
    known = [verdict for verdict in verdicts if verdict is not None]
    one, whole = len(verdicts) == 1, worst(known)
    lost = sum(verdict.lost for verdict in known)
    said = f" {_counted(lost, 'event')} {'was' if lost == 1 else 'were'} lost before being written." if lost else ""
    if wrong := sum(verdict.kind == "incomplete" for verdict in known):
        what = f"Something is missing: {', '.join(whole.missing)}."
        return "problem", (what if one else f"{wrong:,} of {len(verdicts):,} nodes are incomplete.") + said
    if lost:
        return "problem", said.strip() if one else f"{said.strip()} Everything else known is here."
    if unknown := len(verdicts) - len(known):
        return "problem", f"Whether anything is missing is not known of {_counted(unknown, 'node')}."
    if tails := sum(verdict.kind == "complete but for unknown tails" for verdict in known):
        whose = "a killed process" if one else f"killed processes on {_counted(tails, 'node')}"
        return "some", f"No event is known to be missing; the last events of {whose} are unknown."
    return "fine", "No event is known to be missing." if one else f"All {len(verdicts):,} nodes are complete."


def _counted(count: int, thing: str) -> str:
    return count_text(count, thing, separator=",")


def _holes(writer: WriterAudit) -> str:
    missing = (("seq", writer.missing_seqs), ("chunks", writer.missing_chunks))
    return "; ".join(f"{what} {runs_text(runs)}" for what, runs in missing if runs)
