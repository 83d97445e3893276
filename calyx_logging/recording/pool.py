"""WriterPool: a configured outbox's writers, each used by one logging call at a time.

A call takes an idle writer, writes its line and puts the writer back; where none is idle it begins one, as in a signal
handler or a processor that logs. The last one put back is the first one taken, so that a thread keeps to one writer.

Invariants:

* When `submit` returns, the event is in the kernel, or counted in a gap of a writer. No lock stands in its way.
* A writer is put back outside any `try`, so that no interrupt puts it back twice. An interrupted call drops its seat,
  and housekeeping puts the writer back (`calyx_logging.recording.seats`).
* Chunks are sealed, and writers ended, by housekeeping, `seal` and `close` alone, which `_care` keeps apart. They take
  a writer as a call does. Where `_care` is held stands one call and no loop (docs/design.md, "Interrupts").
* A forked child forgets all writers before its first event: every call compares the process id.

There are as many writers as calls were under way at once: one for each thread that logs, and for each call inside
another call of its thread (at most 32). Those unused for a minute are ended, down to one.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from calyx_logging.core.locks import need_root, probe
from calyx_logging.errors import say
from calyx_logging.node import Node
from calyx_logging.recording import background as process
from calyx_logging.recording.calls import MAX_DEPTH, Calls, Local
from calyx_logging.recording.chunk_series import sync_outbox
from calyx_logging.recording.gaps import LossReporter
from calyx_logging.recording.options import WriterOptions
from calyx_logging.recording.seats import POLL_SECONDS, Seat, Seats
from calyx_logging.recording.writer import ChunkWriter

__all__ = ["WriterPool"]

_IDLE_SECONDS = 60.0
_LONG_WAIT = 2.0
"""So long `seal` and `close` wait for calls of other threads that are writing."""
_EXIT_WAIT = 0.03
_POLLS, _NESTED_POLLS = 12, 60
"""A call that finds no idle writer waits so often for one that housekeeping has ready: 6 ms, inside another call 30."""

_NESTED_SPARES = 4
"""Idle writers that are kept ready once a signal handler, or the like, has logged inside another call."""

_Encode = Callable[[Any], bytes | None]


class WriterPool:
    """Takes events from any thread and keeps them in the node's outbox.

    Args:
        node: whose outbox.
        component: part of the chunks' names.
        options: when writers roll and sync.
        background: whether the housekeeping thread looks after it; else full chunks are sealed in calls.

    Raises:
        ConfigError: the outbox cannot be written, or its file system has no locks.

    Attributes:
        note_lost: has housekeeping count an event that was lost by an error; one call into C, for which there is room
            where Python's stack is full.
        outbox: the folder it writes to.
        reentrant: calls of `submit` so far that came from inside another one of the same thread.
    """

    __slots__ = ("__dict__", "__weakref__", "_pid", "_seats")  # see core_members

    def __init__(self, node: Node, component: str, options: WriterOptions, *, background: bool = True) -> None:
        self._node = node
        self.outbox = node.outbox
        self._component = component
        self._options = options
        self._background = background
        self._sync_each = options.sync == "record"
        self.wants_environment = options.identity
        self.reentrant = 0
        probe(node.outbox)
        self._begin()
        writer = self._new_writer()
        writer.prepare(begin=False)  # so that the first event need not take the lock
        self._seats.idle.append(self._seats.add(writer))
        process.join(self)

    def _begin(self) -> None:
        self._seats = Seats()
        self._closing: list[Seats] = []
        self._lost: deque[Exception] = deque()
        self.note_lost = self._lost.append
        self._closed, self._spares = False, 0
        self._reporter = LossReporter(self.outbox)
        self._care = threading.RLock()
        self._local = Local()
        self._pid = os.getpid()

    def submit(self, encode: _Encode, item: Any) -> bool | None:
        """Encode `item` and write the line. Never raises.

        Returns:
            True; None when `encode` dropped it; False when either failed, and it was counted as lost.
        """
        calls = self._local.calls
        depth, encoding = calls.depth, calls.encoding
        try:
            calls.depth, calls.encoding = depth + 1, encoding + 1
            if depth:
                self.reentrant += 1
                calls.check()
            line = encode(item)
            calls.encoding = encoding
            return None if line is None else self.keep(line)
        except Exception as error:
            try:
                return self._lose(error, calls)
            except RecursionError:  # there is no room for that call
                self.note_lost(error)
                return False
        finally:
            calls.depth, calls.encoding = depth, encoding

    def keep(self, line: bytes) -> bool:
        """Write an encoded event; False when it could not be kept, and was counted as lost."""
        if os.getpid() != self._pid:
            process.after_fork()
        idle = self._seats.idle
        try:
            seat = idle.pop()
        except IndexError:
            seat = self._new_seat()
        try:
            writer = seat.writer
            chunk, seq, size, gaps = writer.state
            data = line[:-1] + b',"seq":%d}\n' % seq  # end_of_line, where every call counts
            after = size + len(data)
            written = -1
            if after <= writer.limit:
                try:
                    written = chunk.write(data)  # type: ignore[union-attr]  # the limit says that there is one
                except OSError:
                    written = -1  # `append` goes round it, or counts it
            if written == len(data):
                kept = True
                writer.state = (chunk, seq + 1, after, gaps)
            else:
                kept = writer.append(line, or_leave=True, roll=self._local.calls.depth < 2)
                if writer.leaving or chunk is not writer.state[0]:
                    elsewhere = writer.leaving and not kept
                    if not self._goes_on(writer):
                        return self._keep_elsewhere(line) if elsewhere else kept
            if self._sync_each:
                writer.sync()
        except BaseException:
            seat = writer = None  # type: ignore[assignment]  # or a kept traceback would keep the seat
            raise
        idle.append(seat)
        return kept

    def _any_seat(self) -> Seat:
        with contextlib.suppress(IndexError):
            return self._seats.idle.pop()
        return self._new_seat()

    def _new_seat(self) -> Seat:
        if self._seats.has_begun:
            # To begin a writer takes milliseconds. In a signal handler the next signal would find this call at it, and
            # begin another inside of it, and so on; after an interrupt there is a writer to be put back. So wait a bit.
            nested = self._local.calls.depth > 1
            self._spares = max(self._spares, _NESTED_SPARES if nested else 1)
            for _ in range((_NESTED_POLLS if nested else _POLLS) if self._wake() else 0):
                time.sleep(POLL_SECONDS)
                with contextlib.suppress(IndexError):
                    return self._seats.idle.pop()
        return self._seats.add(self._new_writer())

    def _new_writer(self) -> ChunkWriter:
        return ChunkWriter(
            self.outbox,
            self._node.id,
            self._component,
            self._options,
            reporter=self._reporter,
            others_lose=lambda: any(writer.loses for writer in self.writers),
            reserve=not self._closed,  # else it tells of what others could not for want of room
        )

    def _keep_elsewhere(self, line: bytes) -> bool:
        """Its writer is leaving: give the line to a new one."""
        seat = self._new_seat()
        kept = seat.writer.append(line)
        if self._sync_each:
            seat.writer.sync()
        self._seats.idle.append(seat)
        return kept

    def _goes_on(self, writer: ChunkWriter) -> bool:
        """See to a writer that has begun a chunk or is leaving; False when its seat is not to be put back."""
        if self._closed and process.is_exiting():  # nobody will close it
            if self._care.acquire(timeout=_EXIT_WAIT):  # else a daemon thread had it when the interpreter stopped it
                try:
                    self._end([writer], self._seats)
                finally:
                    self._care.release()
            return False
        if self._background:
            self._wake()
        else:
            with self._care:
                self._seal_full([writer])
        return not writer.leaving

    def _lose(self, error: Exception, calls: Calls) -> bool:
        """Count an event that was never encoded, or was not kept for a fault of ours; always False."""
        self.note_lost(error)
        try:
            if calls.depth <= MAX_DEPTH:
                self._count_lost()
        except Exception:  # no memory, no stack even for that: housekeeping counts it
            try:  # noqa: SIM105 - suppress() would need a stack
                self._wake()
            except RecursionError:
                pass
        return False

    def _count_lost(self) -> None:
        while self._lost:
            try:
                error = self._lost.popleft()
            except IndexError:  # another thread has counted it
                return
            try:
                seat = self._any_seat()
                seat.writer.lose(error)
            except BaseException:
                self._lost.append(error)
                raise
            seat.writer.tell()
            self._seats.idle.append(seat)

    def _wake(self) -> bool:
        return self._background and process.wake()

    @property
    def writers(self) -> list[ChunkWriter]:
        """The writers there are now."""
        return list(self._seats.writers)

    def seal(self) -> None:
        """Seal what was logged so far, so that the next export takes it.

        Waits up to 2 s for calls that other threads have under way; their writers seal at their next event.
        """
        self._with_care(self._seal_all)

    def close(self) -> None:
        """End all writers in order; a later event begins a new one."""
        self._with_care(self._close_all)

    def upkeep(self) -> float:
        """Mend what interrupts left, roll what is old, tell of gaps, sync, seal; return the seconds until the next."""
        care = self._care
        if not care.acquire(timeout=_LONG_WAIT):
            return _LONG_WAIT  # others wait for this thread, too
        try:
            for writer in self.writers:
                self._look_after(writer)
            self._make_spares()
            self._count_lost()
            self._finish_closing(0.0)
            self._seal_full(self.writers)
        finally:
            care.release()
        max_age = self._options.max_age
        wait = process.LOOK_SECONDS if max_age is None else min(process.LOOK_SECONDS, max(max_age / 16, 0.05))
        return min(wait, self._options.sync_interval) if self._options.sync == "interval" else wait

    def after_fork(self) -> None:
        """In a forked child: forget everything that is the parent's."""
        writers = [writer for seats in (self._seats, *self._closing) for writer in seats.writers]
        self._begin()
        for writer in writers:
            writer.abandon()

    def _with_care(self, action: Callable[[float], None]) -> None:
        """Keep other housekeepers out, and have `action` wait for calls of other threads until the moment it is given.

        Inside a call of this thread, which may hold a writer, that is no time at all.
        """
        process.after_fork()
        calls = self._local.calls
        depth = calls.depth
        try:
            calls.depth = depth + 1  # a signal handler that logs meanwhile is inside a call, too
            with self._care:  # and no loop in here
                action(0.0 if depth else time.monotonic() + _LONG_WAIT)
        finally:
            calls.depth = depth

    def _seal_all(self, deadline: float) -> None:
        for writer in self.writers:
            seat = self._seats.take(writer, deadline)
            if seat is None:
                writer.roll_soon()
            else:
                writer.care(roll=True, ready=self._spares > 0)
                self._seats.idle.appendleft(seat)
        self._seal_full(self.writers)

    def _close_all(self, deadline: float) -> None:
        self._count_lost()
        for until in (deadline, 0.0, 0.0):  # again for a writer that took over what the others could not write
            self._closing.append(self._seats)
            self._closed = True
            self._seats, self._spares = Seats(), 0
            self._finish_closing(until)
        if lost := sum(writer.loses for writer in self.writers):
            noted = all(writer.lock.has_note for writer in self.writers if writer.loses)
            say(f"{lost} events were lost, and {'the next export' if noted else 'this line alone'} says so")

    def _make_spares(self) -> None:
        """Have idle writers, which are slow to begin, for calls that will run beside others."""
        while len(self._seats.idle) < self._spares:
            writer = self._new_writer()
            writer.prepare()
            self._seats.idle.appendleft(self._seats.add(writer))

    def _look_after(self, writer: ChunkWriter) -> None:
        if self._options.sync == "interval":
            writer.sync_if_due()
        dropped = writer.seat() is None
        unused = self._seats.unused_seconds(writer) > _IDLE_SECONDS and len(self._seats.writers) > 1
        if not (dropped or unused or writer.look()):
            return
        seat = self._seats.take(writer)
        if seat is None:
            writer.roll_soon()
        elif unused or writer.leaving:
            self._spares = max(self._spares - 1, 0)
            self._end([writer], self._seats)
        else:
            writer.care(ready=self._spares > 0)
            (self._seats.idle.append if dropped else self._seats.idle.appendleft)(seat)

    def _finish_closing(self, deadline: float) -> None:
        """End the writers of a pool that was closed, as soon as no call has them."""
        for seats in list(self._closing):
            taken = [(writer, seats.take(writer, deadline)) for writer in list(seats.writers)]
            self._end([writer for writer, seat in taken if seat is not None], seats)
            if not seats.writers:
                self._closing.remove(seats)

    def _end(self, ending: list[ChunkWriter], seats: Seats) -> None:
        """End writers that were taken; another one takes over what they leave. The caller has `_care`."""
        ending = sorted(ending, key=lambda writer: writer.lock.has_reserve)
        for n, writer in enumerate(ending, 1):
            writer.end()
            if n < len(ending):  # on a full disk the one that has a reserve can tell of all losses
                ending[n].inherit(writer.take_gaps(of_calls=True))
        synced = bool(ending) and sync_outbox(self.outbox)
        for writer in sorted(ending, key=lambda writer: writer.lock.has_note):  # those that leave make room
            self._take_over([writer], has_ended=True)
            writer.leave(synced=synced)
            if writer in seats.writers:
                seats.writers.remove(writer)

    def _seal_full(self, writers: list[ChunkWriter]) -> None:
        """Seal these writers' full chunks. The caller has `_care`."""
        full = [writer for writer in writers if writer.has_full]
        for writer in full:
            writer.seal_full()
        if full:
            sync_outbox(self.outbox)
        self._take_over(full)

    def _take_over(self, writers: list[ChunkWriter], *, has_ended: bool = False) -> None:
        """Write what these writers could not, and tell of what they could not tell, or leave that in their notes."""
        for writer in writers:
            lines = iter(writer.take_lines())
            try:
                for line in lines:
                    if not self.keep(line):
                        need_root(self.outbox)
            except FileNotFoundError as gone:  # to begin a writer for each of the others would take hours
                seat = self._any_seat()
                seat.writer.lose(gone, lines)
                self._seats.idle.append(seat)
            noted = has_ended and writer.lock.has_note
            if gaps := writer.take_gaps(of_calls=has_ended):
                seat = self._any_seat()
                seat.writer.inherit(gaps)
                seat.writer.tell()
                if noted and seat.writer.loses and not seat.writer.lock.has_note:
                    writer.inherit(seat.writer.take_gaps(of_calls=True))
                self._seats.idle.append(seat)
