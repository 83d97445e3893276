"""Count what arrives from a pool of spawned workers, and from a killed program, with several libraries' usual set-up.

    python benchmarks/compare_setup.py

Each library is set up once, in the main program, as its own documentation begins; the workers only log. Prints for each
how many of 20 events of workers and of 100 events of a killed program are in its files, and whether anything says that
the program was killed. The table in docs/comparison.md is from it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBRARIES = ("calyx_logging", "loguru", "structlog", "python-json-logger")
WORKERS, KILLED = 20, 100


def log_of(library: str) -> Callable[[str], Any]:
    """Return the call that logs, as any module of the program would have it."""
    if library == "loguru":
        from loguru import logger

        return logger.info
    if library == "structlog":
        import structlog

        return lambda text: structlog.get_logger().info(text)
    import logging

    return logging.getLogger("bench").info


def set_up(library: str, folder: Path) -> None:
    """Have events go to a file in the folder."""
    out = folder / "events.jsonl"
    if library == "loguru":
        from loguru import logger

        logger.add(out, serialize=True)
    elif library == "structlog":
        import structlog

        structlog.configure(
            processors=[structlog.processors.JSONRenderer()],
            logger_factory=structlog.WriteLoggerFactory(out.open("a")),
        )
    elif library == "python-json-logger":
        import logging

        from pythonjsonlogger.json import JsonFormatter

        handler = logging.FileHandler(out)
        handler.setFormatter(JsonFormatter())
        logging.basicConfig(level=logging.INFO)
        logging.getLogger().addHandler(handler)
    else:
        import calyx_logging

        calyx_logging.setup(root=folder, provision="bench-01")


def work(library: str, number: int) -> None:
    """Log in a worker."""
    log_of(library)(f"worker {number}")


def program(library: str, what: str, folder: Path) -> None:
    """Run a program that logs in a pool, or is killed."""
    set_up(library, folder)
    if what == "pool":
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            pool.starmap(work, [(library, number) for number in range(WORKERS)])
        return
    log = log_of(library)
    for number in range(KILLED):
        log(f"event {number}")
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def main() -> None:
    """Print a line for each library."""
    for library in LIBRARIES:
        counts, says = [], False
        for what, word in (("pool", "worker "), ("kill", "event ")):
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, __file__, library, what, folder]
                subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
                if library == "calyx_logging":
                    export = [sys.executable, "-m", "calyx_logging.scripts", "export", "--root", folder]
                    subprocess.run(export, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
                lines = [
                    line for path in Path(folder).rglob("exports/**/*.jsonl") for line in path.open(encoding="utf-8")
                ]
                lines = lines or [line for path in Path(folder).glob("*.jsonl") for line in path.open(encoding="utf-8")]
                counts.append(sum(word in line for line in lines))
                says = says or any(json.loads(line).get("reason") == "recovered" for line in lines if "reason" in line)
        told = "says that it was killed" if says else "nothing says that it was killed"
        print(f"{library:20} pool {counts[0]:3} of {WORKERS}   killed {counts[1]:3} of {KILLED}   {told}")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        program(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    else:
        main()
