"""Recovery seals the chunks of dead writers, as the export does."""

from __future__ import annotations

import codecs
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from calyx_logging import Node, provision
from calyx_logging.format.chunk import ChunkName
from calyx_logging.format.loss_note import note_of
from calyx_logging.outbox.contents import Contents, look
from calyx_logging.outbox.recovery import QUIET_SECONDS, recover
from conftest import controls_of, events_of, lines_of, tree
from outboxes import killed_writer


def dead_lock(node: Node, writer: str, more: str = "") -> None:
    """Write a lock file that names an ended process of this host."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    (node.outbox / ".writers" / f"{writer}.lock").write_text(f" {done.pid} {socket.gethostname()}\n{more}")


def age(path: Path, seconds: float = QUIET_SECONDS + 60) -> None:
    """Set the chunks' times back, as if not written to for so many seconds."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_dead_writers_chunk_is_sealed(node: Node) -> None:
    """A dead writer's lines are kept with an end line `recovered`; lock and open chunk are gone."""
    (path,) = killed_writer(node)
    before = path.read_bytes()
    recovery = recover(node.outbox, node.id)
    (done,) = recovery.recovered
    assert (done.events, done.torn_bytes, done.bad_lines) == (3, 0, 0)
    (sealed,) = node.outbox.glob("*.jsonl")
    assert sealed.name == path.name.removesuffix(".open")
    assert sealed.read_bytes().startswith(before)
    end = lines_of(node.outbox)[-1]
    assert (end["control"], end["reason"], end["torn_bytes"], end["bad_lines"]) == ("end", "recovered", 0, 0)
    assert (end["seq"], end["node_id"]) == (3, node.id)
    assert list((node.outbox / ".writers").iterdir()) == []
    assert not path.exists()


def test_recovering_twice_changes_nothing(node: Node) -> None:
    """A second recovery finds nothing to do."""
    killed_writer(node)
    recover(node.outbox, node.id)
    before = tree(node.outbox)
    assert recover(node.outbox, node.id).recovered == []
    assert tree(node.outbox) == before


@pytest.mark.parametrize(
    ("damage", "torn", "bad", "kept"),
    [
        (lambda data: data[:-10], None, 0, 2),
        (lambda data: data + b'{"node_id":"', 12, 0, 3),
        (lambda data: data + b"\0" * 4096, 4096, 0, 3),
        (lambda data: data + b"\0" * 10 + b"\n", 0, 1, 3),
        (lambda data: data + b'{"some":"object"}\n[]\nnull\n', 0, 3, 3),
        (lambda data: b"\n" + data, 0, 1, 3),
        (lambda data: b"\0" * 100, 100, 0, 0),
        (lambda data: data[:-1], None, 0, 2),
    ],
)
def test_what_is_torn_or_bad_is_not_kept_and_counted(
    node: Node, damage: Callable[[bytes], bytes], torn: int | None, bad: int, kept: int
) -> None:
    """A sealed chunk has only whole, valid lines; the end line counts the rest."""
    (path,) = killed_writer(node)
    data = damage(path.read_bytes())
    path.write_bytes(data)
    (done,) = recover(node.outbox, node.id).recovered
    assert done.torn_bytes == (len(data.rpartition(b"\n")[2]) if torn is None else torn)
    assert (done.bad_lines, done.events) == (bad, kept)
    end = controls_of(node.outbox)[-1]
    # a partial line that lacks only its newline has a seq, so its loss stays visible as a hole
    hole = data.rpartition(b"\n")[2].endswith(b"}")
    assert (end["torn_bytes"], end["bad_lines"], end["seq"]) == (done.torn_bytes, bad, kept + hole)
    assert [event["n"] for event in events_of(node.outbox)] == list(range(kept))


def test_a_chunk_that_already_has_its_end_line_gets_no_other(node: Node) -> None:
    """A writer killed between end line and rename had closed normally, and gets no other end line."""
    (path,) = killed_writer(node)
    recover(node.outbox, node.id)
    sealed = path.with_name(path.name.removesuffix(".open"))
    data = sealed.read_bytes()
    sealed.rename(path)
    dead_lock(node, ChunkName.parse(path.name).writer)  # type: ignore[union-attr]
    recover(node.outbox, node.id)
    assert sealed.read_bytes() == data


