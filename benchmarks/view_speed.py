"""Measure how soon the live page can be seen: python benchmarks/view_speed.py --root HUB [--from hub] [--rounds 3]

Needs the extras "view" and "browser" and an installed Chromium. Seconds from the start of the command: `address` is
printed; `paint`, the first of the browser, which opens the address at once; `overview` is there; `health`, what is
missing, too. `again` is the first paint of a page that is opened while the server runs, and `reload` its overview.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from typing import Any

PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"


def opened(page: Any, url: str, began: float) -> tuple[float, float]:
    """Seconds until the first paint and until the overview."""
    start = time.monotonic()
    page.goto(url)
    page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length > 0", polling=20)
    paint = start + page.evaluate(PAINT) - began
    page.wait_for_function("() => document.querySelector('#overview .totals') !== null", polling=20)
    return paint, time.monotonic() - began


def measured(browser: Any, command: list[str]) -> dict[str, float]:
    """One round."""
    began = time.monotonic()
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            text += server.stdout.readline()
        found = {"address": time.monotonic() - began}
        url = json.loads(text)["url"]
        page = browser.new_page()
        found["paint"], found["overview"] = opened(page, url, began)
        page.wait_for_function(
            "() => !document.body.textContent.includes('Checking whether anything is missing')",
            polling=50,
            timeout=120_000,
        )
        found["health"] = time.monotonic() - began
        other = browser.new_page()
        found["again"], found["reload"] = opened(other, url, time.monotonic())
        page.close()
        other.close()
        return found
    finally:
        server.terminate()
        server.wait(20)


def main() -> None:
    """Measure and print medians."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--from", dest="place", default="hub")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    command = [sys.executable, "-m", "calyx_logging.scripts", "view", "--json", "--from", options.place]
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        rounds = [measured(browser, [*command, "--root", options.root]) for _ in range(options.rounds)]
        browser.close()
    for name in rounds[0]:
        values = [one[name] for one in rounds]
        print(f"{name:10} {statistics.median(values):6.2f} s  ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
