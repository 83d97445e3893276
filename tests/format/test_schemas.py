"""The shipped JSON Schemas match what is written, and accept only what the readers accept."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundles import make_bundle, make_node
from calyx_logging import Node
from calyx_logging.errors import CalyxError, ManifestError
from calyx_logging.format.manifest import Manifest
from calyx_logging.format.receipt import Receipt
from calyx_logging.hub.importer import import_bundle
from calyx_logging.hub.receipts import write_receipt
from calyx_logging.hub.store import Store
from calyx_logging.outbox.export import export
from conftest import close_logging, lines_of
from faults.disk import Failing, through

jsonschema = pytest.importorskip("jsonschema")
NAMES = ["event", "manifest", "exported_index", "import_index", "receipt"]


def schema(name: str) -> Any:
    document = json.loads((files("calyx_logging") / "format" / "schemas" / f"{name}.schema.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


def test_they_are_all_here() -> None:
    """All schemas exist and are named in the format's document."""
    folder = files("calyx_logging") / "format" / "schemas"
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.schema.json" for name in NAMES)


def test_what_is_written_is_valid(tmp_path: Path, configure: Callable[..., logging.Logger], node: Node) -> None:
    """Every kind of line and every file for other programs is valid by its schema."""
    logger = configure(max_event_bytes=4096)
    logger.info("plain", extra={"n": 1, "level": "shadowed", "nan": float("nan"), "large": "x" * 9000})
    try:
        try:
            raise ValueError("inner")
        except ValueError as error:
            raise ExceptionGroup("several", [error, TypeError("other")]) from error
    except ExceptionGroup:
        logger.exception("failed")
    with through(Failing(1, 28, forever=True)):
        for _ in range(3):
            logger.info("lost")
    logger.info("works again")
    close_logging()
    event = schema("event")
    lines = lines_of(node.outbox)
    assert {"gap", "end"} <= {line.get("control") for line in lines}
    assert any("exception" in line for line in lines)
    for line in lines:
        event.validate(line)
    bundle = export(node).bundle
    assert bundle is not None
    store = Store(tmp_path)
    import_bundle(store, bundle)
    store.catalog.write_index()
    receipt = write_receipt(store, node.id).path
    for name, path in (
        ("manifest", bundle / "manifest.json"),
        ("exported_index", node.outbox / ".exported_index.json"),
        ("import_index", store.folder / ".import_index.json"),
        ("receipt", receipt),
    ):
        schema(name).validate(json.loads(path.read_bytes()))


@pytest.mark.parametrize("name", NAMES)
def test_they_are_no_blank_cheques(name: str) -> None:
    """The schemas refuse an empty object, another type, and a newer version."""
    checker = schema(name)
    for document in ({}, [], None, "x", {"manifest_version": 2}, {"receipt_version": 2}):
        assert not checker.is_valid(document)


def paths_of(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to every value in a document."""
    yield path
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield from paths_of(value, (*path, key))


MANIFEST = {
    "manifest_version": 1,
    "node_id": "n-1",
    "exported_at": "2026-11-22T06:49:12.521071+00:00",
    "timestamp": "20261122_064912",
    "previous_manifest_sha256": "0" * 64,
    "chunks": [
        {
            "filename": "20261122_064912__bench__3f9a1c20-0000.jsonl",
            "sha256": "a" * 64,
            "bytes": 123,
            "events": 4,
            "first_ts_utc": "2026-11-22T06:49:12.521071+00:00",
            "last_ts_utc": "2026-11-22T06:49:12.521071+00:00",
            "writer": "3f9a1c20",
            "first_seq": 0,
            "last_seq": 3,
        }
    ],
    "open_chunks": ["x"],
    "covers": [{"manifest_sha256": "c" * 64, "previous_manifest_sha256": None}],
}
RECEIPT = {
    "receipt_version": 1,
    "node_id": "n-1",
    "written_at": "2026-11-22T06:49:12.521071+00:00",
    "chunks": ["a" * 64],
    "writers": {"3f9a1c20": 3},
    "bundles": ["b" * 64],
}
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10**6), st.text(max_size=70), st.just([]), st.just({}), st.just([[3]])
)


@pytest.mark.parametrize(
    ("name", "document", "parse"), [("manifest", MANIFEST, Manifest.parse), ("receipt", RECEIPT, Receipt.parse)]
)
def test_readers_take_all_that_is_valid(name: str, document: Any, parse: Callable[[bytes], object]) -> None:
    """With any value at any place, the reader reads what the schema accepts, and raises only its documented error."""
    checker = schema(name)
    checker.validate(document)
    places = list(paths_of(document))[1:]

    @given(st.sampled_from(places), VALUES)
    def check(place: tuple[Any, ...], value: Any) -> None:
        changed = copy.deepcopy(document)
        inside = changed
        for key in place[:-1]:
            inside = inside[key]
        inside[place[-1]] = value
        try:
            parse(json.dumps(changed).encode())
        except ManifestError:
            assert not checker.is_valid(changed), changed
        except CalyxError as error:
            pytest.fail(repr(error))

    check()


def test_first_generation_manifests_are_told_apart(tmp_path: Path) -> None:
    """First-generation manifests are read, but this version's schema refuses them."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(1))
    old = json.loads((bundle / "manifest.json").read_bytes())
    del old["manifest_version"]
    assert Manifest.parse(json.dumps(old).encode()).version == 0
    assert not schema("manifest").is_valid(old)
