"""Outboxes in states that tests begin with: a killed writer's, a first-generation one's."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from calyx_logging import Node
from conftest import close_logging, config, python

Configure = Callable[..., logging.Logger]
KILLED = """
    import json, logging, logging.config, os, signal, sys
    logging.config.dictConfig(json.loads(sys.argv[1]))
    log = logging.getLogger("harness")
    for n in range(int(sys.argv[2])):
        log.info("event", extra={"n": n})
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
"""


def killed_writer(node: Node, events: int = 3, **options: object) -> list[Path]:
    """A program that logged and was killed; the open chunks it left."""
    python(KILLED, json.dumps(config(node, **options)), str(events))
    return sorted(node.outbox.glob("*.open"))


def log_events(configure: Configure, *numbers: int) -> None:
    logger = configure()
    for n in numbers:
        logger.info("event", extra={"n": n})
    close_logging()


def index(node: Node) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((node.outbox / ".exported_index.json").read_bytes())
    return document


FOREIGN = "20240101_010101__bench__ab12.jsonl"


def foreign(node: Node, *lines: str, age: float = 3600.0) -> Path:
    path = node.outbox / FOREIGN
    path.write_text("".join(f"{line}\n" for line in lines))
    now = path.stat().st_mtime - age
    os.utime(path, (now, now))
    return path
