"""A ladder: ask several models the same questions, each within a time limit; the next run resumes where it stopped.

    python examples/ladder.py --root FOLDER --limit 2
    python examples/ladder.py --root FOLDER --limit 60        resumes and skips completed cases

The models are local, deterministic processes that can be killed; one of them is slow. Each rung leaves an envelope and
a receipt of its cases under `runtime/benchmarks/results/ladder/`, in the node's own folder if the root has a node id;
earlier results are not touched. With a node id the events also go to the outbox.
"""

from __future__ import annotations

import argparse
import logging
import logging.config
import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path

from calyx_logging import benchmark_run
from calyx_logging.errors import CalyxError
from calyx_logging.harness import get_node_id
from calyx_logging.harness.benchmark import BenchmarkRun

SUITE = "ladder"
SECONDS_PER_ANSWER = {"instant": 0.0, "steady": 0.01, "slow": 0.5}
CASES = {f"{a}+{b}": str(a + b) for a in range(1, 5) for b in range(1, 5)}

log = logging.getLogger("ladder")


def serve(model: str, questions: Connection) -> None:
    """Serve as a model: answer each question after the model's delay."""
    while (question := questions.recv()) is not None:
        time.sleep(SECONDS_PER_ANSWER[model])
        a, _, b = question.partition("+")
        questions.send(str(int(a) + int(b) if model != "instant" else int(a) + 2))


def logging_config(root: Path) -> dict[str, object]:
    """Return the configuration: with a node id every event goes to the outbox; people read the printed lines."""
    handlers: dict[str, object] = {}
    if get_node_id(root / "runtime") is not None:
        handlers["outbox"] = {
            "class": "calyx_logging.handlers.OutboxHandler",
            "root": str(root),
            "component": "ladder",
            "capture": ["ladder"],
        }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": handlers,
        "loggers": {"ladder": {"level": "INFO", "propagate": False}},
    }


def climb(root: Path, model: str, limit: float) -> str:
    """Run one rung and return its result."""
    run = benchmark_run(
        suite=SUITE, run_id=model, cases_expected=len(CASES), pass_at=1.0, root=root, logger=log, resume=True
    )
    todo = run.remaining(CASES)
    if not todo:
        return "complete already"
    try:
        with run:
            ask_all(run, model, todo, time.monotonic() + limit)
    except TimeoutError as error:
        return f"timeout: {error}"
    before = len(CASES) - len(todo)
    return f"normal, {len(todo)} cases" + (f", {before} from before" if before else "")


def ask_all(run: BenchmarkRun, model: str, todo: list[str], deadline: float) -> None:
    """Ask a model every question, and kill it when its time is up."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(model, there), daemon=True)
    process.start()
    try:
        for case_id in todo:
            expected = CASES[case_id]
            with run.case(case_id, model=model, expected=expected) as case:
                here.send(case_id)
                if not here.poll(max(deadline - time.monotonic(), 0)):
                    raise TimeoutError(f"no answer to {case_id} in the time limit")
                answer = here.recv()
                messages = [{"role": "user", "content": case_id}, {"role": "assistant", "content": answer}]
                case.note(messages=messages, score=float(answer == expected))
        here.send(None)
    finally:
        process.kill()
        process.join()


def main() -> None:
    """Run every rung."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--limit", type=float, default=2.0, help="seconds for each model")
    parser.add_argument("--models", default=",".join(SECONDS_PER_ANSWER))
    options = parser.parse_args()
    models = options.models.split(",")
    if unknown := set(models) - set(SECONDS_PER_ANSWER):
        parser.error(f"no model {', '.join(sorted(unknown))}: there are {', '.join(SECONDS_PER_ANSWER)}")
    if options.limit <= 0:
        parser.error("--limit is a number of seconds greater than 0")
    try:
        logging.config.dictConfig(logging_config(options.root))
        for model in models:
            print(f"{model:8} {climb(options.root, model, options.limit)}", flush=True)
    except CalyxError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
