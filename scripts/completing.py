"""Offer completions to a shell: files, folders, nodes, runs and named queries.

Nothing here may fail or print: a shell would show it in the middle of a command. What it asks is imported when it is
asked, since every command imports this.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import wraps

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class

__all__ = ["PowerShell", "files", "folders", "node_ids", "places", "query_names", "run_ids"]

_Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
_MAX_RUNS = 500
_SAFE = re.compile(r"[\w.@%+=:/-]+", re.ASCII)
"""Characters that no shell interprets: names may be from elsewhere, and click's scripts insert them unquoted."""


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Leave it to the shell to offer files."""
    return [CompletionItem(incomplete, type="file")]


def folders(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Leave it to the shell to offer folders."""
    return [CompletionItem(incomplete, type="dir")]


def places(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer what `--from` takes: the outbox, the hub, or a bundle's folder."""
    return _beginning(("outbox", "hub"), incomplete) or folders(ctx, param, incomplete)


def _beginning(texts: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(text) for text in texts if text.startswith(incomplete) and _SAFE.fullmatch(text)]


def _offered(found: Callable[[click.Context], Iterable[str]]) -> _Complete:
    """Make a completion of a function that lists texts, and may fail."""

    @wraps(found)
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        with suppress(Exception):
            return _beginning(found(ctx), incomplete)
        return []

    return complete


@_offered
def query_names(ctx: click.Context) -> Iterable[str]:
    """Offer the named queries."""
    from calyx_logging.query.named import NAMES

    return sorted(NAMES)


@_offered
def node_ids(ctx: click.Context) -> Iterable[str]:
    """Offer the ids of a root, or the nodes of a hub."""
    from calyx_logging.hub.store import Store, find_hub
    from calyx_logging.node import Node

    root = ctx.params.get("root")
    with suppress(Exception):
        if nodes := Store(find_hub(root)).nodes():
            return nodes
    return Node.find(root).all_ids()


@_offered
def run_ids(ctx: click.Context) -> Iterable[str]:
    """Offer the newest runs: at a node by their envelopes' names, at a hub by a query."""
    from calyx_logging.format.run_paths import ENVELOPE_SUFFIX, benchmarks_of
    from calyx_logging.node import Node

    root, place = ctx.params.get("root"), ctx.params.get("place")
    with suppress(Exception):
        results = benchmarks_of(Node.find(root).root) / "results"
        names = sorted(results.rglob(f"*{ENVELOPE_SUFFIX}"), key=lambda path: path.stat().st_mtime, reverse=True)
        if names and place in (None, "outbox"):
            return dict.fromkeys(path.name.rpartition("__")[0] for path in names[:_MAX_RUNS])
    from calyx_logging.query import connect
    from calyx_logging.query.sql import run_sql
    from calyx_logging.scripts.sources import usual_place

    backend = connect(root, place or usual_place(root), warn=lambda text: None, closed=True, plain=True)
    rows = run_sql(backend, f"SELECT run_id FROM runs GROUP BY 1 ORDER BY max(started) DESC LIMIT {_MAX_RUNS}")
    return [str(run_id) for (run_id,) in rows.values()]


@add_completion_class
class PowerShell(ShellComplete):
    """Completion for PowerShell 5 and newer, which click does not bring."""

    name = "powershell"
    source_template = """\
Register-ArgumentCompleter -Native -CommandName %(prog_name)s -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $env:%(complete_var)s = "powershell_complete"
    $env:CALYX_COMPLETE_LINE = $commandAst.ToString()
    $env:CALYX_COMPLETE_WORD = $wordToComplete
    %(prog_name)s | ForEach-Object {
        $value, $help = $_ -split "`t", 2
        [System.Management.Automation.CompletionResult]::new($value, $value, "ParameterValue", $help)
    }
    Remove-Item Env:%(complete_var)s, Env:CALYX_COMPLETE_LINE, Env:CALYX_COMPLETE_WORD
}
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the whole words before the one to complete, and that one."""
        words = os.environ.get("CALYX_COMPLETE_LINE", "").split()[1:]  # a backslash is part of a path there
        word = os.environ.get("CALYX_COMPLETE_WORD", "")
        return (words[:-1] if word and words else words), word

    def format_completion(self, item: CompletionItem) -> str:
        """Return a line; nothing for files, which PowerShell offers where it gets no line."""
        if item.type in ("file", "dir"):
            return ""
        return f"{item.value}\t{item.help or item.value}"
