"""Import: complete bundles are in the store once, regardless of order, repetition, damage and kills."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundles import foreign, make_bundle, make_key, make_node, numbers, reseal, stored
from calyx_logging import Node
from calyx_logging.bundle import staging
from calyx_logging.bundle.folder import write_manifest
from calyx_logging.bundle.staging import bundles_in
from calyx_logging.core import files
from calyx_logging.errors import StorageError
from calyx_logging.hub import importer as importer_module
from calyx_logging.hub.importer import ImportResult, Policy, import_bundle, settle
from calyx_logging.hub.store import Store
from calyx_logging.outbox.export import ExportOptions
from conftest import lines_of, telemetry, tree
from faults.disk import Failing, through


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A hub's, empty."""
    (tmp_path / "hub").mkdir()
    return Store(tmp_path / "hub")


def kinds(result: ImportResult) -> set[str]:
    return {fault.kind for fault in result.faults}


def test_a_bundle_is_imported_once(store: Store, tmp_path: Path) -> None:
    """Verbatim; again it is already there, under any name, and nothing changes."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(5))
    result = import_bundle(store, bundle)
    assert (result.outcome, result.faults) == ("imported", [])
    assert result.folder == store.folder / "n-1" / bundle.name
    assert tree(result.folder) == tree(bundle)
    before = tree(store.folder)
    renamed = tmp_path / "from a stick"
    shutil.copytree(bundle, renamed)
    for source in (bundle, renamed):
        again = import_bundle(store, source)
        assert (again.outcome, again.folder) == ("already imported", result.folder)
    assert tree(store.folder) == before
    assert numbers(store) == [0, 1, 2, 3, 4]
    store.catalog.write_index()
    index = json.loads((store.folder / ".import_index.json").read_text())
    (one,) = index["imports"]
    assert (one["source_node_id"], one["export_folder"]) == ("n-1", bundle.name)
    assert one["path"] == f"telemetry/federated/n-1/{bundle.name}"
    assert one["manifest_sha256"] == hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()


def test_a_chunk_that_comes_in_two_bundles_is_there_once(store: Store, tmp_path: Path) -> None:
    """The index was lost, and everything was exported again with more."""
    node = make_node(tmp_path, "n-1")
    first = make_bundle(node, range(3))
    (node.outbox / ".exported_index.json").unlink()
    shutil.rmtree(node.outbox / ".manifests")
    kept = first.rename(tmp_path / "first")
    second = make_bundle(node, range(3, 6), second=100)
    assert len(list(second.glob("*.jsonl"))) == 2
    assert import_bundle(store, second).outcome == "imported"
    assert import_bundle(store, kept).outcome == "imported"
    assert numbers(store) == list(range(6))


def test_same_name_and_other_content_is_refused_and_kept(store: Store, tmp_path: Path) -> None:
    """A chunk never changes; what contradicts the store goes to quarantine, and the store stays."""
    node = make_node(tmp_path, "n-1")
    bundle = make_bundle(node, range(3))
    assert import_bundle(store, bundle).outcome == "imported"
    forged = tmp_path / "forged"
    shutil.copytree(bundle, forged)
    (chunk,) = forged.glob("*.jsonl")
    chunk.write_bytes(chunk.read_bytes().replace(b'"n":1', b'"n":7'))
    write_manifest(forged, node_id="n-1", fallback_id=str, force=True)
    before = tree(store.folder / "n-1")
    result = import_bundle(store, forged)
    assert (result.outcome, kinds(result)) == ("refused", {"contradicts"})
    assert result.folder is not None
    assert result.folder.is_relative_to(store.quarantine)
    assert (result.folder / chunk.name).read_bytes() == chunk.read_bytes()
    assert tree(store.folder / "n-1") == before
    assert import_bundle(store, forged, dry_run=True).outcome == "refused"


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
def test_the_first_generation(store: Store, tmp_path: Path, order: tuple[int, ...]) -> None:
    """A grown chunk is imported, in any order of its states; its events are there once."""
    for count in order:
        result = import_bundle(store, foreign(tmp_path / str(count), count))
        assert result.outcome == "imported", result.faults
    found = list(store.folder.glob("old-1/*/*.jsonl"))
    assert len(found) == 1
    assert len(found[0].read_bytes().splitlines()) == 3
    assert len(list(store.folder.glob("old-1/*"))) == 3
    assert import_bundle(store, tmp_path / "1").outcome == "already imported"


def test_an_index_of_the_first_generation_or_none(store: Store, tmp_path: Path) -> None:
    """It is mended from the store; what is in the store is known all the same."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(2))
    assert import_bundle(store, bundle).outcome == "imported"
    index = store.folder / ".import_index.json"
    old = {"imports": [{"source_node_id": "n-1", "export_folder": bundle.name, "path": "C:\\x", "imported_at": "y"}]}
    for data in (None, b"", b"{", b"[]", b'{"imports": 3}', b"\xef\xbb\xbf" + json.dumps(old).encode()):
        index.unlink(missing_ok=True)
        if data is not None:
            index.write_bytes(data)
        for hub in (store, Store(store.root)):
            assert import_bundle(hub, bundle).outcome == "already imported"
            hub.catalog.close()
            hub.catalog.path.unlink()
    other = make_bundle(make_node(tmp_path, "n-2"), range(2, 4))
    assert import_bundle(store, other).outcome == "imported"
    for _ in range(2):
        assert settle(store) == []
        store.catalog.write_index()
        assert len(json.loads(index.read_text())["imports"]) == 2
        index.write_bytes(b"garbage")


