"""Run a bounded soak test of harnesses, an exporter and a killer; at the end no event may be lost or doubled.

    python benchmarks/soak.py [--minutes 10] [--seed N] [--folder DIR]

Four harness processes log events of mixed sizes into one root and roll every few seconds; every 2 s a killer kills one
of three of them with SIGKILL and starts another; every 5 s an exporter runs. The fourth harness is never killed, and
reports its memory and file descriptors. Each harness reports its last event on a pipe after the logging call has
returned. At the end every reported event must be in a verified bundle exactly once.
"""

from __future__ import annotations

import argparse
import json
import logging
import logging.config
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calyx_logging import Node, provision
from calyx_logging.bundle.folder import verify
from calyx_logging.outbox.export import export

SIZES = (0, 40, 200, 1000, 4000, 30_000)


def harness(root: str, number: int, seed: int) -> None:
    """Log until told to stop (a line on standard input) or killed."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {
                "outbox": {
                    "class": "calyx_logging.handlers.OutboxHandler",
                    "root": root,
                    "max_bytes": 400_000,
                    "max_age": 3,
                    "sync": ("seal", "interval")[number % 2],
                }
            },
            "root": {"level": "INFO", "handlers": ["outbox"]},
        }
    )
    log, rng, pad = logging.getLogger("soak"), random.Random(seed), "x" * max(SIZES)
    n = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        for _ in range(10):
            size = rng.choices(SIZES, (30, 30, 20, 10, 8, 2))[0]
            log.info("event", extra={"harness": number, "n": n, "pad": pad[:size]})
            os.write(1, f"{n} {_resident()} {_descriptors()}\n".encode() if n % 1000 == 0 else b"%d\n" % n)
            n += 1
        time.sleep(0.01)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@dataclass
class Harness:
    """A running harness and its reports so far."""

    number: int
    process: subprocess.Popen[bytes]
    reported: int = -1
    resident: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    _rest: bytes = b""

    def read(self) -> None:
        """Read what it has reported so far."""
        assert self.process.stdout is not None
        while part := self._read_some(self.process.stdout.fileno()):
            *lines, self._rest = (self._rest + part).split(b"\n")
            for line in lines:
                n, *sizes = map(int, line.split())
                self.reported = n
                if sizes:
                    self.resident.append(sizes[0])
                    self.descriptors.append(sizes[1])

    @staticmethod
    def _read_some(fd: int) -> bytes:
        try:
            return os.read(fd, 1 << 20)
        except BlockingIOError:
            return b""


def start(node: Node, number: int, seed: int) -> Harness:
    """Start a harness."""
    command = [sys.executable, __file__, "--harness", str(number), "--seed", str(seed), "--folder", str(node.root)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    return Harness(number, process)


def soak(node: Node, minutes: float, seed: int) -> dict[str, Any]:
    """Run the soak, and return its figures."""
    rng = random.Random(seed)
    running = [start(node, number, seed + number) for number in range(4)]
    ended: list[Harness] = []
    began = time.monotonic()
    next_kill, next_export, kills, exports = began + 2, began + 5, 0, 0
    while time.monotonic() < began + minutes * 60:
        time.sleep(0.05)
        for each in running:
            each.read()
        if time.monotonic() >= next_kill:
            next_kill += 2
            place = rng.randrange(1, 4)
            running[place].process.send_signal(signal.SIGKILL)
            running[place].process.wait()
            running[place].read()
            ended.append(running[place])
            kills += 1
            running[place] = start(node, 3 + kills, seed + 3 + kills)
        if time.monotonic() >= next_export:
            next_export += 5
            export(node)
            exports += 1
    for each in running:
        assert each.process.stdin is not None
        each.process.stdin.write(b"stop\n")
        each.process.stdin.close()
        each.process.wait(30)
        each.read()
    export(node)
    steady = running[0]
    return {
        "minutes": minutes,
        "seed": seed,
        "kills": kills,
        "exports": exports + 1,
        **count(node, [*ended, *running]),
        "resident_kib_first_last": [steady.resident[1], steady.resident[-1]],
        "descriptors_first_last": [steady.descriptors[1], steady.descriptors[-1]],
    }


def _events(bundle: Path) -> Iterator[tuple[int, int]]:
    for path in bundle.glob("*.jsonl"):
        with path.open("rb") as stream:
            for line in stream:
                event = json.loads(line)
                if event["source"] != "calyx_logging":
                    yield event["harness"], event["n"]


def count(node: Node, harnesses: list[Harness]) -> dict[str, Any]:
    """Count how often each reported event is in the verified bundles."""
    found: dict[int, list[int]] = {each.number: [] for each in harnesses}
    bundles = sorted(node.exports.iterdir())
    size = 0
    for bundle in bundles:
        size += verify(bundle).manifest.total_bytes
        for number, n in _events(bundle):
            found[number].append(n)
    lost = doubled = reported = 0
    for each in harnesses:
        numbers = found[each.number]
        reported += each.reported + 1
        lost += len(set(range(each.reported + 1)) - set(numbers))
        doubled += len(numbers) - len(set(numbers))
    return {
        "bundles": len(bundles),
        "megabytes": round(size / 1e6, 1),
        "reported": reported,
        "exported": sum(map(len, found.values())),
        "lost": lost,
        "doubled": doubled,
        "still_open": len(list(node.outbox.glob("*.open"))),
    }


def main() -> int:
    """Run the soak and print its figures as JSON; exit code 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--folder", help="an empty folder for the root (default: a temporary one)")
    parser.add_argument("--harness", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.harness is not None:
        harness(options.folder, options.harness, options.seed)
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        figures = soak(provision(folder, "soak-node").node, options.minutes, options.seed)
    print(json.dumps(figures))
    memory, descriptors = figures["resident_kib_first_last"], figures["descriptors_first_last"]
    flat = memory[1] <= memory[0] * 1.2 + 4096 and descriptors[1] <= descriptors[0] + 2
    return int(bool(figures["lost"] or figures["doubled"] or figures["still_open"]) or not flat)


if __name__ == "__main__":
    sys.exit(main())
