"""SQL as one would write it first: numbers are numbers, results are views, `rest` is JSON; the prompt and the pipe."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from bundles import make_bundle, make_node
from calyx_logging.events.event import encode, with_seq
from calyx_logging.format.reader import ChunkRef
from calyx_logging.hub.importer import import_bundle
from calyx_logging.hub.store import Store
from conftest import telemetry
from surroundings import REPO

pytest.importorskip("ibis")
pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

from calyx_logging.query.duckdb_views import connect_chunks
from calyx_logging.query.sql import run_sql
from calyx_logging.query.views import VIEWS

CHUNK = "20261122_080000__harness__3f9a1c20-0000.jsonl"


def chunk_of(folder: Path, *events: dict[str, Any]) -> ChunkRef:
    """Write events, stamped, as a node's chunk."""
    path, lines = folder / CHUNK, []
    for seq, event in enumerate(events):
        stamp = {"node_id": "n-1", "ts_utc": f"2026-11-22T08:00:00.{seq:06d}+00:00", "event_id": f"id-{seq}"}
        lines.append(with_seq(encode({**stamp, "source": "bench_harness", "level": "info", **event}), seq))
    path.write_bytes(b"".join(lines))
    return ChunkRef(path, "n-1")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A node's root whose outbox has the events of a run."""
    node = make_node(tmp_path / "root", "n-1")
    run = {"suite": "s", "run_id": "r", "run_instance_id": "i"}
    case = {**run, "stage": "case_ended", "model": "m", "outcome": "completed"}
    chunk_of(
        node.outbox,
        {**run, "stage": "run_started", "cases_expected": 2},
        {**case, "case_id": "a", "score": 0.05, "passed": False, "duration_s": 1.5},
        {**case, "case_id": "b", "score": 0.75, "prompt": {"role": "user"}, "duration_s": 0.5},
        {**run, "stage": "run_ended", "exit_status": "normal"},
    )
    return node.root


def answer(root: Path, sql: str, *options: str) -> Any:
    done = telemetry("query", "--root", root, sql, "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_anybody_writes_first(root: Path) -> None:
    """Scores are compared and averaged, a run is a row, and a field is found under its name."""
    assert answer(root, "select avg(score) as mean from events where score > 0.1") == [{"mean": 0.75}]
    (run,) = answer(root, "select * from runs")
    assert (run["outcome"], run["cases"], run["cases_expected"]) == ("completed", 2, 2)
    assert (run["judged"], run["passed"], run["pass_rate"]) == (1, 0, 0.0)
    assert (run["scores"], run["mean_score"]) == (2, 0.4)
    assert answer(root, "select rest.outcome as o, count(*) as n from events group by all order by n, o") == [
        {"o": '"completed"', "n": 2},
        {"o": None, "n": 2},
    ]
    assert answer(root, "select rest.prompt.role as role, rest->>'prompt' as text from events where case_id = 'b'") == [
        {"role": '"user"', "text": '{"role":"user"}'}
    ]
    assert answer(root, "select sum(duration_s) as s from events where outcome = 'completed' and model = 'm'") == [
        {"s": 2.0}
    ]
    assert answer(root, "select case_id from cases where not passed") == [{"case_id": "a"}]
    for view in VIEWS:
        assert isinstance(answer(root, f"select * from {view}"), list)


def test_named_queries_give_numbers_and_booleans(root: Path) -> None:
    done = telemetry("query", "--root", root, "--named", "cases", "--json")
    found = [(row["score"], row["score_text"], row["passed"], row["duration_s"]) for row in json.loads(done.stdout)]
    assert found == [(0.05, "0.05", False, 1.5), (0.75, "0.75", None, 0.5)]
    done = telemetry("query", "--root", root, "select case_id, passed, score from cases order by 1", "--csv")
    assert done.stdout.splitlines()[1:] == ["a,false,0.05", "b,,0.75"]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (0.25, 0.25),
        ("0.5", 0.5),
        (" 2e3 ", 2000.0),
        (2**63, 2.0**63),
        (1e300, 1e300),
        (True, None),
        ("1_000", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("good", None),
        ("", None),
        ([1], None),
        ({"a": 1}, None),
        (None, None),
    ],
)
def test_a_score_is_a_number_where_it_is_one(tmp_path: Path, value: Any, number: float | None) -> None:
    """Anything but a finite number gives null, and `score_text` has the score as it was logged."""
    db = connect_chunks([chunk_of(tmp_path, {"score": value})], plain=True)
    (row,) = run_sql(db, "SELECT score, score_text FROM events").to_pylist()
    assert row["score"] == number
    text = value if value is None or isinstance(value, str) else orjson.dumps(value).decode()
    assert row["score_text"] == text


