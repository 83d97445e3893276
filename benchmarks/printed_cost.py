"""Measure what `stdout: true` costs for each line that a program prints.

    python benchmarks/printed_cost.py [--lines 20000] [--rounds 7]

Each round prints lines of 60 characters to a file: with nothing configured, with the handler and `stdout: false`, and
with `stdout: true`, in turn; the medians are shown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile

from calyx_logging import provision

PROGRAM = """
import json, logging.config, sys, time
if sys.argv[1] != "null":
    logging.config.dictConfig(json.loads(sys.argv[1]))
line = "x" * 60
began = time.perf_counter()
for _ in range(int(sys.argv[2])):
    print(line)
print((time.perf_counter() - began) / int(sys.argv[2]) * 1e6, file=sys.stderr)
"""


def microseconds(settings: object, lines: int) -> float:
    """Return the microseconds that one line takes in a process of its own."""
    with tempfile.TemporaryFile() as output:
        command = [sys.executable, "-c", PROGRAM, json.dumps(settings), str(lines)]
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, check=True)
    return float(done.stderr.split()[-1])


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--lines", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="calyx-printed-") as root:
        provision(root, "test-node")
        handler = {"class": "calyx_logging.OutboxHandler", "root": root}
        with_handler = {"version": 1, "root": {"handlers": ["outbox"]}}
        ways = {
            "nothing configured": None,
            "stdout: false": {**with_handler, "handlers": {"outbox": handler}},
            "stdout: true": {**with_handler, "handlers": {"outbox": {**handler, "stdout": True}}},
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, settings in ways.items():
                found[name].append(microseconds(settings, options.lines))
    for name, times in found.items():
        print(f"| {name} | {statistics.median(times):.2f} µs | {min(times):.2f} to {max(times):.2f} |")


if __name__ == "__main__":
    main()
