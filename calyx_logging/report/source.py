"""Name the place that a report is made from, and the commands that read from the same place."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from calyx_logging.hub.store import find_hub
from calyx_logging.node import Node
from calyx_logging.query.rows import column_text

__all__ = ["Source", "command_line"]

_TOUCHED = set('"$`\\!')
"""Characters that a shell interprets inside double quotes."""


@dataclass(frozen=True)
class Source:
    """Place a report is made from: `outbox`, `hub` or a bundle's folder; its root; a readable location."""

    place: str
    root: str | None
    where: str

    @classmethod
    def find(cls, place: str, root: str | None) -> Source:
        """Find the place as the commands do, with paths that are valid from any folder.

        Raises:
            CalyxError: there is none.
        """
        if place not in ("outbox", "hub"):
            place = place if "://" in place else os.path.abspath(place)  # noqa: PTH100  # without `..`, links as they are
            return cls(place, None, column_text(place))
        found = os.path.abspath(Node.find(root).root if place == "outbox" else find_hub(root))  # noqa: PTH100
        return cls(place, found, column_text(found))

    def command(self, name: str, *args: str) -> str:
        """Return a command line that reads from the same place."""
        options = [] if self.place == "outbox" else ["--from", self.place]
        return command_line(["calyx-telemetry", name, *options, *self._root(), *args])

    def audit_command(self) -> str:
        """Return the command line that shows what is missing there, as far as a command does."""
        if self.place in ("outbox", "hub"):
            return command_line(["calyx-telemetry", "status" if self.place == "outbox" else "audit", *self._root()])
        return command_line(["calyx-telemetry", "verify", self.place])

    def _root(self) -> list[str]:
        return [] if self.root is None else ["--root", self.root]


def command_line(words: Sequence[str]) -> str:
    """Quote words for this system's shell; SQL with quotes goes in double quotes, which all shells know."""
    words = [column_text(word) for word in words]
    if os.name == "nt":
        return subprocess.list2cmdline(words)
    return " ".join(f'"{word}"' if "'" in word and not _TOUCHED & set(word) else shlex.quote(word) for word in words)
