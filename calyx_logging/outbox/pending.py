"""Find what the next export would take, and what it cannot take.

Invariant: each chunk in the outbox that is in no finished bundle is pending, quiet soon, or named among what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

from calyx_logging.errors import CalyxError
from calyx_logging.format import legacy
from calyx_logging.format.chunk import open_chunk
from calyx_logging.format.chunk_stats import stats_of
from calyx_logging.format.manifest import is_safe_filename
from calyx_logging.node import Node
from calyx_logging.outbox import export_index
from calyx_logging.outbox.contents import Contents, word_of_odd

__all__ = ["Pending", "find_pending"]


@dataclass
class Pending:
    """The chunks that the next bundle would take.

    Attributes:
        chunks: their file names, sorted.
        bytes: their total size.
        quiet_soon: foreign chunks that changed too recently.
        left: what cannot be exported as it is, and why.
        leftovers: what programs left beside the chunks, which is no chunk, in words.
    """

    chunks: list[str] = field(default_factory=list)
    bytes: int = 0
    quiet_soon: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)


def find_pending(
    node: Node, done: Set[str], contents: Contents, now: float, covered: Mapping[str, str] | None = None
) -> Pending:
    """Find the chunks that are in no finished bundle; reads foreign chunks whose names were exported before.

    Args:
        node: the node.
        done: names of chunks to skip.
        contents: the outbox's contents.
        now: seconds since the epoch.
        covered: states of foreign chunks to skip, as name and hash; default those exported last.
    """
    pending = Pending(left=word_of_odd(node.outbox, contents))
    for filename, left in sorted(contents.leftovers.items()):
        pending.leftovers.append(f"{str(node.outbox / filename)!r} is not exported: it is {left}")
    for name in contents.sealed:
        if name.sealed not in done:
            pending.chunks.append(name.sealed)
            pending.bytes += (node.outbox / name.sealed).stat().st_size
    known = covered if covered is not None else export_index.hashes(node) if contents.foreign else {}
    spellings = {name.casefold() for name in pending.chunks}
    for filename in contents.foreign:
        path = node.outbox / filename
        if not is_safe_filename(filename) or filename.casefold() in spellings:
            pending.left.append(
                f"{str(path)!r} is not exported: give it a plain file name that no other file resembles"
            )
            continue
        spellings.add(filename.casefold())
        state = path.stat()
        if now - state.st_mtime < legacy.QUIET_SECONDS:
            pending.quiet_soon.append(filename)
            continue
        if filename in known and _is_as_exported(path, known[filename]):
            continue
        pending.chunks.append(filename)
        pending.bytes += state.st_size
    pending.chunks.sort()
    return pending


def _is_as_exported(path: Path, sha256: str) -> bool:
    """Check a chunk's hash; if the chunk cannot be read, the copying reports it."""
    try:
        with open_chunk(path) as stream:
            return stats_of(stream, path.name).entry(path.name).sha256 == sha256
    except CalyxError:
        return False
