"""Export makes a bundle of the sealed chunks; the next export repairs a crash at any step."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundles import make_bundle, make_node, receipt_of
from calyx_logging import Node, provision
from calyx_logging.bundle.folder import verify
from calyx_logging.core import files
from calyx_logging.core.os_lock import OsLock
from calyx_logging.errors import LockHeld, StorageError
from calyx_logging.format.manifest import Manifest
from calyx_logging.hub.importer import import_bundle
from calyx_logging.hub.store import Store
from calyx_logging.outbox.export import ExportResult, export, export_all
from calyx_logging.outbox.export_lock import exclusive
from calyx_logging.outbox.prune import carry_out, take_note
from calyx_logging.outbox.status import status_of
from conftest import close_logging, controls_of, events_of, lines_of, telemetry, tree
from outboxes import FOREIGN, foreign, index, killed_writer, log_events

Configure = Callable[..., logging.Logger]


def bundles(node: Node) -> list[Path]:
    return sorted(path for path in node.exports.iterdir() if not path.name.startswith("."))


def exported_events(node: Node) -> list[int]:
    """Count events as a hub would: each event of every bundle, once by its identity (all but seq)."""
    seen = {}
    for bundle in bundles(node):
        verify(bundle)
        for event in events_of(bundle):
            event.pop("seq")
            seen[json.dumps(event, sort_keys=True)] = event["n"]
    return sorted(seen.values())


def test_an_export_makes_a_bundle(node: Node, configure: Configure) -> None:
    """An export writes verbatim chunks, manifest, sums, index and manifest copy; the outbox's chunks stay."""
    log_events(configure, 1, 2)
    (chunk,) = node.outbox.glob("*.jsonl")
    result = export(node)
    assert result.bundle is not None
    assert result.manifest is not None
    assert sorted(path.name for path in result.bundle.iterdir()) == sorted([chunk.name, "SHA256SUMS", "manifest.json"])
    assert (result.bundle / chunk.name).read_bytes() == chunk.read_bytes()
    assert (result.bundle / chunk.name).stat().st_ino != chunk.stat().st_ino
    assert index(node) == {
        "exported": [chunk.name],
        "bundles": [{"timestamp": result.bundle.name, "manifest_sha256": result.manifest_sha256}],
    }
    copy = node.outbox / ".manifests" / f"{result.bundle.name}.json"
    assert copy.read_bytes() == (result.bundle / "manifest.json").read_bytes()
    assert result.manifest.previous_manifest_sha256 is None
    assert not (node.outbox / ".export.holder.json").exists()
    assert tree(node.exports).keys() == {result.bundle.name} | {
        f"{result.bundle.name}/{name}" for name in (chunk.name, "SHA256SUMS", "manifest.json")
    }


def test_lines_that_say_what_runs_are_no_events(node: Node, configure: Configure, tmp_path: Path) -> None:
    """A start line and an end line are lines of the chunk, and are not counted as events, at node or hub."""
    logger = configure(identity=True)
    logger.info("one")
    logger.info("two")
    close_logging()
    assert [line["control"] for line in controls_of(node.outbox)][:1] == ["start"]
    status = status_of(node)
    assert (status.sealed.events, status.audit.events, status.audit.verdict.is_bad) == (2, 2, False)
    result = export(node)
    assert result.bundle is not None
    assert result.manifest is not None
    assert (result.events, verify(result.bundle).events) == (2, 2)
    assert result.manifest.events >= 4
    (tmp_path / "hub").mkdir()
    assert import_bundle(Store(tmp_path / "hub"), result.bundle).events == 2


def test_nothing_new_makes_nothing(node: Node, configure: Configure) -> None:
    """A second export has nothing to do and changes nothing."""
    assert export(node).bundle is None
    log_events(configure, 1)
    export(node)
    before = tree(node.root)
    result = export(node)
    assert (result.bundle, result.manifest, result.warnings) == (None, None, [])
    assert tree(node.root) == before


