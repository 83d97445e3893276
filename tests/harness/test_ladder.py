"""The ladder example: limits, resuming, and a root with results that predate its node id."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from calyx_logging import provision
from calyx_logging.bundle.folder import verify
from calyx_logging.format.run_envelope import RunEnvelope
from calyx_logging.outbox.export import export
from conftest import REPO, events_of, lines_of, tree


def ladder(root: Path, *args: str) -> dict[str, str]:
    """Run the example and return its result for each model."""
    done = run_ladder(root, *args)
    assert done.returncode == 0, done.stderr
    return {line.split()[0]: line[9:] for line in done.stdout.splitlines()}


def run_ladder(root: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(REPO / "examples" / "ladder.py"), "--root", str(root), *args],
        capture_output=True,
        text=True,
        cwd=root,
        timeout=300,
        check=False,
    )


def envelopes(folder: Path) -> dict[str, list[RunEnvelope]]:
    found: dict[str, list[RunEnvelope]] = {}
    for path in sorted(folder.glob("*.envelope.json")):
        envelope = RunEnvelope.read(path)
        found.setdefault(envelope.run_id, []).append(envelope)
    return found


def with_times(root: Path) -> dict[str, tuple[Any, int]]:
    """Map every path to its bytes and modification time, folders by name only."""
    return {name: (data, 0 if data is None else (root / name).stat().st_mtime_ns) for name, data in tree(root).items()}


@pytest.mark.slow
def test_the_ladder_on_a_root_with_results_from_before(tmp_path: Path) -> None:
    """One model times out and a larger limit resumes it; earlier results are not moved, renamed or changed."""
    benchmarks = tmp_path / "runtime" / "benchmarks"
    for name in ("results/ladder/old-model.json", "results/other/x.json", "execution_logs/a.jsonl", "reports/r.md"):
        path = benchmarks / name
        path.parent.mkdir(parents=True)
        path.write_text(f"{name} as it was")
    said = ladder(tmp_path, "--limit", "60", "--models", "instant")  # before the root has a node id
    assert said == {"instant": "normal, 16 cases"}
    assert "node_id" not in json.loads(next((benchmarks / "results/ladder").glob("*.envelope.json")).read_text())
    before = with_times(tmp_path)

    node = provision(tmp_path, "laptop-1").node
    said = ladder(tmp_path, "--limit", "6")
    assert said["instant"] == said["steady"] == "normal, 16 cases"
    assert said["slow"].startswith("timeout: no answer to")
    mine = benchmarks / "results/ladder/laptop-1"
    (timed_out,) = envelopes(mine)["slow"]
    assert (timed_out.exit_status, timed_out.cases_expected) == ("timeout", 16)
    assert 0 < timed_out.cases_completed < 16

    said = ladder(tmp_path, "--limit", "100")
    assert said["instant"] == said["steady"] == "complete already"
    answered = timed_out.cases_completed
    assert said["slow"] == f"normal, {16 - answered} cases, {answered} from before"
    found = envelopes(mine)
    assert [one.exit_status for one in found["slow"]] == ["timeout", "normal"]
    assert [one.exit_status for one in found["instant"] + found["steady"]] == ["normal", "normal"]
    assert {one.node_id for runs in found.values() for one in runs} == {"laptop-1"}

    after = with_times(tmp_path)
    assert {name: after.get(name) for name in before} == before
    new = [name for name in after if name not in before]
    allowed = (
        "runtime/node_id.txt",
        "runtime/node_machine.txt",
        "runtime/benchmarks/results/ladder/laptop-1",
        "telemetry",
    )
    assert all(name.startswith(allowed) for name in new), new

    result = export(node)
    assert result.bundle is not None
    verify(result.bundle)
    events = [line for line in lines_of(result.bundle) if line["source"] == "bench_harness"]
    assert events == events_of(result.bundle)
    cases = [event for event in events if event.get("stage") == "case_ended" and event["outcome"] == "completed"]
    assert len(cases) == 3 * 16
    assert {event["run_id"]: event["exit_status"] for event in events if event.get("stage") == "run_ended"} == {
        "instant": "normal",
        "steady": "normal",
        "slow": "normal",
    }


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--models", "none"], "no model none"),
        (["--limit", "0"], "greater than 0"),
        (["--limit", "soon"], "invalid float"),
    ],
)
def test_bad_arguments(tmp_path: Path, args: list[str], says: str) -> None:
    """Bad arguments print usage, exit with 2 and create nothing."""
    done = run_ladder(tmp_path, *args)
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr
    assert tree(tmp_path) == {}


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    """A missing root gives the library's error as a usage error."""
    done = subprocess.run(
        [sys.executable, str(REPO / "examples" / "ladder.py"), "--root", str(tmp_path / "none")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, "there is no such folder" in done.stderr) == (2, True)
