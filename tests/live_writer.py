"""A harness that logs at a steady rate: python live_writer.py ROOT RUN_ID EVENTS RATE; prints how many events."""

from __future__ import annotations

import logging
import sys
import time

from calyx_logging import OutboxHandler, benchmark_run


class Counter(logging.Handler):
    """Counts what was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


root, run_id, events, rate = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
log = logging.getLogger("bench")
log.setLevel(logging.INFO)
counter = Counter()
for handler in (OutboxHandler(root=root), counter):
    logging.getLogger().addHandler(handler)
began = time.monotonic()
with benchmark_run(suite="live", run_id=run_id, logger=log, root=root) as run:
    done = 0
    while done < events:
        with run.case(f"case-{done // 100}") as case:
            for _ in range(min(100, events - done)):
                done += 1
                log.info("step %d of %s", done, run_id, extra={"n": done, "run": run_id})
                ahead = began + done / rate - time.monotonic()
                if ahead > 0.005:
                    time.sleep(ahead)
            case.note(score=done / events)
print(counter.count, flush=True)