def test_bundles_are_chained_and_never_share_a_second(node: Node, configure: Configure) -> None:
    """A bundle in a taken second gets the next one, and each manifest names its predecessor."""
    results: list[ExportResult] = []
    for n in range(3):
        log_events(configure, n)
        results.append(export(node, clock=lambda: 1_800_000_000.9))
    assert [result.bundle.name for result in results if result.bundle] == [
        "20270115_080000",
        "20270115_080001",
        "20270115_080002",
    ]
    previous = [result.manifest.previous_manifest_sha256 for result in results if result.manifest]
    assert previous == [None, results[0].manifest_sha256, results[1].manifest_sha256]
    assert exported_events(node) == [0, 1, 2]


def test_a_clock_set_back_keeps_the_order(node: Node, configure: Configure) -> None:
    """A bundle's name is later than every earlier one's."""
    log_events(configure, 1)
    export(node, clock=lambda: 1_800_000_000.0)
    log_events(configure, 2)
    result = export(node, clock=lambda: 1_700_000_000.0)
    assert result.bundle is not None
    assert result.bundle.name == "20270115_080001"


def test_open_chunks_stay_and_are_named(node: Node, configure: Configure) -> None:
    """A living writer's chunk is exported only once sealed, and its events once."""
    logger = configure()
    logger.info("event", extra={"n": 1})
    logger.handlers[0].seal()  # type: ignore[attr-defined]
    logger.info("event", extra={"n": 2})
    result = export(node)
    assert result.manifest is not None
    assert [chunk.name.open for chunk in result.recovery.live] == list(result.manifest.open_chunks)
    assert exported_events(node) == [1]
    close_logging()
    export(node)
    assert exported_events(node) == [1, 2]


def test_dead_writers_are_recovered_first(node: Node) -> None:
    """A killed harness's events are in the bundle."""
    killed_writer(node, 5)
    result = export(node)
    assert len(result.recovery.recovered) == 1
    assert exported_events(node) == [0, 1, 2, 3, 4]


def test_a_second_export_at_once_is_refused(node: Node, configure: Configure) -> None:
    """A second export at the same time is refused, and the error names the holder of the lock."""
    log_events(configure, 1)
    inside, go_on = threading.Event(), threading.Event()

    def progress(done: int, total: int) -> None:
        inside.set()
        assert go_on.wait(20)

    thread = threading.Thread(target=export, args=(node,), kwargs={"progress": progress})
    thread.start()
    try:
        assert inside.wait(20)
        with pytest.raises(LockHeld, match=f"process {os.getpid()}"):
            export(node)
        done = telemetry("export", "--root", node.root)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.count("\n") == 1
    finally:
        go_on.set()
        thread.join()
    assert exported_events(node) == [1]


@pytest.mark.parametrize("left", ["", '{"pid": %d, "host": "%s", "since": "y"}'])
def test_the_export_that_has_just_begun_is_named(node: Node, configure: Configure, left: str) -> None:
    """The lock is taken before its holder is named: the other waits for the name, and believes no killed exporter's."""
    log_events(configure, 1)
    holder = node.outbox / ".export.holder.json"
    if left:
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        holder.write_text(left % (gone.pid, socket.gethostname()))
    lock = OsLock(node.outbox / ".export.lock")
    lock.acquire()
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": "now"}))

    try:
        with pytest.raises(LockHeld, match=f"process {os.getpid()} on "), exclusive(node, sleep=sleep):
            pass
    finally:
        lock.release()
    assert len(waited) == 1


def test_an_export_that_ends_meanwhile_is_no_hindrance(node: Node) -> None:
    """The lock becomes free while its holder's name is waited for."""
    node.outbox.mkdir(parents=True, exist_ok=True)
    lock = OsLock(node.outbox / ".export.lock")
    lock.acquire()
    with exclusive(node, sleep=lambda _: lock.release()):
        assert str(os.getpid()) in (node.outbox / ".export.holder.json").read_text()


