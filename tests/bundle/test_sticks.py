"""A folder that is carried: bundles go to the hub on it, and receipts come back, without anything but files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bundles import foreign, make_bundle, make_node, numbers
from calyx_logging.bundle.folder import checker
from calyx_logging.errors import StorageError
from calyx_logging.hub.receipts import leave
from calyx_logging.hub.store import Store
from calyx_logging.outbox.export import ExportOptions
from conftest import telemetry


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "hub").mkdir()
    return Store(tmp_path / "hub")


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    (tmp_path / "stick é").mkdir()
    return tmp_path / "stick é"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-keygen")
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def test_receipts_come_back_on_the_stick(store: Store, stick: Path, tmp_path: Path) -> None:
    """Each node finds its own there; unsigned ones are taken only if the user says so."""
    nodes = [make_node(tmp_path / name, name) for name in ("n-1", "n-2")]
    for node in nodes:
        make_bundle(node, range(3))
        assert telemetry("export", "--root", node.root, "--to", stick).returncode == 0
    done = telemetry("import", stick, "--root", store.root)
    assert (done.returncode, f"2 receipts to carry back: {stick / '.receipts'}" in done.stdout) == (0, True), (
        done.stdout
    )
    assert sorted(os.listdir(stick / ".receipts")) == ["n-1.json", "n-2.json"]
    done = telemetry("export", "--root", nodes[0].root, "--to", stick)
    assert (done.returncode, "the receipt was not taken" in done.stderr) == (0, True)
    for node in nodes:
        done = telemetry("export", "--root", node.root, "--to", stick, "--accept-unsigned")
        assert "took the hub's receipt of" in done.stderr
        assert "1 chunk acknowledged" in telemetry("status", "--root", node.root).stdout
    done = telemetry("prune", "--root", nodes[1].root, "--receipt", stick, "--accept-unsigned", "--yes")
    assert (done.returncode, "deleted 1 chunk, 1 bundle" in done.stdout) == (0, True), done.stderr
    assert telemetry("export", "--root", nodes[1].root, "--to", stick).returncode == 0
    assert numbers(store) == [0, 0, 1, 1, 2, 2]


def test_a_trusted_hub_is_believed(store: Store, stick: Path, tmp_path: Path, key: Path) -> None:
    """Its signature travels with the receipt; one that was altered on the way is not taken."""
    node = make_node(tmp_path, "n-1")
    make_bundle(node, range(3))
    assert telemetry("export", "--root", node.root, "--to", stick).returncode == 0
    assert telemetry("trust", "--hub", "main", f"{key}.pub", "--root", node.root).returncode == 0
    assert telemetry("import", stick, "--root", store.root, "--sign", key).returncode == 0
    assert "took the hub's receipt" in telemetry("export", "--root", node.root, "--to", stick).stderr
    receipt = stick / ".receipts" / "n-1.json"
    receipt.write_bytes(receipt.read_bytes().replace(b'"bundles"', b'"bundlez"'))
    done = telemetry("export", "--root", node.root, "--to", stick)
    assert (done.returncode, "the receipt was not taken" in done.stderr) == (0, True), done.stderr


def test_a_folder_without_a_place_for_receipts_is_left_alone(store: Store, tmp_path: Path) -> None:
    """A node's own exports get nothing added."""
    node = make_node(tmp_path, "n-1")
    make_bundle(node, range(3))
    before = sorted(node.exports.parent.rglob("*"))
    done = telemetry("import", node.exports.parent, "--root", store.root)
    assert (done.returncode, "to carry back" in done.stdout) == (0, False)
    assert sorted(node.exports.parent.rglob("*")) == before


def test_receipts_that_cannot_be_left(store: Store, stick: Path, tmp_path: Path) -> None:
    """A folder in a file's place is an error that names it, and the import is done all the same."""
    node = make_node(tmp_path, "n-1")
    make_bundle(node, range(3))
    assert telemetry("export", "--root", node.root, "--to", stick).returncode == 0
    (stick / ".receipts" / "n-1.json").mkdir()
    (stick / ".receipts" / "n-1.json" / "x").touch()
    done = telemetry("import", stick, "--root", store.root)
    assert (done.returncode, "carry it by hand" in done.stderr) == (0, True), done.stderr
    assert numbers(store) == [0, 1, 2]
    with pytest.raises(StorageError, match="leave the receipt"):
        leave(store, stick)


