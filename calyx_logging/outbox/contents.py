"""The outbox: which chunks it holds, and recovery of what a dead writer left.

Invariants: recovery runs only under the exporter's lock, and only on chunks whose writer's lock could be taken, so
that the writer is dead; a recovered chunk has only whole, valid lines; killed at any point, the next recovery ends in
the same place. Looking (`look`) takes no locks and changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import Timeout

from calyx_logging.core import files
from calyx_logging.core.locks import OsLock, holder_of, is_gone, lock_file, os_lock
from calyx_logging.errors import ChunkError, EventError, ManifestError, StorageError
from calyx_logging.events.event import CONTROL_SOURCE, control_event, decode, with_seq
from calyx_logging.format.chunk import OPEN_SUFFIX, SEALED_SUFFIX, ChunkName, open_chunk, read_lines
from calyx_logging.format.chunk_stats import stats_of
from calyx_logging.format.manifest import Manifest

__all__ = ["Contents", "OpenChunk", "Recovered", "Recovery", "look", "recover"]

_BATCH = 100
_REQUIRED_TEXTS = ("node_id", "ts_utc", "event_id", "source")
_LINE_START = b'{"node_id":'


@dataclass(frozen=True)
class OpenChunk:
    """A chunk that has not been sealed, and who writes it as far as its lock file says ("1234 hostname")."""

    name: ChunkName
    holder: str | None

    def __str__(self) -> str:
        who = "no lock file" if self.holder is None else f"process {self.holder}"
        if is_gone(self.holder):
            who += ", which has ended: the next export seals it"
        return f"{self.name.open} (writer {self.name.writer}, {who})"


@dataclass
class Contents:
    """An outbox's chunks by name, each list sorted.

    Attributes:
        sealed: ours, sealed.
        open: ours, open.
        foreign: `*.jsonl` of other names: first-generation chunks, appended to in place.
        unknown: `*.jsonl.open` of other names: nobody's.
    """

    sealed: list[ChunkName] = field(default_factory=list)
    open: list[ChunkName] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def look(outbox: Path, leave_out: Set[str] = frozenset()) -> Contents:
    """What the folder holds; an outbox that is not there is empty.

    Args:
        outbox: the folder.
        leave_out: file names that are not asked for (chunks exported before, of which there may be very many).

    Raises:
        ChunkError: something that is no regular file bears a chunk's name.
        StorageError: the folder cannot be read.
    """
    contents = Contents()
    try:
        for name in set(os.listdir(outbox)) - leave_out:
            if not name.startswith(".") and name.endswith((SEALED_SUFFIX, OPEN_SUFFIX)):
                _sort_in(contents, outbox, name)
    except FileNotFoundError:
        return contents
    except OSError as error:
        raise StorageError.of(error, "read the outbox", outbox, "give this user access to it") from error
    contents.sealed.sort()
    contents.open.sort()
    contents.foreign.sort()
    contents.unknown.sort()
    return contents


def _sort_in(contents: Contents, outbox: Path, filename: str) -> None:
    try:
        mode = os.lstat(outbox / filename).st_mode
    except FileNotFoundError:
        return  # sealed, or recovered, since it was listed
    if not stat.S_ISREG(mode):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
        raise ChunkError(
            f"is {kind}",
            path=outbox / filename,
            hint="chunks are regular files: move it out of the outbox, then try again",
        )
    name = ChunkName.parse(filename)
    is_open = filename.endswith(OPEN_SUFFIX)
    if name is None:
        (contents.unknown if is_open else contents.foreign).append(filename)
    else:
        (contents.open if is_open else contents.sealed).append(name)


@dataclass(frozen=True)
class Recovered:
    """A dead writer's chunk, sealed by recovery.

    Attributes:
        name: the chunk.
        events: lines kept.
        torn_bytes: bytes after the last newline, not kept.
        bad_lines: whole lines that were no event, not kept.
    """

    name: ChunkName
    events: int
    torn_bytes: int
    bad_lines: int


@dataclass
class Recovery:
    """What recovery found.

    Attributes:
        recovered: chunks it sealed.
        live: open chunks whose writer lives.
        orphaned: open chunks without a lock file: their writer may live (somebody deleted the lock), so they are
            left alone unless asked for.
        contents: what the outbox holds afterwards, but for what was left out.
    """

    recovered: list[Recovered] = field(default_factory=list)
    live: list[OpenChunk] = field(default_factory=list)
    orphaned: list[OpenChunk] = field(default_factory=list)
    contents: Contents = field(default_factory=Contents)


def recover(
    outbox: Path,
    node_id: str,
    *,
    orphans: bool = False,
    leave_out: Set[str] = frozenset(),
    clock: Callable[[], float] = time.time,
) -> Recovery:
    """Seal what dead writers left open; the caller holds the exporter's lock.

    Args:
        outbox: the node's outbox.
        node_id: for the end line.
        orphans: take chunks without a lock file for dead ones too.
        leave_out: as in `look`.
        clock: seconds since the epoch, for the end line.

    Raises:
        ChunkError: something that is no regular file bears a chunk's name.
        StorageError: a file cannot be read or written; what was recovered so far stands.
    """
    result = Recovery()
    result.contents = look(outbox, leave_out)  # refuse before anything is touched
    try:
        writers = sorted(p.stem for p in (outbox / ".writers").glob("*.lock") if p.is_file() and not p.is_symlink())
        if not writers and not result.contents.open:
            return result
        for start in range(0, len(writers), _BATCH):
            _recover_batch(outbox, node_id, writers[start : start + _BATCH], clock, leave_out, result)
        known = set(writers)
        for name in look(outbox, leave_out).open:
            if name.writer in known:
                continue
            if (outbox / name.sealed).exists():
                files.remove(outbox / name.open)  # a recovery's leftover; loss of power kept it longer than the lock
            elif holder_of(outbox, name.writer) is not None:  # begun since the locks were listed
                result.live.append(OpenChunk(name, holder_of(outbox, name.writer)))
            elif orphans:
                _recover_writer(outbox, node_id, [name], clock, result)
            else:
                result.orphaned.append(OpenChunk(name, None))
        result.contents = look(outbox, leave_out)
    except OSError as error:
        raise StorageError.of(error, "recover a chunk", error.filename or outbox) from error
    return result


def _recover_batch(
    outbox: Path,
    node_id: str,
    writers: list[str],
    clock: Callable[[], float],
    leave_out: Set[str],
    result: Recovery,
) -> None:
    with ExitStack() as held:
        dead: dict[str, OsLock] = {}
        for writer in writers:
            lock = os_lock(lock_file(outbox, writer))
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            held.callback(lock.release, force=True)
            dead[writer] = lock
        left: dict[str, list[ChunkName]] = {}
        for name in look(outbox, leave_out).open:  # looked at after the locks are held: nothing can be added now
            if name.writer in dead:
                left.setdefault(name.writer, []).append(name)
            elif name.writer in writers:
                result.live.append(OpenChunk(name, holder_of(outbox, name.writer)))
        for writer, lock in dead.items():
            _recover_writer(outbox, node_id, left.get(writer, []), clock, result)
            _give_up_lock(lock, lock_file(outbox, writer))


def _give_up_lock(lock: OsLock, path: Path) -> None:
    """Delete a dead writer's lock file while the lock is held: whoever waits for it then sees that it is gone."""
    if os.name == "nt":  # deletes no open file; and one that somebody opened since is not deleted either
        lock.release(force=True)
        with contextlib.suppress(PermissionError):
            files.remove(path)
        return
    files.remove(path)
    lock.release(force=True)