def test_an_export_that_fails_leaves_no_name(node: Node) -> None:
    """Or the next one would be taken for it."""
    with pytest.raises(ZeroDivisionError), exclusive(node):
        raise ZeroDivisionError
    assert not (node.outbox / ".export.holder.json").exists()


def test_the_lock_of_a_killed_exporter_holds_nobody_up(node: Node, configure: Configure) -> None:
    """Files left by a killed exporter do not count as a lock."""
    log_events(configure, 1)
    (node.outbox / ".export.lock").touch()
    (node.outbox / ".export.holder.json").write_text('{"pid": 1, "host": "x", "since": "y"}')
    assert export(node).bundle is not None


def test_an_old_ids_outbox_is_still_exported(node: Node, configure: Configure) -> None:
    """The outbox of an old id is exported as a bundle of its own."""
    log_events(configure, 1)
    other = provision(node.root, "new-id", force=True).node
    results = export_all(other)
    assert [(result.node_id, result.bundle is not None) for result in results] == [
        ("new-id", False),
        ("test-node", True),
    ]
    assert exported_events(node) == [1]


STEPS = ("make_dirs", "publish", "remove", "remove_tree", "rename_new", "replace_file", "sync_dir", "write_new")


class Crash(BaseException):
    """The process dies here."""


def crash_at(monkeypatch: pytest.MonkeyPatch, step: int, *, after: bool) -> Callable[[], int]:
    """Die before or after the given operation of core/files.py, without any clean-up."""
    count = 0
    dead = False

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*args: Any, **kwargs: Any) -> Any:
            nonlocal count, dead
            if dead:
                raise Crash
            count += 1
            this = count
            if this == step and not after:
                dead = True
                raise Crash
            result = original(*args, **kwargs)
            if this == step:
                dead = True
                raise Crash
            return result

        return operation

    for name in STEPS:
        monkeypatch.setattr(files, name, wrap(getattr(files, name)))
    return lambda: count


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Node:
    """Make a root with one bundle, a sealed chunk, a dead writer's chunk and one with a partial line."""
    root = tmp_path_factory.mktemp("prepared")
    node = provision(root, "test-node").node
    killed_writer(node, 3)
    export(node, clock=lambda: 1_700_000_000.0)
    killed_writer(node, 2)
    killed_writer(node, 4, max_bytes=700)
    (path, *_) = node.outbox.glob("*.open")
    path.write_bytes(path.read_bytes() + b'{"torn')
    return node


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_step_is_repaired_by_the_next_export(prepared: Node, tmp_path: Path, after: bool) -> None:
    """I2 to I5: after a crash at any operation, the next export reaches the same result as an undisturbed one."""
    expected = [0, 0, 0, 1, 1, 1, 2, 2, 3]
    step, total = 0, 1
    while step < total:
        step += 1
        root = tmp_path / f"{step}"
        shutil.copytree(prepared.root, root)
        node = Node(root, prepared.id)
        with pytest.MonkeyPatch.context() as patch:
            counted = crash_at(patch, step, after=after)
            try:
                export(node, clock=lambda: 1_700_000_100.0)
            except Crash:
                total = step + 1
            assert counted() >= step or step == total
        for bundle in bundles(node):
            verify(bundle)  # I4: a bundle with its final name is complete
        known = set(index(node)["exported"])
        in_bundles = {line.name for bundle in bundles(node) for line in bundle.glob("*.jsonl")}
        assert known <= in_bundles  # I5
        export(node, clock=lambda: 1_700_000_200.0)
        assert exported_events(node) == expected
        assert index(node)["exported"] == sorted({p.name for b in bundles(node) for p in b.glob("*.jsonl")})
        assert list(node.outbox.glob("*.open")) == []
        assert list((node.outbox / ".writers").iterdir()) == []
        assert sum(len(list(bundle.glob("*.jsonl"))) for bundle in bundles(node)) == len(index(node)["exported"])
        for path in node.outbox.glob("*.jsonl"):
            assert path.read_bytes().endswith(b"\n")  # I3
        shutil.rmtree(root)
    assert step > 20