def test_a_direct_export_is_remembered(store: Store, stick: Path, tmp_path: Path) -> None:
    """By the node, or, where its disk forgot, by the stick; another machine's bundles there do not count."""
    node = make_node(tmp_path / "one", "n-1")
    make_bundle(node, range(2))
    make_log = telemetry("run", "--root", node.root, "--", "python3", "-c", "import logging; logging.warning('more')")
    assert make_log.returncode == 0, make_log.stderr
    done = telemetry("export", "--root", node.root, "--to", stick, "--direct")
    assert done.returncode == 0, done.stderr
    assert len(list((stick / "n-1").iterdir())) == 2  # the earlier bundle was copied, the new one made there
    assert len(list(node.exports.glob("2*"))) == 1
    newest = max(path.name for path in (stick / "n-1").iterdir())
    (node.outbox / ".manifests" / f"{newest}.json").unlink()
    (node.outbox / ".exported_index.json").unlink()
    assert "nothing new" in telemetry("export", "--root", node.root, "--to", stick).stdout
    assert (node.outbox / ".manifests" / f"{newest}.json").exists()
    done = telemetry("import", stick, "--root", store.root)
    assert (done.returncode, "n-1: complete" in done.stdout) == (0, True), done.stdout
    other = make_node(tmp_path / "other", "n-1")
    make_bundle(other, range(5), second=99)
    assert telemetry("export", "--root", other.root, "--to", stick).returncode == 0
    assert len(list((other.outbox / ".manifests").iterdir())) == 1


@pytest.mark.parametrize(
    "args", [["--direct"], ["--to", "s3://b/f", "--direct"], ["--accept-unsigned"], ["--direct", "--archive", "zip"]]
)
def test_options_that_need_a_folder(tmp_path: Path, stick: Path, args: list[str]) -> None:
    node = make_node(tmp_path, "n-1")
    make_bundle(node, range(3))
    to = ["--to", str(stick)] if "--archive" in args else []
    assert telemetry("export", "--root", node.root, *to, *args).returncode == 2


# ------------------------------------------------------------------ without anything installed


def _alone(place: Path) -> subprocess.CompletedProcess[str]:
    """Run the copy of verify.py that came with a bundle, in a Python that has nothing else."""
    command = [sys.executable, "-I", "-S", str(place / "verify.py")]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


def test_a_bundle_checks_itself(store: Store, stick: Path, tmp_path: Path) -> None:
    """It goes everywhere with its bundle, and neither the hub nor `verify` takes it for a part of that."""
    node = make_node(tmp_path, "n-1")
    make_bundle(node, range(3))
    done = telemetry("run", "--root", node.root, "--", sys.executable, "-c", "import logging; logging.warning('x')")
    assert done.returncode == 0
    args = ("--self-verifying", "--to", stick, "--archive", "zip")
    assert telemetry("export", "--root", node.root, *args).returncode == 0
    bundle = max((stick / "n-1").iterdir())
    done = _alone(bundle)
    assert (done.returncode, "verified, node n-1, " in done.stdout) == (0, True), done.stdout + done.stderr
    assert subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=bundle, check=False).returncode == 0
    packed = max(node.exports.glob("*.zip"))
    shutil.unpack_archive(packed, tmp_path / "unpacked")
    assert _alone(tmp_path / "unpacked" / bundle.name).returncode == 0
    for place in (bundle, packed, stick):
        done = telemetry("import", place, "--root", store.root)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert not list(store.folder.rglob("verify.py"))
    done = telemetry("prune", "--root", node.root, "--receipt", stick, "--accept-unsigned", "--yes")
    assert (done.returncode, list(node.exports.glob("2*"))) == (0, []), done.stderr


@pytest.mark.parametrize(
    ("harm", "word"),
    [
        (lambda chunk, folder: chunk.write_bytes(chunk.read_bytes().replace(b"event", b"Event", 1)), "changed: "),
        (lambda chunk, folder: chunk.unlink(), "missing or unreadable: "),
        (lambda chunk, folder: (folder / "more.jsonl").write_bytes(b"{}\n"), "extra: more.jsonl"),
        (lambda chunk, folder: (folder / "manifest.json").write_bytes(b"{}"), "manifest.json cannot be read"),
        (lambda chunk, folder: (folder / "SHA256SUMS").write_bytes(b"x\n"), "SHA256SUMS cannot be read"),
        (lambda chunk, folder: (folder / "SHA256SUMS").write_bytes(b""), "disagree on manifest.json"),
        (lambda chunk, folder: (folder / "manifest.json").unlink(), "no bundle"),
    ],
)
def test_a_bundle_finds_its_own_faults(tmp_path: Path, harm: Callable[[Path, Path], object], word: str) -> None:
    """Each fault is named, and the exit code says so."""
    node = make_node(tmp_path, "n-1")
    bundle = make_bundle(node, range(3), options=ExportOptions(checker=True))
    assert _alone(bundle).returncode == 0
    (chunk,) = bundle.glob("*.jsonl")
    harm(chunk, bundle)
    done = _alone(bundle)
    assert (done.returncode, word in done.stdout) == (1, True), done.stdout + done.stderr


def test_accents_and_first_generation_bundles_check_themselves(tmp_path: Path) -> None:
    """Names in another normal form, upper-case hashes, a byte order mark, and no SHA256SUMS."""
    bundle = foreign(tmp_path / "old", 3)
    (bundle / "verify.py").write_bytes(checker())
    assert _alone(bundle).returncode == 0
    bundle.rename(bundle.with_name("é"))
    assert "é: verified" in _alone(bundle.with_name("é")).stdout
