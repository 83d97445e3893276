"""The hub notes refused bundles until they are imported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bundles import make_bundle, make_node
from calyx_logging.hub import rejections
from calyx_logging.hub.importer import import_bundle
from calyx_logging.hub.rejections import refusals
from calyx_logging.hub.store import Store
from conftest import telemetry


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "hub").mkdir()
    return Store(tmp_path / "hub")


def spoiled(bundle: Path, target: Path) -> Path:
    shutil.copytree(bundle, target)
    chunk = next(target.glob("*.jsonl"))
    chunk.write_bytes(chunk.read_bytes().replace(b"event", b"evenT", 1))
    return target


def test_a_refusal_is_noted_with_its_faults(store: Store, tmp_path: Path) -> None:
    """The note holds source, node and faults; there is one note, no matter how many attempts."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(3))
    bad = spoiled(bundle, tmp_path / "stick" / bundle.name)
    for _ in range(2):
        assert import_bundle(store, bad, clock=lambda: 1_760_000_000.0).outcome == "refused"
    (one,) = refusals(store)
    assert (one.source, one.node_id, one.timestamp) == (str(bad), "n-1", bundle.name)
    assert one.refused_at == "2025-10-09T08:53:20.000000+00:00"
    assert one.fault_count == len(one.faults) == 1
    assert next(bad.glob("*.jsonl")).name in one.faults[0]


def test_it_is_settled_by_the_bundle_whole(store: Store, tmp_path: Path) -> None:
    """This holds for a bundle from the same place and from another one."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(3))
    bad = spoiled(bundle, tmp_path / "stick" / bundle.name)
    import_bundle(store, bad)
    import_bundle(store, bundle)
    assert refusals(store) == []
    shutil.rmtree(bad)
    shutil.copytree(bundle, bad)
    assert list(store.refused.iterdir())
    import_bundle(store, bad)
    assert not list(store.refused.iterdir())


def test_a_dry_run_notes_nothing(store: Store, tmp_path: Path) -> None:
    """It only says what would happen."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(3))
    assert import_bundle(store, spoiled(bundle, tmp_path / "bad"), dry_run=True).outcome == "refused"
    assert not store.refused.exists()


def test_notes_are_bounded_and_need_not_be_whole(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go; what is no note is passed over."""
    monkeypatch.setattr(rejections, "_MAX_NOTES", 3)
    empty = tmp_path / "empty"
    for n in range(5):
        (empty / str(n)).mkdir(parents=True)
        (empty / str(n) / "manifest.json").write_bytes(b"{")
        assert import_bundle(store, empty / str(n), clock=lambda n=n: 1_760_000_000.0 + n).outcome == "refused"  # type: ignore[misc]
    assert [one.source for one in refusals(store)] == [str(empty / str(n)) for n in (4, 3, 2)]
    assert {one.node_id for one in refusals(store)} == {None}
    for path in store.refused.iterdir():
        path.write_bytes(b'{"source": 1}')
    assert refusals(store) == []


def test_an_import_does_not_fail_for_a_note(store: Store, tmp_path: Path) -> None:
    """A note that cannot be written is a warning."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(3))
    store.folder.mkdir(parents=True)
    store.refused.write_bytes(b"")
    result = import_bundle(store, spoiled(bundle, tmp_path / "bad"))
    assert result.outcome == "refused"
    assert any("cannot be noted" in warning for warning in result.warnings)
    assert import_bundle(store, bundle).outcome == "imported"


def test_the_audit_names_refused_bundles(store: Store, tmp_path: Path) -> None:
    """Until they arrive whole: a node whose newest bundle was refused is not silently complete."""
    node = make_node(tmp_path, "n-1")
    first, second = (make_bundle(node, range(n, n + 2), second=n * 10) for n in (0, 2))
    assert telemetry("import", first, "--root", store.root).returncode == 0
    good = tmp_path / "good"
    shutil.copytree(second, good)
    (chunk,) = second.glob("*.jsonl")
    chunk.write_bytes(chunk.read_bytes()[:-10])
    assert telemetry("import", second, "--root", store.root).returncode == 1
    done = telemetry("audit", "--root", store.root)
    assert (done.returncode, "refused, and not imported since: a bundle of n-1" in done.stdout) == (0, True), (
        done.stdout
    )
    (audit,) = json.loads(telemetry("audit", "--root", store.root, "--json").stdout)
    assert [one["source"] for one in audit["refused"]] == [str(second)]
    for command in ("audit", "status"):
        assert telemetry(command, "--root", store.root, "--strict").returncode == 1
    assert telemetry("import", good, "--root", store.root).returncode == 0
    done = telemetry("audit", "--root", store.root, "--strict")
    assert (done.returncode, "refused" in done.stdout) == (0, False), done.stdout