@pytest.mark.parametrize("name", ["model", "outcome", "passed", "duration_s", "exit_status", "cases_expected"])
@pytest.mark.parametrize("value", [None, True, False, "text", "true", 3, -1, 2**63, 1.5, math.pi, [1, 2], {"a": None}])
def test_what_a_result_column_cannot_say_is_in_rest(tmp_path: Path, name: str, value: Any) -> None:
    """A column has the field's value, as text or as its type, or null; `rest` always has the field."""
    db = connect_chunks([chunk_of(tmp_path, {name: value})], plain=True)
    (row,) = run_sql(db, f"SELECT {name} AS found, rest FROM events").to_pylist()
    (written,) = [json.loads(line) for line in (tmp_path / CHUNK).read_bytes().splitlines()]
    assert json.loads(row["rest"]) == {name: written[name]}
    found, is_number = row["found"], isinstance(value, (int, float)) and not isinstance(value, bool)
    if name in ("model", "outcome", "exit_status"):
        assert found == (value if value is None or isinstance(value, str) else orjson.dumps(written[name]).decode())
    elif name == "passed":
        assert found is {True: True, False: False, "true": True}.get(value if isinstance(value, (bool, str)) else None)
    elif name == "duration_s":
        assert found == (float(value) if is_number and 0 <= value <= 1e12 else None)
    else:
        assert found == (value if is_number and value == int(value) and abs(value) < 2**63 else None)


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"exception": [{"type": "ValueError"}]}, "ValueError"),
        ({"exception": [{"type": 1}], "exception_type": "mine"}, "mine"),
        ({"exception": []}, None),
        ({"exception": ["text"]}, None),
        ({"exception": {"type": "x"}}, None),
        ({"exception_type": ["x"]}, None),
    ],
)
def test_the_exceptions_type(tmp_path: Path, event: dict[str, Any], kind: str | None) -> None:
    db = connect_chunks([chunk_of(tmp_path, event)], plain=True)
    assert run_sql(db, "SELECT exception_type FROM events").to_pylist() == [{"exception_type": kind}]


def test_a_case_is_as_it_last_ended(tmp_path: Path) -> None:
    """No value is of an earlier ending, also where the last one has none; an ending without a time counts."""
    run = {"suite": "s", "run_id": "r", "run_instance_id": "i", "stage": "case_ended"}
    odd = {**run, "case_id": "b", "ts_utc": "no time", "outcome": "completed", "score": 1.0}
    chunk = chunk_of(
        tmp_path,
        {**run, "case_id": "a", "outcome": "error", "score": 0.9, "exception_type": "TimeoutError", "passed": False},
        {**run, "case_id": "a", "outcome": "completed"},
        odd,
    )
    rows = run_sql(connect_chunks([chunk], plain=True), "SELECT * FROM cases ORDER BY case_id").to_pylist()
    found = [[row[name] for name in ("outcome", "passed", "score", "exception_type", "attempts")] for row in rows]
    assert found == [["completed", None, None, None, 2], ["completed", None, 1.0, None, 1]]


