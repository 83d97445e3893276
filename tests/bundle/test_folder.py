"""Manifest and verification: every fault at once, each named."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calyx_logging import Node
from calyx_logging.bundle.folder import check, verify, write_manifest
from calyx_logging.bundle.verification import Fault
from calyx_logging.errors import BundleError, ConfigError, ManifestError, StorageError
from calyx_logging.format.manifest import ChunkEntry, Manifest, is_safe_filename, parse_sums
from calyx_logging.outbox.export import export
from conftest import close_logging, tree

Configure = Callable[..., logging.Logger]


@pytest.fixture
def bundle(node: Node, configure: Configure) -> Path:
    """A bundle of three chunks."""
    logger = configure()
    for n in range(3):
        logger.info("event", extra={"n": n})
        logger.handlers[0].seal()  # type: ignore[attr-defined]
    logger.handlers[0].close()
    result = export(node)
    assert result.bundle is not None
    return result.bundle


def chunks(bundle: Path) -> list[Path]:
    return sorted(bundle.glob("*.jsonl"))


def faults(bundle: Path) -> list[tuple[str, str]]:
    return [(fault.kind, fault.path) for fault in check(bundle).faults]


def test_a_whole_bundle_verifies(bundle: Path, node: Node) -> None:
    """The manifest says what is in it."""
    manifest = verify(bundle).manifest
    assert manifest.node_id == node.id
    assert [entry.filename for entry in manifest.chunks] == [path.name for path in chunks(bundle)]
    assert [entry.events for entry in manifest.chunks] == [1, 1, 1, 1]
    assert [(entry.first_seq, entry.last_seq) for entry in manifest.chunks] == [(n, n) for n in range(4)]
    assert len({entry.writer for entry in manifest.chunks}) == 1
    assert Manifest.parse(manifest.to_bytes()) == manifest


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum on this system")
def test_stock_sha256sum_verifies(bundle: Path) -> None:
    """SHA256SUMS lists every file but itself, for stock tools."""
    done = subprocess.run(
        ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=bundle, capture_output=True, text=True, check=True
    )
    assert done.stdout.count(": OK") == 5
    (chunks(bundle)[0]).write_bytes(b"{}\n")
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=bundle, capture_output=True).returncode == 1


def test_one_flipped_byte_anywhere_is_named(bundle: Path) -> None:
    """Verification fails and names the file: a chunk, the manifest or SHA256SUMS."""
    for path in sorted(bundle.iterdir()):
        data = path.read_bytes()
        for place in range(0, len(data), max(1, len(data) // 40)):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            named = " ".join(str(fault) for fault in check(bundle).faults)
            assert path.name in named, (path, place, named)
        path.write_bytes(data)
    assert faults(bundle) == []


def test_removed_added_and_renamed_files_are_all_named(bundle: Path) -> None:
    """Every fault at once."""
    first, second, third, _ = chunks(bundle)
    first.unlink()
    second.rename(second.with_name("renamed.jsonl"))
    third.write_bytes(b"changed")
    (bundle / "added.txt").write_text("x")
    report = check(bundle)
    assert [(fault.kind, fault.path) for fault in report.faults] == [
        ("missing", first.name),
        ("missing", second.name),
        ("changed", third.name),
        ("extra", "added.txt"),
        ("extra", "renamed.jsonl"),
    ]
    assert second.name in report.faults[-1].found
    with pytest.raises(BundleError) as caught:
        verify(bundle)
    assert len(caught.value.faults) == 5
    assert all(str(fault) in str(caught.value) for fault in report.faults)


def test_what_sticks_gather_is_a_warning(bundle: Path) -> None:
    """Files that operating systems leave by themselves are no fault."""
    for name in ("._manifest.json", ".DS_Store", "desktop.ini", "Thumbs.db"):
        (bundle / name).write_bytes(b"junk")
    assert len(verify(bundle).warnings) == 4


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"[]", "not an object"),
        (b"{}", "'chunks'"),
        (b'{"chunks":{},"node_id":"n"}', "'chunks' is no list"),
        (b'{"chunks":[3],"node_id":"n","exported_at":"","timestamp":""}', "chunks[0] is no object"),
        (b'{"chunks":[{"sha256":"x"}],"node_id":"n","exported_at":"","timestamp":""}', "'filename'"),
        (b'{"chunks":[{"file":"a","sha256":"x"}],"node_id":"n","exported_at":"","timestamp":""}', "64 hex"),
        (b'{"chunks":[],"node_id":3,"exported_at":"","timestamp":""}', "'node_id' is no str"),
        (b'{"chunks":[],"manifest_version":2}', "version 2"),
        (b"\xff\xfe", "no JSON"),
    ],
)
def test_a_malformed_manifest_is_named(bundle: Path, data: bytes, word: str) -> None:
    """It says what is wrong with it, and nothing is raised but the one error."""
    (bundle / "manifest.json").write_bytes(data)
    report = check(bundle)
    assert faults(bundle) == [("malformed", "manifest.json")]
    assert word in report.faults[0].found


def rewritten(bundle: Path, **changes: Any) -> None:
    """The bundle with another manifest, its sums made to fit."""
    document = json.loads((bundle / "manifest.json").read_bytes())
    for key, change in changes.items():
        document[key] = change(document[key]) if callable(change) else change
    (bundle / "manifest.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    "filename",
    ["../x.jsonl", "/etc/passwd", "a\\b.jsonl", "C:x.jsonl", "a\0b", ".hidden", "manifest.json", "SHA256sums"],
)
def test_unsafe_file_names_are_faults_and_never_opened(bundle: Path, filename: str) -> None:
    """A manifest cannot make verification look outside the bundle."""

    def point_elsewhere(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**entries[0], "filename": filename}, *entries[1:]]

    rewritten(bundle, chunks=point_elsewhere)
    assert ("unsafe", repr(filename)) in faults(bundle)


def test_a_manifest_that_lies_about_a_chunk(bundle: Path) -> None:
    """Counts, times and seq are compared too, not only the hash."""
    rewritten(bundle, chunks=lambda entries: [{**entries[0], "events": 9, "last_seq": 9}, *entries[1:]])
    said = [str(fault) for fault in check(bundle).faults if fault.kind == "malformed"]
    assert len(said) == 2
    assert "events 1" in said[0]
    assert "found events 9" in said[0]


def test_entries_twice_and_bad_node_ids(bundle: Path) -> None:
    """Each chunk once; the node id keeps the rule."""
    rewritten(bundle, chunks=lambda entries: [*entries, entries[0]], node_id="../evil")
    said = " ".join(str(fault) for fault in check(bundle).faults)
    assert "twice" in said
    assert "../evil" in said


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_in_place_of_a_chunk(bundle: Path, tmp_path: Path) -> None:
    """Even one to the right bytes is refused."""
    first = chunks(bundle)[0]
    shutil.move(first, tmp_path / "elsewhere")
    first.symlink_to(tmp_path / "elsewhere")
    assert faults(bundle) == [("unreadable", first.name)]


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    """A folder without a manifest, or no folder, is refused."""
    assert faults(tmp_path) == [("missing", "manifest.json")]
    with pytest.raises(StorageError, match="no such folder"):
        check(tmp_path / "nowhere")


def test_a_first_generation_bundle(tmp_path: Path) -> None:
    """BOM, upper-case hash, `file` for `filename`, no counts, no SHA256SUMS, any chunk name."""
    data = b'\xef\xbb\xbf{"a":1}\r\n{"a":2}'
    import hashlib

    (tmp_path / "20240101_010101__bench__x9.jsonl").write_bytes(data)
    manifest = {
        "node_id": "old",
        "exported_at": "2024-01-01T01:01:01.1234567+01:00",
        "timestamp": "20240101_010101",
        "chunks": [
            {"file": "20240101_010101__bench__x9.jsonl", "sha256": hashlib.sha256(data).hexdigest().upper()},
        ],
    }
    (tmp_path / "manifest.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(manifest).encode())
    verified = verify(tmp_path)
    assert verified.manifest.version == 0
    assert verified.manifest.chunks[0].events is None


entry = st.builds(
    ChunkEntry,
    filename=st.text(min_size=1).filter(lambda s: not any("\ud800" <= c <= "\udfff" for c in s)),
    sha256=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    bytes=st.none() | st.integers(0, 2**60),
    events=st.none() | st.integers(0, 2**60),
    first_seq=st.none() | st.integers(0, 2**60),
)
texts = st.text().filter(lambda s: not any("\ud800" <= c <= "\udfff" for c in s))


@given(st.builds(Manifest, texts, texts, texts, st.lists(entry).map(tuple), st.none() | texts))
def test_a_manifest_comes_back_from_its_bytes(manifest: Manifest) -> None:
    """parse undoes to_bytes, and the bytes are the same for the same value."""
    assert Manifest.parse(manifest.to_bytes()) == manifest
    assert dataclasses.replace(manifest).to_bytes() == manifest.to_bytes()


@given(st.binary())
def test_any_bytes_are_a_manifest_or_a_manifest_error(data: bytes) -> None:
    """Bytes of any kind raise no other error."""
    for parse, kind in ((Manifest.parse, Manifest), (parse_sums, dict)):
        try:
            result: object = parse(data)
        except ManifestError as error:
            assert error.message
        else:
            assert isinstance(result, kind)


@given(st.text())
def test_safe_file_names_are_plain(name: str) -> None:
    """No accepted name has a folder, a drive or a stream in it."""
    if is_safe_filename(name):
        assert Path(name).name == name
        assert not set(name) & set('/\\:*?"<>|\0\n')


def test_making_a_manifest_for_any_folder(node: Node, configure: Configure, tmp_path: Path) -> None:
    """The node id is taken from the events; what is there is not overwritten unasked."""
    configure().info("a")
    close_logging()
    folder = tmp_path / "some chunks"
    shutil.copytree(node.outbox, folder, ignore=shutil.ignore_patterns(".*"))

    def nobody() -> str:
        raise AssertionError("the events carry a node id")

    manifest = write_manifest(folder, node_id=None, fallback_id=nobody)
    assert manifest.node_id == node.id
    assert faults(folder) == []
    before = tree(folder)
    with pytest.raises(ConfigError, match=r"--force"):
        write_manifest(folder, node_id=None, fallback_id=nobody)
    assert tree(folder) == before
    assert write_manifest(folder, node_id="other", fallback_id=nobody, force=True).node_id == "other"
    (folder / "x.jsonl").write_text('{"node_id":"another"}\n')
    with pytest.raises(ConfigError, match="several nodes"):
        write_manifest(folder, node_id=None, fallback_id=nobody, force=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no chunk"):
        write_manifest(tmp_path / "empty", node_id=None, fallback_id=nobody)


def test_a_fault_reads_as_a_sentence() -> None:
    """Kind, path, expected, found."""
    assert str(Fault("changed", "a", "b", "c")) == "changed: a, expected b, found c"
