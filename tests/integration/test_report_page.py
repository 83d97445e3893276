"""The report in a real browser: it opens from disk, asks for nothing, and its filters and links do what they say.

Chromium, by Playwright: the browser that is installed, or the one that `CALYX_BROWSER` names. Where
`CALYX_NEED_BROWSER` is set, a missing one is a failure.
"""

from __future__ import annotations

import json
import logging
import logging.config
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from browsing import chromium
from calyx_logging import Node, benchmark_run, provision
from calyx_logging.hub.importer import import_bundle
from calyx_logging.hub.store import Store
from calyx_logging.outbox.export import export
from calyx_logging.report.collect import Choice
from calyx_logging.report.report import make_report
from calyx_logging.report.runs import run_key
from calyx_logging.report.source import Source
from conftest import close_logging, config, telemetry
from fleet_data import make_fleet
from sessions import HOSTILE

pytestmark = pytest.mark.integration

ARGUMENTS = ("--disable-quic", "--disable-component-update", "--disable-sync")
SIZES = {"wide": 1280, "narrow": 390}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(ARGUMENTS) as found:
        yield found


class Watched:
    """A page that is open, and what it said and asked for."""

    def __init__(self, browser: Any, path: Path, place: str = "", **context: Any) -> None:
        options = {"viewport": {"width": 1280, "height": 900}, "timezone_id": "America/New_York", **context}
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        self.url = path.as_uri()
        self.go(place)

    def go(self, place: str) -> None:
        self.page.goto(f"{self.url}{place}")
        self.page.locator("html[data-ready=yes]").wait_for(state="attached", timeout=60_000)

    def close(self) -> None:
        """Assert that the page complained of nothing, asked for nothing and ran nothing."""
        problem = self.page.locator("#trouble")
        assert problem.is_hidden(), problem.text_content()
        self.context.close()
        assert self.said == []
        assert self.dialogs == []
        assert {url.split("#")[0] for url in self.requests} == {self.url}


Open = Callable[..., Watched]


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    pages: list[Watched] = []

    def open_page(path: Path, place: str = "", **context: Any) -> Watched:
        pages.append(Watched(browser, path, place, **context))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()


