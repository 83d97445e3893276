"""Ask the living processes that write to an outbox to seal what they have open, and wait for it.

The request is a file. The housekeeping thread of each process looks for it every second, on whatever host, in whatever
container the process runs: no signal, no port. The caller holds the exporter's lock, so there is one request at a time.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from calyx_logging.core import files, json_bytes
from calyx_logging.core.locks import holder_of
from calyx_logging.core.times import utc_text
from calyx_logging.errors import StorageError
from calyx_logging.node import seal_request
from calyx_logging.outbox.contents import OpenChunk, look

__all__ = ["DEFAULT_WAIT", "ask_to_seal"]

DEFAULT_WAIT = 5.0
"""Seconds to wait for an answer."""

_POLL_SECONDS = 0.05


def ask_to_seal(
    outbox: Path,
    wait: float = DEFAULT_WAIT,
    *,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> tuple[list[OpenChunk], list[OpenChunk]]:
    """Return the open chunks that were sealed on request, and those that were not in time.

    Chunks without a line do not count. A chunk of a process that has died is not waited for; recovery seals it.

    Args:
        outbox: the node's outbox.
        wait: seconds.
        clock: seconds since the epoch.
        monotonic: seconds that never go back.

    Raises:
        StorageError: the request cannot be written.
    """
    asked = [OpenChunk(name, holder_of(outbox, name.writer)) for name in look(outbox).open]
    asked = [one for one in asked if _has_lines(outbox / one.name.open) and not one.is_of_the_dead]
    if not asked:
        return [], []
    request = seal_request(outbox)
    who = {"requested_at": utc_text(clock()), "pid": os.getpid(), "host": socket.gethostname()}
    try:
        files.replace_file(request, json_bytes.dumps(who, option=json_bytes.OPT_APPEND_NEWLINE))
    except OSError as error:
        raise StorageError.of(error, "ask living processes to seal their chunks", request, "free some space") from error
    try:
        deadline = monotonic() + wait
        while True:
            left = [one for one in asked if (outbox / one.name.open).exists()]
            if not left or monotonic() >= deadline:
                return [one for one in asked if one not in left], left
            time.sleep(_POLL_SECONDS)
    finally:
        files.remove(request)


def _has_lines(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:  # sealed meanwhile
        return False
