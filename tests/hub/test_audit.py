"""The audit: what is missing at the hub is named, per writer and per chain of bundles; what is whole is called so."""

from __future__ import annotations

import hashlib
import json
import logging
import logging.config
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bundles import START, foreign, make_bundle, make_node, numbers, receipt_of, reseal
from calyx_logging import Node, OutboxHandler, provision
from calyx_logging.errors import StorageError
from calyx_logging.format.completeness import NodeAudit, findings
from calyx_logging.hub.audit import audit_node
from calyx_logging.hub.importer import Policy, import_bundle, settle
from calyx_logging.hub.receipts import write_receipt
from calyx_logging.hub.store import Store
from calyx_logging.outbox.export import ExportOptions, export, export_all
from calyx_logging.outbox.prune import carry_out, take_note
from conftest import close_logging, config, python, telemetry, tree


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A hub's, empty."""
    (tmp_path / "hub").mkdir()
    return Store(tmp_path / "hub")


def audited(store: Store) -> NodeAudit:
    """Audit deeply, and by the notes of the imports: both find the same, but for ids that events share."""
    before = tree(store.folder)
    audit, quick = audit_node(store, "n-1", deep=True), audit_node(store, "n-1")
    assert replace(quick, same_ids=audit.same_ids, same_id=audit.same_id) == audit
    after = tree(store.folder)
    if audit.damaged:  # the notes on what is damaged are taken back
        before, after = (
            {name: data for name, data in one.items() if ".sqlite3" not in name} for one in (before, after)
        )
    assert after == before
    return audit


def rolled(node: Node, chunks: int) -> Path:
    """A bundle of one writer's chunks, one event each, in the last the end line, too."""
    logging.config.dictConfig(config(node, max_bytes=300))
    for n in range(chunks):
        logging.getLogger("harness").info("event", extra={"n": n})
    close_logging()
    bundle = export(node, clock=lambda: float(START)).bundle
    assert bundle is not None
    assert len(list(bundle.glob("*.jsonl"))) == chunks
    return bundle


def test_what_is_whole_is_complete(store: Store, tmp_path: Path) -> None:
    """Several writers and bundles, in any order; a second delivery of the same chunks changes nothing."""
    node = make_node(tmp_path, "n-1")
    bundles = [make_bundle(node, range(n * 3, n * 3 + 3), second=n * 10) for n in range(3)]
    for bundle in reversed(bundles):
        import_bundle(store, bundle)
    audit = audited(store)
    assert audit.verdict.is_complete
    assert (audit.bundles, audit.events, len(audit.writers)) == (3, 9, 3)
    assert [writer.state for writer in audit.writers] == ["complete"] * 3


def test_a_bundle_that_has_not_come(store: Store, tmp_path: Path) -> None:
    """The chain names it; once it is here all is complete."""
    node = make_node(tmp_path, "n-1")
    bundles = [make_bundle(node, range(n, n + 1), second=n * 10) for n in range(3)]
    for bundle in (bundles[0], bundles[2]):
        import_bundle(store, bundle)
    audit = audited(store)
    assert not audit.verdict.is_complete
    manifest = json.loads((bundles[2] / "manifest.json").read_bytes())
    assert audit.missing_bundles == [manifest["previous_manifest_sha256"]]
    import_bundle(store, bundles[1])
    assert audited(store).verdict.is_complete


def test_chunks_and_events_that_are_missing(store: Store, tmp_path: Path) -> None:
    """A chunk in the middle: its number and its seq; an event in the middle: its seq."""
    bundle = rolled(make_node(tmp_path, "n-1"), 5)
    chunks = sorted(bundle.glob("*.jsonl"))
    chunks[2].unlink()
    reseal(bundle)
    import_bundle(store, bundle)
    (writer,) = audited(store).writers
    assert (writer.state, writer.missing_seqs, writer.missing_chunks) == ("holes", [[2, 2]], [[2, 2]])
    assert writer.last_seq == 5


