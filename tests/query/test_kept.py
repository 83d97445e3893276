"""An outbox's table is kept beside it: the second query reads what the first one made, if that is still right."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from calyx_logging import provision
from calyx_logging.node import Node
from conftest import telemetry

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

from calyx_logging.query import _chunk_tables, connect
from calyx_logging.query.sql import run_sql

LINES = 2000
SQL = "SELECT count(*) AS n, count(DISTINCT event_id) AS ids, sum(seq) AS seqs, min(node_id) AS node FROM events"


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node with three sealed chunks and an open one."""
    monkeypatch.setattr(_chunk_tables, "_WORTH_KEEPING", 0)
    node = provision(tmp_path, "n-1").node
    for number in range(4):
        name = f"20260101_00000{number}__x__0000000a-000{number}.jsonl"
        write(node.outbox / (name + ".open" if number == 3 else name), number)
    return node


def write(path: Path, number: int, extra: str = "") -> None:
    line = '{"node_id":"n-1","ts_utc":"2026-01-01T00:00:00.000000+00:00","event_id":"%d","source":"s","level":"info",'
    line += '"logger":"l","message":"m%s","seq":%d}\n'
    path.write_text("".join(line % (n, extra, n) for n in range(number * LINES, (number + 1) * LINES)))


def kept(node: Node) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (node.outbox / ".table").glob("*.parquet")}


def check(node: Node, chunks: int = 4) -> None:
    n = chunks * LINES
    expected = {"n": n, "ids": n, "seqs": n * (n - 1) // 2, "node": node.id}
    assert run_sql(connect(node.root, plain=True, closed=True), SQL).to_pylist() == [expected]


def test_what_is_kept_is_read(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealed chunks are read once, the open one each time; a chunk that is sealed later is added."""
    check(node)
    first = kept(node)
    assert len(first) == 3
    read: list[str] = []
    batches = _chunk_tables.batches_of
    monkeypatch.setattr(
        _chunk_tables,
        "batches_of",
        lambda path, *args, **more: (read.append(path.name), batches(path, *args, **more))[1],
    )
    check(node)
    assert [name.endswith(".open") for name in read] == [True]
    (still_open,) = node.outbox.glob("*.open")
    still_open.rename(still_open.with_name(still_open.name.removesuffix(".open")))
    check(node)
    assert len(kept(node)) == 4
    assert first.items() <= kept(node).items()


@pytest.mark.parametrize("damage", ["a bit", "cut", "empty", "pipe", "link", "folder"])
@pytest.mark.skipif(sys.platform == "win32", reason="pipes and links")
def test_what_is_damaged_is_made_again(node: Node, tmp_path: Path, damage: str) -> None:
    """Whatever has become of a file: it is not read, nothing is written outside, and the answer is right."""
    check(node)
    names = kept(node).keys()
    victim = sorted((node.outbox / ".table").glob("*.parquet"))[0]
    data = victim.read_bytes()
    elsewhere = tmp_path / "elsewhere.parquet"
    if damage == "a bit":
        victim.write_bytes(data[:500] + bytes([data[500] ^ 1]) + data[501:])
    elif damage == "cut":
        victim.write_bytes(data[:-10])
    elif damage == "empty":
        victim.write_bytes(b"")
    else:
        victim.unlink()
        if damage == "pipe":
            os.mkfifo(victim)
        elif damage == "link":
            elsewhere.write_bytes(data)
            victim.symlink_to(elsewhere)
        else:
            victim.mkdir()
    check(node)
    if damage != "folder":
        assert kept(node).keys() == names
        assert victim.read_bytes() == data
        assert not victim.is_symlink()
    check(node)


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_a_link_in_the_place_of_the_folder(node: Node, tmp_path: Path) -> None:
    """Nothing is read or written where it leads."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (node.outbox / ".table").symlink_to(elsewhere)
    (elsewhere / "0-0.parquet").write_text("stays")
    os.utime(elsewhere / "0-0.parquet", (0, 0))
    check(node)
    assert [path.name for path in elsewhere.iterdir()] == ["0-0.parquet"]


def test_a_chunk_that_is_another_now(node: Node) -> None:
    """Its length or its time of change is another, or its node."""
    check(node)
    victim = sorted(node.outbox.glob("*.jsonl"))[0]
    write(victim, 0, "x")
    check(node)
    assert run_sql(
        connect(node.root, plain=True), "SELECT count(*) AS n FROM events WHERE message = 'mx'"
    ).to_pylist() == [{"n": LINES}]


def test_files_of_chunks_that_are_gone(node: Node) -> None:
    """They are deleted when they are a day old, with what a killed query left; not before."""
    check(node)
    victim = sorted(node.outbox.glob("*.jsonl"))[2]
    victim.unlink()
    left = node.outbox / ".table" / ".0123456789abcdef.tmp"
    left.write_text("left by one that died")
    run_sql(connect(node.root, plain=True), SQL)
    assert (len(kept(node)), left.exists()) == (3, True)
    for path in (node.outbox / ".table").iterdir():
        os.utime(path, (0, 0))
    run_sql(connect(node.root, plain=True), SQL)
    assert (len(kept(node)), left.exists()) == (2, False)


def test_several_queries_at_once(node: Node) -> None:
    """Each has the right answer, and one file a chunk stays."""
    program = "import sys; from calyx_logging.query import _chunk_tables; _chunk_tables._WORTH_KEEPING = 0; "
    program += "from calyx_logging.scripts.cli import main; main()"
    command = [sys.executable, "-c", program, "query", "--root", str(node.root), "--json", SQL]
    for _ in range(2):
        shutil.rmtree(node.outbox / ".table", ignore_errors=True)
        running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(4)]
        answers = [json.loads(process.communicate()[0]) for process in running]
        assert [answer[0]["n"] for answer in answers] == [4 * LINES] * 4
        assert len(kept(node)) == 3


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_where_nothing_can_be_kept(node: Node) -> None:
    """The query is answered all the same."""
    node.outbox.chmod(0o555)
    try:
        check(node)
    finally:
        node.outbox.chmod(0o755)


def test_small_outboxes_have_none(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making their table is as quick as reading it."""
    monkeypatch.undo()
    assert telemetry("query", "--root", node.root, SQL).returncode == 0
    assert not (node.outbox / ".table").exists()
