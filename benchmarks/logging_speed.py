"""Compare the speed of logging libraries in one run; writes the tables and picture of docs/performance.md.

    pip install calyx-logging[bench]
    python benchmarks/logging_speed.py [--rounds 5] [--records 20000] [--write docs]

Each contender (`contenders.py`) runs in its own processes on one file system. The contenders alternate in every round,
and figures are medians over the rounds. Ratios compare figures of the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import contenders
import peers

FLOOR, OURS = "no-op handler (the floor)", "calyx-logging"
SLOW = {"calyx-logging, sync record": 100}
"""Contenders that wait for the disk in each call log this many times fewer records."""
THREADS = 4


# ------------------------------------------------------------------ in a contender's own process


def child(name: str, folder: str, what: str, records: int) -> None:
    """Measure one contender and print the figures as JSON."""
    log = contenders.CONTENDERS[name][0](folder)
    if name in SLOW:
        records //= SLOW[name]
    for n in range(min(records, 2000)):
        log("warm-up", n)
    if what == "start":
        sys.stdin.readline()  # start all processes together
        print(json.dumps({"seconds": _timed(log, records)[0], "records": records}), flush=True)
    else:
        wall, cpu = _timed(log, records)
        calls = _calls(log, records)
        hangs = name == "picologging"  # 0.9.3 does, when threads log
        threads = float("nan") if hangs else _threads(log, records // 2)
        time.sleep(0.5 if "batch" in name or "Queue" in name or "enqueue" in name else 0)
        figures = {
            "us": wall / records * 1e6,
            "cpu_us": cpu / records * 1e6,
            "p50_us": calls[len(calls) // 2] / 1e3,
            "p99_us": calls[int(len(calls) * 0.99)] / 1e3,
            "p999_us": calls[int(len(calls) * 0.999)] / 1e3,
            "threads_per_s": records // 2 * THREADS / threads,
            "bytes": _line_bytes(folder),
        }
        print(json.dumps(figures), flush=True)
    sys.stdout.flush()
    os._exit(0)


def _timed(log: contenders.Log, records: int) -> tuple[float, float]:
    began, cpu = time.perf_counter(), time.process_time()
    for n in range(records):
        log("case done", n)
    return time.perf_counter() - began, time.process_time() - cpu


def _calls(log: contenders.Log, records: int) -> list[int]:
    clock = time.perf_counter_ns
    took = []
    for n in range(records):
        began = clock()
        log("case done", n)
        took.append(clock() - began)
    took.sort()
    return took


def _threads(log: contenders.Log, records: int) -> float:
    go = threading.Barrier(THREADS + 1)

    def work() -> None:
        go.wait()
        for n in range(records):
            log("case done", n)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    go.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def _line_bytes(folder: str) -> float | None:
    for path in Path(folder).rglob("*"):
        if path.is_file() and (path.name == "log" or ".jsonl" in path.name):
            lines = path.read_bytes().splitlines(keepends=True)
            if lines:
                return statistics.median(map(len, lines))
    return None


# ------------------------------------------------------------------ the run


def _run(name: str, what: str, folder: str, records: int) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--child", name, "--what", what, "--folder", folder, "--records", str(records)]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=contenders.environment_of(name),
    )


def single(name: str, records: int) -> dict[str, Any]:
    """Measure the figures of one process."""
    with tempfile.TemporaryDirectory() as folder:
        process = _run(name, "single", folder, records)
        try:
            out, _ = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:  # picologging 0.9.3 hangs when threads log
            process.kill()
            process.communicate()
            raise RuntimeError(f"{name} hung") from None
        if process.returncode or not out:
            raise RuntimeError(f"{name} ended with {process.returncode}")
        figures: dict[str, Any] = json.loads(out)
        return figures


def processes(name: str, count: int, records: int) -> float:
    """Measure records per second of several processes that log into one folder."""
    with tempfile.TemporaryDirectory() as folder:
        if name.startswith("calyx"):
            from calyx_logging import provision

            provision(folder, "bench")
        running = [_run(name, "start", folder, records) for _ in range(count)]
        time.sleep(1.0)
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        results = [json.loads(process.communicate(timeout=600)[0]) for process in running]
    return sum(result["records"] for result in results) / max(result["seconds"] for result in results)


def measure(names: list[str], rounds: int, records: int) -> dict[str, dict[str, Any]]:
    """Measure the medians of every contender."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in list(names):
            try:
                figures = single(name, records)
            except RuntimeError as error:
                print(f"{error}: left out", file=sys.stderr)
                names.remove(name)
                rows.pop(name)
                continue
            if number < max(3, rounds // 2):
                figures["two_per_s"] = processes(name, 2, records)
                figures["four_per_s"] = processes(name, 4, records)
            rows[name].append(figures)
            print(f"round {number + 1}: {name}: {figures['us']:.2f} us", file=sys.stderr, flush=True)
    results = {}
    for name, found in rows.items():
        keys = {key for figures in found for key in figures}
        results[name] = {
            key: statistics.median([f[key] for f in found if f.get(key) is not None] or [float("nan")]) for key in keys
        }
        results[name]["version"] = contenders.version(name)
        if not name.startswith("no-op"):
            lived = peers.measure(name, 1)
            results[name].update(survives=bool(lived["survived"]), children_hung=lived["hung"], lost=lived["lost"])
    return results


def more() -> dict[str, Any]:
    """Measure this library alone: start-up, memory, and the cost of larger events and fuller outboxes."""
    start, base = [], []
    for _ in range(11):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", "import logging.config"], check=True)
            base.append(time.perf_counter() - began)
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", _START, folder], check=True, cwd=folder)
            start.append(time.perf_counter() - began)
    with tempfile.TemporaryDirectory() as folder:
        out = subprocess.run(
            [sys.executable, __file__, "--child", OURS, "--what", "memory", "--folder", folder],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    return {
        "import_and_dictconfig_ms": (statistics.median(start) - statistics.median(base)) * 1e3,
        **json.loads(out),
    }


_START = """
import sys, logging.config
from calyx_logging import provision
provision(sys.argv[1], "bench")
logging.config.dictConfig({"version": 1, "handlers": {"o": {"class": "calyx_logging.handlers.OutboxHandler",
    "root": sys.argv[1]}}, "root": {"level": "INFO", "handlers": ["o"]}})
"""


def memory_and_growth(folder: str) -> None:
    """Measure resident memory around a million records, and µs for larger events and with more chunks in the outbox."""
    import logging

    log = contenders.CONTENDERS[OURS][0](folder)
    logger = logging.getLogger("bench")

    def us(count: int, **extra: Any) -> float:
        began = time.perf_counter()
        for _ in range(count):
            logger.info("m", extra=extra)
        return (time.perf_counter() - began) / count * 1e6

    for n in range(20_000):
        log("warm-up", n)
    before = _resident()
    for n in range(1_000_000):
        log("case done", n)
    after = _resident()
    deep: Any = {"n": 1}
    for _ in range(30):
        deep = {"in": deep, "n": [1, 2.5, "x"]}
    outbox = Path(folder) / "telemetry" / "outbox" / "bench"
    figures = {
        "resident_mib": [round(before, 1), round(after, 1)],
        "event_us": {
            "no field": us(20_000),
            "1 KB": us(20_000, text="x" * 1000),
            "64 KB": us(2_000, text="x" * 64_000),
            "2 MB": us(60, text="x" * 2_000_000),
            "30 levels": us(5_000, deep=deep),
        },
    }
    try:
        raise ValueError("v")
    except ValueError:
        began = time.perf_counter()
        for _ in range(5_000):
            logger.exception("m")
        figures["event_us"]["an exception"] = (time.perf_counter() - began) / 5_000 * 1e6  # type: ignore[index]
    chunks = {}
    for count in (1, 100, 10_000):
        for n in range(count):
            (outbox / f"20200101_000000__old__{n:08x}-0000.jsonl").touch()
        logger.handlers[0].seal()  # type: ignore[attr-defined]
        log("begins a chunk", 0)
        chunks[str(count)] = us(20_000, n=1)
    figures["event_us_by_chunks_in_the_outbox"] = chunks
    print(json.dumps(figures))


def _resident() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# ------------------------------------------------------------------ what is written


def table(results: dict[str, dict[str, Any]], rounds: int, records: int, extra: dict[str, Any]) -> str:
    """Format the table as Markdown."""
    floor = results[FLOOR]["us"]
    rows = [
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
        f"medians of {rounds} rounds of {records} records. "
        f"Made by `python benchmarks/logging_speed.py --rounds {rounds} --records {records} --write docs`.",
        "",
        "| library | version | µs per record | × floor | CPU µs | p50 | p99 | p99.9 | 4 threads, records/s "
        "| 2 processes | 4 processes | bytes per line | survives kill -9 | of 10 children hung |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, f in sorted(results.items(), key=lambda item: item[1]["us"]):
        survives = {True: "yes", False: "**no**", None: ""}[f.get("survives")]
        size = "" if f["bytes"] != f["bytes"] else f"{f['bytes']:.0f}"
        threads = "hangs" if f["threads_per_s"] != f["threads_per_s"] else f"{f['threads_per_s']:,.0f}"
        rows.append(
            f"| {name} | {f['version']} | {f['us']:.2f} | {f['us'] / floor:.2f} | {f['cpu_us']:.2f} "
            f"| {f['p50_us']:.1f} | {f['p99_us']:.1f} | {f['p999_us']:.1f} | {threads} "
            f"| {f['two_per_s']:,.0f} | {f['four_per_s']:,.0f} | {size} | {survives} | {f.get('children_hung', '')} |"
        )
    before, after = extra["resident_mib"]
    by_chunks = ", ".join(f"{us:.1f} with {int(n):,}" for n, us in extra["event_us_by_chunks_in_the_outbox"].items())
    sizes = ", ".join(f"{name}: {us:.1f}" for name, us in extra["event_us"].items())
    rows += [
        "",
        f"Of this library: import and dictConfig take {extra['import_and_dictconfig_ms']:.0f} ms more than `import "
        f"logging.config`. Resident memory is {before} MiB after 20,000 records and {after} MiB after a million more. "
        f"µs per event by what is in it: {sizes}. µs per event by sealed chunks in the outbox: {by_chunks}.",
    ]
    return "\n".join(rows)


def plot(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw bars of µs per record, and of records per second with 4 threads."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "calyx"
    from matplotlib import pyplot

    names = [name for name in sorted(results, key=lambda name: -results[name]["us"]) if "record" not in name]
    colours = ["#2a7f62" if name.startswith("calyx") else "#b0b0b0" for name in names]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 0.32 * len(names) + 1), sharey=True)
    left.barh(names, [results[name]["us"] for name in names], color=colours)
    left.set_xlabel("µs per record, one thread (less is better)")
    right.barh(names, [results[name]["threads_per_s"] / 1000 for name in names], color=colours)
    right.set_xlabel("thousand records per second, 4 threads (more is better)")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--only", nargs="*", help="contenders, by name")
    parser.add_argument("--write", type=Path, help="the folder with performance.md")
    for name in ("--child", "--what", "--folder"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child and options.what == "memory":
        memory_and_growth(options.folder)
        return
    if options.child:
        child(options.child, options.folder, options.what, options.records)
    names = [name for name in contenders.CONTENDERS if contenders.version(name) is not None]
    if options.only:
        names = [name for name in names if name in options.only]
    for name in set(contenders.CONTENDERS) - set(names):
        print(f"{name}: left out", file=sys.stderr)
    results = measure(names, options.rounds, options.records)
    if options.only:
        print(json.dumps(results, indent=1))
        return
    extra = more()
    text = table(results, options.rounds, options.records, extra)
    print(text)
    if options.write:
        peers.write_between(options.write / "performance.md", "logging", text)
        figures = {"results": results, "more": extra, "rounds": options.rounds, "records": options.records}
        (options.write / "performance.json").write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", "utf-8")
        plot(results, options.write / "performance.svg")


if __name__ == "__main__":
    main()
