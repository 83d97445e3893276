"""Locks: file systems without locks, the process that a lock file names, forks."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from calyx_logging import Node
from calyx_logging.core import locks
from calyx_logging.core.locks import Holder, WriterLock, is_gone, probe, read_holder
from calyx_logging.core.os_lock import Held, OsLock
from calyx_logging.errors import ConfigError, LockHeld
from calyx_logging.outbox.export_lock import exclusive
from conftest import python

posix = pytest.mark.skipif(os.name == "nt", reason="flock and fork are POSIX")


def refuse_locks(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    import fcntl

    def refuse(fd: int, flags: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)


@posix
@pytest.mark.parametrize("name", ["EACCES", "EAGAIN", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "ENOLCK"])
def test_a_file_system_without_locks_is_named(node: Node, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """No call waits forever, and the hint suggests another disk."""
    refuse_locks(monkeypatch, getattr(errno, name))
    with pytest.raises(ConfigError, match=r"no locks.*local disk"):
        probe(node.outbox)
    with pytest.raises(ConfigError, match=r"no locks.*local disk"), exclusive(node):
        pass
    with pytest.raises(ConfigError, match=r"no locks.*local disk"), OsLock(node.root / ".import.lock"):
        pass
    assert not list(node.outbox.rglob(".probe-*"))


def test_a_lock_that_is_held_is_still_said_to_be(node: Node) -> None:
    """The error names the other export and does not blame the file system."""
    with exclusive(node), pytest.raises(LockHeld), exclusive(node):
        pass


def test_a_lock_file_names_its_process(node: Node) -> None:
    """The lock file names this process as alive; the same process id with another start time is another process."""
    lock = WriterLock(node.outbox)
    lock.take()
    holder = read_holder(node.outbox, lock.writer)
    lock.give_back(delete=True)
    assert holder is not None
    assert str(holder) == f"{os.getpid()} {socket.gethostname()}"
    assert holder.is_here
    assert not holder.has_ended
    if holder.start != "-":
        assert Holder(holder.pid, holder.host, holder.boot, holder.namespace, "1").has_ended


@posix
def test_a_process_that_has_ended(node: Node) -> None:
    """A process that has ended is recognised, even as a zombie."""
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()
    if Path("/proc/self/stat").exists():
        while locks._start(child.pid) != "ended":
            pass
        assert is_gone(f"{child.pid} {socket.gethostname()}")
    child.wait()
    assert is_gone(f"{child.pid} {socket.gethostname()}")
    assert not is_gone(f"{child.pid} another-host")


FORK = """
    import os, subprocess, sys
    from pathlib import Path
    from calyx_logging.core.locks import WriterLock, lock_file
    outbox = Path(sys.argv[1])
    lock = WriterLock(outbox)
    lock.take()
    def is_held():
        code = "import sys; from pathlib import Path\\n" \\
            "from calyx_logging.core.os_lock import Held, OsLock\\n" \\
            "try: OsLock(Path(sys.argv[1])).acquire(blocking=False)\\n" \\
            "except Held: sys.exit(7)\\n"
        return subprocess.run([sys.executable, "-c", code, str(lock_file(outbox, lock.writer))]).returncode == 7
    go, done = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(done)
        lock.forget()
        os.read(go, 1)  # until its parent has ended
        os._exit(0)
    os.close(go)
    assert is_held()
    child = os.fork()
    if not child:
        lock.forget()
        os._exit(0)
    os.waitpid(child, 0)
    assert is_held()
    lock.give_back(delete=False)
    assert not is_held()
    print("right")
"""


@posix
def test_a_forked_child_never_unlocks_its_parents_lock(node: Node) -> None:
    """A child that forgets it leaves it held, and a living child does not keep it held for its parent."""
    done = python(FORK, str(node.outbox))
    assert "right" in done.stdout, done.stderr


@posix
def test_a_lock_file_that_its_holder_deletes(tmp_path: Path) -> None:
    """A process that had opened the deleted file takes the lock of the new one."""
    path = tmp_path / "a.lock"
    holder = OsLock(path)
    holder.acquire()
    second, taken = OsLock(path), threading.Event()

    def wait() -> None:
        second.acquire()
        taken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.12)
    assert not taken.is_set()
    path.unlink()
    holder.release()
    thread.join(20)
    assert taken.is_set()
    with pytest.raises(Held):
        OsLock(path).acquire(blocking=False)
    second.release()
    second.release()
    OsLock(path).acquire(blocking=False)


def test_a_lock_goes_with_its_object(tmp_path: Path) -> None:
    """A lock that an interrupted call dropped is free again."""
    lock = OsLock(tmp_path / "a.lock")
    lock.acquire()
    with pytest.raises(Held):
        OsLock(tmp_path / "a.lock").acquire(blocking=False)
    del lock
    with OsLock(tmp_path / "a.lock"):
        pass


def test_a_place_that_takes_no_lock_file(tmp_path: Path) -> None:
    """A folder of the file's name is an error, not a wait."""
    (tmp_path / "a.lock").mkdir()
    with pytest.raises(OSError, match=r"a\.lock"):
        OsLock(tmp_path / "a.lock").acquire()
