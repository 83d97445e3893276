"""End a program in many ways, and look what each recorder has of it afterwards.

    pip install calyx-logging[bench] sentry-sdk wandb
    python benchmarks/endings.py [--write docs/reliability.md]

Each library is set up as its documentation says for a program on one machine without a network: loguru with a file,
`catch` around the program; Sentry's SDK with a transport that writes each envelope to a file; wandb offline. What a
recorder left is searched for what ended the program: the exception's type, the exit code, the signal's name.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from peers import write_between

WAYS: dict[str, tuple[str, str]] = {
    "runs to its end": ("pass", r'"exit_code":\s*0'),
    "`sys.exit(3)`": ("sys.exit(3)", r'exit.?code"?\s*[:=]?\s*"?3\b|exit.{0,12}\b3\b'),
    "uncaught exception": ("1 / 0", "ZeroDivisionError"),
    "exception in a thread": ("in_a_thread()", "KeyError"),
    "exception in `__del__`": ("Finalizes()", "OSError"),
    "exception of a task that nobody awaits": ("asyncio.run(with_a_lost_task())", "LookupError"),
    "exception in a worker process": ("in_a_worker()", "NotImplementedError"),
    "a warning": ("warnings.warn('the cache is stale')", "the cache is stale"),
    "Ctrl-C": ("signal.raise_signal(signal.SIGINT)", "KeyboardInterrupt|SIGINT"),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM)", "SIGTERM"),
    "SIGHUP (the terminal goes)": ("os.kill(os.getpid(), signal.SIGHUP)", "SIGHUP"),
    "SIGQUIT": ("os.kill(os.getpid(), signal.SIGQUIT)", "SIGQUIT"),
    "segmentation fault": ("ctypes.string_at(0)", "SIGSEGV|Segmentation fault"),
    "`os.abort()`": ("os.abort()", "SIGABRT|Aborted"),
    "`os._exit(7)`": ("os._exit(7)", r'exit.?code"?\s*[:=]?\s*"?7\b'),
    "SIGKILL, out of memory": ("os.kill(os.getpid(), signal.SIGKILL)", '"reason":"recovered"|killed|SIGKILL'),
}
"""Each way: the code, and what a record of it has to have in it."""

HEAD = """
import asyncio, ctypes, multiprocessing, os, signal, sys, threading, time, warnings

def in_a_thread():
    thread = threading.Thread(target=lambda: {}["missing"])
    thread.start()
    thread.join()

class Finalizes:
    def __del__(self):
        raise OSError("still in use")

async def fails():
    raise LookupError("lost")

async def with_a_lost_task():
    task = asyncio.create_task(fails())
    await asyncio.sleep(0.01)
    del task

def work():
    raise NotImplementedError("in a worker")

def in_a_worker():
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
"""

RECORDERS = {
    "calyx-logging": """
from calyx_logging import OutboxHandler, provision
import logging
provision(folder, "node")
logging.basicConfig(level="INFO", handlers=[OutboxHandler(root=folder)])
logging.info("begin")
{way}
""",
    "loguru": """
from loguru import logger
logger.remove()
logger.add(folder + "/log.jsonl", serialize=True)
logger.info("begin")
with logger.catch(BaseException, reraise=True):
    {way}
""",
    "sentry-sdk": """
import sentry_sdk
from sentry_sdk.transport import Transport
class ToFile(Transport):
    def capture_envelope(self, envelope):
        with open(folder + "/envelopes", "ab") as file:
            envelope.serialize_into(file)
sentry_sdk.init(dsn="http://key@localhost/1", transport=ToFile, enable_logs=True)
import logging
logging.basicConfig(level="INFO")
logging.error("begin")
{way}
""",
    "wandb": """
os.environ.update(WANDB_MODE="offline", WANDB_DIR=folder, WANDB_SILENT="true")
import wandb
run = wandb.init(project="p", dir=folder)
print("begin", flush=True)
{way}
""",
}


def left_by(recorder: str, way: str, python: str) -> str:
    """Run a program and return all that it left, as text."""
    with tempfile.TemporaryDirectory() as place:
        program = Path(place, "program.py")
        body = RECORDERS[recorder].replace("{way}", way)
        program.write_text(f"{HEAD}\nfolder = {str(Path(place, 'left'))!r}\nos.makedirs(folder, exist_ok=True)\n{body}")
        done = subprocess.run([python, str(program)], capture_output=True, timeout=120, check=False)
        left = Path(place, "left")
        if recorder == "calyx-logging":
            from calyx_logging import Node
            from calyx_logging.outbox.export import export

            export(Node.find(left))
        texts = [path.read_bytes().decode("utf-8", "replace") for path in left.rglob("*") if path.is_file()]
        found = "\n".join(texts)
        if recorder == "calyx-logging" and "begin" not in found:
            raise SystemExit(f"{recorder}: {way}: nothing was recorded\n{done.stderr.decode()}")
        return found


def said_by_us(way: str, python: str) -> str:
    """Describe the last end line, and the events logged about it."""
    lines = [
        json.loads(line) for line in left_by("calyx-logging", way, python).splitlines() if line[:10] == '{"node_id"'
    ]
    lines = [line for line in lines if "seq" in line]
    lines = list({line["event_id"]: line for line in lines}.values())
    events = [line for line in lines if line["source"] != "calyx_logging" and line["message"] != "begin"]
    ends = [line for line in lines if line.get("control") == "end"]
    names = ("reason", "exit_code", "signal", "exception_type")
    said = []
    for end in sorted(ends, key=lambda end: end["ts_utc"])[-1:]:
        said.append(", ".join(f"`{name}` {end[name]}" for name in names if name in end))
        said += ["stacks of all threads" if "Fatal" in end["fault"] else "stack"] if "fault" in end else []
    said += [f"event: {event['level']}, {event['message'].splitlines()[0]}" for event in events]
    return "; ".join(said)


def main() -> None:
    """Print the table, or write it into a document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    modules = {"loguru": "loguru", "sentry-sdk": "sentry_sdk", "wandb": "wandb"}
    peers = [name for name, module in modules.items() if importlib.util.find_spec(module) is not None]
    rows = [["how it ends", "what the bundle says", *(f"{name} {version_of(name)}" for name in peers)]]
    for name, (way, evidence) in WAYS.items():
        if os.name == "nt" and "os.kill" in way and not hasattr(signal, "SIGHUP"):
            continue
        answers = ["yes" if re.search(evidence, left_by(peer, way, sys.executable)) else "no" for peer in peers]
        rows.append([name, said_by_us(way, sys.executable), *answers])
        print(" | ".join(rows[-1]), flush=True)
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    table = "\n".join([head, "|" + "---|" * len(rows[0]), *body])
    if options.write:
        made = "`python benchmarks/endings.py --write docs/reliability.md`"
        words = f"For the other libraries: does anything that they left say so? Made by {made}."
        write_between(options.write, "endings", f"{words}\n\n{table}")


def version_of(name: str) -> str:
    """Return the version of an installed distribution."""
    from importlib.metadata import version

    return version(name)


if __name__ == "__main__":
    main()