@pytest.mark.parametrize("loss", ["index", "manifests", "both", "damaged", "old", "bom"])
def test_a_lost_or_old_index_costs_nothing(node: Node, configure: Configure, loss: str) -> None:
    """A lost or old index is rebuilt from the manifests and the bundles present."""
    log_events(configure, 1)
    export(node)
    path = node.outbox / ".exported_index.json"
    old = path.read_bytes()
    log_events(configure, 2)
    export(node)
    good = index(node)
    if loss in ("index", "both"):
        path.unlink()
    if loss in ("manifests", "both"):
        shutil.rmtree(node.outbox / ".manifests")
    if loss == "damaged":
        path.write_bytes(b'{"exported": [')
    if loss == "old":
        path.write_bytes(old)
    if loss == "bom":
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert export(node).bundle is None
    assert index(node) == good
    assert exported_events(node) == [1, 2]


def test_an_entry_stays_when_its_bundle_is_moved_away(node: Node, configure: Configure) -> None:
    """Chunks of a bundle that was moved away are not exported again."""
    log_events(configure, 1)
    export(node)
    good = index(node)
    shutil.rmtree(node.exports)
    assert export(node).bundle is None
    assert index(node) == good


def test_a_damaged_bundle_that_no_index_knows_is_not_trusted(node: Node, configure: Configure) -> None:
    """The damaged bundle's chunks are exported again, with a warning."""
    log_events(configure, 1)
    first = export(node).bundle
    assert first is not None
    (node.outbox / ".exported_index.json").unlink()
    shutil.rmtree(node.outbox / ".manifests")
    next(first.glob("*.jsonl")).write_bytes(b"damaged\n")
    result = export(node)
    assert result.bundle is not None
    assert result.bundle != first
    assert any("has faults" in warning for warning in result.warnings)


def test_a_foreign_chunk_waits_until_it_is_quiet(node: Node) -> None:
    """A foreign chunk is exported after ten minutes without change, because its writer appends in place."""
    foreign(node, '{"node_id":"x","n":1}', age=0)
    result = export(node)
    assert (result.bundle, result.quiet_soon) == (None, [FOREIGN])
    foreign(node, '{"node_id":"x","n":1}', age=601)
    result = export(node)
    assert result.manifest is not None
    (entry,) = result.manifest.chunks
    assert (entry.filename, entry.events, entry.writer, entry.first_seq) == (FOREIGN, 1, None, None)


def test_a_foreign_chunk_that_has_grown_is_exported_again(node: Node) -> None:
    """A foreign chunk is exported again if its hash differs from the exported one."""
    foreign(node, '{"n":1}')
    assert export(node).bundle is not None
    assert export(node).bundle is None
    foreign(node, '{"n":1}', '{"n":2}')
    assert export(node).bundle is not None
    assert export(node).bundle is None
    assert index(node)["exported"] == [FOREIGN]


def test_a_first_generation_index_is_kept(node: Node) -> None:
    """A first-generation index keeps its names; a chunk with an unknown exported hash is sent again."""
    foreign(node, '{"n":1}')
    (node.outbox / ".exported_index.json").write_bytes(
        b"\xef\xbb\xbf" + json.dumps({"exported": [FOREIGN, "gone.jsonl"]}).encode()
    )
    assert export(node).bundle is not None
    assert index(node)["exported"] == [FOREIGN, "gone.jsonl"]
    assert export(node).bundle is None


