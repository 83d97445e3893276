"""Queries: the same rows from an outbox, a bundle and the hub; each event once; errors take one line."""

from __future__ import annotations

import csv
import io
import json
import logging
import logging.config
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from bundles import foreign, reseal
from calyx_logging import Node, OutboxHandler, benchmark_run, provision
from calyx_logging.errors import ConfigError
from calyx_logging.format.reader import ChunkRef
from calyx_logging.hub.importer import Policy, import_bundle
from calyx_logging.hub.store import Store
from calyx_logging.outbox.export import ExportOptions, export
from conftest import close_logging, config, lines_of, python, telemetry

pytest.importorskip("ibis")
pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

from calyx_logging.query import connect
from calyx_logging.query.duckdb_views import connect_chunks
from calyx_logging.query.named import NAMES, named, run_named
from calyx_logging.query.rows import COLUMNS, batches_of, schema
from calyx_logging.query.sql import run_sql


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Node:
    """A node that has logged two runs, one of which fails a case, a gap and odd values, over several chunks."""
    root = tmp_path_factory.mktemp("root")
    node = provision(root, "n-1").node
    document = config(node, max_bytes=2000)
    document["root"] = {"level": "INFO", "handlers": ["outbox"]}
    logging.config.dictConfig(document)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALYX_ROOT", str(root))
        for run_id in ("good", "bad"):
            with benchmark_run(suite="arithmetic", run_id=run_id, cases_expected=3) as run:
                for n in range(3):
                    try:
                        with run.case(str(n), model=f"model of {run_id}") as case:
                            case.note(passed=not (run_id == "bad" and n == 2))
                            logging.getLogger("harness").info("asking", extra={"n": n, "none": None, "score": n / 2})
                            if run_id == "bad" and n == 1:
                                raise ValueError("no answer")
                    except ValueError:
                        continue
    for value in (2**60, "text", [1, {"a": None}], 1.5):
        logging.getLogger("harness").info("odd", extra={"score": value, "ü": "ö'\""})
    logging.getLogger("harness").info("mirrored", extra={"event_id": "mine", "ts_utc": "2026-01-01T01:00:00+01:00"})
    close_logging()
    logging.getLogger().handlers.clear()
    return node


