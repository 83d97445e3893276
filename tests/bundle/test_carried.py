"""Bundles as carriers hand them over: with leftovers, other normal forms, other line ends, several in one file."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bundles import make_bundle, make_key, make_node, numbers, tar_of
from calyx_logging.bundle.archive import write_archive
from calyx_logging.bundle.folder import check
from calyx_logging.bundle.signing import MANIFEST_NAMESPACE, sign
from calyx_logging.bundle.staging import bundles_in
from calyx_logging.hub.importer import import_bundle, import_bundles
from calyx_logging.hub.store import Store
from calyx_logging.node import Node
from calyx_logging.outbox.export import ExportOptions
from conftest import telemetry, telemetry_program, tree

LEFT = ["._manifest.json", ".DS_Store", "Thumbs.db", ".nfs000000000000abcd00000001", ".dropbox.attrs", ".directory"]
LEFT += ["manifest.json~", ".manifest.json.swp", "~$manifest.json", "movie.crdownload", ".stignore"]
LEFT_FOLDERS = {
    "@eaDir": "manifest.json/SYNO@.fileindexdb",
    "__MACOSX": "deep/er/._x",
    ".stversions": "manifest~1.json",
}
NFC, NFD = (unicodedata.normalize(form, "größe-é.jsonl") for form in ("NFC", "NFD"))
Pack = Callable[[Path, dict[str, bytes]], Path]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A hub's, empty."""
    (tmp_path / "hub").mkdir()
    return Store(tmp_path / "hub")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node to export from."""
    return make_node(tmp_path, "n-1")


class Unflagged(zipfile.ZipInfo):
    """A member whose name is written in UTF-8 without the flag that says so, as Finder and `zip` do."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.filename.encode(), self.flag_bits & ~0x800


def zipped(folder: Path, members: dict[str, bytes]) -> Path:
    """A zip as Finder makes it."""
    path = folder / "sent.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(Unflagged(name), data)
    return path


def tarred(folder: Path, members: dict[str, bytes]) -> Path:
    """A tar.gz."""
    return tar_of(folder / "sent.tar.gz", members)


def unpacked(folder: Path, members: dict[str, bytes]) -> Path:
    """A folder with these files."""
    for name, data in members.items():
        path = folder / "sent" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / "sent"


def files_of(bundle: Path, below: str = "") -> dict[str, bytes]:
    return {f"{below}{path.name}": path.read_bytes() for path in sorted(bundle.iterdir())}


