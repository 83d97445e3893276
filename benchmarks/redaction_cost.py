"""Measure what RedactSecrets costs for each record; makes a table of docs/harness.md.

    python benchmarks/redaction_cost.py [--rounds 7] [--records 20000] [--write docs]

The same records go through the same handler without processors, with one that does nothing, and with redaction,
interleaved. Figures are medians.
"""

from __future__ import annotations

import argparse
import logging
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peers

from calyx_logging import EventFormatter, OutboxHandler, provision

RECORDS: dict[str, dict[str, Any]] = {
    "5 fields": {"model": "m-1", "tokens": 17, "ms": 1.5, "task": "gsm8k", "ok": True},
    "5 fields, one secret": {"model": "m-1", "api_key": "k-123", "ms": 1.5, "task": "gsm8k", "ok": True},
    "1 KB of text": {"prompt": "What is the sum of these numbers? " * 30},
    "64 KB of text": {"prompt": "What is the sum of these numbers? " * 1900},
}
WAYS: dict[str, list[Any]] = {
    "no processor": [],
    "a processor that does nothing": [lambda logger, name, event: event],
    "RedactSecrets": ["calyx_logging.redact.RedactSecrets"],
}


def measure(rounds: int, records: int) -> dict[str, dict[str, float]]:
    """Measure the median µs per record, by kind of record and processors."""
    took: dict[str, dict[str, list[float]]] = {kind: {way: [] for way in WAYS} for kind in RECORDS}
    with tempfile.TemporaryDirectory() as folder:
        logs: dict[str, Callable[..., None]] = {}
        for number, (way, processors) in enumerate(WAYS.items()):
            root = Path(folder, str(number))
            root.mkdir()
            provision(root, "bench")
            handler = OutboxHandler(root=root)
            handler.setFormatter(EventFormatter(processors=processors))
            logger = logging.getLogger(f"bench.{number}")
            logger.propagate = False
            logger.setLevel(logging.INFO)
            logger.addHandler(handler)
            logs[way] = logger.info
        for _ in range(rounds):
            for kind, extra in RECORDS.items():
                count = max(records // (1 + len(str(extra)) // 500), 50)
                for way, info in logs.items():
                    began = time.perf_counter()
                    for _ in range(count):
                        info("case done", extra=extra)
                    took[kind][way].append((time.perf_counter() - began) / count * 1e6)
        logging.shutdown()
    return {kind: {way: statistics.median(found) for way, found in ways.items()} for kind, ways in took.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--write", type=Path, help="the folder with harness.md")
    options = parser.parse_args()
    found = measure(options.rounds, options.records)
    rows = [
        f"µs per record ({platform.system()} {platform.machine()}, Python {platform.python_version()}; medians of "
        f"{options.rounds} rounds; made by `python benchmarks/redaction_cost.py --write docs`):",
        "",
        f"| record | {' | '.join(WAYS)} |",
        f"|---|{'---|' * len(WAYS)}",
    ]
    rows += [f"| {kind} | {' | '.join(f'{ways[way]:.1f}' for way in WAYS)} |" for kind, ways in found.items()]
    text = "\n".join(rows)
    print(text)
    if options.write:
        peers.write_between(options.write / "harness.md", "redaction", text)


if __name__ == "__main__":
    main()