def test_an_event_cut_out_and_one_put_in_twice(store: Store, tmp_path: Path) -> None:
    """The audit finds both even if the manifest was adjusted to match."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(5))
    (chunk,) = bundle.glob("*.jsonl")
    lines = chunk.read_bytes().splitlines(keepends=True)
    chunk.write_bytes(b"".join([*lines[:2], *lines[3:], lines[4]]))
    reseal(bundle)
    import_bundle(store, bundle)
    (writer,) = audited(store).writers
    assert (writer.state, writer.missing_seqs, writer.repeated) == ("holes", [[2, 2]], 1)


def test_a_writer_that_was_killed(store: Store, tmp_path: Path) -> None:
    """Its tail is unknown; events that recovery could not keep are reported."""
    node = make_node(tmp_path, "n-1")
    code = """
        import json, logging, logging.config, os, sys
        logging.config.dictConfig(json.loads(sys.argv[1]))
        for n in range(5):
            logging.getLogger("harness").info("event", extra={"n": n})
        os._exit(9)
    """
    assert python(code, json.dumps(config(node))).returncode == 9
    (chunk,) = node.outbox.glob("*.open")
    with chunk.open("ab") as stream:
        stream.write(b'{"torn')
    bundle = export(node).bundle
    assert bundle is not None
    import_bundle(store, bundle)
    audit = audited(store)
    (writer,) = audit.writers
    assert (audit.verdict.is_complete, audit.verdict.kind) == (False, "complete but for unknown tails")
    assert (writer.state, writer.torn_bytes, writer.last_seq) == ("tail unknown", 6, 5)
    done = telemetry("audit", "--root", store.root)
    assert (done.returncode, "all up to seq 5 is here; not kept: 6 torn bytes" in done.stdout) == (0, True)
    assert telemetry("audit", "--root", store.root, "--strict").returncode == 1


def test_a_writer_that_goes_on(store: Store, tmp_path: Path) -> None:
    """Its sealed chunks are here, its end is not: unfinished, and complete when the rest has come."""
    node = make_node(tmp_path, "n-1")
    logging.config.dictConfig(config(node))
    handler = logging.getLogger("harness").handlers[0]
    logging.getLogger("harness").info("one")
    handler.seal()  # type: ignore[attr-defined]
    logging.getLogger("harness").info("two")
    first = export(node, clock=lambda: float(START)).bundle
    close_logging()
    second = export(node, clock=lambda: START + 10.0).bundle
    assert first is not None
    assert second is not None
    import_bundle(store, first)
    (writer,) = audited(store).writers
    assert (writer.state, writer.missing_seqs) == ("unfinished", [])
    import_bundle(store, second)
    assert audited(store).verdict.is_complete


def test_gaps_account_for_what_they_name(store: Store, tmp_path: Path) -> None:
    """Lost events that the writer told of are no holes; they are counted with their cause."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(5))
    (chunk,) = bundle.glob("*.jsonl")
    lines = [json.loads(line) for line in chunk.read_bytes().splitlines()]
    gap = {**lines[2], "source": "calyx_logging", "control": "gap", "count": 2, "seqs": [[1, 2]], "cause": "disk full"}
    lines[1:3] = [{**gap, "seq": 7}, {**gap, "seqs": [[0, 0]], "writer": "00000000", "seq": 6, "count": 1}]
    chunk.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    reseal(bundle)
    import_bundle(store, bundle)
    audit = audited(store)
    (writer,) = audit.writers
    assert (writer.state, writer.missing_seqs, writer.gaps) == ("complete", [], {"disk full": 3})
    assert (audit.verdict.kind, str(audit.verdict)) == ("events lost", "3 events lost")


def test_two_histories_under_one_node_id(store: Store, tmp_path: Path) -> None:
    """A machine that was cloned after its first export, and one that was set up twice."""
    node = make_node(tmp_path, "n-1")
    first = make_bundle(node, range(2))
    shutil.copytree(node.root, tmp_path / "clone")
    clone = Node(tmp_path / "clone", "n-1")
    for bundle in (first, make_bundle(node, range(2, 3), second=10), make_bundle(clone, range(3, 4), second=20)):
        import_bundle(store, bundle)
    audit = audited(store)
    assert not audit.verdict.is_complete
    assert len(audit.histories) == 1
    assert "follow" in audit.histories[0]
    import_bundle(store, make_bundle(make_node(tmp_path / "other", "n-1"), range(4, 5), second=30))
    histories = audited(store).histories
    assert len(histories) == 2
    assert any("begin a chain" in one for one in histories)


