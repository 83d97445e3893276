"""Measure what logging libraries do when processes die and fork, each in its own programs.

    pip install calyx-logging[bench]
    python benchmarks/peers.py [--rounds 5] [--write docs/reliability.md]

Each library writes JSON lines to a file in its usual way. The questions: does a record survive `kill -9` right after
the call that logged it; how many children forked while another thread logs hang or lose their record; and is any record
in the file twice after a fork. `--write` puts the table between the markers of a document.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import contenders
from contenders import Log

CHILDREN = 10
PATIENCE = 2.0


PEERS = [
    "calyx-logging",
    "calyx-logging, structlog straight",
    "FileHandler, python-json-logger json",
    "QueueHandler",
    "MemoryHandler",
    "concurrent-log-handler",
    "structlog, native",
    "loguru",
    "loguru, enqueue",
    "eliot",
    "logbook",
    "picologging",
    "OpenTelemetry, simple",
    "OpenTelemetry, batch",
]


def killed(log: Log) -> None:
    """Log one record and die."""
    log("last-words", 0)
    os.kill(os.getpid(), signal.SIGKILL)


def forking(log: Log) -> None:
    """Fork while another thread logs, log one record in each child, and print how many children hung."""
    stop = threading.Event()

    def chatter() -> None:
        n = 0
        while not stop.is_set():
            log(f"chatter-{n}", n)
            n += 1

    threading.Thread(target=chatter, daemon=True).start()
    hung = 0
    for n in range(CHILDREN):
        time.sleep(0.005)
        pid = os.fork()
        if pid == 0:
            log(f"child-{n}", n)
            os._exit(0)
        hung += not _ended(pid)
    stop.set()
    print(hung, flush=True)


def _ended(pid: int) -> bool:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def _run(peer: str, what: str, folder: str) -> str:
    command = [sys.executable, __file__, "--peer", peer, "--what", what, "--folder", folder]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=40, check=False).stdout
    except subprocess.TimeoutExpired:
        return ""


def _messages(folder: str) -> Counter[str]:
    import re

    found: Counter[str] = Counter()
    for path in Path(folder).rglob("*"):
        if path.is_file() and (path.name == "log" or ".jsonl" in path.name):
            for line in path.read_text("utf-8", "replace").splitlines():
                found.update(set(re.findall(r"(?:last-words|chatter-\d+|child-\d+)(?!\d)", line)))
    return found


def measure(peer: str, rounds: int) -> dict[str, Any]:
    """Measure the figures of one library."""
    survived = hung = lost = twice = 0
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            _run(peer, "killed", folder)
            survived += _messages(folder)["last-words"] > 0
        with tempfile.TemporaryDirectory() as folder:
            said = _run(peer, "forking", folder)
            found = _messages(folder)
            hung += int(said) if said.strip().isdigit() else CHILDREN
            lost += sum(found[f"child-{n}"] == 0 for n in range(CHILDREN))
            twice += sum(count > 1 for count in found.values())
    return {"survived": survived, "hung": hung, "lost": lost, "twice": twice}


def table(results: dict[str, dict[str, Any]], rounds: int) -> str:
    """Format the table as Markdown."""
    rows = [
        f"{rounds} rounds each; Python {platform.python_version()}, {platform.system()} {platform.machine()}. "
        f"Made by `python benchmarks/peers.py --rounds {rounds} --write docs/reliability.md`.",
        "",
        f"| library | version | survives kill -9 right after the call | of {CHILDREN * rounds} children forked while a "
        "thread logs: hung | their records lost | records twice |",
        "|---|---|---|---|---|---|",
    ]
    for name, figures in results.items():
        rows.append(
            f"| {name} | {contenders.version(name)} | {figures['survived']} of {rounds} | {figures['hung']} "
            f"| {figures['lost']} | {figures['twice']} |"
        )
    return "\n".join(rows)


def write_between(path: Path, name: str, text: str) -> None:
    """Put a text between the markers of a given name in a document."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = path.read_text("utf-8").partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", "utf-8")


def main() -> None:
    """Measure every library that is installed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=Path, help="a document with the markers of the table")
    for name in ("--peer", "--what", "--folder"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        {"killed": killed, "forking": forking}[options.what](contenders.CONTENDERS[options.peer][0](options.folder))
        os._exit(0)
    results = {}
    for name in PEERS:
        if contenders.version(name) is None:
            print(f"{name}: not installed", file=sys.stderr)
            continue
        results[name] = measure(name, options.rounds)
        print(name, json.dumps(results[name]), file=sys.stderr, flush=True)
    text = table(results, options.rounds)
    print(text)
    if options.write:
        write_between(options.write, "peers", text)


if __name__ == "__main__":
    main()
