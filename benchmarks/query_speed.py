"""Compare making and querying the hub's table with plain DuckDB, polars, jq and grep over the same lines.

    pip install calyx-logging[bench]
    python benchmarks/fleet_data.py FOLDER --nodes 50 --chunks 40 --events 2500
    python benchmarks/query_speed.py FOLDER [--rounds 3] [--spark URL]

imports FOLDER/bundles into FOLDER/hub, once for each round, and runs the named queries on the chunks themselves, on the
table, on the compacted table, and on Spark. Every answer is compared with the generator's count; a difference ends the
run. The other tools count lines: they do not recognise repeated events, and skip torn lines. They answer the questions
they can: errors by node, runs with their cases, one event.

Figures are median seconds of whole commands, including start-up, with alternating contenders and a warm page cache.
Memory is the peak resident size of the command's largest process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from fleet_data import differences, load_truth

COMMAND = [sys.executable, "-m", "calyx_logging.scripts"]
NAMED = ("events-by-hour", "runs", "last-errors", "gaps")
FIELDS = ("node_id", "level", "run_id", "stage", "event_id", "outcome", "ts_utc")
DUCKDB = """
import duckdb
columns = ", ".join(f"'{{name}}': 'VARCHAR'" for name in {fields})
lines = ("read_json('{glob}', format='newline_delimited', ignore_errors=true, maximum_object_size=67108864, "
         f"columns={{{{{{columns}}}}}})")
print(duckdb.sql("{sql}".replace("LINES", lines)).fetchall()[:3])
"""
POLARS = """
import polars as pl
lines = pl.scan_lines("{glob}", name="line")  # scan_ndjson stops at a torn line
lines = lines.filter(pl.col("line").str.starts_with("{{") & pl.col("line").str.ends_with("}}"))
event = pl.col("line").str.json_decode(pl.Struct(dict.fromkeys({fields}, pl.String)))
lines = lines.select(event.struct.unnest())
print({expression}.collect().head(3))
"""


def timed(command: list[str]) -> tuple[float, float, str]:
    """Run a command; return its seconds, the MiB of its largest process, and its output."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"failed: {' '.join(command)[:500]}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024, out


def telemetry(*args: str | Path) -> list[str]:
    """Build a command line of this library."""
    return [*COMMAND, *map(str, args)]


def ingest(folder: Path, rounds: int, spark: str | None) -> dict[str, list[float]]:
    """Measure import, table and compaction; the last round's results stay."""
    hub, took = folder / "hub", defaultdict(list)
    steps: dict[str, list[str]] = {
        "import, without table": telemetry(
            "import", folder / "bundles", "--root", hub, "--accept-bad-lines", "--no-table", "--json"
        ),
        "the same bundles again": telemetry(
            "import", folder / "bundles", "--root", hub, "--accept-bad-lines", "--no-table", "--json"
        ),
        "table": telemetry("table", "--root", hub),
        "table again": telemetry("table", "--root", hub),
    }
    for _ in range(rounds):
        shutil.rmtree(hub, ignore_errors=True)
        hub.mkdir()
        for name, command in steps.items():
            took[name].append(timed(command)[0])
        if spark is not None:
            shutil.rmtree(hub / "telemetry/federated/.table")
            command = telemetry("table", "--root", hub, "--engine", "spark", "--master", spark)
            took["table, on Spark"].append(timed(command)[0])
    return took


def checked(command: list[str], truth: Any) -> Callable[[str], list[dict[str, Any]]]:
    """Return the rows of a named query from a command, checked against the expected ones."""

    def answer(name: str) -> list[dict[str, Any]]:
        rows = json.loads(timed([*command, "--named", name, "--json"])[2])
        for row in rows:
            for field in ("ts", "hour", "started", "ended"):
                if isinstance(row.get(field), str):
                    row[field] = datetime.fromisoformat(row[field])
        return rows

    found = differences(answer, truth)
    if found:
        raise SystemExit("\n".join([f"{' '.join(command)}: {len(found)} differences", *found[:10]]))
    return answer


