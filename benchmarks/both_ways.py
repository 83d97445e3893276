"""Compare the compiled core and pure Python with the floor and the nearest peers; a table of docs/performance.md.

    pip install calyx-logging[bench]
    python benchmarks/both_ways.py [--rounds 21] [--records 5000] [--spread 0.05] [--python OTHER ...] [--write docs]

Each contender (`contenders.py`) is a process of its own, pinned to one core. In every round each one logs the same
records, one after the other, so that what the machine does meanwhile meets all of them. Figures are medians of the
rounds' ratios, with their quartiles. Rounds go on, up to three times as many, until the quartiles of the first ratio
lie within `--spread` of its median. Ratios compare figures of the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import contenders
import peers

FLOOR, ORJSON, NATIVE = "no-op handler (the floor)", "FileHandler, python-json-logger orjson", "structlog, native"
OURS, FAST, RECORD = "calyx-logging", "calyx-logging, fast logger", "calyx-logging, fast logger, record made"
STRAIGHT, NOOP, PURE = "calyx-logging, structlog straight", "no-op handler, fast logger", ", pure Python"
THREADS = 4

ROWS = [
    ("default / floor", OURS, FLOOR, "≤ 1.35"),
    ("default / python-json-logger + orjson", OURS, ORJSON, "≤ 0.50"),
    ("fast logger, record made / floor", RECORD, FLOOR, "≤ 0.60"),
    ("fast logger, our handler alone / floor", FAST, FLOOR, "≤ 0.35"),
    ("structlog straight / structlog native + orjson", STRAIGHT, NATIVE, "≤ 0.31"),
    ("no-op handler with the fast logger / floor", NOOP, FLOOR, "≤ 0.25"),
    ("default, pure Python / floor", OURS + PURE, FLOOR, "≤ 2.0"),
    ("fast logger, pure Python / floor", FAST + PURE, FLOOR, ""),
    ("structlog straight, pure Python / structlog native + orjson", STRAIGHT + PURE, NATIVE, ""),
    ("a bare `os.write` of a line / floor", "write", FLOOR, ""),
]
IN_THREADS = [
    ("4 threads: default / python-json-logger + orjson, records a second", OURS, ORJSON, "≥ 1.8"),
    ("4 threads: fast logger / python-json-logger + orjson, records a second", FAST, ORJSON, "≥ 4"),
]


# ------------------------------------------------------------------ in a contender's own process


def child(name: str, folder: str) -> None:
    """Log as many records as each line on standard input says, alone or in threads; answer with seconds a record."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    log = _writes(folder) if name == "write" else contenders.CONTENDERS[name][0](folder)
    for n in range(3000):
        log("warm-up", n)
    for line in sys.stdin:
        what, records = line.split()
        if cores:
            os.sched_setaffinity(0, cores[-1:] if what == "alone" else cores)
        print((_alone if what == "alone" else _in_threads)(log, int(records)), flush=True)
    os._exit(0)


def _writes(folder: str) -> contenders.Log:
    fd = os.open(f"{folder}/log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    data = b"x" * 259 + b"\n"
    return lambda message, n: os.write(fd, data) and None


def _alone(log: contenders.Log, records: int) -> float:
    began = time.perf_counter()
    for n in range(records):
        log("case done", n)
    return (time.perf_counter() - began) / records


def _in_threads(log: contenders.Log, records: int) -> float:
    threads = [threading.Thread(target=_alone, args=(log, records)) for _ in range(THREADS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - began) / records / THREADS


# ------------------------------------------------------------------ the run


class Contender:
    """A process that waits to be asked."""

    def __init__(self, python: str, name: str) -> None:
        self.python, self.name = python, name
        self.folder = tempfile.TemporaryDirectory()
        command = [python, __file__, "--child", name, "--folder", self.folder.name]
        environment = contenders.environment_of(name)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def ask(self, what: str, records: int) -> float:
        """Seconds a record."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what} {records}\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline()
        if not said:
            raise SystemExit(f"{self.name} does not run with {self.python}: install calyx-logging[bench] for it")
        return float(said)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def measure(python: str, rounds: int, records: int, spread: float) -> dict[str, tuple[float, float, float]]:
    """Return each row's median, and its quartiles."""
    names = {name for _, *both, _ in ROWS for name in both}
    running = {name: Contender(python, name) for name in sorted(names)}
    ratios: dict[str, list[float]] = {row[0]: [] for row in (*ROWS, *IN_THREADS)}
    try:
        for number in range(3 * rounds):
            took = {name: contender.ask("alone", records) for name, contender in running.items()}
            for row, ours, other, _ in ROWS:
                ratios[row].append(took[ours] / took[other])
            least, middle, most = _quartiles(ratios[ROWS[0][0]])
            if number + 1 >= rounds and (most - least) / 2 <= spread * middle:
                break
        for _ in range(rounds):
            took = {name: running[name].ask("threads", records // 2) for name in (OURS, FAST, ORJSON)}
            for row, ours, other, _ in IN_THREADS:
                ratios[row].append(took[other] / took[ours])
    finally:
        for contender in running.values():
            contender.close()
    return {row: _quartiles(found) for row, found in ratios.items()}


def _quartiles(found: list[float]) -> tuple[float, float, float]:
    if len(found) < 2:
        return found[0], found[0], found[0]
    least, middle, most = statistics.quantiles(found, n=4, method="inclusive")
    return least, middle, most


def _version(python: str) -> str:
    code = "import platform; print(platform.python_version())"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--records", type=int, default=5000)
    parser.add_argument("--spread", type=float, default=0.05)
    parser.add_argument("--python", nargs="*", default=[], help="other interpreters that have calyx-logging[bench]")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--write", type=Path, help="the folder with performance.md")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.folder)
        return
    results = {}
    for python in (sys.executable, *options.python):
        version = _version(python)
        results[version] = measure(python, options.rounds, options.records, options.spread)
        print(f"measured {version}", file=sys.stderr, flush=True)
    if options.json:
        options.json.write_text(json.dumps(results), "utf-8")
    text = table(results, options.rounds)
    print(text)
    if options.write:
        peers.write_between(options.write / "performance.md", "both ways", text)


def table(results: dict[str, dict[str, tuple[float, float, float]]], rounds: int) -> str:
    """Make the table in Markdown: medians, and this interpreter's quartiles."""
    first, *others = results
    lines = [
        f"Python {first}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores; {rounds} rounds or more;",
        "in brackets the quartiles.",
        "",
        f"| | goal | Python {first} | " + " | ".join(others) + (" |" if others else ""),
        "|---|---|---|" + "---|" * len(others),
    ]
    for row, *_, goal in (*ROWS, *IN_THREADS):
        least, middle, most = results[first][row]
        cells = [f"{results[version][row][1]:.2f}" for version in others]
        lines.append(
            f"| {row} | {goal} | {middle:.2f} [{least:.2f} – {most:.2f}] | " + "".join(f"{c} | " for c in cells)
        )
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    main()