@pytest.fixture(scope="module")
def report(logged: Node, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small session."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(make_report(Source("outbox", str(logged.root), "here")).html)
    return path


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a hub with a fleet of 50 nodes."""
    folder = tmp_path_factory.mktemp("fleet")
    make_fleet(folder, 50, 12, 60, 1, tidy=True)
    store = Store(folder / "hub")
    store.root.mkdir()
    for bundle in sorted((folder / "bundles").glob("*/*")):
        assert import_bundle(store, bundle).outcome == "imported"
    path = folder / "report.html"
    path.write_bytes(make_report(Source("hub", str(folder / "hub"), "the hub")).html)
    return path


def facts_of(path: Path) -> Any:
    found = re.search(r'<script type="application/json" id="facts">(.*?)</script>', path.read_text("utf-8"), re.S)
    assert found is not None
    return json.loads(found[1])


def texts(page: Any, selector: str) -> list[str]:
    return [" ".join(text.split()) for text in page.locator(selector).all_inner_texts()]


# ------------------------------------------------------------------ what it does


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_it_opens_from_disk_at_any_width(opened: Open, fleet: Path, size: str, scheme: str) -> None:
    """No complaint, no request; nothing is wider than the window, and no text is cut off by its box."""
    watched = opened(fleet, viewport={"width": SIZES[size], "height": 900}, color_scheme=scheme)
    page = watched.page
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]
    for section in ("overview", "runs", "suites", "compare", "errors", "health"):
        page.evaluate("(name) => { location.hash = name; }", section)
        page.locator(f"#{section}.here").wait_for()
        assert page.locator("#all > section:visible").count() == 1
        assert page.locator(".top nav a[aria-current]").get_attribute("href") == f"#{section}"
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size], section
        cut = page.evaluate(
            "[...document.querySelectorAll('td, th, .totals *, .top *, h1, h2, .verdict, .legend')]"
            ".filter((e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline' "
            "&& !e.closest('option, select') && e.tagName !== 'SELECT').map((e) => e.outerHTML.slice(0, 200))"
        )
        assert cut == [], section
        assert page.locator(f"#{section} canvas").count() == {"runs": 1, "health": 1, "compare": 1}.get(section, 0)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(20, 23, 26)") == (scheme == "dark")


def test_the_first_screen_answers(opened: Open, fleet: Path) -> None:
    """Faults, the best models and changes are seen without scrolling; the whole section is at most three screens."""
    page = opened(fleet, viewport={"width": 1400, "height": 900}).page
    assert page.evaluate("document.documentElement.scrollHeight") <= 3 * 900
    for selector in (
        "#overview .verdict",
        "#overview .heat tbody tr >> nth=3",
        "#overview h2:text('Changed') + p + div tr",
    ):
        box = page.locator(selector).first.bounding_box()
        assert box["y"] + box["height"] < 900, selector
    assert texts(page, "#overview .heat th[scope=row]") == ["qwen-2.5-7b", "llama-3.1-8b", "mistral-7b", "phi-4-mini"]
    assert page.locator("#overview .heat td strong").count() == 4
    page.click("#overview .heat th:nth-child(2) button")
    values = [float(text.split()[0]) for text in texts(page, "#overview .heat td:nth-child(2)")]
    assert values == sorted(values)
    nodes = page.locator("#overview table[data-first='10'] tbody tr:visible")
    assert nodes.count() == 10
    states = texts(page, "#overview td.state:visible")
    assert [state[0] for state in states] == sorted((state[0] for state in states), key="✗◷✓".index)
    page.click("#overview h2:text('Nodes') ~ button.unfold")
    assert nodes.count() == 50
    page.click("#overview table[data-first='10'] th:nth-child(6) button")
    errors = [int(text) for text in texts(page, "#overview table[data-first='10'] td:nth-child(6)")]
    assert errors == sorted(errors)
    assert nodes.count() == 50
    page.click("#overview h2:text('Changed') + p + div a >> nth=0")
    page.locator("#one:not([hidden])").wait_for()


def test_runs_are_filtered_and_sorted(opened: Open, fleet: Path) -> None:
    """Runs are filtered by outcome, node and text, and the numbers are those of the data in the page."""
    page = opened(fleet, "#runs").page
    runs = facts_of(fleet)["runs"]
    assert texts(page, "#run-count") == [f"{len(runs)} of {len(runs)} runs"]
    assert page.locator("#run-table tbody tr").count() == 30
    page.click("#run-more")
    assert page.locator("#run-table tbody tr").count() == min(430, len(runs))
    page.select_option("#run-filter [name=outcome]", "timeout")
    late = [run for run in runs if run[18] == "timeout"]
    assert late
    assert page.locator("#run-table tbody tr").count() == len(late)
    assert set(texts(page, "#run-table tbody tr td:first-child")) == {"◷ timeout"}
    page.select_option("#run-filter [name=outcome]", "")
    page.select_option("#run-filter [name=node]", "node-0007")
    assert set(texts(page, "#run-table tbody tr td:nth-child(3)")) == {"node-0007"}
    page.fill("#run-filter [name=text]", "QWEN")
    assert all("qwen" in text for text in texts(page, "#run-table tbody tr td:nth-child(2)"))
    page.fill("#run-filter [name=text]", "")
    page.click("#run-table th:nth-child(9) button")
    events = [int(text.replace(",", "")) for text in texts(page, "#run-table tbody tr td:nth-child(9)")]
    assert events == sorted(events)
    page.click("#run-table th:nth-child(9) button")
    assert page.locator("#run-table th:nth-child(9)").get_attribute("aria-sort") == "descending"


def place_of(page: Any, key: str) -> tuple[float, float]:
    """Return the middle of a run's bar, in pixels of the window."""
    return page.evaluate(
        "(key) => { const run = line.runs.find((one) => one.key === key), box = line.box.getBoundingClientRect();"
        " const middle = [(run.started + run.ended) / 2, run.row];"
        " const at = line.chart.convertToPixel({xAxisIndex: 0, yAxisIndex: 0}, middle);"
        " return [at[0] + box.left, at[1] + box.top]; }",
        key,
    )


def test_the_time_line_by_mouse_and_by_keyboard(opened: Open, fleet: Path) -> None:
    """It zooms and moves; a run is chosen with the keys, said, and opened with Enter, as with a click."""
    page = opened(fleet, "#runs").page
    page.evaluate("window.line_of = line")
    runs = sorted(facts_of(fleet)["runs"], key=lambda run: run[5])
    page.click("#zoom [data-do=in]")
    start, end = page.evaluate("line.window")
    whole = max(run[6] for run in runs) - runs[0][5]
    assert end - start == pytest.approx(whole / 2, rel=0.01)
    page.focus("#timeline")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("line.window[0]") > start
    page.keyboard.press("0")
    assert page.evaluate("line.window[1] - line.window[0]") == pytest.approx(whole, rel=0.01)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert texts(page, "#timeline-said")[0].startswith(f"Run 2 of {len(runs)}: {runs[1][18]}: {runs[1][3]}")
    page.keyboard.press("Enter")
    page.wait_for_selector("#one:not([hidden])")
    assert page.evaluate("location.hash") == f"#run/{runs[1][0]}"
    page.keyboard.press("Escape")
    page.wait_for_selector("#all:not([hidden])")
    x, y = place_of(page, runs[5][0])
    page.mouse.move(x, y)
    page.mouse.click(x, y)
    page.wait_for_selector("#one:not([hidden])")
    assert page.evaluate("location.hash") == f"#run/{runs[5][0]}"


def test_the_filters_are_the_time_lines_too(opened: Open, fleet: Path) -> None:
    """Runs that they leave out are paler there, and the keys pass over them."""
    page = opened(fleet, "#runs").page
    runs = sorted(facts_of(fleet)["runs"], key=lambda run: run[5])
    late = [run for run in runs if run[18] == "timeout"]
    pale = (
        "line.chart.getZr().storage.getDisplayList(true).filter((e) => e.type === 'rect' && e.style.opacity === 0.12)"
        ".length"
    )
    assert page.evaluate(pale) == 0
    page.select_option("#run-filter [name=outcome]", "timeout")
    assert page.evaluate(pale) == len(runs) - len(late)
    page.focus("#timeline")
    page.keyboard.press("ArrowDown")
    assert texts(page, "#timeline-said")[0].startswith(f"Run 1 of {len(late)}: timeout: {late[0][3]}")
    page.fill("#run-filter [name=text]", "no run is called so")
    page.focus("#timeline")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.evaluate("[line.chosen, location.hash]") == [-1, "#runs"]


def test_runs_of_a_node_at_once(opened: Open, tmp_path: Path) -> None:
    """Each has a row of its own in the node's lane, which bears the name once."""
    node = provision(tmp_path, "n-1").node
    logging.config.dictConfig(config(node))
    for text in ("begins", "goes on"):
        for number in range(13):
            logging.getLogger("harness").info(text, extra={"suite": "s", "run_id": f"run-{number}"})
        time.sleep(0.1)
    close_logging()
    path = tmp_path / "report.html"
    path.write_bytes(make_report(Source("outbox", str(tmp_path), "here")).html)
    page = opened(path, "#runs").page
    assert sorted(page.evaluate("line.runs.map((run) => run.row)")) == list(range(13))
    drawn = "line.chart.getZr().storage.getDisplayList(true)"
    assert page.evaluate(f"{drawn}.filter((e) => e.style.text === 'n-1').length") == 1
    for key, name in ((run[0], run[3]) for run in facts_of(path)["runs"]):
        page.mouse.click(*place_of(page, key))
        page.wait_for_selector("#one:not([hidden])")
        assert texts(page, "#h-run") == [f"Run {name}"]
        page.go_back()
        page.wait_for_selector("#all:not([hidden])")


def test_the_wheel_is_the_pages_but_with_ctrl(opened: Open, fleet: Path) -> None:
    """Over the time line, too."""
    page = opened(fleet, "#runs").page
    box = page.locator("#timeline").bounding_box()
    page.mouse.move(box["x"] + 600, box["y"] + 100)
    before = page.evaluate("scrollY")
    page.mouse.wheel(0, 200)
    page.wait_for_timeout(300)
    assert page.evaluate("scrollY") == before + 200
    assert page.evaluate("line.window") is None
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.wait_for_timeout(300)
    page.keyboard.up("Control")
    assert page.evaluate("scrollY") == before + 200
    start, end = page.evaluate("line.window")
    assert end - start < page.evaluate("line.to - line.from")


def test_every_digit_is_shown(opened: Open, tmp_path: Path) -> None:
    """The page shows numbers that scripts cannot hold; lines of a message stay lines."""
    node = provision(tmp_path, "n-1").node
    logging.config.dictConfig(config(node))
    log = logging.getLogger("harness")
    log.info("one\ntwo", extra={"big": 12345678901234567890, "float": 1.0, "minus": -0.0, "text": 'a "b" \\ c, {d}: e'})
    log.log(25, "of a level of its own")
    close_logging()
    path = tmp_path / "report.html"
    path.write_bytes(make_report(Source("outbox", str(tmp_path), "here")).html)
    page = opened(path, "#health").page
    page.click("#health .events li .line >> nth=0")
    said = dict(zip(texts(page, ".detail dt"), texts(page, ".detail dd"), strict=True))
    assert [said[name] for name in ("big", "float", "minus")] == ["12345678901234567890", "1.0", "-0.0"]
    assert said["text"] == 'a "b" \\ c, {d}: e'
    assert page.inner_text(".detail pre >> nth=0") == "one\ntwo"
    page.select_option("#health .events select[aria-label=Level]", "error")
    assert texts(page, "#health .events .m") == ["of a level of its own"]


def test_a_gap_between_events_is_shown(
    opened: Open, logged: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page shows where a gap is, and how many events are missing."""
    monkeypatch.setattr("calyx_logging.report.events.MAX_EVENTS", 4)
    path = tmp_path / "report.html"
    report = make_report(Source("outbox", str(logged.root), "here"), Choice(("good",)))
    path.write_bytes(report.html)
    page = opened(path, f"#run/{run_key(report.facts.chosen[0])}").page
    page.wait_for_selector("#run-events li")
    rows = texts(page, "#run-events ol > li")
    assert len(rows) == 5
    assert rows[2] == f"{report.packed[0].count - 4} events between these are not in this page"


def test_cases_are_drawn_inside_a_run_when_it_is_wide(opened: Open, report: Path) -> None:
    """The bars have the colours of their outcomes."""
    page = opened(report, "#runs").page
    fills = (
        "line.chart.getZr().storage.getDisplayList(true).filter((e) => e.type === 'rect' && e.silent)"
        ".map((e) => e.style.fill)"
    )
    colours = page.evaluate("[colour('passed'), colour('failed')]")
    page.evaluate("(() => { line.to = line.from + 3600e3; line.draw(); })()")  # as beside a run of an hour
    assert [page.evaluate(fills).count(one) for one in colours] == [0, 0]
    page.evaluate(
        "(() => { const run = line.runs.find((one) => one.run_id === 'bad'); line.show(run.started, run.ended); })()"
    )
    drawn = f"((fills) => {colours!r}.map((one) => fills.filter((fill) => fill === one).length))({fills})"
    page.wait_for_function(f"() => String({drawn}) === '2,2'")


def test_a_run_its_cases_and_events(opened: Open, report: Path, logged: Node) -> None:
    """Envelope, cases with their outcomes, events by level, source, case and text, a readable trace, JSON on demand."""
    page = opened(report, "#runs").page
    page.get_by_role("link", name="bad", exact=True).click()
    page.wait_for_selector("#run-events li")
    assert texts(page, "#h-run") == ["Run bad"]
    assert texts(page, "#run-said")[0] == "✗ failed: 1 of its 4 cases did not complete"
    totals = dict(zip(texts(page, "#run-totals dt"), texts(page, "#run-totals dd"), strict=True))
    assert (totals["Cases completed"], totals["Cases passed"]) == ("3 of 4", "50.0 %, 2 of 4")
    assert totals["Mean score"] == "0.375, n 4"
    page.click("#run-processes summary")
    assert texts(page, "#run-processes dt")[:3] == ["Program", "Process", "Host"]
    assert texts(page, "#run-processes dd")[2] == socket.gethostname()
    page.click("#run-envelope summary")
    assert '"exit_status": "normal"' in page.inner_text("#run-envelope pre")
    assert texts(page, "#case-table tbody td:first-child") == [
        "✓ passed",
        "✗ error ValueError",
        "✗ not passed",
        "✓ passed",
    ]
    lines = [
        line
        for path in sorted(logged.outbox.glob("*.jsonl"))
        for line in path.read_text("utf-8").split("\n")
        if line and json.loads(line).get("run_id") == "bad" and "control" not in json.loads(line)
    ]
    assert page.locator("#run-events li").count() == len(lines)
    page.select_option("#run-events select[aria-label=Level]", "error")
    assert page.locator("#run-events li").count() == 1
    page.click("#run-events li .line")
    trace = page.inner_text("#run-events li pre >> nth=0")
    assert trace.startswith("Traceback (most recent call last):\n  File ")
    assert trace.endswith("\nValueError: no <i>answer</i>")
    assert not page.locator("#run-events li pre >> nth=1").is_visible()
    page.click("#run-events li button:text-is('JSON')")
    said = page.inner_text("#run-events li pre >> nth=1")
    wanted = next(line for line in lines if json.loads(line)["level"] == "error")
    assert json.loads(said) == json.loads(wanted)
    page.select_option("#run-events select[aria-label=Level]", "")
    page.select_option("#run-events select[aria-label=Case]", "3+3")
    assert page.locator("#run-events li").count() == 2
    page.select_option("#run-events select[aria-label=Case]", "")
    page.fill("#run-events input", "ASKING 2")
    assert page.locator("#run-events li").count() == 1
    page.fill("#run-events input", "")
    page.select_option("#run-events select[aria-label=Source]", "bench_harness")
    assert page.locator("#run-events li").count() == len(lines)


def test_a_link_opens_at_its_event(opened: Open, report: Path, logged: Node) -> None:
    """A link leads to its row in the page and when it is opened anew, and an error's link to its run."""
    watched = opened(report, "#errors")
    page = watched.page
    page.wait_for_selector("#errors .events li")
    page.click("#errors .events li:has-text('no <i>answer') .line")
    page.click("#errors .events a:text-is('Its run')")
    page.wait_for_selector("#run-events li.here")
    place = page.evaluate("location.hash")
    assert "event" in place
    assert "ValueError" in page.inner_text("#run-events li.here")
    again = opened(report, place)
    again.page.wait_for_selector("#run-events li.here .detail")
    assert again.page.evaluate(
        "(() => { const r = document.querySelector('li.here').getBoundingClientRect();"
        " return r.top < innerHeight && r.bottom > 0; })()"
    )
    page.go_back()
    page.wait_for_selector("#all:not([hidden])")
    page.click("#errors table.plain >> nth=0 >> a >> nth=0")
    page.wait_for_selector("#errors li.here .detail")


TALK = [
    {"role": "system", "content": "You are careful."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is 6 x 7?"},
            {"type": "image_url", "image_url": {"url": "http://x/y"}},
        ],
    },
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "multiply", "arguments": '{"a": 6}'}}]},
    {"role": "tool", "name": "multiply", "content": "42"},
]


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of three runs of the same cases, in the forms of different harnesses."""
    root = tmp_path_factory.mktemp("answered")
    node = provision(root, "n-1").node
    logging.config.dictConfig(config(node, max_bytes=100_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALYX_ROOT", str(root))
        for model, answer in (
            ("a", "I think it is 42."),
            ("b", "I think it is 43, surely."),
            ("c", "I think it is 42."),
        ):
            with benchmark_run(suite="s", run_id=model, pass_at=0.5, logger="harness") as run:
                with run.case("talk", model=model) as case:
                    said = {"role": "assistant", "content": answer}
                    case.note(
                        messages=[*TALK, said], target="42", score=float("42" in answer), usage={"total_tokens": 9}
                    )
                with run.case("inspect", model=model, input="How many?") as case:
                    message = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
                    output = {"choices": [{"message": message}], "usage": {"input_tokens": 1234, "output_tokens": 5}}
                    case.note(output=output, target=["42", "forty-two"], score=1.0)
                with suppress(ValueError), run.case("lm_eval/1") as case:
                    case.note(doc={"question": "q"}, resps=[["x"]], difficulty="hard")
                    raise ValueError("no answer")
                log = logging.getLogger("harness")
                for step in range(6):
                    log.info("training", extra={"step": step, "loss": 1 / (step + 1)})
                with run.case("events", model=model):
                    log.info("asked", extra={"role": "user", "content": "and now?"})
                    log.info("told", extra={"role": "assistant", "content": "nothing"})
        for run_id, scores in (("scored", (0.1, 0.5, 0.7, 0.2)), ("scored-2", (0.4, 0.5, 0.1, 0.9, 1.0))):
            with benchmark_run(suite="s", run_id=run_id, logger="harness") as run:
                for case_id, score in zip(("talk", "inspect", "lm_eval/1", "events", "more"), scores, strict=False):
                    with run.case(case_id) as case:
                        case.note(score=score)
    close_logging()
    path = root / "report.html"
    path.write_bytes(make_report(Source("outbox", str(root), "here")).html)
    return path


def test_a_case(opened: Open, answered: Path) -> None:
    """A case shows its question, answer and conversation, and how the same case differs in other runs."""
    keys = {run[3]: run[0] for run in facts_of(answered)["runs"]}
    page = opened(answered, f"#run/{keys['a']}").page
    page.click("#case-table a:has-text('talk')")
    page.wait_for_selector("#case:not([hidden]) #case-others tbody tr")
    assert page.evaluate("location.hash") == f"#run/{keys['a']}/case/talk"
    assert page.locator("#run").is_hidden()
    assert texts(page, "#h-case, #case-outcome") == ["Case talk", "✓ passed"]
    totals = dict(zip(texts(page, "#case-totals dt"), texts(page, "#case-totals dd"), strict=True))
    assert (totals["Score"], totals["Model"], totals["Tokens"]) == ("1.0", "a", "9") or totals["Score"] == "1"
    assert texts(page, ".told h2") == ["Expected", "Answer", "Conversation"]
    assert texts(page, ".pair pre") == ["42", "I think it is 42."]
    assert texts(page, ".talk .role") == ["system", "user", "assistant", "tool multiply", "assistant"]
    assert texts(page, ".talk pre") == [
        "You are careful.",
        "What is 6 x 7? [image_url: http://x/y]",
        '→ multiply({"a": 6})',
        "42",
        "I think it is 42.",
    ]
    others = page.locator("#case-others tbody tr")
    rows = {row[0]: row[1:] for row in (texts(others.nth(n), "th, td") for n in range(others.count()))}
    assert rows["b"][3] == "✗ not passed"
    assert rows["c"][-1] == "the same answer"
    assert rows["scored"][-1] == "–"
    assert texts(page, "#case-others mark") == ["43,", "surely."]
    assert page.locator("#case-events li").count() == 1
    page.keyboard.press("n")
    page.wait_for_selector("#h-case:has-text('inspect')")
    totals = dict(zip(texts(page, "#case-totals dt"), texts(page, "#case-totals dd"), strict=True))
    assert (totals["Tokens in"], totals["Tokens out"]) == ("1,234", "5")
    assert texts(page, ".told pre")[0] == "How many?"
    assert texts(page, ".pair pre")[1] == "I think it is 42."
    page.keyboard.press("f")
    page.wait_for_selector("#h-case:has-text('lm_eval/1')")
    assert page.evaluate("location.hash") == f"#run/{keys['a']}/case/lm_eval%2F1"
    assert texts(page, "#case-outcome") == ["✗ error: ValueError"]
    said = dict(zip(texts(page, ".told h2"), texts(page, ".told pre"), strict=False))
    assert said["Input"] == '{ "question": "q" }'
    assert said["Exception"].endswith("ValueError: no answer")
    assert texts(page, ".told dd") == ["hard"]
    page.click("#case-steps a:text-is('next')")
    page.wait_for_selector("#h-case:has-text('events')")
    assert texts(page, ".talk pre") == ["and now?", "nothing"]
    assert texts(page, "#case-outcome") == ["● completed"]
    page.keyboard.press("Escape")
    page.wait_for_selector("#run:not([hidden])")


def test_cases_with_odd_ids_and_numbers(opened: Open, tmp_path: Path) -> None:
    """Each case shows its own events, whatever its id; numbers have the digits they were written with."""
    node = provision(tmp_path, "n-1").node
    logging.config.dictConfig(config(node))
    log = logging.getLogger("harness")
    run = {"run_id": "r", "suite": "s", "stage": "case_ended", "outcome": "completed"}
    ids = ["", "x" * 399 + "y", "x" * 399 + "z", 1.0, "1", 12345678901234567890, "a/b?#%41 c"]
    for n, case_id in enumerate(ids):
        log.info("told", extra={**run, "case_id": case_id, "answer": n, "target": 9007199254740993, "answers": n})
    log.info("of no case", extra={"run_id": "r", "suite": "s", "answer": 77})
    for other in ("r-2", "r-3"):
        log.info("told", extra={**run, "run_id": other, "case_id": "1", "answer": other})
    close_logging()
    path = tmp_path / "report.html"
    path.write_bytes(make_report(Source("outbox", str(tmp_path), "here")).html)
    page = opened(path).page
    key = next(run[0] for run in facts_of(path)["runs"] if run[3] == "r")
    links = page.evaluate("(key) => cases[key].map((one) => case_link(key, one.case_id))", key)
    assert len(set(links)) == len(ids)
    answers = []
    for link in links:
        page.evaluate("(link) => { location.hash = link; }", link)
        page.wait_for_function("(link) => !$('#case').hidden && $('#case-steps').dataset.of === link", arg=link)
        assert page.locator("#case-events li").count() == 1, link
        expected, answer = texts(page, ".pair pre")
        assert expected == "9007199254740993"
        assert texts(page, ".told dt") == ["answers"]
        answers.append(answer)
    assert sorted(answers) == [str(n) for n in range(len(ids))]
    one, another = (next(link for link in links if link.endswith(end)) for end in ("/1", "/"))
    page.evaluate(
        "([one, another]) => { location.hash = one; setTimeout(() => { location.hash = another; }, 1); }",
        [one, another],
    )
    page.wait_for_function("(link) => $('#case-steps').dataset.of === link", arg=another)
    page.wait_for_timeout(300)
    assert page.locator("#case-others").is_hidden()
    page.evaluate("(one) => { location.hash = one; }", one)
    page.wait_for_selector("#case-others tbody tr >> nth=1")


def test_runs_side_by_side(opened: Open, report: Path) -> None:
    """Runs are compared with a base by the cases that both have, and the comparison has a link."""
    page = opened(report, "#compare").page
    keys = {run[3]: run[0] for run in facts_of(report)["runs"]}
    page.evaluate("(keys) => compare_all(keys)", [keys["good"], keys["bad"]])
    assert page.evaluate("location.hash") == f"#compare/{keys['good']}/{keys['bad']}"
    assert texts(page, "#compare-said") == ["2 cases differ, 2 are the same."]
    rows = page.locator("#compare-table tbody tr")
    cells = {row[0]: row[1:] for row in (texts(rows.nth(n), "th, td") for n in range(rows.count()))}
    assert cells == {
        "1+1": ["outcome", "✓ passed 0.25", "✗ error 0.25"],
        "2+2": ["outcome", "✓ passed 0.5", "✗ not passed 0.5"],
    }
    page.check("#compare-form [name=all]")
    assert rows.count() == 4
    page.select_option("#compare-form [name=add]", keys["slow"])
    assert texts(page, "#compare-table thead th")[2:] == ["Base: good", "bad", "slow"]
    assert "of different suites" in page.inner_text("#compare-said")
    page.click("#compare-runs tr:has-text('slow') button")
    assert page.evaluate("location.hash") == f"#compare/{keys['good']}/{keys['bad']}"
    page.select_option("#compare-form [name=base]", keys["bad"])
    assert page.locator("#compare-runs tbody tr").count() == 1
    page.click("#compare-table a >> nth=0")
    page.wait_for_selector("#case:not([hidden])")


def test_the_comparison_is_the_named_query(opened: Open, answered: Path) -> None:
    """Change, interval and counts of each run, by verdicts and by scores; what differs in configuration; a curve."""
    names = ["a", "b", "c", "scored", "scored-2"]
    keys = {run[3]: run[0] for run in facts_of(answered)["runs"]}
    page = opened(answered, "#compare").page
    for base, others in (("a", ["b", "c"]), ("scored", ["scored-2", "a"])):
        options = [word for name in (base, *others) for word in ("--run", name)]
        done = telemetry("query", "--root", answered.parent, "--named", "compare", *options, "--json")
        expected = {row["run_id"]: row for row in json.loads(done.stdout)[1:]}
        page.evaluate("(keys) => compare_all(keys)", [keys[name] for name in (base, *others)])
        for name in others:
            found = page.evaluate("([a, b]) => beside(by_key.get(a), by_key.get(b))", [keys[name], keys[base]])
            wanted = {
                field: expected[name][field] for field in ("n", "better", "worse", "same", "change", "low", "high")
            }
            assert {field: found[field] for field in wanted} == pytest.approx(wanted)
            assert wanted["n"] > 1
    assert set(names) == set(keys)
    page.evaluate("(keys) => compare_all(keys)", [keys["a"], keys["scored"]])
    page.wait_for_selector("#compare-differences tbody tr")
    assert texts(page, "#compare-differences tbody tr") == ["pass_at 0.5 –"]
    assert page.evaluate("[...$('#curves-form').elements.field.options].map((one) => one.value)") == ["loss"]
    assert page.locator("#curves canvas").count() == 1
    assert page.evaluate("charts.get($('#curves')).getOption().series[0].data") == [[n, 1 / (n + 1)] for n in range(6)]


def test_zones(opened: Open, report: Path) -> None:
    """UTC at first; the reader's own; any other. The events' own times stay what they are."""
    page = opened(report, "#runs").page
    column = "#run-table tbody tr:first-child td:nth-child(5)"
    utc = texts(page, column)[0]
    page.select_option("#zone", "local")
    there = texts(page, column)[0]
    page.select_option("#zone", "Asia/Tokyo")
    tokyo = texts(page, column)[0]
    moment = datetime.fromisoformat(f"{utc}+00:00")
    assert there == moment.astimezone(ZoneInfo("America/New_York")).strftime("%Y-%m-%d %H:%M:%S")
    assert tokyo == (moment + timedelta(hours=9)).strftime("%Y-%m-%d %H:%M:%S")
    title = page.locator("#overview td time").first.get_attribute("title")
    assert title is not None
    assert title.endswith("+00:00")
    page.select_option("#zone", "UTC")
    assert texts(page, column)[0] == utc


def test_colours_are_the_readers_choice(opened: Open, report: Path) -> None:
    """The chosen theme holds whatever the system says, and the charts are drawn again."""
    page = opened(report, "#runs", color_scheme="light").page
    page.select_option("#theme", "dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    assert page.evaluate("line.chart.getOption().yAxis[0].axisLabel.color") == page.evaluate("colour('ink')")
    page.select_option("#theme", "light")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(247, 247, 245)"


def test_choices_are_remembered(opened: Open, report: Path) -> None:
    """The choice is kept for the page that is opened next; a stored value that is no choice is passed over."""
    watched = opened(report, color_scheme="light")
    page = watched.page
    page.select_option("#zone", "Asia/Tokyo")
    page.select_option("#theme", "dark")
    times = texts(page, "time[datetime]")
    page.reload()
    page.locator("html[data-ready=yes]").wait_for(state="attached")
    assert page.evaluate("[$('#zone').value, $('#theme').value]") == ["Asia/Tokyo", "dark"]
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    assert texts(page, "time[datetime]") == times
    for kept in ("null", "{", '{"zone": "Nowhere/No", "theme": 7}'):
        page.evaluate("(kept) => localStorage.setItem('calyx-report', kept)", kept)
        page.reload()
        page.locator("html[data-ready=yes]").wait_for(state="attached")
        assert page.evaluate("[$('#zone').value, $('#theme').value]") == ["UTC", "auto"]


def test_it_prints(opened: Open, report: Path, tmp_path: Path) -> None:
    """Light, without what cannot be used on paper; the tables are all there."""
    watched = opened(report, color_scheme="dark")
    page = watched.page
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".top nav").is_visible()
    assert page.locator("#run-table tbody tr").first.is_visible()
    assert page.locator("#run-table thead button").first.is_visible()
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.pdf(path=str(tmp_path / "page.pdf"))[:5] == b"%PDF-"


def test_keyboard_and_screen_reader(opened: Open, report: Path) -> None:
    """Everything that can be used has a name and can be reached; headings and tables are what they seem."""
    page = opened(report).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, select, input, a, [tabindex]')].filter((e) => !e.closest('[hidden]'))"
        ".filter((e) => !(e.getAttribute('aria-label') || e.textContent.trim() || (e.labels && e.labels.length)))"
        ".map((e) => e.outerHTML)"
    )
    assert unnamed == []
    assert page.evaluate("[...document.querySelectorAll('canvas')].every((c) => c.closest('[aria-label]'))")
    assert page.evaluate("[...document.querySelectorAll('section')].every((s) => s.getAttribute('aria-labelledby'))")
    assert page.evaluate("[...document.querySelectorAll('table')].every((t) => t.tHead !== null)")
    page.click(".top nav a[href='#errors']")
    page.click("#errors .events li .line")
    assert page.locator("#errors .events li .line").first.get_attribute("aria-expanded") == "true"


# ------------------------------------------------------------------ what it must not do


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of events whose every text, name and key is an attack."""
    root = tmp_path_factory.mktemp("hostile")
    node = provision(root, "n-1").node
    logging.config.dictConfig(config(node))
    log = logging.getLogger("harness")
    for n, text in enumerate(HOSTILE):
        run = {"run_id": text, "suite": text, "run_instance_id": f"{text}{n}", "case_id": text, "model": text}
        log.error(text, extra={**run, text: text, "__proto__": {"polluted": 1}, "constructor": text, "event_id": text})
        log.info("", extra={**run, "stage": "case_ended", "outcome": text, "score": text, "duration_s": text})
        talk: Any = [{"role": text, "content": text, "tool_calls": [{"function": {"name": text, "arguments": text}}]}]
        talk += [{"role": "user", "content": [{"type": text, "image_url": {"url": text}}, text, None, {"text": text}]}]
        told = {"messages": talk, "target": text, "output": {"choices": [{"message": talk[0]}]}, "usage": {text: text}}
        log.info("", extra={**run, **told, "stage": "case_ended", "passed": text, text: {text: [text]}})
        log.info("", extra={**run, "stage": "run_ended", "exit_status": text})
        shape: Any = [
            {"type": text, "value": text, "frames": [{"filename": text, "name": text, "lineno": text}, None, 3]}
        ]
        log.error("shaped", extra={**run, "exception": shape})
    log.info("big", extra={"run_id": "big", "text": "x" * 1_000_000})
    log.info("keys", extra={"run_id": "big", **{f"<b>{n}</b>": n for n in range(100_000)}})
    close_logging()
    (chunk,) = node.outbox.glob("*.jsonl")
    lines = chunk.read_bytes().splitlines(keepends=True)
    event = {"node_id": "n-1", "ts_utc": "2026-01-01T00:00:00+00:00", "event_id": "o", "source": "x", "run_id": "odd"}
    deep: Any = 1
    for _ in range(400):
        deep = {"d": deep}
    odd = [
        {"message": {"not": "text"}, "level": 3, "logger": [], "exception": "a text\nof two lines"},
        {"message": None, "level": "<b>", "exception": [[1], None, {"type": {"a": 1}, "frames": "none"}], "case_id": 5},
        {"message": "broken \\ud800 unicode", "deep": deep, "exception": {"exceptions": [[]]}},
        {
            "message": "group",
            "exception": [{"type": "G", "value": "", "exceptions": [[{"type": "E", "value": "part"}]]}],
        },
        {"message": "far", "ts_utc": "9999-12-31T23:59:59.999999+00:00"},
        {"message": "no time", "ts_utc": "yesterday <b>"},
    ]
    lines += [json.dumps({**event, **one}).encode() + b"\n" for one in odd]
    lines.append(
        b'{"node_id":"n-1","ts_utc":"2026-01-01T00:00:00+00:00","event_id":"p","source":"x","run_id":"odd",'
        b'"__proto__":{"polluted":true},"big":123456789012345678901234567890}\n'
    )
    # as a first-generation chunk, whose lines nobody of ours has made
    (node.outbox / "20260101_000000__odd__x.jsonl").write_bytes(b"".join(lines))
    chunk.unlink()
    path = root / "report.html"
    path.write_bytes(make_report(Source("outbox", str(root), HOSTILE[0]), Choice(last=50)).html)
    return path


