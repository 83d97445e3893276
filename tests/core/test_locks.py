"""Locks: file systems without locks, the process that a lock file names, forks."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from calyx_logging import Node
from calyx_logging.core import locks
from calyx_logging.core.locks import Holder, WriterLock, is_gone, os_lock, probe, read_holder
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
    with pytest.raises(ConfigError, match=r"no locks.*local disk"), os_lock(node.root / ".import.lock"):
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
    import os, sys
    from pathlib import Path
    state = {}
    def early():
        if "lock" in state:
            state["lock"].forget()
            import gc; gc.collect()
            with state["quiet"]:
                pass
    os.register_at_fork(after_in_child=early)
    import threading
    from calyx_logging.core import locks
    from calyx_logging.core.locks import WriterLock, lock_file, os_lock
    outbox = Path(sys.argv[1])
    lock = state["lock"] = WriterLock(outbox)
    state["quiet"] = locks._quiet
    lock.take()
    held, go = threading.Event(), threading.Event()
    def hold():
        with locks._quiet._lock:
            held.set()
            go.wait()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    pid = os.fork()
    if not pid:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    go.set()
    thread.join()
    code = "import sys; from pathlib import Path; from filelock import Timeout\\n" \\
        "from calyx_logging.core.locks import os_lock\\n" \\
        "try: os_lock(Path(sys.argv[1])).acquire(blocking=False)\\n" \\
        "except Timeout: sys.exit(7)\\n"
    import subprocess
    assert subprocess.run([sys.executable, "-c", code, str(lock_file(outbox, lock.writer))]).returncode == 7
    print("held")
"""


@posix
def test_a_forked_child_never_unlocks_its_parents_lock(node: Node) -> None:
    """A hook registered before ours forgets the lock in the child, and waits for no thread of the parent."""
    done = python(FORK, str(node.outbox))
    assert "held" in done.stdout
