"""The stored table: the files in force hold every event once, regardless of process, order and kills."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from answers import check_answers_of
from bundles import START, foreign, make_bundle, make_node, reseal
from calyx_logging.core import files
from calyx_logging.errors import StorageError
from calyx_logging.hub.importer import Policy, import_bundle
from calyx_logging.hub.store import Store
from conftest import python, telemetry, tree

pytest.importorskip("ibis")
pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

from pyarrow import parquet

from calyx_logging.query import hub_table, in_force, table
from calyx_logging.query.in_force import folder_of, parts_of
from calyx_logging.query.named import run_named
from calyx_logging.query.rows import TABLE_VERSION, rows_in
from calyx_logging.query.sql import run_sql
from fleet_data import Truth, differences, make_fleet

CHUNKS, EVENTS = 24, 30


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    """Bundles of two nodes, with all that can be wrong with them, and what is in them."""
    folder = tmp_path_factory.mktemp("fleet")
    return folder / "bundles", make_fleet(folder, 2, CHUNKS, EVENTS, 1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "hub").mkdir()
    return Store(tmp_path / "hub")


def import_all(store: Store, folder: Path, order: random.Random | None = None) -> None:
    sources = sorted(path.parent for path in folder.rglob("manifest.json"))
    if order is not None:
        order.shuffle(sources)
    for source in sources:
        result = import_bundle(store, source, policy=Policy(accept_bad_lines=True))
        assert result.outcome == "imported", result.faults


def rows(store: Store, sql: str) -> list[dict[str, Any]]:
    return run_sql(hub_table.connect(store, warn=pytest.fail), sql).to_pylist()


def check_answers(store: Store, truth: Truth) -> None:
    """Every named query, against what the generator counted."""
    db = hub_table.connect(store, warn=pytest.fail)
    check_answers_of(db, truth)


def test_the_answers_are_those_counted(fleet: tuple[Path, Truth], store: Store) -> None:
    """Loose, compacted, and with a bundle that comes after the compaction; nothing is made twice."""
    folder, truth = fleet
    late = sorted((folder / "node-0001").iterdir())[-1]
    import_all(store, folder)
    check_answers(store, truth)
    again = table.refresh(store, store.nodes(), check=True)
    assert (again.files, again.warnings) == (0, [])
    for node_id in store.nodes():
        months = {part.month for part in parts_of(store)[node_id]}
        assert {part.month for part in hub_table.compact(store, node_id)} == months
        assert hub_table.compact(store, node_id) == []
    check_answers(store, truth)
    assert all(part.compacted for parts in parts_of(store).values() for part in parts)
    assert import_bundle(store, late, policy=Policy(accept_bad_lines=True)).outcome == "already imported"
    check_answers(store, truth)


def test_what_is_wrong_is_seen(fleet: tuple[Path, Truth], store: Store) -> None:
    """The counts tell a bundle that is missing from one that is there."""
    folder, truth = fleet
    import_all(store, folder)
    shutil.rmtree(sorted(store.folder.glob("node-0001/*"))[0])
    table.refresh(store, store.nodes(), check=True)
    found = differences(lambda name: run_named(hub_table.connect(store), name).to_pylist(), truth)
    assert {text.partition(":")[0] for text in found} >= {"events by hour", "runs", "gaps"}


def test_any_order_gives_the_same_files(fleet: tuple[Path, Truth], store: Store, tmp_path: Path) -> None:
    """Bundle by bundle in any order, all at once, by one process or several: the same names and the same rows."""
    folder, truth = fleet
    import_all(store, folder)
    table.refresh(store, store.nodes())
    other = Store(tmp_path / "other")
    other.root.mkdir()
    sources = sorted(path.parent for path in folder.glob("*/*/manifest.json"))
    random.Random(5).shuffle(sources)
    for source in sources:
        import_bundle(other, source, policy=Policy(accept_bad_lines=True))
        table.refresh(other, other.nodes())

    def held(one: Store) -> tuple[list[str], int]:
        parts = [part for parts in parts_of(one).values() for part in parts]
        return sorted(sha256 for part in parts for sha256 in part.chunks), sum(part.rows for part in parts)

    assert held(other) == held(store)
    check_answers(other, truth)


def test_a_bundle_after_compaction(fleet: tuple[Path, Truth], store: Store) -> None:
    """Its repeated events are found beside the compacted ones, and again when they are compacted, too."""
    folder, truth = fleet
    bundles = sorted((folder / "node-0000").iterdir()) + sorted((folder / "node-0001").iterdir())
    late = bundles.pop()
    for bundle in bundles:
        import_bundle(store, bundle, policy=Policy(accept_bad_lines=True))
    table.refresh(store, store.nodes())
    hub_table.compact(store, "node-0001")
    import_bundle(store, late, policy=Policy(accept_bad_lines=True))
    check_answers(store, truth)
    assert sorted(part.compacted for part in parts_of(store)["node-0001"]) == [False, True]
    for node_id in store.nodes():
        assert hub_table.compact(store, node_id)
    check_answers(store, truth)


@pytest.mark.slow
def test_a_pool_makes_the_same(fleet: tuple[Path, Truth], store: Store) -> None:
    """Import and table, by spawned processes."""
    folder, truth = fleet
    script = f"""
        import sys
        from pathlib import Path
        from calyx_logging.query import executors
        from calyx_logging.scripts.cli import main
        executors._WORTH_A_POOL = 0
        if __name__ == "__main__":
            sys.argv = ["calyx-telemetry", "import", {str(folder)!r}, "--root", {str(store.root)!r}, "--jobs", "2",
                        "--accept-bad-lines", "--json"]
            main()
    """
    done = python(script)
    assert done.returncode == 0, done.stderr
    outcomes = [one["outcome"] for one in json.loads(done.stdout)]
    assert outcomes == ["imported"] * len(list(folder.glob("*/*")))
    assert in_force.behind(store) == []
    check_answers(store, truth)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")
def test_killed_at_any_moment(fleet: tuple[Path, Truth], store: Store, tmp_path: Path) -> None:
    """Table and compaction, killed at each call that changes the disk: what is in force is right, and is mended."""
    folder, truth = fleet
    import_all(store, folder)
    script = f"""
        import os, sys
        from pathlib import Path
        from calyx_logging.core import files
        from calyx_logging.hub.catalog import Catalog
        from calyx_logging.query import hub_table, in_force, table
        from calyx_logging.hub.store import Store
        left = int(sys.argv[1])
        def counted(function):
            def call(*args, **kwargs):
                global left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), 9)
                result = function(*args, **kwargs)
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), 9)
                return result
            return call
        for name in ("write_new", "write_file", "rename_over", "remove", "replace_file"):
            setattr(files, name, counted(getattr(files, name)))
        Catalog._writable = counted(Catalog._writable)
        in_force.parts_of = hub_table.parts_of = table.parts_of = counted(in_force.parts_of)  # also in a transaction
        store = Store(Path({str(store.root)!r}))
        table.refresh(store, store.nodes())
        for node_id in store.nodes():
            hub_table.compact(store, node_id)
        print("done")
    """
    ended, kills = False, 0
    while not ended:
        done = python(script, str(1 + 5 * kills))
        ended = "done" in done.stdout
        kills += not ended
        assert ended or done.returncode == -9, done.stderr
        if kills % 4 == 0 or ended:
            for part in (part for parts in parts_of(store).values() for part in parts):
                assert rows_in(folder_of(store) / part.name, whole=True) == part.rows
        assert kills < 100
    assert kills > 3
    check_answers(store, truth)


@pytest.mark.slow
def test_what_is_damaged_is_made_again(fleet: tuple[Path, Truth], store: Store) -> None:
    """Files that are lost, cut, altered, of another form: --check finds them."""
    folder, truth = fleet
    import_all(store, folder)
    table.refresh(store, store.nodes())
    parquet = sorted(folder_of(store).glob("*/[0-9]*.parquet"))
    parquet[0].unlink()
    parquet[1].write_bytes(parquet[1].read_bytes()[:-100])
    parquet[2].write_bytes(b"PAR1 nothing")
    data = bytearray(parquet[3].read_bytes())
    data[len(data) // 3] ^= 0xFF
    parquet[3].write_bytes(data)
    shutil.copy(parquet[5], parquet[4])  # whole, and another's
    done = telemetry("table", "--check", "--root", store.root, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["made"] == 5
    check_answers(store, truth)
    shutil.rmtree(folder_of(store))
    check_answers(store, truth)
    next(folder_of(store).glob("node_id=node-0001/*.parquet")).unlink()  # a query sees that by itself
    check_answers(store, truth)


def test_a_damaged_file_is_one_line(fleet: tuple[Path, Truth], store: Store) -> None:
    """A query reports it in one line; `table --check` repairs it."""
    folder, truth = fleet
    import_all(store, folder / "node-0000")
    table.refresh(store, store.nodes())
    damaged = sorted(folder_of(store).glob("*/[0-9]*.parquet"))[1]
    good = damaged.read_bytes()
    damaged.write_bytes(good[:-50])
    assert telemetry("query", "--from", "hub", "--root", store.root, "SELECT count(*) FROM events").returncode == 0
    assert damaged.stat().st_size == len(good)  # a query sees that one is cut
    damaged.write_bytes(good[:-50] + bytes(50))
    done = telemetry("query", "--from", "hub", "--root", store.root, "SELECT count(*) FROM events")
    assert (done.returncode, done.stderr.count("\n")) == (4, 1), done.stderr
    assert "the table cannot be read" in done.stderr
    assert "table --check" in done.stderr
    assert telemetry("table", "--check", "--root", store.root).returncode == 0
    import_all(store, folder / "node-0001")
    check_answers(store, truth)


def test_a_chunk_that_is_damaged_has_no_rows(fleet: tuple[Path, Truth], store: Store) -> None:
    """Every run reports it until the chunk is repaired."""
    bundle = sorted((fleet[0] / "node-0000").iterdir())[0]
    import_bundle(store, bundle, policy=Policy(accept_bad_lines=True))
    chunk = sorted(store.folder.glob("node-0000/*/*.jsonl"))[0]
    good = chunk.read_bytes()
    chunk.write_bytes(good.replace(b"llama", b"lamma", 1))
    said: list[str] = []
    for _ in range(2):
        hub_table.connect(store, warn=said.append)
    assert [f"{chunk} is damaged" in text for text in said] == [True, True]
    done = telemetry("table", "--root", store.root)
    assert (done.returncode, "is damaged" in done.stderr) == (1, True)
    chunk.write_bytes(good)
    assert telemetry("table", "--root", store.root).returncode == 0
    assert rows(store, "SELECT count(DISTINCT chunk) AS n FROM lines") == [{"n": len(list(bundle.glob("*.jsonl")))}]


def test_a_chunk_that_has_grown(store: Store, tmp_path: Path) -> None:
    """Its longer state is in force in the place of the shorter one, compacted or not; the old file goes in time."""
    import_bundle(store, foreign(tmp_path / "old", 3))
    assert rows(store, "SELECT count(*) AS n FROM lines") == [{"n": 3}]
    hub_table.compact(store, "old-1")
    import_bundle(store, foreign(tmp_path / "new", 5))
    assert rows(store, "SELECT count(*) AS n FROM lines") == [{"n": 5}]
    assert len(parts_of(store)["old-1"]) == 1
    retired = [name for (name,) in store.catalog.rows("SELECT name FROM files WHERE retired IS NOT NULL")]
    assert len(retired) == 2
    assert all((folder_of(store) / name).exists() for name in retired)
    with store.catalog.changing() as change:
        change.execute("UPDATE files SET retired = ? WHERE retired IS NOT NULL", [time.time() - 1000])
    left = folder_of(store) / "node_id=old-1" / ".x.tmp"
    left.write_text("left by one that died")
    os.utime(left, (START, START))
    table.refresh(store, ["old-1"], check=True)
    assert len(list((folder_of(store) / "node_id=old-1").iterdir())) == 1


def test_two_at_once(fleet: tuple[Path, Truth], store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that another process puts in force meanwhile stay."""
    folder, truth = fleet
    bundles = sorted((folder / "node-0000").iterdir())
    import_bundle(store, bundles[0], policy=Policy(accept_bad_lines=True))
    made = table._find_out_whether_writable

    def late(*args: Any) -> None:
        monkeypatch.setattr(table, "_find_out_whether_writable", made)
        for bundle in bundles[1:]:
            import_bundle(store, bundle, policy=Policy(accept_bad_lines=True))
        table.refresh(store, store.nodes())
        hub_table.compact(store, "node-0000")
        made(*args)

    monkeypatch.setattr(table, "_find_out_whether_writable", late)
    table.refresh(store, store.nodes())
    assert in_force.behind(store) == []
    assert [part.compacted for part in parts_of(store)["node-0000"]] == [True]
    import_all(store, folder / "node-0001")
    check_answers(store, truth)


