"""An outbox's table is kept beside it: a later query reads only what is new, and gets what a new table would give."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from bundles import make_node, receipt_of
from calyx_logging import Node, seal
from calyx_logging.events.event import encode, with_seq
from calyx_logging.hub.importer import import_bundle
from calyx_logging.hub.store import Store
from calyx_logging.outbox.export import export
from calyx_logging.outbox.prune import carry_out
from conftest import close_logging, config, tree

pytest.importorskip("ibis")
pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

from calyx_logging.query import _chunk_tables, _kept_tables, connect
from calyx_logging.query.duckdb_views import connect_chunks, run_sql
from calyx_logging.query.locations import chunks_at

CHUNK = "20261122_080000__harness__3f9a1c20-0000.jsonl"
ALL = "SELECT * FROM lines ORDER BY chunk, line"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make_node(tmp_path / "root", "n-1")


def line(seq: int, **fields: Any) -> bytes:
    stamp = {"node_id": "n-1", "ts_utc": f"2026-11-22T08:00:00.{seq:06d}+00:00", "event_id": f"id-{seq}"}
    return with_seq(encode({**stamp, "source": "bench_harness", "level": "info", **fields}), seq)


def answers(node: Node) -> list[dict[str, Any]]:
    """The outbox's lines by the tables that are kept, which are those of new ones."""
    kept = run_sql(connect(node.root, plain=True), ALL).to_pylist()
    fresh = run_sql(connect_chunks(chunks_at("outbox", str(node.root))(), plain=True), ALL).to_pylist()
    assert kept == fresh
    return kept


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Chunks that were read for a kept table, and from which byte on."""
    found: list[tuple[str, int]] = []
    batches_of = _kept_tables.batches_of

    def noted(path: Path, *args: Any, start: int = 0, **more: Any) -> Any:
        found.append((path.name, start))
        return batches_of(path, *args, start=start, **more)

    monkeypatch.setattr(_kept_tables, "batches_of", noted)
    return found


def test_only_what_is_new_is_read(node: Node, read: list[tuple[str, int]]) -> None:
    """A chunk grows, is sealed, and is there no more; each of its bytes is read once."""
    chunk = node.outbox / f"{CHUNK}.open"
    chunk.write_bytes(line(0) + line(1))
    assert len(answers(node)) == 2
    assert len(answers(node)) == 2
    size = chunk.stat().st_size
    with chunk.open("ab") as stream:
        stream.write(line(2) + line(3)[:40])
    assert [row["seq"] for row in answers(node)] == [0, 1, 2]
    assert read == [(chunk.name, 0), (chunk.name, size)]
    with chunk.open("ab") as stream:
        stream.write(line(3)[40:])
    chunk.rename(node.outbox / CHUNK)
    rows = answers(node)
    assert [(row["seq"], row["chunk"], row["line"]) for row in rows] == [(n, CHUNK, n + 1) for n in range(4)]
    assert read[2:] == [(CHUNK, size + len(line(2)))]
    answers(node)
    assert len(read) == 3
    (node.outbox / CHUNK).rename(node.outbox / CHUNK.replace("-0000", "-0001"))
    assert len(answers(node)) == 4
    assert [path.stem for path in (node.outbox / ".table").iterdir()] == [CHUNK[:-11] + "-0001"]


def test_lines_of_any_kind_in_steps_of_any_size(node: Node) -> None:
    """Empty, bad, long and repeated lines, cut anywhere, in a chunk of ours and in one that grows in place."""
    rng = random.Random(20261128)
    lines = [
        rng.choice((line(n, n=n), b"\n", b"no event\n", b"  \r\n", line(n, text="x" * 70_000), line(7)))
        for n in range(60)
    ]
    data = b"".join(lines)
    ours, theirs = node.outbox / f"{CHUNK}.open", node.outbox / "session.jsonl"
    at = 0
    while at < len(data):
        step = rng.choice((1, 17, 300, 5000, 80_000, 200_000))
        for path in (ours, theirs):
            with path.open("ab") as stream:
                stream.write(data[at : at + step])
        at += step
        answers(node)
    ours.rename(node.outbox / CHUNK)
    rows = answers(node)
    assert len(rows) == 2 * sum(1 for one in lines if one.strip())


@pytest.mark.parametrize("how", ["other bytes", "shorter", "other lines", "same length"])
def test_a_chunk_that_was_rewritten(node: Node, how: str) -> None:
    """A kept table of other bytes is not used."""
    chunk = node.outbox / CHUNK
    chunk.write_bytes(line(0) + line(1))
    answers(node)
    data = {
        "other bytes": line(0) + line(5) + line(6),
        "shorter": line(0),
        "other lines": line(9, text="x" * 1000),
        "same length": line(0) + line(2),
    }[how]
    chunk.unlink()
    chunk.write_bytes(data)
    assert len(answers(node)) == data.count(b"\n")


@pytest.mark.parametrize("how", ["cut off", "emptied", "other file", "folder", "link", "older form"])
def test_what_is_kept_may_be_anything(node: Node, tmp_path: Path, how: str) -> None:
    """A damaged, foreign or older file is not believed; the answer is right all the same."""
    (node.outbox / CHUNK).write_bytes(line(0) + line(1))
    answers(node)
    (kept,) = (node.outbox / ".table").iterdir()
    data = kept.read_bytes()
    if how == "cut off":
        kept.write_bytes(data[: len(data) // 2])
    elif how == "emptied":
        kept.write_bytes(b"")
    elif how == "other file":
        kept.write_bytes(b"PAR1" + b"\0" * 50 + b"PAR1")
    elif how == "older form":
        kept.write_bytes(data.replace(b'"version":2', b'"version":1'))
    else:
        kept.unlink()
        (kept.mkdir if how == "folder" else lambda: kept.symlink_to(tmp_path / "elsewhere"))()
    assert len(answers(node)) == 2
    assert not (tmp_path / "elsewhere").exists()


def test_damage_that_its_end_does_not_show(node: Node) -> None:
    """Where the database cannot read what is kept, the table is made anew for the query."""
    (node.outbox / CHUNK).write_bytes(b"".join(line(n, text=os.urandom(30).hex()) for n in range(300)))
    rows = answers(node)
    (kept,) = (node.outbox / ".table").iterdir()
    data = bytearray(kept.read_bytes())
    data[4 : len(data) - 6000] = os.urandom(len(data) - 6004)
    kept.write_bytes(data)
    assert run_sql(connect(node.root, plain=True), ALL).to_pylist() == rows


def test_without_room_or_rights(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be kept, or the disk is nearly full, the outbox stays as it is, and the answer is the same."""
    (node.outbox / CHUNK).write_bytes(line(0))
    before = tree(node.root)
    with monkeypatch.context() as patch:
        patch.setattr(_kept_tables, "_ROOM", 2**62)
        assert len(answers(node)) == 1
    assert tree(node.root) == before
    with monkeypatch.context() as patch:
        patch.setattr(_kept_tables, "write_parquet", lambda *_: (_ for _ in ()).throw(PermissionError(13, "no")))
        assert len(answers(node)) == 1
    assert {name for name in tree(node.root) if ".table/" in name} == set()


