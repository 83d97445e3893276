"""The server as a process: what it answers, to whom, how much one visitor can take, and how it ends."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from calyx_logging import Node, benchmark_run, provision
from calyx_logging.errors import StorageError
from calyx_logging.hub.importer import import_bundle
from calyx_logging.hub.store import Store
from calyx_logging.outbox.export import export
from calyx_logging.query import connect
from calyx_logging.query.named import named
from calyx_logging.report.report import make_report
from calyx_logging.report.runs import run_key
from calyx_logging.report.source import Source
from calyx_logging.view import connections
from calyx_logging.view.content import Content
from calyx_logging.view.server import Server
from conftest import telemetry, tree
from serving import Served, served, until
from sessions import HOSTILE, logged_node


@pytest.fixture(scope="module")
def server(logged: Node) -> Iterator[Served]:
    with served("--root", logged.root) as found:
        found.page()
        yield found


@pytest.fixture(scope="module")
def places(logged: Node, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Options that name the same events as an outbox, a bundle and a hub."""
    folder = tmp_path_factory.mktemp("places")
    copied = shutil.copytree(logged.root, folder / "node")
    bundle = export(Node.find(copied)).bundle
    assert bundle is not None
    store = Store(folder / "hub")
    store.root.mkdir()
    assert import_bundle(store, bundle).outcome == "imported"
    return {
        "outbox": ["--root", str(logged.root)],
        "bundle": ["--from", str(bundle)],
        "hub": ["--from", "hub", "--root", str(store.root)],
    }


# ------------------------------------------------------------------ what it answers


@pytest.mark.parametrize("place", ["outbox", "bundle", "hub"])
def test_its_numbers_are_those_of_the_named_queries(places: dict[str, list[str]], place: str) -> None:
    options = places[place]
    with served(*options) as server:
        facts = server.facts()
        where = options[1] if place == "bundle" else place
        backend = connect(None if place == "bundle" else options[-1], where)
        runs = named(backend, "runs").to_pyarrow().to_pylist()
        cases = named(backend, "cases").to_pyarrow().to_pylist()
        events = backend.table("events").to_pyarrow().to_pylist()
        backend.disconnect()
        assert len(facts["runs"]) == len(runs) == 3
        for row in runs:
            found = server.json(f"run?run={run_key(row)}")
            mine = [case for case in cases if run_key(case) == run_key(row)]
            assert sorted(case[0] for case in found["cases"]) == sorted(case["case_id"] for case in mine)
            assert {(case[0], case[3], case[4], case[9]) for case in found["cases"]} == {
                (case["case_id"], case["outcome"], case["passed"], case["score"]) for case in mine
            }
            document = server.json(f"events?run={run_key(row)}")
            assert document["count"] == row["events"] == len(document["lines"])
            ids = [json.loads(line)["event_id"] for line in document["lines"]]
            assert sorted(ids) == sorted(event["event_id"] for event in events if run_key(event) == run_key(row))
        outside = server.json("events?run=outside")
        assert outside["count"] == sum(event["run_id"] is None for event in events)
        errors = server.json("events?run=errors")
        assert errors["count"] == sum(event["level"] in ("error", "critical") for event in events)


def test_the_page_shows_what_the_report_shows(logged: Node, server: Served) -> None:
    """The same templates are filled with the same answers."""
    report = make_report(Source.find("outbox", str(logged.root))).html.decode()
    live = server.page()
    for heading in ("Results", "Changed since the run before", "Errors by kind", "Nodes"):
        assert (f"<h2>{heading}</h2>" in report) == (f"<h2>{heading}</h2>" in live)
    row = "<table"
    assert report.count(row) == live.count(row)
    assert len(live) < 100_000, "no events, no scripts"


