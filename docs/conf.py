"""Configuration of the documentation site: `python3 run.py docs` builds it into build/site, without the network."""

from __future__ import annotations

import re
from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

from calyx_logging import __version__

project = "calyx-logging"
author = "The calyx-logging authors"
release = version = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
html_theme = "furo"
html_title = f"calyx-logging {version}"
html_static_path: list[str] = []
html_show_sphinx = False
html_show_copyright = False
default_role = "code"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
highlight_language = "none"

_OUTSIDE = re.compile(
    r"\[([^\]]+)\]"
    r"\((?:\.\./)+(?:README\.md|SECURITY\.md|(?:calyx_logging|handlers|scripts|tests|examples)\b[^)]*)\)"
)
_SPECIAL = re.compile(r"[*`|\\]|_(?=\W|$)")


def without_sources(app: Sphinx, name: str, source: list[str]) -> None:
    """Leave links out that lead to files of the checkout: the site stands alone."""
    source[0] = _OUTSIDE.sub(lambda match: match[1], source[0])


def as_plain_text(app: Sphinx, ctx: Any, lines: list[str]) -> None:
    """Escape what help texts mean literally, and reStructuredText does not."""
    lines[:] = [line if line.startswith("..") else _SPECIAL.sub(r"\\\g<0>", line) for line in lines]


def setup(app: Sphinx) -> None:
    """Connect the functions above."""
    app.add_lexer("mermaid", TextLexer)
    app.connect("source-read", without_sources)
    app.connect("sphinx-click-process-description", as_plain_text)
    app.connect("sphinx-click-process-epilog", as_plain_text)
