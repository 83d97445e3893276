"""A real harness: an evaluation of inspect_ai with its mock model, offline, configured only by dictConfig."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from calyx_logging import Node, provision
from calyx_logging.bundle.folder import verify
from calyx_logging.outbox.export import export

pytestmark = pytest.mark.integration
pytest.importorskip("inspect_ai", reason='needs the extra "integration"')
REPO = Path(__file__).resolve().parents[2]

WITNESS = """
import sys
witness = sys.argv.pop()
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
import inspect_ai_eval as example

made = example.logging_config

def with_witness(root):
    config = made(root)
    config["formatters"]["plain"] = {"format": "%(name)s\\x1f%(levelname)s\\x1f%(message)s\\x1e"}
    config["handlers"]["witness"] = {"class": "logging.FileHandler", "filename": witness, "formatter": "plain"}
    for logger in config["loggers"].values():
        logger.setdefault("handlers", []).append("witness")
    return config

example.logging_config = with_witness
example.main()
"""


def test_every_record_of_an_inspect_ai_evaluation_is_in_the_bundle_once(tmp_path: Path) -> None:
    """A plain FileHandler on the same loggers counts independently; the bundle has the same records, once each."""
    root = tmp_path / "root"
    root.mkdir()
    node = provision(root, "eval-node").node
    samples, witness = 25, tmp_path / "witness.txt"
    script = REPO / "examples" / "inspect_ai_eval.py"
    done = subprocess.run(
        [sys.executable, "-c", WITNESS, str(script), "--root", str(root), "--samples", str(samples), str(witness)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "NO_PROXY": "*"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    records = [
        record.strip("\n").split("\x1f") for record in witness.read_text("utf-8").split("\x1e") if record.strip()
    ]
    seen = Counter((name, level, text) for name, level, text in records if " stage=" not in f" {text}")
    result = export(Node(root, node.id))
    assert result.bundle is not None
    manifest = verify(result.bundle).manifest
    lines = [json.loads(line) for path in result.bundle.glob("*.jsonl") for line in path.read_bytes().splitlines()]
    events = [line for line in lines if line["source"] == "bench_harness"]
    of_run = [
        event["stage"] for event in events if "stage" in event
    ]  # whose text has the fields, for a plain formatter
    assert Counter(of_run) == {"run_started": 1, "case_ended": samples, "run_ended": 1}
    assert len(records) == seen.total() + len(of_run)
    kept = Counter((one["logger"], one["level"].upper(), one["message"]) for one in events if "stage" not in one)
    assert kept == seen
    assert manifest.events == len(lines)
    assert len({event["event_id"] for event in events}) == len(events)
    assert sum(event["message"] == "case" for event in events) == samples
    assert sum(event["logger"] == "inspect_ai.example" for event in events) == samples
    own = {event["logger"] for event in events if event["logger"].startswith("inspect_ai.")} - {"inspect_ai.example"}
    assert own, "inspect_ai's own records are captured"
    (end,) = [event for event in events if event["message"] == "run end"]
    assert (end["status"], end["accuracy"]) == ("success", 1.0)
    assert sorted(line["seq"] for line in lines) == list(range(len(lines)))