def damage_missing(bundle: Path) -> None:
    next(bundle.glob("*.jsonl")).unlink()


def damage_bit(bundle: Path) -> None:
    chunk = next(bundle.glob("*.jsonl"))
    data = bytearray(chunk.read_bytes())
    data[10] ^= 1
    chunk.write_bytes(data)


def damage_extra(bundle: Path) -> None:
    (bundle / "more.jsonl").write_text("{}\n")


def damage_link(bundle: Path) -> None:
    chunk = next(bundle.glob("*.jsonl"))
    chunk.rename(bundle.parent / "elsewhere")
    chunk.symlink_to(bundle.parent / "elsewhere")


def damage_pipe(bundle: Path) -> None:
    chunk = next(bundle.glob("*.jsonl"))
    chunk.unlink()
    os.mkfifo(chunk)


def damage_folder(bundle: Path) -> None:
    chunk = next(bundle.glob("*.jsonl"))
    chunk.unlink()
    chunk.mkdir()


def damage_manifest(bundle: Path) -> None:
    (bundle / "manifest.json").write_bytes(b"{")


def damage_no_manifest(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()


def damage_manifest_link(bundle: Path) -> None:
    (bundle / "manifest.json").rename(bundle.parent / "m")
    (bundle / "manifest.json").symlink_to(bundle.parent / "m")


def damage_hidden(bundle: Path) -> None:
    (bundle / ".hidden").write_text("x")


def damage_name(bundle: Path) -> None:
    path = bundle / "manifest.json"
    path.write_text(path.read_text().replace('"filename": "', '"filename": "../../'))


def damage_node(bundle: Path) -> None:
    path = bundle / "manifest.json"
    path.write_text(path.read_text().replace('"node_id": "n-1"', '"node_id": "../up"'))


def damage_sums(bundle: Path) -> None:
    (bundle / "SHA256SUMS").unlink()


DAMAGE = {
    damage_missing: "missing",
    damage_bit: "changed",
    damage_extra: "extra",
    damage_link: "unreadable",
    damage_pipe: "unreadable",
    damage_folder: "unreadable",
    damage_manifest: "malformed",
    damage_no_manifest: "missing",
    damage_manifest_link: "unreadable",
    damage_hidden: "unsafe",
    damage_name: "unsafe",
    damage_node: "malformed",
    damage_sums: "missing",
}
NEEDS_POSIX = (damage_link, damage_pipe, damage_manifest_link)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda one: one.__name__)
def test_damaged_bundles_are_refused_whole(store: Store, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """The fault is named, the store is as it was; re-sent whole it is imported."""
    if damage in NEEDS_POSIX and sys.platform == "win32":
        pytest.skip("links and pipes")
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(3))
    sent = tmp_path / "sent" / "b"
    shutil.copytree(bundle, sent)
    damage(sent)
    outside = {name: data for name, data in tree(tmp_path).items() if not name.startswith("hub")}
    result = import_bundle(store, sent)
    assert result.outcome == "refused"
    assert DAMAGE[damage] in kinds(result), result.faults
    assert list(store.folder.glob("[!.]*")) == []
    assert {name: data for name, data in tree(tmp_path).items() if not name.startswith("hub")} == outside
    assert list((store.folder / ".staging").iterdir()) == []
    assert import_bundle(store, bundle).outcome == "imported"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"no json", "no JSON"),
        (b"[1]", "not an object"),
        (b'{"node_id":"n-1"}', "ts_utc is None"),
        (b'{"node_id":"n-1","ts_utc":"t","event_id":"","source":"s"}', "event_id is ''"),
        (b'{"node_id":"n-2","ts_utc":"t","event_id":"e","source":"s"}', "node_id is 'n-2'"),
        (b'{"node_id":"n-1","ts_utc":3,"event_id":"e","source":"s"}', "ts_utc is 3"),
        (b'{"node_id":"n-1","ts_utc":"t","event_id":"e","source":"s"', "no JSON"),
    ],
)
def test_lines_are_looked_at_not_only_hashes(store: Store, tmp_path: Path, line: bytes, why: str) -> None:
    """A manifest that is right about wrong lines: refused, with file, line and reason."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(3))
    chunk = next(bundle.glob("*.jsonl"))
    chunk.write_bytes(chunk.read_bytes() + line + b"\n" + b"\n")
    write_manifest(bundle, node_id="n-1", fallback_id=str, force=True)
    result = import_bundle(store, bundle)
    (fault,) = result.faults
    assert (result.outcome, fault.kind, fault.path) == ("refused", "bad line", f"{chunk.name}:5")
    assert why in fault.found


def test_very_many_bad_lines_are_counted(store: Store, tmp_path: Path) -> None:
    """Not all of them are named."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(3))
    chunk = next(bundle.glob("*.jsonl"))
    chunk.write_bytes(chunk.read_bytes() + b"bad\n" * 1000)
    write_manifest(bundle, node_id="n-1", fallback_id=str, force=True)
    faults = import_bundle(store, bundle).faults
    assert len(faults) == 101
    assert faults[-1].found == "900 more lines that are none"