@pytest.fixture(scope="module")
def places(logged: Node, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The options that lead to the same events at the node, in its bundle, and at a hub."""
    hub = tmp_path_factory.mktemp("hub")
    bundle = export(logged).bundle
    assert bundle is not None
    again = export(logged, ExportOptions(since_receipt=True)).bundle  # every chunk once more
    assert again is not None
    for one in (bundle, again):
        import_bundle(Store(hub), one)
    return {
        "outbox": ["--root", str(logged.root)],
        "bundle": ["--from", str(bundle)],
        "hub": ["--from", "hub", "--root", str(hub)],
    }


def answer(options: list[str], *args: str) -> Any:
    done = telemetry("query", *args, *options, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("around", "compare", "case")])
def test_the_same_answer_everywhere(places: dict[str, list[str]], name: str) -> None:
    """Named queries, from outbox, bundle and hub."""
    answers = {place: answer(options, "--named", name) for place, options in places.items()}
    for one in answers.values():
        for row in one:
            row.pop("chunk", None)
    for place in ("bundle", "hub"):  # the last digit of a mean depends on who is added to whom first
        assert answers[place] == [pytest.approx(row) for row in answers["outbox"]]
    assert answers["outbox"] or name in ("changes", "gaps", "processes", "recoveries")


@pytest.mark.parametrize(
    "options", [("compare", "--run", "good", "--run", "bad"), ("case", "--case", "1")], ids=["compare", "case"]
)
def test_the_same_answer_to_questions_with_arguments(places: dict[str, list[str]], options: tuple[str, ...]) -> None:
    """From outbox, bundle and hub."""
    answers = {place: rounded(answer(where, "--named", *options)) for place, where in places.items()}
    assert answers["outbox"] == answers["bundle"] == answers["hub"]
    assert len(answers["hub"]) == 2


def rounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sums of floats differ in their last digit with the order in which threads add them up."""
    return [
        {name: round(value, 9) if isinstance(value, float) else value for name, value in row.items()} for row in rows
    ]


def test_every_event_value_by_value(places: dict[str, list[str]], logged: Node) -> None:
    """The columns and `rest` together reproduce the line, nulls included."""
    lines = {line["event_id"]: line for line in lines_of(logged.outbox) if line["source"] != "calyx_logging"}
    sql = "SELECT * FROM events ORDER BY writer, seq"
    rows = answer(places["outbox"], sql)
    assert [row["event_id"] for row in rows] == [row["event_id"] for row in answer(places["hub"], sql)]
    assert len(rows) == len(lines)
    for row in rows:
        line = dict(lines[row["event_id"]])
        rest = json.loads(row["rest"]) if row["rest"] else {}
        moment = datetime.fromisoformat(row["ts"] + "+00:00")
        assert moment == datetime.fromisoformat(line.pop("ts_utc"))
        for name in (set(COLUMNS) & set(line)) - set(rest):
            value = line.pop(name)
            is_text = isinstance(value, str) or name == "seq"
            column = "score_text" if name == "score" else name
            assert row[column] == (value if is_text else json.dumps(value, separators=(",", ":"))), name
            if name == "score":
                assert row["score"] == (value if isinstance(value, (int, float)) else None)
        assert rest == line
        for name in ("model", "outcome", "passed", "duration_s", "exit_status", "cases_expected"):
            assert row[name] == line.get(name), name


def test_the_runs(places: dict[str, list[str]]) -> None:
    """Cases, how many completed, how each ended."""
    runs = {run["run_id"]: run for run in answer(places["hub"], "--named", "runs")}
    assert (runs["good"]["cases"], runs["good"]["pass_rate"], runs["good"]["exit_status"]) == (3, 1.0, "normal")
    assert (runs["bad"]["cases"], runs["bad"]["completed"]) == (3, 2)
    assert (runs["bad"]["passed"], runs["bad"]["cases_expected"]) == (1, 3)
    assert runs["bad"]["pass_rate"] == pytest.approx(1 / 3)
    assert [runs[name]["outcome"] for name in ("good", "bad")] == ["passed", "failed"]
    assert runs["bad"]["duration_s"] > 0
    (error,) = answer(places["hub"], "--named", "last-errors")
    assert (error["case_id"], error["exception"]) == ("1", "no answer")
    (node,) = answer(places["hub"], "SELECT * FROM nodes")
    assert node["events"] == answer(places["hub"], "SELECT count(*) AS n FROM events")[0]["n"]
    assert len(answer(places["hub"], "SELECT * FROM bundles")) == 1


def test_cases_suites_and_models(places: dict[str, list[str]]) -> None:
    """Each case as it last ended; counts by suite and model."""
    cases = answer(places["hub"], "--named", "cases")
    assert [(case["run_id"], case["case_id"], case["outcome"], case["passed"]) for case in cases] == [
        ("bad", "0", "completed", True),
        ("bad", "1", "error", False),
        ("bad", "2", "completed", False),
        ("good", "0", "completed", True),
        ("good", "1", "completed", True),
        ("good", "2", "completed", True),
    ]
    assert {(case["model"], case["attempts"], case["events"]) for case in cases} == {
        ("model of good", 1, 2),
        ("model of bad", 1, 2),
    }
    assert [case["exception_type"] for case in cases] == [None, "ValueError", None, None, None, None]
    (suite,) = answer(places["hub"], "--named", "suites")
    assert [suite[name] for name in ("suite", "runs", "runs_completed", "cases", "completed", "judged", "passed")] == [
        "arithmetic",
        2,
        1,
        6,
        5,
        6,
        4,
    ]
    models = answer(places["hub"], "--named", "models")
    assert [(row["model"], row["runs"], row["cases"], row["passed"]) for row in models] == [
        ("model of good", 1, 3, 3),
        ("model of bad", 1, 3, 1),
    ]
    (kind,) = answer(places["hub"], "--named", "errors-by-kind")
    assert (kind["exception_type"], kind["logger"], kind["events"], kind["nodes"]) == ("ValueError", "benchmark", 1, 1)


@pytest.mark.parametrize("value", ["NaN", "Infinity", 1e999, -5, "x", None, [1], {"a": 1}, 1e300, "1e400", True])
def test_odd_durations_and_scores(tmp_path: Path, value: Any) -> None:
    """A value that is no number of seconds becomes null and spoils no sum."""
    node = provision(tmp_path, "n-1").node
    logging.config.dictConfig(config(node))
    for n, (duration, score) in enumerate(((2.5, 0.5), (value, value))):
        fields = {"run_id": "r", "suite": "s", "case_id": str(n), "model": "m", "stage": "case_ended"}
        more = {"outcome": "completed", "duration_s": duration, "score": score}
        logging.getLogger("harness").info("case", extra={**fields, **more})
    close_logging()
    outbox = connect(tmp_path)
    (model,) = run_named(outbox, "models").to_pylist()
    assert model["cases"] == 2
    assert model["case_seconds"] in (2.5, 3.5)
    cases = run_named(outbox, "cases").to_pylist()
    assert cases[0]["duration_s"] == 2.5
    assert cases[1]["duration_s"] in (None, 1.0)
    (run,) = run_named(outbox, "runs").to_pylist()
    assert (run["outcome"], run["cases"], run["passed"]) == ("incomplete", 2, 0)


@pytest.mark.parametrize(
    ("status", "cases", "outcome"),
    [
        ("normal", ["completed"], "completed"),
        ("normal", ["completed", "skipped"], "completed"),
        ("normal", ["passed", "skipped"], "passed"),
        ("normal", ["passed", "completed"], "completed"),
        ("normal", ["passed", "not passed"], "completed"),
        ("normal", ["skipped"], "completed"),
        ("normal", ["completed", "error"], "failed"),
        ("normal", ["passed", "error"], "failed"),
        ("normal", [], "completed"),
        ("error", ["completed"], "failed"),
        ("exception", ["completed"], "failed"),
        ("timeout", ["completed"], "timeout"),
        ("incomplete", ["error"], "incomplete"),
        (None, ["completed"], "incomplete"),
    ],
)
def test_the_outcome_of_a_run(tmp_path: Path, status: str | None, cases: list[str], outcome: str) -> None:
    """It follows from how the run ended, whether its cases completed, and whether the harness said that all passed."""
    node = provision(tmp_path, "n-1").node
    logging.config.dictConfig(config(node))
    log = logging.getLogger("harness")
    log.info("begins", extra={"run_id": "r", "stage": "run_started"})
    for n, how in enumerate(cases):
        said = {"passed": how == "passed"} if "passed" in how else {}
        ended = {"stage": "case_ended", "outcome": "completed" if said else how, **said}
        log.info("case", extra={"run_id": "r", "case_id": str(n), **ended})
    if status is not None:
        log.info("ends", extra={"run_id": "r", "stage": "run_ended", "exit_status": status})
    close_logging()
    (run,) = run_named(connect(tmp_path), "runs").to_pylist()
    assert (run["outcome"], run["exit_status"]) == (outcome, status)


def test_lines_that_are_no_events(tmp_path: Path) -> None:
    """They are in `lines` as they are, and in no event; first-generation chunks have no seq and no writer."""
    node = provision(tmp_path, "n-1").node
    logging.config.dictConfig(config(node))
    logging.getLogger("harness").info("good")
    close_logging()
    bundle = export(node).bundle
    assert bundle is not None
    chunk = next(bundle.glob("*.jsonl"))
    chunk.write_bytes(b'\xff no json\n{"node_id":"n-2"}\n' + chunk.read_bytes())
    reseal(bundle)
    store = Store(tmp_path / "hub")
    store.root.mkdir()
    import_bundle(store, bundle, policy=Policy(accept_bad_lines=True))
    import_bundle(store, foreign(tmp_path / "old", 3))
    where = ["--from", "hub", "--root", str(store.root)]
    counts = answer(where, "SELECT node_id, lines, bad_lines FROM chunks ORDER BY 1")
    assert counts == [
        {"node_id": "n-1", "lines": 4, "bad_lines": 2},
        {"node_id": "old-1", "lines": 3, "bad_lines": 0},
    ]
    assert answer(where, "SELECT count(*) AS n FROM events") == [{"n": 4}]
    old = answer(where, "SELECT DISTINCT writer, seq FROM events WHERE node_id = 'old-1'")
    assert old == [{"writer": None, "seq": None}]
    bad = answer(where, "SELECT bad_line FROM lines WHERE bad_line IS NOT NULL ORDER BY line")
    assert [row["bad_line"] for row in bad] == ["\ufffd no json", '{"node_id":"n-2"}']


def test_the_same_event_twice_counts_once(tmp_path: Path) -> None:
    """Equal apart from seq: once; the same id with other content: twice."""
    node = provision(tmp_path, "n-1").node
    logging.config.dictConfig(config(node))
    fixed = {"ts_utc": "2026-01-01T00:00:00+00:00"}
    for event_id, n in (("a", 1), ("a", 2), ("b", 1), ("b", 1)):
        logging.getLogger("harness").info("event", extra={"event_id": event_id, "n": n, **fixed})
    close_logging()
    rows = answer(["--root", str(tmp_path)], "SELECT event_id, rest FROM events ORDER BY seq")
    assert [(row["event_id"], json.loads(row["rest"])["n"]) for row in rows] == [("a", 1), ("a", 2), ("b", 1)]


def test_open_chunks_are_asked_too(tmp_path: Path) -> None:
    """Open chunks are read as far as they are written; a partial line is no bad line."""
    node = provision(tmp_path, "n-1").node
    logging.config.dictConfig(config(node))
    logging.getLogger("harness").info("running")
    (path,) = node.outbox.glob("*.open")
    with path.open("ab") as stream:
        stream.write(b'{"torn')
    assert answer(["--root", str(tmp_path)], "SELECT message FROM events") == [{"message": "running"}]
    assert answer(["--root", str(tmp_path)], "SELECT count(bad_line) AS n FROM lines") == [{"n": 0}]


def test_what_it_prints(places: dict[str, list[str]], tmp_path: Path) -> None:
    """A table, CSV, Parquet; nothing a terminal acts on."""
    import pyarrow.parquet

    sql = "SELECT message, count(*) AS n, NULL AS nothing FROM events GROUP BY 1 ORDER BY 2 DESC, 1"
    done = telemetry("query", sql, *places["hub"])
    assert done.returncode == 0, done.stderr
    assert "asking" in done.stdout
    rows = list(csv.reader(io.StringIO(telemetry("query", sql, *places["hub"], "--csv").stdout)))
    assert rows[0] == ["message", "n", "nothing"]
    assert rows[1] == ["asking", "6", ""]
    target = tmp_path / "out.parquet"
    assert telemetry("query", sql, *places["hub"], "--parquet", target).returncode == 0
    assert pyarrow.parquet.read_table(target).to_pylist()[0] == {"message": "asking", "n": 6, "nothing": None}
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]
    done = telemetry("query", "SELECT '\x1b[2J[red]x' AS a", *places["hub"])
    assert "\\x1b[2J[red]x" in done.stdout
    assert telemetry("query", sql, *places["hub"], "--parquet", tmp_path / "none" / "x").returncode == 4


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["selec x"], "syntax error"),
        (["SELECT nonsense FROM events"], "nonsense"),
        (["SELECT * FROM nothing"], "the views are events"),
        (["CREATE TABLE x (a int)"], "SELECT"),
        (["SELECT CAST(message AS INT) FROM events"], "the query is refused"),
        ([""], "SELECT"),
        (["--named", "nonsense"], "there are nodes, runs"),
        ([], "give one query"),
        (["SELECT 1", "--named", "runs"], "give one query"),
        (["SELECT 1", "--json", "--csv"], "exclude each other"),
    ],
)
def test_what_is_refused(places: dict[str, list[str]], args: list[str], said: str) -> None:
    """One line, and exit code 2."""
    done = telemetry("query", *args, *places["bundle"])
    assert done.returncode == 2, done.stdout
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_without_the_extra(tmp_path: Path) -> None:
    """Said with what to install; the other commands do not need it."""
    provision(tmp_path, "n-1")
    code = """
        import sys
        sys.modules[sys.argv[1]] = None
        from calyx_logging.scripts.cli import group, run
        sys.argv = ["x", *sys.argv[2:]]
        run(group)
    """
    page = str(tmp_path / "page.html")
    for module, command in (
        ("ibis", ["report", "--output", page]),
        *((m, ["query", "SELECT 1"]) for m in ("duckdb", "pyarrow")),
    ):
        done = python(code, module, *command, "--root", str(tmp_path))
        assert (done.returncode, 'pip install "calyx-logging[query]"' in done.stderr) == (2, True), done.stderr
        assert python(code, module, "tail", "--root", str(tmp_path)).returncode == 0
    assert python(code, "ibis", "query", "SELECT 1", "--root", str(tmp_path)).returncode == 0
    assert "ibis" not in python("import calyx_logging.query, sys; print(*sys.modules)").stdout


