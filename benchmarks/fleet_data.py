"""Make a fleet's bundles of any size, and count while making them what queries must answer.

    python benchmarks/fleet_data.py FOLDER [--nodes 20] [--chunks 20] [--events 1000] [--seed 1] [--tidy]

makes FOLDER/bundles/<node_id>/<timestamp>/, to be imported with --accept-bad-lines, and FOLDER/truth.json. Each node
has `--chunks` chunks of `--events` events, and also:

- torn: in one chunk of each bundle, half a line and a line that is not JSON; neither is an event;
- repeated: every tenth chunk comes again, in a later bundle; some lines occur twice in one chunk;
- re-cut: every seventh chunk's events come again in a first-generation chunk of another name, without their `seq`;
- odd: values that are lists, nulls, deep, long or in any alphabet; ids that are not unique; times with other offsets.

With `--tidy` there is none of these. Instead there are runs of several suites and models as harnesses log them, most of
which succeed. Three nodes in fifty have a fault for a report to show: a writer with a hole, a killed writer, a missing
bundle.

Events are counted as docs/format.md says: lines that are equal apart from `seq` are the same event.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from calyx_logging.bundle.folder import sums_of
from calyx_logging.format.chunk_stats import stats_for
from calyx_logging.format.manifest import ChunkEntry, Manifest

START = datetime(2026, 3, 1, tzinfo=UTC)
PER_BUNDLE = 10
TEXTS = ["asking the model", "answer received", "scored", "Ergebnis gewertet", "結果を記録", 'naïve "quoted" \\ text\t']
ODD: list[Any] = [[1, {"a": None}], {"deep": [[[["x"]]]]}, 2**62, -0.5, True, "ü" * 50, None]


@dataclass
class Truth:
    """The expected answers of the named queries."""

    events: int = 0
    bad_lines: int = 0
    gaps: int = 0
    by_hour: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    last_errors: dict[str, list[str]] = field(default_factory=dict)
    sample: list[str] = field(default_factory=list)

    def count(self, event: dict[str, Any], moment: datetime) -> None:
        """Count one event; do not call this for control lines."""
        node, when = event["node_id"], moment.isoformat(timespec="microseconds")
        is_error = event.get("level") in ("error", "critical")
        self.events += 1
        hour = self.by_hour[f"{node} {when[:13]}"]
        hour[0] += 1
        hour[1] += is_error
        run = self.runs.setdefault(
            f"{node} {event['run_id']} {event['run_instance_id']}",
            {
                **dict.fromkeys(("events", "errors", "cases", "completed", "said", "passed", "broken"), 0),
                "exit_status": None,
                "started": when,
                "ended": when,
            },
        )
        run["events"] += 1
        run["errors"] += is_error
        if event["stage"] == "case_ended":
            is_completed = event.get("outcome") == "completed"
            run["cases"] += 1
            run["completed"] += is_completed
            run["said"] += "passed" in event
            run["passed"] += is_completed and event.get("passed", False)
            run["broken"] += not is_completed and "passed" not in event
        run["exit_status"] = event.get("exit_status", run["exit_status"])
        run["started"], run["ended"] = min(run["started"], when), max(run["ended"], when)
        if is_error:
            self.last_errors[node] = max(self.last_errors.get(node, []), [when, event["event_id"]])
        if self.events % 1009 == 1 and len(self.sample) < 100:
            self.sample.append(event["event_id"])


@dataclass
class Chunk:
    """One chunk file: its name, bytes and manifest entry."""

    name: str
    data: bytes

    @property
    def entry(self) -> ChunkEntry:
        """Return its manifest entry."""
        stats = stats_for(self.name)
        for _ in stats.through([self.data]):
            pass
        return stats.entry(self.name)


def line_of(event: dict[str, Any]) -> bytes:
    """Encode a line as our writers do."""
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def events_of(node: str, number: int, count: int, rng: random.Random) -> Iterator[tuple[dict[str, Any], datetime]]:
    """Yield the events of one run, which fills one chunk, with their times."""
    run_id, instance = f"run-{number:05d}", f"{rng.getrandbits(64):016x}"
    moment = START + timedelta(minutes=17 * number)
    for n in range(count):
        moment += timedelta(microseconds=rng.randrange(1, 400_000))
        zone = timezone(timedelta(hours=2)) if n % 211 == 0 else UTC
        is_last, ends_case = n == count - 1, n % 5 == 4
        event: dict[str, Any] = {
            "node_id": node,
            "ts_utc": moment.astimezone(zone).isoformat(timespec="microseconds"),
            # a label, which need not be unique
            "event_id": f"same-{number}" if n % 499 == 0 else f"{number:08x}-{n:08x}-{rng.getrandbits(64):016x}",
            "source": "bench_harness",
            "level": rng.choices(["info", "debug", "warning", "error", "critical"], [80, 10, 5, 4, 1])[0],
            "logger": "bench.case",
            "message": TEXTS[n % len(TEXTS)],
            "suite": "arithmetic" if number % 2 else "reading",
            "run_id": run_id,
            "run_instance_id": instance,
            "stage": "run_ended" if is_last else "case_ended" if ends_case else "case_running",
            "case_id": f"case-{n // 5:06d}",
            "score": ODD[n // 37 % len(ODD)] if n % 37 == 0 else rng.randrange(100) / 100,
            "model": "llama-3.1-8b-instruct",
            "prompt_tokens": rng.randrange(4000),
            "latency_ms": rng.random() * 3000,
            "attempt": n,
            "note": None if n % 3 else "a value that is as long as the values of real events are",
        }
        if ends_case and not is_last:
            event["outcome"] = "completed" if rng.random() < 0.9 else "failed"
            if number % 2 and n % 10 > 4:
                event["passed"] = n % 3 > 0
        if is_last:
            event["exit_status"] = "normal" if rng.random() < 0.9 else "exception"
        if event["level"] in ("error", "critical"):
            event["exception"] = [{"type": "TimeoutError", "value": f"no answer to {n}", "frames": []}]
        yield event, moment


SUITES = ("arithmetic", "reading", "tool_use", "long_context")
MODELS = {"llama-3.1-8b": 0.9, "qwen-2.5-7b": 0.95, "mistral-7b": 0.85, "phi-4-mini": 0.7}
"""The rate at which each model completes a case; its scores are the higher, the greater it is."""

JUDGED = ("arithmetic", "tool_use")
"""Suites whose cases say whether they passed."""


def tidy_events_of(node: str, number: int, count: int, rng: random.Random) -> Iterator[tuple[dict[str, Any], datetime]]:
    """Yield the events of one run as a harness logs them, five for each case."""
    suite, model = SUITES[number % len(SUITES)], rng.choice(sorted(MODELS))
    instance = f"{rng.getrandbits(64):016x}"
    moment = START + timedelta(minutes=17 * number + rng.random() * 8)
    ends = rng.choices(["normal", "timeout", "error", "incomplete", None], [88, 4, 3, 2, 3])[0]
    # a run that fails stops somewhere
    last = count if ends == "normal" else rng.randrange(max(1, count // 4), max(2, count))
    is_easy = rng.random() < 0.6
    began = case_began = moment
    for n in range(last):
        is_end, is_case_end = n == last - 1, n % 5 == 4
        moment += timedelta(microseconds=int(rng.expovariate(count / 500e6)) + 500)
        if n % 5 == 0:
            case_began = moment
        event: dict[str, Any] = {
            "node_id": node,
            "ts_utc": moment.isoformat(timespec="microseconds"),
            "event_id": f"{number:08x}-{n:08x}-{rng.getrandbits(64):016x}",
            "source": "bench_harness",
            "level": "info",
            "logger": "bench.case",
            "message": TEXTS[n % 3],
            "suite": suite,
            "run_id": f"{suite}-{model}",
            "run_instance_id": instance,
            "stage": "case_running",
            "case_id": f"{suite}-{n // 5:04d}",
            "model": model,
            "prompt_tokens": rng.randrange(4000),
        }
        if n == 0:
            event |= {"stage": "run_started", "message": "run started", "cases_expected": (count - 1) // 5}
        if is_case_end:
            is_good = is_easy or rng.random() < MODELS[model]
            seconds = round((moment - case_began).total_seconds(), 6)
            event |= {"stage": "case_ended", "outcome": "completed" if is_good else "error", "duration_s": seconds}
            event |= {"message": f"case {event['outcome']}"}
            if is_good:
                event["score"] = round(rng.random() ** (1 - MODELS[model]), 2)
                if suite in JUDGED:
                    event["passed"] = event["score"] >= 0.5
            if not is_good:
                event |= {"level": "error", "exception": [an_exception(rng, n)]}
        if is_end and ends is not None:
            status = {"normal": "info", "error": "error"}.get(ends, "warning")
            seconds = round((moment - began).total_seconds(), 6)
            event |= {"stage": "run_ended", "message": "run ended", "exit_status": ends, "level": status}
            event |= {"duration_s": seconds}
            for name in ("case_id", "outcome", "exception", "score", "passed"):
                event.pop(name, None)
            if ends in ("error", "timeout"):
                event["exception"] = [{"type": "TimeoutError", "value": f"no answer in {seconds} s", "frames": []}]
        yield event, moment


def an_exception(rng: random.Random, n: int) -> dict[str, Any]:
    """Make an exception that ends a case, in the form of `calyx_logging.events.tracebacks`."""
    kind, text = rng.choice(
        [("TimeoutError", f"no answer to {n}"), ("ValueError", "the answer is no number"), ("ConnectionError", "reset")]
    )
    frames = [
        ("/srv/harness/run.py", 81, "main"),
        ("/srv/harness/cases.py", 212 + n % 3, "ask"),
        ("/srv/harness/model.py", 44, "send"),
    ]
    named = [dict(zip(("filename", "lineno", "name"), frame, strict=True)) for frame in frames]
    return {"type": kind, "value": text, "frames": named}


def tidy_chunks_of(node: str, chunks: int, events: int, rng: random.Random, truth: Truth) -> Iterator[list[Chunk]]:
    """Make a node's chunks, bundle by bundle, each of a closed writer, except for faults in two nodes of fifty."""
    made: list[Chunk] = []
    fault = {7: "hole", 23: "killed"}.get(int(node[-4:]) % 50)
    for number in range(chunks):
        writer = f"{rng.getrandbits(32):08x}"
        lines, seq, moment = [], 0, START
        for event, moment in tidy_events_of(node, number, events, rng):  # the last time is used below
            if not (fault == "hole" and number == 2 and seq in (40, 41, 42)):
                truth.count(event, moment)
                lines.append(line_of({**event, "seq": seq}))
            seq += 1
        is_killed = fault == "killed" and number == chunks - 1
        stamped = {"node_id": node, "ts_utc": moment.isoformat(timespec="microseconds"), "event_id": f"c{node}{number}"}
        control: dict[str, Any] = {"source": "calyx_logging", "level": "info", "message": "", "control": "end"}
        if number == 4 and int(node[-4:]) % 10 == 3:
            truth.gaps += 1
            gap = {"control": "gap", "level": "warning", "count": 3, "cause": "[Errno 28] No space left on device"}
            lines.append(
                line_of({**stamped, **control, **gap, "seqs": [[seq, seq + 2]], "seq": seq + 3, "event_id": f"g{node}"})
            )
            seq += 4
        control |= {"reason": "recovered", "torn_bytes": 118, "bad_lines": 0} if is_killed else {"reason": "closed"}
        lines.append(line_of({**stamped, **control, "seq": seq}))
        name = (START + timedelta(minutes=17 * number)).strftime("%Y%m%d_%H%M%S")
        made.append(Chunk(f"{name}__harness__{writer}-0000.jsonl", b"".join(lines)))
        if number % PER_BUNDLE == PER_BUNDLE - 1 or number == chunks - 1:
            yield made
            made = []