def test_another_spelling_of_a_node(store: Store, tmp_path: Path) -> None:
    """Two spellings that casefold alike are one node; the second is refused."""
    assert import_bundle(store, make_bundle(make_node(tmp_path, "Node"), range(1))).outcome == "imported"
    result = import_bundle(store, make_bundle(make_node(tmp_path / "2", "node"), range(1)))
    assert (result.outcome, kinds(result)) == ("refused", {"contradicts"})
    assert [path.name for path in store.folder.glob("[!.]*")] == ["Node"]


def test_a_name_that_is_taken(store: Store, tmp_path: Path) -> None:
    """Another bundle of the same second gets the next one; an odd timestamp the time of the import."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(1))
    twin = make_bundle(make_node(tmp_path / "clone", "n-1"), range(1, 2))
    odd = make_bundle(make_node(tmp_path / "odd", "n-1"), range(2, 3))
    manifest = odd / "manifest.json"
    manifest.write_text(manifest.read_text().replace(bundle.name, "../../etc"))
    sums = odd / "SHA256SUMS"
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    lines = [line for line in sums.read_text().splitlines() if "manifest" not in line]
    sums.write_text("\n".join([*lines, f"{digest}  manifest.json"]) + "\n")
    folders = [import_bundle(store, one, clock=lambda: 0.0).folder for one in (bundle, twin, odd)]
    assert [folder.name for folder in folders if folder is not None] == [
        bundle.name,
        f"{bundle.name[:-1]}{int(bundle.name[-1]) + 1}",
        "19700101_000000",
    ]
    assert numbers(store) == [0, 1, 2]


@pytest.mark.slow
def test_an_error_at_any_call_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    """One clear error, nothing half-written; the next import ends as an undisturbed one."""
    first = foreign(tmp_path / "first", 2)
    bundle = foreign(tmp_path / "second", 3)
    number, hit = 0, True
    while hit:
        number += 1
        store = Store(tmp_path / f"hub-{number}")
        store.root.mkdir()
        import_bundle(store, first)
        proxy = Failing(number, errno.ENOSPC)
        with through(proxy):
            try:
                import_bundle(store, bundle)
            except StorageError as error:
                assert "free some space" in str(error) or "No space" in str(error)
        hit = bool(proxy.failed)
        assert import_bundle(store, bundle).outcome in ("imported", "already imported")
        import_bundle(store, first)
        (file,) = store.folder.glob("old-1/*/*.jsonl")
        assert len(file.read_bytes().splitlines()) == 3
        assert list((store.folder / ".staging").iterdir()) == []
    assert number > 10


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_every_step(tmp_path: Path) -> None:
    """The process ends without a word at its n-th system call; every event is in the store once after the next try."""
    sources = [foreign(tmp_path / str(count), count) for count in (2, 3)]
    sources.append(make_bundle(make_node(tmp_path, "n-1"), range(3)))

    class Dying(Failing):
        def _fails(self, name: str) -> bool:
            if super()._fails(name):
                os._exit(77)
            return False

    number, status = 0, 77
    while status == 77:
        number += 1
        store = Store(tmp_path / f"hub-{number}")
        store.root.mkdir()
        pid = os.fork()
        if pid == 0:
            with through(Dying(number, errno.EIO)):
                for source in sources:
                    import_bundle(store, source)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for source in sources:
            assert import_bundle(store, source).outcome in ("imported", "already imported")
        (file,) = store.folder.glob("old-1/*/*.jsonl")
        assert len(file.read_bytes().splitlines()) == 3
        lines = [line for folder in store.folder.glob("n-1/*") for line in lines_of(folder)]
        assert sorted(line["n"] for line in lines if "n" in line) == [0, 1, 2]
        assert list((store.folder / ".staging").iterdir()) == []
        store.catalog.write_index()
        assert len(json.loads((store.folder / ".import_index.json").read_text())["imports"]) == 3
    assert number > 40


def _import_all(root: str, sources: list[str], seed: int) -> None:
    random.Random(seed).shuffle(sources)
    for source in sources:
        import_bundle(Store(Path(root)), Path(source))


@pytest.mark.slow
def test_several_importers_at_once(store: Store, tmp_path: Path) -> None:
    """Many bundles of many nodes, each delivered to each importer in another order, some damaged at first."""
    sources, expected = [], Counter[tuple[str, int]]()
    for k in range(4):
        node = make_node(tmp_path, f"node-{k}")
        for part in range(3):
            span = range(part * 4, part * 4 + 4)
            sources.append(make_bundle(node, span, second=part * 10))
            expected.update((node.id, n) for n in span)
    damaged = []
    for number, source in enumerate(sources):
        if number % 5 == 0:
            copy = tmp_path / "damaged" / str(number)
            shutil.copytree(source, copy)
            damage_bit(copy)
            damaged.append(copy)
    context = multiprocessing.get_context("spawn")
    every = [str(path) for path in [*sources, *damaged]]
    importers = [context.Process(target=_import_all, args=(str(store.root), list(every), seed)) for seed in range(4)]
    for importer in importers:
        importer.start()
    for importer in importers:
        importer.join(120)
        assert importer.exitcode == 0
    found = Counter((line["node_id"], line["n"]) for line in stored(store) if "n" in line)
    assert found == expected
    assert len(store.load()) == len(sources)
    assert list((store.folder / ".staging").iterdir()) == []


def test_the_command(tmp_path: Path) -> None:
    """A folder of many; a dry run; JSON; exit codes."""
    hub = tmp_path / "hub"
    hub.mkdir()
    node = make_node(tmp_path, "n-1")
    for part in range(3):
        make_bundle(node, range(part * 2, part * 2 + 2), second=part * 10)
    shutil.copytree(node.exports, tmp_path / "stick" / "n-1")
    before = tree(hub)
    done = telemetry("import", tmp_path / "stick", "--root", hub, "--dry-run")
    assert (done.returncode, done.stdout.count("would be imported: ")) == (0, 3), done.stderr
    assert {name for name in tree(hub) if "n-1" in name} == {name for name in before if "n-1" in name} == set()
    done = telemetry("import", tmp_path / "stick", "--root", hub, "--json")
    assert [one["outcome"] for one in json.loads(done.stdout)] == ["imported"] * 3
    damage_bit(next((tmp_path / "stick" / "n-1").iterdir()))
    (hub / "telemetry/federated/n-1").rename(tmp_path / "aside")
    done = telemetry("import", tmp_path / "stick", "--root", hub)
    assert (done.returncode, "3 bundles: 1 refused, 2 imported" in done.stdout) == (1, True)
    assert "changed: " in done.stdout
    done = telemetry("import", tmp_path / "none", "--root", hub)
    assert (done.returncode, "there is no such folder" in done.stderr) == (4, True)
    (tmp_path / "empty").mkdir()
    done = telemetry("import", tmp_path / "empty", "--root", hub)
    assert (done.returncode, "there is no bundle in this folder" in done.stderr) == (1, True)
    done = telemetry("import", tmp_path / "stick", "--root", tmp_path / "nowhere")
    assert (done.returncode, "there is no such folder" in done.stderr) == (2, True)


def put_by_hand(store: Store, name: str, chunks: list[dict[str, str]]) -> Path:
    """A bundle's folder in the store that no import made."""
    folder = store.folder / "n-1" / name
    folder.mkdir(parents=True)
    manifest = {"node_id": "n-1", "exported_at": "x", "timestamp": name, "chunks": chunks}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_what_lies_in_the_store_leads_nowhere_else(store: Store, tmp_path: Path) -> None:
    """Stored manifests with paths, or with one chunk twice: nothing is deleted, here or elsewhere."""
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    for number, name in enumerate([str(victim), "../../../../../victim.txt"]):
        put_by_hand(store, f"20260101_00000{number}", [{"filename": name, "sha256": "0" * 64}] * 2)
    folder = put_by_hand(store, "20260101_000009", [{"filename": "run.jsonl", "sha256": "0" * 64}] * 2)
    (folder / "run.jsonl").write_text("{}\n")
    assert import_bundle(store, make_bundle(make_node(tmp_path, "n-1"), range(2))).outcome == "imported"
    assert victim.read_text() == "mine"
    assert (folder / "run.jsonl").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links")