def test_python_takes_it_from_there(logged: Node) -> None:
    """The Ibis backend, for notebooks; its temporary folder goes with it."""
    chunks = [ChunkRef(path, "n-1") for path in sorted(logged.outbox.glob("*.jsonl"))]
    backend = connect_chunks(chunks)
    events = backend.table("events")
    assert events.filter(events.message == "asking").count().execute() == 6
    assert run_sql(backend, "SELECT 1 AS a").to_pylist() == [{"a": 1}]
    assert len(named(backend, "runs").to_pandas()) == 2
    with pytest.raises(ConfigError):
        named(backend, "none")
    assert connect_chunks([]).table("events").count().execute() == 0
    batch = next(batches_of(chunks[0].path, "n-1"))
    assert batch.schema == schema()


@pytest.mark.slow
def test_no_temporary_folder_is_left(places: dict[str, list[str]], tmp_path: Path) -> None:
    """Neither after an answer nor after an error."""
    for sql in ("SELECT 1", "SELEC"):
        done = python(
            "import sys; from calyx_logging.scripts.cli import group, run; run(group)",
            "query",
            sql,
            *places["bundle"],
            TMPDIR=str(tmp_path),
            TEMP=str(tmp_path),
        )
        assert done.returncode in (0, 2)
        assert list(tmp_path.iterdir()) == []