def test_a_session_is_exported_and_pruned(node: Node, tmp_path: Path) -> None:
    """What is kept is in no bundle, and goes with its chunk."""
    logging.config.dictConfig(config(node, max_bytes=2000))
    for n in range(50):
        logging.getLogger("harness").info("event", extra={"n": n})
    events = "SELECT count(*) AS n FROM events"  # full chunks are sealed meanwhile
    assert run_sql(connect(node.root, plain=True), events).to_pylist() == [{"n": 50}]
    seal()
    close_logging()
    assert sum(row["control"] is None for row in answers(node)) == 50
    bundle = export(node).bundle
    assert bundle is not None
    assert not [path for path in bundle.iterdir() if "parquet" in path.name or path.name == ".table"]
    store = Store(tmp_path / "hub")
    import_bundle(store, bundle)
    carry_out(node, receipt_of(store))
    assert not list(node.outbox.glob("*.jsonl"))
    assert list((node.outbox / ".table").iterdir()) == []
    assert answers(node) == []


def test_bundles_are_left_as_they_are(node: Node) -> None:
    """Only an outbox keeps its table."""
    (node.outbox / CHUNK).write_bytes(line(0))
    bundle = export(node).bundle
    assert bundle is not None
    before = tree(bundle)
    assert run_sql(connect(place=str(bundle), plain=True), "SELECT count(*) AS n FROM events").to_pylist() == [{"n": 1}]
    assert tree(bundle) == before
    shutil.rmtree(node.outbox / ".table", ignore_errors=True)
    assert json.loads((bundle / "manifest.json").read_bytes())["node_id"] == "n-1"
    assert _chunk_tables.can_keep(node.outbox)
