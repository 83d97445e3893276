"""Archives: what is packed is imported as the folder would be; what is damaged or dangerous is a named fault."""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from bundles import foreign, make_bundle, make_node, numbers, reseal, tar_of
from calyx_logging.bundle.archive import FORMATS, is_archive, write_archive
from calyx_logging.errors import StorageError
from calyx_logging.hub.importer import import_bundle
from calyx_logging.hub.store import Store
from calyx_logging.outbox.export import ExportOptions, export
from conftest import telemetry, tree
from faults.disk import Failing, through


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A hub's, empty."""
    (tmp_path / "hub").mkdir()
    return Store(tmp_path / "hub")


@pytest.mark.parametrize("suffix", FORMATS)
def test_there_and_back(store: Store, tmp_path: Path, suffix: str) -> None:
    """Byte for byte what the folder has; the same bytes each time; under any file name."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(5))
    packed = tmp_path / f"a bundle.{suffix}"
    write_archive(bundle, packed)
    assert is_archive(packed)
    again = tmp_path / f"again.{suffix}"
    write_archive(bundle, again)
    assert again.read_bytes() == packed.read_bytes()
    result = import_bundle(store, packed)
    assert (result.outcome, result.faults) == ("imported", [])
    assert result.folder is not None
    assert tree(result.folder) == tree(bundle)
    assert import_bundle(store, bundle).outcome == "already imported"
    assert list((store.folder / ".staging").iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="tar and unzip")
def test_stock_tools_read_and_make_them(store: Store, tmp_path: Path) -> None:
    """tar and Python's zipfile unpack ours; what tar packs of a bundle, flat or in its folder, is imported."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(5))
    for suffix, unpack in (("zip", [sys.executable, "-m", "zipfile", "-e"]), ("tar.gz", ["tar", "-xzf"])):
        packed, out = tmp_path / f"b.{suffix}", tmp_path / f"out {suffix}"
        out.mkdir()
        write_archive(bundle, packed)
        subprocess.run([*unpack, str(packed), *([str(out)] if suffix == "zip" else ["-C", str(out)])], check=True)
        assert tree(out / bundle.name) == tree(bundle)
    for number, arguments in enumerate((["-C", str(bundle), "."], ["-C", str(bundle.parent), bundle.name])):
        packed = tmp_path / f"{number}.tgz"
        subprocess.run(["tar", "-czf", str(packed), *arguments], check=True)
        result = import_bundle(store, packed)
        assert (result.outcome, result.faults) == (("imported", "already imported")[number], [])
    assert numbers(store) == list(range(5))


@pytest.mark.parametrize("suffix", FORMATS)
def test_export_makes_one(tmp_path: Path, suffix: str) -> None:
    """Beside the folder; one that a killed export did not make is made by the next; it is no bundle's folder."""
    node = make_node(tmp_path, "n-1")
    bundle = make_bundle(node, range(3), options=ExportOptions(archive=suffix))
    packed = bundle.with_name(f"{bundle.name}.{suffix}")
    data = packed.read_bytes()
    packed.unlink()
    result = export(node, ExportOptions(archive=suffix))
    assert (result.bundle, result.archive) == (None, packed)
    assert packed.read_bytes() == data
    assert export(node, ExportOptions(archive=suffix)).archive == packed
    assert export(node).archive is None
    (node.outbox / ".exported_index.json").unlink()
    assert export(node).warnings == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_archive_has_its_name_only_when_it_is_whole(tmp_path: Path, suffix: str) -> None:
    """A full disk at any call."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(3))
    number, hit = 0, True
    while hit:
        number += 1
        target = tmp_path / "out" / f"b.{suffix}"
        shutil.rmtree(target.parent, ignore_errors=True)
        target.parent.mkdir()
        proxy = Failing(number, errno.ENOSPC)
        with through(proxy):
            try:
                write_archive(bundle, target)
            except StorageError as error:
                assert "cannot write the archive" in str(error)
                assert list(target.parent.iterdir()) in ([], [target])
        hit = bool(proxy.failed)
    assert number > 3


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    """A zip by hand."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def files_of(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