def test_the_leftover_of_a_killed_recovery_is_deleted(node: Node) -> None:
    """An open chunk with a sealed sibling, and a half-written temporary file, are deleted."""
    (path,) = killed_writer(node)
    writer = ChunkName.parse(path.name).writer  # type: ignore[union-attr]
    data = path.read_bytes()
    recover(node.outbox, node.id)
    before = tree(node.outbox)
    path.write_bytes(data)
    dead_lock(node, writer)
    (node.outbox / f".{path.name.removesuffix('.open')}.tmp").write_bytes(b"half")
    recover(node.outbox, node.id)
    after = tree(node.outbox)
    after.pop(f".{path.name.removesuffix('.open')}.tmp", None)
    assert after == before


def test_a_living_writers_chunk_is_left_alone(node: Node, configure: Callable[..., logging.Logger]) -> None:
    """A living writer is named with its process, and continues."""
    logger = configure()
    logger.info("before")
    recovery = recover(node.outbox, node.id)
    (live,) = recovery.live
    assert recovery.recovered == []
    assert str(os.getpid()) in str(live)
    logger.info("after")
    assert [event["message"] for event in events_of(node.outbox)] == ["before", "after"]


def test_an_open_chunk_without_lock_file_is_orphaned(node: Node) -> None:
    """A chunk without lock file is recovered only on request, because its writer may live."""
    (path,) = killed_writer(node)
    for lock in (node.outbox / ".writers").iterdir():
        lock.unlink()
    recovery = recover(node.outbox, node.id)
    assert [chunk.name.open for chunk in recovery.orphaned] == [path.name]
    assert path.exists()
    recovery = recover(node.outbox, node.id, orphans=True)
    assert recovery.recovered == []
    assert [chunk.name.open for chunk in recovery.orphaned] == [path.name]
    assert 0 < recovery.wait[path.name] <= QUIET_SECONDS
    age(path)
    recovery = recover(node.outbox, node.id, orphans=True)
    assert [chunk.name.open for chunk in recovery.recovered] == [path.name]
    assert [event["n"] for event in events_of(node.outbox)] == [0, 1, 2]


def test_a_writer_that_died_after_rolling(node: Node) -> None:
    """The end line of an empty last chunk continues the seq of the sealed ones."""
    *_, path = killed_writer(node, 30, max_bytes=2000)
    path.write_bytes(b"torn")
    recover(node.outbox, node.id)
    seqs = sorted(line["seq"] for line in lines_of(node.outbox))
    assert seqs == list(range(len(seqs)))
    assert lines_of(node.outbox)[-1]["torn_bytes"] == 4


def test_a_dead_writers_lock_without_chunk_is_cleared(node: Node) -> None:
    """The lock of a writer killed before its first chunk is deleted."""
    (node.outbox / ".writers").mkdir()
    dead_lock(node, "0123abcd")
    assert recover(node.outbox, node.id).recovered == []
    assert list((node.outbox / ".writers").iterdir()) == []


@pytest.mark.parametrize("noted", [True, False])
def test_a_quiet_lock_of_an_unknown_process(node: Node, noted: bool) -> None:
    """Its chunks are sealed: it gets last lines only where its losses would be forgotten otherwise."""
    (path,) = killed_writer(node)
    writer = ChunkName.parse(path.name).writer  # type: ignore[union-attr]
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    path.unlink()
    path.with_suffix("").write_bytes(whole)
    lock = node.outbox / ".writers" / f"{writer}.lock"
    gap = {"count": 2, "seqs": [[7, 8]], "from": "x", "to": "y", "cause": "No space left on device"}
    note = note_of("harness", [gap]) if noted else b""
    lock.write_bytes(b" 1 elsewhere\n- - -\n" + note.ljust(4000))
    recover(node.outbox, node.id)
    assert lock.exists(), "it may live"
    age(lock)
    recover(node.outbox, node.id)
    assert list((node.outbox / ".writers").glob("*.lock")) == []
    controls = [(line["control"], line["seq"]) for line in controls_of(node.outbox)]
    assert controls == ([("gap", 9), ("end", 10)] if noted else [])