def _odd(path: Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "link to a file":
        path.symlink_to("/etc/hostname")
    else:
        path.write_bytes(b'{"node_id": "x"}\n')
        path.chmod(0)
    if not path.is_symlink():
        os.utime(path, (1, 1))


OURS, OPEN = "20260101_000000__x__0123abcd-0000.jsonl", "20260101_000000__x__0123abcd-0000.jsonl.open"
ODD = [
    ("folder", OURS),
    ("folder", "a\nb.jsonl"),
    ("pipe", OPEN),
    ("pipe", os.fsdecode(b"a\xff.jsonl") if os.name == "posix" else "a.jsonl"),
    ("dangling link", "old.jsonl"),
    ("link to a file", OURS),
    ("unreadable file", OURS),
    ("unreadable file", OPEN),
    ("unreadable file", "old.jsonl"),
]


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("setpriv") is None, reason="setpriv of util-linux")
@pytest.mark.parametrize(("kind", "name"), ODD)
def test_what_is_no_chunk_stops_nobody(node: Node, configure: Configure, kind: str, name: str) -> None:
    """It is named once, and the rest is exported and shown; `--strict` gives exit code 1."""
    log_events(configure, 1)
    path = node.outbox / name
    _odd(path, kind)
    others = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []

    def runs(*args: str) -> subprocess.CompletedProcess[str]:
        command = [*others, sys.executable, "-m", "calyx_logging.scripts", *args, "--root", str(node.root)]
        return subprocess.run(command, capture_output=True, text=True, cwd=node.root, timeout=60, check=False)

    shown = path.name.encode("unicode_escape", "surrogatepass").decode()
    is_open = kind == "unreadable file" and name == OPEN  # whose writer may live: it stays, as other open ones do
    status = runs("status")
    assert status.returncode == (kind == "unreadable file"), status.stderr
    assert (status.stdout + status.stderr).count(shown) == 1 + is_open, status
    tail = runs("tail", "--json")
    assert (tail.returncode, json.loads(tail.stdout)["n"], tail.stderr.count(shown)) == (0, 1, 1)
    assert tail.stderr.startswith("warning: ")
    query = runs("query", "SELECT count(*) AS n FROM events", "--json")
    assert (query.returncode, json.loads(query.stdout), query.stderr.count(shown)) == (0, [{"n": 1}], 1)
    done = runs("export")
    assert (done.returncode, done.stderr.count(shown)) == (0, 1), done.stderr
    assert exported_events(node) == [1]
    assert runs("export", "--strict").returncode == (not is_open)
    assert path.is_symlink() or path.exists()


def test_a_chunk_of_zeros(node: Node, configure: Configure) -> None:
    """A chunk of zeros, as a power loss may leave it, is named and exported as it is."""
    log_events(configure, 1)
    (node.outbox / OURS).write_bytes(bytes(10_000))
    for command in ("status", "export", "tail"):
        done = telemetry(command, "--root", node.root)
        assert (done.returncode, done.stderr.count(OURS)) == (0, command != "tail"), (command, done.stderr)


def test_an_exports_folder_that_cannot_be_made(node: Node, configure: Configure) -> None:
    """The error names the path, and the chunks are exported once the folder can be created."""
    log_events(configure, 1)
    (node.root / "exports").write_text("in the way")
    with pytest.raises(StorageError, match="exports"):
        export(node)
    (node.root / "exports").unlink()
    assert export(node).bundle is not None
    assert exported_events(node) == [1]


def test_an_unknown_open_file_is_reported(node: Node) -> None:
    """An open file with an unknown name is left alone and reported."""
    (node.outbox / "scratch.jsonl.open").write_text("x")
    assert any("scratch.jsonl.open" in warning for warning in export(node).warnings)


def test_a_sealed_chunk_is_exported_verbatim(node: Node, configure: Configure) -> None:
    """A sealed chunk with a broken line is exported as it is, with a warning."""
    log_events(configure, 1)
    (chunk,) = node.outbox.glob("*.jsonl")
    chunk.write_bytes(chunk.read_bytes() + b"broken\n")
    result = export(node)
    assert result.bundle is not None
    assert (result.bundle / chunk.name).read_bytes() == chunk.read_bytes()
    assert "1 lines that are not events" in result.warnings[0]


def test_the_manifest_copy_is_the_manifest(node: Node, configure: Configure) -> None:
    """Manifests are kept forever, so that completeness can be shown when bundles are gone."""
    log_events(configure, 1)
    result = export(node)
    (copy,) = (node.outbox / ".manifests").iterdir()
    assert Manifest.parse(copy.read_bytes()) == result.manifest


