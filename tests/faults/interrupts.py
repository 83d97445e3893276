"""Ctrl-C at every bytecode of a logging call, and in storms.

    cd tests && python -m faults.interrupts [--storm 100000] [--threads 8]

The injection raises KeyboardInterrupt from a trace function at the k-th bytecode that runs in the library's recording
rooms, and in Python's own locks below them, for every k until a call runs through: as Python's own handler does, only
at more places. Then logging goes on, and what is on disk is held against what was acknowledged. The storm sends real
signals to a real program.
"""

from __future__ import annotations

import argparse
import gc
import json
import linecache
import logging
import logging.config
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from calyx_logging import Node, provision
from calyx_logging.outbox.export import export
from calyx_logging.recording import background
from conftest import REPO, close_logging, config
from faults.disk import python_way

SITUATIONS = ("first event", "usual", "roll", "after a loss", "another writer", "seal", "close")
ROOMS = ("recording/pool.py", "recording/seats.py", "recording/writer.py", "recording/chunk_series.py")
ROOMS += ("recording/chunk_file.py", "recording/gaps.py", "recording/calls.py", "recording/background.py")
ROOMS += ("core/files.py", "core/locks.py", "core/os_lock.py", "/threading.py", "/queue.py")
HANG_SECONDS = 60.0


@dataclass
class Tally:
    """The figures of a campaign, and the faults it found."""

    injected: int = 0
    acknowledged: int = 0
    faults: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The figures, and the first faults."""
        figures = f"{self.injected} interrupts, {self.acknowledged} events acknowledged, {len(self.faults)} faults"
        return "\n".join([figures, *self.faults[:10]])


class _Injector:
    """Raises at the k-th bytecode in the library's rooms."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.done = False

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if self.done or not frame.f_code.co_filename.replace(os.sep, "/").endswith(ROOMS):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and _can_be_interrupted(frame):
            self.left -= 1
            if self.left == 0:
                self.done = True
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


def _can_be_interrupted(frame: FrameType) -> bool:
    """Not between two lines, nor where a lock is entered or left: there Python itself looks for no signal.

    Nor in `__del__`, where Python ignores what is raised.
    """
    names = {frame.f_code.co_name, frame.f_back.f_code.co_name if frame.f_back else ""}
    text = linecache.getline(frame.f_code.co_filename, frame.f_lineno or 0)
    return frame.f_lineno is not None and "__del__" not in names and not text.strip().startswith("with self._care")


class _Probe:
    """Notices that housekeeping has come."""

    outbox = Path()

    def __init__(self) -> None:
        self.came = threading.Event()

    def upkeep(self) -> float:
        self.came.set()
        return background.LOOK_SECONDS

    def seal(self) -> None: ...

    def close(self) -> None: ...

    def after_fork(self) -> None: ...


def _comes_when_called() -> bool:
    """Whether housekeeping still does; asked in a thread of its own, since an interrupt may have left a lock taken."""
    probe = _Probe()
    background.join(probe)
    threading.Thread(target=background.wake, daemon=True).start()
    return probe.came.wait(HANG_SECONDS)


def _inject(at: int, act: Callable[[], Any]) -> bool:
    """Whether an interrupt was injected; False when `act` ran through before."""
    injector = _Injector(at)

    def interrupted() -> None:
        sys._getframe().f_trace_opcodes = True  # or Python 3.12 and newer report none for this call
        try:
            sys.settrace(injector)
            act()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)

    # in a thread of its own: raised where an `except` ends, it would stay the thread's current exception
    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(HANG_SECONDS)
    if thread.is_alive():
        raise TimeoutError(f"the call hangs after an interrupt at bytecode {at}")
    return injector.done


def _one(root: Path, situation: str, at: int, tally: Tally) -> bool:
    node = provision(root, "interrupted").node
    logging.config.dictConfig(config(node, max_bytes=900))
    logger = logging.getLogger("harness")
    handler: Any = logger.handlers[0]
    its = handler._pool
    acknowledged: list[int] = []

    def log(n: int) -> None:
        logger.info("event", extra={"n": n, "pad": "x" * 60})
        acknowledged.append(n)

    held = None
    if situation != "first event":
        for n in range(3 if situation == "roll" else 2):
            log(n)
    if situation == "after a loss":
        its.submit(lambda _: 1 / 0, None)
    elif situation == "another writer":
        held = its._seats.idle.pop()
    act = {"seal": handler.seal, "close": handler.close}.get(situation, lambda: log(10))
    hit = _inject(at, act)
    if held is not None:
        its._seats.idle.append(held)
        held = None
    gc.collect()  # no traceback, no frame keeps a seat
    if not _comes_when_called():
        raise TimeoutError(f"housekeeping does not come after an interrupt at bytecode {at}")
    its.upkeep()
    for n in range(20, 24):
        log(n)
    close_logging()
    background._members[:] = [one for one in background._members if one() is not its]
    tally.acknowledged += len(acknowledged)
    tally.faults += [f"{situation}, bytecode {at}: {fault}" for fault in _faults(node, acknowledged)]
    return hit


