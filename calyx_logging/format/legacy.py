"""First-generation files, which came before this library: how they are recognised, and what is read otherwise in them.

* A chunk of the first generation has any other name than ours, and is called foreign. Its writer appends in place and
  takes no lock, so it grows: it is exported once it has been quiet, later states of it take the place of earlier ones,
  and its lines are always parsed one by one. It has no `seq`, so nobody can tell what is missing.
* A manifest of the first generation has no `manifest_version`, may call a chunk `file`, and writes hashes in any case.
* All of them may begin with a byte order mark (`calyx_logging.core.reading.BOM`), as may any file that people edit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from typing import Any

from calyx_logging.format.chunk import NAME_PATTERN, ChunkName

__all__ = ["QUIET_SECONDS", "VERSION", "entry_like_ours", "foreign_among", "is_foreign", "without_foreign"]

VERSION = 0
"""Of a manifest that names no version."""

QUIET_SECONDS = 600
"""A foreign chunk is exported once it has not changed for so long."""

_ALL_OURS = re.compile(r"(?:[0-9]{8}_[0-9]{6}__[a-z0-9_-]*+(?<=[a-z0-9]__[0-9a-f]{8}-[0-9]{4})\.jsonl\n)*+", re.ASCII)
_FOREIGN = re.compile(rf"^(?!{NAME_PATTERN}\.jsonl$).*$", re.ASCII | re.MULTILINE)


def is_foreign(filename: str) -> bool:
    """Whether a chunk of that name is one of the first generation, which may grow; all others never change."""
    return ChunkName.parse(filename) is None


def foreign_among(names: Iterable[str]) -> set[str]:
    """Those that are no names of sealed chunks of ours, by their form alone; quick for very many."""
    text = "\n".join(names) + "\n"
    if _ALL_OURS.fullmatch(text):
        return set()
    return {match[0] for match in _FOREIGN.finditer(text)} - {""}


def without_foreign(names: Set[str]) -> Set[str]:
    """Names of our own chunks among them, which never change: who looks for something new leaves them out."""
    foreign = foreign_among(names)
    return names - foreign if foreign else names


def entry_like_ours(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """A manifest's entry with its name under `filename` and its hash in lower case."""
    name, sha256 = entry.get("filename", entry.get("file")), entry.get("sha256")
    return {**entry, "filename": name, "sha256": sha256.lower() if isinstance(sha256, str) else sha256}
