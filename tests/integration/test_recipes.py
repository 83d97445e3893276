"""Servers and libraries with loggers of their own: what docs/harness.md says of each, tried with the real one."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from calyx_logging import Node, provision
from calyx_logging.outbox.export import export
from conftest import events_of

pytestmark = pytest.mark.integration


def need(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip('needs the extra "integration"')


APP = """
import logging

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    logging.getLogger("app").warning("asked for %s", scope["path"])
    if scope["path"] == "/bad":
        raise ValueError("no model")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"fine"})

def wsgi(environ, start_response):
    logging.getLogger("app").warning("asked for %s", environ["PATH_INFO"])
    if environ["PATH_INFO"] == "/bad":
        raise ValueError("no model")
    start_response("200 OK", [])
    return [b"fine"]
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def ask(port: int, path: str) -> int:
    """Ask a server until it answers, and return the status."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def served(node: Node, folder: Path, *command: str, port: int) -> tuple[list[dict[str, Any]], int]:
    """Run a server under `run`, ask it twice, end it; its events, and how many records did not arrive."""
    (folder / "app.py").write_text(APP)
    run = [sys.executable, "-m", "calyx_logging.scripts", "run", "--root", str(node.root), "--"]
    with subprocess.Popen([*run, sys.executable, *command], cwd=folder, stderr=subprocess.DEVNULL) as server:
        try:
            assert (ask(port, "/fine"), ask(port, "/bad")) == (200, 500)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=60)
    export(node)
    events = events_of(node.outbox)
    (counts,) = (event for event in events if event["logger"] == "calyx_logging.run")
    return events, counts["emitted"] - counts["arrived"]


@pytest.fixture
def root(tmp_path: Path) -> Node:
    (tmp_path / "root").mkdir()
    return provision(tmp_path / "root", "node").node


@pytest.mark.skipif(os.name == "nt", reason="ended by a signal")
def test_uvicorn(root: Node, tmp_path: Path) -> None:
    """Its loggers, which cut themselves off when it starts: the traceback of a 500 is there."""
    need("uvicorn")
    port = free_port()
    events, missing = served(root, tmp_path, "-m", "uvicorn", "app:app", "--port", str(port), port=port)
    assert missing == 0
    (failure,) = (event for event in events if event["logger"] == "uvicorn.error" and event.get("exception"))
    assert (failure["level"], failure["exception"][0]["value"]) == ("error", "no model")
    assert {"asked for /fine", "asked for /bad"} <= {event["message"] for event in events}


@pytest.mark.skipif(os.name == "nt", reason="gunicorn is for POSIX")
def test_gunicorn(root: Node, tmp_path: Path) -> None:
    """Its master and its workers, which it forks."""
    need("gunicorn")
    port = free_port()
    command = ("-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}", "app:wsgi")
    events, missing = served(root, tmp_path, *command, port=port)
    assert missing == 0
    assert any(event["logger"] == "gunicorn.error" and event.get("exception") for event in events)
    assert any(event["message"] == "asked for /fine" for event in events)


PROGRAM = """
import json, logging, logging.config, sys
logging.config.dictConfig(json.loads(sys.argv[1]))
{body}
"""


def run_with(node: Node, body: str, capture: str) -> list[dict[str, Any]]:
    handler = {"class": "calyx_logging.handlers.OutboxHandler", "root": str(node.root), "capture": [capture]}
    config = {"version": 1, "disable_existing_loggers": False, "handlers": {"outbox": handler}}
    command = [sys.executable, "-c", PROGRAM.format(body=body), json.dumps(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=node.root)
    assert done.returncode == 0, done.stderr
    export(node)
    return events_of(node.outbox)


def test_absl(root: Node) -> None:
    """Captured before absl makes its logger, which is of a class of its own."""
    need("absl")
    body = """
from absl import app, logging as absl_logging
def main(_):
    absl_logging.warning("from absl %d", 1)
app.run(main, argv=["program"])
"""
    events = run_with(root, body, "absl")
    (event,) = (event for event in events if event["logger"] == "absl")
    assert (event["message"], event["level"]) == ("from absl 1", "warning")


def test_celery(root: Node) -> None:
    """A worker that takes the root logger over: its own records and those of a task."""
    need("celery")
    body = """
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.utils.log import get_task_logger
app = Celery("tasks", broker="memory://", backend="cache+memory://")
log = get_task_logger("tasks")
@app.task
def add(a, b):
    log.warning("adding %d and %d", a, b)
    return a + b
with start_worker(app, perform_ping_check=False, pool="solo", loglevel="INFO"):
    assert add.delay(2, 2).get(timeout=30) == 4
"""
    events = run_with(root, body, "root")
    assert any(event["message"] == "adding 2 and 2" for event in events)
    assert any(event["logger"].startswith("celery.worker") for event in events)
