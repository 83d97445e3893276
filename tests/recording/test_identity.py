"""The start line and the environment line of a process say what runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from calyx_logging import Node
from calyx_logging.outbox.export import export
from conftest import config, controls_of, events_of, lines_of

PROGRAM = """
import json, logging, logging.config, os, sys, time
logging.config.dictConfig(json.loads(sys.argv[1]))
log = logging.getLogger("harness")
log.info("first")
deadline = time.monotonic() + float(sys.argv[2])
while time.monotonic() < deadline and not any(
    '"control":"environment"' in path.read_text() for path in log.handlers[0].outbox.glob("*.open")
):
    time.sleep(0.05)
"""


def run(
    node: Node, folder: Path, *arguments: str, seconds: float = 20.0, program: str = PROGRAM, **env: str
) -> list[dict[str, Any]]:
    """Run a script until its environment line is there; its control lines but the ends."""
    script = folder / "program.py"
    script.write_text(program)
    command = [sys.executable, str(script), json.dumps(config(node, identity=True)), str(seconds), *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "CALYX_LOGGING_ENVIRONMENT"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=folder, env={**environment, **env}
    )
    assert done.returncode == 0, done.stderr
    export(node)
    return [line for line in controls_of(node.outbox) if line["control"] != "end"]


def test_a_process(node: Node, tmp_path: Path) -> None:
    """The first line says what is known at once, and costs nothing; the rest follows."""
    secret = "ghp_" + "aB3" * 12
    start, environment = run(node, tmp_path, "--api-key", secret, SLURM_JOB_ID="42", MY_SECRET=secret)
    assert lines_of(node.outbox)[0] == start
    assert start["process"] == start["process"].lower()
    assert (start["program"], start["cwd"]) == ("program.py", str(tmp_path))
    assert start["python"].startswith(f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}.")
    assert {"host", "platform", "executable", "pid", "ppid", "utc_offset_s"} <= start.keys()
    assert environment["argv"][-2:] == ["--api-key", "[redacted]"]
    assert environment["variables"]["SLURM_JOB_ID"] == "42"
    assert secret not in json.dumps([start, environment])
    assert environment["packages"]["structlog"]
    assert environment["cpus"] == os.cpu_count()


def test_packages_are_told_once(node: Node, tmp_path: Path) -> None:
    """Their hash is in each environment line, their names in the first one of a node."""
    run(node, tmp_path)
    lines = [line for line in run(node, tmp_path) if line["control"] == "environment"]
    assert len(lines) == 2
    assert len({line["packages_sha256"] for line in lines}) == 1
    assert sum("packages" in line for line in lines) == 1


def test_git(node: Node, tmp_path: Path) -> None:
    """The commit of the folder's repository, and whether tracked files differ."""
    git = ["git", "-c", "user.name=n", "-c", "user.email=n@example.org"]
    try:
        for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
            subprocess.run([*git, *command], cwd=tmp_path, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("git is not installed")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True)
    (_, environment) = run(node, tmp_path)
    assert (environment["git_commit"], environment["git_dirty"]) == (commit.stdout.strip(), False)
    (tmp_path / "tracked").write_text("a")
    subprocess.run(["git", "add", "tracked"], cwd=tmp_path, check=True, capture_output=True)
    assert run(node, tmp_path)[-1]["git_dirty"] is True


@pytest.mark.skipif(os.name == "nt", reason="programs of POSIX")
def test_slow_programs_hold_nobody_up(node: Node, tmp_path: Path) -> None:
    """A git and an nvidia-smi that hang: the program logs, ends at once, and has its start line."""
    slow = tmp_path / "bin"
    slow.mkdir()
    for name in ("git", "nvidia-smi"):
        (slow / name).write_text("#!/bin/sh\nexec sleep 60\n")
        (slow / name).chmod(0o755)
    began = time.monotonic()
    (start,) = run(node, tmp_path, seconds=1.5, PATH=f"{slow}:{os.environ['PATH']}")
    assert time.monotonic() - began < 30
    assert start["control"] == "start"
    assert [event["message"] for event in events_of(node.outbox)] == ["first"]


def test_children_do_not_repeat_it(node: Node, tmp_path: Path) -> None:
    """A child has a start line of its own; its environment is its parent's."""
    program = (
        PROGRAM
        + """
import multiprocessing
def work():
    logging.getLogger("harness").info("in a child")
    time.sleep(1.5)
if __name__ == "__main__":
    children = [multiprocessing.get_context("spawn").Process(target=work)]
    for child in children: child.start()
    for child in children: child.join()
"""
    )
    program = program.replace("logging.config.dictConfig(", "if __name__ == '__main__': logging.config.dictConfig(")
    program = program.replace('log.info("first")', 'if __name__ == "__main__": log.info("first")')
    program = program.replace("+ float(sys.argv[2])", "+ (float(sys.argv[2]) if __name__ == '__main__' else 0)")
    controls = [line["control"] for line in run(node, tmp_path, program=program)]
    assert sorted(controls) == ["environment", "start", "start"]


def test_it_can_be_turned_off(node: Node, tmp_path: Path) -> None:
    """`identity: false` leaves both lines out."""
    program = PROGRAM.replace("json.loads(sys.argv[1])", "{**json.loads(sys.argv[1])}")
    script = tmp_path / "program.py"
    script.write_text(program)
    settings = json.dumps(config(node, identity=False))
    done = subprocess.run([sys.executable, str(script), settings, "1.5"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line["control"] for line in controls_of(node.outbox)] == ["end"]