def test_hostile_texts_are_text(opened: Open, hostile: Path) -> None:
    """Everything is opened and unfolded: nothing runs, nothing becomes an element, nothing is changed."""
    watched = opened(hostile)
    page = watched.page
    elements = {"B", "I", "IMG", "IFRAME", "OBJECT", "EMBED"}
    keys = [run[0] for run in facts_of(hostile)["runs"]]
    assert len(keys) == len(HOSTILE) + 2
    of_cases = page.evaluate(
        "Object.entries(cases).flatMap(([key, all]) => all.map((one) => case_link(key, one.case_id)))"
    )
    assert len(of_cases) >= len(HOSTILE)
    for place in ["#errors", "#health", "#compare", "#suites", *(f"#run/{key}" for key in keys), *of_cases]:
        page.evaluate("(hash) => { location.hash = hash; }", place)
        page.wait_for_timeout(150)
        for _ in range(2):
            page.evaluate("[...document.querySelectorAll('.line')].slice(0, 60).forEach((e) => e.click())")
            page.evaluate("[...document.querySelectorAll('.detail button')].slice(0, 60).forEach((e) => e.click())")
        found = set(page.evaluate("[...new Set([...document.querySelectorAll('*')].map((e) => e.tagName))]"))
        assert not found & elements, place
        assert page.locator("#trouble").is_hidden(), page.locator("#trouble").text_content()
        handlers = page.evaluate(
            "[...document.querySelectorAll('*')].filter((e) => [...e.attributes].some("
            "(a) => /^on|^style$|^src/.test(a.name) && !e.closest('.chart'))).map((e) => e.outerHTML.slice(0, 100))"
        )
        assert handlers == []
    assert page.evaluate("({}).polluted") is None
    assert page.evaluate("document.querySelectorAll('script').length") == 2 + 3 + len(facts_of(hostile)["blobs"])
    assert page.evaluate("[...document.querySelectorAll('a')].every((a) => a.getAttribute('href').startsWith('#'))")