def test_times_and_seq_in_the_manifest_are_least_and_greatest(node: Node, configure: Configure) -> None:
    """The manifest has the least and greatest times and seq, because callers may set times."""
    logger = configure()
    logger.info("a", extra={"ts_utc": "2030-01-01T00:00:00Z"})
    logger.info("b", extra={"ts_utc": "2020-01-01T00:00:00+00:00"})
    close_logging()
    manifest = export(node).manifest
    assert manifest is not None
    (entry,) = manifest.chunks
    assert (entry.first_ts_utc, entry.last_ts_utc) == (
        "2020-01-01T00:00:00.000000+00:00",
        "2030-01-01T00:00:00.000000+00:00",
    )
    assert (entry.first_seq, entry.last_seq, entry.events) == (0, 2, 3)
    assert len(lines_of(node.outbox)) == 3


def test_folders_in_exports_that_were_renamed_or_are_anothers(tmp_path: Path) -> None:
    """Renamed or foreign folders do not count as bundles, and the chain continues from the last real one."""
    node = make_node(tmp_path, "n-1")
    first = make_bundle(node, range(1))
    second = make_bundle(node, range(1, 2), second=10)
    first.rename(first.with_name(f"sent_{first.name}"))
    shutil.copytree(make_bundle(make_node(tmp_path, "n-2"), range(1)), node.exports / "of another")
    third = make_bundle(node, range(2, 3), second=20)
    before = hashlib.sha256((second / "manifest.json").read_bytes()).hexdigest()
    assert json.loads((third / "manifest.json").read_bytes())["previous_manifest_sha256"] == before
    warnings = export(node).warnings
    assert any("is a bundle of node n-2" in warning for warning in warnings)


COPIES = (
    " (1)",
    "-LAPTOP",
    " (conflicted copy 2024-01-01 120000)",
    ".sync-conflict-20240101-120000-ABCDEFG",
    " - Copy",
)


def test_copies_that_sync_programs_make_in_an_outbox(node: Node, configure: Callable[..., logging.Logger]) -> None:
    """Copies of our own chunks are not exported and are named; whatever else lies there stops no command."""
    log_events(configure, 1, 2)
    (chunk,) = node.outbox.glob("*.jsonl")
    for copy in COPIES:
        path = chunk.with_name(f"{chunk.stem}{copy}.jsonl")
        path.write_bytes(b'{"half":')
        os.utime(path, (0, 0))
    (chunk.with_name(f"~${chunk.name}")).write_bytes(b"\0owner")
    chunk.with_name("~$folder.jsonl").mkdir()
    for name in (
        "desktop.ini",
        "Thumbs.db",
        ".DS_Store",
        f"._{chunk.name}",
        f"{chunk.name}.part",
        f".{chunk.name}.swp",
    ):
        (node.outbox / name).write_bytes(b"x")
    (node.outbox / "@eaDir" / chunk.name).mkdir(parents=True)
    done = telemetry("status", "--strict", "--root", node.root)
    assert (done.returncode, done.stderr.count("is not exported: it is a copy of")) == (0, len(COPIES)), done.stderr
    assert telemetry("tail", "--root", node.root).returncode == 0
    result = export(node)
    assert result.manifest is not None
    assert [entry.filename for entry in result.manifest.chunks] == [chunk.name]
    assert len([warning for warning in result.warnings if "a copy of" in warning]) == len(COPIES)
    assert len([warning for warning in result.warnings if "left by Microsoft Office" in warning]) == 2
    assert result.left == []


