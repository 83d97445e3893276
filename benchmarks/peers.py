"""What logging libraries do when processes die and fork: measured, each in programs of its own.

    pip install calyx-logging[bench]
    python benchmarks/peers.py [--rounds 5] [--write docs/reliability.md]

For each library, through its usual way of writing JSON lines to a file: does a record survive `kill -9` right after the
call that logged it; what becomes of children forked while another thread logs (they hang, they lose their record); and
does any record stand in the file twice after a fork. `--write` puts the table between the markers of a document.
"""

from __future__ import annotations

import argparse
import importlib.metadata
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

Log = Callable[[str], object]
CHILDREN = 10
PATIENCE = 2.0
BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"


def calyx(folder: str) -> Log:
    """This library, by dictConfig."""
    import logging.config

    from calyx_logging import provision

    provision(folder, "bench")
    handler = {"class": "calyx_logging.handlers.OutboxHandler", "root": folder}
    logging.config.dictConfig({"version": 1, "handlers": {"o": handler}, "root": {"level": "INFO", "handlers": ["o"]}})
    return logging.getLogger("bench").info


def _stdlib(handler: Any) -> Log:
    import logging

    from pythonjsonlogger.json import JsonFormatter

    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level="INFO", handlers=[handler])
    return logging.getLogger("bench").info


def stdlib_file(folder: str) -> Log:
    """logging.FileHandler with python-json-logger."""
    import logging

    return _stdlib(logging.FileHandler(f"{folder}/log"))


def stdlib_queue(folder: str) -> Log:
    """logging's QueueHandler and QueueListener before a FileHandler."""
    import logging.handlers
    import queue

    from pythonjsonlogger.json import JsonFormatter

    file = logging.FileHandler(f"{folder}/log")
    file.setFormatter(JsonFormatter())
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    logging.handlers.QueueListener(records, file).start()
    logging.basicConfig(level="INFO", handlers=[logging.handlers.QueueHandler(records)])
    return logging.getLogger("bench").info


def stdlib_memory(folder: str) -> Log:
    """logging's MemoryHandler before a FileHandler."""
    import logging.handlers

    from pythonjsonlogger.json import JsonFormatter

    file = logging.FileHandler(f"{folder}/log")
    file.setFormatter(JsonFormatter())
    logging.basicConfig(level="INFO", handlers=[logging.handlers.MemoryHandler(100, target=file)])
    return logging.getLogger("bench").info


def concurrent_log_handler(folder: str) -> Log:
    """concurrent-log-handler."""
    from concurrent_log_handler import ConcurrentRotatingFileHandler

    return _stdlib(ConcurrentRotatingFileHandler(f"{folder}/log"))


def structlog_native(folder: str) -> Log:
    """structlog's own WriteLogger with JSONRenderer."""
    import structlog

    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        logger_factory=structlog.WriteLoggerFactory(file=open(f"{folder}/log", "a")),  # noqa: SIM115
    )
    return structlog.get_logger().info  # type: ignore[no-any-return]


def loguru(folder: str, enqueue: bool = False) -> Log:
    """loguru, serialize=True."""
    from loguru import logger

    logger.remove()
    logger.add(f"{folder}/log", serialize=True, enqueue=enqueue)
    return logger.info


def loguru_enqueue(folder: str) -> Log:
    """loguru, serialize=True, enqueue=True."""
    return loguru(folder, enqueue=True)


def eliot(folder: str) -> Log:
    """eliot to a file."""
    import eliot as library

    library.to_file(open(f"{folder}/log", "a"))  # noqa: SIM115
    return lambda message: library.log_message(message_type="bench", message=message)


def logbook(folder: str) -> Log:
    """logbook's FileHandler."""
    import logbook as library

    library.FileHandler(f"{folder}/log", format_string='{{"message": "{record.message}"}}').push_application()
    return library.Logger("bench").info  # type: ignore[no-any-return]


def picologging(folder: str) -> Log:
    """picologging's FileHandler."""
    import picologging as library

    library.basicConfig(level=library.INFO, filename=f"{folder}/log", format='{"message": "%(message)s"}')
    return library.getLogger("bench").info  # type: ignore[no-any-return]