def test_more_dead_writers_than_one_batch(node: Node) -> None:
    """Hundreds of crashed sessions are recovered in one call."""
    (path,) = killed_writer(node)
    data = path.read_bytes()
    name = ChunkName.parse(path.name)
    assert name is not None
    for n in range(250):
        other = ChunkName(name.when, name.component, f"{n:08x}", 0)
        (node.outbox / other.open).write_bytes(data)
        dead_lock(node, f"{n:08x}")
    assert len(recover(node.outbox, node.id).recovered) == 251
    assert len(look(node.outbox).sealed) == 251


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.open"])
def test_a_symbolic_link_among_the_chunks(node: Node, tmp_path: Path, suffix: str) -> None:
    """A symbolic link is no chunk: it is neither read nor touched, and the others are recovered."""
    killed_writer(node)
    (tmp_path / "elsewhere").write_bytes(b"secret\n")
    link = node.outbox / f"20260101_000000__x__00000000-0000{suffix}"
    link.symlink_to(tmp_path / "elsewhere")
    found = recover(node.outbox, node.id)
    assert [one.events for one in found.recovered] == [3]
    assert found.contents.odd == [link.name]
    assert link.is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == b"secret\n"


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_something_in_the_place_of_the_sealed_chunk(node: Node, kind: str) -> None:
    """A dead writer's chunk stays open while something else has its sealed name; another writer's is recovered."""
    (chunk,) = killed_writer(node)
    killed_writer(node)
    before = chunk.read_bytes()
    in_the_way = chunk.with_suffix("")
    in_the_way.mkdir() if kind == "folder" else in_the_way.symlink_to("nowhere")
    found = recover(node.outbox, node.id)
    assert len(found.recovered) == 1
    assert str(in_the_way) in found.unreadable[0]
    assert chunk.read_bytes() == before
    in_the_way.rmdir() if kind == "folder" else in_the_way.unlink()
    assert [one.name.sealed for one in recover(node.outbox, node.id).recovered] == [in_the_way.name]


def test_looking_sorts_by_kind(node: Node) -> None:
    """Chunks are sorted into sealed, open, foreign and unknown; hidden files are skipped."""
    for name in (
        "20260101_000000__x__00000000-0000.jsonl",
        "20260101_000000__x__00000000-0001.jsonl.open",
        "20240101_000000__bench__abc.jsonl",
        "scratch.jsonl.open",
        "notes.txt",
        ".hidden.jsonl",
    ):
        (node.outbox / name).write_bytes(b"")
    contents = look(node.outbox)
    assert [name.number for name in contents.sealed] == [0]
    assert [name.number for name in contents.open] == [1]
    assert contents.foreign == ["20240101_000000__bench__abc.jsonl"]
    assert contents.unknown == ["scratch.jsonl.open"]
    assert look(node.outbox / "nowhere") == Contents()


def test_an_empty_chunk_of_an_earlier_boot_may_have_lost_events(node: Node) -> None:
    """A power loss may leave names without bytes, so the end line says that the tail is unknown."""
    (path,) = killed_writer(node)
    path.write_bytes(b"")
    dead_lock(node, ChunkName.parse(path.name).writer)  # type: ignore[union-attr]
    (done,) = recover(node.outbox, node.id).recovered
    assert done.events == 0
    assert [end["reason"] for end in controls_of(node.outbox)] == ["recovered"]


@pytest.mark.skipif(not Path("/proc/sys/kernel/random/boot_id").exists(), reason="this system names no boot")
def test_a_writer_that_wrote_nothing_is_deleted_without_a_trace(node: Node) -> None:
    """A writer with one empty chunk is deleted if the system has not been rebooted."""
    (path,) = killed_writer(node)
    path.write_bytes(b"")
    assert recover(node.outbox, node.id).recovered == []
    assert not [name for name in os.listdir(node.outbox) if ".jsonl" in name]


def test_several_open_chunks_get_one_end_line(node: Node) -> None:
    """The last chunk with bytes gets the end line, which counts all losses; empty chunks after it are deleted."""
    (path,) = killed_writer(node)
    name = ChunkName.parse(path.name)
    assert name is not None
    lines = path.read_bytes()
    path.write_bytes(lines + b"torn")
    second = replace(name, number=1)
    (node.outbox / second.open).write_bytes(lines.replace(b'"seq":', b'"seq":1') + b"[]\n")
    (node.outbox / replace(name, number=2).open).write_bytes(b"")
    recovery = recover(node.outbox, node.id)
    assert sorted(chunk.name.number for chunk in recovery.recovered) == [0, 1]
    (end,) = [line for line in controls_of(node.outbox) if line["control"] == "end"]
    assert (end["torn_bytes"], end["bad_lines"], end["seq"]) == (4, 1, 13)
    assert (node.outbox / second.sealed).read_bytes().endswith(b'"seq":13}\n')
    assert not list(node.outbox.glob("*.open"))