def test_a_file_that_cannot_be_written(fleet: tuple[Path, Truth], store: Store) -> None:
    """A query takes the rows that a failed write left out of the table from the chunks; a later one mends the table."""
    folder, truth = fleet
    import_all(store, folder)
    table.refresh(store, store.nodes())
    in_the_way = folder_of(store) / parts_of(store)["node-0001"][0].name
    shutil.rmtree(folder_of(store))
    in_the_way.mkdir(parents=True)
    warnings: list[str] = []
    check_answers_of(hub_table.connect(store, warn=warnings.append), truth)
    assert len(warnings) == 1
    assert str(in_the_way) in warnings[0]
    assert in_force.behind(store) == ["node-0001"]
    in_the_way.rmdir()
    check_answers(store, truth)
    assert in_force.behind(store) == []


def test_a_store_that_cannot_be_written(
    fleet: tuple[Path, Truth], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queries are answered all the same, and say so; `table` says it in one line."""
    folder, truth = fleet
    import_all(store, folder)
    table.refresh(store, ["node-0000"])

    def refuse(path: Path, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(files, "write_new", refuse)
    monkeypatch.setattr(files, "replace_file", refuse)
    said: list[str] = []
    db = hub_table.connect(store, warn=said.append)
    check_answers_of(db, truth)
    assert len(said) == 1
    assert "made for this query alone" in said[0]
    with pytest.raises(StorageError, match="cannot write the table"):
        table.refresh(store, store.nodes())


def test_the_command(fleet: tuple[Path, Truth], store: Store, tmp_path: Path) -> None:
    """`table` of one node or all, with --json; what is wrong is one line; import leaves a table."""
    folder, _ = fleet
    done = telemetry("import", folder, "--root", store.root, "--accept-bad-lines", "--no-table")
    assert done.returncode == 0, done.stderr
    assert not folder_of(store).exists()
    done = telemetry("table", "node-0000", "--root", store.root, "--compact", "--json")
    said = json.loads(done.stdout)
    assert (said["compacted"], said["files"], said["warnings"]) == (["node-0000"], 1, [])
    done = telemetry("table", "--root", store.root, "--compact", "--jobs", "1")
    assert "2 files" in done.stdout, done.stderr
    assert "1 node compacted" in done.stdout
    before = tree(folder_of(store))
    assert telemetry("import", folder, "--root", store.root, "--accept-bad-lines").returncode == 0
    assert tree(folder_of(store)) == before
    for args, code, what in (
        (["nobody"], 2, "no node 'nobody'"),
        (["--memory", "much", "--anew", "--compact"], 2, "the database does not start"),
        (["--master", "spark://x:1"], 2, "--master is for --engine spark"),
    ):
        done = telemetry("table", *args, "--root", store.root)
        assert (done.returncode, what in done.stderr) == (code, True), done.stderr
    done = telemetry("query", "--from", "hub", "--root", store.root, "--memory", "much", "SELECT 1")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


def test_import_leaves_the_table(store: Store, tmp_path: Path) -> None:
    """Import makes the table of the new chunks if the extra is installed."""
    bundle = make_bundle(make_node(tmp_path, "n-1"), range(3))
    assert telemetry("import", bundle, "--root", store.root).returncode == 0
    assert [part.rows for part in parts_of(store)["n-1"]] == [4]


@pytest.mark.slow
def test_a_bit_that_has_flipped(fleet: tuple[Path, Truth], store: Store) -> None:
    """`--check` finds a flipped bit anywhere in a table file, loose or compacted."""
    folder, truth = fleet
    import_all(store, folder)
    table.refresh(store, store.nodes())
    hub_table.compact(store, "node-0000")
    rng = random.Random(4)
    for pattern in ("*-set-*.parquet", "????????_*.parquet"):
        for _ in range(5):
            tables = parts_of(store).values()
            names = [part.name for parts in tables for part in parts]
            name = rng.choice([name for name in names if Path(name).match(pattern)])
            path = folder_of(store) / name
            data = bytearray(path.read_bytes())
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(data)
            assert table.refresh(store, store.nodes(), check=True).files >= 1
            hub_table.compact(store, "node-0000")
    check_answers(store, truth)


def test_what_is_not_in_the_store_any_more(fleet: tuple[Path, Truth], store: Store) -> None:
    """A chunk: said; one that was damaged later: said by --check, its rows stay; a bundle that was taken out: gone."""
    folder, _ = fleet
    import_all(store, folder)
    table.refresh(store, store.nodes())
    chunks = sorted(store.folder.glob("node-0000/*/*.jsonl"))
    good = chunks[1].read_bytes()
    chunks[1].write_bytes(good.replace(b"llama", b"lamma"))
    hub_table.compact(store, "node-0000")
    rows_before = rows(store, "SELECT count(*) AS n FROM lines")
    for option in ("--check", "--anew", "--check"):
        done = telemetry("table", option, "--root", store.root)
        assert (done.returncode, f"{chunks[1]} is damaged" in done.stderr) == (1, True), done.stderr
        assert rows(store, "SELECT count(*) AS n FROM lines") == rows_before
    chunks[1].write_bytes(good)
    chunks[0].unlink()
    done = telemetry("table", "--check", "--root", store.root)
    assert (done.returncode, f"{chunks[0].name} of bundle" in done.stderr) == (1, True), done.stderr
    taken_out = chunks[-1].parent
    shutil.rmtree(taken_out)
    store.catalog.write_index()
    index = store.folder / ".import_index.json"
    document = json.loads(index.read_text())
    document["imports"] = [one for one in document["imports"] if one["export_folder"] != taken_out.name]
    index.write_text(json.dumps(document))
    db = hub_table.connect(Store(store.root))
    found = run_sql(db, f"SELECT count(*) AS n FROM lines WHERE bundle = '{taken_out.name}' AND node_id = 'node-0000'")
    assert found.to_pylist() == [{"n": 0}]


def damage_catalog(store: Store, how: str) -> None:
    """Do to a catalog that nobody has open what disks, people and other programs do."""
    path = store.catalog.path
    if how == "lost":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    elif how == "overwritten":
        data = path.read_bytes()
        path.write_bytes(data[:4096] + bytes(len(data) - 4096))
    elif how == "text":
        path.write_text("not a database at all" * 100)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "a folder":
        path.unlink()
        path.mkdir()
    elif how == "another program's":
        path.unlink()
        with closing(sqlite3.connect(path)) as other:
            other.executescript("CREATE TABLE bundles (a, b); PRAGMA user_version = 1")
    else:
        shutil.copy(path, path.with_name("elsewhere"))
        path.unlink()
        path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize("how", ["lost", "cut", "overwritten", "text", "empty", "another program's", "a link"])
def test_without_the_catalog(fleet: tuple[Path, Truth], tmp_path: Path, how: str) -> None:
    """Bundles, and what was imported since the table was made, are in it all the same; audits only read."""
    folder, truth = fleet
    root = tmp_path / "hub"
    root.mkdir()
    sources = sorted(path.parent for path in folder.glob("*/*/manifest.json"))
    store = Store(root)
    for source in sources[:-1]:
        import_bundle(store, source, policy=Policy(accept_bad_lines=True))
    table.refresh(store, store.nodes())
    import_bundle(store, sources[-1], policy=Policy(accept_bad_lines=True))
    with store.catalog.changing() as change:
        change.execute("UPDATE bundles SET listed = listed")
    store.catalog.close()
    damage_catalog(store, how)
    before = tree(root)
    assert telemetry("audit", "--root", root, "--json").returncode == 1  # this fleet has lost events
    assert tree(root) == before
    check_answers(Store(root), truth)
    again = import_bundle(Store(root), sources[-1], policy=Policy(accept_bad_lines=True))
    assert again.outcome == "already imported"
    assert telemetry("table", "--root", root).returncode == 0
    check_answers(Store(root), truth)
    assert store.catalog.path.is_file()
    assert not store.catalog.path.is_symlink()


def test_a_catalog_of_a_newer_version(store: Store, tmp_path: Path) -> None:
    """It is left alone: queries are answered from the chunks, and what would change it says so in one line."""
    node = make_node(tmp_path, "n-1")
    first, second = (make_bundle(node, range(n, n + 3), second=n * 10) for n in (0, 3))
    import_bundle(store, first)
    store.catalog.close()
    with closing(sqlite3.connect(store.catalog.path)) as other:
        other.execute("PRAGMA user_version = 99")
    before = store.catalog.path.read_bytes()
    done = telemetry("import", second, "--root", store.root)
    assert (done.returncode, "newer version" in done.stderr) == (4, True), done.stderr
    done = telemetry("query", "--from", "hub", "--root", store.root, "SELECT count(*) AS n FROM events", "--json")
    assert (json.loads(done.stdout), done.stderr.count("\n")) == ([{"n": 3}], 1), done.stderr
    assert telemetry("audit", "--root", store.root).returncode == 0
    assert store.catalog.path.read_bytes() == before


BAD = (
    "DELETE FROM files WHERE name = (SELECT min(name) FROM files)",
    "UPDATE files SET retired = 1.0 WHERE name = (SELECT min(name) FROM files)",
    "UPDATE files SET version = 99",
    "UPDATE files SET chunks = '[\"x'",
    "UPDATE files SET chunks = x'ff00'",
    "UPDATE files SET name = x'ff' WHERE name = (SELECT min(name) FROM files)",
    "UPDATE files SET rows = 1, bytes = 'many'",
    "UPDATE nodes SET repeats = (SELECT min(name) FROM files), compared = 1",
    "UPDATE nodes SET repeats = x'01', compared = 1",
    "UPDATE nodes SET node_id = x'01'",
    "UPDATE bundles SET node_id = x'01'",
    "UPDATE bundles SET folder = CAST(x'ff' AS TEXT)",
    "UPDATE bundles SET manifest_sha256 = 'x', mark = 'y'",
    "UPDATE notes SET scan = x'00', bytes = 'x'",
    "DROP TABLE files",
    "DROP TABLE nodes",
    "DROP TABLE bundles",
    "DROP TABLE notes",
    "DELETE FROM nodes",
    "DELETE FROM bundles",
)


@pytest.mark.parametrize("sql", BAD)
def test_values_in_a_catalog_that_are_wrong(store: Store, tmp_path: Path, sql: str) -> None:
    """As a flipped bit would make them: no event is missing from an answer, and everything goes on."""
    node = make_node(tmp_path, "n-1")
    bundles = [make_bundle(node, range(n, n + 3), second=n * 10) for n in range(0, 12, 3)]
    for bundle in bundles[:3]:
        assert telemetry("import", bundle, "--root", store.root).returncode == 0
    with closing(sqlite3.connect(store.catalog.path)) as other, other:
        other.execute(sql)
    count = ("query", "--from", "hub", "--root", store.root, "SELECT count(*) AS n FROM events", "--json")
    for _ in range(2):
        done = telemetry(*count)
        assert json.loads(done.stdout) == [{"n": 9}], done.stderr
    assert telemetry("audit", "--root", store.root).returncode == 0
    done = telemetry("import", bundles[3], "--root", store.root)
    if done.returncode:  # it was noticed when it was about to be changed
        assert done.stderr.count("\n") == 1, done.stderr
        done = telemetry("import", bundles[3], "--root", store.root)
    assert done.returncode == 0, done.stderr
    assert telemetry("table", "--root", store.root).returncode == 0
    assert json.loads(telemetry(*count).stdout) == [{"n": 12}]


@pytest.mark.skipif(sys.platform == "win32", reason="links")
@pytest.mark.parametrize("where", ["", "node_id=n-1"])
def test_a_table_that_is_a_link(store: Store, tmp_path: Path, where: str) -> None:
    """Nothing is read or written where it leads; queries are answered, and the rest says what to do."""
    node = make_node(tmp_path, "n-1")
    first, second = (make_bundle(node, range(n, n + 3), second=n * 10) for n in (0, 3))
    import_bundle(store, first)
    table.refresh(store, ["n-1"])
    linked, elsewhere = folder_of(store) / where, tmp_path / "elsewhere"
    shutil.move(linked, elsewhere)
    linked.symlink_to(elsewhere)
    os.utime(next(elsewhere.rglob("*.parquet")), (0, 0))
    before = tree(elsewhere)
    assert telemetry("import", second, "--root", store.root).returncode == 0
    done = telemetry("query", "--from", "hub", "--root", store.root, "SELECT count(*) AS n FROM events", "--json")
    assert (json.loads(done.stdout), "symbolic link" in done.stderr) == ([{"n": 6}], True), done.stderr
    for option in ("--check", "--compact", "--anew"):
        done = telemetry("table", option, "--root", store.root)
        assert (done.returncode, "symbolic link" in done.stderr) == (4, True), done.stderr
    assert tree(elsewhere) == before
    linked.unlink()
    assert telemetry("table", "--root", store.root).returncode == 0
    assert rows(store, "SELECT count(*) AS n FROM events") == [{"n": 6}]


def test_a_chunk_that_is_put_back(store: Store, tmp_path: Path) -> None:
    """Its rows were left out while it was away; they are there again when it is, however it came."""
    node = make_node(tmp_path, "n-1")
    first, second = (make_bundle(node, range(n, n + 3), second=n * 10) for n in (0, 3))
    folder = import_bundle(store, first).folder
    assert folder is not None
    (chunk,) = folder.glob("*.jsonl")
    data = chunk.read_bytes()
    for back in ("imported", "copied"):
        chunk.unlink()
        assert telemetry("import", second, "--root", store.root).returncode == 0
        assert telemetry("table", "--root", store.root).returncode == 1
        if back == "imported":
            assert telemetry("import", first, "--root", store.root).returncode == 0
        else:
            chunk.write_bytes(data)
            assert telemetry("table", "--root", store.root).returncode == 0
        assert rows(store, "SELECT count(*) AS n FROM events") == [{"n": 6}]


def test_a_table_that_was_deleted(store: Store, tmp_path: Path) -> None:
    """The command makes it again."""
    import_bundle(store, make_bundle(make_node(tmp_path, "n-1"), range(3)))
    for _ in range(2):
        done = telemetry("table", "--root", store.root, "--json")
        assert json.loads(done.stdout)["made"] == 1
        shutil.rmtree(folder_of(store))


def test_names_in_a_catalog_that_lead_elsewhere(store: Store, tmp_path: Path) -> None:
    """No file outside the table is read or deleted, whatever the catalog says."""
    import_bundle(store, make_bundle(make_node(tmp_path, "n-1"), range(3)))
    table.refresh(store, ["n-1"])
    victim = store.root / "victim.parquet"
    victim.write_text("stays")
    with store.catalog.changing() as change:
        for name in ("../../../victim.parquet", "node_id=x/../../../../victim.parquet"):
            change.execute("INSERT INTO files VALUES (?, 'n-1', ?, 1, 1, '', '[]', 0, 1.0)", [name, TABLE_VERSION])
        change.execute("UPDATE files SET name = 'node_id=n-1/../../../../etc/passwd' WHERE retired IS NULL")
    table.refresh(store, ["n-1"], check=True)
    assert victim.read_text() == "stays"
    assert rows(store, "SELECT count(*) AS n FROM events") == [{"n": 3}]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hub*", "hub[1]", "hub'q", "hub?", "hub {a,b}", "hub %20"])
@pytest.mark.skipif(sys.platform == "win32", reason="names that Windows does not have")
def test_names_that_are_patterns(fleet: tuple[Path, Truth], tmp_path: Path, name: str) -> None:
    """A hub's folder may be named like a glob pattern: no other hub's rows are read."""
    folder, truth = fleet
    for one in ("hub1", "hubx", name):
        (tmp_path / one).mkdir()
        store = Store(tmp_path / one)
        import_all(store, folder)
        table.refresh(store, store.nodes())
    check_answers(store, truth)
    assert hub_table.compact(store, "node-0000")
    check_answers(store, truth)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and links")
def test_odd_files_in_the_table(fleet: tuple[Path, Truth], store: Store, tmp_path: Path) -> None:
    """A pipe or a link in the place of a file: nothing waits, nothing outside is read, and it is put right."""
    folder, truth = fleet
    import_all(store, folder)
    table.refresh(store, store.nodes())
    pipe, link = sorted(folder_of(store).glob("*/[0-9]*.parquet"))[:2]
    pipe.unlink()
    os.mkfifo(pipe)
    shutil.move(link, tmp_path / "elsewhere.parquet")
    link.symlink_to(tmp_path / "elsewhere.parquet")
    done = telemetry("table", "--check", "--root", store.root, "--json")
    assert (done.returncode, json.loads(done.stdout)["made"]) == (0, 2), done.stderr
    check_answers(store, truth)


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_no_query_looks_for_repeats_where_there_are_none(store: Store, tmp_path: Path) -> None:
    """A node is known to have none until a file of it comes in force that repeats an event of another."""
    node = make_node(tmp_path, "n-1")
    first, second = (make_bundle(node, range(n, n + 3), second=n * 10) for n in (0, 3))

    def known() -> list[dict[str, Any]] | None:
        paths = in_force.repeats_of(store, "n-1")
        return None if paths is None else [row for path in paths for row in parquet.read_table(path).to_pylist()]

    for n, bundle in enumerate((first, second), 1):
        import_bundle(store, bundle)
        table.refresh(store, ["n-1"])
        assert known() == []
        assert run_sql(hub_table.connect(store), "SELECT count(*) AS n FROM events").to_pylist() == [{"n": 3 * n}]
    (chunk,) = second.glob("*.jsonl")
    again = tmp_path / "again"
    shutil.copytree(second, again)
    other = again / chunk.name.replace("-0000", "-0007")
    (again / chunk.name).rename(other)
    other.write_bytes(other.read_bytes().splitlines(keepends=True)[1] + b"\n")  # recut: one event again
    reseal(again)
    result = import_bundle(store, again)
    assert (result.outcome, result.folder is not None) == ("imported", True)
    table.refresh(store, ["n-1"])
    where = {"node_id": "n-1", "bundle": result.folder.name, "chunk": other.name, "line": 1}
    assert known() == [where]
    for _ in range(2):
        assert run_sql(hub_table.connect(store), "SELECT count(*) AS n FROM events").to_pylist() == [{"n": 6}]
        hub_table.compact(store, "n-1")
    with store.catalog.changing() as change:  # as where it was not found out
        change.execute("UPDATE nodes SET compared = 0, repeats = ''")
    assert run_sql(hub_table.connect(store), "SELECT count(*) AS n FROM events").to_pylist() == [{"n": 6}]
    for damage in ("lost", "a link"):
        (path,) = in_force.repeats_of(store, "n-1") or ()
        data = path.read_bytes()
        path.unlink()
        if damage == "a link":
            (tmp_path / "elsewhere").write_bytes(data)
            path.symlink_to(tmp_path / "elsewhere")
        assert run_sql(hub_table.connect(store), "SELECT count(*) AS n FROM events").to_pylist() == [{"n": 6}]
        table.refresh(store, ["n-1"], check=True)
        assert known() == [where]
