"""Log from worker processes of every kind, and compare what was logged with what is in the verified bundle.

    python benchmarks/start_methods.py        (loky's row needs it installed: pip install loky)

Each row is one program: a start method, and a way to use it. Each call of `work` logs one event, and so does the
parent, before and after. `nested`: the workers start processes in turn. The exit code is 1 if any event is missing.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import subprocess
import sys
import tempfile
from pathlib import Path

from calyx_logging import Node, provision
from calyx_logging.outbox.export import export

HEAD = """
import logging, logging.config, multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor

def work(n):
    logging.getLogger("worker").info("case %d", n)
    return n

def nest(n):
    work(n)
    child = context.Process(target=work, args=(n + 100,))
    child.start()
    child.join()

context = multiprocessing.get_context(sys.argv[2] if sys.argv[2] != "loky" else None)

if __name__ == "__main__":
    handler = {"class": "calyx_logging.OutboxHandler", "root": sys.argv[1]}
    logging.config.dictConfig(
        {"version": 1, "handlers": {"outbox": handler}, "root": {"level": "INFO", "handlers": ["outbox"]}}
    )
    logging.info("before")
"""

WAYS = {
    "Pool": (8, "with context.Pool(3) as pool:\n    pool.map(work, range(8))\n    pool.close()\n    pool.join()"),
    "ProcessPoolExecutor": (
        8,
        "with ProcessPoolExecutor(3, mp_context=context) as pool:\n    list(pool.map(work, range(8)))",
    ),
    "Process": (
        3,
        "all_of_them = [context.Process(target=work, args=(n,)) for n in range(3)]\n"
        "for one in all_of_them: one.start()\nfor one in all_of_them: one.join()",
    ),
    "nested": (
        6,
        "all_of_them = [context.Process(target=nest, args=(n,)) for n in range(3)]\n"
        "for one in all_of_them: one.start()\nfor one in all_of_them: one.join()",
    ),
}
LOKY = (8, "from loky import get_reusable_executor\nlist(get_reusable_executor(3).map(work, range(8)))")


def logged_and_kept(method: str, count: int, way: str) -> tuple[int, int]:
    """Return how many events a program logged, and how many a verified bundle has, each once."""
    with tempfile.TemporaryDirectory(prefix="calyx-methods-") as folder:
        node = provision(Path(folder), "test-node").node
        body = "\n".join(f"    {line}" for line in [*way.split("\n"), 'logging.info("after")'])
        script = Path(folder, "program.py")
        script.write_text(HEAD + body + "\n", "utf-8")
        subprocess.run([sys.executable, str(script), str(node.root), method], check=True, timeout=300)
        return count + 2, kept_of(node)


def kept_of(node: Node) -> int:
    """Export, verify as a person would, and count the events in the bundle."""
    bundle = export(node).bundle
    if bundle is None:
        return 0
    verify = [sys.executable, "-m", "calyx_logging.scripts", "verify", str(bundle)]
    subprocess.run(verify, check=True, stdout=subprocess.DEVNULL, timeout=300)
    lines = [json.loads(line) for path in bundle.glob("*.jsonl") for line in path.read_bytes().splitlines()]
    return len({line["event_id"] for line in lines if line["source"] != "calyx_logging"})


def main() -> int:
    """Print the table."""
    rows = [(method, name, *way) for method in multiprocessing.get_all_start_methods() for name, way in WAYS.items()]
    if importlib.util.find_spec("loky") is not None:
        rows.append(("loky", "get_reusable_executor", *LOKY))
    print(f"Python {sys.version.split()[0]} on {sys.platform}")
    missing = 0
    for method, name, count, way in rows:
        logged, kept = logged_and_kept(method, count, way)
        missing += logged - kept
        print(f"| {method} | {name} | {logged} | {kept} |", flush=True)
    return int(missing != 0)


if __name__ == "__main__":
    sys.exit(main())