def test_what_came_before_and_after(places: dict[str, list[str]], tmp_path: Path) -> None:
    """Neighbours are the same writer's by `seq`, across chunks (first generation: by line); ids may repeat."""
    rows = answer(places["hub"], "SELECT event_id, seq, writer FROM events ORDER BY writer, seq")
    one = rows[len(rows) // 2]
    found = answer(places["outbox"], "--named", "around", "--event-id", one["event_id"], "--around", "3")
    of_writer = [row for row in rows if row["writer"] == one["writer"]]
    near = of_writer[max(0, of_writer.index(one) - 3) : of_writer.index(one) + 4]
    assert [row["event_id"] for row in found] == [row["event_id"] for row in near]
    old = foreign(tmp_path / "old", 5)
    lines = json.loads(telemetry("query", "--from", old, "--named", "around", "--event-id", "e", "--json").stdout)
    assert [row["line"] for row in lines] == [1, 2, 3, 4, 5]
    for args in (["around"], ["runs", "--event-id", "x"]):
        done = telemetry("query", *places["outbox"], "--named", *args)
        assert (done.returncode, "needs --event-id" in done.stderr) == (2, True), done.stderr


def test_a_chunk_that_is_named_twice(logged: Node) -> None:
    """Its events are there once, whichever file they are taken from."""
    refs = [ChunkRef(path) for path in sorted(logged.outbox.glob("*.jsonl"))]
    count = "SELECT count(*) AS n FROM events"
    once, twice = connect_chunks(refs), connect_chunks([*refs, *refs])
    assert run_sql(twice, count).to_pylist() == run_sql(once, count).to_pylist()
    assert run_sql(twice, "SELECT count(*) AS n FROM lines").to_pylist()[0]["n"] == 2 * len(lines_of(logged.outbox))


@pytest.mark.parametrize(
    "sql",
    [
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}'",
        "COPY (SELECT 1) TO '{file}'",
        "CREATE TABLE x AS SELECT 1",
        "ATTACH '{file}'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "SELECT 1; SELECT 2",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM read_text('https://localhost:1/x')",
        "SELECT * FROM '{secret}'",
    ],
)
def test_a_query_only_asks(places: dict[str, list[str]], tmp_path: Path, sql: str) -> None:
    """It writes nothing, and reads nothing but the events; one line says so."""
    (tmp_path / "secret.csv").write_text("password")
    sql = sql.format(file=tmp_path / "out.csv", secret=tmp_path / "secret.csv")
    for place in ("bundle", "hub"):
        done = telemetry("query", *places[place], sql)
        assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, ""), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