def test_damage_in_the_store(store: Store, tmp_path: Path) -> None:
    """Hashes are computed anew: a flipped byte, a chunk that is gone, a manifest that is."""
    node = make_node(tmp_path, "n-1")
    folders = [import_bundle(store, make_bundle(node, range(n, n + 1), second=n * 10)).folder for n in range(3)]
    assert all(folders)
    one, two, three = (folder for folder in folders if folder is not None)
    chunk = next(one.glob("*.jsonl"))
    chunk.write_bytes(chunk.read_bytes().replace(b'"n":0', b'"n":9'))
    next(two.glob("*.jsonl")).unlink()
    (three / "manifest.json").write_text("{")
    damaged = "\n".join(audited(store).damaged)
    assert "its hash is" in damaged
    assert "is not in the store any more" in damaged
    assert str(three) in damaged


def test_bad_lines_and_the_first_generation(store: Store, tmp_path: Path) -> None:
    """Accepted bad lines are counted; first-generation chunks are said to be of unknown completeness."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(2))
    (chunk,) = bundle.glob("*.jsonl")
    chunk.write_bytes(b"bad\n" + chunk.read_bytes())
    reseal(bundle)
    import_bundle(store, bundle, policy=Policy(accept_bad_lines=True))
    audit = audited(store)
    assert (audit.verdict.is_complete, audit.bad_lines) == (False, 1)
    import_bundle(store, foreign(tmp_path / "old", 3))
    old = audit_node(store, "old-1")
    assert (old.verdict.is_complete, old.foreign_chunks, old.writers, old.events) == (True, 1, [], 3)


def test_one_id_and_two_contents(store: Store, tmp_path: Path) -> None:
    """Two events, and the audit says so; the same event twice, apart from its seq, is one and is not said."""
    node = make_node(tmp_path, "n-1")
    logging.config.dictConfig(config(node))
    fixed = {"ts_utc": "2026-01-01T00:00:00+00:00"}
    for event_id, n in (("a", 1), ("a", 2), ("b", 1), ("b", 1)):
        logging.getLogger("harness").info("event", extra={"event_id": event_id, "n": n, **fixed})
    close_logging()
    bundle = export(node).bundle
    assert bundle is not None
    import_bundle(store, bundle)
    audit = audited(store)
    assert (audit.same_ids, audit.same_id) == (1, ["a"])
    assert audit.verdict.is_complete


def test_the_command(store: Store, tmp_path: Path) -> None:
    """Lines for people, JSON for programs; 1 when something is missing."""
    node = make_node(tmp_path, "n-1")
    bundles = [make_bundle(node, range(n, n + 1), second=n * 10) for n in range(2)]
    hub = ("--root", store.root)
    done = telemetry("audit", *hub)
    assert (done.returncode, "there is no node in this store" in done.stderr) == (2, True)
    import_bundle(store, bundles[1])
    done = telemetry("audit", *hub)
    assert (done.returncode, "n-1: incomplete: 1 bundle missing" in done.stdout) == (1, True)
    assert "a bundle is missing" in done.stdout
    import_bundle(store, bundles[0])
    import_bundle(store, rolled(make_node(tmp_path, "n-2"), 4))
    done = telemetry("audit", "n-1", *hub)
    assert (done.returncode, done.stdout.startswith("n-1: complete (2 bundles, 2 writers")) == (0, True), done.stdout
    done = telemetry("audit", *hub, "--json")
    assert [one["complete"] for one in json.loads(done.stdout)] == [True, True]
    done = telemetry("audit", "n-3", *hub)
    assert (done.returncode, "the store has no node 'n-3'" in done.stderr) == (2, True)


def test_a_writer_of_which_nothing_has_come(store: Store, tmp_path: Path) -> None:
    """The manifest says that a chunk was being written: its writer is unfinished until the chunk is here."""
    node = make_node(tmp_path, "n-1")
    make_bundle(node, range(1))
    logging.config.dictConfig(config(node))
    logging.getLogger("harness").info("running")
    code = """
        import json, logging, logging.config, sys
        logging.config.dictConfig(json.loads(sys.argv[1]))
        logging.getLogger("harness").info("a run that ends")
    """
    assert python(code, json.dumps(config(node))).returncode == 0
    first = export(node, clock=lambda: START + 10.0).bundle
    close_logging()
    second = export(node, clock=lambda: START + 20.0).bundle
    assert first is not None
    assert second is not None
    for bundle in sorted(node.exports.iterdir())[:2]:
        import_bundle(store, bundle)
    audit = audited(store)
    (unfinished,) = (writer for writer in audit.writers if writer.state != "complete")
    assert (unfinished.state, unfinished.open_in, unfinished.chunks) == ("unfinished", first.name, 0)
    assert audit.verdict.kind == "incomplete"
    import_bundle(store, second)
    assert audited(store).verdict.is_complete


def hash_of(bundle: Path) -> str:
    return hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()


def test_a_lost_bundle_whose_chunks_were_sent_again(store: Store, tmp_path: Path) -> None:
    """The bundle that repeats them says which it covers; pruned ones that were never carried as well."""
    node = make_node(tmp_path, "n-1")
    first = make_bundle(node, range(2))
    lost = make_bundle(node, range(2, 4), second=10)
    third = make_bundle(node, range(4, 6), second=20)
    for bundle in (first, third):
        import_bundle(store, bundle)
    (missing,) = audited(store).missing_bundles
    shutil.rmtree(lost)
    take_note(node, receipt_of(store))
    again = export(node, ExportOptions(since_receipt=True), clock=lambda: START + 30.0).bundle
    assert again is not None
    assert json.loads((again / "manifest.json").read_bytes())["covers"] == [
        {"manifest_sha256": missing, "previous_manifest_sha256": hash_of(first)}
    ]
    import_bundle(store, again)
    assert audited(store).verdict.is_complete
    repeated = export(node, ExportOptions(since_receipt=True), clock=lambda: START + 40.0).bundle  # never carried
    assert repeated is not None
    take_note(node, receipt_of(store))
    carry_out(node, receipt_of(store))
    assert list(node.exports.iterdir()) == []
    import_bundle(store, make_bundle(node, range(6, 7), second=50))
    assert audited(store).verdict.is_complete


def test_bundles_that_are_gone(store: Store, tmp_path: Path) -> None:
    """A manifest, a folder, a node: what the index knows is missed; a manifest comes back with its bundle, once."""
    node = make_node(tmp_path, "n-1")
    made = [make_bundle(node, range(n * 2, n * 2 + 2), second=n * 10) for n in range(2)]
    folders = [import_bundle(store, bundle).folder for bundle in made]
    assert folders[1] is not None
    (folders[1] / "manifest.json").unlink()
    said = "\n".join(audited(store).damaged)
    assert f"bundle {folders[1].name}, imported" in said
    assert "is no bundle's folder" in said
    again = import_bundle(store, made[1])
    assert (again.outcome, again.folder) == ("already imported", folders[1])
    assert "its manifest was missing" in again.warnings[0]
    assert audited(store).verdict.is_complete
    assert numbers(store) == [0, 1, 2, 3]
    (folders[1] / "extra.jsonl").write_text("{}\n")
    assert "is no chunk that its bundle's manifest names" in audited(store).damaged[0]
    shutil.rmtree(store.folder / "n-1")
    assert len(audited(store).damaged) == 2
    assert telemetry("audit", "--root", store.root).returncode == 1


def test_a_grown_chunk_that_was_set_back(store: Store, tmp_path: Path) -> None:
    """Its longest state is what has to be here."""
    for count in (1, 3):
        import_bundle(store, foreign(tmp_path / str(count), count))
    (file,) = store.folder.glob("old-1/*/*.jsonl")
    file.unlink()
    import_bundle(store, tmp_path / "1")
    assert "is not in the store any more" in audit_node(store, "old-1").damaged[0]
    import_bundle(store, tmp_path / "3")
    assert audit_node(store, "old-1").verdict.is_complete


def test_what_is_in_quarantine(store: Store, tmp_path: Path) -> None:
    """A bundle that contradicts the store is no detail."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(3))
    import_bundle(store, bundle)
    chunk = next(bundle.glob("*.jsonl"))
    chunk.write_bytes(chunk.read_bytes().replace(b'"n":1', b'"n":7'))
    reseal(bundle)
    import_bundle(store, bundle)
    audit = audited(store)
    assert (audit.verdict.missing, len(audit.quarantined)) == (("1 bundle in quarantine",), 1)


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links")
def test_a_node_folder_that_is_a_link(store: Store, tmp_path: Path) -> None:
    """Nothing is imported through the link, and the audit reports it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    store.folder.mkdir(parents=True)
    (store.folder / "n-1").symlink_to(elsewhere)
    with pytest.raises(StorageError, match="is no folder of the store's own"):
        import_bundle(store, make_bundle(make_node(tmp_path, "n-1"), range(3)))
    assert list(elsewhere.iterdir()) == []
    assert "is no folder of the store's own" in audit_node(store, "n-1").damaged[0]


def test_the_index_remembers_what_is_gone(store: Store, tmp_path: Path) -> None:
    """Also after other imports, of this node and of others, until the bundle comes again."""
    node = make_node(tmp_path, "n-1")
    made = [make_bundle(node, range(n, n + 1), second=n * 10) for n in range(3)]
    folders = [import_bundle(store, bundle).folder for bundle in made[:2]]
    assert folders[1] is not None
    shutil.rmtree(folders[1])
    for bundle in (made[2], made[0], make_bundle(make_node(tmp_path, "n-2"), range(1))):
        import_bundle(store, bundle)
        settle(store)
        assert any(f"bundle {folders[1].name}, imported" in one for one in audited(store).damaged)
    import_bundle(store, made[1])
    assert audited(store).verdict.is_complete


def test_a_manifest_that_was_altered_in_the_store(store: Store, tmp_path: Path) -> None:
    """The audit says so, and the bundle that comes again puts it right, in its own folder."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(3))
    folder = import_bundle(store, bundle).folder
    assert folder is not None
    manifest = folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"exported_at": "2', b'"exported_at": "3'))
    assert "is not in the store any more" in audited(store).damaged[0]
    again = import_bundle(store, bundle)
    assert (again.outcome, again.folder) == ("already imported", folder)
    assert manifest.read_bytes() == (bundle / "manifest.json").read_bytes()
    (kept,) = audited(store).quarantined
    shutil.rmtree(kept)
    assert audited(store).verdict.is_complete