def test_events_of_one_case_and_of_the_same_case_elsewhere(server: Served) -> None:
    runs = {row[3]: row[0] for row in server.facts()["runs"]}
    document = server.json(f"events?run={runs['good']}&case=1%2B1")
    assert [json.loads(line)["message"] for line in document["lines"]] == ["asking 1", "case completed"]
    found = server.json(f"others?run={runs['good']}&case=1%2B1")
    assert [other["key"] for other in found["others"]] == [runs["bad"]]
    assert found["others"][0]["cases"][0][0] == "1+1"
    assert {json.loads(line)["case_id"] for line in found["others"][0]["lines"]} == {"1+1"}
    assert server.json(f"others?run={runs['good']}&case=nothing")["others"] == []


def test_runs_and_cases_and_events_beyond_the_first_are_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from calyx_logging.query.executors import Here
    from calyx_logging.report import collect, runs
    from calyx_logging.report import events as of_events

    node = logged_node(tmp_path)
    monkeypatch.setattr(collect, "MAX_RUNS", 1)
    monkeypatch.setattr(runs, "MAX_CASES", 3)
    monkeypatch.setattr(of_events, "MAX_EVENTS", 4)
    content = Content(Source.find("outbox", str(node.root)), Here(), tell=lambda step: None)
    content.refresh(lambda number: None)
    rest = content.older_runs(1)
    assert [row[3] for row in rest["runs"]] == ["bad", "good"]
    key = rest["runs"][1][0]
    first, then = content.run(key), content.run(key, 3)
    assert [case[0] for case in [*first["cases"], *then["cases"]]] == ["0+0", "1+1", "2+2", "3+3"]
    whole = content.events(key)
    assert (whole["count"], len(whole["lines"]), whole["gap"]) == (10, 4, 2)
    middle = [line for at in (2, 6) for line in content.events(key, first=at)["lines"]][:6]
    seqs = [json.loads(line)["seq"] for line in [*whole["lines"][:2], *middle, *whole["lines"][2:]]]
    assert seqs == sorted(set(seqs))
    assert len(seqs) == 10
    content.close()


@pytest.mark.parametrize(
    ("name", "status"),
    [
        *(("run?run=0123456789abcdef", 404), ("events?run=0123456789abcdef", 404), ("run", 400), ("run?run=x", 400)),
        *(("events?run=errors&first=-1", 400), ("events?run=errors&first=1e9", 400), ("events?run=../../etc", 400)),
        *(("runs?first=99999999999999999999", 400), ("nothing", 404), ("a/b", 404), ("..%2f..%2fetc%2fpasswd", 404)),
        *(("../../../etc/passwd", 404), ("%2e%2e/%2e%2e/etc/passwd", 404), ("page.css/../../setup.cfg", 404)),
        *(("page.css%00", 404), ("/page.css", 404), ("\\..\\..\\windows\\win.ini", 404), ("%ff%fe", 404)),
        *(("events?run=errors&case=%00", 200), ("run?run=%f0%28%8c%28", 400), ("PAGE.CSS", 404)),
        *(("others?run=0123456789abcdef&case=x", 404), ("page.css", 200), ("echarts.js", 200), ("page.js", 200)),
    ],
)
def test_every_odd_question_has_an_answer(server: Served, name: str, status: int) -> None:
    found, headers, body = server.get(name)
    assert found == status, body
    assert headers["x-content-type-options"] == "nosniff"
    if status != 200:
        assert json.loads(body)["error"]
    assert b"root:x:" not in body


def test_texts_of_events_are_escaped_in_the_page(server: Served) -> None:
    page = server.page()
    for text in HOSTILE[:5]:
        assert text not in page
    status, headers, _ = server.get()
    assert status == 200
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["script-src"]) == ("'none'", "'self'")
    assert "unsafe" not in str(policy)


def test_nothing_is_changed_by_what_is_asked(logged: Node, server: Served) -> None:
    before = tree(logged.root)
    for name in ("", "cases", "runs", "events?run=errors", "page.js"):
        server.get(name)
    for method in ("POST", "DELETE", "PUT"):
        assert server.get(method=method)[0] == 405
    assert server.get(method="HEAD")[2] == b""
    assert tree(logged.root) == before


# ------------------------------------------------------------------ as it is written


