"""Temporary folders: those of killed processes go, those of living ones stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from calyx_logging.core.temporary import TemporaryFolder, temporary_folder
from conftest import python

MAKES = """
import sys
from calyx_logging.core.temporary import TemporaryFolder
folder = TemporaryFolder("calyx-test-")
(folder.path / "content").mkdir()
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def _begin() -> tuple[subprocess.Popen[str], Path]:
    begun = subprocess.Popen(
        [sys.executable, "-c", MAKES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd().root
    )
    assert begun.stdout is not None
    return begun, Path(begun.stdout.readline().strip())


@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell whether a process has ended")
def test_the_folder_of_a_killed_process_is_removed(room: Path) -> None:
    """A dead process's folder is removed by the next one that makes one; a living one's, and strangers' files, stay."""
    (room / "calyx-test-99999999").write_text("a file")
    (room / "calyx-test-x-1").mkdir()
    (room / "calyx-test-99999999-link").symlink_to(room / "calyx-test-x-1")
    (room / "calyx-other-99999999-1").mkdir()
    others = set(room.iterdir())
    dead, left = _begin()
    living, kept = _begin()
    try:
        os.kill(dead.pid, signal.SIGKILL)
        dead.wait()
        assert left.exists()
        with temporary_folder("calyx-test-") as folder:
            assert set(room.iterdir()) == {*others, kept, folder}
        assert set(room.iterdir()) == {*others, kept}
    finally:
        living.communicate("")


def test_a_folder_whose_lock_is_held_stays(room: Path) -> None:
    """Also where its process's id means nothing here, as in another container."""
    ours = TemporaryFolder("calyx-test-")
    named = ours.path.rename(room / "calyx-test-99999999-1")
    with temporary_folder("calyx-test-"):
        assert named.exists()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_killed_query_leaves_nothing_for_long(room: Path) -> None:
    """The next query removes its folder."""
    pytest.importorskip("ibis")
    pytest.importorskip("duckdb")
    code = """
    import os, signal
    from calyx_logging.query.duckdb_views import connect_chunks
    backend = connect_chunks([])
    os.kill(os.getpid(), signal.SIGKILL)
    """
    assert python(code, TMPDIR=str(room)).returncode == -signal.SIGKILL
    assert len(list(room.glob("calyx-query-*"))) == 1
    code = """
    from calyx_logging.query.duckdb_views import connect_chunks
    connect_chunks([]).disconnect()
    """
    assert python(code, TMPDIR=str(room)).returncode == 0
    assert not list(room.glob("calyx-query-*"))
