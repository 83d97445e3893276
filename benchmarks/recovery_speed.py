"""Measure how long recovery takes with many dead writers beside many sealed chunks.

    python benchmarks/recovery_speed.py [--dead 1000] [--sealed 20000] [--events 20]

Each dead writer left a lock file that names an ended process, a sealed chunk and an open one.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from calyx_logging import Node, provision
from calyx_logging.events.event import control_event, with_seq
from calyx_logging.format.chunk import ChunkName
from calyx_logging.outbox.recovery import recover


def fill(outbox: Path, dead: int, sealed: int, events: int) -> None:
    """Put the chunks and lock files of this many writers into an outbox."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    line = control_event("bench", "note", time.time(), "a line of some length, as benchmarks write it")
    parts = [b"".join(with_seq(line, part * events + n) for n in range(events)) for part in range(2)]
    (outbox / ".writers").mkdir(parents=True)
    when = datetime(2026, 1, 1, tzinfo=UTC)
    for n in range(sealed):
        name = ChunkName(when + timedelta(seconds=n), "bench", f"{n:08x}", 0)
        (outbox / name.sealed).write_bytes(parts[0])
    for n in range(dead):
        name = ChunkName(when + timedelta(days=1, seconds=n), "bench", f"{n:08x}", 1)
        (outbox / name.open).write_bytes(parts[1])
        (outbox / ".writers" / f"{name.writer}.lock").write_text(f" {ended.pid} {socket.gethostname()}\n")


def main() -> None:
    """Fill an outbox, recover it, and print how long that took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dead", type=int, default=1000)
    parser.add_argument("--sealed", type=int, default=20000)
    parser.add_argument("--events", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        provision(Path(folder), "bench")
        node = Node.find(folder)
        fill(node.outbox, options.dead, options.sealed, options.events)
        began = time.perf_counter()
        recovery = recover(node.outbox, node.id)
        took = time.perf_counter() - began
    print(
        f"{len(recovery.recovered)} of {options.dead} dead writers beside {options.sealed} sealed chunks: {took:.2f} s"
    )


if __name__ == "__main__":
    main()
