"""The page of `calyx-telemetry view` in a real browser: events as they are written, and what the reader keeps.

`CALYX_LIVE_SECONDS` says for how long 1,000 events a second are written (10 unless told).
"""

from __future__ import annotations

import http.server
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from browsing import chromium
from calyx_logging import Node, OutboxHandler, benchmark_run, provision
from conftest import REPO
from serving import Served, served, until
from sessions import HOSTILE

pytestmark = pytest.mark.integration

SECONDS = int(os.environ.get("CALYX_LIVE_SECONDS", "10"))
ARGUMENTS = ("--js-flags=--expose-gc", "--host-resolver-rules=MAP evil.example 127.0.0.1")

COUNT_EVENTS = """
window.received = new Set();
window.repeated = 0;
const Native = window.EventSource;
window.EventSource = class extends Native {
  constructor(...args) {
    super(...args);
    this.addEventListener("lines", (event) => {
      for (const line of JSON.parse(event.data).lines) {
        const id = JSON.parse(line).event_id;
        if (window.received.has(id)) window.repeated += 1;
        window.received.add(id);
      }
    });
  }
};
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(ARGUMENTS) as found:
        yield found


@contextmanager
def opened(
    browser: Any, url: str, *, allowed: str = "", script: str = "", trouble: str = "", **options: Any
) -> Iterator[Any]:
    """A page that is open; at the end it has complained of nothing but what is `allowed`."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
    if script:
        context.add_init_script(script)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.goto(url)
    page.locator("html[data-ready=yes]").wait_for(state="attached", timeout=60_000)
    yield page
    said_at_last = page.locator("#trouble").text_content() if page.locator("#trouble").is_visible() else ""
    assert said_at_last == "" or (trouble and trouble in said_at_last), said_at_last
    context.close()
    assert [text for text in said if not allowed or not re.search(allowed, text)] == []


@pytest.fixture(scope="module")
def server(logged: Node) -> Iterator[Served]:
    with served("--root", logged.root) as found:
        found.page()
        yield found


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return provision(tmp_path, "n-1").node


