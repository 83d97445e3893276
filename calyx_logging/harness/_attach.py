"""Attach a file to a run: its bytes go into the outbox as control lines, with the run's events."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from calyx_logging.errors import CalyxError, ConfigError, say
from calyx_logging.events.event import control_event
from calyx_logging.format.chunk import open_chunk
from calyx_logging.format.file_lines import FILE, PART_BYTES, file_lines
from calyx_logging.format.manifest import is_safe_filename
from calyx_logging.handlers import OutboxHandler

__all__ = ["MAX_BYTES", "attach"]

MAX_BYTES = 64 * 1024 * 1024
"""Default limit for the size of a file, in bytes."""


def attach(
    handlers: Iterable[OutboxHandler],
    path: Path,
    name: str | None,
    fields: Mapping[str, Any],
    max_bytes: int = MAX_BYTES,
) -> bool:
    """Write a file into the outboxes of handlers; return False, and say so, if that fails.

    Args:
        handlers: whose outboxes.
        path: of the file.
        name: the name to record; None for the file's own.
        fields: fields of the run, for the last line.
        max_bytes: larger files are not attached.

    Raises:
        ConfigError: the name cannot be a file's name everywhere, or the limit is no number of bytes.
    """
    name = path.name if name is None else name
    if not isinstance(name, str) or not is_safe_filename(name):
        raise ConfigError(f"the name is {name!r:.200}", hint="give one that is a file's name on every system")
    if type(max_bytes) is not int or max_bytes < 0:
        raise ConfigError(f"max_bytes is {max_bytes!r}: give a number of bytes")
    outboxes = {handler.outbox: handler for handler in handlers}
    if not outboxes:
        say(f"{path} is not attached: no OutboxHandler receives what the run logs")
        return False
    file = secrets.token_hex(8)
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no regular file")
        size = path.stat().st_size
        if size > max_bytes:
            raise ValueError(f"it has {size} bytes, and the limit is {max_bytes}")
        with open_chunk(path) as stream:
            blocks = iter(lambda: stream.read(PART_BYTES), b"")
            for message, line in file_lines(file, name, _limited(blocks, max_bytes)):
                shown = line if "data" in line else {**line, **fields}
                kept = [_keep(handler, message, shown) for handler in outboxes.values()]
                if not all(kept):
                    raise ValueError("the outbox cannot be written")
    except (OSError, CalyxError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        for handler in outboxes.values():
            _keep(handler, f"{name} was not attached", {"file": file, "name": name, "left_out": why[:500], **fields})
        say(f"{path} is not attached: {why}")
        return False
    return True


def _limited(blocks: Iterable[bytes], most: int) -> Iterator[bytes]:
    for block in blocks:
        most -= len(block)
        if most < 0:
            raise ValueError("it grows, and is larger than the limit now")
        yield block


def _keep(handler: OutboxHandler, message: str, fields: Mapping[str, Any]) -> bool:
    node_id = handler.outbox.name
    return handler.submit(lambda line: control_event(node_id, FILE, time.time(), message, **line), fields) is True
