"""The page's templates and scripts: filters that put values into words, what a text may look like, the page's policy.

The files in `report/page/` go into the page unchanged. Invariant: a filter gives text, or markup of its own in which
every text is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calyx_logging.core import json_bytes
from calyx_logging.core.times import in_utc, parse_utc
from calyx_logging.errors import ConfigError

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = [
    "SCRIPTS",
    "UNSEEN",
    "ago",
    "cell",
    "check_installed",
    "clipped",
    "duration",
    "fill",
    "for_script",
    "frame",
    "milliseconds",
    "moment_of",
    "number",
    "percent",
    "read_part",
    "score",
    "when",
]

_PAGE = Path(__file__).parent / "page"
SCRIPTS = ("text.js", "tables.js", "events.js", "charts.js", "case.js", "compare.js", "main.js")
_MAX_TEXT = 300
_MAX_UNSEEN = 10
"""Maximum number of invisible characters that are listed one by one."""


UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Characters that reorder text or are invisible; the same as in text.js."""


def clipped(text: str) -> str:
    """Cut a text to the length that a cell shows."""
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}… ({len(text):,} characters)"


def milliseconds(value: Any) -> Any:
    """Convert a time to milliseconds since the epoch and NaN or infinity to None; return other values as is."""
    if isinstance(value, datetime):
        return (value.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cell(value: Any) -> Any:
    """Prepare a value of a row for the scripts: clip texts, convert others with `milliseconds`."""
    return clipped(value) if isinstance(value, str) else milliseconds(value)


# ------------------------------------------------------------------ words


def _shown(value: object) -> Any:
    from markupsafe import Markup, escape

    text, parts, end = clipped(str(value)), [], 0
    named = list(islice(UNSEEN.finditer(text), _MAX_UNSEEN))
    if len(named) == _MAX_UNSEEN:
        text = text[: named[-1].end()] + UNSEEN.sub("\ufffd", text[named[-1].end() :])
    for match in named:
        parts += [escape(text[end : match.start()]), Markup('<span class="u">U+{:04X}</span>').format(ord(match[0]))]
        end = match.end()
    return Markup("<bdi>{}</bdi>").format(Markup("").join([*parts, escape(text[end:])]))


def _clean(value: object) -> str:
    return UNSEEN.sub("\ufffd", clipped(str(value)))


def _named(value: object, otherwise: str = "(none)") -> Any:
    return otherwise if value is None else _shown(value)


def number(value: object) -> str:
    """Format a number with separators; a dash for None."""
    return "–" if value is None else f"{value:,}"


def score(value: float | None) -> str:
    """Format a score with three digits, or as many as it has before the point; a dash if it is no number."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:#.3g}".removesuffix(".")


def percent(value: float) -> str:
    """Format a share from 0 to 1 as a percentage."""
    return f"{100 * value:.1f} %"


def duration(seconds: float | None) -> str:
    """Format a duration in readable units; a dash if it is no number."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if 0 < seconds < 0.01:
        return f"{1000 * seconds:.2g} ms"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole >= 86_400:
        return f"{whole // 86_400} d {whole // 3600 % 24} h"
    return f"{whole // 3600} h {whole // 60 % 60} min" if whole >= 3600 else f"{whole // 60} min {whole % 60} s"


def moment_of(value: object) -> datetime | None:
    """Parse a time from a row (naive, UTC) or a text."""
    if isinstance(value, datetime):
        return in_utc(value, naive_is_utc=True)
    return parse_utc(str(value), naive_is_utc=True)


def when(value: object) -> Any:
    """Return a time element, which the scripts show in the reader's zone; plain text if it is no time."""
    from markupsafe import Markup

    moment = moment_of(value)
    if value is None or moment is None:
        return "–" if value is None else _shown(value)
    exact = moment.isoformat(timespec="milliseconds")
    text = moment.strftime("%H:%M:%S").rjust(8)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        exact, moment.isoformat(timespec="microseconds"), f"{moment.date().isoformat()} {text}"
    )


def ago(value: object, now: float) -> str:
    """Format how long before the making of the page a time was, in its largest unit."""
    moment = moment_of(value)
    if value is None or moment is None:
        return ""
    seconds = now - moment.timestamp()
    if seconds < -60:
        return f"({duration(-seconds)} after this page was made, says its clock)"
    days, hours, minutes = seconds / 86_400, seconds / 3600, seconds / 60
    for count, unit in ((days, "day"), (hours, "hour"), (minutes, "minute")):
        if count >= 1:
            return f"{count:.0f} {unit}{'s' * (round(count) != 1)} ago"
    return "less than a minute ago"


# ------------------------------------------------------------------ the page


@lru_cache(maxsize=1)
def _environment() -> Environment:
    """Return the Jinja2 environment, which escapes every value.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        hint = 'pip install "calyx-logging[report]"'
        raise ConfigError(f"reports need jinja2, which is not installed ({error})", hint=hint) from None
    environment = Environment(
        loader=FileSystemLoader(_PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters: dict[str, Callable[..., Any]] = {
        "shown": _shown,
        "clean": _clean,
        "named": _named,
        "number": number,
        "score": score,
        "percent": percent,
        "duration": duration,
        "when": when,
    }
    environment.filters.update(filters)
    return environment


def check_installed() -> None:
    """Check early that Jinja2 is installed, before any work is done.

    Raises:
        ConfigError: jinja2 is not installed.
    """
    _environment()


def fill(values: dict[str, Any], template: str = "page.html") -> bytes:
    """Return a page, filled in, as UTF-8.

    Raises:
        ConfigError: jinja2 is not installed.
    """
    return _environment().get_template(template).render(values).encode("utf-8", "replace")


@lru_cache(maxsize=2)
def frame(*, is_live: bool = False) -> dict[str, Any]:
    """Return the page's fixed parts: style, scripts, and the policy that allows only these to run.

    A page that a server shows has none of them in it; it fetches them.
    """
    from markupsafe import Markup

    if is_live:
        return {"style": "", "library": "", "script": ""}
    style, library = read_part("page.css"), read_part("echarts.min.js")
    script = "\n".join(read_part(name) for name in SCRIPTS)
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, library, script)]
    policy = (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}' 'sha256-{hashes[2]}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types default"
    )
    texts = {"style": style, "library": library, "script": script}
    return {"policy": policy, **{name: Markup(text) for name, text in texts.items()}}  # our own files


def read_part(name: str) -> str:
    """Return a file of the page."""
    return (_PAGE / name).read_text("utf-8")


def for_script(document: object) -> Any:
    """Encode a document for a script element, which must not contain `<`."""
    from markupsafe import Markup

    text = json_bytes.dumps(document, option=json_bytes.OPT_NON_STR_KEYS).decode()
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)  # as JSON has it