def test_a_url_is_no_place() -> None:
    """A URL cannot be queried: its bundle has to be imported first."""
    done = telemetry("query", "--from", "s3://bucket/x", "SELECT 1")
    assert (done.returncode, "import it into a hub first" in done.stderr) == (2, True), done.stderr


def test_columns_of_one_name_and_odd_values(places: dict[str, list[str]], tmp_path: Path) -> None:
    """Every column with its own values; what Python or Parquet has no type for is text, or one line."""
    sql = "SELECT a.node_id, b.node_id, 7 AS node_id FROM nodes a JOIN nodes b USING (node_id)"
    assert answer(places["hub"], sql) == [{"node_id": "n-1", "node_id_2": "n-1", "node_id_3": 7}]
    assert telemetry("query", *places["hub"], sql, "--csv").stdout == "node_id,node_id_2,node_id_3\nn-1,n-1,7\n"
    odd = "SELECT TIMESTAMP 'infinity' AS t, DATE '20000-01-01' AS d, '[/x] :bomb:' AS text, TIME '24:00:00' AS m"
    for options in ([], ["--csv"], ["--json"]):
        done = telemetry("query", *places["hub"], odd, *options)
        assert (done.returncode, "[/x] :bomb:" in done.stdout) == (0, True), done.stderr
    done = telemetry("query", *places["hub"], "SELECT INTERVAL 1 DAY AS i", "--parquet", tmp_path / "x.parquet")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert list(tmp_path.iterdir()) == []
    done = telemetry("query", *places["hub"], "--named", "around", "--event-id", "nobody")
    assert (done.returncode, "there is no event 'nobody'" in done.stderr) == (1, True)


