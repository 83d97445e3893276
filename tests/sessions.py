"""Sessions that are worth a report: runs that end in every way, and texts that no page may take for markup."""

from __future__ import annotations

import logging
import logging.config
from pathlib import Path

import pytest

from calyx_logging import Node, benchmark_run, provision
from conftest import close_logging, config

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "javascript:alert(1)",
    "</script><script>alert(1)</script>",
    "<!-- <script>",
    "{{ 7 * 7 }} {% raw %}",
    "\u202egnp.exe\u202c \u200bzero\u2028line",
    "' onmouseover='alert(1)",
]


def log_session(node: Node) -> None:
    """Two runs of two models, of which one fails a case; an error and other events outside of runs; an odd model."""
    document = config(node, max_bytes=4000, identity=True)
    document["root"] = {"level": "INFO", "handlers": ["outbox"]}
    logging.config.dictConfig(document)
    log = logging.getLogger("harness")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALYX_ROOT", str(node.root))
        for run_id, model in (("good", "model-a"), ("bad", "<b>model-b</b>")):
            with benchmark_run(suite="arithmetic", run_id=run_id, cases_expected=4) as run:
                for n in range(4):
                    try:
                        with run.case(f"{n}+{n}", model=model) as case:
                            log.info("asking %d", n, extra={"n": n})
                            case.note(score=n / 4, passed=not (run_id == "bad" and n == 2))
                            if run_id == "bad" and n == 1:
                                raise ValueError("no <i>answer</i>")
                    except ValueError:
                        continue
        try:
            with benchmark_run(suite="reading", run_id="slow") as run, run.case("long"):
                raise TimeoutError("too slow")
        except TimeoutError:
            pass
    for text in HOSTILE:
        log.warning(text, extra={"note": text})
    log.error("outside of runs")
    close_logging()
    logging.getLogger().handlers.clear()


def logged_node(folder: Path) -> Node:
    """A node that has logged one."""
    node = provision(folder, "n-1").node
    log_session(node)
    return node