def test_what_came_before_a_covered_bundle_is_missed(store: Store, tmp_path: Path) -> None:
    """A bundle that makes up for one does not make up for those before it."""
    node = make_node(tmp_path, "n-1")
    first = make_bundle(node, range(2))
    import_bundle(store, first)
    take_note(node, receipt_of(store))
    make_bundle(node, range(2, 4), second=10)
    again = export(node, ExportOptions(since_receipt=True), clock=lambda: START + 20.0).bundle
    assert again is not None
    other = Store(tmp_path / "other hub")
    other.root.mkdir()
    import_bundle(other, again)
    assert audit_node(other, "n-1").missing_bundles == [hash_of(first)]
    import_bundle(other, first)
    assert audit_node(other, "n-1").verdict.is_complete


def test_a_lost_bundle_whose_chunks_were_sent_again_in_several(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part that has the last of its chunks says that it is covered; a part that does not come is missed."""
    node = make_node(tmp_path, "n-1")
    lost = rolled(node, 5)
    monkeypatch.setattr("calyx_logging.outbox.export.MAX_CHUNKS", 2)
    again = export_all(node, ExportOptions(since_receipt=True), clock=lambda: START + 10.0)
    parts = [one.bundle for one in again if one.bundle is not None]
    covers = [json.loads((part / "manifest.json").read_bytes()).get("covers") for part in parts]
    assert covers == [None, None, [{"manifest_sha256": hash_of(lost), "previous_manifest_sha256": None}]]
    for part in (parts[2], parts[0]):
        import_bundle(store, part)
    audit = audited(store)
    assert audit.missing_bundles == [hash_of(parts[1])]
    assert not audit.verdict.is_complete
    import_bundle(store, parts[1])
    assert audited(store).verdict.is_complete
    assert numbers(store) == list(range(5))


def test_a_manifest_that_was_altered_where_the_index_is_lost(store: Store, tmp_path: Path) -> None:
    """The sums beside it still say what it was."""
    bundle = import_bundle(store, make_bundle(make_node(tmp_path, "n-1"), range(2))).folder
    assert bundle is not None
    path = bundle / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"exported_at"', b' "exported_at"'))
    store.catalog.close()
    store.catalog.path.unlink()
    assert "do not belong together" in "\n".join(audited(store).damaged)
    (bundle / "SHA256SUMS").write_text("nothing")
    assert "SHA256SUMS cannot be read" in "\n".join(audited(store).damaged)
    (bundle / "SHA256SUMS").unlink()
    assert "do not belong together" in "\n".join(audited(store).damaged)


def test_notes_of_an_earlier_version(store: Store, tmp_path: Path) -> None:
    """A hub without a catalog begins with the import index, and with the notes that were kept beside it."""
    import_bundle(store, make_bundle(make_node(tmp_path, "n-1"), range(3)))
    store.catalog.write_index()
    (entry,) = store.load("n-1")
    notes = [json.loads(scan) for (scan,) in store.catalog.rows("SELECT scan FROM notes")]
    assert len(notes) == 1
    before = store.notes([entry])
    path = store.folder / ".checked" / "n-1" / f"{entry.manifest_sha256}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"chunks": notes}))
    store.catalog.close()
    store.catalog.path.unlink()
    again = Store(store.root)
    assert (again.load("n-1"), again.notes([entry])) == ([entry], before)


def test_a_disk_that_rots(store: Store, tmp_path: Path) -> None:
    """A chunk that changes and keeps its length and time: a deep audit finds it, and from then on everybody does."""
    folder = import_bundle(store, make_bundle(make_node(tmp_path, "n-1"), range(3))).folder
    assert folder is not None
    (chunk,) = folder.glob("*.jsonl")
    state = chunk.stat()
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    os.utime(chunk, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert audit_node(store, "n-1").verdict.is_complete  # by what the import noted
    assert len(write_receipt(store, "n-1", anew=False).receipt.chunks) == 1
    assert not audit_node(store, "n-1", deep=True).verdict.is_complete
    assert not audit_node(store, "n-1").verdict.is_complete
    assert write_receipt(store, "n-1", anew=False).receipt.chunks == ()


def test_what_systems_leave_in_the_store(store: Store, tmp_path: Path) -> None:
    """A share's or a sync program's own files in the store damage no verdict; other files do, as ever."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(3))
    folder = import_bundle(store, bundle).folder
    assert folder is not None
    (chunk,) = folder.glob("*.jsonl")
    for name in ("Thumbs.db", f"._{chunk.name}", f"{chunk.stem} (1).jsonl", f"{chunk.stem}-NAS.jsonl"):
        (folder / name).write_bytes(b"x")
    for name in ("@eaDir", ".DS_Store", "desktop.ini"):
        (folder.parent / name).mkdir()
        (store.quarantine / "n-1" / name).mkdir(parents=True)
    assert store.strangers() == []
    done = telemetry("audit", "--root", store.root, "--strict")
    assert (done.returncode, "complete" in done.stdout) == (0, True), done.stdout
    (folder / "other.jsonl").write_bytes(b"x")
    (folder.parent / "other").mkdir()
    assert len(audit_node(store, "n-1").damaged) == 2


def test_two_machines_under_one_id(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit names the machines if two deliver under one id; one machine is no finding."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        node = provision(tmp_path / name, "n").node
        monkeypatch.setattr("calyx_logging.recording.identity.fingerprint", lambda name=name: name * 32)
        handler = OutboxHandler(root=node.root)
        handler.handle(logging.makeLogRecord({"msg": name}))
        handler.close()
        bundle = export(node).bundle
        assert bundle is not None
        assert import_bundle(store, bundle).outcome == "imported"
        audit = audit_node(store, "n")
        assert audit.machines == [one * 16 for one in "ab"[: 1 if name == "a" else 2]]
    said = f"events of 2 machines under one node id (fingerprints {'a' * 16}, {'b' * 16})"
    assert any(said in finding for finding in findings(audit))
