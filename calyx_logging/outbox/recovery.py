"""Seal the chunks that dead writers left open. The caller holds the exporter's lock.

A free lock proves little: its file may have been deleted, or it may be held in a container or over a mount whose locks
are not visible here. So the lock file names the process, and recovery checks it:

* the process was in this host and pid namespace and has ended: its writer is dead and is recovered at once;
* that process lives, the system has been rebooted, or a power loss took the name: once its chunks have been quiet for
  `QUIET_SECONDS`;
* another host or namespace, or no lock file: likewise, but only on request.

Only in the first case is an open chunk deleted. In the others it is copied, and renamed to `.<name>.taken-<bytes>`,
where `<bytes>` is the number of bytes copied: a living writer's descriptor still refers to an existing file. If
complete lines are added to it, a later recovery puts them into a chunk of that writer with the next free number.

A writer gets one end line, in its last chunk that has bytes; it counts what was not kept of all its chunks. That chunk
is sealed first, so that after a killed recovery the next one finds the end line and writes no other. Empty chunks after
it are deleted: nothing was written to them, or a power loss took it, and then the reason `recovered` says that the tail
is unknown. A writer with only empty chunks is deleted without a trace only if the system has not been rebooted since.
Otherwise a power loss may have taken events, and a chunk with only an end line says so.

If recovery is killed at any point, the next one reaches the same result.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from calyx_logging.core import files
from calyx_logging.core.locks import Holder, holder_of, lock_file, read_holder, writers_with_locks
from calyx_logging.core.os_lock import Held, OsLock
from calyx_logging.errors import CalyxError, ChunkError, StorageError
from calyx_logging.format.chunk import ChunkName
from calyx_logging.outbox.contents import Contents, OpenChunk, look
from calyx_logging.outbox.crashes import Crashes
from calyx_logging.outbox.last_lines import LastLines
from calyx_logging.outbox.recovered_lines import RecoveredLines
from calyx_logging.outbox.writer_chunks import TAKEN, WriterChunks

__all__ = ["QUIET_SECONDS", "Recovered", "Recovery", "recover"]

QUIET_SECONDS = 600
"""A chunk whose writer may live is recovered once it has not been written to for this many seconds."""

_LAST_NUMBER = 9999


@dataclass(frozen=True)
class Recovered:
    """A dead writer's chunk, sealed by recovery.

    Attributes:
        name: the chunk.
        events: events kept, without control lines.
        torn_bytes: bytes after the last newline, not kept.
        bad_lines: complete lines that were not events, not kept.
    """

    name: ChunkName
    events: int
    torn_bytes: int
    bad_lines: int


@dataclass
class Recovery:
    """The result of a recovery.

    Attributes:
        recovered: chunks it sealed.
        live: open chunks whose writer lives, or may live.
        orphaned: open chunks recovered only on request, because it cannot be determined here whether their writer
            lives.
        contents: the outbox's contents afterwards, without what was left out.
        wait: for open chunks written to too recently, the seconds after which they can be recovered, by name.
        unreadable: why the chunks of some dead writers cannot be recovered yet, in words.
    """

    recovered: list[Recovered] = field(default_factory=list)
    live: list[OpenChunk] = field(default_factory=list)
    orphaned: list[OpenChunk] = field(default_factory=list)
    contents: Contents = field(default_factory=Contents)
    wait: dict[str, int] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)


def recover(
    outbox: Path,
    node_id: str,
    *,
    orphans: bool = False,
    leave_out: Set[str] = frozenset(),
    clock: Callable[[], float] = time.time,
) -> Recovery:
    """Seal the chunks that dead writers left open; the caller holds the exporter's lock.

    Args:
        outbox: the node's outbox.
        node_id: for the end line.
        orphans: also recover chunks if it cannot be determined here whether their writer lives.
        leave_out: as in `look`.
        clock: seconds since the epoch, for the end line and the age of chunks.

    Raises:
        StorageError: a file cannot be written; chunks recovered so far stay recovered.
    """
    contents = look(outbox, leave_out)
    work = _Work(outbox, node_id, orphans, clock, Recovery(contents=contents))
    try:
        names = os.listdir(outbox) if outbox.is_dir() else []
        writers = writers_with_locks(outbox)
        taken = [name for name in names if TAKEN.fullmatch(name)]
        if writers or contents.open or taken or work.crashes:
            work.run(writers, leave_out)
            work.result.contents = look(outbox, leave_out)
    except OSError as error:
        raise StorageError.of(error, "recover a chunk", error.filename or outbox) from error
    return work.result


class _Work:
    """One recovery, which lists the outbox once after it knows every dead writer.

    One listing is enough, because a process that has ended writes nothing more.
    """

    def __init__(self, outbox: Path, node_id: str, orphans: bool, clock: Callable[[], float], result: Recovery) -> None:
        self.result = result
        self._outbox = outbox
        self._node_id = node_id
        self._orphans = orphans
        self._clock = clock
        self.crashes = Crashes(outbox / ".writers")
        self._last = LastLines(node_id, clock, {})
        self._chunks = WriterChunks(outbox, node_id)
        self._holders: dict[str, Holder | None] = {}

    def run(self, writers: list[str], leave_out: Set[str]) -> None:
        free = [writer for writer in writers if self._is_free(writer)]
        left: dict[str, list[ChunkName]] = defaultdict(list)
        for name in look(self._outbox, leave_out).open:
            left[name.writer].append(name)
            self._chunks.open_numbers[name.writer].append(name.number)
        aside = self._chunks.see({*free, *left})
        dead, known = set(free), set(writers)
        for writer in free:
            with self._others_going_on():
                self._see_to(writer, left.get(writer, []))
        for writer, names in left.items():
            if writer in dead:
                continue
            holder = holder_of(self._outbox, writer)
            self._last = LastLines(self._node_id, self._clock, {})
            if writer in known or holder is not None:  # its lock is held, or it started after the locks were listed
                self.result.live += [OpenChunk(name, holder) for name in names]
            else:
                with self._others_going_on():
                    self._take_if_quiet(writer, names, asked_for=True)
        for filename, name, size in aside:
            with self._others_going_on():
                self._look_again(filename, name, size)
        self.crashes.clear(self._is_quiet)

    @contextlib.contextmanager
    def _others_going_on(self) -> Iterator[None]:
        """Note that a writer's chunks cannot be read; they stay as they are, and the other writers are seen to."""
        try:
            yield
        except CalyxError as error:
            self.result.unreadable.append(f"{error}; its writer's chunks stay open until it can be read")

    def _is_free(self, writer: str) -> bool:
        lock = OsLock(lock_file(self._outbox, writer))
        try:
            lock.acquire(blocking=False)
        except (Held, PermissionError):  # of another user whose lock this one may not even read
            return False
        self._holders[writer] = read_holder(self._outbox, writer)
        lock.release()
        return True

    def _see_to(self, writer: str, names: list[ChunkName]) -> None:
        """Recover a writer whose lock was free."""
        lock = OsLock(lock_file(self._outbox, writer))
        try:
            lock.acquire(blocking=False)
        except Held:
            self.result.live += [OpenChunk(name, holder_of(self._outbox, writer)) for name in names]
            return
        try:
            holder = read_holder(self._outbox, writer)
            if holder != self._holders[writer]:
                return  # it started after its lock was first tried and has died since: the next export sees its chunks
            here = holder is not None and holder.is_here
            if holder is not None and here and (os.name == "nt" or holder.pid == os.getpid() or holder.has_ended):
                self._begin_last(writer, names, self.crashes.take(holder, is_dead=True))
                if names or not self._end_without_chunk(writer):
                    self._recover_writer(names, same_boot=holder.is_of_this_boot, copy=False)
                _give_up_lock(lock, lock_file(self._outbox, writer))
            elif names:
                self._begin_last(writer, names, self.crashes.take(holder, is_dead=False))
                if self._take_if_quiet(writer, names, asked_for=holder is not None and not here):
                    _give_up_lock(lock, lock_file(self._outbox, writer))
            elif self._is_quiet([lock_file(self._outbox, writer)]):
                self._begin_last(writer, names, {})
                if self._last.tells_of_losses:
                    self._end_without_chunk(writer)
                _give_up_lock(lock, lock_file(self._outbox, writer))
        finally:
            lock.release()

    def _begin_last(self, writer: str, names: list[ChunkName], how: dict[str, object]) -> None:
        self._last = LastLines(self._node_id, self._clock, how, self._chunks.untold(writer, names))

    def _is_quiet(self, paths: list[Path]) -> bool:
        return self._wait(paths) <= 0

    def _wait(self, paths: list[Path]) -> float:
        last = max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)
        return last + QUIET_SECONDS - self._clock()

    def _take_if_quiet(self, writer: str, names: list[ChunkName], *, asked_for: bool) -> bool:
        """Copy the chunks of a writer that may live, if they have been quiet; return whether they were copied."""
        wait = self._wait([self._outbox / name.open for name in names])
        if wait > 0 or (asked_for and not self._orphans):
            chunks = [OpenChunk(name, holder_of(self._outbox, writer)) for name in names]
            (self.result.orphaned if asked_for else self.result.live).extend(chunks)
            if wait > 0:
                self.result.wait.update((name.open, int(wait) + 1) for name in names)
            return False
        self._recover_writer(names, same_boot=False, copy=True)
        return True

    def _end_without_chunk(self, writer: str) -> bool:
        """Write the end line of a writer that had no chunk open; return whether there was something to tell."""
        sealed = self._chunks.sealed[writer]
        if sealed:
            if RecoveredLines(self._outbox / sealed[-1].sealed).ended or sealed[-1].number == _LAST_NUMBER:
                return False
            name = replace(sealed[-1], number=sealed[-1].number + 1)
        else:
            component = self._last.component or (self.crashes.component_of(writer) if self._last.tells_how else None)
            if component is None or self._chunks.was_exported(writer):
                return False
            name = ChunkName(datetime.fromtimestamp(int(self._clock()), UTC), component, writer, 0)
        temporary = self._outbox / f".{name.sealed}.tmp"
        files.remove(temporary)
        files.write_new(temporary, [self._last.make(self._chunks.next_seq(writer, [name]), 0, 0)[0]])
        files.rename_new(temporary, self._outbox / name.sealed)
        files.sync_dir(self._outbox)
        self._chunks.add(name)
        self.result.recovered.append(Recovered(name, 0, 0, 0))
        return True

    def _recover_writer(self, names: list[ChunkName], *, same_boot: bool, copy: bool) -> None:
        names = sorted(names, key=lambda name: name.number)
        is_sealed = {name: self._is_sealed(name) for name in names}
        for name in names:
            if is_sealed[name]:  # left by a killed recovery
                self._part_with(name, copy=copy)
        names = [name for name in names if not is_sealed[name]]
        if not names:
            return
        sizes = {name: (self._outbox / name.open).stat().st_size for name in names}
        earlier = self._chunks.sealed[names[0].writer] or names[0].number > 0
        keep = len(names)
        while keep and not sizes[names[keep - 1]]:
            keep -= 1
        tells = self._last.tells_how and self.crashes.component_of(names[0].writer) is not None
        tells = tells or self._last.tells_of_losses
        if not keep and (earlier or not same_boot or tells):
            keep = 1
        for name in names[keep:]:
            self._part_with(name, copy=copy)
        self._seal(names[:keep], copy=copy)

    def _is_sealed(self, name: ChunkName) -> bool:
        path = self._outbox / name.sealed
        if not path.is_symlink() and (path.is_file() or not path.exists()):
            return path.exists()
        raise ChunkError("is in the way of a chunk to be sealed, and no regular file", path=path, hint="move it away")

    def _seal(self, names: list[ChunkName], *, copy: bool) -> None:
        """Seal a writer's chunks, first the last one, which gets the end line."""
        if not names:
            return
        writer = names[0].writer
        works = [RecoveredLines(self._outbox / name.open) for name in names]
        needs_end = not works[-1].ended and not self._chunks.has_end_behind(names[-1])
        end, next_seq = None, self._chunks.next_seq(writer, names)
        if needs_end:
            torn_bytes, bad_lines = (sum(getattr(work, of) for work in works) for of in ("torn_bytes", "bad_lines"))
            end, next_seq = self._last.make(next_seq, torn_bytes, bad_lines)
        for name, work in zip(reversed(names), reversed(works), strict=True):
            temporary, sealed = self._outbox / f".{name.sealed}.tmp", self._outbox / name.sealed
            files.remove(temporary)
            if end is None and not work.events:  # a sealed chunk has lines, and its number is no hole
                end, next_seq = self._last.make(next_seq, 0, 0)
            files.write_new(temporary, work.lines(end))
            end = None
            files.rename_new(temporary, sealed)
            files.sync_dir(self._outbox)
            self.result.recovered.append(Recovered(name, work.logged, work.torn_bytes, work.bad_lines))
            self._chunks.add(name)
            self._part_with(name, copy=copy, size=work.whole_bytes)

    def _part_with(self, name: ChunkName, *, copy: bool, size: int = 0) -> None:
        source = self._outbox / name.open
        if not copy:
            files.remove(source)
            return
        if not size and (self._outbox / name.sealed).exists():
            size = RecoveredLines(source).whole_bytes
        with contextlib.suppress(PermissionError):  # Windows, while another process has it open
            files.rename_over(source, self._outbox / f".{name.open}.taken-{size}")

    def _look_again(self, filename: str, name: ChunkName, size: int) -> None:
        """Recover lines that were added to a chunk after it was copied."""
        path = self._outbox / filename
        work = RecoveredLines(path, start=size)
        if not work.events or not self._is_quiet([path]):
            return
        known = self._chunks.sealed[name.writer]
        number = max([name.number, *(one.number for one in known), *self._chunks.open_numbers[name.writer]]) + 1
        if number > _LAST_NUMBER:
            return
        new = replace(name, number=number)
        temporary = self._outbox / f".{new.sealed}.tmp"
        files.remove(temporary)
        files.write_new(temporary, work.lines(None))
        files.rename_new(temporary, self._outbox / new.sealed)
        files.sync_dir(self._outbox)
        files.rename_over(path, self._outbox / f".{name.open}.taken-{work.whole_bytes}")
        self._chunks.add(new)
        self.result.recovered.append(Recovered(new, work.logged, work.torn_bytes, work.bad_lines))


def _give_up_lock(lock: OsLock, path: Path) -> None:
    """Delete a dead writer's lock file while holding the lock, so that a process waiting for it sees it is gone."""
    if os.name == "nt":  # cannot delete an open file, so release first; if another process opened it since, it stays
        lock.release()
        with contextlib.suppress(PermissionError):
            files.remove(path)
        return
    files.remove(path)
    lock.release()
