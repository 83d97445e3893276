"""Options for where a command reads events from: `--from outbox`, `--from hub` or `--from BUNDLE`.

Without `--from`, it is the outbox, or the hub where the root is that of a hub and of no node.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, TypeVar, cast

import click

from calyx_logging.errors import CalyxError, NodeNotProvisioned
from calyx_logging.hub.store import Store, find_hub
from calyx_logging.node import Node
from calyx_logging.scripts import completing
from calyx_logging.scripts.cli import named_root

__all__ = ["from_option", "level_option", "usual_place"]

_F = TypeVar("_F", bound=Callable[..., Any])


def from_option(function: _F) -> _F:
    """Add `--from` and `--root`; the function's `place` is the one that is meant."""

    @wraps(function)
    def with_place(*args: Any, place: str | None, root: str | None, **options: Any) -> Any:
        return function(*args, place=place or usual_place(root), root=root, **options)

    root = named_root("The root of the node, or of the hub. Default: found.")
    source = click.option(
        "--from",
        "place",
        metavar="[outbox|hub|BUNDLE]",
        shell_complete=completing.places,
        help="The node's outbox, what is being written included; a hub's store; or a bundle's folder. Default: the "
        "outbox, or the hub in a hub's folder.",
    )
    return source(root(cast(_F, with_place)))


def usual_place(root: str | None) -> str:
    """Return `hub` for the root of a hub that is no node's, else `outbox`."""
    try:
        Node.find(root)
    except NodeNotProvisioned:
        with suppress(CalyxError):
            return "hub" if Store(find_hub(root)).folder.is_dir() else "outbox"
    except CalyxError:
        pass  # the command says what is wrong
    return "outbox"


def level_option(function: _F) -> _F:
    """Add `--level`."""
    levels = click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False)
    return click.option("--level", type=levels, help="Minimum level.")(function)