@pytest.mark.parametrize("lacking", ["suite", "run_instance_id", "none"])
def test_a_resumed_run_may_lack_a_name(tmp_path: Path, lacking: str) -> None:
    """Cases that were done again are left out, also where a run's suite or instance is null."""
    run = {"suite": "s", "run_id": "r", "run_instance_id": "i"}
    run.pop(lacking, None)
    again, case = {**run, "resumed_as": "j"}, {"stage": "case_ended"}
    chunk = chunk_of(
        tmp_path,
        {**run, "stage": "run_started", "cases_expected": 2},
        {**run, **case, "case_id": "a", "outcome": "error"},
        {**run, **case, "case_id": "b", "outcome": "completed"},
        {**again, "stage": "run_started"},
        {**again, **case, "case_id": "a", "outcome": "completed"},
        {**again, "stage": "run_ended", "exit_status": "normal"},
    )
    (found,) = run_sql(connect_chunks([chunk], plain=True), "SELECT * FROM runs").to_pylist()
    assert (found["cases"], found["completed"], found["outcome"]) == (2, 2, "completed")


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_parquet_replaces_no_link_and_no_device(root: Path, tmp_path: Path) -> None:
    """A link, a pipe or a folder is refused, and stays what it is."""
    target = tmp_path / "target"
    (tmp_path / "link").symlink_to(target)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    before = sorted(path.lstat().st_mode for path in tmp_path.iterdir())
    for name in ("link", "pipe", "folder"):
        done = telemetry("query", "--root", root, "select 1 as a", "--parquet", tmp_path / name)
        assert (done.returncode, "is not a regular file" in done.stderr) == (2, True), done.stderr
    assert sorted(path.lstat().st_mode for path in tmp_path.iterdir()) == before


def test_json_as_deep_as_a_line_can_be(tmp_path: Path) -> None:
    """Values nested a thousand times are read as JSON, too."""
    deep = b'{"x":' + b"[" * 1000 + b"]" * 1000
    path = tmp_path / CHUNK
    stamp = b'{"node_id":"n-1","ts_utc":"2026-11-22T08:00:00.000000+00:00","event_id":"e","source":"s",'
    path.write_bytes(stamp + b'"deep":' + deep + b'},"seq":0}\n')
    db = connect_chunks([ChunkRef(path, "n-1")], plain=True)
    (row,) = run_sql(db, "SELECT rest, json_type(rest.deep.x) AS kind FROM events").to_pylist()
    assert (row["kind"], row["rest"].count("[")) == ("ARRAY", 1000)


@pytest.mark.parametrize("name", ["hub[1]", "a*b", "what?", "[", "it's", "ü %20 #;"])
def test_any_folders_name(root: Path, tmp_path: Path, name: str) -> None:
    """A hub's path may have characters that are patterns to the engine."""
    if os.name == "nt" and set(name) & set("*?"):
        pytest.skip("Windows has no such names")
    hub = tmp_path / name
    hub.mkdir()
    done = telemetry("export", "--root", root)
    assert done.returncode == 0, done.stderr
    assert telemetry("import", root / "exports" / "telemetry_exports", "--root", hub).returncode == 0
    for _ in range(2):
        assert answer(hub, "select count(*) as n from events", "--from", "hub") == [{"n": 4}]
        assert telemetry("table", "--root", hub, "--compact").returncode == 0
    done = telemetry("report", "--root", hub, "--from", "hub", "--output", tmp_path / "page.html")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


def test_a_table_of_an_earlier_form_is_made_anew(tmp_path: Path) -> None:
    """A hub's table without the columns of today is noticed, and replaced from the chunks."""
    import pyarrow.parquet as parquet

    node = make_node(tmp_path / "node", "n-1")
    store = Store(tmp_path / "hub")
    import_bundle(store, make_bundle(node, range(5)))
    assert answer(store.root, "select count(*) as n from events", "--from", "hub") == [{"n": 5}]
    table = store.folder / ".table"
    for path in table.rglob("*.parquet"):
        old = parquet.read_table(path, partitioning=None).drop_columns(["model", "passed", "score_text"])
        parquet.write_table(old, path)
    with store.catalog.changing() as change:
        change.execute("UPDATE files SET version = 1")
        change.execute("UPDATE bundles SET tabled = 1")
    assert answer(store.root, "select count(*) as n, count(model) as m from events", "--from", "hub") == [
        {"n": 5, "m": 0}
    ]
    assert telemetry("table", "--root", store.root, "--check").returncode == 0


# ------------------------------------------------------------------ pipes and terminals


