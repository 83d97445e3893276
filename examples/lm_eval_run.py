"""Run an lm_eval evaluation with its dummy model, offline, with capture; each sample becomes a case of a run.

    python examples/lm_eval_run.py --root FOLDER       (a provisioned root)

lm_eval sets its logger's level, gives it a handler and stops propagation; the handler captures it nevertheless.
"""

from __future__ import annotations

import argparse
import json
import logging
import logging.config
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from lm_eval.utils import setup_logging

from calyx_logging import benchmark_run

TASK = "arithmetic_local"


def logging_config(root: str) -> dict[str, Any]:
    """Return a configuration with one handler that captures the harness, and the program's own logger."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"event": {"()": "calyx_logging.EventFormatter"}},
        "handlers": {
            "outbox": {
                "class": "calyx_logging.handlers.OutboxHandler",
                "formatter": "event",
                "root": root,
                "component": "lm-eval",
                "capture": ["lm_eval", "benchmark"],
            }
        },
        "loggers": {"lm_eval": {"level": "INFO"}, "benchmark": {"level": "INFO"}},
    }


def write_task(folder: Path, samples: int) -> None:
    """Write a task that reads local JSON lines."""
    lines = [json.dumps({"question": f"{n}+{n}=", "answer": str(2 * n)}) for n in range(samples)]
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    task = {
        "task": TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "samples.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"]},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "task.yaml").write_text(json.dumps(task), "utf-8")  # JSON is also YAML


def main() -> None:
    """Configure logging, let lm_eval reconfigure it, evaluate, and log each sample as a case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--root", required=True)
    parser.add_argument("--samples", type=int, default=5)
    options = parser.parse_args()

    logging.config.dictConfig(logging_config(options.root))
    setup_logging()  # as lm_eval's own command does
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("HF_HOME", folder)
        write_task(Path(folder), options.samples)
        manager = TaskManager(include_path=folder, include_defaults=False)
        with benchmark_run(suite="lm-eval", run_id="dummy", cases_expected=options.samples, root=options.root) as run:
            results = simple_evaluate(model="dummy", tasks=[TASK], task_manager=manager, log_samples=True)
            for sample in results["samples"][TASK]:
                with run.case(str(sample["doc_id"]), model="dummy") as case:
                    case.note(score=float(sample["exact_match"]), target=sample["target"])


if __name__ == "__main__":
    main()