def test_links_in_the_store(store: Store, tmp_path: Path) -> None:
    """Files behind a link do not belong to the store."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(foreign(tmp_path / "1", 1), elsewhere / "20260101_000000")
    before = tree(elsewhere)
    (store.folder / "old-1").mkdir(parents=True)
    (store.folder / "old-1" / "20260101_000000").symlink_to(elsewhere / "20260101_000000")
    assert import_bundle(store, foreign(tmp_path / "2", 2)).outcome == "imported"
    assert tree(elsewhere) == before
    shutil.rmtree(store.folder / ".staging")
    (store.folder / ".staging").symlink_to(elsewhere)
    with pytest.raises(StorageError, match="is a symbolic link"):
        import_bundle(store, tmp_path / "1")
    assert tree(elsewhere) == before


def test_an_index_that_is_wrong(store: Store, tmp_path: Path) -> None:
    """The index is checked against the bundles; a folder in its place does no other harm."""
    first = make_bundle(make_node(tmp_path, "n-1"), range(2))
    second = make_bundle(make_node(tmp_path / "2", "n-1"), range(2, 4), second=50)
    import_bundle(store, first)
    store.catalog.write_index()
    index = store.folder / ".import_index.json"
    digest = hashlib.sha256((second / "manifest.json").read_bytes()).hexdigest()
    document = json.loads(index.read_text())
    document["imports"][0]["manifest_sha256"] = digest
    index.write_text(json.dumps(document))
    store.catalog.close()
    store.catalog.path.unlink()
    assert import_bundle(store, second).outcome == "imported"
    assert numbers(store) == [0, 1, 2, 3]
    index.unlink()
    index.mkdir()
    third = make_bundle(make_node(tmp_path / "3", "n-1"), range(4, 5), second=90)
    done = telemetry("import", third, "--root", store.root)
    assert (done.returncode, "index cannot be written" in done.stderr) == (0, True), done.stderr


def test_chunks_that_somebody_deleted_in_the_store(store: Store, tmp_path: Path) -> None:
    """Importing the bundle again restores them; other damage is reported."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(3))
    folder = import_bundle(store, bundle).folder
    assert folder is not None
    (chunk,) = folder.glob("*.jsonl")
    for spoil in (chunk.unlink, lambda: chunk.write_bytes(b"")):
        spoil()
        result = import_bundle(store, bundle)
        assert (result.outcome, "put back" in result.warnings[-1]) == ("already imported", True)
        assert numbers(store) == [0, 1, 2]
    (folder / "manifest.json").write_text("{")
    other = make_bundle(make_node(tmp_path / "2", "n-1"), range(3, 5), second=50)
    result = import_bundle(store, other)
    assert result.outcome == "imported"
    assert any("damaged" in warning for warning in result.warnings)


