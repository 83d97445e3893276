"""Take the pictures of docs/report.md: reports of the ladder example and of a fleet of 50 nodes, in a real browser.

    python benchmarks/report_pictures.py [--browser /usr/bin/chromium] [--to docs/images]

runs the ladder (examples/ladder.py) in a temporary root, imports a fleet (fleet_data.py --tidy) into a temporary hub,
makes both reports with the command, serves the ladder's page live, and takes screenshots at two widths, light and dark.
Needs the extras `view` and `browser`, and a Chromium.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
SIZES = {"wide": (1280, 800), "narrow": (390, 800)}
PICTURES = {
    "fleet-overview": ("fleet", "#overview", None),
    "fleet-runs": ("fleet", "#runs", None),
    "fleet-health": ("fleet", "#health", None),
    "ladder-run": ("ladder", "#runs", "a run"),
    "ladder-case": ("ladder", "#runs", "a case"),
    "ladder-live": ("live", "#live", "events"),
}


def run(*words: str | Path, cwd: Path) -> None:
    """Run a command from the copy in a folder; it must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(cwd / "site")}
    command = [sys.executable, *map(str, words)]
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL, env=environment)


def make_pages(folder: Path) -> dict[str, Path]:
    """Make both reports with everything, even the code, below one folder, so that they show no local paths."""
    shutil.copytree(HERE.parent / "calyx_logging", folder / "site" / "calyx_logging")
    for name in ("handlers", "scripts"):
        shutil.copytree(HERE.parent / name, folder / "site" / "calyx_logging" / name)
    shutil.copy(HERE.parent / "examples" / "ladder.py", folder)
    (folder / "ladder").mkdir()
    (folder / "hub").mkdir()
    telemetry = ("-m", "calyx_logging.scripts")
    run(*telemetry, "provision", "workstation", "--root", "ladder", cwd=folder)
    for limit in (2, 4):
        run("ladder.py", "--root", "ladder", "--limit", str(limit), cwd=folder)
    run(HERE / "fleet_data.py", "fleet", "--nodes", "50", "--chunks", "20", "--events", "400", "--tidy", cwd=folder)
    run(*telemetry, "import", "fleet/bundles", "--root", "hub", cwd=folder)
    run(*telemetry, "report", "--root", "ladder", "-o", "ladder.html", cwd=folder)
    run(*telemetry, "report", "--from", "hub", "--root", "hub", "-o", "fleet.html", cwd=folder)
    return {name: folder / f"{name}.html" for name in ("ladder", "fleet")}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the ladder's page live; yield its address."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "site")}
    command = [sys.executable, "-m", "calyx_logging.scripts", "view", "--root", "ladder"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(20)


def photograph(browser: Any, pages: dict[str, str], target: Path) -> None:
    """Take every picture at every width in both colour schemes."""
    for name, (page_name, place, what) in PICTURES.items():
        for size, (width, height) in SIZES.items():
            for scheme in ("light", "dark"):
                context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
                page = context.new_page()
                page.goto(pages[page_name] + place)
                page.locator("html[data-ready=yes]").wait_for(state="attached")
                if what == "a case":  # one that did not pass
                    page.click("#run-table a:has-text('instant')")
                    page.click("#case-table tr:has-text('not passed') a")
                    page.wait_for_selector("#case-others tbody tr")
                elif what == "events":
                    page.click("#live-events li .line >> nth=1")
                elif what == "a run":  # the newest run with a failed case, with its error expanded
                    page.click("#run-table a >> nth=0")
                    page.select_option("#run-events select[aria-label=Level]", "error")
                    page.click("#run-events li .line >> nth=0")
                    page.evaluate("window.scrollTo(0, document.querySelector('#case-table').offsetTop + 60)")
                page.wait_for_timeout(300)
                page.screenshot(path=target / f"report-{name}-{size}-{scheme}.png")
                context.close()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--browser", default=shutil.which("chromium") or "chromium")
    parser.add_argument("--to", type=Path, default=HERE.parent / "docs" / "images")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.gettempdir()) / "calyx"  # the pictures show this path
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with sync_playwright() as driver:
        pages = make_pages(folder)
        browser = driver.chromium.launch(executable_path=options.browser, args=["--no-sandbox", "--disable-gpu"])
        with served(folder) as address:
            photograph(browser, {**{name: path.as_uri() for name, path in pages.items()}, "live": address}, options.to)
        browser.close()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