def old_bundle(chunk: str = NFC, sums_for: str | None = None) -> dict[str, bytes]:
    """A bundle with a foreign chunk, as one of this library names it."""
    data = b'{"node_id":"n-1","ts_utc":"2026-01-01T00:00:00.000000+00:00","event_id":"e","source":"s","n":1}\n'
    entry = {"filename": chunk, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    document = {"manifest_version": 1, "node_id": "n-1", "exported_at": "2026", "timestamp": "20260101_000000"}
    manifest = json.dumps({**document, "chunks": [entry]}).encode()
    sums = f"{entry['sha256']}  {sums_for or chunk}\n{hashlib.sha256(manifest).hexdigest()}  manifest.json\n"
    return {"manifest.json": manifest, "SHA256SUMS": sums.encode(), chunk: data}


ways = pytest.mark.parametrize("pack", [unpacked, zipped, tarred])


# ------------------------------------------------------------------ leftovers


@ways
def test_leftovers_are_warnings(store: Store, node: Node, tmp_path: Path, pack: Pack) -> None:
    """Each is named once, stops neither verify nor import, and never reaches the store."""
    bundle = make_bundle(node, range(3))
    members = files_of(bundle, "b/" if pack is not unpacked else "")
    below = "b/" if pack is not unpacked else ""
    (chunk,) = (path.stem for path in bundle.glob("*.jsonl"))
    copies = [f"{chunk} (1).jsonl", f"{chunk}-LAPTOP.jsonl", f"{chunk} (conflicted copy 2024-01-01 120000).jsonl"]
    copies += [f"{chunk}.sync-conflict-20240101-120000-ABCDEFG.jsonl", f"{chunk} - Copy.jsonl", "manifest (1).json"]
    names = [*LEFT, *copies, *LEFT_FOLDERS]
    members |= {f"{below}{name}": b'{"other":1}\n' for name in [*LEFT, *copies]}
    members |= {f"{below}{folder}/{name}": b"x" for folder, name in LEFT_FOLDERS.items()}
    sent = pack(tmp_path, members)
    done = telemetry("verify", sent)
    assert (done.returncode, done.stdout.count(": verified")) == (0, 1), done.stdout + done.stderr
    for name in names:
        assert len([line for line in done.stderr.splitlines() if line.startswith(f"warning: {name} is not")]) == 1, name
    done = telemetry("import", sent, "--root", store.root, "--json")
    (result,) = json.loads(done.stdout)
    assert (done.returncode, result["outcome"], result["faults"]) == (0, "imported", [])
    assert len(result["warnings"]) == len(names)
    assert tree(Path(result["folder"])) == tree(bundle)
    assert telemetry("audit", "--root", store.root).returncode == 0


@ways
def test_content_is_never_forgiven(store: Store, node: Node, tmp_path: Path, pack: Pack) -> None:
    """A good copy does not stand in for a changed chunk, nor for a missing one, and other files stay faults."""
    members = files_of(make_bundle(node, range(3)))
    (chunk,) = (name for name in members if name.endswith(".jsonl"))
    copy = chunk.replace(".jsonl", " (1).jsonl")
    for number, (change, kinds) in enumerate(
        (
            ({chunk: members[chunk] + b"\n", copy: members[chunk]}, {"changed"}),
            ({chunk: None, copy: members[chunk]}, {"missing"}),
            ({"other (1).jsonl": members[chunk]}, {"extra"}),
            ({"other.jsonl": b"{}\n"}, {"extra"}),
            ({".bashrc": b"x"}, {"unsafe"}),
            ({"manifest.json": b"{}", "manifest (1).json": members["manifest.json"]}, {"malformed", "extra"}),
        )
    ):
        (folder := tmp_path / str(number)).mkdir()
        changed = {name: data for name, data in {**members, **change}.items() if data is not None}
        result = import_bundle(store, pack(folder, changed))
        assert (result.outcome, kinds <= {fault.kind for fault in result.faults}) == ("refused", True), result.faults
    assert store.load() == []


@ways
def test_a_chunk_may_be_called_as_a_copy(store: Store, tmp_path: Path, pack: Pack) -> None:
    """A name that the manifest lists is checked, and imported, whatever it looks like."""
    for number, name in enumerate(("run (1).jsonl", "~$run.jsonl", "run-LAPTOP.jsonl", "run copy.jsonl")):
        members = old_bundle(name)
        (folder := tmp_path / str(number)).mkdir()
        result = import_bundle(store, pack(folder, members), dry_run=True)
        assert (result.outcome, result.warnings) == ("would be imported", []), result.faults
        result = import_bundle(store, pack(folder, {**members, name: members[name] + b"\n"}))
        assert {fault.kind for fault in result.faults} == {"changed"}


def test_many_leftovers_are_counted(node: Node) -> None:
    """Beyond a hundred."""
    bundle = make_bundle(node, range(1))
    for number in range(150):
        (bundle / f"._{number}").touch()
    warnings = check(bundle).warnings
    assert (len(warnings), warnings[-1][:20]) == (101, "50 more such files a")


def test_leftovers_in_a_folder_of_bundles(store: Store, node: Node, tmp_path: Path) -> None:
    """Files that a stick gathers around bundles are not searched, even if they are unreadable or hold a bundle."""
    bundle, stick = make_bundle(node, range(2)), tmp_path / "stick"
    shutil.copytree(bundle, stick / "n-1" / bundle.name)
    (stick / "__MACOSX" / "n-1" / bundle.name).mkdir(parents=True)
    for path in bundle.iterdir():
        (stick / "__MACOSX" / "n-1" / bundle.name / f"._{path.name}").write_bytes(b"x")
    shutil.copytree(make_bundle(node, range(2, 4), second=9), stick / "$RECYCLE.BIN" / "S-1-5" / "$RABC")
    (stick / "lost+found").mkdir(mode=0)
    (stick / "n-1" / "._x.zip").write_bytes(b"x")
    found = bundles_in(stick)
    assert [path.name for path in found.bundles] == [bundle.name]
    assert len(found.leftovers) == 3
    done = telemetry("import", stick, "--root", store.root)
    assert (done.returncode, done.stdout.count("imported: ")) == (0, 1), done.stderr
    assert "lost+found is not searched (left by Linux)" in done.stderr
    assert numbers(store) == [0, 1]


def test_leftovers_do_not_get_into_an_archive(store: Store, node: Node, tmp_path: Path) -> None:
    """Packing a bundle that lay on a share takes what its manifest names."""
    bundle = make_bundle(node, range(2))
    before = tree(bundle)
    (chunk,) = (path.stem for path in bundle.glob("*.jsonl"))
    for name in ("Thumbs.db", "desktop.ini", f"{chunk} (1).jsonl"):
        (bundle / name).write_bytes(b"x")
    (bundle / "@eaDir").mkdir()
    write_archive(bundle, tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert {name.partition("/")[2] for name in archive.namelist()} == set(before)


def test_readers_of_a_bundle_pass_over_copies(node: Node) -> None:
    """`tail --from BUNDLE` shows each event once."""
    bundle = make_bundle(node, range(3))
    before = telemetry("tail", "--from", bundle, "--json").stdout
    (chunk,) = bundle.glob("*.jsonl")
    for name in (f"{chunk.stem} (1).jsonl", f"._{chunk.name}"):
        shutil.copy(chunk, bundle / name)
    done = telemetry("tail", "--from", bundle, "--json")
    assert (done.returncode, done.stdout) == (0, before)
    assert before.count('"n":1,') == 1


# ------------------------------------------------------------------ normal forms


@ways
@pytest.mark.parametrize(("named", "sent_as"), [(NFC, NFD), (NFD, NFC), (NFC, NFC)], ids=["NFD", "NFC", "same"])
def test_names_in_another_normal_form(store: Store, tmp_path: Path, pack: Pack, named: str, sent_as: str) -> None:
    """A chunk is found by its letters, in the sums too, and is stored under the manifest's name."""
    members = old_bundle(named, sums_for=sent_as)
    members[sent_as] = members.pop(named)
    sent = pack(tmp_path, members)
    assert telemetry("verify", sent).returncode == 0
    result = import_bundle(store, sent)
    assert (result.outcome, result.faults) == ("imported", [])
    assert result.folder is not None
    assert {path.name for path in result.folder.iterdir()} == {"manifest.json", "SHA256SUMS", named}
    assert any("another normal form" in warning for warning in result.warnings) == (named != sent_as)
    assert telemetry("audit", "--root", store.root).returncode == 0


@ways
@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take both for one")
def test_two_files_of_one_normal_form(store: Store, tmp_path: Path, pack: Pack) -> None:
    """The exact name is the chunk, the other one is a file that the manifest does not name."""
    members = old_bundle(NFC)
    result = import_bundle(store, pack(tmp_path, {**members, NFD: b"{}\n"}))
    assert [(fault.kind, fault.path) for fault in result.faults] == [("extra", NFD)]


@pytest.mark.skipif(shutil.which("zip") is None, reason="needs zip")
def test_stock_zip_and_accents(store: Store, tmp_path: Path) -> None:
    """`zip` writes UTF-8 without a flag."""
    sent = unpacked(tmp_path, old_bundle(NFC))
    subprocess.run(["zip", "-qr", "../stock.zip", "."], cwd=sent, check=True)
    result = import_bundle(store, tmp_path / "stock.zip")
    assert (result.outcome, result.faults, result.warnings) == ("imported", [], [])


# ------------------------------------------------------------------ line ends

ENDS: dict[str, Callable[[bytes], bytes]] = {
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "CR": lambda data: data.replace(b"\n", b"\r"),
    "CRCRLF": lambda data: data.replace(b"\n", b"\r\r\n"),
    "no last": lambda data: data.rstrip(b"\n"),
    "more": lambda data: data + b"\n\n",
    "BOM": lambda data: b"\xef\xbb\xbf" + data,
    "BOM and CRLF": lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("end", ENDS)
def test_signatures_with_other_line_ends(store: Store, node: Node, tmp_path: Path, end: str) -> None:
    """The same signature counts in any form; another byte in it, or in the manifest, is refused as ever."""
    key = make_key(tmp_path / "key")
    telemetry("trust", "n-1", key.with_suffix(".pub"), "--root", store.root)
    bundle = make_bundle(node, range(2), options=ExportOptions(sign_with=str(key)))
    path, manifest = bundle / "manifest.json.sig", bundle / "manifest.json"
    data, text = path.read_bytes(), manifest.read_bytes()
    path.write_bytes(ENDS[end](data.replace(b"U1NI", b"U1NJ", 1)))
    assert [fault.kind for fault in import_bundle(store, bundle).faults] == ["signature"]
    path.write_bytes(ENDS[end](data))
    manifest.write_bytes(text.replace(b"\n", b"\r\n"))
    assert "changed" in {fault.kind for fault in import_bundle(store, bundle).faults}
    manifest.write_bytes(text)
    result = import_bundle(store, bundle)
    assert (result.outcome, result.signed_by is not None) == ("imported", True), result.faults
    assert result.folder is not None
    assert (result.folder / path.name).read_bytes() == ENDS[end](data)


def test_a_signature_over_other_line_ends(store: Store, node: Node, tmp_path: Path) -> None:
    """The manifest's own bytes are signed: one that was signed with other line ends is not this one."""
    key = make_key(tmp_path / "key")
    telemetry("trust", "n-1", key.with_suffix(".pub"), "--root", store.root)
    bundle = make_bundle(node, range(2))
    text = (bundle / "manifest.json").read_bytes()
    signature = sign(text.replace(b"\n", b"\r\n"), str(key), MANIFEST_NAMESPACE)
    (bundle / "manifest.json.sig").write_bytes(signature)
    assert [fault.kind for fault in import_bundle(store, bundle).faults] == ["signature"]


@pytest.mark.parametrize("end", ["CRLF", "no last", "BOM", "BOM and CRLF"])
def test_sums_with_other_line_ends(store: Store, node: Node, end: str) -> None:
    """SHA256SUMS is read in any of these forms."""
    bundle = make_bundle(node, range(2))
    path = bundle / "SHA256SUMS"
    path.write_bytes(ENDS[end](path.read_bytes()))
    assert check(bundle).faults == ()
    assert import_bundle(store, bundle).outcome == "imported"


# ------------------------------------------------------------------ several bundles


def fleet(tmp_path: Path) -> Path:
    """`exports/telemetry_exports` of two nodes, with two bundles each, and one of them also as an archive."""
    exports = tmp_path / "exports" / "telemetry_exports"
    for number, name in enumerate(("n-1", "n-2")):
        node = make_node(tmp_path, name)
        for part in range(2):
            first = 100 * number + 10 * part
            options = ExportOptions(archive="zip" if part else None)
            make_bundle(node, range(first, first + 2), second=part * 10, options=options)
        shutil.copytree(node.exports, exports / name)
    return exports


def members_of(folder: Path, start: Path) -> dict[str, bytes]:
    """All files below a folder, with Finder's shadows of them, named from `start`."""
    members: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(start)
            members[name.as_posix()] = path.read_bytes()
            members[f"__MACOSX/{name.with_name(f'._{name.name}').as_posix()}"] = b"x"
    return members


ALL = [0, 1, 10, 11, 100, 101, 110, 111]


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize(
    ("below", "start", "expected"),
    [
        ("n-1", "n-1", ALL[:4]),
        ("n-1", ".", ALL[:4]),
        (".", ".", ALL),
        (".", "..", ALL),
        (".", "../..", ALL),
    ],
)
def test_an_archive_of_folders_of_bundles(
    store: Store, tmp_path: Path, pack: Pack, below: str, start: str, expected: list[int]
) -> None:
    """All bundles in it come in, from a node's folder, the folder of all nodes, or any above."""
    exports = fleet(tmp_path)
    sent = pack(tmp_path, members_of(exports / below, (exports / start).resolve()))
    done = telemetry("verify", sent)
    assert (done.returncode, done.stdout.count(": verified")) == (0, len(expected) // 2), done.stdout
    done = telemetry("import", sent, "--root", store.root)
    assert (done.returncode, done.stdout.count("imported: ")) == (0, len(expected) // 2), done.stdout
    assert f"imported: {sent}/" in done.stdout
    assert "__MACOSX in the archive is not read (left by macOS)" in done.stderr
    assert done.stderr.count(".zip in the archive belongs to no bundle") == len(expected) // 4
    assert numbers(store) == expected
    assert list((store.folder / ".staging").iterdir()) == []
    again = telemetry("import", sent, "--root", store.root, "--json")
    assert {one["outcome"] for one in json.loads(again.stdout)} == {"already imported"}


@pytest.mark.skipif(shutil.which("zip") is None or shutil.which("tar") is None, reason="needs zip and tar")
def test_stock_tools_pack_several(store: Store, tmp_path: Path) -> None:
    """`zip -r` and `tar -cz` of a node's folder, by the program."""
    exports = fleet(tmp_path)
    subprocess.run(["zip", "-qr", "../n-1.zip", "telemetry_exports/n-1"], cwd=exports.parent, check=True)
    subprocess.run(["tar", "-czf", "../n-2.tgz", "-C", str(exports / "n-2"), "."], cwd=exports.parent, check=True)
    done = telemetry_program("import", tmp_path / "n-1.zip", tmp_path / "n-2.tgz", "--root", store.root, "--no-table")
    assert (done.returncode, done.stdout.count("imported: ")) == (0, 4), done.stdout + done.stderr
    assert numbers(store) == ALL


@pytest.mark.parametrize("pack", [unpacked, zipped, tarred])
def test_one_bad_bundle_among_good_ones(store: Store, tmp_path: Path, pack: Pack) -> None:
    """It is named with its fault, the others are taken in, and the exit code says that one was refused."""
    exports = fleet(tmp_path)
    bad = sorted((exports / "n-1").glob("2*/*.jsonl"))[0]
    bad.write_bytes(bad.read_bytes()[:-1] + b" ")
    sent = pack(tmp_path, members_of(exports, exports))
    for path in sorted(sent.rglob("*.zip")) if pack is unpacked else ():
        path.unlink()
    done = telemetry("import", sent, "--root", store.root)
    assert (done.returncode, done.stdout.count("imported: ")) == (1, 3), done.stdout
    place = f"n-1/{bad.parent.name}"
    assert f"refused: {sent}/{place} " in done.stdout
    assert f"changed: {bad.name}" in done.stdout
    assert "4 bundles: 1 refused, 3 imported" in done.stdout
    done = telemetry("verify", sent)
    assert done.returncode == 1


def test_a_refused_bundle_of_an_archive_is_noted_until_it_comes(store: Store, tmp_path: Path) -> None:
    """The note names its place in the archive, and goes when the archive comes again whole."""
    exports = fleet(tmp_path)
    bad = sorted((exports / "n-1").glob("2*/*.jsonl"))[0]
    data = bad.read_bytes()
    bad.write_bytes(data[:-1] + b" ")
    sent = zipped(tmp_path, members_of(exports, exports))
    results = list(import_bundles(store, sent))
    assert [one.outcome for one in results].count("refused") == 1
    assert all((one.next_step is not None) == (one.outcome == "refused") for one in results)
    (note,) = store.refused.iterdir()
    assert json.loads(note.read_bytes())["source"] == f"{sent}/n-1/{bad.parent.name}"
    bad.write_bytes(data)
    zipped(tmp_path, members_of(exports, exports))
    assert [one.outcome for one in import_bundles(store, sent)].count("imported") == 1
    assert list(store.refused.iterdir()) == []


def test_folders_of_node_folders(store: Store, tmp_path: Path) -> None:
    """A folder with folders of nodes in it, at any depth."""
    fleet(tmp_path)
    done = telemetry("import", tmp_path / "exports", "--root", store.root)
    assert (done.returncode, numbers(store)) == (0, ALL), done.stderr


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_other_files_around_bundles(store: Store, node: Node, tmp_path: Path, pack: Pack) -> None:
    """They are named and left; a bundle in a hidden folder is not searched for; one without manifest is refused."""
    bundle = make_bundle(node, range(2))
    other = files_of(make_bundle(node, range(2, 4), second=9))
    members = files_of(bundle, "n-1/20260101_000000/")
    members |= {"notes.txt": b"x", "n-1/.gitkeep": b"", "n-1/readme/me.txt": b"x"}
    members |= {f"n-1/.staging/{name}": data for name, data in other.items()}
    (folder := tmp_path / "1").mkdir()
    result = import_bundle(store, pack(folder, members))
    assert (result.outcome, len(result.warnings), result.inside) == ("imported", 3 + len(other), "")
    assert numbers(store) == [0, 1]
    members |= {f"n-1/20260101_000009/{name}": data for name, data in other.items() if name != "manifest.json"}
    (folder := tmp_path / "2").mkdir()
    results = list(import_bundles(store, pack(folder, members)))
    assert [one.outcome for one in results] == ["already imported", "refused"]
    assert [(fault.kind, fault.path) for fault in results[1].faults] == [("missing", "manifest.json")]


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize(
    "name", ["../x.jsonl", "/x.jsonl", "n-1/../../x", "a\\b", "C:x", "__MACOSX/../../x", "d/" * 20 + "x"]
)
def test_a_path_that_leads_elsewhere_spoils_the_archive(
    store: Store, tmp_path: Path, node: Node, pack: Pack, name: str
) -> None:
    """An archive with a hostile or broken member gives no bundle at all."""
    members = files_of(make_bundle(node, range(2)), "n-1/20260101_000000/")
    members |= files_of(make_bundle(node, range(2, 4), second=9), "n-1/20260101_000009/")
    (result,) = import_bundles(store, pack(tmp_path, {**members, name: b"x"}))
    assert [fault.kind for fault in result.faults] == ["unsafe"]
    assert (result.outcome, store.load()) == ("refused", [])


def test_limits_hold_for_all_bundles_together(
    store: Store, tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes, manifests and numbers are counted over the whole archive."""
    bundles = [make_bundle(node, range(n, n + 1), second=10 * n) for n in range(3)]
    members: dict[str, bytes] = {}
    for bundle in bundles:
        members |= files_of(bundle, f"n-1/{bundle.name}/")
    sent = zipped(tmp_path, members)
    total = sum(map(len, members.values()))
    monkeypatch.setattr("calyx_logging.bundle.staging.unpacked_limit", lambda size: total - 1)
    results = list(import_bundles(store, sent, dry_run=True))
    assert [one.outcome for one in results] == ["would be imported", "would be imported", "refused"]
    assert "far more than an archive of this size holds" in str(results[2].faults[0])
    monkeypatch.undo()
    manifests = sum(len(data) for name, data in members.items() if name.endswith("manifest.json"))
    monkeypatch.setattr("calyx_logging.bundle._unpacking.MAX_MANIFEST", manifests - 1)
    results = list(import_bundles(store, sent, dry_run=True))
    assert [[fault.kind for fault in one.faults] for one in results] == [[], [], ["malformed"]]
    monkeypatch.undo()
    monkeypatch.setattr("calyx_logging.bundle._unpacking._MAX_BUNDLES", 2)
    (result,) = import_bundles(store, sent)
    assert "at most 2 bundles in an archive" in str(result.faults[0])
