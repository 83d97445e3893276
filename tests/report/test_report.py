"""The report: its numbers are the named queries', nothing in it is markup, and what it leaves out is counted."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import logging
import logging.config
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bundles import make_bundle, make_node
from calyx_logging import Node, provision
from calyx_logging.errors import ConfigError
from calyx_logging.events.event import encode, with_seq
from calyx_logging.format.run_envelope import RunEnvelope
from calyx_logging.format.run_paths import benchmarks_of, results_dir
from calyx_logging.hub.importer import import_bundle
from calyx_logging.hub.store import Store
from calyx_logging.outbox.export import export
from conftest import REPO, close_logging, config, python, telemetry
from sessions import logged_node

pytest.importorskip("ibis")
pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")
pytest.importorskip("jinja2")

from calyx_logging.report._rendering import UNSEEN
from calyx_logging.report.collect import Choice
from calyx_logging.report.events import MAX_LINE, shortened
from calyx_logging.report.report import MAX_BYTES, make_report
from calyx_logging.report.runs import run_key
from calyx_logging.report.source import Source


@pytest.fixture(scope="module")
def places(logged: Node, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    """The same events at the node, in its bundle, and at a hub."""
    hub = tmp_path_factory.mktemp("hub")
    bundle = export(logged).bundle
    assert bundle is not None
    import_bundle(Store(hub), bundle)
    return {
        "outbox": Source.find("outbox", str(logged.root)),
        "bundle": Source.find(str(bundle), None),
        "hub": Source.find("hub", str(hub)),
    }


class Page(HTMLParser):
    """Parses a page as a browser would: its elements, its tables, the contents of its scripts."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self._heading = ""
        self.by_heading: dict[str, list[list[str]]] = {}
        self._in: list[str] = []
        self.feed(html.decode())
        self.facts = json.loads(next(text for attributes, text in self.scripts if attributes.get("id") == "facts"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in.append(tag)
        if tag in ("script", "style"):
            self.scripts.append((dict(attrs), ""))
        elif tag == "table":
            self.tables.append([])
            self.by_heading[self._heading] = self.tables[-1]
        elif tag == "tr" and self.tables:
            self.tables[-1].append([])
        elif tag in ("td", "th") and self.tables and self.tables[-1]:
            self.tables[-1][-1].append("")
        elif tag in ("h1", "h2", "h3"):
            self._heading = ""

    def handle_endtag(self, tag: str) -> None:
        while self._in and self._in.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._in and self._in[-1] in ("script", "style"):
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
            return
        self.text += data
        if any(tag in self._in for tag in ("h1", "h2", "h3")):
            self._heading += data
        if any(tag in self._in for tag in ("td", "th")) and self.tables:
            self.tables[-1][-1][-1] += data

    def rows(self, heading: str) -> list[list[str]]:
        """Return the rows of the table below a heading."""
        return [[" ".join(cell.split()) for cell in row] for row in self.by_heading[heading][1:]]

    def blob(self, key: str) -> Any:
        data = next(text for attributes, text in self.scripts if attributes.get("id") == f"blob-{key}")
        return json.loads(gzip.decompress(base64.b64decode(data)))


def answer(source: Source, name: str) -> list[dict[str, Any]]:
    options = ["--from", source.place, *([] if source.root is None else ["--root", source.root])]
    done = telemetry("query", "--named", name, *options, "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def milliseconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000


def of(some: int, everything: int) -> str:
    return str(some) if some == everything else f"{some} of {everything}"


def rate(row: dict[str, Any]) -> str:
    return f"{100 * row['pass_rate']:.1f} % {row['passed']} of {row['judged']}" if row["judged"] else "–"


def mean(row: dict[str, Any]) -> str:
    return f"{row['mean_score']:#.3g} n {row['scores']}" if row["scores"] else "–"


@pytest.mark.parametrize("place", ["outbox", "bundle", "hub"])
def test_the_numbers_are_the_named_queries(places: dict[str, Source], place: str) -> None:
    """Numbers in tables, totals and scripts match the named queries that the command runs on the same place."""
    source = places[place]
    page = Page(make_report(source).html)
    runs, suites, models = answer(source, "runs"), answer(source, "suites"), answer(source, "models")
    assert [row["run_id"] for row in runs] == ["good", "bad", "slow"]
    names = ("suite", "run_id", "run_instance_id", "started", "ended", "events", "errors", "cases", "completed")
    more = (
        "skipped",
        "judged",
        "passed",
        "scores",
        "mean_score",
        "cases_expected",
        "exit_status",
        "outcome",
        "duration_s",
    )
    expected = [
        [row[name] if name not in ("started", "ended") else milliseconds(row[name]) for name in (*names, *more)]
        for row in reversed(runs)
    ]
    assert [row[2:-1] for row in page.facts["runs"]] == [pytest.approx(row) for row in expected]
    assert [row[0] for row in page.facts["runs"]] == [run_key({"node_id": "n-1", **row}) for row in reversed(runs)]
    shown = [row[:5] for row in page.rows("Suites")]
    assert shown == [
        [row["suite"], of(row["runs_completed"], row["runs"]), of(row["completed"], row["cases"]), rate(row), mean(row)]
        for row in suites
    ]
    assert [row[3] for row in shown] == ["75.0 % 6 of 8", "–"]
    assert [row[1:6] for row in page.rows("Models")] == [
        [row["model"], str(row["runs"]), of(row["completed"], row["cases"]), rate(row), mean(row)] for row in models
    ]
    best = {(row["suite"], row["model"]): row for row in answer(source, "leaderboard")}
    head, *lines = page.by_heading["Results"]
    assert [line[0] for line in lines] == ["model-a", "<b>model-b</b>"]
    assert head == ["Model", "arithmetic passed", "reading mean score"]
    for model, arithmetic, reading in lines:
        row = best["arithmetic", model]
        ends = f"{100 * row['low']:.1f} to {100 * row['high']:.1f} %"
        assert " ".join(arithmetic.split()) == f"{100 * row['value']:.1f} %{ends}, n {row['n']}"
        assert reading == "–"
    assert answer(source, "changes") == []
    kinds = answer(source, "errors-by-kind")
    assert [row[:4] for row in page.rows("By kind")] == [
        [row["exception_type"] or "(none)", row["logger"], str(row["events"]), str(row["nodes"])] for row in kinds
    ]
    (node,), (last,) = answer(source, "nodes"), answer(source, "last-errors")
    (row,) = page.rows("Nodes")
    assert (row[0], *row[3:6]) == (node["node_id"], *(str(node[name]) for name in ("runs", "events", "errors")))
    assert [row[-1] for row in page.rows("The last of each node")] == [last["message"]] == ["outside of runs"]
    by_minute = answer(source, "events-by-minute")
    assert page.facts["activity"] == [[milliseconds(r["minute"]), r["events"], r["errors"]] for r in by_minute]
    cases = page.blob("cases")
    of_query: dict[str, list[list[Any]]] = {}
    for row in answer(source, "cases"):
        times = [milliseconds(row["started"]), milliseconds(row["ended"])]
        rest = ("outcome", "passed", "attempts", "events", "errors", "duration_s", "score", "model", "exception_type")
        of_query.setdefault(run_key(row), []).append([row["case_id"], *times, *(row[name] for name in rest)])
    assert {key: [pytest.approx(row) for row in rows] for key, rows in of_query.items()} == cases


@pytest.mark.parametrize("place", ["outbox", "bundle", "hub"])
def test_the_events_are_the_lines_as_they_were_written(places: dict[str, Source], place: str, logged: Node) -> None:
    """Events of runs, errors and events outside of runs match their lines byte by byte, in order."""
    page = Page(make_report(places[place]).html)
    written = [
        line.decode() for path in sorted(logged.outbox.glob("*.jsonl")) for line in path.read_bytes().splitlines()
    ]
    lines = [line for line in written if json.loads(line)["source"] != "calyx_logging"]
    for row in page.facts["runs"]:
        events = page.blob(row[0])
        assert events["lines"] == [line for line in lines if json.loads(line).get("run_instance_id") == row[4]]
        assert len(events["lines"]) == row[7] == page.facts["blobs"][row[0]]["count"]
    assert page.blob("errors")["lines"] == [line for line in lines if json.loads(line)["level"] == "error"]
    outside = [line for line in lines if "run_id" not in json.loads(line)]
    assert page.blob("outside")["lines"] == outside
    chunk, number = page.blob("outside")["where"][0]
    assert (logged.outbox / chunk).read_bytes().splitlines()[number - 1].decode() == outside[0]


def test_envelopes_are_in_the_page_of_their_own_node(places: dict[str, Source]) -> None:
    """Elsewhere they have not been carried to."""
    page = Page(make_report(places["outbox"]).html)
    envelopes = page.blob("details")["envelopes"]
    assert {json.loads(text)["run_id"]: json.loads(text)["exit_status"] for text in envelopes.values()} == {
        "good": "normal",
        "bad": "normal",
        "slow": "timeout",
    }
    assert Page(make_report(places["hub"]).html).blob("details")["envelopes"] == {}


# ------------------------------------------------------------------ what a page may be


def test_nothing_that_an_event_says_is_markup(places: dict[str, Source]) -> None:
    """The page has the templates' elements alone, two scripts, no handlers, no addresses but its own places."""
    html = make_report(places["hub"]).html
    page = Page(html)
    assert html.count(b"alert(1)") == 0 or b"<script>alert(1)" not in html
    allowed = set(re.findall(r"<([a-z0-9]+)", "".join(path.read_text("utf-8") for path in templates())))
    assert {tag for tag, _ in page.elements} <= allowed | {"time", "bdi", "span"}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "style", "srcdoc")], tag
        assert (attributes.get("href") or "#").startswith("#")
    run = [text for attributes, text in page.scripts if not attributes.get("type") and text[:5] != ":root"]
    policy = next(a["content"] for tag, a in page.elements if tag == "meta" and a.get("http-equiv")) or ""
    assert len(run) == 2
    hashes = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run}
    assert set(re.findall(r"script-src ([^;]*);", policy)[0].replace("'", "").replace("sha256-", "").split()) == hashes
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    style = next(text for attributes, text in page.scripts if text.startswith(":root"))
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in policy


