"""Run the campaigns of `tests/faults` in a short form, and check that each of them can fail.

Each module's docstring has the command for larger runs, for example `python -m faults.kills --writers 1000`.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from calyx_logging.core import files
from calyx_logging.hub.store import Store
from conftest import REPO
from faults import crash_states, fleet, kills

pytestmark = pytest.mark.slow
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@needs_fork
def test_writers_killed_at_random_moments(tmp_path: Path) -> None:
    """I1, I2: every acknowledged event is exported exactly once."""
    tally = kills.kill_writers(75, 7, tmp_path)
    assert tally.kills == 75
    assert tally.acknowledged > 100
    assert tally.mid_operation > 0
    assert tally.clean, tally.text()


@needs_fork
def test_exporters_killed_at_random_moments(tmp_path: Path) -> None:
    """I2 to I5 hold when exporters are killed."""
    tally = kills.kill_exporters(20, 7, tmp_path)
    assert tally.mid_operation > 0
    assert tally.clean, tally.text()


def write_through(change: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the file's write by `change`, which gets the real write and the bytes."""
    write = files.AppendFile.write

    def changed(self: files.AppendFile, data: bytes) -> int:
        return change(functools.partial(write, self), data)

    monkeypatch.setattr(files.AppendFile, "write", changed)


@needs_fork
def test_the_kill_campaign_notices_a_writer_that_keeps_events_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The campaign detects a buffering append, which loses acknowledged events."""
    held: list[bytes] = []

    def buffered(write: Callable[[bytes], int], data: bytes) -> int:
        held.append(data)
        if len(held) == 50:
            write(b"".join(held))
            held.clear()
        return len(data)

    write_through(buffered, monkeypatch)
    assert kills.kill_writers(12, 7, tmp_path).lost > 0


@needs_fork
def test_the_kill_campaign_notices_an_event_written_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The campaign detects an event that is written twice."""

    def twice(write: Callable[[bytes], int], data: bytes) -> int:
        write(data)
        return write(data)

    write_through(twice, monkeypatch)
    assert kills.kill_writers(18, 7, tmp_path).doubled > 0


@pytest.mark.skipif(sys.platform == "win32", reason="the model is of POSIX file systems")
@pytest.mark.parametrize("sync", ["seal", "interval", "record"])
def test_every_state_a_loss_of_power_can_leave(tmp_path: Path, sync: str) -> None:
    """I2 to I5 hold after the next export, and with sync="record" also I1."""
    tally = crash_states.enumerate_states(sync, tmp_path)
    assert tally.states > 150
    assert tally.faults == []


@pytest.mark.skipif(sys.platform == "win32", reason="the model is of POSIX file systems")
@pytest.mark.parametrize(
    ("forgotten", "invariant"), [("AppendFile.sync", "I1"), ("sync_dir", "I1"), ("write_new", "I4")]
)
def test_the_crash_states_notice_a_forgotten_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: str, invariant: str
) -> None:
    """Without one kind of sync, an invariant breaks."""
    if forgotten == "write_new":
        write_new = files.write_new
        monkeypatch.setattr(files, "write_new", lambda path, data: write_new(path, data, sync=False))
    elif forgotten == "sync_dir":
        monkeypatch.setattr(files, "sync_dir", lambda path: None)
    else:
        monkeypatch.setattr(files.AppendFile, "sync", lambda self: None)
    faults = crash_states.enumerate_states("record", tmp_path, stop_at=1).faults
    assert any(invariant in fault for fault in faults)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_short_soak(tmp_path: Path) -> None:
    """Run harnesses, a killer and an exporter together for a few seconds; benchmarks/soak.py is the long form."""
    done = subprocess.run(
        [sys.executable, str(REPO / "benchmarks" / "soak.py"), "--minutes", "0.1", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_fleet_and_importers_that_are_killed(tmp_path: Path) -> None:
    """I2, I4 hold at the hub: each event once, damaged bundles reported, all chunks acknowledged, audits complete."""
    outcome = fleet.send(tmp_path, nodes=4, bundles=24, importers=3, seed=7)
    assert outcome.kills > 0
    assert outcome.damaged > 0
    assert outcome.clean, outcome.text()


def test_the_fleet_campaign_notices_what_is_lost_or_doubled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The campaign detects changes made to the hub before the check."""
    look = fleet._look

    def tampered(store: Store, made: list[Path], outcome: fleet.Outcome) -> None:
        one, two = sorted(path for path in store.folder.glob("[!.]*/*") if any(path.glob("*.jsonl")))[:2]
        next(one.glob("*.jsonl")).unlink()
        chunk = next(two.glob("*.jsonl"))
        chunk.with_name("again.jsonl").write_bytes(chunk.read_bytes())
        look(store, made, outcome)

    monkeypatch.setattr(fleet, "_look", tampered)
    outcome = fleet.send(tmp_path, nodes=2, bundles=6, importers=2, seed=7)
    assert outcome.lost > 0
    assert outcome.doubled > 0
    assert outcome.incomplete
    assert not outcome.clean
