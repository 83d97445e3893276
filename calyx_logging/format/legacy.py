"""Recognise files of the first generation, which predate this library, and read them where they differ.

* A first-generation chunk is one without a name of our form; it is called foreign. Its writer appends in place and
  takes no lock, so it may grow. It is exported once it has not changed for a while, later states replace earlier ones,
  and its lines are always parsed one by one. It has no `seq`, so missing events cannot be detected.
* A first-generation manifest has no `manifest_version`, may use the key `file` for a chunk's name, and writes hashes in
  upper or lower case.
* All these files may begin with a byte order mark (`calyx_logging.core.reading.BOM`), as may any file that people edit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from typing import Any

from calyx_logging.format.chunk import NAME_PATTERN, ChunkName

__all__ = ["QUIET_SECONDS", "VERSION", "entry_like_ours", "foreign_among", "is_foreign", "without_foreign"]

VERSION = 0
"""The version assumed for a manifest without one."""

QUIET_SECONDS = 600
"""A foreign chunk is exported once it has not changed for this many seconds."""

_ALL_OURS = re.compile(r"(?:[0-9]{8}_[0-9]{6}__[a-z0-9_-]*+(?<=[a-z0-9]__[0-9a-f]{8}-[0-9]{4})\.jsonl\n)*+", re.ASCII)
_FOREIGN = re.compile(rf"^(?!{NAME_PATTERN}\.jsonl$).*$", re.ASCII | re.MULTILINE)


def is_foreign(filename: str) -> bool:
    """Tell by its name whether a chunk is of the first generation and may grow; all others never change."""
    return ChunkName.parse(filename) is None


def foreign_among(names: Iterable[str]) -> set[str]:
    """Return the names that do not have the form of our sealed chunks' names; fast for very many names."""
    text = "\n".join(names) + "\n"
    if _ALL_OURS.fullmatch(text):
        return set()
    return {match[0] for match in _FOREIGN.finditer(text)} - {""}


def without_foreign(names: Set[str]) -> Set[str]:
    """Return the names of our own chunks, which never change, so that a search for new chunks can skip them."""
    foreign = foreign_among(names)
    return names - foreign if foreign else names


def entry_like_ours(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a manifest entry with its name under `filename` and its hash in lower case."""
    name, sha256 = entry.get("filename", entry.get("file")), entry.get("sha256")
    return {**entry, "filename": name, "sha256": sha256.lower() if isinstance(sha256, str) else sha256}