def query(root: Path, *args: str, said: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run `calyx-telemetry query` as a program."""
    return subprocess.run(
        [sys.executable, "-m", "calyx_logging.scripts", "query", "--root", root, *args],
        input=said,
        capture_output=True,
        cwd=root,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"} | environment,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_sql_from_a_pipe(root: Path) -> None:
    """Standard input is the query where there is none, or `-`; nothing in it is said to be nothing."""
    for args in ((), ("-",)):
        done = query(root, *args, "--csv", said="select 'ü' as \"é\"\n-- the end".encode(), PYTHONUTF8="1")
        assert done.stdout.decode().splitlines() == ["é", "ü"], done.stderr
    done = query(root, said=b" \n")
    assert (done.returncode, b"give one query" in done.stderr) == (2, True), done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows passes arguments as Unicode")
def test_sql_with_any_characters_in_any_locale(root: Path) -> None:
    """The C locale's ASCII says neither the query nor the answer; both come through."""
    ascii_alone = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # such a Python finds no package below an odd folder
    for more in ({}, *([ascii_alone] if f"{REPO}{sys.executable}".isascii() else [])):
        done = query(root, "select 'ü→𝄞' as \"é\"", "--json", LC_ALL="C", **more)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == [{"é": "ü→𝄞"}]


@pytest.mark.slow
def test_a_pipe_is_as_wide_as_columns_says(root: Path) -> None:
    """Without COLUMNS a table in a pipe has no limit."""
    assert query(root, "--named", "runs", COLUMNS="60").stdout.startswith(b"-- 1 --")
    assert not query(root, "--named", "runs").stdout.startswith(b"-- 1 --")


def on_a_terminal(root: Path, lines: list[str], *args: str, **environment: str) -> str:
    """Run `calyx-telemetry query` on a terminal of its own, type lines, and return what it showed."""
    import pty
    import select

    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(
            {"TERM": "dumb", "PROMPT_TOOLKIT_NO_CPR": "1", "PYTHONUTF8": "1", "COLUMNS": "200", **environment}
        )
        os.execv(sys.executable, [sys.executable, "-m", "calyx_logging.scripts", "query", "--root", str(root), *args])
    shown, until = b"", time.monotonic() + 60
    waiting = list(lines)
    while time.monotonic() < until:
        if not select.select([terminal], [], [], 0.1)[0]:
            if waiting and shown.rstrip().endswith(b">"):
                os.write(terminal, waiting.pop(0).encode() + b"\r")
            continue
        try:
            block = os.read(terminal, 65536)
        except OSError:
            break
        if not block:
            break
        shown += block
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, shown
    return shown.decode()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals are POSIX")
def test_csv_on_a_terminal_is_harmless(root: Path) -> None:
    """Control and bidirectional characters are escaped there, and in a pipe they are what they are."""
    sql = "select '\x1b[2J' as a, '\u202eevil' as b"
    shown = on_a_terminal(root, [], sql, "--csv")
    assert "\\x1b[2J,\\u202eevil" in shown
    assert "\u202e" not in shown
    assert query(root, sql, "--csv", PYTHONUTF8="1").stdout.decode().splitlines()[1] == "\x1b[2J,\u202eevil"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals are POSIX")
def test_the_shell(root: Path, tmp_path: Path) -> None:
    """Queries over several lines, errors, and commands; what was asked is remembered for the user alone."""
    pytest.importorskip("prompt_toolkit")
    lines = ["select count(*)", "as found from events;", "selec;", ".tables", ".columns runs", ".help", ".quit"]
    shown = on_a_terminal(root, lines, "--shell", XDG_STATE_HOME=str(tmp_path / "state"))
    assert "found" in shown
    assert "syntax error" in shown
    assert ", ".join(VIEWS) in shown
    assert "pass_rate" in shown
    assert "Ctrl-D ends" in shown
    history = tmp_path / "state" / "calyx-logging" / "sql_history"
    assert "selec;" in history.read_text("utf-8")
    assert history.stat().st_mode & 0o077 == 0
    shown = on_a_terminal(root, [".quit"], "--shell", XDG_STATE_HOME="/dev/null")
    assert "queries are not remembered" in shown
    done = query(root, "--shell")
    assert (done.returncode, b"needs a terminal" in done.stderr) == (2, True)