def test_a_damaged_chunk_that_comes_in_another_bundle(store: Store, tmp_path: Path) -> None:
    """The stored chunk differs from its manifest, so the intact one replaces it."""
    node = make_node(tmp_path, "n-1")
    first = make_bundle(node, range(3))
    (node.outbox / ".exported_index.json").unlink()
    shutil.rmtree(node.outbox / ".manifests")
    kept = first.rename(tmp_path / "first")
    second = make_bundle(node, range(3, 6), second=100)
    folder = import_bundle(store, kept).folder
    assert folder is not None
    next(folder.glob("*.jsonl")).write_bytes(b"")
    assert import_bundle(store, second).outcome == "imported"
    assert numbers(store) == list(range(6))


def test_odd_times_lines_and_files(store: Store, tmp_path: Path) -> None:
    """The end of the calendar, a line nested a thousand deep, a large file nobody named, quarantine once."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(3))
    for timestamp in ("99991231_235959", "00010101_000000"):
        odd = tmp_path / timestamp
        shutil.copytree(bundle, odd)
        manifest = json.loads((odd / "manifest.json").read_text()) | {"timestamp": timestamp}
        (odd / "manifest.json").write_text(json.dumps(manifest))
        (odd / "SHA256SUMS").unlink()
        manifest.pop("manifest_version")
        (odd / "manifest.json").write_text(json.dumps(manifest))
        result = import_bundle(store, odd, clock=lambda: 0.0)
        assert result.folder is not None
        assert result.folder.name.startswith("19700101_00000")
    deep = tmp_path / "deep"
    shutil.copytree(bundle, deep)
    chunk = next(deep.glob("*.jsonl"))
    chunk.write_bytes(chunk.read_bytes() + b'{"node_id":' + b"[" * 1000 + b"]" * 1000 + b"}\n")
    write_manifest(deep, node_id="n-1", fallback_id=str, force=True)
    assert kinds(import_bundle(store, deep)) == {"bad line"}
    with (bundle / "movie.mp4").open("wb") as stream:
        stream.truncate(1 << 40)  # a tebibyte that takes no room: copying it would never end
    assert kinds(import_bundle(store, bundle)) == {"extra"}
    (bundle / "movie.mp4").unlink()
    chunk = next(bundle.glob("*.jsonl"))
    chunk.write_bytes(chunk.read_bytes().replace(b'"n":1', b'"n":8'))
    write_manifest(bundle, node_id="n-1", fallback_id=str, force=True)
    assert len({import_bundle(store, bundle).folder for _ in range(3)}) == 1
    assert len(list((store.quarantine / "n-1").iterdir())) == 1


def test_one_bad_path_stops_no_other(tmp_path: Path) -> None:
    """The JSON is one document in every case; a hub's own store is not searched."""
    hub = tmp_path / "hub"
    hub.mkdir()
    good = make_bundle(make_node(tmp_path, "n-1"), range(2))
    (tmp_path / "file").write_text("")
    done = telemetry("import", tmp_path / "none", tmp_path / "file", good, "--root", hub, "--json")
    assert done.returncode == 4
    assert [one["outcome"] for one in json.loads(done.stdout)] == ["failed", "failed", "imported"]
    assert "it is no folder" in json.loads(done.stdout)[1]["warnings"][0]
    shutil.copytree(good, hub / "sticks" / "1")
    done = telemetry("import", ".", "--root", hub, "--json", cwd=hub)
    assert [one["outcome"] for one in json.loads(done.stdout)] == ["already imported"]


def test_bundles_in_a_folder(tmp_path: Path) -> None:
    """Itself, or those below; staging and other hidden folders are left out."""
    for name in ("a/b/1", "a/2", "a/.staging/3"):
        foreign(tmp_path / name, 1)
    here = files.reachable(tmp_path)
    for name in ("x.tar", "y.zip.part", "notes.txt"):
        (tmp_path / "a" / name).touch()
    found = bundles_in(tmp_path)
    assert [path.relative_to(here).as_posix() for path in found.bundles] == ["a/2", "a/b/1"]
    assert [path.name for path in found.passed_over] == ["x.tar", "y.zip.part"]
    assert bundles_in(tmp_path / "a/2").bundles == [files.reachable(tmp_path / "a/2")]


