"""Gathering what a process runs on changes nothing for the program."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from calyx_logging import Node
from conftest import config, python

pytestmark = pytest.mark.skipif(os.name == "nt", reason="fork")

HEAD = """
import json, logging, logging.config, os, sys, time
logging.config.dictConfig(json.loads(sys.argv[1]))
logging.getLogger("harness").info("began")
"""


def with_git(folder: Path, script: str) -> dict[str, str]:
    """An environment in which git is a script."""
    (folder / "git").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "git").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_a_program_that_waits_for_any_child(node: Node, tmp_path: Path) -> None:
    """It hears of its own children alone."""
    body = """
children = []
for _ in range(2):
    child = os.fork()
    if not child:
        time.sleep(2)
        os._exit(0)
    children.append(child)
assert sorted(os.wait()[0] for _ in children) == children
"""
    done = python(HEAD + body, json.dumps(config(node, identity=True)), cwd=tmp_path, **with_git(tmp_path, "sleep 0.5"))
    assert done.returncode == 0, done.stderr


def test_a_git_that_hangs(node: Node, tmp_path: Path) -> None:
    """The program ends as soon as without it, and leaves it not running."""
    environment = with_git(tmp_path, f"echo $$ > {tmp_path}/pid\nexec sleep 60")
    body = f"while not os.path.exists({str(tmp_path / 'pid')!r}):\n    time.sleep(0.01)\n"
    began = time.monotonic()
    done = python(HEAD + body, json.dumps(config(node, identity=True)), cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 20
    pid = (tmp_path / "pid").read_text().strip()
    deadline = time.monotonic() + 10
    while (Path("/proc") / pid).exists() and "sleep" in (Path("/proc") / pid / "cmdline").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
