"""Run lm_eval, a real harness, with its dummy model, offline and captured, and ask the doctor about it."""

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
from calyx_logging.format.run_envelope import RunEnvelope
from calyx_logging.outbox.export import export
from conftest import lines_of

pytestmark = pytest.mark.integration
pytest.importorskip("lm_eval", reason='needs the extra "integration"')
REPO = Path(__file__).resolve().parents[2]
OFFLINE = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "NO_PROXY": "*"}

WITNESS = """
import logging, sys
witness = sys.argv.pop()
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
import lm_eval_run as example

setup = example.setup_logging

def with_witness():
    setup()
    handler = logging.FileHandler(witness)
    handler.setFormatter(logging.Formatter("%(name)s\\x1f%(levelname)s\\x1f%(message)s\\x1e"))
    logging.getLogger("lm_eval").addHandler(handler)

example.setup_logging = with_witness
example.main()
"""


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A root of its own."""
    root = tmp_path / "root"
    root.mkdir()
    return provision(root, "eval-node").node


def test_every_record_of_an_lm_eval_evaluation_is_in_the_bundle_once(node: Node, tmp_path: Path) -> None:
    """A FileHandler that is added to lm_eval's logger counts independently."""
    witness = tmp_path / "witness.txt"
    script = REPO / "examples" / "lm_eval_run.py"
    done = subprocess.run(
        [sys.executable, "-c", WITNESS, str(script), "--root", str(node.root), "--samples", "4", str(witness)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
        check=False,
        env=OFFLINE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = Counter(
        tuple(record.strip("\n").split("\x1f")) for record in witness.read_text("utf-8").split("\x1e") if record.strip()
    )
    assert seen, "lm_eval logs nothing: the test tests nothing"
    result = export(node)
    assert result.bundle is not None
    verify(result.bundle)
    events = [line for line in lines_of(result.bundle) if line["source"] == "bench_harness"]
    theirs = [event for event in events if event["logger"].startswith("lm_eval")]
    assert Counter((event["logger"], event["level"].upper(), event["message"]) for event in theirs) == seen
    assert len({event["event_id"] for event in events}) == len(events)
    inside = [event for event in events if event["message"] != "run ended"]
    assert {event.get("run_id") for event in inside} == {"dummy"}
    cases = [event for event in events if event.get("stage") == "case_ended"]
    assert [event["case_id"] for event in cases] == ["0", "1", "2", "3"]
    assert all(isinstance(event["score"], float) for event in cases)
    (path,) = (node.root / "runtime/benchmarks/results/lm-eval/eval-node").glob("*.envelope.json")
    assert RunEnvelope.read(path).exit_status == "normal"


SETUP = {
    "lm_eval": "def setup():\n    from lm_eval.utils import setup_logging\n    setup_logging()\n",
    "inspect_ai": "def setup():\n    from inspect_ai._util.logger import init_logger\n    init_logger('info')\n",
}


@pytest.mark.parametrize("logger", sorted(SETUP))
def test_the_doctor_on_real_harnesses(node: Node, tmp_path: Path, logger: str) -> None:
    """Without capture it names what stops the harness's own logger; its advice followed, the canary arrives."""
    pytest.importorskip(logger)
    (tmp_path / "their_setup.py").write_text(SETUP[logger])

    def examined(capture: list[str]) -> dict[str, dict[str, str]]:
        handler = {"class": "calyx_logging.handlers.OutboxHandler", "root": str(node.root), "capture": capture}
        config = {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"outbox": handler},
            "root": {"level": "INFO", "handlers": ["outbox"]},
        }
        (tmp_path / "logging.json").write_text(json.dumps(config))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "calyx_logging.scripts", "doctor", "logging.json", "their_setup:setup"),
                *("--logger", logger, "--level", "WARNING", "--json"),
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=300,
            check=False,
            env=OFFLINE,
        )
        assert done.returncode in (0, 1), done.stderr
        return {one["logger"]: one for one in json.loads(done.stdout)["loggers"]}

    before = examined([])[logger]
    assert before["cause"] == "propagate", before
    assert f'"capture": ["{logger}"]' in before["advice"]
    assert examined([logger])[logger]["arrives"] is True