def test_a_bundle_that_lost_its_manifest_is_not_passed_over(store: Store, tmp_path: Path) -> None:
    """It lies beside complete ones, with different parts of it left."""
    node = make_node(tmp_path, "n-1")
    stick = tmp_path / "stick"
    for part in range(3):
        shutil.copytree(make_bundle(node, range(part, part + 1), second=part * 10), stick / str(20260101_000000 + part))
    (stick / "20260101000000" / "manifest.json").unlink()
    shutil.copytree(stick / "20260101000000", stick / "20260101_000009")
    (stick / "20260101_000009" / "SHA256SUMS").unlink()
    done = telemetry("import", stick, "--root", store.root, "--json")
    assert done.returncode == 1
    outcomes = Counter(one["outcome"] for one in json.loads(done.stdout))
    assert outcomes == {"imported": 2, "refused": 2}


def test_where_the_hub_is(tmp_path: Path) -> None:
    """The root that is named; else a store here or above; a node's root does not become a hub by itself."""
    node = make_node(tmp_path, "n-1")
    bundle = make_bundle(node, range(1))
    done = telemetry("import", bundle, cwd=node.root)
    assert (done.returncode, "name the hub's root with --root" in done.stderr) == (2, True)
    assert not (node.root / "telemetry" / "federated").exists()
    (tmp_path / "hub" / "inside").mkdir(parents=True)
    assert telemetry("import", bundle, "--root", tmp_path / "hub").returncode == 0
    done = telemetry("import", bundle, cwd=tmp_path / "hub" / "inside")
    assert (done.returncode, "already imported" in done.stdout) == (0, True)
    assert telemetry("audit", cwd=tmp_path / "hub").returncode == 0
    done = telemetry("status", "--root", tmp_path / "hub")
    assert (done.returncode, "n-1: complete" in done.stdout) == (0, True)
    done = telemetry("export", "--root", tmp_path / "hub")
    assert (done.returncode, "this is the root of a hub" in done.stderr) == (2, True)


def rewritten(folder: Path, count: int) -> Path:
    """A first-generation bundle with the same chunk's name and other events."""
    bundle = foreign(folder, count)
    (chunk,) = bundle.glob("*.jsonl")
    chunk.write_bytes(chunk.read_bytes().replace(b'"n": ', b'"n": 77'))
    document = json.loads((bundle / "manifest.json").read_bytes().decode("utf-8-sig"))
    document["chunks"][0]["sha256"] = hashlib.sha256(chunk.read_bytes()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(document))
    return bundle


@pytest.mark.parametrize("spoil", ["emptied", "cut", "deleted", "whole"])
def test_a_chunk_that_was_rewritten_replaces_nothing(store: Store, tmp_path: Path, spoil: str) -> None:
    """Accepted content is never replaced by other content, even if the stored chunk was damaged or lost."""
    import_bundle(store, foreign(tmp_path / "1", 2))
    (file,) = store.folder.glob("old-1/*/*.jsonl")
    if spoil == "emptied":
        file.write_bytes(b"")
    elif spoil == "cut":
        file.write_bytes(file.read_bytes()[:40])
    elif spoil == "deleted":
        file.unlink()
    result = import_bundle(store, rewritten(tmp_path / "2", 3))
    assert (result.outcome, kinds(result)) == ("refused", {"contradicts"})
    assert import_bundle(store, tmp_path / "1").outcome == "already imported"
    (file,) = store.folder.glob("old-1/*/*.jsonl")
    assert file.read_bytes() == next((tmp_path / "1").glob("*.jsonl")).read_bytes()


@pytest.mark.parametrize("how", ["flipped", "more"])
def test_a_damaged_chunk_that_grows(store: Store, tmp_path: Path, how: str) -> None:
    """Its next state takes its place; what was damaged is kept aside, because some of it may be nowhere else."""
    import_bundle(store, foreign(tmp_path / "2", 2))
    (file,) = store.folder.glob("old-1/*/*.jsonl")
    data = file.read_bytes()
    damaged = data + b"\0" * 50 if how == "more" else data.replace(b'"n": 0', b'"n": 9')
    file.write_bytes(damaged)
    assert import_bundle(store, foreign(tmp_path / "3", 3)).outcome == "imported"
    (file,) = store.folder.glob("old-1/*/*.jsonl")
    assert file.read_bytes() == next((tmp_path / "3").glob("*.jsonl")).read_bytes()
    (kept,) = store.quarantine.glob("old-1/damaged-*/*")
    assert kept.read_bytes() == damaged
    assert import_bundle(store, tmp_path / "2").outcome == "already imported"
    assert file.read_bytes() == next((tmp_path / "3").glob("*.jsonl")).read_bytes()


