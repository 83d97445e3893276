"""Recovery of what dead writers left, as the export does it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from calyx_logging import Node
from calyx_logging.errors import ChunkError
from calyx_logging.format.chunk import ChunkName
from calyx_logging.outbox.contents import Contents, look, recover
from conftest import controls_of, events_of, lines_of, tree
from outboxes import killed_writer


def test_a_dead_writers_chunk_is_sealed(node: Node) -> None:
    """Its lines are kept, the end line says that it was recovered, lock and open chunk are gone."""
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
    """The second finds nothing to do."""
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
        (lambda data: b"", 0, 0, 0),
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
    # a torn line that lacks only its newline shows its seq: the hole it leaves stays visible
    hole = data.rpartition(b"\n")[2].endswith(b"}")
    assert (end["torn_bytes"], end["bad_lines"], end["seq"]) == (done.torn_bytes, bad, kept + hole)
    assert [event["n"] for event in events_of(node.outbox)] == list(range(kept))


def test_a_chunk_that_already_has_its_end_line_gets_no_other(node: Node) -> None:
    """Killed between the end line and the rename, the writer had closed in order."""
    (path,) = killed_writer(node)
    recover(node.outbox, node.id)
    sealed = path.with_name(path.name.removesuffix(".open"))
    data = sealed.read_bytes()
    sealed.rename(path)
    (node.outbox / ".writers" / f"{ChunkName.parse(path.name).writer}.lock").touch()  # type: ignore[union-attr]
    recover(node.outbox, node.id)
    assert sealed.read_bytes() == data


def test_the_leftover_of_a_killed_recovery_is_deleted(node: Node) -> None:
    """An open chunk with a sealed sibling had been recovered; a half-written temporary file counts for nothing."""
    (path,) = killed_writer(node)
    writer = ChunkName.parse(path.name).writer  # type: ignore[union-attr]
    data = path.read_bytes()
    recover(node.outbox, node.id)
    before = tree(node.outbox)
    path.write_bytes(data)
    (node.outbox / ".writers" / f"{writer}.lock").touch()
    (node.outbox / f".{path.name.removesuffix('.open')}.tmp").write_bytes(b"half")
    recover(node.outbox, node.id)
    after = tree(node.outbox)
    after.pop(f".{path.name.removesuffix('.open')}.tmp", None)
    assert after == before


def test_a_living_writers_chunk_is_left_alone(node: Node, configure: Callable[..., logging.Logger]) -> None:
    """Its lock is held: it is named with its process, and goes on."""
    logger = configure()
    logger.info("before")
    recovery = recover(node.outbox, node.id)
    (live,) = recovery.live
    assert recovery.recovered == []
    assert str(os.getpid()) in str(live)
    logger.info("after")
    assert [event["message"] for event in events_of(node.outbox)] == ["before", "after"]


def test_an_open_chunk_without_lock_file_is_orphaned(node: Node) -> None:
    """Somebody may have deleted the lock of a living writer: only on request is it recovered."""
    (path,) = killed_writer(node)
    for lock in (node.outbox / ".writers").iterdir():
        lock.unlink()
    recovery = recover(node.outbox, node.id)
    assert [chunk.name.open for chunk in recovery.orphaned] == [path.name]
    assert path.exists()
    recovery = recover(node.outbox, node.id, orphans=True)
    assert [chunk.name.open for chunk in recovery.recovered] == [path.name]
    assert [event["n"] for event in events_of(node.outbox)] == [0, 1, 2]


def test_a_writer_that_died_after_rolling(node: Node) -> None:
    """The end line of an empty last chunk goes on from the seq of the sealed ones."""
    *_, path = killed_writer(node, 30, max_bytes=2000)
    path.write_bytes(b"torn")
    recover(node.outbox, node.id)
    seqs = sorted(line["seq"] for line in lines_of(node.outbox))
    assert seqs == list(range(len(seqs)))
    assert lines_of(node.outbox)[-1]["torn_bytes"] == 4


def test_a_dead_writers_lock_without_chunk_is_cleared(node: Node) -> None:
    """Killed between lock and first chunk, a writer left nothing to keep."""
    (node.outbox / ".writers").mkdir()
    (node.outbox / ".writers" / "0123abcd.lock").touch()
    assert recover(node.outbox, node.id).recovered == []
    assert list((node.outbox / ".writers").iterdir()) == []


def test_more_dead_writers_than_one_batch(node: Node) -> None:
    """Hundreds of crashed sessions are recovered in one go."""
    (path,) = killed_writer(node)
    data = path.read_bytes()
    name = ChunkName.parse(path.name)
    assert name is not None
    for n in range(250):
        other = ChunkName(name.when, name.component, f"{n:08x}", 0)
        (node.outbox / other.open).write_bytes(data)
        (node.outbox / ".writers" / f"{n:08x}.lock").touch()
    assert len(recover(node.outbox, node.id).recovered) == 251
    assert len(look(node.outbox).sealed) == 251


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.open"])
def test_a_symbolic_link_among_the_chunks(node: Node, tmp_path: Path, suffix: str) -> None:
    """It is refused before anything is touched."""
    killed_writer(node)
    (tmp_path / "elsewhere").write_bytes(b"secret\n")
    (node.outbox / f"20260101_000000__x__00000000-0000{suffix}").symlink_to(tmp_path / "elsewhere")
    before = tree(node.outbox)
    with pytest.raises(ChunkError, match="symbolic link"):
        recover(node.outbox, node.id)
    assert tree(node.outbox) == before


def test_looking_sorts_by_kind(node: Node) -> None:
    """Ours sealed, ours open, foreign, unknown; everything hidden is passed over."""
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
