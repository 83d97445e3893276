"""kill -9 at random moments: of writers in every shape, and of the exporter.

    cd tests && python -m faults.kills [--writers 1000] [--exporters 300] [--seed N]

A victim is a forked process that logs as fast as it can and reports each event on a pipe once its logger call has
returned. It marks in shared memory what the disk is being asked for (an append, a roll, a seal, a close), so that each
kill is known to have hit inside an operation or between two. After every round of kills the outbox is exported, and
every reported event has to be in a verified bundle exactly once.
"""

from __future__ import annotations

import argparse
import json
import logging
import logging.config
import mmap
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import calyx_logging.events.formatter
import calyx_logging.handlers.outbox  # noqa: F401 - loaded here, so that no victim spends its life importing
import calyx_logging.outbox.export as exporting
from calyx_logging import Node, provision
from calyx_logging.bundle.folder import verify
from calyx_logging.core import files
from calyx_logging.outbox import export_index
from calyx_logging.outbox.export import export
from calyx_logging.recording.chunk_file import ChunkFile
from calyx_logging.recording.chunk_series import ChunkSeries
from calyx_logging.recording.writer import ChunkWriter
from conftest import config

MODES = ("single", "threaded", "processes", "rolling", "sealing", "closing")
BETWEEN, APPEND, ROLL, SEAL, CLOSE, EXPORT = range(6)
NAMES = ("between two", "an append", "a roll", "a seal", "a close", "an export step")
ROUND = 25


class Marks:
    """Notes, in memory that outlives the victim, the operation that each of 64 places is in."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 64)

    def around(self, mark: int, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, marked while it runs; the innermost mark is the one that shows."""

        def marked(*args: Any, **kwargs: Any) -> Any:
            place = threading.get_native_id() % 64
            before = self._memory[place]
            self._memory[place] = mark
            try:
                return function(*args, **kwargs)
            finally:
                self._memory[place] = before

        return marked

    def take(self) -> set[int]:
        """Return the marks, and clear them."""
        found = set(self._memory[:]) - {BETWEEN}
        self._memory[:] = bytes(64)
        return found


@dataclass
class Tally:
    """The figures of a campaign, and the faults it found."""

    kills: int = 0
    inside: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def mid_operation(self) -> int:
        """Kills that hit inside an operation."""
        return sum(count for name, count in self.inside.items() if name != NAMES[BETWEEN])

    def hit(self, marks: set[int]) -> None:
        """Count one kill by what it hit."""
        self.kills += 1
        self.inside[NAMES[max(marks, default=BETWEEN)]] += 1

    @property
    def clean(self) -> bool:
        """Whether no promise was broken."""
        return not (self.lost or self.doubled or self.faults)

    def text(self) -> str:
        """The figures in one line."""
        where = ", ".join(f"{count} in {name}" for name, count in sorted(self.inside.items()))
        return (
            f"{self.kills} kills ({where}); {self.acknowledged} events acknowledged, {self.lost} lost, "
            f"{self.doubled} doubled, {len(self.faults)} faults"
        )