def chunks_of(node: str, chunks: int, events: int, rng: random.Random, truth: Truth) -> Iterator[list[Chunk]]:
    """Make a node's chunks, bundle by bundle."""
    made: list[Chunk] = []
    for number in range(chunks):
        writer = f"{rng.getrandbits(32):08x}"
        lines: list[bytes] = []
        plain: list[bytes] = []
        for seq, (event, moment) in enumerate(events_of(node, number, events, rng)):
            truth.count(event, moment)
            lines.append(line_of({**event, "seq": seq}))
            if seq % 401 == 400:
                lines.append(lines[-1])  # the same event twice
            if number % 7 == 3:
                plain.append(line_of(dict(reversed(event.items()))) if seq % 2 else line_of(event))
        stamped = {"node_id": node, "ts_utc": lines_time(number), "event_id": f"c{number}", "source": "calyx_logging"}
        if number % 5 == 0:
            truth.gaps += 1
            control = {"level": "warning", "control": "gap", "count": 3, "cause": "ENOSPC", "seq": events}
            lines.append(line_of({**stamped, **control, "seqs": [[events + 1, events + 3]]}))
        if number % PER_BUNDLE == 0:
            truth.bad_lines += 2
            lines.insert(len(lines) // 2, lines[0][: len(lines[0]) // 2] + b"\n")
            lines.insert(1, b"Traceback (most recent call last):\n")
        name = (START + timedelta(minutes=17 * number)).strftime("%Y%m%d_%H%M%S")
        made.append(Chunk(f"{name}__harness__{writer}-0000.jsonl", b"".join(lines)))
        if plain:
            made.append(Chunk(f"{name}__recut__old{number}.jsonl", b"".join(plain)))
        if number % PER_BUNDLE == PER_BUNDLE - 1 or number == chunks - 1:
            yield made
            made = made[:1]  # comes again in the next bundle


def lines_time(number: int) -> str:
    """Return when a writer's last line was written."""
    return (START + timedelta(minutes=17 * number + 16)).isoformat(timespec="microseconds")


def write_bundle(folder: Path, node: str, number: int, chunks: list[Chunk], previous: str | None) -> str:
    """Write a bundle's folder, and return the hash of its manifest."""
    moment = START + timedelta(days=30, seconds=number)
    path = folder / node / moment.strftime("%Y%m%d_%H%M%S")
    path.mkdir(parents=True)
    for chunk in chunks:
        (path / chunk.name).write_bytes(chunk.data)
    manifest = Manifest(
        node_id=node,
        exported_at=moment.isoformat(timespec="microseconds"),
        timestamp=path.name,
        chunks=tuple(sorted((chunk.entry for chunk in chunks), key=lambda entry: entry.filename)),
        previous_manifest_sha256=previous,
    )
    data = manifest.to_bytes()
    digest = hashlib.sha256(data).hexdigest()
    (path / "manifest.json").write_bytes(data)
    (path / "SHA256SUMS").write_bytes(sums_of(manifest, digest))
    return digest


def make_fleet(folder: Path, nodes: int, chunks: int, events: int, seed: int, *, tidy: bool = False) -> Truth:
    """Make bundles below `folder`/bundles; return the expected answers, which are also in truth.json."""
    truth = Truth()
    for k in range(nodes):
        node, previous = f"node-{k:04d}", None
        rng = random.Random(f"{seed} {node}")
        for number, made in enumerate((tidy_chunks_of if tidy else chunks_of)(node, chunks, events, rng, truth)):
            if tidy and number == 1 and k % 50 == 41:
                previous = hashlib.sha256(b"a bundle that was lost").hexdigest()
            previous = write_bundle(folder / "bundles", node, number, made, previous)
    (folder / "truth.json").write_text(json.dumps(vars(truth)), "utf-8")
    return truth


def load_truth(folder: Path) -> Truth:
    """Load what `make_fleet` wrote to truth.json."""
    return Truth(**json.loads((folder / "truth.json").read_text("utf-8")))


def differences(answer: Callable[[str], list[dict[str, Any]]], truth: Truth) -> list[str]:
    """List where answers to the named queries differ from what was counted.

    Args:
        answer: returns the rows of a named query.
        truth: the expected answers for the fleet.
    """
    found: list[str] = []

    def compare(what: str, expected: object, is_so: object) -> None:
        if expected != is_so:
            found.append(f"{what}: expected {str(expected)[:200]}, found {str(is_so)[:200]}")

    hours = {
        f"{row['node_id']} {row['hour'].isoformat()[:13]}": [row["events"], row["errors"]]
        for row in answer("events-by-hour")
    }
    compare("events by hour", dict(truth.by_hour), hours)
    runs = {f"{row['node_id']} {row['run_id']} {row['run_instance_id']}": row for row in answer("runs")}
    compare("runs", sorted(truth.runs), sorted(runs))
    for name, said in truth.runs.items():
        row = runs.get(name)
        if row is not None:
            fields = ("events", "errors", "cases", "completed", "judged", "passed", "exit_status")
            is_so = {field: row[field] for field in fields}
            times = {field: row[field].isoformat(timespec="microseconds") + "+00:00" for field in ("started", "ended")}
            judged = said["said"] + said["broken"] if said["said"] else 0
            expected = {**{field: said[field] for field in ("started", "ended")}, "judged": judged}
            expected |= {field: said[field] for field in fields if field != "judged"}
            compare(f"run {name}", expected, {**is_so, **times})
            compare(f"pass rate of {name}", said["passed"] / judged if judged else None, row["pass_rate"])
    errors = {row["node_id"]: row["event_id"] for row in answer("last-errors")}
    compare("last errors", {node: event_id for node, (_, event_id) in truth.last_errors.items()}, errors)
    compare("gaps", truth.gaps, len(answer("gaps")))
    return found


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--chunks", type=int, default=20)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tidy", action="store_true", help="as harnesses log, with few faults")
    options = parser.parse_args()
    shutil.rmtree(options.folder / "bundles", ignore_errors=True)
    truth = make_fleet(options.folder, options.nodes, options.chunks, options.events, options.seed, tidy=options.tidy)
    size = sum(path.stat().st_size for path in options.folder.glob("bundles/*/*/*.jsonl"))
    print(f"{truth.events} events, {truth.bad_lines} lines that are none, {size / 1e6:.0f} MB in {options.folder}")


if __name__ == "__main__":
    main()
