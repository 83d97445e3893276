"""Receipts acknowledge only what the hub really has, and pruning deletes only what is acknowledged."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from bundles import START, foreign, make_bundle, make_key, make_node, numbers, receipt_of, reseal
from calyx_logging import Node
from calyx_logging.bundle.signers import add_line, read_public_key, signer_line
from calyx_logging.bundle.signing import RECEIPT_NAMESPACE
from calyx_logging.errors import ConfigError, LockHeld, ManifestError, SignatureError, StorageError
from calyx_logging.format.receipt import Receipt
from calyx_logging.hub.importer import Policy, import_bundle
from calyx_logging.hub.receipts import write_receipt
from calyx_logging.hub.store import Store
from calyx_logging.outbox import receipts
from calyx_logging.outbox.export import ExportOptions, export, export_all
from calyx_logging.outbox.export_lock import exclusive
from calyx_logging.outbox.prune import carry_out, plan, take_note
from calyx_logging.outbox.receipts import read_receipt
from calyx_logging.outbox.status import status_of
from conftest import close_logging, config, events_of, telemetry, tree
from faults.disk import Failing, through


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Make a hub's empty store."""
    (tmp_path / "hub").mkdir()
    return Store(tmp_path / "hub")


@pytest.fixture
def laptop(tmp_path: Path) -> Node:
    return make_node(tmp_path, "n-1")


def test_a_receipt_is_a_value() -> None:
    """A receipt round-trips through its bytes; anything else is refused with a reason."""
    receipt = Receipt("n-1", "2026-01-01T00:00:00.000000+00:00", ("0" * 64, "a" * 64), {"0123abcd": 4})
    assert Receipt.parse(receipt.to_bytes()) == receipt
    assert Receipt.parse(receipt.to_bytes().replace(b'"bundles": []', b'"more": 1')) == receipt
    good = json.loads(receipt.to_bytes())
    for change in (
        {"receipt_version": 2},
        {"receipt_version": None},
        {"receipt_version": True},
        {"node_id": "../x"},
        {"node_id": 3},
        {"written_at": None},
        {"written_at": "\x1b[2J"},
        {"chunks": None},
        {"chunks": ["0" * 63]},
        {"chunks": ["A" * 64]},
        {"chunks": [3]},
        {"writers": []},
        {"writers": {"0123abcd": "4"}},
        {"writers": {"0123abcd": -1}},
        {"writers": {"../x": 1}},
    ):
        with pytest.raises(ManifestError):
            Receipt.parse(json.dumps({**good, **change}).encode())
    for data in (b"", b"{", b"[]", b"\xff"):
        with pytest.raises(ManifestError):
            Receipt.parse(data)


def test_the_hub_acknowledges_what_it_has(store: Store, laptop: Node) -> None:
    """A receipt has chunks by hash and writers up to their last event; an equal one is not rewritten."""
    bundle = make_bundle(laptop, range(5))
    import_bundle(store, bundle)
    written = write_receipt(store, "n-1", clock=lambda: 1.0)
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    (chunk,) = manifest["chunks"]
    assert written.receipt.chunks == (chunk["sha256"],)
    assert written.receipt.writers == {chunk["writer"]: 5}
    again = write_receipt(store, "n-1", clock=lambda: 2.0)
    assert again.receipt == written.receipt
    assert Receipt.parse(written.path.read_bytes()) == written.receipt


def test_what_is_not_whole_in_the_store_is_not_acknowledged(store: Store, laptop: Node) -> None:
    """A truncated or deleted chunk is not acknowledged; lost or damaged notes on its lines do no harm."""
    folder = import_bundle(store, make_bundle(laptop, range(3))).folder
    import_bundle(store, make_bundle(laptop, range(3, 5), second=10))
    whole = write_receipt(store, "n-1").receipt
    assert len(whole.chunks) == 2
    for damage in ("UPDATE notes SET scan = '{'", "DELETE FROM notes"):
        with store.catalog.changing() as change:
            change.execute(damage)
        assert write_receipt(store, "n-1").receipt == whole
    assert folder is not None
    chunk = next(folder.glob("*.jsonl"))
    chunk.write_bytes(chunk.read_bytes()[:-1])
    written = write_receipt(store, "n-1")
    assert len(written.receipt.chunks) == 1
    assert "not acknowledged: 1" in written.warnings[0]
    chunk.unlink()
    assert len(write_receipt(store, "n-1").receipt.chunks) == 1


