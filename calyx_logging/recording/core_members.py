"""Tell the compiled core where a pool, its seats, a writer and a chunk keep what it reads and writes."""

from __future__ import annotations

from calyx_logging.compiled import use
from calyx_logging.core.files import AppendFile
from calyx_logging.recording.pool import WriterPool
from calyx_logging.recording.seats import Seat, Seats
from calyx_logging.recording.writer import ChunkWriter

__all__ = ["tell_core"]


def tell_core() -> None:
    """Name the members of `__slots__` to it."""
    use(
        pool_pid=vars(WriterPool)["_pid"],
        pool_seats=vars(WriterPool)["_seats"],
        seats_idle=vars(Seats)["idle"],
        seat_writer=vars(Seat)["writer"],
        writer_limit=vars(ChunkWriter)["limit"],
        writer_state=vars(ChunkWriter)["state"],
        chunk_fd=vars(AppendFile)["fd"],
    )
