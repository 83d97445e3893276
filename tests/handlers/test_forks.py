"""A fork beside the housekeeping thread."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from calyx_logging import Node
from calyx_logging.outbox.export import export
from conftest import config, events_of, python

CODE = """
import json, logging.config, os, sys, threading, time
logging.config.dictConfig(json.loads(sys.argv[1]))
log = logging.getLogger("harness")
log.info("began")
time.sleep(float(sys.argv[2]))
for n in range(3):
    pid = os.fork()
    if pid == 0:
        log.info("child")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
deadline = time.monotonic() + 10
while len(threading.enumerate()) < 2 and time.monotonic() < deadline:
    time.sleep(0.01)
print([thread.name for thread in threading.enumerate()])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("wait", ["0", "0.5"])
@pytest.mark.parametrize("identity", [True, False])
def test_no_thread_of_ours_is_there_at_a_fork(node: Node, wait: str, identity: bool) -> None:
    """Python warns of no thread at a fork; the thread goes on in the parent afterwards, and each child logs."""
    done = python(CODE, json.dumps(config(node, identity=identity)), wait, PYTHONWARNINGS="error::DeprecationWarning")
    assert (done.returncode, done.stderr) == (0, "")
    assert "calyx-logging-upkeep" in done.stdout
    export(node)
    assert sorted(event["message"] for event in events_of(node.outbox)) == ["began", "child", "child", "child"]
    assert not list(Path(node.outbox).glob("*.open"))