def test_bad_lines_that_were_accepted(store: Store, laptop: Node) -> None:
    """A chunk with accepted bad lines is stored verbatim and its bad lines listed, but it is never acknowledged."""
    bundle = make_bundle(laptop, range(3))
    (chunk,) = bundle.glob("*.jsonl")
    chunk.write_bytes(chunk.read_bytes() + b"no json\n" + b'{"node_id":"n-2"}\n')
    reseal(bundle)
    assert import_bundle(store, bundle).outcome == "refused"
    accepted = import_bundle(store, bundle, policy=Policy(accept_bad_lines=True))
    assert (accepted.outcome, accepted.bad_lines, accepted.faults) == ("imported", 2, [])
    assert "never acknowledged" in accepted.warnings[-1]
    assert accepted.folder is not None
    assert (accepted.folder / chunk.name).read_bytes() == chunk.read_bytes()
    (one,) = (json.loads(scan) for (scan,) in store.catalog.rows("SELECT scan FROM notes"))
    assert (one["filename"], one["bad_count"]) == (chunk.name, 2)
    assert [bad["line"] for bad in one["bad"]] == [5, 6]
    assert "no JSON" in one["bad"][0]["why"]
    for _ in range(2):
        receipt = write_receipt(store, "n-1").receipt
        assert receipt.chunks == ()
        with store.catalog.changing() as change:  # also when it must be checked again
            change.execute("DELETE FROM notes")
    assert import_bundle(store, bundle).outcome == "already imported"


def test_prune_deletes_what_is_acknowledged(store: Store, laptop: Node) -> None:
    """Prune deletes chunk, bundle and archive; later chunks stay, and nothing is exported twice."""
    first = make_bundle(laptop, range(3), options=ExportOptions(archive="zip"))
    import_bundle(store, first)
    carried = receipt_of(store)
    second = make_bundle(laptop, range(3, 5), second=10, options=ExportOptions(archive="tar.gz"))
    before = tree(laptop.root)
    found = plan(laptop, carried)
    assert tree(laptop.root) == before
    assert (len(found.chunks), list(found.bundles), list(found.archives)) == (1, [first.name], [f"{first.name}.zip"])
    assert found.kept == []
    deleted = carry_out(laptop, carried)
    assert deleted == found
    assert deleted.bytes == sum(len(before[f"{place}"] or b"") for place in set(before) - set(tree(laptop.root)))
    assert sorted(path.name for path in laptop.exports.iterdir()) == [second.name, f"{second.name}.tar.gz"]
    assert [event["n"] for event in events_of(laptop.outbox)] == [3, 4]
    assert (laptop.outbox / ".manifests" / f"{first.name}.json").exists()
    assert export(laptop).bundle is None
    third = make_bundle(laptop, range(5, 6), second=20)
    chain = [json.loads((one / "manifest.json").read_bytes()) for one in (second, third)]
    assert chain[1]["previous_manifest_sha256"] is not None
    for bundle in (second, third):
        import_bundle(store, bundle)
    carry_out(laptop, receipt_of(store))
    assert list(laptop.exports.iterdir()) == []
    assert numbers(store) == list(range(6))
    assert not plan(laptop, receipt_of(store))


def test_what_has_changed_is_left(store: Store, laptop: Node) -> None:
    """Files stay after a flipped byte in outbox or bundle, an addition, or a change of the archive's content."""
    bundle = make_bundle(laptop, range(3), options=ExportOptions(archive="zip"))
    import_bundle(store, bundle)
    carried = receipt_of(store)
    (chunk,) = laptop.outbox.glob("*.jsonl")
    data = chunk.read_bytes()
    chunk.write_bytes(data.replace(b'"n":1', b'"n":2'))
    (bundle / "notes.txt").write_text("mine")
    (laptop.exports / f"{bundle.name}.zip").write_bytes(b"something else")
    found = carry_out(laptop, carried)
    assert not found
    assert len(found.kept) == 3
    assert (bundle / "notes.txt").exists()
    (bundle / "notes.txt").unlink()
    chunk.write_bytes(data)
    assert len(carry_out(laptop, carried).chunks) == 1