def _faults(node: Node, acknowledged: list[Any], key: str = "n") -> list[str]:
    """Name every broken promise of an outbox whose program has ended in order."""
    faults = []
    seen: Counter[Any] = Counter()
    seqs: dict[str, list[int]] = defaultdict(list)
    named: dict[str, list[int]] = defaultdict(list)
    ends: Counter[str] = Counter()
    for path in sorted(node.outbox.glob("*.jsonl"), key=lambda path: path.name.split("__")[2]):
        writer = path.name.split("__")[2][:8]
        for line in path.read_bytes().splitlines():
            event = json.loads(line)
            seqs[writer].append(event["seq"])
            seen[event.get(key)] += 1
            ends[writer] += event.get("control") == "end" and event["reason"] == "closed"
            for first, last in event.get("seqs", ()):
                named[event.get("writer", writer)] += range(first, last + 1)
    if missing := set(acknowledged) - set(seen):
        faults.append(f"lost: {sorted(missing)[:5]}")
    if twice := [one for one, count in seen.items() if one is not None and count > 1]:
        faults.append(f"twice: {twice[:5]}")
    for writer, found in seqs.items():
        if found != sorted(set(found)):
            faults.append(f"writer {writer}: seq out of order or twice")
        if sorted({*found, *named[writer]}) != list(range(max([*found, *named[writer]]) + 1)):
            faults.append(f"writer {writer}: a hole in seq that no gap line names")
        if not ends[writer]:
            faults.append(f"writer {writer}: no end")
    faults += [f"left open: {path.name}" for path in node.outbox.glob("*.open")]
    if export(node).recovery.recovered:
        faults.append("a writer was taken for dead")
    return faults


def at_each_bytecode(folder: Path, situation: str, *, every: int = 1, most: int = 100_000) -> Tally:
    """Interrupt one action at each of its bytecodes, or at every n-th, each time in an outbox of its own."""
    tally = Tally()
    hit, at = True, 1 - every
    gc.collect()
    gc.freeze()  # so that the collection after each interrupt looks at little
    try:
        while hit and at < most:
            at += every
            root = folder / f"{situation} {at}"
            root.mkdir()
            with python_way():  # the compiled core has no bytecodes
                hit = _one(root, situation, at, tally)
            tally.injected += hit
    except TimeoutError as error:
        tally.faults.append(str(error))
    finally:
        gc.unfreeze()
    return tally


STORM = """
import json, logging, logging.config, os, signal, sys, threading, time
settings, wanted, threads, out = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
logging.config.dictConfig(settings)
log = logging.getLogger("harness")
acknowledged, sent, done = [[] for _ in range(threads)], 0, False
def storm():
    global sent, done
    while sent < wanted:
        time.sleep(0.0005)
        os.kill(os.getpid(), signal.SIGINT)
        sent += 1
    done = True
def beside(which):
    number = 0
    while not done:
        number += 1
        log.info("n", extra={"mark": f"{which}-{number}"})
        acknowledged[which].append(f"{which}-{number}")
for which in range(1, threads):
    threading.Thread(target=beside, args=(which,)).start()
log.info("n", extra={"mark": "begin"})
def interrupt(*_):
    global inside
    if inside:
        inside = False
        raise KeyboardInterrupt
number, inside = 0, False
signal.signal(signal.SIGINT, interrupt)
threading.Thread(target=storm, daemon=True).start()
while not done:
    try:
        inside = True
        while not done:
            number += 1
            log.info("n", extra={"mark": f"0-{number}"})
            acknowledged[0].append(f"0-{number}")
    except KeyboardInterrupt:
        pass
signal.signal(signal.SIGINT, signal.SIG_IGN)
logging.shutdown()
descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
with open(out, "w") as stream:
    json.dump({"sent": sent, "acknowledged": sum(acknowledged, []), "descriptors": descriptors}, stream)
"""


def storm(folder: Path, *, interrupts: int, threads: int) -> Tally:
    """Log in a program that gets a real SIGINT every half millisecond; then look at what it left."""
    root = folder / f"storm {threads}"
    root.mkdir()
    node = provision(root, "interrupted").node
    out = root / "acknowledged.json"
    command = [sys.executable, "-c", STORM, json.dumps(config(node, max_bytes=50_000)), str(interrupts), str(threads)]
    tally = Tally()
    try:
        done = subprocess.run(
            [*command, str(out)],
            capture_output=True,
            text=True,
            cwd=REPO.parent,
            timeout=60 + interrupts / 50,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        tally.faults.append(f"the program hangs: {error}")
        return tally
    if done.returncode or not out.exists():
        tally.faults.append(f"the program ended with {done.returncode}: {done.stderr[-2000:]}")
        return tally
    result = json.loads(out.read_bytes())
    tally.injected, tally.acknowledged = result["sent"], len(result["acknowledged"])
    if "Bad file descriptor" in done.stderr:
        tally.faults.append("a descriptor was closed twice")
    if result["descriptors"] > 24 + threads:
        tally.faults.append(f"{result['descriptors']} descriptors are open at the end")
    tally.faults += _faults(node, result["acknowledged"], "mark")
    return tally


def main() -> int:
    """Run both campaigns and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storm", type=int, default=100_000, help="interrupts of a storm")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 8])
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for situation in SITUATIONS:
            tally = at_each_bytecode(Path(folder), situation)
            print(f"at each bytecode, {situation}: {tally.text()}", flush=True)
            failed = failed or bool(tally.faults)
        for threads in options.threads:
            tally = storm(Path(folder), interrupts=options.storm, threads=threads)
            print(f"storm, {threads} threads: {tally.text()}", flush=True)
            failed = failed or bool(tally.faults)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
