"""A real browser for tests: Chromium, by Playwright, the one that is installed or that `CALYX_BROWSER` names.

Where `CALYX_NEED_BROWSER` is set, a missing one is a failure; else the tests are skipped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest

NEEDED = bool(os.environ.get("CALYX_NEED_BROWSER"))
playwright = import_module("playwright.sync_api") if NEEDED else pytest.importorskip("playwright.sync_api")

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


@contextmanager
def chromium(arguments: Sequence[str] = ()) -> Iterator[Any]:
    """Run the browser for the time of the block."""
    program = os.environ.get("CALYX_BROWSER") or next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        assert not NEEDED, "no Chromium is installed"
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=[*_ARGUMENTS, *arguments])
        yield browser
        browser.close()
