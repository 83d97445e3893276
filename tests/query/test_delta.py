"""The published Delta Lake table: other programs find the rows that we find, after each change of the table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bundles import foreign, make_bundle, make_node
from calyx_logging.hub.importer import import_bundle
from calyx_logging.hub.store import Store
from conftest import telemetry

pytest.importorskip("deltalake")
pytest.importorskip("duckdb")
pytest.importorskip("polars")

import polars

from calyx_logging.query import hub_table
from calyx_logging.query.in_force import folder_of
from calyx_logging.query.sql import run_sql


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "hub").mkdir()
    return Store(tmp_path / "hub")


def found_by_polars(store: Store) -> list[dict[str, Any]]:
    """As docs/query.md says."""
    lines = polars.scan_delta(str(folder_of(store)))
    events = lines.filter(polars.col("bad_line").is_null() & (polars.col("source") != "calyx_logging"))
    events = events.unique(["node_id", "identity"])
    return list(events.select("node_id", "message", "rest").sort("node_id", "message", "rest").collect().to_dicts())


def found_by_us(store: Store) -> list[dict[str, Any]]:
    sql = "SELECT node_id, message, CAST(rest AS VARCHAR) AS rest FROM events ORDER BY ALL"
    return run_sql(hub_table.connect(store, plain=True), sql).to_pylist()


def test_others_find_what_we_find(store: Store, tmp_path: Path) -> None:
    """Published, then imported, superseded and compacted; deleted, and damaged."""
    node = make_node(tmp_path, "n-1")
    bundles = [make_bundle(node, range(n, n + 3), second=n * 10) for n in range(0, 9, 3)]
    bundles += [foreign(tmp_path / str(count), count) for count in (2, 5)]
    import_bundle(store, bundles[0])
    done = telemetry("table", "--root", store.root, "--publish", "delta", "--json")
    assert json.loads(done.stdout)["delta_version"] == 1, done.stderr
    assert found_by_polars(store) == found_by_us(store)
    for bundle in bundles[1:]:
        assert telemetry("import", bundle, "--root", store.root).returncode == 0
        assert found_by_polars(store) == found_by_us(store)
    assert len(found_by_us(store)) == 9 + 5
    done = telemetry("table", "--root", store.root, "--compact")
    assert "Delta Lake table" in done.stdout, done.stderr
    assert found_by_polars(store) == found_by_us(store)
    for log in (folder_of(store) / "_delta_log").glob("*.json"):
        log.write_text("damaged")
    assert telemetry("table", "--root", store.root).returncode == 0
    assert found_by_polars(store) == found_by_us(store)
    shutil.rmtree(folder_of(store) / "_delta_log")
    assert telemetry("import", bundles[0], "--root", store.root).returncode == 0
    assert not (folder_of(store) / "_delta_log").exists()


def test_where_it_cannot_be_published(tmp_path: Path) -> None:
    """One line that says why; what was imported is in."""
    store = Store(tmp_path / "a %20 hub")
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(3))
    assert telemetry("import", bundle, "--root", store.root).returncode == 2  # there is no such folder
    store.root.mkdir()
    assert telemetry("import", bundle, "--root", store.root).returncode == 0
    done = telemetry("table", "--root", store.root, "--publish", "delta")
    assert (done.returncode, done.stderr.count("\n"), "%" in done.stderr) == (4, 1, True), done.stderr
    assert len(found_by_us(store)) == 3
