"""Fuzz every reader of foreign bytes with Hypothesis: random bytes, and real files with changed bytes."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import fuzz_readers
import pytest
from fuzz_readers import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundles import foreign, make_bundle, make_node
from calyx_logging.bundle.archive import write_archive
from calyx_logging.hub.importer import import_bundle
from calyx_logging.hub.receipts import write_receipt
from calyx_logging.hub.store import Store

TOKENS = st.sampled_from(
    [
        *(letter.encode() for letter in '{}[]",:\n\0\\/'),
        *(b"..", b"null", b"-1", b"1e999", b"\xff", b"PK", b'"node_id"', b'"chunks"', b"\\ud800", b"\xef\xbb\xbf"),
        *(b"9" * 25, b"[" * 50, b"\xf0\x9f\x98\x80", b"  "),
    ]
)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    """Make real files of each kind."""
    folder = tmp_path_factory.mktemp("seeds")
    made = make_bundle(make_node(folder, "n-1"), range(3))
    files = {path.name: path.read_bytes() for path in made.iterdir()}
    old = {path.name: path.read_bytes() for path in foreign(folder / "old", 2).iterdir()}
    chunks = [data for name, data in (*files.items(), *old.items()) if name.endswith(".jsonl")]
    for suffix in ("zip", "tar.gz"):
        write_archive(made, folder / f"sent.{suffix}")
    store = Store(folder)
    import_bundle(store, made)
    store.catalog.write_index()
    index = (store.folder / ".import_index.json").read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return {
        "manifest": [files["manifest.json"], old["manifest.json"]],
        "receipt": [write_receipt(store, "n-1").path.read_bytes()],
        "sums": [files["SHA256SUMS"]],
        "name": [path.name.encode() for path in made.iterdir()],
        "line": [line for data in chunks for line in data.splitlines(keepends=True)],
        "chunk": chunks,
        "scan": [data.replace(b"n-1", b"n") for data in chunks],
        "bundle": [files["manifest.json"] + b"\xff\xff" + files["SHA256SUMS"]],
        "index": [index, b'{"exported": ["x.jsonl"], "bundles": [{"timestamp": "x", "manifest_sha256": "y"}]}'],
        "zip_archive": [(folder / "sent.zip").read_bytes(), packed.getvalue()],
        "tar_archive": [(folder / "sent.tar.gz").read_bytes()],
        "whole": [packed.getvalue()],
    }


def mutated(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """Replace some stretches of the bytes."""
    for place, length, new in changes:
        start = place % (len(data) + 1)
        data = data[:start] + new + data[start + length :]
    return data


CHANGES = st.lists(
    st.tuples(st.integers(0, 100_000), st.integers(0, 20), st.one_of(st.binary(max_size=8), TOKENS)), max_size=6
)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_readers_answer_whatever_the_bytes(
    name: str, seeds: dict[str, list[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reader returns a result or raises one of the library's own errors."""
    monkeypatch.setattr(fuzz_readers, "WORK", tmp_path)
    slow = name in ("whole", "zip_archive", "tar_archive", "index", "bundle")

    @settings(max_examples=60 if slow else 400, suppress_health_check=list(HealthCheck))
    @given(st.one_of(st.binary(max_size=300), st.builds(mutated, st.sampled_from(seeds[name]), CHANGES)))
    def check(data: bytes) -> None:
        try:
            TARGETS[name](data)
        except UnicodeDecodeError:
            assert name == "name"

    check()