@pytest.mark.parametrize("pack", [zipped, tar_of], ids=["zip", "tar.gz"])
def test_damaged_archives(store: Store, tmp_path: Path, pack: object) -> None:
    """Cut at any place, or with any byte turned: refused or the same events, never an error, nothing left behind."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(20))
    suffix = "zip" if pack is zipped else "tar.gz"
    whole = tmp_path / f"whole.{suffix}"
    write_archive(bundle, whole)
    data, chance = whole.read_bytes(), random.Random(4)
    damaged = tmp_path / f"damaged.{suffix}"
    for number in range(60):
        if number < 20:
            changed = data[: len(data) * number // 20]
        else:
            place = chance.randrange(len(data))
            changed = data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :]
        damaged.write_bytes(changed)
        result = import_bundle(store, damaged, dry_run=True)
        assert (result.outcome == "refused") == bool(result.faults)
        if result.outcome != "refused":
            assert result.manifest is not None
            assert result.manifest.to_bytes() == (bundle / "manifest.json").read_bytes()
    assert list((store.folder / ".staging").iterdir()) == []
    assert import_bundle(store, whole).outcome == "imported"


def test_a_first_generation_bundle_in_an_archive(store: Store, tmp_path: Path) -> None:
    """Its manifest lacks the chunks' sizes, so it has to be unpacked by hand, as the error says."""
    packed = zipped(tmp_path / "old.zip", files_of(foreign(tmp_path / "old", 2)))
    result = import_bundle(store, packed)
    assert (result.outcome, "unpacked by hand" in result.faults[0].found) == ("refused", True)


def test_junk_of_operating_systems_in_archives(store: Store, tmp_path: Path) -> None:
    """Files that macOS and Windows add by themselves do not matter."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(2))
    members = {f"{bundle.name}/{name}": data for name, data in files_of(bundle).items()}
    members |= {"__MACOSX/._x": b"j", f"{bundle.name}/.DS_Store": b"j", f"{bundle.name}/desktop.ini": b"j"}
    members[f"{bundle.name}/"] = b""
    assert import_bundle(store, zipped(tmp_path / "b.zip", members)).outcome == "imported"


@pytest.mark.slow
def test_bombs(store: Store, tmp_path: Path) -> None:
    """An archive that unpacks to far more than it should is refused before the disk is full."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(2))
    files = files_of(bundle)
    (chunk,) = (name for name in files if name.endswith(".jsonl"))
    longer = {**files, chunk: files[chunk] + b" " * 50_000_000}
    for packed in (zipped(tmp_path / "1.zip", longer), tar_of(tmp_path / "1.tar.gz", longer)):
        (fault,) = import_bundle(store, packed).faults
        assert (fault.kind, fault.path) == ("changed", chunk)
    (bundle / chunk).write_bytes(longer[chunk])
    reseal(bundle)
    manifest = (bundle / "manifest.json").read_bytes().replace(b"50000", b"990000000000", 1)
    huge = {**files_of(bundle), "manifest.json": manifest}
    assert manifest != files_of(bundle)["manifest.json"]
    assert import_bundle(store, zipped(tmp_path / "2.zip", huge)).outcome == "refused"
    nested = tmp_path / "3.tar.gz"
    with tarfile.open(nested, "w:gz") as archive:
        info = tarfile.TarInfo("zeros")
        info.size = 600_000_000
        archive.addfile(info, Zeros(info.size))
    (fault,) = [one for one in import_bundle(store, nested).faults if one.kind == "unreadable"]
    assert "far more than a bundle" in fault.found


class Zeros(io.RawIOBase):
    """A stream of a given number of zeros."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1) -> bytes:
        count = min(self.left, size)
        self.left -= count
        return bytes(count)


def test_the_command(store: Store, tmp_path: Path) -> None:
    """export --archive, import of the file and of a folder of files, and what is no archive."""
    node = make_node(tmp_path, "n-1")
    make_bundle(node, range(2))
    for part, suffix in enumerate(FORMATS):
        make_bundle(node, range(part, part + 1), second=part * 10 + 10, options=ExportOptions(archive=suffix))
    done = telemetry("export", "--root", node.root, "--archive", "zip")
    assert (done.returncode, done.stdout.rstrip().endswith(".zip")) == (0, True), done.stderr
    stick = tmp_path / "stick"
    stick.mkdir()
    for path in node.exports.iterdir():
        if path.is_file():
            shutil.copy(path, stick)
    done = telemetry("import", stick, "--root", store.root)
    assert (done.returncode, done.stdout.count("imported: ")) == (0, 3), done.stdout
    (stick / "text.txt").write_text("x")
    done = telemetry("import", stick / "text.txt", "--root", store.root)
    assert (done.returncode, "no folder and no archive" in done.stderr) == (4, True)
    (stick / "empty.zip").write_bytes(b"")
    done = telemetry("import", stick / "empty.zip", "--root", store.root)
    assert (done.returncode, "unreadable: empty.zip" in done.stdout) == (1, True)
    assert telemetry("export", "--root", node.root, "--archive", "rar").returncode == 2
    done = telemetry("verify", *sorted(node.exports.iterdir()), stick / "empty.zip", tmp_path / "none")
    assert (done.returncode, done.stdout.count(": verified"), done.stdout.count("1 fault")) == (4, 6, 1), done.stdout
    assert os.listdir(store.folder / ".staging") == []