def test_a_writer_of_another_host_is_taken_only_on_request(node: Node) -> None:
    """A chunk from another host is recovered only when quiet and on request, because its lock may not be visible."""
    (path,) = killed_writer(node)
    (lock,) = (node.outbox / ".writers").glob("*.lock")
    lock.write_bytes(b" 1234 elsewhere\n")
    age(path)
    assert [chunk.holder for chunk in recover(node.outbox, node.id).orphaned] == ["1234 elsewhere"]
    assert path.exists()
    assert len(recover(node.outbox, node.id, orphans=True).recovered) == 1
    (aside,) = node.outbox.glob(".*.taken-*")
    assert aside.stat().st_size > 0


@pytest.mark.skipif(os.name == "nt", reason="on Windows a free lock is proof")
def test_a_process_that_lives_is_not_taken_for_dead(node: Node) -> None:
    """A living process without its lock keeps its chunk until that is quiet; then it is sealed."""
    (path,) = killed_writer(node)
    (lock,) = (node.outbox / ".writers").glob("*.lock")
    lock.write_text(f" {os.getppid()} {socket.gethostname()}\n")
    recovery = recover(node.outbox, node.id, orphans=True)
    assert [chunk.name.open for chunk in recovery.live] == [path.name]
    assert recovery.recovered == []
    age(path)
    assert len(recover(node.outbox, node.id).recovered) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows renames no open file")
def test_lines_added_after_the_copy_are_recovered(node: Node) -> None:
    """A later recovery takes lines that a living writer added to the file that was set aside."""
    (path,) = killed_writer(node)
    for lock in (node.outbox / ".writers").iterdir():
        lock.unlink()
    with path.open("ab") as stream:
        age(path)
        line = path.read_bytes().splitlines(keepends=True)[-1]
        assert len(recover(node.outbox, node.id, orphans=True).recovered) == 1
        stream.write(line.replace(b'"n":2', b'"n":3').replace(b'"seq":2', b'"seq":4'))
    (aside,) = node.outbox.glob(".*.taken-*")
    assert recover(node.outbox, node.id).recovered == []
    age(aside)
    (done,) = recover(node.outbox, node.id).recovered
    assert (done.name.number, done.events) == (1, 1)
    assert [event["n"] for event in events_of(node.outbox)] == [0, 1, 2, 3]
    assert recover(node.outbox, node.id).recovered == []


@pytest.mark.skipif(os.name == "nt", reason="links and pipes of POSIX")
@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_something_else_stands_where_the_lock_file_was(node: Node, kind: str) -> None:
    """It tells of no writer, and nothing waits for it: the chunk is an orphan, recovered on request."""
    (path,) = killed_writer(node)
    (lock,) = (node.outbox / ".writers").glob("*.lock")
    lock.unlink()
    if kind == "link":
        lock.symlink_to(node.root / "elsewhere")
    elif kind == "folder":
        lock.mkdir()
    else:
        os.mkfifo(lock)
    age(path)
    assert [chunk.holder for chunk in recover(node.outbox, node.id).orphaned] == [None]
    assert len(recover(node.outbox, node.id, orphans=True).recovered) == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("mode", "live", "recovered"), [(0o600, 1, 0), (0o644, 0, 1)])
def test_a_lock_file_of_another_user(mode: int, live: int, recovered: int) -> None:
    """One that may be read can be locked; one that may not leaves that writer's chunk, and no more, for later."""
    with tempfile.TemporaryDirectory() as folder:
        node = provision(Path(folder), "test-node").node
        killed_writer(node)
        (lock,) = (node.outbox / ".writers").glob("*.lock")
        for place in (node.root, *node.root.rglob("*")):
            place.chmod(0o777 if place.is_dir() else 0o666)
        lock.chmod(mode)
        pid = os.fork()
        if pid == 0:
            try:
                codecs.lookup("ascii")  # loaded on first use, from where the other user may not read
                os.setuid(65534)
                found = recover(node.outbox, node.id)
                os._exit((len(found.live), len(found.recovered)) != (live, recovered))
            except BaseException:
                traceback.print_exc()
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