def test_a_copy_of_a_chunk_is_not_put_back_beside_it(store: Store, tmp_path: Path) -> None:
    """Two names of one content: one is in the store, before and after it was deleted."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(3))
    (chunk,) = bundle.glob("*.jsonl")
    shutil.copy(chunk, bundle / "copy.jsonl")
    reseal(bundle)
    import_bundle(store, bundle)
    assert numbers(store) == [0, 1, 2]
    (file,) = store.folder.glob("n-1/*/*.jsonl")
    file.unlink()
    import_bundle(store, bundle)
    assert numbers(store) == [0, 1, 2]


def import_as_the_first_generation(bundle: Path, hub: Path) -> dict[str, Any]:
    """Imitates telemetry_import.ps1: the keys it read, its case-insensitive comparison of hashes, its index."""
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8-sig"))
    target = hub / "telemetry" / "federated" / manifest["node_id"] / manifest["timestamp"]
    target.mkdir(parents=True)
    for chunk in manifest["chunks"]:
        data = (bundle / chunk["filename"]).read_bytes()
        assert hashlib.sha256(data).hexdigest().upper() == chunk["sha256"].upper()
        (target / chunk["filename"]).write_bytes(data)
    shutil.copy(bundle / "manifest.json", target)
    index = hub / "telemetry" / "federated" / ".import_index.json"
    known = json.loads(index.read_text("utf-8-sig")) if index.exists() else {"imports": []}
    known["imports"].append(
        {
            "source_node_id": manifest["node_id"],
            "export_folder": manifest["timestamp"],
            "path": str(target),
            "imported_at": "2026-01-01T00:00:00.0000000+01:00",
        }
    )
    index.write_text(json.dumps(known), "utf-8-sig")
    assert isinstance(known, dict)
    return known


def test_both_generations_of_importers_at_one_hub(store: Store, tmp_path: Path) -> None:
    """The first one takes bundles as we make them, reads our index, and we go on with what it left."""
    node = make_node(tmp_path, "n-1")
    bundles = [make_bundle(node, range(n * 2, n * 2 + 2), second=n * 10) for n in range(3)]
    import_bundle(store, bundles[0])
    store.catalog.write_index()
    known = import_as_the_first_generation(bundles[1], store.root)
    keys = {"source_node_id", "export_folder", "path", "imported_at"}
    assert all(set(one) >= keys for one in known["imports"])
    assert import_bundle(store, bundles[2]).outcome == "imported"
    assert import_bundle(store, bundles[1]).outcome == "already imported"
    assert numbers(store) == list(range(6))
    store.catalog.write_index()
    assert len(json.loads((store.folder / ".import_index.json").read_text())["imports"]) == 3


def _next(source: Path, store: Store, *options: str) -> str:
    done = telemetry("import", source, "--root", store.root, *options)
    assert done.returncode == 1, done.stdout
    (said,) = (line for line in done.stdout.splitlines() if line.startswith("  next: "))
    (result,) = json.loads(telemetry("import", source, "--root", store.root, *options, "--json").stdout)
    assert said == f"  next: {result['next_step']}"
    return said


def test_each_refusal_says_what_to_do_next(store: Store, tmp_path: Path) -> None:
    """A refused bundle's line has the command that helps, in text and JSON; an imported one has no such line."""
    node = make_node(tmp_path, "n-1")
    good = make_bundle(node, range(3))
    damaged, short, torn, stranger = (shutil.copytree(good, tmp_path / name) for name in ("a", "b", "c", "d"))
    (chunk,) = (path.name for path in good.glob("*.jsonl"))
    (damaged / chunk).write_bytes((good / chunk).read_bytes().replace(b'"n":1', b'"n":9'))
    assert "calyx-telemetry export --since-receipt" in _next(damaged, store)
    (short / "manifest.json").unlink()
    assert "name the folder of a whole bundle" in _next(short, store)
    (tmp_path / "no.zip").write_bytes(b"no archive")
    assert "copy the bundle" in _next(tmp_path / "no.zip", store)
    (stranger / "more.jsonl").write_bytes(b"")
    assert "move the files" in _next(stranger, store)
    (torn / chunk).write_bytes((good / chunk).read_bytes() + b"no event\n")
    reseal(torn)
    assert "calyx-telemetry import PATH --accept-bad-lines" in _next(torn, store)
    assert "calyx-telemetry provision n-1 --signing-key" in _next(good, store, "--require-signature")
    done = telemetry("import", good, "--root", store.root, "--json")
    assert json.loads(done.stdout)[0]["next_step"] is None
    forged = shutil.copytree(good, tmp_path / "forged")
    (forged / chunk).write_bytes((good / chunk).read_bytes().replace(b'"n":1', b'"n":9'))
    reseal(forged)
    assert "calyx-telemetry provision NEW_ID --force" in _next(forged, store, "--dry-run")
    said = _next(forged, store)
    assert str(store.quarantine) in said
    assert f" --accept-rewritten n-1/{good.name}" in said
    spelled = make_bundle(make_node(tmp_path / "3", "N-1"), range(1))
    assert "calyx-telemetry provision n-1 --force" in _next(spelled, store)


def test_no_option_takes_in_an_unsigned_bundle_of_a_trusted_node(store: Store, tmp_path: Path) -> None:
    """It is for the node to sign it; nodes without a key are taken in as before."""
    key = make_key(tmp_path / "key")
    assert telemetry("trust", "n-1", f"{key}.pub", "--root", store.root).returncode == 0
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(3))
    assert "provision n-1 --signing-key KEY" in _next(bundle, store, "--accept-bad-lines")
    assert telemetry("import", bundle, "--accept-unsigned", "--root", store.root).returncode == 2
    other = make_bundle(make_node(tmp_path / "2", "n-2"), range(3))
    assert telemetry("import", other, "--root", store.root).returncode == 0
    signed = make_bundle(Node(tmp_path / "root of n-1", "n-1"), range(1), 9, ExportOptions(sign_with=str(key)))
    public = Path(f"{key}.pub")
    assert telemetry("trust", "n-1", public, "--revoke", "--root", store.root).returncode == 0
    assert "--signing-key NEW_KEY" in _next(signed, store)


