"""A folder that is carried: bundles go to the hub on it, and receipts come back, without anything but files."""

from __future__ import annotations

import logging
import logging.config
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bundles import foreign, make_bundle, make_key, make_node, numbers
from calyx_logging.bundle.folder import checker
from calyx_logging.errors import StorageError
from calyx_logging.hub.receipts import leave
from calyx_logging.hub.store import Store
from calyx_logging.outbox import export_index
from calyx_logging.outbox.export import ExportOptions, export
from conftest import close_logging, config, telemetry


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
    return make_key(tmp_path / "key")


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
    assert (done.returncode, "did not take the receipt" in done.stderr) == (0, True)
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
    assert (done.returncode, "did not take the receipt" in done.stderr) == (0, True), done.stderr


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
    make_log = telemetry(
        "run", "--root", node.root, "--", sys.executable, "-c", "import logging; logging.warning('more')"
    )
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


NAMED = b'{"node_id": "n-1", "chunks": [{"filename": "%s.jsonl", "sha256": "00"}]}'


def _alone(place: Path) -> subprocess.CompletedProcess[str]:
    """Run the copy of verify.py that came with a bundle, in a Python that has nothing else."""
    command = [sys.executable, "-S", str(place / "verify.py")]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


def test_a_bundle_checks_itself(store: Store, stick: Path, tmp_path: Path) -> None:
    """`verify.py` travels with its bundle, and neither the hub nor `verify` takes it for a part of it."""
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
        (lambda chunk, folder: (folder / "manifest.json").unlink(), "manifest.json cannot be read"),
        (lambda chunk, folder: (folder / "SHA256SUMS").unlink(), "missing: SHA256SUMS"),
        (lambda chunk, folder: (folder / "evil.exe").write_bytes(b"x"), "extra: evil.exe"),
        (lambda chunk, folder: (folder / "manifest.json").write_bytes(b"[" * 100_000), "manifest.json cannot be read"),
        (lambda chunk, folder: (folder / "manifest.json").write_bytes(NAMED % b"\\ud800"), "cannot be"),
        (lambda chunk, folder: (folder / "manifest.json").write_bytes(NAMED % b"\\u0000"), "cannot be"),
        (lambda chunk, folder: (folder / "json.py").write_bytes(b"raise SystemExit(0)"), "extra: json.py"),
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


@pytest.mark.skipif(os.name == "nt", reason="links and pipes")
def test_a_bundle_that_would_lead_its_checker_away(tmp_path: Path) -> None:
    """Links and pipes are not followed, and the other bundles are checked all the same."""
    node = make_node(tmp_path, "n-1")
    good = make_bundle(node, range(3), options=ExportOptions(checker=True))
    for number, harm in enumerate((lambda path: path.symlink_to("/etc/passwd"), os.mkfifo)):
        other = good.with_name(f"other-{number}")
        shutil.copytree(good, other)
        (chunk,) = other.glob("*.jsonl")
        chunk.unlink()
        harm(chunk)
    command = [sys.executable, str(good / "verify.py"), str(good.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.count("is no regular file"), done.stdout.count(": verified")) == (1, 2, 1)


# ------------------------------------------------------------------ what may go wrong on the way


def test_a_forged_bundle_on_the_stick_does_not_count(stick: Path, tmp_path: Path) -> None:
    """Chunks with the right names and other bytes are not taken for exported ones."""
    node = make_node(tmp_path, "n-1")
    make_bundle(node, range(2))
    done = telemetry("run", "--root", node.root, "--", sys.executable, "-c", "import logging; logging.warning('x')")
    assert done.returncode == 0
    forged = tmp_path / "forged"
    forged.mkdir()
    for chunk in node.outbox.glob("*.jsonl"):
        (forged / chunk.name).write_bytes(b"{}\n")
    assert telemetry("manifest", forged, "--node-id", "n-1").returncode == 0
    shutil.copytree(forged, stick / "n-1" / "99991231_235959")
    done = telemetry("export", "--root", node.root, "--to", stick)
    assert "exported 2 chunks" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("direct", [True, False])
def test_killed_before_a_direct_export_was_noted(
    store: Store, stick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    """The next export, wherever it goes, makes that bundle again, so that the hub sees one history."""
    node = make_node(tmp_path, "n-1")
    make_bundle(node, range(2))
    logging.config.dictConfig(config(node))
    logging.getLogger("harness").info("event", extra={"n": 2})
    close_logging()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(export_index, "carry_out", killed)
        with pytest.raises(KeyboardInterrupt):
            export(node, ExportOptions(carrier=stick, direct=True))
    (left,) = (stick / "n-1").iterdir()
    logging.config.dictConfig(config(node))
    logging.getLogger("harness").info("event", extra={"n": 3})
    close_logging()
    other = tmp_path / "other"
    other.mkdir()
    args = ("--to", other, "--direct") if direct else ()
    done = telemetry("export", "--root", node.root, *args)
    assert (done.returncode, done.stdout.count("exported 1 chunk")) == (0, 2), done.stdout + done.stderr
    place = other / "n-1" if direct else node.exports
    assert (place / left.name / "manifest.json").read_bytes() == (left / "manifest.json").read_bytes()
    assert "nothing new" in telemetry("export", "--root", node.root, "--to", stick).stdout
    for folder in (stick, node.exports, *([other] if direct else [])):
        assert telemetry("import", folder, "--root", store.root).returncode == 0
    assert numbers(store) == [0, 1, 2, 3]
    done = telemetry("audit", "--root", store.root)
    assert (done.returncode, "n-1: complete (" in done.stdout) == (0, True), done.stdout


def test_what_is_not_finished_on_a_stick_is_not_taken(store: Store, stick: Path, tmp_path: Path) -> None:
    """Neither by its path nor by file://."""
    node = make_node(tmp_path, "n-1")
    bundle = make_bundle(node, range(2))
    shutil.copytree(bundle, stick / "n-1" / ".staging-0a1b2c3d")
    for place in (str(stick), stick.as_uri()):
        done = telemetry("import", place, "--root", store.root)
        assert (done.returncode, "imported: " in done.stdout) != (0, True), done.stdout
    assert numbers(store) == []


@pytest.mark.parametrize(
    "place", ["", "file://", "file://[", "~no-such-user-here/x", "file:///tmp/%00", "file:///tmp#x"]
)
def test_places_that_are_none(tmp_path: Path, place: str) -> None:
    """One line says so, and nothing is written anywhere."""
    node = make_node(tmp_path, "n-1")
    make_bundle(node, range(2))
    before = sorted(tmp_path.rglob("*"))
    done = telemetry("export", "--root", node.root, "--to", place, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    done = telemetry("export", "--root", node.root, "--to", node.outbox, "--direct")
    assert (done.returncode, "in the node's own outbox" in done.stderr) == (2, True)