def test_nothing_reorders_what_is_read(opened: Open, hostile: Path) -> None:
    """Letters that cannot be seen are shown by their numbers, in the scripts' texts as in the templates'."""
    page = opened(hostile, "#errors").page
    page.wait_for_selector("#errors .events li")
    said = page.inner_text("body")
    assert "U+202E" in said
    assert not set("\u202e\u202c\u200b\u2028") & set(said)


def test_the_policy_holds(browser: Any, report: Path, tmp_path: Path) -> None:
    """Markup that got into the page after all would do nothing: no script, no handler, no request."""
    html = report.read_text("utf-8")
    evil = (
        '<script>window.ran = 1</script><img src="x" onerror="window.ran = 2">'
        '<a id="j" href="javascript:window.ran=3">j</a>'
        '<iframe src="https://example.org/"></iframe><link rel="stylesheet" href="https://example.org/x.css">'
        '<img src="https://example.org/x.png"><form id="f" action="https://example.org/"><button>b</button></form>'
    )
    path = tmp_path / "evil.html"
    path.write_text(html.replace('<main id="all">', f'<main id="all">{evil}'), "utf-8")
    watched = Watched(browser, path)
    page = watched.page
    page.evaluate("document.querySelector('#j').click()")
    page.evaluate("document.querySelector('#f button').click()")
    page.evaluate(
        "window.said = []; const tries = { html: () => { document.body.innerHTML = '<b>x</b>'; },"
        " script: () => { const s = document.createElement('script'); s.textContent = 'window.ran = 4';"
        " document.body.append(s); }, eval: () => { window.ran = (0, eval)('5'); },"
        " fetch: () => { fetch('https://example.org/').catch(() => window.said.push('fetch')); } };"
        # not at once: what the driver evaluates may do more
        " for (const [name, attempt] of Object.entries(tries)) setTimeout(() => {"
        " try { attempt(); } catch { window.said.push(name); } });"
    )
    page.wait_for_timeout(500)
    assert sorted(page.evaluate("window.said")) == ["eval", "fetch", "html", "script"]
    assert page.evaluate("window.ran") is None
    assert page.locator("b").count() == 0
    assert not [url for url in watched.requests if url.startswith("http") and "example" not in url]
    assert page.url.split("#")[0] == path.as_uri()
    assert [text for text in watched.said if "Content Security Policy" in text]
    watched.context.close()