def test_what_is_open_or_foreign_is_left(store: Store, laptop: Node) -> None:
    """Open and foreign chunks stay, even if their present state is acknowledged."""
    foreign = laptop.outbox / "20260101_000000__runner__abc.jsonl"
    event = {"node_id": "n-1", "ts_utc": "2026-01-01T00:00:00+00:00", "event_id": "e", "source": "old"}
    foreign.write_text(json.dumps(event) + "\n")
    os.utime(foreign, (1, 1))
    bundle = make_bundle(laptop, range(3))
    assert len(list(bundle.glob("*.jsonl"))) == 2
    import_bundle(store, bundle)
    logging.config.dictConfig(config(laptop))
    logging.getLogger("harness").info("open")
    found = carry_out(laptop, receipt_of(store))
    assert len(found.chunks) == 1
    assert foreign.exists()
    assert len(list(laptop.outbox.glob("*.open"))) == 1


def test_prune_waits_for_nobody(store: Store, laptop: Node) -> None:
    """Prune takes the exporter's lock, and does not wait for it."""
    import_bundle(store, make_bundle(laptop, range(1)))
    with exclusive(laptop), pytest.raises(LockHeld):
        carry_out(laptop, receipt_of(store))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("dies", [True, False])
def test_prune_killed_or_failing_at_any_call(tmp_path: Path, dies: bool) -> None:
    """A failure at any call leaves no partial bundle and loses nothing unacknowledged; the next prune completes."""

    class Dying(Failing):
        def _fails(self, name: str) -> bool:
            if super()._fails(name):
                os._exit(77)
            return False

    hub = tmp_path / "hub"
    hub.mkdir()
    store, laptop = Store(hub), make_node(tmp_path, "n-1")
    import_bundle(store, make_bundle(laptop, range(3), options=ExportOptions(archive="zip")))
    carried = receipt_of(store)
    kept = make_bundle(laptop, range(3, 5), second=10)
    shutil.copytree(laptop.root, tmp_path / "saved")
    number, hit = 0, True
    while hit:
        number += 1
        shutil.rmtree(laptop.root)
        shutil.copytree(tmp_path / "saved", laptop.root)
        if dies:
            pid = os.fork()
            if pid == 0:
                with through(Dying(number, errno.EIO)):
                    carry_out(laptop, carried)
                os._exit(0)
            hit = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 77
        else:
            proxy = Failing(number, errno.EIO)
            with through(proxy), contextlib.suppress(StorageError):
                carry_out(laptop, carried)
            hit = bool(proxy.failed)
        for folder in laptop.exports.glob("[!.]*/"):
            assert (folder / "manifest.json").exists() or folder.suffix
        carry_out(laptop, carried)
        assert sorted(path.name for path in laptop.exports.iterdir()) == [kept.name]
        assert [event["n"] for event in events_of(laptop.outbox)] == [3, 4]
        assert export(laptop, clock=lambda: START + 100.0).bundle is None
    assert number > 8


def test_status_and_export_since_the_receipt(store: Store, laptop: Node) -> None:
    """status counts acknowledged, exported and pending; chunks without receipt are packed again, once at the hub."""
    arrived = make_bundle(laptop, range(3))
    lost = make_bundle(laptop, range(3, 5), second=10)
    import_bundle(store, arrived)
    shutil.rmtree(lost)
    status = status_of(laptop)
    assert (status.exported.chunks, status.acknowledged.chunks, status.last_receipt) == (2, 0, None)
    carried = receipt_of(store)
    take_note(laptop, carried)
    status = status_of(laptop)
    assert (status.exported.chunks, status.acknowledged.chunks) == (2, 1)
    assert (status.acknowledged.events, status.last_receipt) == (3, carried.receipt.written_at)
    assert export(laptop).bundle is None
    again = export(laptop, ExportOptions(since_receipt=True), clock=lambda: START + 20.0).bundle
    assert again is not None
    assert len(list(again.glob("*.jsonl"))) == 1
    import_bundle(store, again)
    assert numbers(store) == list(range(5))
    take_note(laptop, receipt_of(store))
    assert export(laptop, ExportOptions(since_receipt=True)).bundle is None
    assert len(list((laptop.outbox / ".receipts").iterdir())) == 1  # the newer one includes the older
    assert receipts.load_acknowledged(laptop).count == 1


