"""A fleet's bundles, of any size, and what is in them: what queries are to answer is counted while lines are made.

    python benchmarks/fleet_data.py FOLDER [--nodes 20] [--chunks 20] [--events 1000] [--seed 1]

makes FOLDER/bundles/<node_id>/<timestamp>/, to be imported with --accept-bad-lines, and FOLDER/truth.json. Each node
has `--chunks` chunks of `--events` events, and beside these:

- torn: in one chunk of each bundle half a line, and one that is no JSON; they are no events;
- repeated: every tenth chunk comes again, in a later bundle; some lines stand twice in one chunk;
- re-cut: every seventh chunk's events come again in a first-generation chunk of another name, without their `seq`;
- odd: values that are lists, nulls, deep, long and of any alphabet; ids that are not unique; times with other offsets.

The events are counted as docs/format.md says: equal but for their `seq` is the same event.
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

from calyx_logging.bundle import sums_of
from calyx_logging.manifest import ChunkEntry, Manifest
from calyx_logging.stats import stats_for

START = datetime(2026, 3, 1, tzinfo=UTC)
PER_BUNDLE = 10
TEXTS = ["asking the model", "answer received", "scored", "Ergebnis gewertet", "結果を記録", 'naïve "quoted" \\ text\t']
ODD: list[Any] = [[1, {"a": None}], {"deep": [[[["x"]]]]}, 2**62, -0.5, True, "ü" * 50, None]


@dataclass
class Truth:
    """What the named queries are to answer."""

    events: int = 0
    bad_lines: int = 0
    gaps: int = 0
    by_hour: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    last_errors: dict[str, list[str]] = field(default_factory=dict)
    sample: list[str] = field(default_factory=list)

    def count(self, event: dict[str, Any], moment: datetime) -> None:
        """One event that counts; control lines do not come here."""
        node, when = event["node_id"], moment.isoformat(timespec="microseconds")
        is_error = event.get("level") in ("error", "critical")
        self.events += 1
        hour = self.by_hour[f"{node} {when[:13]}"]
        hour[0] += 1
        hour[1] += is_error
        run = self.runs.setdefault(
            f"{node} {event['run_id']}",
            {"events": 0, "errors": 0, "cases": 0, "completed": 0, "exit_status": None, "started": when, "ended": when},
        )
        run["events"] += 1
        run["errors"] += is_error
        run["cases"] += event["stage"] == "case_ended"
        run["completed"] += event["stage"] == "case_ended" and event.get("outcome") == "completed"
        run["exit_status"] = event.get("exit_status", run["exit_status"])
        run["started"], run["ended"] = min(run["started"], when), max(run["ended"], when)
        if is_error:
            self.last_errors[node] = max(self.last_errors.get(node, []), [when, event["event_id"]])
        if self.events % 1009 == 1 and len(self.sample) < 100:
            self.sample.append(event["event_id"])


@dataclass
class Chunk:
    """One file: name, bytes, and its entry in a manifest."""

    name: str
    data: bytes

    @property
    def entry(self) -> ChunkEntry:
        """What a manifest says of it."""
        stats = stats_for(self.name)
        for _ in stats.through([self.data]):
            pass
        return stats.entry(self.name)


def line_of(event: dict[str, Any]) -> bytes:
    """As our writers make them."""
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def events_of(node: str, number: int, count: int, rng: random.Random) -> Iterator[tuple[dict[str, Any], datetime]]:
    """The events of one run, which is one chunk: event and moment."""
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
        if is_last:
            event["exit_status"] = "normal" if rng.random() < 0.9 else "exception"
        if event["level"] in ("error", "critical"):
            event["exception"] = [{"type": "TimeoutError", "value": f"no answer to {n}", "frames": []}]
        yield event, moment


def chunks_of(node: str, chunks: int, events: int, rng: random.Random, truth: Truth) -> Iterator[list[Chunk]]:
    """A node's chunks, bundle by bundle."""
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
    """When a writer's last line was written."""
    return (START + timedelta(minutes=17 * number + 16)).isoformat(timespec="microseconds")


def write_bundle(folder: Path, node: str, number: int, chunks: list[Chunk], previous: str | None) -> str:
    """A bundle's folder; the hash of its manifest."""
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


def make_fleet(folder: Path, nodes: int, chunks: int, events: int, seed: int) -> Truth:
    """Bundles below `folder`/bundles; what is in them, also in truth.json."""
    truth = Truth()
    for k in range(nodes):
        node, previous = f"node-{k:04d}", None
        rng = random.Random(f"{seed} {node}")
        for number, made in enumerate(chunks_of(node, chunks, events, rng, truth)):
            previous = write_bundle(folder / "bundles", node, number, made, previous)
    (folder / "truth.json").write_text(json.dumps(vars(truth)), "utf-8")
    return truth


def load_truth(folder: Path) -> Truth:
    """What `make_fleet` left in truth.json."""
    return Truth(**json.loads((folder / "truth.json").read_text("utf-8")))


def differences(answer: Callable[[str], list[dict[str, Any]]], truth: Truth) -> list[str]:
    """Where answers to the named queries are not what was counted.

    Args:
        answer: the rows of a named query.
        truth: of the fleet that is asked.
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
    runs = {f"{row['node_id']} {row['run_id']}": row for row in answer("runs")}
    compare("runs", sorted(truth.runs), sorted(runs))
    for name, said in truth.runs.items():
        row = runs.get(name)
        if row is not None:
            is_so = {field: row[field] for field in ("events", "errors", "cases", "completed", "exit_status")}
            times = {field: row[field].isoformat(timespec="microseconds") + "+00:00" for field in ("started", "ended")}
            compare(f"run {name}", said, {**is_so, **times})
            compare(f"pass rate of {name}", said["completed"] / said["cases"], row["pass_rate"])
    errors = {row["node_id"]: row["event_id"] for row in answer("last-errors")}
    compare("last errors", {node: event_id for node, (_, event_id) in truth.last_errors.items()}, errors)
    compare("gaps", truth.gaps, len(answer("gaps")))
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--chunks", type=int, default=20)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    shutil.rmtree(options.folder / "bundles", ignore_errors=True)
    truth = make_fleet(options.folder, options.nodes, options.chunks, options.events, options.seed)
    size = sum(path.stat().st_size for path in options.folder.glob("bundles/*/*/*.jsonl"))
    print(f"{truth.events} events, {truth.bad_lines} lines that are none, {size / 1e6:.0f} MB in {options.folder}")


if __name__ == "__main__":
    main()