def _recover_writer(
    outbox: Path, node_id: str, names: list[ChunkName], clock: Callable[[], float], result: Recovery
) -> None:
    next_seq: int | None = None
    for name in sorted(names, key=lambda name: name.number):
        source, sealed = outbox / name.open, outbox / name.sealed
        if not sealed.exists():
            if next_seq is None:
                next_seq = _next_seq(outbox, names)
            work = _RecoveredLines(node_id, next_seq, clock)
            temporary = outbox / f".{name.sealed}.tmp"
            files.remove(temporary)
            files.write_new(temporary, work.lines(source))
            next_seq = work.next_seq
            files.rename_new(temporary, sealed)
            files.sync_dir(outbox)
            result.recovered.append(Recovered(name, work.events, work.torn_bytes, work.bad_lines))
        files.remove(source)


class _RecoveredLines:
    """The lines a recovered chunk keeps, and what it does not."""

    def __init__(self, node_id: str, next_seq: int, clock: Callable[[], float]) -> None:
        self._node_id = node_id
        self._clock = clock
        self.next_seq = next_seq
        self.events = self.torn_bytes = self.bad_lines = 0

    def lines(self, source: Path) -> Iterator[bytes]:
        ended = False
        with open_chunk(source) as stream:
            for line, whole in read_lines(stream):
                if not whole:
                    self.torn_bytes = len(line)
                    continue
                event = _event_of(line)
                if event is None:
                    self.bad_lines += 1
                    line, event = _behind_fragment(line)
                    if event is None:
                        continue
                self.events += 1
                ended = event["source"] == CONTROL_SOURCE and event.get("control") == "end"
                yield line + b"\n"
        if not ended:
            end = control_event(
                self._node_id,
                "end",
                self._clock(),
                "the writer died; the export sealed its chunk",
                reason="recovered",
                torn_bytes=self.torn_bytes,
                bad_lines=self.bad_lines,
            )
            yield with_seq(end, self.next_seq)
            self.next_seq += 1


def _event_of(line: bytes) -> dict[str, Any] | None:
    try:
        event = decode(line)
    except EventError:
        return None
    return event if all(isinstance(event.get(name), str) for name in _REQUIRED_TEXTS) else None


def _behind_fragment(line: bytes) -> tuple[bytes, dict[str, Any] | None]:
    """The whole line that another thread wrote behind a fragment, where a full disk took a part of a line only."""
    start = line.find(_LINE_START, 1)
    while start > 0:
        event = _event_of(line[start:])
        if event is not None:
            return line[start:], event
        start = line.find(_LINE_START, start + 1)
    return b"", None


def _next_seq(outbox: Path, names: list[ChunkName]) -> int:
    """The first `seq` that no kept line of the writer bears: from its chunks here, else from manifests exported."""
    writer = names[0].writer
    greatest = -1
    contents = look(outbox)
    # looked at anew: an open chunk whose sealed sibling was there may be deleted by now
    for path in [outbox / name.open for name in contents.open if name.writer == writer] + [
        outbox / name.sealed for name in contents.sealed if name.writer == writer
    ]:
        with open_chunk(path) as stream:
            last = stats_of(stream, path.name).last_seq
            greatest = max(greatest, -1 if last is None else last)
    if greatest < 0 and any(name.number for name in names):
        for path in (outbox / ".manifests").glob("*.json"):
            try:
                chunks = Manifest.parse(files.read_regular(path)).chunks
            except (OSError, ManifestError):
                continue  # the export says which copies it cannot read
            for entry in chunks:
                if entry.writer == writer and entry.last_seq is not None:
                    greatest = max(greatest, entry.last_seq)
    return greatest + 1