def _victim(node: Node, mode: str, marks: Marks, report: int, first: int) -> None:
    """Log until killed."""
    files.AppendFile.write = marks.around(APPEND, files.AppendFile.write)  # type: ignore[method-assign]
    files.AppendFile.append = marks.around(APPEND, files.AppendFile.append)  # type: ignore[method-assign]
    seal = SEAL if mode == "sealing" else ROLL
    ChunkFile.seal = marks.around(seal, ChunkFile.seal)  # type: ignore[method-assign]
    ChunkSeries.begin = marks.around(ROLL, ChunkSeries.begin)  # type: ignore[method-assign]
    ChunkWriter.end = marks.around(CLOSE, ChunkWriter.end)  # type: ignore[method-assign]
    small = mode in ("rolling", "threaded", "processes")
    logging.config.dictConfig(config(node, max_bytes=1500 if small else 10**7))
    log = logging.getLogger("harness")
    handler: Any = log.handlers[0]

    def work(start: int, stop: int) -> None:
        for n in range(start, stop):
            log.info("event", extra={"n": n, "pad": "x" * (n % 400)})
            os.write(report, b"%d\n" % n)
            if mode == "sealing" and n % 3 == 0:
                handler.seal()
            if mode == "closing" and n % 3 == 0:
                handler.close()

    if mode == "threaded":
        threads = [threading.Thread(target=work, args=(first + t * 10**6, first + (t + 1) * 10**6)) for t in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    elif mode == "processes":
        for child in range(1, 4):
            if os.fork() == 0:
                work(first + child * 10**6, first + (child + 1) * 10**6)
        work(first, first + 10**6)
    else:
        work(first, first + 10**9)


def _read_all(fd: int) -> bytes:
    data = b""
    while part := os.read(fd, 1 << 20):
        data += part
    return data


def _kill_one_writer(node: Node, mode: str, marks: Marks, rng: random.Random, first: int) -> tuple[set[int], set[int]]:
    """Start a victim, kill it, and return what it acknowledged and what it was in the middle of."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.close(reader)
        try:
            _victim(node, mode, marks, writer, first)
        finally:
            os._exit(1)
    os.close(writer)
    with suppress(OSError):
        os.setpgid(pid, pid)
    acknowledged = b""
    parts: list[bytes] = []
    drained = threading.Thread(target=lambda: parts.append(_read_all(reader)))
    drained.start()
    time.sleep(rng.uniform(0.002, 0.03))
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    drained.join()
    os.close(reader)
    acknowledged = parts[0]
    # a pipe takes short writes whole: every line that is there was reported whole
    return {int(line) for line in acknowledged.split(b"\n") if line}, marks.take()


def check(node: Node, acknowledged: set[int], tally: Tally) -> None:
    """Export, verify, and compare with what was acknowledged."""
    deadline = time.monotonic() + 10
    while True:
        result = export(node)
        if not result.recovery.live or time.monotonic() > deadline:
            break
        time.sleep(0.01)  # a killed grandchild is still being reaped, its lock with it
    tally.faults += [f"still open: {chunk}" for chunk in result.recovery.live + result.recovery.orphaned]
    seen: Counter[int] = Counter()
    writers: dict[str, list[int]] = {}
    for bundle in sorted(path for path in node.exports.glob("*") if not path.name.startswith(".")):
        verify(bundle)
        for path in bundle.glob("*.jsonl"):
            for line in path.read_bytes().splitlines():
                event = json.loads(line)
                writers.setdefault(path.name.split("__")[2][:8], []).append(event["seq"])
                if event["source"] != "calyx_logging":
                    seen[event["n"]] += 1
    tally.acknowledged += len(acknowledged)
    tally.lost += len(acknowledged - set(seen))
    tally.doubled += sum(count > 1 for count in seen.values())
    for writer, seqs in writers.items():
        if len(seqs) != len(set(seqs)):
            tally.faults.append(f"writer {writer} has a seq twice")


def kill_writers(kills: int, seed: int, folder: Path) -> Tally:
    """Kill so many writers, in rounds of 25 on one root each."""
    rng, tally, marks = random.Random(seed), Tally(), Marks()
    number = 0
    while tally.kills < kills:
        root = folder / f"w{number}"
        root.mkdir()
        node = provision(root, "kill-node").node
        acknowledged: set[int] = set()
        for place in range(min(ROUND, kills - tally.kills)):
            mode = MODES[(number + place) % len(MODES)]
            told, inside = _kill_one_writer(node, mode, marks, rng, place * 10**9)
            acknowledged |= told
            tally.hit(inside)
        check(node, acknowledged, tally)
        number += 1
    return tally


def kill_exporters(kills: int, seed: int, folder: Path) -> Tally:
    """Kill so many exporters, each at a random moment of its work; what they leave is exported in the end."""
    rng, tally, marks = random.Random(seed), Tally(), Marks()
    number = 0
    while tally.kills < kills:
        root = folder / f"e{number}"
        root.mkdir()
        node = provision(root, "kill-node").node
        acknowledged: set[int] = set()
        for place in range(min(10, kills - tally.kills)):
            told, _ = _kill_one_writer(node, ("rolling", "closing")[place % 2], marks, rng, place * 10**9)
            acknowledged |= told
            _kill_one_exporter(node, marks, rng.uniform(0.0005, 0.02))
            tally.hit(marks.take())
        check(node, acknowledged, tally)
        number += 1
    return tally


def _kill_one_exporter(node: Node, marks: Marks, after: float) -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        for module, name in (
            (files, "write_new"),
            (files, "replace_file"),
            (files, "publish"),
            (files, "rename_new"),
            (files, "remove"),
            (files, "remove_tree"),
            (exporting, "recover"),
            (export_index, "save"),
        ):
            setattr(module, name, marks.around(EXPORT, getattr(module, name)))
        os.write(writer, b"!")
        try:
            export(node)
        finally:
            os._exit(0)
    os.read(reader, 1)
    time.sleep(after)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)


def main() -> int:
    """Run the campaign and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writers", type=int, default=1000)
    parser.add_argument("--exporters", type=int, default=300)
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--folder", help="where the roots are made (default: the temporary folder)")
    options = parser.parse_args()
    clean = True
    for name, campaign, kills in (
        ("writers", kill_writers, options.writers),
        ("exporters", kill_exporters, options.exporters),
    ):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            tally = campaign(kills, options.seed, Path(folder))
        print(f"{name}: seed {options.seed}: {tally.text()}")
        for fault in tally.faults[:20]:
            print(f"  {fault}")
        clean = clean and tally.clean
    return int(not clean)


if __name__ == "__main__":
    sys.exit(main())
