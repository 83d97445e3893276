"""Options for where a command reads events from: `--from outbox`, `--from hub` or `--from BUNDLE`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["from_option", "level_option"]

_F = TypeVar("_F", bound=Callable[..., Any])


def from_option(function: _F) -> _F:
    """Add `--from` and `--root`."""
    root = click.option(
        "--root", "--repo-root", "root", metavar="FOLDER", help="The root of the node, or of the hub. Default: found."
    )
    source = click.option(
        "--from",
        "place",
        default="outbox",
        metavar="[outbox|hub|BUNDLE]",
        help="The node's outbox, what is being written included; a hub's store; or a bundle's folder. Default: outbox.",
    )
    return source(root(function))


def level_option(function: _F) -> _F:
    """Add `--level`."""
    levels = click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False)
    return click.option("--level", type=levels, help="Minimum level.")(function)
