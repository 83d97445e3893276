"""A harness of 8 processes with 4 threads each loses no event: each is in the bundle once, without a hole in seq."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from calyx_logging import Node
from calyx_logging.bundle.folder import verify
from calyx_logging.format.chunk import ChunkName
from calyx_logging.outbox.export import export
from conftest import config, lines_of, python

HARNESS = """
import json, logging, logging.config, multiprocessing, sys, threading

def thread(worker, number):
    log = logging.getLogger("harness")
    for n in range(1250):
        log.info("case done", extra={"worker": worker, "number": number, "n": n})

def worker(settings, number, go):
    logging.config.dictConfig(settings)
    go.wait()
    threads = [threading.Thread(target=thread, args=(number, n)) for n in range(4)]
    for each in threads: each.start()
    for each in threads: each.join()

if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    context = multiprocessing.get_context("spawn")
    go = context.Event()
    workers = [context.Process(target=worker, args=(settings, n, go)) for n in range(8)]
    for each in workers: each.start()
    go.set()
    for each in workers: each.join()
    sys.exit(sum(each.exitcode != 0 for each in workers))
"""


@pytest.mark.slow
def test_forty_thousand_events_of_32_threads_in_8_processes(node: Node, tmp_path: Path) -> None:
    """40,000 events logged at once are 40,000 events in the verified bundle."""
    program = tmp_path / "harness.py"
    program.write_text(HARNESS)
    settings = json.dumps(config(node, max_bytes=200_000))
    done = python(
        "import subprocess, sys; sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))", str(program), settings
    )
    assert (done.returncode, done.stderr) == (0, "")
    result = export(node)
    assert result.bundle is not None
    assert result.recovery.recovered == []
    assert result.recovery.live == []
    verify(result.bundle)
    lines = lines_of(result.bundle)
    events = Counter((e["worker"], e["number"], e["n"]) for e in lines if e["source"] == "bench_harness")
    assert len(events) == 40_000
    assert set(events.values()) == {1}
    assert len({e["event_id"] for e in lines}) == len(lines)
    seqs = defaultdict(list)
    for path in result.bundle.glob("*.jsonl"):
        name = ChunkName.parse(path.name)
        assert name is not None
        seqs[name.writer] += [json.loads(line)["seq"] for line in path.read_bytes().splitlines()]
    starts = [line["process"] for line in lines if line.get("control") == "start"]
    assert len(seqs) - len(starts) == 8, "one writer of each process begins without a start line"
    assert set(starts) <= set(seqs)
    for found in seqs.values():
        assert sorted(found) == list(range(len(found)))