def test_since_the_receipt_without_one_repeats_all(store: Store, laptop: Node) -> None:
    """Without a receipt everything is exported again; damaged receipts are skipped and reported."""
    make_bundle(laptop, range(3))
    (laptop.outbox / ".receipts").mkdir()
    (laptop.outbox / ".receipts" / "junk.json").write_text("{")
    (laptop.outbox / ".receipts" / "folder.json").mkdir()
    assert len(status_of(laptop).warnings) == 2
    again = export(laptop, ExportOptions(since_receipt=True), clock=lambda: START + 20.0).bundle
    assert again is not None
    assert import_bundle(store, again).outcome == "imported"
    take_note(laptop, receipt_of(store))


def test_receipts_that_are_not_believed(store: Store, laptop: Node, tmp_path: Path) -> None:
    """Receipts that are unsigned, by an unknown key, over other bytes, for another node, or malformed are refused."""
    key, other = make_key(tmp_path / "key"), make_key(tmp_path / "other")
    import_bundle(store, make_bundle(laptop, range(3)))
    path = write_receipt(store, "n-1").path
    with pytest.raises(ConfigError, match="is not signed"):
        read_receipt(laptop, path, accept_unsigned=False)
    assert read_receipt(laptop, path, accept_unsigned=True).signed_by is None
    signed = write_receipt(store, "n-1", key=str(key))
    assert signed.signed
    with pytest.raises(ConfigError, match="trusts no hub"):
        read_receipt(laptop, path, accept_unsigned=False)
    signers = receipts.hub_signers(laptop)
    for trusted, is_good in ((other, False), (key, True)):
        public = read_public_key(trusted.with_suffix(".pub"))
        add_line(signers, signer_line("hub", public, RECEIPT_NAMESPACE))
        if is_good:
            carried = read_receipt(laptop, path, accept_unsigned=False)
            assert carried.signed_by == f"ED25519 key {public.fingerprint}"
        else:
            for accept in (True, False):
                with pytest.raises(SignatureError):
                    read_receipt(laptop, path, accept_unsigned=accept)
    signature = path.with_name(path.name + ".sig")
    signature.rename(tmp_path / "signature")
    for accept in (True, False):
        with pytest.raises(SignatureError, match="not signed, and this root trusts hubs"):
            read_receipt(laptop, path, accept_unsigned=accept)
    (tmp_path / "signature").rename(signature)
    path.write_bytes(path.read_bytes().replace(b"n-1", b"n-1 "[:3]) + b" ")
    with pytest.raises(SignatureError):
        read_receipt(laptop, path, accept_unsigned=False)
    other_node = make_node(tmp_path / "2", "n-2")
    with pytest.raises(ManifestError, match="is for node n-1"):
        read_receipt(other_node, write_receipt(store, "n-1").path, accept_unsigned=True)
    with pytest.raises(StorageError, match="cannot read the receipt"):
        read_receipt(laptop, tmp_path / "none", accept_unsigned=True)
    with pytest.raises(ManifestError, match="is not a receipt"):
        read_receipt(laptop, laptop.outbox / ".exported_index.json", accept_unsigned=True)


def test_a_signature_that_was_lost_is_made_again(store: Store, laptop: Node, tmp_path: Path) -> None:
    """An unsigned receipt becomes a signed one, and the reverse."""
    key = str(make_key(tmp_path / "key"))
    import_bundle(store, make_bundle(laptop, range(3)))
    path = write_receipt(store, "n-1", key=key).path
    signature = path.with_name("n-1.json.sig")
    assert signature.exists()
    signature.unlink()
    assert write_receipt(store, "n-1", key=key).signed
    assert signature.exists()
    assert write_receipt(store, "n-1").signed  # an equal receipt stays
    import_bundle(store, make_bundle(laptop, range(3, 4), second=10))
    unsigned = write_receipt(store, "n-1")
    assert (unsigned.signed, signature.exists()) == (False, False)
    assert "it was signed before" in unsigned.warnings[0]
    with pytest.raises(ConfigError):
        write_receipt(store, "n-1", key=str(tmp_path / "none"))
    assert path.exists()


