"""Compare import and audit with the machine's hash rate, `cp` with `sha256sum -c`, and bagit.

    pip install calyx-logging[bench]
    python benchmarks/import_speed.py [--rounds 3] [--mib 1024] [--folder DIR] [--write docs]

The same event lines are in bundles of 16 files, of 10,000 files and of one file as folders, and of 16 files as
archives, on one file system, with a warm page cache. Import copies, syncs, hashes, decodes and checks every line; the
others do less, as their names say. The table for queries has its own row. Each contender except the hash rates is a
separate command, including its start-up. Figures are medians; the contenders alternate.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import peers
from export_speed import SHAPES, _command, _hash_only, _telemetry, fill

from calyx_logging import provision

BAGIT = (
    "import bagit, shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2]); bagit.Bag(sys.argv[2]).validate(processes=2)"
)


def _hash_alone(source: Path) -> float:
    for path in source.glob("*.jsonl"):
        with path.open("rb", buffering=0) as stream:
            hashlib.file_digest(stream, "sha256")
    return 0.0


def _timed(run: Callable[[], float]) -> tuple[float, float]:
    """Run a command, and return its seconds and MiB."""
    os.sync()
    began = time.perf_counter()
    peak = run()
    return time.perf_counter() - began, peak


def measure(folder: Path, files: int, size: int, rounds: int, *, archives: bool) -> dict[str, float]:
    """Measure the median seconds of each contender."""
    root, hub, out = folder / "root", folder / "hub", folder / "out"
    root.mkdir(parents=True)
    node = provision(root, "bench-node").node
    fill(node.outbox, files, size)
    _telemetry("export", "--root", root)()
    (bundle,) = node.exports.iterdir()
    bag = folder / "bag"
    shutil.copytree(bundle, bag)
    _command(sys.executable, "-c", "import bagit, sys; bagit.make_bag(sys.argv[1])", bag)()
    copy = f'cp -r "{bundle}" "{out}" && cd "{out}" && sync -f "{out}" && sha256sum -c --quiet SHA256SUMS'
    # the chunks were not made by a writer, so they have no end line and count as unfinished
    audit = f'"{sys.executable}" -m calyx_logging.scripts audit --root "{hub}" > /dev/null || [ $? = 1 ]'
    contenders: dict[str, tuple[Callable[[], float], Path | None]] = {
        "calyx-telemetry import": (_telemetry("import", bundle, "--root", hub, "--no-table"), None),
        "the same bundle again": (_telemetry("import", bundle, "--root", hub, "--no-table"), None),
        "calyx-telemetry audit": (_command("sh", "-c", audit), hub),
        "calyx-telemetry import, with its table": (_telemetry("import", bundle, "--root", hub), hub),
        "cp + sync + sha256sum -c": (_command("sh", "-c", copy), out),
        "copy + bagit validate, processes=2": (_command(sys.executable, "-c", BAGIT, bag, out), out),
        "hash rate, all cores": (lambda: _hash_only(bundle), None),
        "hash rate, one core": (lambda: _hash_alone(bundle), None),
    }
    if archives:
        for suffix in ("zip", "tar.gz"):
            _telemetry("export", "--root", root, "--archive", suffix)()
            run = _telemetry("import", node.exports / f"{bundle.name}.{suffix}", "--root", hub, "--no-table")
            contenders[f"calyx-telemetry import, .{suffix}"] = (run, hub)
    took: dict[str, list[float]] = {"peak MiB": []}
    for _ in range(rounds):
        for name, (run, leaves) in contenders.items():
            hub.mkdir(exist_ok=True)
            seconds, peak = _timed(run)
            took.setdefault(name, []).append(seconds)
            if name.startswith("calyx"):
                took["peak MiB"].append(peak)
            if leaves is not None:
                shutil.rmtree(leaves)
    shutil.rmtree(folder)
    return {name: max(found) if name == "peak MiB" else statistics.median(found) for name, found in took.items()}


def table(results: dict[str, dict[str, float]], rounds: int, mib: int) -> str:
    """Format seconds and MiB per second as a Markdown table."""
    names = [name for name in results["16 files"] if name != "peak MiB"]
    rows = [
        f"{mib} MiB of event lines; {platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}; medians of {rounds} rounds, seconds (MiB a second). "
        f"Made by `python benchmarks/import_speed.py --rounds {rounds} --mib {mib} --write docs`.",
        "",
        f"| | {' | '.join(results)} |",
        f"|---|{'---|' * len(results)}",
    ]
    for name in names:
        cells = [f"{found[name]:.2f} ({mib / found[name]:.0f})" if name in found else "" for found in results.values()]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    for name in ("cp + sync + sha256sum -c", "copy + bagit validate, processes=2", "hash rate, all cores"):
        cells = [f"{found['calyx-telemetry import'] / found[name]:.2f}" for found in results.values()]
        rows.append(f"| import / {name} | {' | '.join(cells)} |")
    peak = max(found["peak MiB"] for found in results.values())
    rows += ["", f"The largest resident memory of any import or audit was {peak:.0f} MiB."]
    return "\n".join(rows)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--folder", type=Path, help="a folder with enough space; default: the temporary folder")
    parser.add_argument("--write", type=Path, help="the folder with performance.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        results = {}
        for shape, files in SHAPES.items():
            results[shape] = measure(
                Path(place) / "shape", files, options.mib * 2**20, options.rounds, archives=files == 16
            )
            print(shape, json.dumps(results[shape]), file=sys.stderr, flush=True)
    text = table(results, options.rounds, options.mib)
    print(text)
    if options.write:
        peers.write_between(options.write / "performance.md", "import", text)


if __name__ == "__main__":
    main()