def rows_of(folder: Path, *fields: str) -> list[dict[str, Any]]:
    """The events of a chunk with these fields, each beside what every event has."""
    head = '"node_id":"n-1","ts_utc":"2026-01-01T00:00:00+00:00","event_id":"e","source":"s"'
    (folder / "20260101_000000__x__old.jsonl").write_text("".join(f"{{{head},{one}}}\n" for one in fields))
    db = connect_chunks([ChunkRef(folder / "20260101_000000__x__old.jsonl", "n-1")])
    return run_sql(db, "SELECT * FROM events ORDER BY line").to_pylist()


def test_what_is_the_same_event(tmp_path: Path) -> None:
    """Equal apart from `seq`, whatever that is; numbers that no 64 bits hold are told apart as they are written."""
    assert len(rows_of(tmp_path, *(f'"seq":{seq}' for seq in ("1", '"a"', "1.0", "-1", "null", "5")))) == 1
    assert len(rows_of(tmp_path, '"x":18446744073709551616', '"x":18446744073709551617')) == 2
    assert len(rows_of(tmp_path, '"x":0.1', '"x":0.1000000000000000055')) == 2
    assert len(rows_of(tmp_path, '"x":18446744073709551616,"y":1', '"y":1,"x":18446744073709551616')) == 1


