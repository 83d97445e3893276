"""Disks that are full, fail or go away: the harness runs on, and what was lost is counted and said."""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from calyx_logging import Node, provision
from calyx_logging.core import files
from calyx_logging.core.locks import lock_file
from calyx_logging.outbox.export import export
from calyx_logging.outbox.status import status_of
from conftest import close_logging, config, controls_of, die_in_place, events_of, python, telemetry, tree
from faults import failing_calls
from faults.disk import Failing, Proxy, through
from faults.failing_calls import ERRORS, account_for

Configure = Callable[..., logging.Logger]


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("sync", failing_calls.SYNC_MODES)
def test_an_error_at_any_system_call_of_the_writer(
    tmp_path: Path, code: int, sync: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """One call fails, whichever: no exception, every event kept or counted, and the rest goes on."""
    calls = failing_calls.fail_each_call_of_the_writer(tmp_path, code, sync)
    assert calls > 20
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("code", ERRORS)
def test_a_disk_that_fails_for_good_and_comes_back(
    tmp_path: Path, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Everything fails from some call on; when it works again, one gap accounts for all that was lost."""
    for number in range(1, 25):
        root = tmp_path / str(number)
        root.mkdir()
        node = provision(root, "test-node").node
        logging.config.dictConfig(config(node, max_bytes=900))
        logger = logging.getLogger("harness")
        proxy = Failing(number, code, forever=True)
        with through(proxy):
            for n in range(10):
                logger.info("event", extra={"n": n, "pad": "x" * 100})
        for n in range(10, 12):
            logger.info("event", extra={"n": n, "pad": "x" * 100})
        close_logging()
        export(node)
        kept, lost = account_for(node, 12)
        assert {10, 11} <= {event["n"] for event in events_of(node.outbox)}
        said = capfd.readouterr().err
        assert said.count("events are lost and counted") == (1 if lost else 0)
        assert said.count("writing to") == (1 if lost else 0)
        assert kept + lost == 12


@pytest.mark.parametrize("code", ERRORS)
def test_an_error_at_any_system_call_of_the_export(tmp_path: Path, code: int) -> None:
    """One clear error, nothing half-written under a final name; the next export ends as an undisturbed one."""
    assert failing_calls.fail_each_call_of_the_export(tmp_path, code) > 30


needs_mount = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root on Linux"
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take the last byte."""
    filler = place / "filler"
    with filler.open("ab", buffering=0) as stream:
        for size in (65536, 4096, 64, 1):
            try:
                while stream.write(b"x" * size) == size:
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return filler


@needs_mount
def test_a_real_full_disk(small_disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Filled to the last byte: events are lost, counted and said; with room again the gap line and the rest follow."""
    node = provision(small_disk, "test-node").node
    logging.config.dictConfig(config(node, max_bytes=20_000))
    logger = logging.getLogger("harness")
    n = 0
    for _ in range(3):
        filler = fill(small_disk)
        for _ in range(200):
            logger.info("event", extra={"n": n, "pad": "x" * 300})
            n += 1
        filler.unlink()
        for _ in range(20):
            logger.info("event", extra={"n": n, "pad": "x" * 300})
            n += 1
    close_logging()
    said = capfd.readouterr().err
    assert 1 <= said.count("events are lost and counted") <= 2  # of many outages in a few seconds it says the first
    kept, lost = account_for(node, n)
    assert lost > 300
    assert kept >= 60
    assert list(node.outbox.glob("*.open")) == []


@needs_mount
def test_the_reserve_keeps_room_for_the_last_lines(small_disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A harness that ends while the disk is still full leaves the count on it."""
    node = provision(small_disk, "test-node").node
    logging.config.dictConfig(config(node))
    logger = logging.getLogger("harness")
    logger.info("event", extra={"n": 0})
    fill(small_disk)
    for n in range(1, 101):
        logger.info("event", extra={"n": n, "pad": "x" * 300})
    close_logging()
    _, lost = account_for(node, 101)
    assert lost >= 80
    assert controls_of(node.outbox)[-1]["reason"] == "closed"
    assert "cannot write" in capfd.readouterr().err


@needs_mount
def test_an_export_onto_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """The error says to free some space, nothing is left behind, and it works once there is room."""
    node = provision(small_disk, "test-node").node
    logging.config.dictConfig(config(node))
    for n in range(200):
        logging.getLogger("harness").info("event", extra={"n": n, "pad": "x" * 300})
    close_logging()
    filler = fill(small_disk)
    done = subprocess.run(
        [sys.executable, "-m", "calyx_logging.scripts", "export", "--root", str(node.root)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "free some space" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(node.exports.glob("2*"))
    filler.unlink()
    result = export(node)
    assert result.bundle is not None
    assert len(events_of(result.bundle)) == 200


@needs_mount
def test_a_full_disk_is_exported_to_a_stick(small_disk: Path, tmp_path: Path) -> None:
    """A harness fills its disk; a direct export takes its events to a stick once, and the node remembers."""
    node = provision(small_disk, "test-node").node
    stick = tmp_path / "stick"
    stick.mkdir()
    (small_disk / "data").write_bytes(b"x" * 80_000)
    logging.config.dictConfig(config(node))
    for n in range(1000):
        logging.getLogger("harness").info("event", extra={"n": n, "pad": "x" * 300})
    close_logging()
    kept = [event["n"] for event in events_of(node.outbox)]
    assert 100 < len(kept) < 1000
    assert telemetry("export", "--root", node.root).returncode == 4
    done = telemetry("export", "--root", node.root, "--to", stick, "--direct")
    assert done.returncode == 0, done.stderr
    (bundle,) = (stick / node.id).iterdir()
    assert [event["n"] for event in events_of(bundle)] == kept
    assert not list(node.exports.glob("*"))
    assert "nothing new" in telemetry("export", "--root", node.root, "--to", stick, "--direct").stdout
    assert "nothing new" in telemetry("export", "--root", node.root).stdout
    assert account_for(node, 1000) == (len(kept), 1000 - len(kept))


@needs_mount
def test_without_room_for_a_note_nothing_goes_to_the_stick(small_disk: Path, tmp_path: Path) -> None:
    """An export that the disk could not remember would be repeated."""
    node = provision(small_disk, "test-node").node
    stick = tmp_path / "stick"
    stick.mkdir()
    logging.config.dictConfig(config(node))
    logging.getLogger("harness").info("event", extra={"n": 0})
    close_logging()
    filler = fill(small_disk)
    done = telemetry("export", "--root", node.root, "--to", stick, "--direct")
    assert (done.returncode, "free some space" in done.stderr) == (4, True), done.stderr
    assert not list((stick / node.id).glob("*"))
    filler.unlink()
    assert telemetry("export", "--root", node.root, "--to", stick, "--direct").returncode == 0
    assert len(list((stick / node.id).iterdir())) == 1


INJECTED = """
    import json, logging, logging.config, sys
    logging.config.dictConfig(json.loads(sys.argv[1]))
    log = logging.getLogger("harness")
    for n in range(40):
        log.info("event", extra={"n": n, "pad": "x" * 100})
    print("done")
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace on this system")
@pytest.mark.parametrize(
    "inject",
    [
        "write:error=ENOSPC:when=10..30",
        "write:error=EIO:when=12..16",
        "fsync:error=EIO:when=4+2",
        "rename:error=EIO:when=2+2",
        "openat:error=EMFILE:when=400+2",
        "ftruncate:error=EIO",
    ],
)
def test_errors_from_the_kernel_itself(node: Node, inject: str) -> None:
    """strace makes the kernel's own calls fail: the program ends in order, every event kept or counted."""
    where = ["-P", str(node.outbox)] if not inject.startswith(("write", "ftruncate")) else []
    code = INJECTED.replace("\n    ", "\n").strip()
    done = subprocess.run(
        [
            *("strace", "-f", "-o", "/dev/null", "-e", f"inject={inject}", *where),
            *(sys.executable, "-c", code, json.dumps(config(node, max_bytes=2000))),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},  # so that the writes counted are ours
    )
    if "not permitted" in done.stderr and "ptrace" in done.stderr.lower():
        pytest.skip("tracing is not allowed here")
    if inject.startswith("openat") and done.returncode != 0:
        pytest.skip("the interpreter itself could not open its files")
    assert 'File "' not in done.stderr, done.stderr  # (stderr itself may be what the kernel refuses)
    export(node)
    account_for(node, 40)


cannot_move_open_files = pytest.mark.skipif(os.name == "nt", reason="Windows moves and deletes no open files")


@cannot_move_open_files
@pytest.mark.parametrize("harm", ["removed", "renamed", "replaced"])
def test_the_outbox_is_taken_away_under_a_running_writer(
    node: Node, configure: Configure, tmp_path: Path, harm: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is noticed when the chunk is to be sealed: what went with the folder is written again into a new one."""
    logger = configure()
    for n in range(3):
        logger.info("event", extra={"n": n})
    if harm == "removed":
        shutil.rmtree(node.outbox)
    else:
        node.outbox.rename(tmp_path / "away")
    if harm == "replaced":
        node.outbox.mkdir(exist_ok=True)  # the writer may have noticed already
    handler = logger.handlers[0]
    handler.seal()  # type: ignore[attr-defined]
    for n in range(3, 6):
        logger.info("event", extra={"n": n})
    close_logging()
    assert sorted(event["n"] for event in events_of(node.outbox)) == list(range(6))
    assert "gap" not in {line["control"] for line in controls_of(node.outbox)}
    assert "its events are written again" in capfd.readouterr().err


@cannot_move_open_files
def test_a_root_that_was_deleted_is_not_made_again(
    node: Node, configure: Configure, capfd: pytest.CaptureFixture[str]
) -> None:
    """A temporary root may be gone before the harness ends: counted and said, and no folder comes back."""
    logger = configure()
    logger.info("event", extra={"n": 0})
    # at once: housekeeping may notice that a chunk is gone before the folder is, and write it again
    shutil.rmtree(node.root.rename(node.root.with_name("gone")))
    logger.handlers[0].seal()  # type: ignore[attr-defined]
    logger.info("event", extra={"n": 1})
    close_logging()
    assert not node.root.exists()
    assert "2 events were lost, and this line alone says so" in capfd.readouterr().err


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX rights")
def test_the_outbox_becomes_read_only(tmp_path: Path) -> None:
    """Without the right to write in the folder the open chunk goes on, and a roll that fails is counted."""
    code = """
    import json, logging, logging.config, os, sys
    import encodings.idna, calyx_logging.handlers.outbox, calyx_logging.export
    from calyx_logging import provision
    calyx_logging.Node, calyx_logging.EventFormatter, calyx_logging.OutboxHandler
    if os.geteuid() == 0:
        os.setgid(65534); os.setuid(65534)
    root, settings = sys.argv[1], json.loads(sys.argv[2])
    node = provision(root, "test-node").node
    logging.config.dictConfig(settings)
    log = logging.getLogger("harness")
    log.info("event", extra={"n": 0})
    node.outbox.chmod(0o555)
    for n in range(1, 20):
        log.info("event", extra={"n": n, "pad": "x" * 100})
    node.outbox.chmod(0o755)
    for n in range(20, 22):
        log.info("event", extra={"n": n})
    """
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        node = Node(Path(folder), "test-node")
        before = tree(Path(folder))
        done = python(code, folder, json.dumps(config(node, max_bytes=1500)), cwd=Path("/"))
        if "No module named" in done.stderr or "Permission denied: '/root" in done.stderr:
            pytest.skip("another user cannot read this Python")
        assert before == {}
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        export(node)
        kept, lost = account_for(node, 22)
        assert lost > 0
        assert kept > 2


@needs_mount
def test_threads_on_a_real_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """Eight threads, lines of all sizes, a disk that fills up and is freed again: every event kept once or counted."""
    node = provision(small_disk, "test-node").node
    logging.config.dictConfig(config(node, max_bytes=20_000))
    logger = logging.getLogger("harness")
    numbers = itertools.count()
    working = threading.Event()
    working.set()

    def work() -> None:
        while working.is_set():
            n = next(numbers)
            logger.info("event", extra={"n": n, "pad": "x" * (n * 61 % 3000)})

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        time.sleep(0.05)
        for path in list(node.outbox.glob("*.jsonl")):  # carried off, so that there is room again
            shutil.move(path, tmp_path)
    working.clear()
    for thread in threads:
        thread.join()
    close_logging()
    shutil.copytree(small_disk, tmp_path / "whole")
    node = Node(tmp_path / "whole", node.id)
    for path in tmp_path.glob("*.jsonl"):
        shutil.move(path, node.outbox)
    export(node)
    kept, lost = account_for(node, next(numbers))
    assert kept > 100
    assert lost > 0


@needs_mount
def test_killed_on_a_full_disk(small_disk: Path) -> None:
    """The lock file has the losses so far: `status` counts them, and recovery writes the gap line."""
    node = provision(small_disk, "test-node").node
    code = """
    import json, logging.config, os, signal, sys
    logging.config.dictConfig(json.loads(sys.argv[1]))
    log = logging.getLogger("harness")
    log.info("event", extra={"n": 0})
    filler = os.open(sys.argv[2], os.O_CREAT | os.O_WRONLY)
    for size in (65536, 4096, 1):
        try:
            while os.write(filler, b"x" * size) == size:
                pass
        except OSError:
            pass
    for n in range(1, 101):
        log.info("event", extra={"n": n, "pad": "x" * 300})
    os.kill(os.getpid(), signal.SIGKILL)
    """
    filler = small_disk / "filler"
    assert python(code, json.dumps(config(node)), str(filler)).returncode == -signal.SIGKILL
    before = status_of(node).audit
    assert before.lost == 101 - before.events
    assert before.lost >= 80
    filler.unlink()
    export(node)
    kept, lost = account_for(node, 101)
    assert (kept, lost) == (before.events, before.lost)
    after = status_of(node).audit
    assert after.lost == lost, "counted once, now by the gap line"
    assert [line["control"] for line in controls_of(node.outbox)] == ["gap", "end"]
    assert after.verdict.kind == "events lost"


NO_DESCRIPTORS = """
import json, logging.config, os, resource, signal, sys
logging.config.dictConfig(json.loads(sys.argv[1]))
log = logging.getLogger("harness")
sys.stderr.flush()
held = os.open(os.devnull, os.O_RDONLY)
highest = max(int(name) for name in os.listdir("/proc/self/fd"))
while held < highest:
    held = os.open(os.devnull, os.O_RDONLY)
resource.setrlimit(resource.RLIMIT_NOFILE, (held + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
for n in range(5):
    log.info("event", extra={"n": n})
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt" or not Path("/proc/self/fd").exists(), reason="no list of descriptors")
@pytest.mark.parametrize("crashes", [True, False])
@pytest.mark.parametrize("end", ["killed", "in order"])
def test_no_descriptor_to_the_end(node: Node, end: str, crashes: bool) -> None:
    """Not one chunk could be made: the losses are known all the same, once the process has ended."""
    done = python(NO_DESCRIPTORS, json.dumps(config(node, crashes=crashes, identity=False)), end)
    assert "Too many open files" in done.stderr
    assert ("5 events were lost, and the next export says so" in done.stderr) == (end == "in order")
    assert list(node.outbox.glob("*.jsonl*")) == []
    assert status_of(node).audit.verdict.document() == {"verdict": "events lost", "lost": 5, "missing": []}
    result = export(node)
    assert account_for(node, 5) == (0, 5)
    assert result.manifest is not None
    assert status_of(node).audit.lost == 5
    assert [path.name for path in (node.outbox / ".writers").iterdir()] == []
    assert export(node).manifest is None


def test_a_note_that_was_told_is_not_told_again(node: Node, configure: Configure) -> None:
    """A process that dies between a gap line and taking back the note."""
    logger = configure()
    pool = logger.handlers[0]._pool  # type: ignore[attr-defined]
    logger.info("event", extra={"n": 0})
    seat = pool._any_seat()  # or housekeeping may tell of it before the note is read
    seat.writer.lose(OSError(errno.EIO, os.strerror(errno.EIO)))
    lock = lock_file(node.outbox, seat.writer.lock.writer)
    noted = lock.read_bytes()
    assert b"Input/output error" in noted
    pool._seats.idle.append(seat)
    logger.info("event", extra={"n": 1})
    while b"Input/output error" in lock.read_bytes():  # housekeeping has the writer
        time.sleep(0.001)
    lock.write_bytes(noted)
    assert status_of(node).audit.lost == 1
    die_in_place()
    export(node)
    assert account_for(node, 3) == (2, 1)


@pytest.mark.parametrize(
    "note",
    [
        *(b"{", b"[]", b"\xff", b"[" * 3000, b'{"component":"../x","gaps":[]}', b'{"component":"harness","gaps":[1]}'),
        b'{"component":"harness","gaps":[{"count":"many","seqs":[[5,1]],"message":1,"cause":[]}]}',
    ],
)
def test_a_note_that_is_none(node: Node, configure: Configure, note: bytes) -> None:
    """A note that cannot be read stops nothing."""
    logger = configure()
    logger.info("event", extra={"n": 0})
    writer = logger.handlers[0]._pool.writers[0]  # type: ignore[attr-defined]
    writer.lock.note(note)
    assert status_of(node).audit.lost == 0
    die_in_place()
    export(node)
    assert [event["n"] for event in events_of(node.outbox)] == [0]
    assert controls_of(node.outbox)[-1]["reason"] == "recovered"


@pytest.mark.usefixtures("in_python")
def test_a_fragment_of_one_thread_harms_no_other(tmp_path: Path) -> None:
    """The disk takes a part of one thread's line while another thread writes: each writer mends its own chunk."""
    node = provision(tmp_path, "test-node").node
    logging.config.dictConfig(config(node))
    logger = logging.getLogger("harness")
    logger.info("event", extra={"n": 0})
    torn, behind = threading.Event(), threading.Event()

    class OneShortWrite(Proxy):
        def write(self, fd: int, data: bytes) -> int:
            if b'"n":1,' in data:
                written = os.write(fd, data[: len(data) // 2]) if not torn.is_set() else 0
                if written:
                    torn.set()
                    assert behind.wait(20)
                    return written
            return os.write(fd, data)

    with through(OneShortWrite()):
        first = threading.Thread(target=logger.info, args=("event",), kwargs={"extra": {"n": 1}})
        first.start()
        assert torn.wait(20)
        logger.info("event", extra={"n": 2})
        behind.set()
        first.join()
    logger.info("event", extra={"n": 3})
    close_logging()
    assert list(node.outbox.glob("*.open")) == []
    export(node)
    account_for(node, 4)
    assert sorted(event["n"] for event in events_of(node.outbox)) == [0, 1, 2, 3]


def test_an_interrupt_in_the_middle_of_a_short_write(tmp_path: Path) -> None:
    """Ctrl-C while the rest of a chunk's first line is written: no line stands behind a fragment."""
    node = provision(tmp_path, "test-node").node
    logging.config.dictConfig(config(node))
    logger = logging.getLogger("harness")

    class Interrupted(Proxy):
        calls = 0

        def write(self, fd: int, data: bytes) -> int:
            self.calls += 1
            if self.calls == 1:
                return os.write(fd, data[:50])
            raise KeyboardInterrupt

    with through(Interrupted()), pytest.raises(KeyboardInterrupt):
        logger.info("interrupted")
    logger.info("event", extra={"n": 1})
    close_logging()
    export(node)
    assert [event["message"] for event in events_of(node.outbox)] == ["event"]
    assert all(path.read_bytes().endswith(b"\n") for path in node.outbox.glob("*.jsonl"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows deletes no open file")
def test_a_chunk_that_took_in_an_earlier_event_vanishes(tmp_path: Path) -> None:
    """A line that had to be written into the next chunk comes back with that one."""
    node = provision(tmp_path, "test-node").node
    logging.config.dictConfig(config(node, max_age=None))
    logger = logging.getLogger("harness")
    for n in range(3):
        logger.info("event", extra={"n": n})

    class TooLarge(Proxy):
        left = 2  # at once, and the long way

        def write(self, fd: int, data: bytes) -> int:
            if self.left:
                self.left -= 1
                raise OSError(errno.EFBIG, "file too large")
            return os.write(fd, data)

    with through(TooLarge()):
        for n in range(3, 6):
            logger.info("event", extra={"n": n})
    max(node.outbox.glob("*.open"), key=lambda path: path.name[-15:]).unlink()
    logger.handlers[0].seal()  # type: ignore[attr-defined]
    logger.info("event", extra={"n": 6})
    close_logging()
    export(node)
    assert account_for(node, 7) == (7, 0)


@pytest.mark.usefixtures("in_python")
def test_a_call_waits_a_twentieth_of_a_second_at_most_for_a_write_that_hangs(
    node: Node, configure: Configure, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Calls beside it roll and meet failing writes; what they sleep is added up, no clock is asked."""
    logger = configure(max_bytes=1500)
    hangs, go_on, waits = threading.Event(), threading.Event(), []
    write, failing = files.AppendFile.write, iter([False, True, False, True, True, False, True, False] * 3)

    def slow(self: files.AppendFile, data: bytes) -> int:
        if b'"stuck"' in data:
            hangs.set()
            go_on.wait()
        elif hangs.is_set() and next(failing, False):
            raise OSError(errno.EIO, "a bad spot")
        return write(self, data)

    def sleep(seconds: float) -> None:
        if threading.current_thread() is threading.main_thread():
            waits[-1] += seconds
        time_sleep(seconds)

    time_sleep = time.sleep
    monkeypatch.setattr(files.AppendFile, "write", slow)
    monkeypatch.setattr("calyx_logging.recording.pool.time.sleep", sleep)
    waits.append(0.0)
    logger.info("first")
    stuck = threading.Thread(target=logger.info, args=("stuck",))
    stuck.start()
    hangs.wait()
    try:
        for n in range(12):
            waits.append(0.0)
            logger.info("beside", extra={"n": n, "pad": "x" * 100})
    finally:
        go_on.set()
        stuck.join()
    close_logging()
    export(node)
    assert max(waits) <= 0.05, waits
    kept = [event["n"] for event in events_of(node.outbox) if "n" in event]
    assert len(kept) == len(set(kept)) >= 6
    assert len(kept) + sum(line.get("count", 0) for line in controls_of(node.outbox)) == 12
    assert sum(event["message"] == "stuck" for event in events_of(node.outbox)) == 1


@pytest.mark.slow
def test_a_root_that_is_deleted_before_the_end(tmp_path: Path) -> None:
    """A program that deletes its root and ends does so at once, and says how many events went with the folder."""
    code = """
        import logging, logging.config, json, os, shutil, sys
        logging.config.dictConfig(json.loads(sys.argv[1]))
        log = logging.getLogger("harness")
        for n in range(20_000):
            log.info("event", extra={"n": n})
        os.rename(sys.argv[2], f"{sys.argv[2]} gone")
        shutil.rmtree(f"{sys.argv[2]} gone")
        for n in range(int(sys.argv[3])):
            log.info("event", extra={"n": n})
        print("logged")
    """
    for number, more in enumerate((0, 500)):
        (tmp_path / str(number)).mkdir()
        node = provision(tmp_path / str(number), "n-1").node
        done = python(code, json.dumps(config(node, max_bytes=1_000_000)), str(node.root), str(more))
        assert (done.returncode, done.stdout) == (0, "logged\n"), done.stderr
        (said,) = re.findall(r"(\d+) events were lost, and this line alone says so", done.stderr)
        in_sealed = 20_000 - int(said) + more  # sealed chunks are gone with the folder, and nobody has their lines
        assert 0 <= in_sealed < 20_000, done.stderr
        assert done.stderr.count("\n") < 40
        assert not node.root.exists()