def writer(node: Node, run_id: str, events: int, rate: float) -> subprocess.Popen[str]:
    command = [sys.executable, str(REPO / "tests/live_writer.py"), str(node.root), run_id, str(events), str(rate)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def number_in(page: Any, selector: str) -> int:
    found = re.search(r"[\d,]+", page.locator(selector).inner_text())
    assert found is not None
    return int(found[0].replace(",", ""))


def becomes(value: object, found: Callable[[], object]) -> bool:
    """Wait until a function returns a value; False if it never does."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if found() == value:
            return True
        time.sleep(0.05)
    return False


# ------------------------------------------------------------------ every view


def test_every_view_and_link_works(browser: Any, server: Served) -> None:
    with opened(browser, server.url) as page:
        for name in ("overview", "live", "runs", "suites", "compare", "errors", "health"):
            page.locator(f".top nav a[href='#{name}']").click()
            page.locator(f"#{name}.here h1").wait_for()
        page.locator(".top nav a[href='#errors']").click()
        page.locator("#errors .events .line").first.click()
        assert "event_id" in page.locator("#errors .detail").first.inner_text()
        page.locator(".top nav a[href='#runs']").click()
        page.locator("#run-table a", has_text="bad").click()
        page.locator("#h-run", has_text="bad").wait_for()
        page.locator("#run-events .line").first.wait_for()
        assert number_in(page, "#run-events p[role=status]") == 10
        page.locator("#case-table a", has_text="1+1").click()
        page.locator("#case-told pre", has_text="no <i>answer</i>").wait_for()
        assert page.locator("#case-events .line").count() == 2
        page.locator("#case-others tbody a", has_text="good").click()
        page.locator("#case-outcome", has_text="passed").wait_for()
        page.keyboard.press("Escape")
        page.locator("#h-run", has_text="good").wait_for()
        for text in HOSTILE[:3]:
            assert page.evaluate("(text) => !document.documentElement.outerHTML.includes(text)", text)


def test_a_link_to_a_case_or_an_event_opens_there(browser: Any, server: Served) -> None:
    key = next(row[0] for row in server.facts()["runs"] if row[3] == "bad")
    with opened(browser, f"{server.url}#run/{key}/case/1%2B1") as page:
        page.locator("#h-case", has_text="1+1").wait_for()
    with opened(browser, f"{server.url}#compare") as page:
        page.locator("#compare-runs tbody tr").nth(1).wait_for()
        assert page.locator("#compare-table tbody tr").count() > 0
        page.locator("#compare-differences h2").wait_for()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_runs_over_the_edge(browser: Any, server: Served, width: int, scheme: str) -> None:
    with opened(browser, f"{server.url}#live", color_scheme=scheme) as page:
        page.set_viewport_size({"width": width, "height": 800})
        page.locator("#live-events .line").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


# ------------------------------------------------------------------ as it is written


def test_a_thousand_events_a_second_reach_two_browsers(browser: Any, node: Node) -> None:
    """Every event arrives once, and neither the page's memory nor the server's grows with them."""
    each = 500 * SECONDS
    with (
        served("--root", node.root) as server,
        opened(browser, f"{server.url}#live", script=COUNT_EVENTS) as page,
        opened(browser, f"{server.url}#runs", script=COUNT_EVENTS) as other,
    ):
        harnesses = [writer(node, f"run-{n}", each, 500) for n in range(2)]
        page.locator("#live-events .line").first.wait_for()
        time.sleep(min(5, SECONDS / 2))
        early = _memory(page), _resident(server)
        for harness in harnesses:
            harness.wait(120 + SECONDS)
        logged = sum(int(harness.communicate()[0]) for harness in harnesses)
        assert logged > 2 * each
        for one in (page, other):
            one.wait_for_function("(count) => window.received.size >= count", arg=logged, timeout=60_000)
            assert one.evaluate("[window.received.size, window.repeated]") == [logged, 0]
        page.wait_for_function(
            "(count) => document.querySelector('#live-said').textContent.startsWith(count)", arg=f"{logged:,} events"
        )
        assert "too fast" not in page.locator("#live-said").inner_text()
        late = _memory(page), _resident(server)
        print(f"{logged} events; page {early[0]:.0f} -> {late[0]:.0f} MB, server {early[1]:.0f} -> {late[1]:.0f} MB")
        own = logged * 200 / 1e6  # what the test itself keeps of each in the page: its id
        assert late[0] < early[0] + 40 + own
        assert late[1] < early[1] + 250, "two databases of the page for a moment, and a window of 32 MB"
        other.locator("#run-table .o-completed").nth(1).wait_for(timeout=30_000)
        assert other.locator("#run-table tbody tr").count() == 2


def _memory(page: Any) -> float:
    """MB of the page's objects, after garbage has been collected."""
    page.evaluate("window.gc()")
    return float(page.evaluate("performance.memory.usedJSHeapSize")) / 1e6


def _resident(server: Served) -> float:
    text = Path(f"/proc/{server.process.pid}/status").read_text("ascii")
    return int(text.split("VmRSS:")[1].split()[0]) / 1e3


def test_the_page_follows_without_losing_place(browser: Any, node: Node) -> None:
    """Filters, order, what is open, what is marked and where one is stay while numbers change."""
    writer(node, "first", 150, 1000).wait(60)
    with served("--root", node.root) as server, opened(browser, f"{server.url}#runs") as page:
        page.locator("#run-filter [name=text]").fill("first")
        page.locator("#run-table th", has_text="Events").locator("button").click()
        page.locator(".top nav a[href='#overview']").click()
        page.locator("#overview .about summary").click()
        page.evaluate(
            "const node = document.querySelector('#overview th[scope=row] bdi').firstChild;"
            "getSelection().setBaseAndExtent(node, 0, node, 3)"
        )
        page.evaluate("window.scrollTo(0, 60)")
        page.locator("#overview table button").first.focus()
        before = page.locator("#overview .totals").inner_text()
        writer(node, "second", 150, 1000).wait(60)
        page.wait_for_function("(text) => document.querySelector('#overview .totals').innerText !== text", arg=before)
        until(lambda: "2" in page.locator("#overview .totals dd").nth(1).inner_text())
        assert page.evaluate("getSelection().toString()") == "n-1"
        assert page.evaluate("document.activeElement.closest('th') !== null")
        assert page.locator("#overview .about").get_attribute("open") is not None
        assert page.evaluate("Math.abs(window.scrollY - 60) < 30")
        page.locator(".top nav a[href='#runs']").click()
        assert page.locator("#run-filter [name=text]").input_value() == "first"
        assert page.locator("#run-table tbody tr").count() == 1
        assert page.locator("#run-table th[aria-sort=ascending]").inner_text() == "Events"
        page.locator("#run-filter [name=text]").fill("")
        until(lambda: page.locator("#run-table tbody tr").count() == 2)


def test_a_run_that_is_open_goes_on_and_ends(browser: Any, node: Node) -> None:
    """Its events come as they are written, those that are unfolded stay so; then its outcome."""
    with served("--root", node.root) as server:
        harness = writer(node, "long", 3000, 100)
        until(lambda: server.facts()["runs"])
        with opened(browser, f"{server.url}#runs") as page:
            page.locator("#run-table a", has_text="long").click()
            page.locator("#run-events .line").first.click()
            status = "#run-events p[role=status]"
            first = number_in(page, status)
            until(lambda: number_in(page, status) > first + 100)
            assert "still running" in page.locator("#run-said").inner_text()
            assert page.locator("#run-events .detail").count() == 1
            harness.wait(60)
            page.locator("#run-said", has_text="ended normally").wait_for(timeout=30_000)
            until(lambda: number_in(page, status) == 3032)
            assert page.locator("#run-events .detail").count() == 1
            until(lambda: page.locator("#run-totals").inner_text().count("30 of 30") == 1)
            page.locator(".top nav a[href='#live']").click()
            until(lambda: "ago" in page.locator("#live-said").inner_text(), 30)


def test_a_long_run_is_counted_whole_and_its_middle_can_be_loaded(browser: Any, node: Node) -> None:
    """The page keeps 10,000 of its events; none of the others is forgotten."""
    with served("--root", node.root) as server:
        harness = writer(node, "long", 13_000, 3000)
        until(lambda: server.facts()["runs"])
        with opened(browser, f"{server.url}#runs") as page:
            page.locator("#run-table a", has_text="long").click()
            page.locator("#run-events .line").nth(2).click()
            harness.wait(60)
            page.locator("#run-said", has_text="ended normally").wait_for(timeout=30_000)
            status = page.locator("#run-events p[role=status]")
            until(
                lambda: (
                    status.inner_text() in ("10,000 events here (13,132 in all)", "5,000 events here (13,132 in all)")
                )
            )
            assert page.locator("#run-events .detail").count() == 1
            while page.locator("#run-events .gap button").count() or "here" in status.inner_text():
                more = page.locator("#run-events .events-more")
                if page.locator("#run-events .gap button").count():
                    before = status.inner_text()
                    page.locator("#run-events .gap button").click()
                    until(lambda before=before: status.inner_text() != before)
                else:
                    more.click()
            assert status.inner_text() == "13,132 events"
            seqs = page.evaluate("[...lists.values()].at(-1).events.map((one) => one.event.seq)")
            assert seqs == sorted(set(seqs))
            assert len(seqs) == 13_132


def test_filters_and_pause_hold_while_events_come(browser: Any, node: Node) -> None:
    with served("--root", node.root) as server, opened(browser, f"{server.url}#live") as page:
        harness = writer(node, "run", 3000, 500)
        page.locator("#live-events .line").nth(20).wait_for()
        page.locator("#live-events [type=search]").fill("case completed")
        until(lambda: page.locator("#live-events .line").count() > 3)
        texts = page.locator("#live-events .line .m").all_inner_texts()
        assert set(texts) == {"case completed"}
        page.locator("#live-events [type=search]").fill("")
        page.locator("#live-events button", has_text="Pause").click()
        top = page.locator("#live-events .line").first.inner_text()
        until(lambda: "while paused" in page.locator("#live-said").inner_text())
        assert page.locator("#live-events .line").first.inner_text() == top
        page.locator("#live-events button", has_text="Resume").click()
        harness.wait(60)
        until(lambda: "run ended" in page.locator("#live-events .line").first.inner_text())


def test_reloaded_it_shows_the_same(browser: Any, node: Node) -> None:
    writer(node, "run", 120, 1000).wait(60)
    with served("--root", node.root) as server, opened(browser, f"{server.url}#live") as page:
        assert becomes(124, lambda: number_in(page, "#live-said"))
        before = page.locator("#live-events .line").all_inner_texts()
        page.reload()
        page.locator("html[data-ready=yes]").wait_for(state="attached")
        assert becomes(124, lambda: number_in(page, "#live-said"))
        assert page.locator("#live-events .line").all_inner_texts() == before


def test_a_server_that_is_stopped_and_started_is_found_again(browser: Any, node: Node) -> None:
    token = {"CALYX_VIEW_TOKEN": "a-token-that-stays-the-same"}
    writer(node, "before", 120, 1000).wait(60)
    with (
        served("--root", node.root, **token) as server,
        opened(browser, f"{server.url}#live", allowed="Failed to load|ERR_CONNECTION|ERR_INCOMPLETE") as page,
    ):
        until(lambda: number_in(page, "#live-said") == 124)
        server.stop()
        page.locator("#live-state", has_text="not connected").wait_for()
        assert page.locator("#live-events .line").count() == 100
        writer(node, "meanwhile", 120, 1000).wait(60)
        with served("--root", node.root, "--port", str(server.port), **token):
            page.locator("#live-state", has_text="live").wait_for(timeout=30_000)
            until(lambda: number_in(page, "#live-said") == 248)
            page.locator(".top nav a[href='#runs']").click()
            until(lambda: page.locator("#run-table tbody tr").count() == 2)


def test_an_outbox_without_events_fills_while_it_is_looked_at(browser: Any, node: Node) -> None:
    with served("--root", node.root) as server, opened(browser, server.url) as page:
        page.locator("#overview .note", has_text="nothing to show yet").wait_for()
        writer(node, "run", 120, 1000).wait(60)
        page.locator("#overview .totals dd", has_text="124").first.wait_for()
        page.locator(".top nav a[href='#runs']").click()
        page.locator("#timeline canvas").wait_for()
        assert page.locator("#run-table tbody a").all_inner_texts() == ["run"]


def test_many_tabs_of_one_browser_all_follow(browser: Any, node: Node) -> None:
    """A browser keeps six connections to one place; one tab listens for all, and if it is closed, another."""
    with served("--root", node.root) as server:
        server.page()
        context = browser.new_context()
        tabs = []
        for _ in range(8):
            tabs.append(context.new_page())
            tabs[-1].goto(f"{server.url}#live")
            tabs[-1].locator("html[data-ready=yes]").wait_for(state="attached", timeout=20_000)
        writer(node, "first", 100, 1000).wait(60)
        for tab in tabs:
            assert becomes(103, lambda tab=tab: number_in(tab, "#live-said"))
        tabs[0].close()
        writer(node, "second", 100, 1000).wait(60)
        for tab in tabs[1:]:
            assert becomes(206, lambda tab=tab: number_in(tab, "#live-said"))
            tab.evaluate("location.hash = 'runs'")
            assert becomes(2, tab.locator("#run-table tbody tr").count)
        context.close()


def test_a_case_of_many_events_and_an_error_in_the_middle_of_a_run(browser: Any, node: Node) -> None:
    """Nothing is left out without a word, and a link to what the list has not shows it all the same."""
    log = logging.getLogger("bench")
    log.setLevel(logging.INFO)
    handler = OutboxHandler(root=node.root)
    log.addHandler(handler)
    with benchmark_run(suite="s", run_id="long", logger=log, root=node.root) as run, run.case("only"):
        for n in range(7000):
            log.log(logging.ERROR if n == 3500 else logging.INFO, "step %d", n)
    log.removeHandler(handler)
    handler.close()
    with served("--root", node.root) as server, opened(browser, f"{server.url}#errors") as page:
        page.locator("#errors .events .line").first.click()
        page.locator("#errors .detail a", has_text="Its run").click()
        page.locator("#run-found .m", has_text="step 3500").wait_for()
        page.locator("#case-table tbody a").click()
        status = page.locator("#case-events p[role=status]")
        status.wait_for()
        assert status.inner_text() == "5,000 events here (7,001 in all)"
        page.evaluate("case_shown.list.most = 9000; case_shown.list.draw()")
        page.locator("#case-events .gap button").click()
        until(lambda: status.inner_text() == "7,001 events")
        seqs = page.evaluate("case_shown.list.events.map((one) => one.event.seq)")
        assert seqs == sorted(set(seqs))


def test_a_case_that_is_open_goes_on_without_losing_place(browser: Any, node: Node) -> None:
    with served("--root", node.root) as server:
        harness = writer(node, "run", 95, 3)
        until(lambda: server.facts()["runs"])
        key = server.facts()["runs"][0][0]
        with opened(browser, f"{server.url}#run/{key}/case/case-0") as page:
            page.locator("#case-events .line").first.click()
            page.locator("#case-events [type=search]").fill("step")
            first = page.locator("#case-events .line").count()
            until(lambda: page.locator("#case-events .line").count() > first + 10)
            assert page.locator("#case-events .detail").count() == 1
            assert page.locator("#case-events [type=search]").input_value() == "step"
            assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Text"
            harness.wait(60)
            page.locator("#case-outcome", has_text="completed").wait_for(timeout=30_000)


def test_filters_work_while_it_is_paused(browser: Any, server: Served) -> None:
    with opened(browser, f"{server.url}#live") as page:
        page.locator("#live-events .line").first.wait_for()
        page.locator("#live-events button", has_text="Pause").click()
        page.locator("#live-events select").select_option("error")
        assert set(page.locator("#live-events .line .l-error").all_inner_texts()) == {"error"}
        assert page.locator("#live-events .line").count() == page.locator("#live-events .l-error").count() > 0
        page.locator("#live-events button", has_text="Resume").click()
        assert page.locator("#live-events .line").count() == page.locator("#live-events .l-error").count() > 0


def test_runs_that_have_gone_leave_the_page(browser: Any, node: Node) -> None:
    writer(node, "one", 100, 1000).wait(60)
    with served("--root", node.root) as server:
        key = server.facts()["runs"][0][0]
        with opened(browser, f"{server.url}#run/{key}", trouble="no longer there") as page:
            page.locator("#h-run", has_text="one").wait_for()
            for chunk in node.outbox.glob("*.jsonl"):
                chunk.unlink()
            page.locator("#run-count", has_text="0 of 0 runs").wait_for(timeout=30_000)
            assert page.locator("#run-table tbody tr").count() == 0


def test_a_question_that_fails_once_is_no_end(browser: Any, server: Served) -> None:
    context = browser.new_context()
    page = context.new_page()
    failed = []

    def fail(route: Any) -> None:
        if len(failed) < 5:
            failed.append(route.request.url)
            route.fulfill(status=503, body='{"error": "too many questions at a time"}')
        else:
            route.continue_()

    page.route("**/cases?*", fail)
    page.goto(f"{server.url}#runs")
    page.locator("html[data-ready=yes]").wait_for(state="attached", timeout=30_000)
    assert "too many questions" in page.locator("#trouble").inner_text()
    page.locator("#run-table a", has_text="good").click()
    until(lambda: page.locator("#case-table tbody tr").count() == 4)
    context.close()


# ------------------------------------------------------------------ hostile visitors


def test_another_sites_page_gets_nothing(browser: Any, server: Served, tmp_path: Path) -> None:
    """Although it knows the whole address, it can neither fetch nor load nor frame anything, nor open the stream."""
    attack = """
<body><script>
const url = decodeURIComponent(location.hash.slice(1)), found = {};
const tried = (name, promise) => promise.then(() => { found[name] = "got it"; }, () => { found[name] = "refused"; });
const load = (tag, path) => new Promise((good, bad) => {
  const element = document.createElement(tag);
  Object.assign(element, { onload: good, onerror: bad, src: url + path });
  document.body.append(element);
});
const stream = () => new Promise((good, bad) => {
  const source = new EventSource(url + "live");
  Object.assign(source, { onopen: good, onerror: () => { source.close(); bad(); } });
});
Promise.all([
  tried("cors", fetch(url + "events?run=errors").then((answer) => answer.text())),
  tried("post", fetch(url, { method: "POST", body: "x" }).then((answer) => answer.text())),
  tried("script", load("script", "page.js")), tried("image", load("img", "icon.svg")), tried("stream", stream()),
]).then(() => { window.found = found; });
const frame = document.createElement("iframe");
frame.src = url;
document.body.append(frame);
</script></body>
"""
    (tmp_path / "index.html").write_text(attack, "utf-8")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://localhost:{other.server_address[1]}/#{server.url}")
        page.wait_for_function("window.found", timeout=30_000)
        assert set(page.evaluate("window.found").values()) == {"refused"}, page.evaluate("window.found")
        page.wait_for_timeout(500)
        assert all("Overview" not in frame.content() for frame in page.frames)
        page.close()
        other.shutdown()


def test_a_name_that_points_here_gets_nothing(browser: Any, server: Served) -> None:
    """DNS rebinding: Chromium was told that the site's name is this machine's."""
    page = browser.new_page()
    answer = page.goto(server.url.replace("127.0.0.1", "evil.example"))
    assert answer.status == 421
    assert "Overview" not in page.content()
    page.close()
