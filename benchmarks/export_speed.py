"""Compare export and verify with `cp` and `sha256sum`, bagit, and a lower bound; makes a table of docs/performance.md.

    pip install calyx-logging[bench]
    python benchmarks/export_speed.py [--rounds 5] [--mib 1024] [--folder DIR] [--write docs]

The same event lines are in 16 files, in 10,000 files and in one file, on one file system, with a warm page cache. The
lower bound is only reading, hashing, copying and syncing, with all cores. Each contender except that bound is a
separate command, including its start-up. Figures are medians; the contenders alternate, and take turns to come first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import peers

from calyx_logging import Node, provision
from calyx_logging.compiled import WAY
from calyx_logging.core.times import utc_text
from calyx_logging.events.event import encode, with_seq
from calyx_logging.format.chunk import ChunkName

SHAPES = {"16 files": 16, "10,000 files": 10_000, "1 file": 1}
WHEN = 1_760_000_000


def fill(outbox: Path, files: int, size: int, first: int = 0) -> None:
    """Fill an outbox with sealed chunks, a hundred for each writer, of about this total size."""
    from datetime import UTC, datetime

    seq = 0
    for number in range(first, first + files):
        name = ChunkName(datetime.fromtimestamp(WHEN + number, UTC), "bench", f"{number // 100:08x}", number % 100)
        lines = []
        length = 0
        seq = seq if number % 100 else 0
        stream = (outbox / name.sealed).open("wb")  # memory used here would count in child processes
        while length < size // files:
            event = {
                "node_id": outbox.name,
                "ts_utc": utc_text(WHEN + number + seq / 1e6),
                "event_id": f"{number:08x}-{seq >> 16:04x}-{seq & 0xFFFF:04x}-9983-01a204600000",
                "source": "bench_harness",
                "level": "info",
                "logger": "bench",
                "message": "case done",
                "model": "m-1",
                "tokens": seq,
                "ms": 1.5,
                "task": "gsm8k",
                "ok": True,
            }
            lines.append(with_seq(encode(event), seq))
            length += len(lines[-1])
            seq += 1
            if seq % 1000 == 0:
                stream.write(b"".join(lines))
                lines.clear()
        stream.write(b"".join(lines))
        stream.close()


def _command(*args: str | Path) -> Callable[[], float]:
    """Make a function that runs a command and returns its peak resident memory in MiB."""

    def run() -> float:
        process = subprocess.Popen([str(arg) for arg in args], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"{args} ended with {status}")
        return usage.ru_maxrss / 1024

    return run


def _telemetry(*args: str | Path) -> Callable[[], float]:
    return _command(sys.executable, "-P", "-m", "calyx_logging.scripts", *args)


def _limit(source: Path, target: Path) -> float:
    """Read, hash and write in one pass with all cores; sync the files and one directory."""

    def one(path: Path) -> str:
        digest = hashlib.sha256()
        with path.open("rb", buffering=0) as stream, (target / path.name).open("wb", buffering=0) as out:
            while block := stream.read(1 << 20):
                digest.update(block)
                out.write(block)
            os.fsync(out.fileno())
        return digest.hexdigest()

    target.mkdir()
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        list(pool.map(one, source.glob("*.jsonl")))
    return 0.0


def _hash_only(source: Path) -> float:
    def one(path: Path) -> str:
        with path.open("rb", buffering=0) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, source.glob("*.jsonl")))
    return 0.0


def contenders(folder: Path, node: Node) -> dict[str, tuple[Callable[[], float], Path | None]]:
    """Return the commands to time, and what to delete after each run."""
    out = folder / "out"
    shell = f'cp -r "{node.outbox}" "{out}" && cd "{out}" && sha256sum *.jsonl > SHA256SUMS && sync -f "{out}"'
    if len(list(node.outbox.glob("*.jsonl"))) > 1000:
        shell = shell.replace("sha256sum *.jsonl", "find . -name '*.jsonl' -print0 | xargs -0 sha256sum")
    bag = (
        "import bagit, shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2]); bagit.make_bag(sys.argv[2], processes=2)"
    )
    return {
        "calyx-telemetry export": (_telemetry("export", "--root", node.root), node.exports),
        "cp + sha256sum + sync": (_command("sh", "-c", shell), out),
        "bagit make_bag, processes=2": (_command(sys.executable, "-c", bag, node.outbox, out), out),
        "limit: read, hash, copy, sync": (lambda: _limit(node.outbox, out), out),
        "limit: read and hash": (lambda: _hash_only(node.outbox), None),
    }


def _forget(node: Node) -> None:
    """Remove all traces of exports from the outbox."""
    (node.outbox / ".exported_index.json").unlink(missing_ok=True)
    shutil.rmtree(node.outbox / ".manifests", ignore_errors=True)


def measure(folder: Path, files: int, size: int, rounds: int) -> dict[str, float]:
    """Measure the median seconds of each contender and of verify."""
    (folder / "root").mkdir(parents=True)
    node = provision(folder / "root", "bench-node").node
    fill(node.outbox, files, size)
    took: dict[str, list[float]] = {}
    for number in range(rounds):
        turns = list(contenders(folder, node).items())
        turns = turns[number % len(turns) :] + turns[: number % len(turns)]  # what comes first finds no memory freed
        for name, (run, leaves) in turns:
            os.sync()
            began = time.perf_counter()
            peak = run()
            took.setdefault(name, []).append(time.perf_counter() - began)
            if name.startswith("calyx"):
                bundle = max(path for path in node.exports.iterdir() if path.name[0] != ".")
                began = time.perf_counter()
                peak = max(peak, _telemetry("verify", bundle)())
                took.setdefault("calyx-telemetry verify", []).append(time.perf_counter() - began)
                took.setdefault("peak MiB", []).append(peak)
                _forget(node)
            if leaves is not None:
                shutil.rmtree(leaves)
    shutil.rmtree(folder / "root")
    return {name: statistics.median(found) for name, found in took.items()}


def incremental(folder: Path, rounds: int) -> dict[str, float]:
    """Measure the seconds to export 10 new chunks, from an otherwise empty outbox and beside 100,000 exported ones."""
    took: dict[str, list[float]] = {"empty": [], "full": []}
    nodes = {}
    for name, there in (("empty", 0), ("full", 100_000)):
        (folder / name).mkdir(parents=True)
        nodes[name] = node = provision(folder / name, "bench-node").node
        if there:
            fill(node.outbox, there, there * 100)
            _telemetry("export", "--root", node.root)()
    for number in range(rounds):
        for name, node in nodes.items():
            fill(node.outbox, 10, 10_000, first=200_000 + 10 * number)
            began = time.perf_counter()
            _telemetry("export", "--root", node.root)()
            took[name].append(time.perf_counter() - began)
    for name in nodes:
        shutil.rmtree(folder / name)
    return {name: statistics.median(found) for name, found in took.items()}


def table(results: dict[str, dict[str, float]], few: dict[str, float], rounds: int, mib: int) -> str:
    """Format the table as Markdown."""
    names = [name for name in next(iter(results.values())) if not name.startswith("peak")]
    rows = [
        f"{mib} MiB of event lines; {platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {WAY}; medians of {rounds} rounds, seconds. "
        f"Made by `python benchmarks/export_speed.py --rounds {rounds} --mib {mib} --write docs`.",
        "",
        f"| | {' | '.join(results)} |",
        f"|---|{'---|' * len(results)}",
    ]
    rows += [f"| {name} | {' | '.join(f'{results[shape][name]:.2f}' for shape in results)} |" for name in names]
    ours = names[0]
    for name, goal in (
        ("limit: read, hash, copy, sync", "≤ 1.4 for large files"),
        ("cp + sha256sum + sync", "≤ 0.35"),
        ("bagit make_bag, processes=2", "≤ 0.5"),
    ):
        reached = " | ".join(f"{results[shape][ours] / results[shape][name]:.2f}" for shape in results)
        rows.append(f"| export / {name} (goal {goal}) | {reached} |")
    peak = max(found["peak MiB"] for found in results.values())
    rows += [
        "",
        f"The largest resident memory of any export or verification was at most {peak:.0f} MiB. Exporting 10 new "
        f"chunks took {few['full']:.2f} s from an outbox of 100,000 exported ones and {few['empty']:.2f} s from "
        f"an empty one, {few['full'] / few['empty']:.2f} times as long (goal ≤ 2).",
    ]
    return "\n".join(rows)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--folder", type=Path, help="a folder with enough space; default: the temporary folder")
    parser.add_argument("--write", type=Path, help="the folder with performance.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        few = incremental(Path(place) / "few", options.rounds)
        print(json.dumps(few), file=sys.stderr, flush=True)
        results = {}
        for shape, files in SHAPES.items():
            results[shape] = measure(Path(place) / "shape", files, options.mib * 2**20, options.rounds)
            print(shape, json.dumps(results[shape]), file=sys.stderr, flush=True)
    text = table(results, few, options.rounds, options.mib)
    print(text)
    if options.write:
        peers.write_between(options.write / "performance.md", "export", text)


if __name__ == "__main__":
    main()