@pytest.mark.parametrize("depth", [200, 254, 300, 1000])
def test_deep_events(tmp_path: Path, depth: int) -> None:
    """Every accepted event has a row."""
    (row,) = rows_of(tmp_path, f'"x":{"[" * depth}{"]" * depth}')
    assert row["rest"] == f'{{"x":{"[" * depth}{"]" * depth}}}'


def test_times_that_are_finer(tmp_path: Path) -> None:
    """A time finer than microseconds keeps its text in `rest`."""
    head = '{"node_id":"n-1","ts_utc":"2026-01-01T00:00:00.123456789+00:00","event_id":"e","source":"s"}\n'
    path = tmp_path / "20260101_000000__x__old.jsonl"
    path.write_text(head)
    (row,) = run_sql(connect_chunks([ChunkRef(path, "n-1")]), "SELECT ts, rest FROM events").to_pylist()
    assert json.loads(row["rest"]) == {"ts_utc": "2026-01-01T00:00:00.123456789+00:00"}


def test_gaps_of_an_odd_count(tmp_path: Path) -> None:
    """Say nothing of how many, and stop no other."""
    gap = '"control":"gap","cause":"x"'
    head = '"node_id":"n-1","ts_utc":"2026-01-01T00:00:00+00:00","event_id":"e","source":"calyx_logging"'
    path = tmp_path / "20260101_000000__x__old.jsonl"
    path.write_text("".join(f'{{{head},{gap},"count":{count}}}\n' for count in ('"abc"', "1e30", "3")))
    rows = run_sql(connect_chunks([ChunkRef(path, "n-1")]), "SELECT count FROM gaps ORDER BY 1").to_pylist()
    assert [row["count"] for row in rows] == [3, None, None]


@pytest.mark.skipif(os.name == "nt", reason="names that Windows refuses")
@pytest.mark.parametrize("name", ["runs[1]", "a*b", "what?", "it's"])
def test_folders_whose_names_are_patterns(tmp_path: Path, name: str) -> None:
    """A node's and a hub's, before and after compaction."""
    root, hub = tmp_path / name, tmp_path / f"hub {name}"
    for folder in (root, hub):
        folder.mkdir()
    node = provision(root, "n").node
    handler = OutboxHandler(root=root, identity=False)
    handler.handle(logging.makeLogRecord({"msg": "one"}))
    handler.close()
    bundle = export(node).bundle
    assert bundle is not None
    assert telemetry("import", bundle, "--root", hub).returncode == 0
    count = ("query", "SELECT count(*) AS n FROM events", "--json", "--root")
    assert json.loads(telemetry(*count, root).stdout) == [{"n": 1}]
    for _ in range(2):
        assert json.loads(telemetry(*count, hub, "--from", "hub").stdout) == [{"n": 1}]
        assert telemetry("table", "--compact", "--root", hub).returncode == 0


def test_processes(tmp_path: Path) -> None:
    """A process's row says what ran, on what, and how it ended, also where it was killed."""
    node = provision(tmp_path, "n").node
    setting = {**config(node, identity=True), "root": {"level": "INFO", "handlers": ["outbox"]}}
    for body in ("sys.exit(3)", "os.kill(os.getpid(), 9)" if os.name != "nt" else "os._exit(9)"):
        configured = "import json, logging.config, os, sys\nlogging.config.dictConfig(json.loads(sys.argv[1]))"
        python(f"{configured}\nlogging.info(1)\n{body}", json.dumps(setting))
    export(node)
    rows = json.loads(telemetry("query", "--named", "processes", "--json", "--root", tmp_path).stdout)
    assert (rows[0]["reason"], rows[0]["exit_code"]) == ("closed", 3)
    assert rows[1]["reason"] == "recovered"
    assert {row["program"] for row in rows} == {"-c"}
    assert len({row["pid"] for row in rows}) == 2
