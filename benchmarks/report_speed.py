"""Measure a report's time, memory and page size, and how soon a browser shows it.

    python benchmarks/report_speed.py [--events 1000000] [--rounds 3] [--folder FOLDER] [--browser /usr/bin/chromium]

imports a fleet of 50 nodes (fleet_data.py --tidy) into a hub, and puts as many events into one node's outbox. It then
makes reports of both, each in its own process, and prints the medians: seconds, the peak resident memory of the process
alone and together with its children, and the page's size. Before that, the named queries must give what the generator
counted. With a browser it also prints the seconds until the hub's page can be used.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from fleet_data import differences, load_truth

HERE = Path(__file__).resolve().parent
COMMAND = [sys.executable, "-m", "calyx_logging.scripts"]


def run(*words: str | Path) -> None:
    """Run a command of this library; it must succeed."""
    subprocess.run([*COMMAND, *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def resident(pid: int) -> dict[int, int]:
    """Return the resident bytes of a process and its descendants, from Linux's /proc."""
    found: dict[int, int] = {}
    try:
        found[pid] = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found |= resident(int(child))
    except OSError:
        pass  # the process has just ended
    return found


def measure(words: list[str]) -> tuple[float, int, int]:
    """Measure seconds and peak memory in bytes, of one process and of all together."""
    one = together = 0
    process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL)
    began = time.perf_counter()

    def watch() -> None:
        nonlocal one, together
        while process.poll() is None:
            memory = resident(process.pid).values()
            one, together = max(one, *memory, 0), max(together, sum(memory))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    seconds = time.perf_counter() - began
    watcher.join()
    if code:
        raise SystemExit(f"{' '.join(words)} ended with {code}")
    return seconds, one, together


def make_places(folder: Path, events: int) -> dict[str, list[str]]:
    """Make a hub with a fleet, and an outbox; return the command options for each."""
    each = 1000
    chunks = max(1, round(events / 50 / each / 0.955))  # some runs stop early
    generate = [sys.executable, str(HERE / "fleet_data.py")]
    fleet = ["--nodes", "50", "--chunks", str(chunks), "--events", str(each), "--tidy"]
    subprocess.run([*generate, str(folder / "fleet"), *fleet], check=True)
    (folder / "hub").mkdir()
    run("import", folder / "fleet" / "bundles", "--root", folder / "hub")
    one = ["--nodes", "1", "--chunks", str(50 * chunks), "--events", str(each), "--tidy"]
    subprocess.run([*generate, str(folder / "one"), *one], check=True)
    (folder / "node").mkdir()
    run("provision", "node-0000", "--root", folder / "node")
    for chunk in (folder / "one" / "bundles").glob("*/*/*.jsonl"):
        chunk.rename(folder / "node" / "telemetry" / "outbox" / "node-0000" / chunk.name)
    return {"hub": ["--from", "hub", "--root", str(folder / "hub")], "outbox": ["--root", str(folder / "node")]}


def check(folder: Path) -> None:
    """Check that the queries behind the page give what the generator counted."""
    from calyx_logging.query import connect
    from calyx_logging.query.named import run_named

    backend = connect(folder / "hub", "hub")
    wrong = differences(lambda name: run_named(backend, name).to_pylist(), load_truth(folder / "fleet"))
    if wrong:
        raise SystemExit("\n".join(wrong[:10]))


def seconds_in(browser: str, page: Path) -> float:
    """Measure the seconds until the page can be used."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        program = driver.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        tab = program.new_page()
        began = time.perf_counter()
        tab.goto(page.as_uri())
        tab.locator("html[data-ready=yes]").wait_for(state="attached")
        seconds = time.perf_counter() - began
        program.close()
    return seconds


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="kept after the run, and reused by the next")
    parser.add_argument("--browser", default=shutil.which("chromium"))
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="calyx-report-"))
    noted = folder / "places.json"
    if noted.exists():
        places = json.loads(noted.read_text("utf-8"))
    else:
        folder.mkdir(exist_ok=True)
        places = make_places(folder, options.events)
        noted.write_text(json.dumps(places), "utf-8")
    check(folder)
    for name, where in places.items():
        page = folder / f"{name}.html"
        found = [measure(["report", *where, "-o", str(page)]) for _ in range(options.rounds)]
        seconds, one, together = (statistics.median(column) for column in zip(*found, strict=True))
        times = ", ".join(f"{each[0]:.1f}" for each in found)
        print(
            f"{name:8} {seconds:5.1f} s (of {times}), {one / 2**20:4.0f} MiB in one process, "
            f"{together / 2**20:4.0f} MiB in all, page {page.stat().st_size / 1e6:.2f} MB",
            flush=True,
        )
    if options.browser:
        times = [seconds_in(options.browser, folder / "hub.html") for _ in range(options.rounds)]
        print(f"browser  {statistics.median(times):5.2f} s until the page of the hub can be used")
    if options.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
