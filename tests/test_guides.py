"""Every example of the tutorial and the guides runs, in order, in a fresh folder, and does what the text says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_readme import blocks

from calyx_logging import Node, provision
from conftest import REPO, events_of, telemetry

TUTORIAL = (REPO / "docs" / "tutorial.md").read_text("utf-8")


def guide(name: str) -> str:
    return (REPO / "docs" / "guides" / f"{name}.md").read_text("utf-8")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return provision(tmp_path, "n-1").node


def ran(code: str, folder: Path, *args: str) -> str:
    """Run a Python example as the file that its text calls bench.py."""
    (folder / "bench.py").write_text(code, "utf-8")
    done = subprocess.run(
        [sys.executable, "bench.py", *args], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def events(node: Node) -> list[dict[str, object]]:
    assert telemetry("export", "--root", node.root).returncode == 0
    return [event for event in events_of(node.outbox) if event["logger"] != "py.warnings"]


def test_the_tutorial(tmp_path: Path) -> None:
    """From two machines to a page, with the commands as they stand there."""
    for need in ("jinja2", "duckdb"):
        if find_spec(need) is None:
            pytest.skip('needs the extra "report"')
    (harness,) = blocks("python", TUTORIAL)
    (tmp_path / "bench.py").write_text(harness, "utf-8")
    for folder in ("laptop", "workstation", "stick", "hub"):
        (tmp_path / folder).mkdir()
    said = {}
    for body in blocks("console", TUTORIAL)[1:]:
        for line in body.splitlines():
            program, *args = line.split()
            command = {"python": [sys.executable], "calyx-telemetry": [sys.executable, "-m", "calyx_logging.scripts"]}
            done = subprocess.run(
                [*command[program], *args], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False
            )
            assert done.returncode == 0, (line, done.stderr)
            said[line] = done.stdout
    audit = said["calyx-telemetry audit --root hub"]
    assert re.findall(r"^(\S+): complete\b(?! but)", audit, re.MULTILINE) == ["laptop-01", "workstation-01"], audit
    board = next(text for line, text in said.items() if "leaderboard" in line)
    assert "small-model" in board
    assert "large-model" in board
    assert (tmp_path / "fleet.html").stat().st_size > 100_000
    pruned = next(text for line, text in said.items() if " prune " in line)
    assert re.search(r"deleted \d+ chunks?, 1 bundle", pruned)


@pytest.mark.parametrize(
    ("name", "need", "expected"),
    [
        ("loguru", "loguru", {"message": "case done", "suite": "arithmetic", "case_id": "2+2", "score": 1.0}),
        ("structlog", "structlog", {"message": "case done", "run_id": "r-42", "score": 1.0}),
        ("notebooks", "structlog", {"message": "case done", "case_id": "2+2"}),
    ],
)
def test_a_guide_in_python(node: Node, name: str, need: str, expected: dict[str, object]) -> None:
    """Its event arrives with the fields that it names."""
    if find_spec(need) is None:
        pytest.skip(f"needs {need}")
    ran("".join(blocks("python", guide(name))), node.root)
    (event,) = (event for event in events(node) if event["message"] == expected["message"])
    assert expected.items() <= event.items()


def test_the_guide_to_pools(node: Node) -> None:
    """Each worker's events arrive, each once."""
    assert ran(blocks("python", guide("pools"))[0], node.root) == "285\n"
    assert sorted(event["number"] for event in events(node) if "number" in event) == list(range(10))  # type: ignore[type-var]


@pytest.mark.skipif(os.name == "nt", reason="Slurm is for Unix")
def test_the_guide_to_slurm(node: Node) -> None:
    """Two tasks of the array, run as Slurm runs its script, are two runs of one node."""
    script, _ = blocks("bash", guide("slurm"))
    (harness,) = blocks("python", guide("slurm"))
    (node.root / "bench.py").write_text(harness, "utf-8")
    (node.root / "job.sh").write_text(script.replace("python ", f'"{sys.executable}" '), "utf-8")
    for task in ("0", "1"):
        environ = {**os.environ, "SLURM_ARRAY_TASK_ID": task, "SLURM_SUBMIT_DIR": str(node.root)}
        done = subprocess.run(["bash", "job.sh"], cwd=node.root, env=environ, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    (export,) = (body for body in blocks("console", guide("slurm")))
    assert telemetry(*export.split()[1:], cwd=node.root).returncode == 0
    assert {event.get("run_id") for event in events(node)} >= {"task-0", "task-1"}


def test_the_guide_to_pytest(node: Node) -> None:
    """A test of the session is a case."""
    (node.root / "test_sum.py").write_text("def test_sum():\n    assert 2 + 2 == 4\n")
    pytest_line, query_line = blocks("console", guide("pytest"))[0].splitlines()
    done = subprocess.run(
        [sys.executable, "-m", *pytest_line.split()], cwd=node.root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    if find_spec("duckdb") is not None:
        done = telemetry(*query_line.split()[1:], "--json", cwd=node.root)
        assert [case["case_id"] for case in json.loads(done.stdout)] == ["test_sum.py::test_sum"]


def test_every_guide_is_listed(tmp_path: Path) -> None:
    """In the table of guides, and in the site's contents."""
    listing, contents = guide("index"), (REPO / "docs" / "index.md").read_text("utf-8")
    for path in (REPO / "docs" / "guides").glob("*.md"):
        assert path.stem == "index" or f"({path.name})" in listing
        assert f"guides/{path.stem}\n" in contents
