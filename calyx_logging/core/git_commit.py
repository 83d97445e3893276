"""Read a repository's commit from its files, without running git."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["commit_of"]

_COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


def commit_of(folder: Path) -> str | None:
    """Return the commit of the git repository around a folder; None if there is none, or it cannot be read.

    Work trees and packed references are followed; reftables are not.
    """
    try:
        git = next(place / ".git" for place in (folder, *folder.parents) if (place / ".git").exists())
        if git.is_file():  # a work tree, or a submodule
            git = git.parent / git.read_text("utf-8").removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text("utf-8").strip()
        found = _followed(git, head.removeprefix("ref:").strip()) if head.startswith("ref:") else head
    except (OSError, ValueError, StopIteration):
        return None
    return found if _COMMIT.fullmatch(found) else None


def _followed(git: Path, name: str) -> str:
    """Resolve a reference to its commit; return "" if it cannot be found."""
    shared = git / "commondir"
    common = git / shared.read_text("utf-8").strip() if shared.is_file() else git
    for place in (git, common):
        if (place / name).is_file():
            return (place / name).read_text("utf-8").strip()
    for line in (common / "packed-refs").read_text("utf-8").splitlines():
        commit, _, of = line.partition(" ")
        if of == name:
            return commit
    return ""