def test_links_to_what_is_not_there(browser: Any, report: Path) -> None:
    """A line says so; the page goes on."""
    key = facts_of(report)["runs"][0][0]
    for place in ("#run/nonsense", f"#run/{key}/event/nonsense", "#errors/event/nonsense"):
        watched = Watched(browser, report, place)
        assert "This page has no" in watched.page.inner_text("#trouble")
        watched.context.close()
    for place in ("#%E0%A4%A", "#__proto__", "#compare/a/b", "#" + "x" * 5000):
        watched = Watched(browser, report, place)
        assert watched.page.locator("#all").is_visible()
        watched.close()


def test_an_empty_page(opened: Open, tmp_path: Path) -> None:
    """It opens, and says that there is nothing."""
    provision(tmp_path, "n-1")
    path = tmp_path / "report.html"
    path.write_bytes(make_report(Source("outbox", str(tmp_path), "here")).html)
    page = opened(path).page
    assert "There is nothing to show yet" in page.inner_text("#overview")


def test_a_run_that_is_not_in_the_page_whole(opened: Open, logged: Node, tmp_path: Path) -> None:
    """Its numbers are there, and the commands that show its events."""
    path = tmp_path / "report.html"
    report = make_report(Source("outbox", str(logged.root), "here"), Choice(("good",)))
    path.write_bytes(report.html)
    row = next(row for row in report.facts.answers["runs"].rows if row["run_id"] == "bad")
    page = opened(path, f"#run/{run_key(row)}").page
    said = page.inner_text("#one")
    assert f"report --root {logged.root} --run {row['run_instance_id']}" in said
    assert f"WHERE run_instance_id = '{row['run_instance_id']}' ORDER BY ts" in said
    assert "The cases of this run are not in this page." in said


def test_the_bundle_of_a_node_has_a_page_too(opened: Open, logged: Node, tmp_path: Path) -> None:
    """The same page, of what is in it."""
    bundle = export(logged).bundle
    assert bundle is not None
    path = tmp_path / "report.html"
    path.write_bytes(make_report(Source(str(bundle), None, str(bundle))).html)
    page = opened(path, "#runs").page
    assert page.locator("#run-table tbody tr").count() == 3
