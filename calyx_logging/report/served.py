"""The page as a server shows it: scripts and styles as files of their own, and data that the page fetches as needed."""

from __future__ import annotations

from functools import lru_cache

from calyx_logging import __version__
from calyx_logging.report._rendering import SCRIPTS, fill, read_part
from calyx_logging.report._view import Sheet, run_rows
from calyx_logging.report.collect import Facts

__all__ = ["SERVED_POLICY", "live_page", "run_rows", "served_files", "waiting_page"]

SERVED_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types default calyx-live"
)
"""Content security policy of a page that a server shows."""


@lru_cache(maxsize=1)
def served_files() -> dict[str, tuple[str, bytes]]:
    """Return the fixed parts of a page that a server shows, by name: media type and bytes."""
    script = "\n".join(read_part(name) for name in (*SCRIPTS[:-1], "live.js", SCRIPTS[-1]))
    return {
        "page.css": ("text/css", read_part("page.css").encode()),
        "echarts.js": ("text/javascript", read_part("echarts.min.js").encode()),
        "page.js": ("text/javascript", script.encode()),
        "waiting.js": ("text/javascript", read_part("waiting.js").encode()),
        "icon.svg": ("image/svg+xml", read_part("icon.svg").encode()),
    }


def waiting_page(where: str) -> bytes:
    """Return the page that is shown until the first one has been made; it loads itself again then."""
    return fill({"where": where, "version": __version__}, "waiting.html")


def live_page(facts: Facts, made_at: float, number: int, *, follows: bool) -> bytes:
    """Return the page, without cases and events.

    Args:
        facts: what it shows.
        made_at: seconds since the epoch.
        number: of the page; each has another.
        follows: whether the server hands on events as they are written.
    """
    live = {"version": number, "follows": follows, "runs": facts.answers["runs"].count}
    return Sheet(facts, made_at, __version__, "", "", live=live).render([])
