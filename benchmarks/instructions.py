"""Count the machine instructions of one record with callgrind, independent of the clock.

    python benchmarks/instructions.py            check against benchmarks/instructions.json
    python benchmarks/instructions.py --write    save the present counts

A record's instructions are the difference of two runs that log different numbers of records, with the compiled core and
in pure Python. The check compares their ratio to the floor's (`logging` with a handler that does nothing), which is
nearly the same for other builds of the same Python version. The exit code is 1 if a ratio has grown by more than 5 %.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from calyx_logging.compiled import CORE, WAY

KEPT = Path(__file__).with_name("instructions.json")
ALLOWED = 1.05
FEW, MANY = 500, 2500

PROGRAM = """
import logging, sys
kind, folder, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
logger = logging.getLogger("bench")
logger.setLevel(logging.INFO)
logger.propagate = False
if kind == "floor":
    logger.addHandler(logging.NullHandler())
else:
    import calyx_logging
    calyx_logging.provision(folder, "bench")
    if kind == "fast logger":
        calyx_logging.install_fast_logger()
    handler = calyx_logging.OutboxHandler(root=folder, identity=False)  # gathered once, beside the records
    logger.addHandler(handler)
info = logger.info
if kind == "structlog straight":
    import structlog
    calyx_logging.configure_structlog(handler)
    log = structlog.get_logger("bench").bind()
    for n in range(count):
        log.info("case done", model="m-1", tokens=n, ms=1.5, task="gsm8k", ok=True)
else:
    for n in range(count):
        info("case done", extra={"model": "m-1", "tokens": n, "ms": 1.5, "task": "gsm8k", "ok": True})
"""
KINDS = ("floor", "default", "fast logger", "structlog straight")
WAYS = ("compiled", "pure")
ROWS = (("floor", "pure"), *((kind, way) for kind in KINDS[1:] for way in WAYS))


def count(kind: str, way: str, records: int) -> int:
    """Count the instructions of a whole program."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out"]
        done = subprocess.run(
            [*command, sys.executable, "-c", PROGRAM, kind, folder, str(records)],
            env={
                **os.environ,
                "PYTHONHASHSEED": "0",
                "PYTHONDONTWRITEBYTECODE": "1",
                "CALYX_PURE": "1" if way == "pure" else "",
            },
            capture_output=True,
            text=True,
            check=False,
        )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise SystemExit(f"callgrind failed: {done.stderr[-2000:]}")
    return int(found[1])


def measure() -> dict[str, float]:
    """Count the instructions of one record, and each kind's ratio to the floor."""
    jobs = [(*row, records) for row in ROWS for records in (FEW, MANY)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = dict(zip(jobs, pool.map(lambda job: count(*job), jobs), strict=True))
    each = {row: (counts[*row, MANY] - counts[*row, FEW]) / (MANY - FEW) for row in ROWS}
    floor = each[ROWS[0]]
    return {f"{kind}, {way}, instructions": round(number) for (kind, way), number in each.items()} | {
        f"{kind}, {way} / floor": round(number / floor, 3) for (kind, way), number in each.items() if number != floor
    }


def main() -> int:
    """Count, then compare or save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: instruction counts are not checked")
        return 0
    if CORE is None:
        print(f"{WAY}: the instructions of the compiled core cannot be counted", file=sys.stderr)
        return 1
    version = ".".join(platform.python_version_tuple()[:2])
    kept = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {}
    if version not in kept and not options.write:
        print(f"no counts are kept for Python {version}: not checked")
        return 0
    found = measure()
    print(json.dumps(found, indent=1))
    if options.write:
        kept[version] = found
        KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", "utf-8")
        return 0
    grown = [
        f"{name}: {found[name]}, kept {kept[version][name]}"
        for name in found
        if name.endswith("/ floor") and found[name] > kept[version][name] * ALLOWED
    ]
    for line in grown:
        print(f"more instructions than 5 % above what is kept: {line}", file=sys.stderr)
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