def templates() -> list[Path]:
    return [REPO / "calyx_logging" / "report" / "page" / name for name in ("page.html", "parts.html")]


def test_what_cannot_be_seen_is_shown_by_its_number(tmp_path: Path) -> None:
    """The static tables and the scripts follow the same rule."""
    node = provision(tmp_path, "n-1").node
    logging.config.dictConfig(config(node))
    logging.getLogger("harness").error("abc\u202egnp.exe\x1b[31m\u200b")
    close_logging()
    html = make_report(Source("outbox", str(tmp_path), "")).html.decode()
    body = html[: html.index('<script type="application/json"')]
    for letter in "\u202e\x1b\u200b":
        assert letter not in body
        assert f'<span class="u">U+{ord(letter):04X}</span>' in body
    script = (REPO / "calyx_logging" / "report" / "page" / "text.js").read_text("utf-8")
    unseen = script[script.index("const UNSEEN = /[") + 17 :].split("]|")[0]
    in_script = re.compile("[" + re.sub(r"\\u([0-9a-f]{4})", lambda m: re.escape(chr(int(m[1], 16))), unseen) + "]")
    for code in (*range(0x250), *range(0x600, 0x620), *range(0x2000, 0x2070), 0x115F, 0x180E, 0x3164, 0xFEFF, 0xFFA0):
        assert bool(in_script.match(chr(code))) == bool(UNSEEN.match(chr(code))), hex(code)


