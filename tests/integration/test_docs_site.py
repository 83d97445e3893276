"""The documentation site: built without a warning, without a dead link, and fit to be read at two widths."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from conftest import REPO

pytest.importorskip("sphinx")
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it as `run.py docs` does."""
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(REPO / "docs"), str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


class _Page(HTMLParser):
    """The links of a page, and the places in it that links can lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            elif name == "href" and value:
                (self.loaded if tag == "link" else self.links).append(value)
            elif name == "src" and value:
                self.loaded.append(value)


def test_no_link_is_dead_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """Each link leads to a page of the site and a place in it; styles, scripts and pictures are in the site."""
    pages = {path: _Page(path.read_text("utf-8")) for path in site.rglob("*.html")}
    assert len(pages) > 40
    dead = []
    for path, page in pages.items():
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto"):
                assert link not in page.loaded, f"{path}: {link}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            place = unquote(parts.fragment)
            if not target.is_file() or (place and target in pages and place not in pages[target].ids):
                dead.append(f"{path.relative_to(site)}: {link}")
    assert dead == []


@pytest.mark.parametrize("page", ["index", "tutorial", "configuration", "cli", "api", "reliability", "guides/slurm"])
def test_it_can_be_read_at_two_widths(site: Path, page: str) -> None:
    """No text is wider than the window; tables and listings scroll in their own frame."""
    browsing = pytest.importorskip("browsing")
    with browsing.chromium() as browser:
        for width in (400, 1400):
            tab = browser.new_page(viewport={"width": width, "height": 900})
            tab.goto((site / f"{page}.html").as_uri())
            wide = tab.evaluate("() => document.scrollingElement.scrollWidth")
            assert wide <= width, (page, width, wide)
            tab.close()