def _opentelemetry(folder: str, processor: str) -> Log:
    import logging

    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
    from opentelemetry.sdk._logs import export as exporters

    provider = LoggerProvider()
    out = open(f"{folder}/log", "a")  # noqa: SIM115
    exporter_class: Any = getattr(exporters, "ConsoleLogRecordExporter", None) or exporters.ConsoleLogExporter
    exporter = exporter_class(out=out, formatter=lambda record: str(record.to_json(indent=None)) + "\n")
    provider.add_log_record_processor(getattr(exporters, processor)(exporter))
    logging.basicConfig(level="INFO", handlers=[LoggingHandler(logger_provider=provider)])
    return logging.getLogger("bench").info


def opentelemetry_simple(folder: str) -> Log:
    """OpenTelemetry SDK, SimpleLogRecordProcessor."""
    return _opentelemetry(folder, "SimpleLogRecordProcessor")


def opentelemetry_batch(folder: str) -> Log:
    """OpenTelemetry SDK, BatchLogRecordProcessor."""
    return _opentelemetry(folder, "BatchLogRecordProcessor")


PEERS: dict[str, tuple[Callable[[str], Log], str]] = {
    "calyx-logging": (calyx, "calyx-logging"),
    "logging.FileHandler": (stdlib_file, ""),
    "logging.QueueHandler": (stdlib_queue, ""),
    "logging.MemoryHandler": (stdlib_memory, ""),
    "concurrent-log-handler": (concurrent_log_handler, "concurrent-log-handler"),
    "structlog (native)": (structlog_native, "structlog"),
    "loguru": (loguru, "loguru"),
    "loguru (enqueue)": (loguru_enqueue, "loguru"),
    "eliot": (eliot, "eliot"),
    "logbook": (logbook, "logbook"),
    "picologging": (picologging, "picologging"),
    "OpenTelemetry (simple)": (opentelemetry_simple, "opentelemetry-sdk"),
    "OpenTelemetry (batch)": (opentelemetry_batch, "opentelemetry-sdk"),
}


def killed(log: Log) -> None:
    """Log one record and die."""
    log("last-words")
    os.kill(os.getpid(), signal.SIGKILL)


def forking(log: Log) -> None:
    """Fork while another thread logs; each child logs one record. Prints how many children hung."""
    stop = threading.Event()

    def chatter() -> None:
        n = 0
        while not stop.is_set():
            log(f"chatter-{n}")
            n += 1

    threading.Thread(target=chatter, daemon=True).start()
    hung = 0
    for n in range(CHILDREN):
        time.sleep(0.005)
        pid = os.fork()
        if pid == 0:
            log(f"child-{n}")
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
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout
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
    """The figures of one library."""
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
    """The table, in Markdown."""
    rows = [
        f"{rounds} rounds each; Python {platform.python_version()}, {platform.system()} {platform.machine()}. "
        f"Made by `python benchmarks/peers.py --rounds {rounds} --write docs/reliability.md`.",
        "",
        f"| library | version | survives kill -9 right after the call | of {CHILDREN * rounds} children forked while a "
        "thread logs: hung | their records lost | records twice |",
        "|---|---|---|---|---|---|",
    ]
    for name, figures in results.items():
        distribution = PEERS[name][1]
        version = importlib.metadata.version(distribution) if distribution else f"Python {platform.python_version()}"
        rows.append(
            f"| {name} | {version} | {figures['survived']} of {rounds} | {figures['hung']} | {figures['lost']} "
            f"| {figures['twice']} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Measure every library that is installed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=Path, help="a document with the markers of the table")
    for name in ("--peer", "--what", "--folder"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        {"killed": killed, "forking": forking}[options.what](PEERS[options.peer][0](options.folder))
        os._exit(0)
    results = {}
    for name, (_, distribution) in PEERS.items():
        try:
            importlib.metadata.version(distribution or "pip")
        except importlib.metadata.PackageNotFoundError:
            print(f"{name}: not installed", file=sys.stderr)
            continue
        results[name] = measure(name, options.rounds)
        print(name, json.dumps(results[name]), file=sys.stderr, flush=True)
    text = table(results, options.rounds)
    print(text)
    if options.write:
        document = options.write.read_text("utf-8")
        before, _, rest = document.partition(BEGIN)
        _, _, after = rest.partition(END)
        options.write.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