def test_the_library_is_the_one_that_was_published() -> None:
    """ECharts 6.1.0, `dist/echarts.min.js` of its npm package."""
    data = (REPO / "calyx_logging" / "report" / "page" / "echarts.min.js").read_bytes()
    assert hashlib.sha256(data).hexdigest() == "b66b25aeb4df84e33199dc21694014d336d222cbd9deb0e5a7c14bd6aa0d0fd0"


@pytest.mark.slow
def test_large_and_many(tmp_path: Path) -> None:
    """A megabyte of a message, 100,000 keys, 5,000 suites: the page stays below its size, and says what it cut."""
    node = provision(tmp_path, "n-1").node
    logging.config.dictConfig(config(node))
    log = logging.getLogger("harness")
    log.error("m" * 1_000_000, extra={"run_id": "r", "suite": "s"})
    log.info("keys", extra={"run_id": "r", "suite": "s", **{f"key {n}": n for n in range(100_000)}})
    for n in range(5_000):
        log.info(
            "one",
            extra={"run_id": f"run {n}", "suite": f"suite {n}" + "x" * 500, "case_id": "c", "stage": "case_ended"},
        )
    close_logging()
    report = make_report(Source("outbox", str(tmp_path), ""), Choice(("r",)))
    assert len(report.html) <= 3_000_000
    page = Page(report.html)
    events = page.blob(page.facts["runs"][[row[3] for row in page.facts["runs"]].index("r")][0])
    assert sorted(events["cut"]) == ["0", "1"]
    assert all(len(line) <= MAX_LINE + 200 for line in events["lines"])
    assert "1,000,000 characters" in json.loads(events["lines"][0])["message"]
    assert json.loads(events["lines"][1])["…"].endswith("more fields")
    assert len(page.rows("Suites")) == 200
    assert "4,801 more rows" in page.text


def test_events_are_left_out_and_counted_where_there_is_no_room(places: dict[str, Source]) -> None:
    """The page is not larger than was asked for; of each kind as much as there is room for."""
    whole = make_report(places["hub"])
    frame = len(whole.html) - sum(len(one.data) for one in whole.packed)
    small = make_report(places["hub"], max_bytes=frame + 3500)
    assert len(small.html) <= frame + 3500 + 2000
    assert sum(one.events for one in small.packed) < sum(one.events for one in whole.packed)
    assert [one.count for one in small.packed] == [one.count for one in whole.packed]
    page = Page(small.html)
    for one in small.packed:
        assert len(page.blob(one.key)["lines"]) == one.events == page.facts["blobs"][one.key]["events"]


