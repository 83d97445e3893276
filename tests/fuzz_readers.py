"""The readers of bytes from elsewhere, for fuzzers: each answers any bytes, or raises an error of its own.

    python tests/fuzz_readers.py manifest -max_total_time=60 CORPUS

runs one under atheris (`pip install -e .[fuzz]`); tests/whole/test_fuzz.py runs all under Hypothesis.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import orjson

from calyx_logging import Node
from calyx_logging.bundle.archive import members_of
from calyx_logging.bundle.folder import check
from calyx_logging.bundle.signers import signers_of
from calyx_logging.bundle.staging import bring
from calyx_logging.compiled import CORE
from calyx_logging.errors import ArchiveError, ConfigError, ManifestError
from calyx_logging.format.chunk import ChunkName
from calyx_logging.format.chunk_stats import stats_of
from calyx_logging.format.line_check import Scan, scan_chunk, what_is_wrong
from calyx_logging.format.manifest import Manifest, is_safe_filename, name_key, parse_sums
from calyx_logging.format.receipt import Receipt
from calyx_logging.hub.importer import Policy, import_bundle
from calyx_logging.hub.store import Store
from calyx_logging.outbox.export_index import load

WORK = Path(tempfile.gettempdir()) / "calyx-fuzz"


def fresh(name: str) -> Path:
    """An empty folder."""
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def manifest(data: bytes) -> None:
    """Bytes as manifest.json: what is read gives the same value when it is written and read again."""
    try:
        found = Manifest.parse(data)
    except ManifestError:
        return
    assert Manifest.parse(found.to_bytes()).chunks == found.chunks


def receipt(data: bytes) -> None:
    """Bytes as a receipt."""
    try:
        found = Receipt.parse(data)
    except ManifestError:
        return
    assert Receipt.parse(found.to_bytes()) == found


def sums(data: bytes) -> None:
    """Bytes as SHA256SUMS."""
    try:
        parse_sums(data)
    except ManifestError:
        return


def name(data: bytes) -> None:
    """Bytes as the name of a chunk: one that is safe stays in its folder."""
    text = data.decode("utf-8", "surrogatepass") if not data.startswith(b"\xff") else data.decode("latin-1")
    parsed = ChunkName.parse(text)
    assert parsed is None or text.removesuffix(".open") == parsed.sealed
    name_key(text)
    if is_safe_filename(text):
        assert (Path("/a") / text).parent == Path("/a")
        assert Path(text).name == text


def line(data: bytes) -> None:
    """Bytes as a line of a chunk."""
    what_is_wrong(data, "n-1")


def chunk(data: bytes) -> None:
    """Bytes as a chunk, under a name of ours and another: read by both readers, which agree on what is a line."""
    folder = fresh("chunk")
    for filename in ("20260101_000000__bench__0123abcd-0000.jsonl", "other.jsonl"):
        path = folder / filename
        path.write_bytes(data)
        scan = scan_chunk(path, "n-1")
        assert Scan.of_document(scan.document()) == scan
        with path.open("rb") as stream:
            stats = stats_of(stream, filename)
        assert stats.size == len(data)
        if filename == "other.jsonl":
            assert stats.events == scan.events + scan.bad_count
        assert all(first <= last for first, last in scan.seqs)


def scan(data: bytes) -> None:
    """Bytes as lines for the compiled core: those that it calls events are events for two other parsers."""
    if CORE is None:
        return
    lines = b'{"node_id":"n","ts_utc":"2026-11-22T08:00:00.000000+00:00","event_id":"i","source":"s",' + data
    for one in (data, lines):
        events, *_, others, _ = CORE.scan(one, b'{"node_id":"n","ts_utc":"', True, True)
        odd = {start for _, start, _ in others}
        at, found = 0, 0
        for text in one.split(b"\n"):
            if at not in odd and at < len(one):
                found += 1
                event = orjson.loads(text)
                names = json.loads(text, object_pairs_hook=lambda pairs: [key for key, _ in pairs])
                assert all(names.count(key) == 1 for key in ("node_id", "ts_utc", "event_id", "source"))
                assert event["node_id"] == "n"
                assert what_is_wrong(text, "n") is None
            at += len(text) + 1
        assert found == events


def bundle(data: bytes) -> None:
    """Bytes as manifest and sums of a folder."""
    folder = fresh("bundle")
    first, _, second = data.partition(b"\xff\xff")
    (folder / "manifest.json").write_bytes(first)
    (folder / "SHA256SUMS").write_bytes(second)
    check(folder)


def index(data: bytes) -> None:
    """Bytes as the indexes of a store and of an outbox, and as the notes of a bundle's lines."""
    folder = fresh("index")
    store = Store(folder)
    store.folder.mkdir(parents=True)
    (store.folder / ".import_index.json").write_bytes(data)
    assert store.load() == []
    node = Node(folder, "n-1")
    node.outbox.mkdir(parents=True)
    (node.outbox / ".exported_index.json").write_bytes(data)
    load(node)
    store.signers.write_bytes(data)
    try:
        signers_of(store.signers, "n-1")
    except ConfigError:
        return


def zip_archive(data: bytes) -> None:
    """Bytes as a .zip."""
    _archive(data, "zip")


def tar_archive(data: bytes) -> None:
    """Bytes as a .tar.gz."""
    _archive(data, "tar.gz")


def _archive(data: bytes, suffix: str) -> None:
    folder = fresh(suffix)
    path = folder / f"sent.{suffix}"
    path.write_bytes(data)
    try:
        with members_of(path, folder / "tar") as members:
            for member in members[:20]:
                read = 0
                try:
                    for block in member.blocks():
                        read += len(block)
                        assert read <= member.size
                        if read > 1 << 20:
                            break
                except ArchiveError:
                    continue
    except ArchiveError:
        pass
    room = folder / "room"
    room.mkdir()
    for copied in bring(path, room):
        assert all(is_safe_filename(one.name) and one.is_file() for one in copied.folder.iterdir())
    assert sorted(one.name for one in room.iterdir()) == ["bundle"]


def whole(data: bytes) -> None:
    """Bytes as a .zip that is imported."""
    folder = fresh("whole")
    (folder / "sent.zip").write_bytes(data)
    result = import_bundle(Store(folder / "hub"), folder / "sent.zip", policy=Policy(accept_bad_lines=True))
    assert result.outcome in ("imported", "refused")


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one
    for one in (manifest, receipt, sums, name, line, chunk, scan, bundle, index, zip_archive, tar_archive, whole)
}

if __name__ == "__main__":
    import atheris

    target = TARGETS[sys.argv.pop(1)]
    atheris.instrument_all()

    def run(data: bytes) -> None:
        """One input."""
        try:
            target(data)
        except UnicodeDecodeError:
            if target is not name:
                raise

    atheris.Setup(sys.argv, run)
    atheris.Fuzz()
