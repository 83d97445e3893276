"""Hostile bundles: check each case's outcome, every file touched, and the memory used."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import REPO, tree
from hostile_bundles import CASES, Case, box_in, imported

READS = {"open", "os.listdir", "os.scandir"}
WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
PROGRAMS = tuple(os.path.realpath(path) for path in {sys.prefix, sys.base_prefix, str(REPO)})
MIB = 1024 * 1024
UNPACKS_TO_MUCH = [
    "manifest: ten million chunks",
    "manifest: seven million texts",
    "manifest: 65 MiB",
    "zip: a manifest of a gibibyte",
    "zip: three hundred thousand members",
    "tar.gz: a gibibyte of zeros",
    "tar.gz: a header of two hundred megabytes",
    "tar.gz: three hundred thousand members",
]
SLOW = {
    *UNPACKS_TO_MUCH,
    "manifest: 90,000 chunks that are not there",
    "manifest: 100,001 chunks",
    "line: a million bad ones",
    "line: a million empty ones",
    "extra: ten thousand files",
    "zip: a chunk of a gibibyte where the manifest says less",
    "tar.gz: ten thousand headers of four kibibytes",
}


class Watch:
    """Records the interpreter's audit events about files while active."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] | None = None
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.seen is None or event not in READS | WRITES:
            return
        for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
            if isinstance(path, (str, bytes, os.PathLike)):
                writes = event in WRITES or bool(event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
                place = Path(os.fsdecode(path))
                if event in ("os.remove", "os.rmdir") and arguments[-1] not in (-1, None):
                    place = Path(f"/proc/self/fd/{arguments[-1]}").resolve() / place
                # deleting or renaming a link does not touch its target
                real = place.resolve() if event == "open" else place.absolute().parent.resolve()
                self.seen.append(("write" if writes else "read", str(real)))

    @contextmanager
    def on(self) -> Iterator[list[tuple[str, str]]]:
        self.seen = seen = []
        try:
            yield seen
        finally:
            self.seen = None


WATCH = Watch()


def test_there_are_enough_cases() -> None:
    """There are enough cases, with unique names."""
    assert len(CASES) >= 100
    names = {one.name for one in CASES}
    assert len(names) == len(CASES)
    assert names >= SLOW


@pytest.mark.parametrize(
    "one", [pytest.param(one, id=one.name, marks=[pytest.mark.slow] * (one.name in SLOW)) for one in CASES]
)
def test_hostile_bundles(one: Case, tmp_path: Path) -> None:
    """Each case has its outcome and fault; nothing outside is touched, and the store has only whole bundles."""
    if one.needs == "posix" and sys.platform == "win32":
        pytest.skip("links, pipes, sockets, sparse files")
    if one.needs == "ssh-keygen" and shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-keygen")
    box = box_in(tmp_path)
    before_case = box.bundle
    source = one.make(box) or before_case
    outside = tree(box.outside)
    here = {name: data for name, data in tree(box.store.folder).items() if not name.startswith(".")}
    with WATCH.on() as seen:
        result = imported(box, source)
    assert result.outcome in one.outcome.split(" or "), result.faults[:3]
    assert bool(result.faults) == (result.outcome == "refused")
    if one.kind and result.outcome == "refused":
        assert one.kind in {fault.kind for fault in result.faults}, result.faults[:5]
    assert all(len(str(fault)) < 2000 for fault in result.faults)
    assert len(result.faults) < 100_100

    allowed_writes = (os.path.realpath(box.store.root), os.path.realpath(tempfile.gettempdir()) + "/calyx-signature-")
    if sys.platform != "win32" and box.while_importing is None:
        for kind, path in seen:
            written = path.startswith(allowed_writes)
            read = written or path.startswith((os.path.realpath(source), *PROGRAMS))
            is_device = path in ("/dev/null", "/proc/self/fd") or path.startswith("/proc/")
            is_home = path in (str(Path(allowed_writes[1]).parent), str(Path(os.path.realpath(source)).parent))
            assert written or (kind == "read" and read) or is_device or is_home, (kind, path)
        assert not any(path.startswith(os.path.realpath(box.outside)) for _, path in seen)
    assert tree(box.outside) == outside
    assert list((box.store.folder / ".staging").iterdir()) == []
    after = {name: data for name, data in tree(box.store.folder).items() if not name.startswith(".")}
    if result.outcome == "refused":
        assert after == here
    for folder in box.store.folder.glob("[!.]*/*"):
        for line in (line for chunk in folder.glob("*.jsonl") for line in chunk.read_bytes().splitlines()):
            assert not line or json.loads(line.removeprefix(b"\xef\xbb\xbf"))["node_id"] == folder.parent.name


def test_the_table_is_in_the_document() -> None:
    """docs/hostile.md lists every case with its outcome."""
    document = (REPO / "docs" / "hostile.md").read_text("utf-8")
    for one in CASES:
        assert any(f"| {one.name} | {outcome} |" in document for outcome in one.outcome.split(" or ")), one.name
    assert document.count("\n| ") == len(CASES) + 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process from /proc")
@pytest.mark.parametrize("name", UNPACKS_TO_MUCH)
def test_memory_and_time_stay_bounded(tmp_path: Path, name: str) -> None:
    """Large cases use far less memory than they would unpack to, and bounded processor time.

    Each runs in a process of its own. A minute is far more than an honest bundle of that size takes; a hang exceeds it.
    """
    import resource

    one = next(one for one in CASES if one.name == name)
    box = box_in(tmp_path)
    source = one.make(box) or box.bundle
    pid = os.fork()
    if pid == 0:
        base = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        used = int(sum(os.times()[:2]))
        resource.setrlimit(resource.RLIMIT_CPU, (used + 60, used + 60))
        Path("/proc/self/clear_refs").write_text("5")
        outcome = imported(box, source).outcome
        peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
        Path(tmp_path, "said").write_text(f"{outcome} {(peak - base) // MIB}")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    outcome, mib = Path(tmp_path, "said").read_text().split()
    assert outcome == "refused"
    assert int(mib) < 400, mib
