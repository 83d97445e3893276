"""A Hypothesis model of the node over a real folder: I1 to I5 hold for any steps in any order.

The steps are real: a handler by dictConfig, a killed process, a fork, a full disk (every write of `core.files`
refused), an export, a crashed export, a lost or an old index, bundles moved away and copied.

    CALYX_MODEL_EXAMPLES=1000 python3 run.py test tests/whole/test_model.py
"""

from __future__ import annotations

import errno
import json
import logging
import logging.config
import os
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from calyx_logging import Node, provision
from calyx_logging.bundle.folder import verify
from calyx_logging.errors import CalyxError
from calyx_logging.outbox.export import export
from conftest import close_logging, config, controls_of, events_of
from faults.disk import Failing, through

if not hasattr(os, "fork"):
    pytest.skip("no fork on this system", allow_module_level=True)


class NodeMachine(RuleBasedStateMachine):
    """The model's state: acknowledged and refused events, and the folders."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="calyx-model-"))
        (self.folder / "root").mkdir()
        (self.folder / "stick").mkdir()
        self.node: Node = provision(self.folder / "root", "model-node").node
        self.next = 0
        self.kept: set[int] = set()
        self.refused = 0
        self.old_index: bytes | None = None
        self.clock = 1_800_000_000.0

    @initialize(size=st.sampled_from([600, 2000, 10**7]), sync=st.sampled_from(["seal", "record"]))
    def configure(self, size: int, sync: str) -> None:
        self.settings = config(self.node, max_bytes=size, sync=sync)
        logging.config.dictConfig(self.settings)

    def _log(self, count: int) -> list[int]:
        numbers = list(range(self.next, self.next + count))
        self.next += count
        for n in numbers:
            logging.getLogger("harness").info("event", extra={"n": n, "pad": "x" * (n * 37 % 300)})
        return numbers

    @property
    def _handler(self) -> Any:
        return logging.getLogger("harness").handlers[0]

    @rule(count=st.integers(1, 6))
    def log(self, count: int) -> None:
        self.kept |= set(self._log(count))

    @rule()
    def seal(self) -> None:
        self._handler.seal()

    @rule()
    def close(self) -> None:
        self._handler.close()

    @rule()
    def reconfigure(self) -> None:
        logging.config.dictConfig(self.settings)

    @rule(count=st.integers(0, 4))
    def fork_and_kill(self, count: int) -> None:
        """Fork a child that logs with its own writer and is killed."""
        numbers = list(range(self.next, self.next + count))
        pid = os.fork()
        if pid == 0:
            with suppress(BaseException):
                self._log(count)
            os.kill(os.getpid(), signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
        self.next += count
        self.kept |= set(numbers)

    @rule(count=st.integers(1, 3))
    def fill(self, count: int) -> None:
        """Fill the disk: events are lost and counted."""
        with through(Failing(1, errno.ENOSPC, forever=True)):
            lost = self._log(count)
        self.refused += len(lost)

    def _wait_for_the_sealing(self) -> None:
        """Wait until the thread has sealed full chunks; a step that lists the folder twice must not race with it."""
        handlers: list[Any] = logging.getLogger("harness").handlers
        deadline = time.monotonic() + 60
        while any(writer.has_full for handler in handlers for writer in handler._pool.writers):
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def _export(self) -> None:
        self._wait_for_the_sealing()
        self.clock += 1.0
        export(self.node, clock=lambda: self.clock)

    @rule()
    def export_once(self) -> None:
        self._export()

    @rule()
    def export_twice(self) -> None:
        self._export()
        before = self._bundles()
        self._export()
        assert self._bundles() == before

    @rule(number=st.integers(1, 60), code=st.sampled_from([errno.ENOSPC, errno.EIO]))
    def export_on_a_failing_disk(self, number: int, code: int) -> None:
        self._wait_for_the_sealing()
        self.clock += 1.0
        with through(Failing(number, code)), suppress(CalyxError):
            export(self.node, clock=lambda: self.clock)

    @rule()
    def remember_the_index(self) -> None:
        path = self.node.outbox / ".exported_index.json"
        self.old_index = path.read_bytes() if path.exists() else None

    @precondition(lambda self: self.old_index is not None)
    @rule()
    def restore_an_old_index(self) -> None:
        assert self.old_index is not None
        (self.node.outbox / ".exported_index.json").write_bytes(self.old_index)

    @rule()
    def delete_the_index(self) -> None:
        (self.node.outbox / ".exported_index.json").unlink(missing_ok=True)

    @rule()
    def carry_bundles_away(self) -> None:
        for bundle in self._bundles():
            if bundle.parent == self.node.exports and not (self.folder / "stick" / bundle.name).exists():
                shutil.move(bundle, self.folder / "stick" / bundle.name)

    @rule()
    def copy_bundles_back(self) -> None:
        for bundle in (self.folder / "stick").iterdir():
            if not (self.node.exports / bundle.name).exists():
                shutil.copytree(bundle, self.node.exports / bundle.name)

    def _bundles(self) -> list[Path]:
        here = [path for path in self.node.exports.glob("*") if path.name[0] != "."]
        return sorted([*here, *(self.folder / "stick").iterdir()])

    @invariant()
    def kept_whole_finished(self) -> None:
        """I1: every acknowledged event is in the outbox, in a line; I3: sealed chunks end whole; I4: bundles verify."""
        self._wait_for_the_sealing()
        on_disk = []
        for path in self.node.outbox.glob("*.jsonl*"):
            leftover = path.name.startswith(".") or (path.suffix == ".open" and path.with_suffix("").exists())
            if not leftover:  # left by a failed recovery
                lines = map(json.loads, path.read_bytes().splitlines())
                on_disk += [line["n"] for line in lines if line["source"] != "calyx_logging"]
        assert self.kept <= set(on_disk)
        assert len(on_disk) == len(set(on_disk))
        for path in self.node.outbox.glob("*.jsonl"):
            assert path.read_bytes().endswith(b"\n")
        for bundle in self._bundles():
            verify(bundle)

    @invariant()
    def index_names_finished_bundles(self) -> None:
        """I5: the index names only chunks of finished bundles."""
        path = self.node.outbox / ".exported_index.json"
        if path.exists():
            in_bundles = {chunk.name for bundle in self._bundles() for chunk in bundle.glob("*.jsonl")}
            assert set(json.loads(path.read_bytes())["exported"]) <= in_bundles

    def teardown(self) -> None:
        """I2: at the end every event is in the bundles exactly once, or counted."""
        try:
            close_logging()
            self._export()
            events = {}
            for bundle in self._bundles():
                for event in events_of(bundle):
                    event.pop("seq")
                    events[json.dumps(event, sort_keys=True)] = event["n"]
            assert sorted(events.values()) == sorted(self.kept)
            counted = sum(line.get("count", 0) for line in controls_of(self.node.outbox) if line["control"] == "gap")
            assert counted == self.refused
            assert list(self.node.outbox.glob("*.open")) == []
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


TestNode = NodeMachine.TestCase
TestNode.pytestmark = [pytest.mark.slow]  # type: ignore[attr-defined]
TestNode.settings = settings(
    max_examples=int(os.environ.get("CALYX_MODEL_EXAMPLES", "25")),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
