"""Run an inspect_ai evaluation with its mock model, offline, recorded only through a dictConfig.

    python examples/inspect_ai_eval.py --root FOLDER       (a provisioned root)

inspect_ai sets `propagate=False` on its logger and resets the root's level, so the handler captures the logger
`inspect_ai`.
"""

from __future__ import annotations

import argparse
import logging
import logging.config
import os
import tempfile
from typing import Any

from inspect_ai import Task
from inspect_ai import eval as run_eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import match, value_to_float
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver

from calyx_logging import benchmark_run

HARNESS = "bench"


def logging_config(root: str) -> dict[str, Any]:
    """Return the whole configuration: one formatter, one handler, the harness's own logger and the captured one."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"event": {"()": "calyx_logging.EventFormatter"}},
        "handlers": {
            "outbox": {
                "class": "calyx_logging.handlers.OutboxHandler",
                "formatter": "event",
                "root": root,
                "component": "inspect-ai",
                "capture": ["inspect_ai"],
            }
        },
        "loggers": {
            HARNESS: {"level": "INFO", "handlers": ["outbox"], "propagate": False},
            "inspect_ai": {"level": "INFO"},
        },
    }


@solver
def note_case() -> Solver:
    """Make a solver that logs each case twice: as the harness, and as a library below inspect_ai would."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        logging.getLogger(HARNESS).info("case", extra={"sample_id": state.sample_id, "epoch": state.epoch})
        logging.getLogger("inspect_ai.example").info("case %s seen", state.sample_id)
        return state

    return solve


def record_cases(result: EvalLog) -> None:
    """Record each sample as a case of a run: what was asked, expected and answered, and its score."""
    log, to_number = logging.getLogger(HARNESS), value_to_float()
    samples = result.samples or []
    with benchmark_run(
        suite=result.eval.task, run_id=result.eval.model.replace("/", "-"), cases_expected=len(samples), logger=log
    ) as run:
        for sample in samples:
            messages = [message.model_dump(exclude_none=True) for message in sample.messages]
            with run.case(f"{sample.id} ({sample.epoch})", model=result.eval.model, messages=messages) as case:
                case.note(target=sample.target, total_time_s=sample.total_time)
                for scorer, score in (sample.scores or {}).items():
                    number = to_number(score.value)
                    case.note(score=number, passed=number == 1, scorer=scorer, explanation=score.explanation)


def mock_outputs(count: int) -> list[ModelOutput]:
    """Make answers with their usage set, so that no tokenizer is downloaded."""
    outputs = []
    for _ in range(count):
        output = ModelOutput.from_content("mockllm/model", "4")
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        outputs.append(output)
    return outputs


def main() -> None:
    """Configure logging, run the evaluation, log its outcome."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--root", required=True)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--log-dir", help="where inspect_ai keeps its own log; default: nowhere")
    options = parser.parse_args()

    logging.config.dictConfig(logging_config(options.root))
    log = logging.getLogger(HARNESS)
    samples = [Sample(id=n, input="2 + 2?", target="4") for n in range(options.samples)]
    task = Task(dataset=samples, solver=[note_case(), generate()], scorer=match(), name="arithmetic")
    log.info("run start", extra={"suite": "arithmetic", "cases_expected": len(samples)})
    os.environ["CALYX_ROOT"] = options.root
    with tempfile.TemporaryDirectory() as nowhere:
        (result,) = run_eval(
            task,
            model=get_model("mockllm/model", custom_outputs=mock_outputs(len(samples))),
            log_dir=options.log_dir or nowhere,
            display="none",
        )
        record_cases(result)
    accuracy = result.results.scores[0].metrics["accuracy"].value if result.results else None
    log.info("run end", extra={"suite": "arithmetic", "status": result.status, "accuracy": accuracy})


if __name__ == "__main__":
    main()