def test_events_arrive_as_they_are_written_and_the_numbers_follow(
    node: Node, configure: Callable[..., logging.Logger], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = configure()
    log.info("before")
    monkeypatch.setenv("CALYX_ROOT", str(node.root))
    with served("--root", node.root) as server:
        assert server.facts()["runs"] == []
        stream = server.events()
        assert stream.messages(1) == ["before"]
        with benchmark_run(suite="s", run_id="r", logger=log) as run:
            with run.case("c"):
                log.info("within")
            (row,) = until(lambda: server.facts()["runs"])
            assert (row[3], row[-3]) == ("r", "incomplete")
        assert stream.messages(4) == ["run started", "within", "case completed", "run ended"]
        until(lambda: server.facts()["runs"][0][-3] == "completed")
        changed = next(data for name, data in stream if name == "changed" and data >= 2)
        assert changed <= server.facts()["live"]["version"]
        stream.close()


def test_who_comes_back_goes_on_where_it_was(node: Node, configure: Callable[..., logging.Logger]) -> None:
    log = configure()
    with served("--root", node.root) as server:
        server.page()
        first = server.events()
        log.info("one")
        assert first.messages(1) == ["one"]
        first.close()
        log.info("two")
        again = server.events(first.last)
        assert again.messages(1) == ["two"]
        again.close()
        for after in ("nonsense", "-1", f"{first.last}9999999999999999999", "0" * 16 + "-5"):
            anew = server.events(after)
            assert anew.messages(2) == ["one", "two"]
            anew.close()


def test_an_import_shows_at_a_hub_that_is_watched(places: dict[str, list[str]], tmp_path: Path) -> None:
    hub = shutil.copytree(places["hub"][-1], tmp_path / "hub")
    (tmp_path / "other").mkdir()
    other = provision(tmp_path / "other", "n-2").node
    code = (
        "import logging, sys; from calyx_logging import OutboxHandler; log = logging.getLogger(); "
        "log.addHandler(OutboxHandler(root=sys.argv[1])); log.error('from the other node')"
    )
    subprocess.run([sys.executable, "-c", code, str(other.root)], check=True)
    bundle = export(other).bundle
    assert bundle is not None
    with served("--from", "hub", "--root", hub) as server:
        assert "n-2" not in server.page()
        stream = server.events()
        assert telemetry("import", bundle, "--root", hub).returncode == 0
        until(lambda: "n-2" in server.page())
        stream.close()


# ------------------------------------------------------------------ how much one visitor can take


def test_a_thousand_connections_are_bounded(server: Served) -> None:
    """The server keeps answering those that it has, and afterwards everybody."""
    watcher = server.events()
    idle = []
    try:
        for _ in range(1000):
            try:
                idle.append(socket.create_connection(("127.0.0.1", server.port), timeout=5))
            except OSError:
                break
        time.sleep(0.5)
        with open(f"/proc/{server.process.pid}/limits", encoding="ascii") as limits:  # noqa: PTH123  # no file of ours
            assert "Max open files" in limits.read()
        descriptors = len(os.listdir(f"/proc/{server.process.pid}/fd"))
        assert descriptors < connections.MAX_CONNECTIONS + 60, descriptors
        refused = sum(b"503" in _read(one) for one in idle[-50:])
        assert refused == 50
    finally:
        for one in idle:
            one.close()
    assert next(iter(watcher))[0] == "hello"
    watcher.close()
    until(lambda: server.get()[0] == 200)


def _read(one: socket.socket) -> bytes:
    one.settimeout(5)
    try:
        return one.recv(100)
    except OSError:
        return b""


def test_who_asks_nothing_and_who_asks_without_end_is_cut_off(server: Served) -> None:
    silent = socket.create_connection(("127.0.0.1", server.port))
    slow = socket.create_connection(("127.0.0.1", server.port))
    slow.sendall(b"GET / HTTP/1.1\r\nHost: 127.0")
    endless = socket.create_connection(("127.0.0.1", server.port))
    endless.sendall(b"GET / HTTP/1.1\r\n")
    with pytest.raises((ConnectionResetError, BrokenPipeError)):  # noqa: PT012  # wherever it is cut off
        for _ in range(200):
            endless.sendall(b"X-Long: " + b"x" * 8000 + b"\r\n")
            time.sleep(0.01)
    for one in (silent, slow):
        one.settimeout(connections.SILENT_SECONDS + 20)
        with suppress(ConnectionResetError):
            assert one.recv(100) == b""
    for one in (silent, slow, endless):
        one.close()
    assert server.get()[0] == 200


@pytest.mark.slow
def test_a_reader_that_takes_nothing_is_cut_off_and_costs_no_memory(
    node: Node, configure: Callable[..., logging.Logger]
) -> None:
    log = configure()
    with served("--root", node.root) as server:
        server.page()
        slow = server.events()
        slow._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        quick = server.events()
        before = _memory(server)
        for n in range(20_000):
            log.info("%d", n, extra={"text": "x" * 2000})
        assert len(quick.messages(20_000)) == 20_000
        assert _memory(server) - before < 120_000, "kB: the window is 32 MB of text, and pages are made meanwhile"
        deadline = time.monotonic() + connections.SLOW_SECONDS + 30
        while _established(server) > 1 and time.monotonic() < deadline:
            time.sleep(0.5)
        assert _established(server) == 1, "the quick one"
        slow.close()
        quick.close()


def _memory(server: Served) -> int:
    text = Path(f"/proc/{server.process.pid}/status").read_text("ascii")
    return int(text.split("VmRSS:")[1].split()[0])


def _established(server: Served) -> int:
    """Connections that the server has open."""
    found = 0
    for link in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with suppress(OSError):
            found += str(link.readlink()).startswith("socket:")
    return found - 3  # what it listens on, and the loop's own pair


# ------------------------------------------------------------------ how it begins and ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_by_ctrl_c_and_with_its_terminal(logged: Node, number: int) -> None:
    with served("--root", logged.root) as server:
        server.page()
        stream = server.events()
        assert next(iter(stream))[0] == "hello"
        began = time.monotonic()
        code, said = server.stop(number)
        assert time.monotonic() - began < 10
        assert code in (0, -number), said
        assert not {"Traceback", "Exception"} & set(said.split())
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), timeout=1)
        stream.close()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_it_ends_while_questions_wait(logged: Node, number: int) -> None:
    with served("--root", logged.root) as server:
        key = server.facts()["runs"][0][0]
        threads = [
            threading.Thread(target=lambda: suppress_all(lambda: server.get(f"events?run={key}"))) for _ in range(25)
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        code, said = server.stop(number)
        assert code in (0, -number), said
        assert "Traceback" not in said
        for thread in threads:
            thread.join(60)


def suppress_all(call: Callable[[], Any]) -> None:
    """Ask a server that may be gone by then."""
    with suppress(OSError, HTTPException):
        call()


def test_it_ends_while_the_first_page_is_made(logged: Node) -> None:
    for delay in (0.0, 0.3, 0.8):
        with served("--root", logged.root) as server:
            time.sleep(delay)
            code, said = server.stop()
            assert code in (0, 130, -signal.SIGINT), said
            assert "Traceback" not in said


def test_any_fault_is_said_and_tried_again(logged: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unforeseen exception does not end the refresher; it rests between attempts and says the same thing once."""
    tried: list[float] = []

    def refresh(self: Content, *args: Any, **options: Any) -> None:
        tried.append(time.monotonic())
        raise MemoryError("no more")

    monkeypatch.setattr(Content, "refresh", refresh)
    said: list[str] = []
    server = Server(Source.find("outbox", str(logged.root)), warn=said.append)
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: len(tried) == 3)
    server.stop()
    thread.join(30)
    assert said == ["MemoryError: no more"]
    assert tried[2] - tried[0] > 3.5


def test_a_slow_reader_that_reads_is_served(logged: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is cut off only if nothing is taken."""
    monkeypatch.setattr(connections, "SLOW_SECONDS", 0.5)
    size = 30_000_000
    monkeypatch.setattr(Content, "first_cases", lambda self: {"x": "y" * size})
    server = Server(Source.find("outbox", str(logged.root)))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        reader = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        path = server.url.partition(f":{server.port}")[2]
        reader.sendall(f"GET {path}cases HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        got = 0
        while data := reader.recv(1_000_000):
            got += len(data)
            time.sleep(0.02)
        assert got > size
        reader.close()
    finally:
        server.stop()
        thread.join(30)


def test_the_address_can_be_kept(logged: Node) -> None:
    token = "x" * 20
    with served("--root", logged.root, CALYX_VIEW_TOKEN=token) as first:
        first.stop()
    with served("--root", logged.root, "--port", str(first.port), CALYX_VIEW_TOKEN=token) as second:
        assert second.url == first.url == f"http://127.0.0.1:{first.port}/{token}/"
        assert second.get()[0] == 200
        code, said = _refused("view", "--root", logged.root, "--port", str(first.port))
        assert (code, f"port {first.port} cannot be listened on" in said) == (2, True)


def _refused(*args: object, **environment: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "calyx_logging.scripts", *map(str, args)]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr


def test_bad_beginnings_are_said(logged: Node, tmp_path: Path) -> None:
    code, said = _refused("view", "--root", logged.root, CALYX_VIEW_TOKEN="short")
    assert (code, "CALYX_VIEW_TOKEN" in said) == (2, True)
    code, said = _refused("view", "--root", tmp_path)
    assert (code, said[:7]) == (2, "error: ")
    code, said = _refused("view", "--root", logged.root, "--memory", "nonsense")
    assert (code, "--memory nonsense" in said) == (2, True)
    code, said = _refused("view", "--from", tmp_path / "nothing")
    assert (code, "there is no such folder" in said) == (4, True)


def test_it_listens_on_the_loopback_alone(server: Served) -> None:
    text = Path("/proc/net/tcp").read_text("ascii")
    listening = [line.split() for line in text.splitlines()[1:]]
    mine = [one[1] for one in listening if one[3] == "0A" and one[1].endswith(f":{server.port:04X}")]
    assert mine == [f"0100007F:{server.port:04X}"]


def test_a_chunk_that_cannot_be_read_is_said_on_the_page(tmp_path: Path) -> None:
    node = logged_node(tmp_path)
    chunk = next(node.outbox.glob("*.jsonl"))
    chunk.unlink()
    chunk.symlink_to(tmp_path / "elsewhere")
    with served("--root", node.root) as server:
        assert chunk.name in server.page()


def test_what_goes_wrong_is_said_and_tried_again(logged: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Content.refresh
    refused = ["the disk is full"]

    def refresh(self: Content, *args: Any, **options: Any) -> None:
        if refused:
            raise StorageError(refused[0], path="/tmp")
        made(self, *args, **options)

    monkeypatch.setattr(Content, "refresh", refresh)
    said: list[str] = []
    server = Server(Source.find("outbox", str(logged.root)), warn=said.append)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        reader = Served(cast(Any, None), {"url": server.url, "port": server.port})
        stream = reader.events()
        news = ((name, data) for name, data in stream if name in ("trouble", "changed"))
        assert next(news) == ("trouble", said[0])
        assert said == ["/tmp: the disk is full"]
        refused.clear()
        later = [next(news) for _ in range(2)]
        while later[-1] != ("trouble", ""):  # the page is shown a moment before that
            later.append(next(news))
        assert ("changed", 1) in later
        assert reader.facts()["runs"]
        stream.close()
    finally:
        server.stop()
        thread.join(30)
    assert not thread.is_alive()


def test_an_extra_that_is_missing_is_named(logged: Node, tmp_path: Path) -> None:
    (tmp_path / "uvicorn.py").write_text("raise ImportError('no', name='uvicorn')")
    code, said = _refused("view", "--root", logged.root, PYTHONPATH=str(tmp_path))
    assert code == 2
    assert "uvicorn" in said
    assert 'pip install "calyx-logging[view]"' in said