def test_a_copy_whose_chunk_is_gone_is_exported(node: Node, configure: Callable[..., logging.Logger]) -> None:
    """A copy may hold the only events left, and so may a copy of a foreign chunk."""
    log_events(configure, 1, 2)
    (chunk,) = node.outbox.glob("*.jsonl")
    copies = [chunk.rename(chunk.with_name(f"{chunk.stem} (1).jsonl")), foreign(node, '{"n":1}')]
    copies.append(copies[1].with_name(f"{copies[1].stem} (1).jsonl"))
    shutil.copy(copies[1], copies[2])
    for path in copies:
        os.utime(path, (0, 0))
    result = export(node)
    assert result.manifest is not None
    assert {entry.filename for entry in result.manifest.chunks} == {path.name for path in copies}


def test_copies_of_manifests_and_folders_between_bundles(tmp_path: Path) -> None:
    """A sync program's copies beside manifests are no bundles, and a system's folders among bundles are passed over."""
    node = make_node(tmp_path, "n-1")
    bundle = make_bundle(node, range(2))
    copies = node.outbox / ".manifests"
    for copy in (" (1)", "-LAPTOP", ".sync-conflict-20240101-120000-ABCDEFG"):
        shutil.copy(copies / f"{bundle.name}.json", copies / f"{bundle.name}{copy}.json")
    (copies / "._x.json").write_bytes(b"x")
    (node.exports / "@eaDir" / bundle.name).mkdir(parents=True)
    (node.exports / "desktop.ini").write_bytes(b"x")
    for remove in (False, True):
        if remove:
            (node.outbox / ".exported_index.json").unlink()
        result = export(node)
        assert (result.bundle, result.warnings) == (None, [])
        assert [one["timestamp"] for one in index(node)["bundles"]] == [bundle.name]
    second = make_bundle(node, range(2, 4), second=10)
    assert Manifest.parse((second / "manifest.json").read_bytes()).previous_manifest_sha256 is not None


def _word(node: Node, *args: str) -> str:
    done = telemetry("export", "--root", node.root, *args)
    assert done.returncode == 0
    words = [line for line in done.stderr.splitlines() if "written to a stick alone" in line]
    assert words == [f"warning: {one}" for one in status_of(node).warnings if "written to a stick alone" in one] or args
    return "".join(words)


def test_bundles_that_are_gone_are_named(tmp_path: Path) -> None:
    """Missing bundles are counted, with the option that makes them again, until a new one has their chunks."""
    node = make_node(tmp_path, "n-1")
    made = [make_bundle(node, range(n, n + 1), n) for n in range(3)]
    assert _word(node) == ""
    shutil.rmtree(made[1])
    assert "1 exported bundle is not in" in _word(node)
    shutil.rmtree(node.exports)
    word = _word(node)
    assert "3 exported bundles are not in" in word
    assert made[0].name in word
    assert "calyx-telemetry export --since-receipt" in word
    assert "deleted)" not in word
    assert _word(node, "--since-receipt") == ""
    assert exported_events(node) == [0, 1, 2]
    assert _word(node) == ""


def test_bundles_that_are_renamed_packed_or_delivered_are_not_gone(tmp_path: Path) -> None:
    """Neither a folder of another name, nor an archive, nor a bundle that a hub has."""
    node = make_node(tmp_path, "n-1")
    first, second, third = (make_bundle(node, range(n, n + 1), n) for n in range(3))
    first.rename(first.with_name("renamed"))
    shutil.make_archive(str(second), "zip", second.parent, second.name)
    shutil.rmtree(second)
    assert _word(node) == ""
    (tmp_path / "hub").mkdir()
    store = Store(tmp_path / "hub")
    import_bundle(store, third)
    take_note(node, receipt_of(store))
    shutil.rmtree(third)
    assert _word(node) == ""
    carry_out(node, receipt_of(store))
    assert _word(node) == ""


def test_bundles_that_are_gone_for_good(tmp_path: Path) -> None:
    """No option makes bundles again whose chunks are deleted, too."""
    node = make_node(tmp_path, "n-1")
    shutil.rmtree(make_bundle(node, range(1)))
    for chunk in node.outbox.glob("*.jsonl"):
        chunk.unlink()
    assert "but for 1 chunk that" in _word(node)