def test_the_commands(store: Store, laptop: Node, tmp_path: Path) -> None:
    """The commands: dry run, no terminal, --yes, JSON, and the receipt that import writes by itself."""
    bundle = make_bundle(laptop, range(3))
    hub = ("--root", store.root)
    done = telemetry("import", bundle, *hub)
    receipt = store.receipts / "n-1.json"
    assert f"receipt: {receipt}" in done.stdout
    assert receipt.exists()
    here = ("--root", laptop.root, "--receipt", receipt)
    assert telemetry("prune", "--root", laptop.root).returncode == 2
    assert telemetry("prune", *here, "--yes").returncode == 2
    before = tree(laptop.root)
    done = telemetry("prune", *here, "--accept-unsigned", "--dry-run", "--json")
    assert json.loads(done.stdout)["deleted"] is False
    assert tree(laptop.root) == before
    done = telemetry("prune", *here, "--accept-unsigned")
    assert (done.returncode, "nothing was deleted" in done.stderr) == (2, True)
    assert bundle.exists()
    done = telemetry("status", "--root", laptop.root, "--json")
    assert json.loads(done.stdout)["nodes"][0]["acknowledged"]["chunks"] == 1
    done = telemetry("prune", *here, "--accept-unsigned", "--yes")
    assert (done.returncode, "deleted 1 chunk, 1 bundle" in done.stdout) == (0, True), done.stderr
    assert not bundle.exists()
    done = telemetry("receipt", *hub, "--json")
    assert json.loads(done.stdout)[0]["chunks"] == 1
    done = telemetry("receipt", "none", *hub)
    assert (done.returncode, "the store has no node 'none'" in done.stderr) == (2, True)
    key = make_key(tmp_path / "key")
    assert telemetry("import", bundle.parent, *hub, "--sign", tmp_path / "none", "--json").returncode == 2
    done = telemetry("receipt", "n-1", *hub, "--signing-key", key)
    assert (done.returncode, done.stdout.rstrip().endswith("signed")) == (0, True)
    assert (store.receipts / "n-1.json.sig").exists()


def test_bytes_that_changed_in_the_store_are_not_acknowledged(store: Store, laptop: Node) -> None:
    """Changed bytes are found whatever their number and the file's times; importing the bundle again repairs them."""
    bundle = make_bundle(laptop, range(3))
    folder = import_bundle(store, bundle).folder
    assert folder is not None
    chunk = next(folder.glob("*.jsonl"))
    data, state = chunk.read_bytes(), chunk.stat()
    chunk.write_bytes(data[:50] + b"\0" * 40 + data[90:])
    assert write_receipt(store, "n-1", anew=False).receipt.chunks == ()
    os.utime(chunk, ns=(state.st_mtime_ns, state.st_mtime_ns))
    assert write_receipt(store, "n-1").receipt.chunks == ()  # the command reads every byte
    assert not carry_out(laptop, receipt_of(store))
    again = import_bundle(store, bundle)
    assert (again.outcome, "put back" in again.warnings[-1]) == ("already imported", True)
    assert chunk.read_bytes() == data
    assert len(write_receipt(store, "n-1").receipt.chunks) == 1
    chunk.write_bytes(b"\0" * len(data))
    (laptop.outbox / ".exported_index.json").unlink()
    shutil.rmtree(laptop.outbox / ".manifests")
    shutil.rmtree(laptop.exports)
    other = make_bundle(laptop, range(3, 4), second=50)  # has the first chunk again
    assert import_bundle(store, other).outcome == "imported"
    assert numbers(store) == [0, 1, 2, 3]


def test_first_generation_chunks_that_changed_in_the_store(store: Store, tmp_path: Path) -> None:
    """Changed chunks are found without a length in the manifest; a grown chunk's earlier states are acknowledged."""
    states = [foreign(tmp_path / str(count), count) for count in (1, 2)]
    for state in states:
        import_bundle(store, state)
    assert len(write_receipt(store, "old-1").receipt.chunks) == 2
    (file,) = store.folder.glob("old-1/*/*.jsonl")
    for spoiled in (b"", b"x", file.read_bytes()[:100]):
        file.write_bytes(spoiled)
        assert write_receipt(store, "old-1").receipt.chunks == ()
        assert write_receipt(store, "old-1", anew=False).receipt.chunks == ()
    import_bundle(store, states[0])
    assert len(write_receipt(store, "old-1").receipt.chunks) == 1
    import_bundle(store, states[1])
    assert len(write_receipt(store, "old-1").receipt.chunks) == 2


