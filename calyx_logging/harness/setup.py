"""One line that sets the recorder up: the outbox on the root logger, beside whatever is there already."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

from calyx_logging.errors import ConfigError, NodeNotProvisioned, say
from calyx_logging.events.console import ensure_console
from calyx_logging.events.formatter import EventFormatter
from calyx_logging.events.structlog_bridge import configure_structlog
from calyx_logging.handlers.outbox import OutboxHandler
from calyx_logging.node import Node, is_node_id
from calyx_logging.node import provision as provision_node

__all__ = ["node_id_of_host", "setup"]

_REDACT = "calyx_logging.redact.RedactSecrets"
_announced: set[str] = set()


def setup(
    root: str | os.PathLike[str] | None = None,
    *,
    level: int | str | None = None,
    console: bool | None = None,
    redact: bool = False,
    provision: bool | str | None = None,
    structlog: bool = True,
    announce: bool = True,
    **options: Any,
) -> OutboxHandler:
    """Record everything that reaches the root logger in the node's outbox; say once, on standard error, where that is.

    Existing handlers, their levels and a configured structlog stay as they are. If the root logger already has an
    OutboxHandler for this outbox, it is kept, unless options are given that differ.

    Args:
        root: the folder with `runtime/node_id.txt`; default: `CALYX_ROOT`, else the nearest parent of the working
            directory that has one.
        level: the root logger's level. By default it is left alone, except that a program that has not configured
            logging gets INFO.
        console: whether to add a readable console on standard error; by default where the root logger has none.
        redact: whether secrets are taken out of events (`calyx_logging.redact.RedactSecrets`).
        provision: what to do if the root has no node id: True makes one from the host's name, a text is the id, False
            fails. By default it asks if there is a terminal, and fails otherwise.
        structlog: whether structlog logs to the root logger, too, if the program has not configured it.
        announce: whether to say where events go.
        **options: any of OutboxHandler's: `component`, `source`, `capture`, `sync`, `fast` and so on.

    Returns:
        The handler.

    Raises:
        NodeNotProvisioned: there is no node id; the message has the command that makes one.
        ConfigError: an option is unknown or bad, or the outbox cannot be written or locked.
    """
    _check(level, console, redact, provision)
    node = _node(root, provision)
    logger = logging.getLogger()
    is_new = not logger.handlers
    handler = _handler(logger, node, redact, options)
    if level is not None:
        logger.setLevel(level if isinstance(level, int) else level.upper())
    elif is_new and logger.level == logging.WARNING:
        logger.setLevel(logging.INFO)
    if console is not False:
        ensure_console()
    if structlog:
        import structlog as theirs

        if not theirs.is_configured():
            configure_structlog()
    where = str(handler.outbox)
    if announce and where not in _announced:
        _announced.add(where)
        least = logging.getLevelName(max(logger.level, handler.level))
        say(f'events from level {least} go to {where}; see them: calyx-telemetry tail --root "{node.root}"')
    return handler


def node_id_of_host() -> str:
    """Return a node id made from the host's name."""
    name = re.sub(r"[^a-z0-9._-]+", "-", socket.gethostname().partition(".")[0].lower()).strip("-._")[:48]
    return name if is_node_id(name) else "node"


def _check(level: object, console: object, redact: object, provision: object) -> None:
    names = logging.getLevelNamesMapping()
    is_level = level is None or (isinstance(level, int) and not isinstance(level, bool))
    if not is_level and not (isinstance(level, str) and level.upper() in names):
        raise ConfigError(f"option 'level' is {level!r}: give the name or the number of a level")
    for name, value, kinds in (("console", console, (bool, type(None))), ("redact", redact, (bool,))):
        if not isinstance(value, kinds):
            raise ConfigError(f"option {name!r} is {value!r}: give true or false")
    if not isinstance(provision, (bool, str, type(None))):
        raise ConfigError(f"option 'provision' is {provision!r}: give true, false or a node id")


def _node(root: str | os.PathLike[str] | None, provision: bool | str | None) -> Node:
    """Find the node, or make one where that is wanted."""
    try:
        return Node.find(root)
    except NodeNotProvisioned as error:
        folder = Path(root or os.environ.get("CALYX_ROOT") or Path.cwd())
        if (folder / "telemetry" / "federated").is_dir():
            raise  # a hub is no node; the error says so
        node_id = provision if isinstance(provision, str) else node_id_of_host()
        if provision is None and _is_asked(f"{folder} has no node id yet. Make it node {node_id}?"):
            provision = True
        if not provision:
            hint = f'run: calyx-telemetry provision {node_id} --root "{folder}", or call setup(provision=True)'
            raise NodeNotProvisioned(error.message, path=error.path, hint=hint) from None
    return provision_node(folder, node_id).node


def _is_asked(question: str) -> bool:
    """Ask at the terminal; False where there is none."""
    try:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        sys.stderr.write(f"calyx-logging: {question} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except (AttributeError, OSError, ValueError):  # pythonw has none; others may be closed
        return False


def _handler(logger: logging.Logger, node: Node, redact: bool, options: dict[str, Any]) -> OutboxHandler:
    """Return the handler that is there already, or a new one on the root logger."""
    there = [one for one in logger.handlers if isinstance(one, OutboxHandler) and one.outbox == node.outbox]
    if there and _is_as_asked(there[0], redact, options):
        return there[0]
    if redact and "formatter" in options:
        raise ConfigError("either 'redact' or 'formatter'", hint=f"give the formatter the processor {_REDACT}")
    formatter = options.pop("formatter", None) or EventFormatter(processors=[_REDACT] if redact else [])
    handler = OutboxHandler(root=node.root, **options)
    handler.setFormatter(formatter)
    for one in there:
        logger.removeHandler(one)
        one.close()
    logger.addHandler(handler)
    return handler


def _is_as_asked(handler: OutboxHandler, redact: bool, options: dict[str, Any]) -> bool:
    """Tell whether a handler has these options already; those that are not given do not count."""
    if redact and _REDACT not in dict(handler.event_formatter.processors):
        return False
    has = {**handler.options, "formatter": handler.formatter}
    asked = {**options, "capture": list(options["capture"])} if "capture" in options else options
    return all(name in has and has[name] == value for name, value in asked.items())
