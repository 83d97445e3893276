"""Read the crash files of dead processes, for the end lines that recovery writes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from calyx_logging.core import crash_file, files
from calyx_logging.core.crash_file import Crash
from calyx_logging.core.locks import Holder, named_in, read_holder

__all__ = ["Crashes", "how_it_ended"]


class Crashes:
    """The crash files beside an outbox's locks, each read once.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._of: dict[Holder, dict[str, object]] = {}
        self._paths: dict[Path, Holder | None] = {}
        self._dead: set[Holder] = set()
        self._components: dict[str, str] = {}
        for path in sorted(folder.glob(f"*{crash_file.SUFFIX}")):
            self._read(path)

    def _read(self, path: Path) -> None:
        holder = read_holder(self._folder.parent, path.stem)
        try:
            crash = crash_file.read(path)
        except FileNotFoundError:  # its process has ended in order
            return
        except (OSError, ValueError) as error:
            fields: dict[str, object] = {"fault": f"{path.name} cannot be read: {error}"}
        else:
            holder, fields = _process_of(crash), crash.fields
            self._components[path.stem] = crash.component
        self._paths[path] = holder
        if holder is not None:
            self._of[holder] = fields

    def __bool__(self) -> bool:
        return bool(self._paths)

    def take(self, holder: Holder | None, *, is_dead: bool) -> dict[str, object]:
        """Return the end line's fields on how a writer's process ended; stacks only the first time.

        Args:
            holder: the process, as the writer's lock file names it.
            is_dead: whether it is known to have ended.
        """
        if holder is None:
            return {}
        if not is_dead:
            return {"rebooted": True} if holder.is_here and holder.is_of_another_boot else {}
        self._dead.add(holder)
        found = self._of.get(holder, {})
        self._of[holder] = {name: value for name, value in found.items() if name != "fault"}
        return found

    def component_of(self, writer: str) -> str | None:
        """Return the component of a writer that had the crash file of its process."""
        return self._components.get(writer)

    def clear(self, is_quiet: Callable[[list[Path]], bool]) -> None:
        """Delete the files of processes that have ended and have no lock file here any more."""
        if not self._paths:
            return
        locked = {read_holder(self._folder.parent, path.stem) for path in self._folder.glob("*.lock")}
        for path, holder in self._paths.items():
            if holder in locked:
                continue
            if (holder is not None and (holder in self._dead or holder.has_ended)) or is_quiet([path]):
                with contextlib.suppress(OSError):
                    files.remove(path)


def _process_of(crash: Crash) -> Holder | None:
    return named_in([line.strip() for line in crash.process.decode("utf-8", "replace").split("\n")])


def how_it_ended(fields: dict[str, object]) -> tuple[str, str]:
    """Return the level and the message of an end line that recovery writes."""
    if (signal := fields.get("signal")) is not None:
        return "critical" if signal in crash_file.FATAL else "warning", f"the process was ended by {signal}"
    if (code := fields.get("exit_code")) is not None:
        return "warning" if code else "info", f"the process ended itself by os._exit({code})"
    if "rebooted" in fields:
        return "warning", "the system was restarted"
    if "oom_kills" in fields:
        return "warning", "the process was killed, perhaps for want of memory"
    return "warning", "the process ended without closing this writer, and left no word of why"