@pytest.mark.slow
def test_of_a_long_run_the_first_and_the_last_events(
    places: dict[str, Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And how many there are."""
    whole = Page(make_report(places["hub"], Choice(("good",))).html)
    monkeypatch.setattr("calyx_logging.report.events.MAX_EVENTS", 4)
    few = Page(make_report(places["hub"], Choice(("good",))).html)
    key = next(row[0] for row in few.facts["runs"] if row[3] == "good")
    lines = whole.blob(key)["lines"]
    assert few.blob(key)["lines"] == [*lines[:2], *lines[-2:]]
    assert few.facts["blobs"][key] == {"events": 4, "count": len(lines)}


def test_a_cut_event_is_json() -> None:
    """This holds for any content."""
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    for fields in ({"a": deep, "b": "y" * 40_000}, {"n": 2**80, "t": ["z" * 9000] * 30}):
        line = json.dumps({"node_id": "n", "ts_utc": "t", "event_id": "e", "source": "s", **fields}).encode()
        text, is_cut = shortened(line)
        assert is_cut
        assert json.loads(text)["node_id"] == "n"
        assert len(text) <= MAX_LINE + 2000


def test_a_long_conversation_stays_one() -> None:
    """Its texts are cut, so that the page can show who said what."""
    talk = [{"role": "user", "content": "q" * 30_000}, {"role": "assistant", "content": "a" * 30_000}]
    line = json.dumps({"node_id": "n", "ts_utc": "t", "event_id": "e", "source": "s", "messages": talk}).encode()
    text, is_cut = shortened(line)
    assert is_cut
    found = json.loads(text)["messages"]
    assert [(one["role"], one["content"][:3], len(one["content"]) < 2100) for one in found] == [
        ("user", "qqq", True),
        ("assistant", "aaa", True),
    ]


# ------------------------------------------------------------------ what is missing


def test_a_hole_a_kill_a_lost_bundle_and_a_refused_one(tmp_path: Path) -> None:
    """The hub's page reports each of them, and the node is incomplete."""
    node = make_node(tmp_path, "n-1")
    first, second = make_bundle(node, range(3)), make_bundle(node, range(3), second=10)
    hub = tmp_path / "hub"
    hub.mkdir()
    import_bundle(Store(hub), second)
    bad = tmp_path / "stick" / first.name
    shutil.copytree(first, bad)
    chunk = next(bad.glob("*.jsonl"))
    chunk.write_bytes(chunk.read_bytes().replace(b"event", b"evenT", 1))
    assert import_bundle(Store(hub), bad).outcome == "refused"
    page = Page(make_report(Source("hub", str(hub), "")).html)
    assert "Something is missing" in page.text
    assert "a bundle is missing: the one before" in page.text
    (refused,) = page.rows("Bundles that were refused")
    assert refused[1:4] == ["n-1", first.name, str(bad)]
    assert "sha256" in refused[4]
    import_bundle(Store(hub), first)
    page = Page(make_report(Source("hub", str(hub), "")).html)
    assert "No event is known to be missing." in page.text
    assert "No bundle is refused at present." in page.text


def test_a_killed_writer_and_its_recovery(tmp_path: Path) -> None:
    """A node's report tells of a process that is gone; after an export its tail is unknown."""
    node = make_node(tmp_path, "n-1")
    code = f"""
        import logging, logging.config, os, signal
        logging.config.dictConfig({config(node)!r})
        logging.getLogger("harness").info("before the kill")
        os.kill(os.getpid(), signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    """
    python(code)
    (path,) = node.outbox.glob("*.open")
    with path.open("ab") as stream:
        stream.write(b'{"torn')
    page = Page(make_report(Source("outbox", str(node.root), "")).html)
    assert "complete so far" in page.text
    assert "being written" in page.text
    export(node)
    page = Page(make_report(Source("outbox", str(node.root), "")).html)
    assert "complete but for unknown tails" in page.text
    (recovery,) = page.rows("Recoveries: writers that were killed")
    assert recovery[3] == "6"


def test_what_was_pruned_is_not_missing(tmp_path: Path) -> None:
    """A chunk that is exported, and no longer in the outbox, is accounted for."""
    node = make_node(tmp_path, "n-1")
    logging.config.dictConfig(config(node, max_bytes=1000))
    for n in range(20):
        logging.getLogger("harness").info("event", extra={"n": n})
    close_logging()
    export(node)
    chunks = sorted(node.outbox.glob("*.jsonl"))
    assert len(chunks) > 2
    chunks[0].unlink()
    page = Page(make_report(Source("outbox", str(node.root), "")).html)
    assert "No event is known to be missing." in page.text
    shutil.rmtree(node.outbox / ".manifests")
    shutil.rmtree(node.exports)
    page = Page(make_report(Source("outbox", str(node.root), "")).html)
    assert "Something is missing" in page.text
    assert "holes: chunks 0 are not here" in page.text


def test_a_clock_that_is_ahead(tmp_path: Path) -> None:
    """A bundle that was made after it was imported."""
    node = make_node(tmp_path, "n-1")
    bundle = make_bundle(node, range(3))
    hub = tmp_path / "hub"
    hub.mkdir()
    made = datetime.fromisoformat(json.loads((bundle / "manifest.json").read_bytes())["exported_at"]).timestamp()
    import_bundle(Store(hub), bundle, clock=lambda: made - 90)
    page = Page(make_report(Source("hub", str(hub), "")).html)
    assert "ahead of the hub's by 90 s at least" in page.text


def test_a_damaged_store(tmp_path: Path) -> None:
    """The page is made all the same, and says what is damaged; so does the command."""
    node = make_node(tmp_path, "n-1")
    bundle = make_bundle(node, range(3))
    hub = tmp_path / "hub"
    hub.mkdir()
    result = import_bundle(Store(hub), bundle)
    assert result.folder is not None
    chunk = next(result.folder.glob("*.jsonl"))
    chunk.write_bytes(chunk.read_bytes().replace(b"event", b"evenT", 1))
    done = telemetry("report", "--from", "hub", "--root", str(hub), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "damaged" in done.stderr
    page = Page((tmp_path / "calyx-report.html").read_bytes())
    assert "Something is missing: 1 damaged file." in page.text
    assert "its hash is" in page.text
    (result.folder / "manifest.json").write_bytes(b"{")
    done = telemetry("report", "--from", "hub", "--root", str(hub), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "damaged" in Page((tmp_path / "calyx-report.html").read_bytes()).text


# ------------------------------------------------------------------ the command


def test_the_command(places: dict[str, Source], tmp_path: Path, logged: Node) -> None:
    """It writes the page and says what is in it; with --json as a document."""
    done = telemetry("report", "--root", str(logged.root), "-o", "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("page.html (1.")
    assert "1 node, 3 runs" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    done = telemetry("report", "--root", str(logged.root), "--json", "--last", "1", cwd=tmp_path)
    said = json.loads(done.stdout)
    page = (tmp_path / "calyx-report.html").read_bytes()
    assert (said["bytes"], said["nodes"], said["runs"], said["runs_shown_whole"]) == (len(page), 1, 3, 1)
    assert said["path"] == str(tmp_path / "calyx-report.html")
    chosen = [row[3] for row in Page(page).facts["runs"] if row[-1]]
    assert chosen == ["slow"]
    assert len(page) < MAX_BYTES


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a terminal")
def test_progress_on_a_terminal(logged: Node, tmp_path: Path) -> None:
    """The current step goes to standard error only, and only to a terminal."""
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "calyx_logging.scripts", "report", "--root", str(logged.root)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 4096):
                said += part
        except OSError:  # the other end is closed
            pass
        out = process.communicate(timeout=60)[0]
    os.close(ours)
    assert b"reading" in said  # others may be over before they are drawn
    assert out.startswith(b"calyx-report.html (")
    done = telemetry("report", "--root", str(logged.root), cwd=tmp_path)
    assert done.stderr == ""


def test_runs_are_chosen_by_name(places: dict[str, Source]) -> None:
    """Runs are chosen by run_id or instance; the others keep their numbers."""
    page = Page(make_report(places["hub"], Choice(("good",))).html)
    instance = next(row[4] for row in page.facts["runs"] if row[3] == "bad")
    assert [row[3] for row in page.facts["runs"] if row[-1]] == ["good"]
    page = Page(make_report(places["hub"], Choice((instance, "slow"))).html)
    assert sorted(row[3] for row in page.facts["runs"] if row[-1]) == ["bad", "slow"]
    assert len(page.facts["runs"]) == 3


def test_nothing_to_show(tmp_path: Path) -> None:
    """A page that says so."""
    provision(tmp_path, "n-1")
    done = telemetry("report", "--root", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = Page((tmp_path / "calyx-report.html").read_bytes())
    assert "There is nothing to show yet" in page.text
    assert "there are no runs to show" in page.text


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--run", "nonsense"], 2, "there is no run 'nonsense' (there are slow, bad, good)"),
        (["--run", "good", "--last", "3"], 2, "either --run or --last"),
        (["--max-size", "six"], 2, "--max-size 'six' is no size"),
        (["--max-size", "100kB"], 2, "the page is larger than 0.1 MB without any event"),
        (["-o", "-"], 2, "--output - is no file"),
        (["--memory", "lots"], 2, "--memory lots"),
        (["--from", "nowhere"], 4, "there is no such folder"),
        (["--from", "hub"], 2, "there is no node in this store"),
        (["-o", "nowhere/page.html"], 4, "cannot write the report"),
    ],
)
def test_bad_input(logged: Node, tmp_path: Path, args: list[str], code: int, said: str) -> None:
    """A line that says what to do, and no page."""
    done = telemetry("report", "--root", str(logged.root), *args, cwd=tmp_path)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a signal")
def test_ctrl_c_leaves_nothing(logged: Node, tmp_path: Path) -> None:
    """A failing disk leaves no half page, and the page that was there before."""
    (tmp_path / "calyx-report.html").write_text("before")
    command = [sys.executable, "-m", "calyx_logging.scripts", "report", "--root", str(logged.root)]
    for delay in (0.3, 0.8, 1.2):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert [path.name for path in tmp_path.iterdir()] == ["calyx-report.html"]
        text = (tmp_path / "calyx-report.html").read_bytes()
        assert text == b"before" or text.rstrip().endswith(b"</html>")


# ------------------------------------------------------------------ what attacks have found


def first_generation(node: Node, events: list[dict[str, Any]], name: str = "20260101_000000__odd__x.jsonl") -> None:
    """A chunk whose lines nobody of ours has made."""
    stamp = {"node_id": node.id, "ts_utc": "2026-01-01T00:00:00+00:00", "event_id": "e", "source": "x"}
    lines = [json.dumps({**stamp, "event_id": f"e{n}", **event}) for n, event in enumerate(events)]
    (node.outbox / name).write_text("".join(f"{line}\n" for line in lines), "utf-8")


@pytest.mark.parametrize("moment", ["reading", "asking: runs", "fetching events"])
def test_a_chunk_that_is_sealed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Before it is read, while queries run, or before its lines are fetched: every event is there all the same."""
    node = provision(tmp_path, "n-1").node
    logging.config.dictConfig(config(node))
    for n in range(5):
        logging.getLogger("harness").info("event", extra={"run_id": "r", "n": n})
    (path,) = node.outbox.glob("*.open")
    lines = path.read_text("utf-8").splitlines()

    def seal(*_: Any) -> None:
        if path.exists():
            path.rename(path.with_name(path.name.removesuffix(".open")))

    if moment == "reading":
        from calyx_logging.query import _chunk_tables

        batches = _chunk_tables.batches_of
        monkeypatch.setattr(_chunk_tables, "batches_of", lambda *args, **more: (seal(), batches(*args, **more))[1])
    report = make_report(Source.find("outbox", str(tmp_path)), step=lambda text: seal() if text == moment else None)
    close_logging()
    assert not path.exists()
    assert report.facts.totals["events"] == 5
    page = Page(report.html)
    assert page.blob(page.facts["runs"][0][0])["lines"] == lines
    assert report.facts.warnings == []


def test_a_chunk_that_goes_meanwhile_is_said(tmp_path: Path) -> None:
    """Events that were counted, and cannot be shown."""
    node = provision(tmp_path, "n-1").node
    first_generation(node, [{"run_id": "r"}, {"run_id": "r"}])
    chunk = next(node.outbox.glob("*.jsonl"))
    report = make_report(
        Source.find("outbox", str(tmp_path)), step=lambda text: chunk.unlink() if text == "fetching events" else None
    )
    assert report.facts.warnings == ["2 events cannot be shown: their chunks have gone since they were counted"]
    assert report.facts.warnings[0] in Page(report.html).text


@pytest.mark.parametrize("field", ["run_id", "run_instance_id", "suite", "case_id", "event_id", "message", "model"])
@pytest.mark.parametrize("value", ["a\0b", "", "\u202e" * 1000, "{x|y}", "'\"$(`"])
def test_odd_names(tmp_path: Path, field: str, value: str) -> None:
    """Odd names in any field still give a page with all events."""
    node = provision(tmp_path, "n-1").node
    if (field, value) == ("event_id", ""):
        value = "e"  # without an id it is no event
    event = {"run_id": "r", "stage": "case_ended", "case_id": "c", "level": "error", field: value}
    first_generation(node, [event, {"run_id": "other"}])
    report = make_report(Source.find("outbox", str(tmp_path)))
    assert [(one.events, one.count) for one in report.packed] == [(1, 1), (1, 1), (1, 1), (0, 0)]


def test_the_worst_end_of_a_run_counts(tmp_path: Path) -> None:
    """And fewer cases than were expected are not all."""
    node = provision(tmp_path, "n-1").node
    ends = {"a": ["normal", "error"], "b": ["timeout", "normal"], "c": ["normal", "odd"], "d": ["incomplete", "normal"]}
    events = [{"run_id": run, "stage": "run_ended", "exit_status": end} for run, all_ in ends.items() for end in all_]
    events += [{"run_id": "e", "stage": "run_started", "cases_expected": 2}]
    events += [{"run_id": "e", "stage": "case_ended", "case_id": "1", "outcome": "completed"}]
    events += [{"run_id": "e", "stage": "run_ended", "exit_status": "normal"}]
    first_generation(node, events)
    rows = answer(Source.find("outbox", str(tmp_path)), "runs")
    assert {row["run_id"]: (row["exit_status"], row["outcome"]) for row in rows} == {
        "a": ("error", "failed"),
        "b": ("timeout", "timeout"),
        "c": ("odd", "failed"),
        "d": ("incomplete", "incomplete"),
        "e": ("normal", "incomplete"),
    }


def test_what_could_not_be_looked_at_is_not_called_complete(tmp_path: Path) -> None:
    """A failing node hides no other's problems, and nothing is called complete because of it."""
    node = provision(tmp_path, "n-1").node
    first_generation(node, [{}])
    (tmp_path / "telemetry" / "outbox" / "old-1").mkdir()
    first_generation(node.with_id("old-1"), [{"node_id": "old-1"}])
    (node.outbox / ".exported_index.json").mkdir()
    page = Page(make_report(Source.find("outbox", str(tmp_path))).html)
    assert "Whether anything is missing is not known of 1 node." in page.text
    assert "They could not all be looked at." in page.text
    assert "No event is known to be missing." not in page.text


@pytest.mark.parametrize(
    "text", ['{"error": "\\ud800"}', "[1]", "{", "", '{"suite": NaN}', "[" * 5000, "x" * 1_000_000], ids=repr
)
def test_odd_envelopes(tmp_path: Path, text: str) -> None:
    """The page says that it cannot be read."""
    logged_node(tmp_path)
    (path,) = tmp_path.glob("runtime/benchmarks/results/reading/n-1/slow__*.envelope.json")
    envelope = json.loads(path.read_text("utf-8"))
    path.write_text(text if not text.startswith('{"') else json.dumps(envelope)[:-1] + "," + text[1:], "utf-8")
    page = Page(make_report(Source.find("outbox", str(tmp_path))).html)
    assert len(page.blob("details")["envelopes"]) == 3
    assert all(isinstance(said, str) for said in page.blob("details")["envelopes"].values())


def test_more_runs_of_a_name_than_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ones are shown, with a note; every name that was asked for is known."""
    monkeypatch.setattr("calyx_logging.report.collect.MAX_ROWS", 3)
    node = provision(tmp_path, "n-1").node
    first_generation(node, [{"run_id": "same", "run_instance_id": str(n)} for n in range(5)] + [{"run_id": "other"}])
    report = make_report(Source.find("outbox", str(tmp_path)), Choice(("same", "other")))
    assert len(report.facts.chosen) == 3
    assert report.facts.warnings == ["--run names 6 runs: the last 3 of them are shown whole"]


@pytest.mark.slow
def test_room_is_for_what_needs_it(tmp_path: Path) -> None:
    """Room that small excerpts leave goes to the large ones."""
    node = provision(tmp_path, "n-1").node
    large = [{"run_id": "large", "noise": os.urandom(300).hex()} for _ in range(400)]
    first_generation(node, [*large, *({"run_id": f"small {n}"} for n in range(30))])
    source = Source.find("outbox", str(tmp_path))
    whole = make_report(source, Choice(last=31))
    report = make_report(source, Choice(last=31), max_bytes=len(whole.html) + 10_000)
    assert [one.events for one in report.packed] == [one.count for one in report.packed]


def test_the_output_is_a_regular_file(logged: Node, tmp_path: Path) -> None:
    """A link, a pipe or a device is not replaced; a name as long as any is fine."""
    (tmp_path / "target").write_text("before")
    (tmp_path / "link.html").symlink_to(tmp_path / "target")
    done = telemetry("report", "--root", str(logged.root), "-o", "link.html", cwd=tmp_path)
    assert (done.returncode, "is no regular file" in done.stderr) == (4, True)
    assert (tmp_path / "target").read_text() == "before"
    done = telemetry("report", "--root", str(logged.root), "-o", "n" * 250 + ".html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name[:6] for path in tmp_path.iterdir()) == ["link.h", "nnnnnn", "target"]


def test_many_days_and_no_times(tmp_path: Path) -> None:
    """Years of events are drawn by the day; those without a time are counted."""
    node = provision(tmp_path, "n-1").node
    days = [{"ts_utc": f"{year}-{month:02}-01T00:00:00+00:00"} for year in range(1900, 2030) for month in range(1, 13)]
    first_generation(node, [*days, *({"ts_utc": "yesterday"} for _ in range(7))])
    report = make_report(Source.find("outbox", str(tmp_path)))
    assert (report.facts.unit, len(report.facts.activity), report.facts.undated) == ("day", 130 * 12, 7)
    assert "Events without a time" in Page(report.html).text


def test_a_root_that_is_found(logged: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found from a subfolder or by CALYX_ROOT, the page names the root, and its commands work from anywhere."""
    below = logged.root / "below"
    below.mkdir(exist_ok=True)
    monkeypatch.chdir(below)
    assert Source.find("outbox", None).where == str(logged.root)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALYX_ROOT", str(below / ".."))
    source = Source.find("outbox", None)
    assert source.where == str(logged.root)
    assert source.command("query").endswith(f"--root {source.root}")


def test_a_run_names_the_processes_that_logged_it(node: Node) -> None:
    """A run's processes say what ran, on what, and how it ended; another process of the node is not among them."""
    code = """
    import json, logging.config, sys
    from calyx_logging import benchmark_run
    logging.config.dictConfig(json.loads(sys.argv[1]))
    with benchmark_run(suite="reading", run_id=sys.argv[2]):
        logging.getLogger("harness").info("in it")
    sys.exit(int(sys.argv[3]))
    """
    settings = json.dumps(config(node, identity=True))
    for run, status in (("one", "0"), ("two", "3")):
        assert python(code, settings, run, status, CALYX_ROOT=str(node.root)).returncode == int(status)
    export(node)
    page = Page(make_report(Source.find("outbox", str(node.root))).html)
    rows = {row[3]: page.blob("details")["processes"][row[0]] for row in page.facts["runs"]}
    assert {run: [one["exit_code"] for one in processes] for run, processes in rows.items()} == {"one": [0], "two": [3]}
    (one,), (two,) = rows["one"], rows["two"]
    assert (one["program"], one["reason"]) == ("-c", "closed")
    assert one["python"] == f"{sys.implementation.name} {'.'.join(map(str, sys.version_info[:3]))}"
    assert one["host"] == two["host"]
    assert one["pid"] != two["pid"]
    assert set(page.facts["process_counts"].values()) == {1}


# ------------------------------------------------------------------ many runs


def write_events(node: Node, events: Iterable[dict[str, Any]]) -> None:
    """Write events, stamped, as one chunk of a node."""
    lines = []
    for seq, event in enumerate(events):
        when = datetime.fromtimestamp(1_790_000_000 + seq / 1000, UTC).isoformat(timespec="microseconds")
        stamp = {"node_id": node.id, "ts_utc": when, "event_id": f"id-{seq}", "source": "bench_harness"}
        lines.append(with_seq(encode({**stamp, "level": "info", **event}), seq))
    (node.outbox / "20261122_080000__harness__3f9a1c20-0000.jsonl").write_bytes(b"".join(lines))


def test_small_runs_leave_room_for_a_large_one(tmp_path: Path) -> None:
    """The limit is on the events of all runs together, and a run's cases stay if there are few."""
    node = provision(tmp_path, "n-1").node
    small = ({"run_id": f"r-{n}", "suite": "s", "message": "m"} for n in range(600))
    large = ({"run_id": "large", "suite": "s", "message": "m", "case_id": f"c-{n // 2}"} for n in range(3000))
    write_events(node, [*small, *large])
    report = make_report(Source("outbox", str(tmp_path), "here"))
    assert {one.key: (one.events, one.count) for one in report.packed}[run_key(report.facts.chosen[0])] == (3000, 3000)
    assert len(report.facts.chosen) == 601
    page = Page(report.html)
    assert len(page.blob("cases")[run_key(report.facts.chosen[0])]) == 1500


def test_cases_go_from_the_largest_runs_first(tmp_path: Path) -> None:
    """Until they fit; a page that is too small even without them is refused."""
    node = provision(tmp_path, "n-1").node
    names = [hashlib.sha512(str(n).encode()).hexdigest() for n in range(4000)]
    ended = {"suite": "s", "stage": "case_ended", "outcome": "completed"}
    large = [{**ended, "run_id": "large", "case_id": name} for name in names]
    write_events(node, [*large, *({**ended, "run_id": f"small-{n}", "case_id": "c"} for n in range(50))])
    source = Source("outbox", str(tmp_path), "here")
    whole = Page(make_report(source).html).blob("cases")
    assert sorted(map(len, whole.values())) == [*[1] * 50, 4000]
    found = Page(make_report(source, max_bytes=1_700_000).html).blob("cases")
    *small, most = sorted(map(len, found.values()))
    assert (small, 500 < most < 4000) == ([1] * 50, True)
    with pytest.raises(ConfigError, match="the page is larger than"):
        make_report(source, Choice(last=1000), max_bytes=20_000)


def test_long_envelopes_do_not_fill_the_page(tmp_path: Path) -> None:
    """Those of the oldest runs are left out where there is no room."""
    node = provision(tmp_path, "n-1").node
    runs = [{"run_id": f"r-{n}", "run_instance_id": "i", "suite": "s"} for n in range(200)]
    write_events(node, ({**run, "stage": "run_started"} for run in runs))
    folder = results_dir(benchmarks_of(tmp_path), "s", node.id)
    for n, run in enumerate(runs):
        error = "".join(hashlib.sha512(f"{n} {k}".encode()).hexdigest() for k in range(140))
        envelope = RunEnvelope.start("s", run["run_id"], "i").end("error", cases_completed=0, error=error)
        envelope.write(folder / f"{run['run_id']}__i.envelope.json")
    source = Source("outbox", str(tmp_path), "here")
    assert len(Page(make_report(source).html).blob("details")["envelopes"]) in range(50, 200)
    assert len(make_report(source, max_bytes=2_500_000).html) < 2_500_000


def test_a_model_that_only_crashed_has_its_place(tmp_path: Path) -> None:
    """On the heat map, as one that passed nothing; one without verdicts has its mean score there, and is not ranked."""
    node = provision(tmp_path, "n-1").node
    run = {"suite": "s", "stage": "case_ended"}
    write_events(
        node,
        [
            *({**run, "run_id": "a", "case_id": n, "model": "a", "outcome": "completed", "passed": True} for n in "12"),
            *({**run, "run_id": "b", "case_id": n, "model": "b", "outcome": "error"} for n in "123"),
            {**run, "run_id": "c", "case_id": "1", "model": "c", "outcome": "completed", "score": 0.25},
        ],
    )
    _, *rows = Page(make_report(Source("outbox", str(tmp_path), "here")).html).by_heading["Results"]
    found = {row[0]: " ".join(row[1].split()) for row in rows}
    assert found["a"].startswith("100.0 %")
    assert found["b"].startswith("0.0 %")
    assert found["b"].endswith("n 3")
    assert found["c"] == "mean score 0.250no verdicts, n 1"