def ask(folder: Path, rounds: int, spark: str | None) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Measure seconds and MiB by question and contender."""
    truth, hub = load_truth(folder), folder / "hub"
    chunks = str(hub / "telemetry/federated/[!.]*/*/*.jsonl")
    duck = chunks.replace("[!.]*", "node-*")
    event_id = truth.sample[len(truth.sample) // 2]
    took: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    ours = telemetry("query", "--from", "hub", "--root", hub)
    plain: dict[str, dict[str, list[str]]] = {
        "errors by node": {
            "DuckDB over JSONL": _duckdb(duck, "SELECT node_id, count(*) FROM LINES WHERE level = 'error' GROUP BY 1"),
            "polars over JSONL": _polars(duck, "lines.filter(pl.col('level') == 'error').group_by('node_id').len()"),
            "jq": _shell(f"cat {duck} | jq -R 'fromjson? | select(.level == \"error\") | .node_id' | sort | uniq -c"),
            "grep": _shell(f'grep -ho \'"level":"error"\' {duck} | wc -l'),
        },
        "runs with their cases": {
            "DuckDB over JSONL": _duckdb(
                duck,
                "SELECT node_id, run_id, count(*), count(*) FILTER (stage = 'case_ended'), "
                "count(*) FILTER (outcome = 'completed') FROM LINES GROUP BY ALL",
            ),
            "polars over JSONL": _polars(
                duck,
                "lines.group_by('node_id', 'run_id').agg(pl.len(), "
                "(pl.col('stage') == 'case_ended').sum().alias('cases'), (pl.col('outcome') == 'completed').sum())",
            ),
        },
        "one event by its id": {
            "DuckDB over JSONL": _duckdb(duck, f"SELECT * FROM LINES WHERE event_id = '{event_id}'"),
            "polars over JSONL": _polars(duck, f"lines.filter(pl.col('event_id') == '{event_id}')"),
            "grep": _shell(f"grep -h '{event_id}' {duck}"),
        },
    }
    same = {
        "errors by node": ["SELECT node_id, count(*) FROM events WHERE level = 'error' GROUP BY 1", "--json"],
        "runs with their cases": ["--named", "runs", "--json"],
        "one event by its id": [f"SELECT * FROM events WHERE event_id = '{event_id}'", "--json"],
    }
    places = {"our table": ours, "our table, compacted": ours}
    if spark is not None:
        places["our table, compacted, on Spark"] = [*ours, "--engine", "spark", "--master", spark]
    for place, command in places.items():
        if place == "our table, compacted":
            took["compaction"][place].append(timed(telemetry("table", "--root", hub, "--compact"))[:2])
        checked(command, truth)
        for question, options in same.items():
            for _ in range(rounds):
                took[question][place].append(timed([*command, *options])[:2])
    for question, contenders in plain.items():
        for _ in range(rounds):
            for name, command in contenders.items():
                took[question][name].append(timed(command)[:2])
    return took


def from_chunks(folder: Path) -> float:
    """Measure the seconds of all four named queries over the chunks themselves, without the stored table."""
    from calyx_logging.format.reader import ChunkRef
    from calyx_logging.query.duckdb_views import connect_chunks
    from calyx_logging.query.executors import Pool
    from calyx_logging.query.named import run_named

    began = time.perf_counter()
    paths = sorted((folder / "hub/telemetry/federated").glob("[!.]*/*/*.jsonl"))
    db = connect_chunks([ChunkRef(path, path.parts[-3], path.parts[-2]) for path in paths], Pool())
    found = differences(lambda name: run_named(db, name).to_pylist(), load_truth(folder))
    if found:
        raise SystemExit("\n".join(found[:10]))
    return time.perf_counter() - began


def _shell(command: str) -> list[str]:
    return ["sh", "-c", command]


def _duckdb(glob: str, sql: str) -> list[str]:
    return [sys.executable, "-c", DUCKDB.format(fields=FIELDS, glob=glob, sql=sql)]


def _polars(glob: str, expression: str) -> list[str]:
    return [sys.executable, "-c", POLARS.format(fields=FIELDS, glob=glob, expression=expression)]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--spark", metavar="URL", help="also on this cluster")
    options = parser.parse_args()
    folder = options.folder.resolve()
    truth = load_truth(folder)
    size = sum(path.stat().st_size for path in folder.glob("bundles/*/*/*.jsonl")) / 1e6
    print(f"{truth.events} events, {size:.0f} MB of lines; {platform.platform()}, {os.cpu_count()} cores")
    for name, took in ingest(folder, options.rounds, options.spark).items():
        seconds = statistics.median(took)
        print(f"| {name} | {seconds:.1f} s | {truth.events / seconds:,.0f} events/s | {size / seconds:.0f} MB/s |")
    # in a separate process: children start with the memory of this one
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        seconds = pool.submit(from_chunks, folder).result()
    print(f"| all named queries over the chunks, temporary table | {seconds:.1f} s | | |")
    for question, contenders in ask(folder, options.rounds, options.spark).items():
        for name, found in contenders.items():
            seconds = statistics.median(one for one, _ in found)
            print(f"| {question} | {name} | {seconds:.2f} s | {max(mib for _, mib in found):.0f} MiB |", flush=True)


if __name__ == "__main__":
    main()
