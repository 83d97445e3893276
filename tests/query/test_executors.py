"""Engines map functions in order, in processes that end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from calyx_logging.errors import StorageError
from calyx_logging.query import executors
from calyx_logging.query.executors import Engine, Here, Pool


@pytest.mark.parametrize("engine", [Here(), Pool(2), Pool(1), Pool()])
def test_results_are_in_order(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every engine maps no item, one, and many."""
    monkeypatch.setattr(executors, "_WORTH_A_POOL", 0)
    for count in (0, 1, 200):
        names = [f"folder/{n}" for n in range(count)]
        assert list(engine.map(os.path.basename, names, 1)) == [str(n) for n in range(count)]


@pytest.mark.slow
def test_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little work stays in this process; a killed process is reported, and none is left behind."""
    assert set(Pool(2).map(_process, [1, 2, 3], 10)) == {os.getpid()}
    monkeypatch.setattr(executors, "_WORTH_A_POOL", 0)
    assert os.getpid() not in set(Pool(2).map(_process, [1, 2, 3], 10))
    with pytest.raises(StorageError, match="a worker process was killed"):
        list(Pool(2).map(_die, [1, 2], 10))
    with pytest.raises(ValueError, match="no"):
        list(Pool(2).map(_refuse, [1, 2], 10))


def _process(_: int) -> int:
    return os.getpid()


def _die(_: int) -> None:
    os._exit(9)


def _refuse(_: int) -> None:
    raise ValueError("no")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL, and looks at /proc")
def test_the_pool_ends_with_its_parent(tmp_path: Path) -> None:
    """However that ends: its processes do not go on for nobody."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from calyx_logging.query import executors\n"
        "def work(name):\n"
        "    Path(name).write_text(str(os.getpid()))\n"
        "    time.sleep(100)\n"
        "if __name__ == '__main__':\n"
        "    executors._WORTH_A_POOL = 0\n"
        f"    list(executors.Pool(2).map(work, [{str(tmp_path / 'a')!r}, {str(tmp_path / 'b')!r}], 1))\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)])
    names = [tmp_path / "a", tmp_path / "b"]
    _wait(lambda: all(name.exists() and name.read_text() for name in names))
    workers = [int(name.read_text()) for name in names]
    assert all(map(_lives, workers))
    assert parent.pid not in workers
    parent.send_signal(signal.SIGKILL)
    assert parent.wait() == -signal.SIGKILL
    _wait(lambda: not any(_lives(worker) for worker in workers))


def _lives(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def _wait(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not come about in 30 s")
