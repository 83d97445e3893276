"""Write events given as dicts to an outbox, with one writer for each root and source of a process.

The writers live in this module, which nothing re-imports, so that a harness may re-import its own modules freely. Their
chunks are sealed at exit.
"""

from __future__ import annotations

import atexit
import os
import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calyx_logging.errors import CalyxError, say
from calyx_logging.events.event import DEFAULT_MAX_EVENT_BYTES, check_source
from calyx_logging.events.formatter import EventFormatter
from calyx_logging.events.stamp import StampEvent
from calyx_logging.format.chunk import MAX_COMPONENT
from calyx_logging.format.run_paths import root_above
from calyx_logging.node import Node
from calyx_logging.recording.options import WriterOptions
from calyx_logging.recording.pool import WriterPool

__all__ = ["Mirror", "component_of", "count_lost", "encode_mirrored", "lost", "mirror_of", "set_processors"]

_OPTIONS = WriterOptions(16 * 1024 * 1024, 3600, "seal", 1.0)
_MAX_KNOWN = 1000


class Mirror:
    """Keeps dicts in a node's outbox under one source.

    Args:
        node: the node whose outbox receives the events.
        source: the events' source; its slug is the chunks' component.

    Raises:
        ConfigError: the source is not valid, or the outbox cannot be written or locked.

    Attributes:
        node: the node whose outbox receives the events.
        lost: events that could not be written so far.
    """

    def __init__(self, node: Node, source: str) -> None:
        self.node = node
        self.lost = 0
        self._stamp = StampEvent(node.id, source)
        self._pool = WriterPool(node, component_of(source), _OPTIONS)

    def encode(self, event: Mapping[str, Any], max_bytes: int = DEFAULT_MAX_EVENT_BYTES) -> bytes | None:
        """Encode the event's line without `seq`; None if a processor dropped it."""
        return encode_mirrored(event, self._stamp, max_bytes)

    def keep(self, event: Mapping[str, Any]) -> bool:
        """Write the event; return False if it is lost (a gap line counts it) or a processor dropped it."""
        return self._is_kept(self._pool.submit(self.encode, event))

    def keep_line(self, line: bytes) -> bool:
        """Write a line that `encode` made."""
        return self._is_kept(self._pool.submit(bytes, line))

    def _is_kept(self, result: bool | None) -> bool:
        self.lost += result is False
        return bool(result)

    def close(self) -> None:
        """Seal the chunk."""
        self._pool.close()


def component_of(source: str) -> str:
    """Make a source's slug: lower-case letters, digits and single `-`; `harness` if nothing is left."""
    slug = re.sub(r"[-_]{2,}", "-", re.sub(r"[^a-z0-9_]", "-", source.lower())).strip("-_")
    return slug[:MAX_COMPONENT].strip("-_") or "harness"


_mirrors: dict[tuple[str, str], Mirror] = {}
_places: dict[tuple[object, ...], Mirror] = {}
_formatter = EventFormatter()


def mirror_of(
    source: str,
    log_path: str | os.PathLike[str] | None,
    runtime_root: str | os.PathLike[str] | None,
    repo_root: str | os.PathLike[str] | None,
) -> Mirror:
    """Return the process's only mirror for a source and the root found from the arguments.

    Raises:
        CalyxError: there is no such root, it has no node id, its outbox cannot be written, or the source is not valid.
        TypeError: an argument is not a path.
    """
    place = (source, _text(log_path), _text(runtime_root), _text(repo_root), _here(), os.environ.get("CALYX_ROOT"))
    if (found := _places.get(place)) is not None:
        return found
    if repo_root is not None:
        root: Path | None = Path(repo_root)
    elif runtime_root is not None:
        root = Path(runtime_root).absolute().parent
    else:
        root = None if log_path is None else root_above(Path(log_path).absolute())
    node = Node.find(root)
    key = (os.path.normcase(node.root.resolve()), check_source(source))
    if key not in _mirrors:
        _mirrors.setdefault(key, Mirror(node, source))  # atomic under the interpreter lock: one mirror for all threads
    if len(_places) >= _MAX_KNOWN:  # very many runs, each with its own log path
        _places.clear()
    _places[place] = _mirrors[key]
    return _mirrors[key]


def _text(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)


def _here() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - for comparing, a million times
    except OSError:  # the folder was deleted
        return None


def encode_mirrored(event: Mapping[str, Any], stamp: StampEvent, max_bytes: int) -> bytes | None:
    """Encode a dict with a stamp, without `seq`, within a size limit; None if a processor dropped it."""
    return _formatter.bound_to(stamp, max_bytes).encode_mirrored(event)


def set_processors(processors: Sequence[Any]) -> None:
    """Set the structlog processors for all mirrored events, as in `EventFormatter`.

    Raises:
        ConfigError: one of them cannot be found, or is not a processor.
    """
    global _formatter
    _formatter = EventFormatter(processors=processors)


# ------------------------------------------------------------------ what was not kept

_lost: dict[str, int] = {}
_lock = threading.RLock()  # reentrant: a signal handler may mirror while it is held
_MAX_CAUSES = 1000


def lost() -> dict[str, int]:
    """Count the events lost so far in this process, by cause."""
    with _lock:
        found = Counter(_lost)
    for mirror in list(_mirrors.values()):
        if mirror.lost:
            found[f"{mirror.node.outbox}: the outbox cannot be written"] += mirror.lost
    return dict(found)


def count_lost(error: BaseException, what: str = "are not mirrored") -> None:
    """Count an event for which there was no writer; report each cause once, and the totals at exit."""
    cause = str(error) if isinstance(error, CalyxError) else f"{type(error).__name__}: {error}"
    with _lock:
        if cause not in _lost and len(_lost) >= _MAX_CAUSES:
            cause = "and other causes"
        _lost[cause] = _lost.get(cause, 0) + 1
        first = _lost[cause] == 1
    if first:
        say(f"events {what}, and counted: {cause}")


def _at_exit() -> None:
    for cause, count in list(_lost.items()):
        if count > 1:
            say(f"{count} events in all: {cause}")
    for mirror in list(_mirrors.values()):
        mirror.close()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    _lost.clear()
    for mirror in _mirrors.values():
        mirror.lost = 0


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