@pytest.mark.parametrize("is_ours", [False, True])
def test_a_rewritten_chunk_that_a_person_accepts(store: Store, tmp_path: Path, is_ours: bool) -> None:
    """It counts from then on, in queries, receipts and the audit; the earlier content is kept, and contradicts it."""
    if is_ours:
        first = make_bundle(make_node(tmp_path, "n-1"), range(3))
        second = shutil.copytree(first, tmp_path / "2")
        (chunk,) = second.glob("*.jsonl")
        chunk.write_bytes(chunk.read_bytes().replace(b'"n":1', b'"n":7'))
        reseal(second, exported_at="2026-01-01T00:00:00.000000+00:00")
    else:
        first, second = foreign(tmp_path / "1", 2), rewritten(tmp_path / "2", 3)
    assert import_bundle(store, first).folder is not None
    refused = import_bundle(store, second)
    assert refused.outcome == "refused"
    assert refused.folder is not None
    assert refused.manifest is not None
    before = tree(store.folder)
    name = f"{refused.manifest.node_id}/{refused.manifest.timestamp}"
    for other in ("n-2/20260101_000000", name.replace("/", "/1")):
        done = telemetry("import", second, "--accept-rewritten", other, "--root", store.root)
        assert (done.returncode, "there is no such bundle among these" in done.stderr) == (1, True)
    args = ("import", second, "--accept-rewritten", name, "--root", store.root)
    assert "would be imported" in telemetry(*args, "--dry-run").stdout
    done = telemetry(*args)
    assert (done.returncode, str(refused.folder) in done.stderr) == (0, True), done.stdout + done.stderr
    kept = {path: data for path, data in before.items() if path.endswith(".jsonl")}
    assert kept.items() <= tree(store.folder).items()
    shutil.rmtree(refused.folder)
    node_id = refused.manifest.node_id
    (audit,) = json.loads(telemetry("audit", node_id, "--root", store.root, "--json").stdout)
    assert (audit["damaged"], audit["missing_bundles"], len(audit["rewritten"])) == ([], [], 1)
    assert "rewritten, and accepted" in telemetry("audit", node_id, "--root", store.root).stdout
    (chunk,) = second.glob("*.jsonl")
    receipt = json.loads((store.receipts / f"{node_id}.json").read_text())
    assert receipt["chunks"] == [hashlib.sha256(chunk.read_bytes()).hexdigest()]
    assert telemetry(*args).stdout.startswith("already imported")
    assert import_bundle(store, first).outcome == "already imported"
    assert (audit["events"], len(receipt["chunks"])) == (3, 1)
    if not is_ours:  # it goes on growing
        grown = rewritten(tmp_path / "3", 5)
        assert import_bundle(store, grown).outcome == "imported"
        again = shutil.copytree(first, tmp_path / "4")
        manifest = json.loads((again / "manifest.json").read_bytes().decode("utf-8-sig"))
        (again / "manifest.json").write_text(json.dumps({**manifest, "timestamp": "20270101_000000"}))
        assert kinds(import_bundle(store, again)) == {"contradicts"}


def test_a_query_after_a_rewritten_chunk_was_accepted(store: Store, tmp_path: Path) -> None:
    """The replaced lines are no rows any more."""
    pytest.importorskip("ibis")
    pytest.importorskip("duckdb")
    first, second = foreign(tmp_path / "1", 2), rewritten(tmp_path / "2", 3)
    assert telemetry("import", first, "--root", store.root).returncode == 0
    args = ("--accept-rewritten", "old-1/20260101_000000", "--root", store.root)
    assert telemetry("import", second, *args).returncode == 0
    sql = "SELECT count(*) AS n, count(DISTINCT chunk) AS chunks FROM events"
    done = telemetry("query", sql, "--from", "hub", "--root", store.root, "--json")
    assert json.loads(done.stdout) == [{"n": 3, "chunks": 1}], done.stderr
    assert telemetry("table", "--check", "--root", store.root).returncode == 0


def test_a_bundle_that_is_there_is_known_by_its_manifest(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not copied again, unless the store or the copy at hand is damaged."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(5))
    first = import_bundle(store, bundle)
    copied: list[Path] = []

    def bring(place: Path, *args: Any) -> Any:
        copied.append(place)
        return staging.bring(place, *args)

    monkeypatch.setattr(importer_module, "bring", bring)
    again = import_bundle(store, bundle)
    assert (again.outcome, again.folder, again.events) == ("already imported", first.folder, first.events)
    assert (again.manifest_sha256, again.manifest, copied) == (first.manifest_sha256, first.manifest, [])
    assert import_bundle(store, bundle, policy=Policy(require_signature=True)).outcome == "refused"
    assert first.folder is not None
    chunk = next(first.folder.glob("*.jsonl"))
    data, state = chunk.read_bytes(), chunk.stat()
    chunk.write_bytes(b"x" + data[1:])
    os.utime(chunk, ns=(state.st_mtime_ns, state.st_mtime_ns))  # as a disk does that forgets
    assert "put back" in " ".join(import_bundle(store, bundle).warnings)
    assert chunk.read_bytes() == data
    next(bundle.glob("*.jsonl")).write_bytes(data[:-1])
    assert import_bundle(store, bundle).outcome == "refused"
    assert len(copied) == 3