def test_what_is_not_the_bundles_is_left(store: Store, laptop: Node) -> None:
    """A foreign folder in a bundle, or a file added to its archive, is not deleted."""
    bundle = make_bundle(laptop, range(3), options=ExportOptions(archive="zip"))
    import_bundle(store, bundle)
    (bundle / "._mine").mkdir()
    (bundle / "._mine" / "thesis.txt").write_text("mine")
    with zipfile.ZipFile(bundle.with_name(f"{bundle.name}.zip"), "a") as archive:
        archive.writestr(f"{bundle.name}/notes.txt", "mine")
    found = carry_out(laptop, receipt_of(store))
    assert (len(found.chunks), found.bundles, found.archives, len(found.kept)) == (1, {}, {}, 2)
    assert (bundle / "._mine" / "thesis.txt").exists()


def test_manifests_that_were_lost_are_copied_before_the_bundle_goes(store: Store, laptop: Node) -> None:
    """Lost copies of manifests are restored before the bundle is deleted, so that exports stay known."""
    bundle = make_bundle(laptop, range(3))
    import_bundle(store, bundle)
    shutil.rmtree(laptop.outbox / ".manifests")
    carry_out(laptop, receipt_of(store))
    assert not bundle.exists()
    assert [path.stem for path in (laptop.outbox / ".manifests").iterdir()] == [bundle.name]


def test_another_key_signs_anew(store: Store, laptop: Node, tmp_path: Path) -> None:
    """An equal receipt is signed again if another key is given or its signature is broken."""
    old, new = make_key(tmp_path / "old"), make_key(tmp_path / "new")
    import_bundle(store, make_bundle(laptop, range(3)))
    public = read_public_key(new.with_suffix(".pub"))
    add_line(receipts.hub_signers(laptop), signer_line("hub", public, RECEIPT_NAMESPACE))
    path = write_receipt(store, "n-1", key=str(old)).path
    with pytest.raises(SignatureError):
        read_receipt(laptop, path, accept_unsigned=False)
    for _ in range(2):
        write_receipt(store, "n-1", key=str(new))
        assert read_receipt(laptop, path, accept_unsigned=False).signed_by is not None
        path.with_name("n-1.json.sig").write_text("junk")


def test_more_chunks_than_a_bundle_takes(laptop: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """More chunks than fit go into several bundles, with and without --since-receipt."""
    monkeypatch.setattr("calyx_logging.outbox.export.MAX_CHUNKS", 2)
    logging.config.dictConfig(config(laptop, max_bytes=300))
    for n in range(5):
        logging.getLogger("harness").info("event", extra={"n": n})
    close_logging()
    first = export_all(laptop, clock=lambda: float(START))
    assert [len(one.manifest.chunks) for one in first if one.manifest] == [2, 2, 1]
    again = export_all(laptop, ExportOptions(since_receipt=True), clock=lambda: START + 10.0)
    assert [len(one.manifest.chunks) for one in again if one.manifest] == [2, 2, 1]
    assert export_all(laptop)[0].bundle is None


def test_what_systems_leave_goes_with_the_bundle_and_copies_stay(store: Store, laptop: Node) -> None:
    """Metadata is deleted with its bundle; a copy that a sync program made may hold something else, and is named."""
    bundles = [make_bundle(laptop, range(part, part + 1), second=10 * part) for part in range(3)]
    for bundle in bundles:
        import_bundle(store, bundle)
    for name in ("Thumbs.db", "._manifest.json", ".directory", ".dropbox.attrs"):
        (bundles[0] / name).write_bytes(b"x")
    (bundles[0] / "@eaDir" / "manifest.json").mkdir(parents=True)
    (bundles[1] / "manifest (1).json").write_bytes(b"x")
    (bundles[2] / ".stversions").mkdir()
    (laptop.exports / "@eaDir").mkdir()
    found = carry_out(laptop, receipt_of(store))
    assert list(found.bundles) == [bundles[0].name]
    assert [path.exists() for path in bundles] == [False, True, True]
    assert len(found.kept) == 2
    assert f"{bundles[1]} stays: manifest (1).json in it does not belong to the bundle" in found.kept
