"""Places: attributes of pools and writers that the compiled core uses as well, without a search for their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calyx_logging.compiled import use

if TYPE_CHECKING:
    from calyx_logging.recording.seats import Seats
    from calyx_logging.recording.writer import State

__all__ = ["PoolPlaces", "WriterPlaces"]


class PoolPlaces:
    """What a pool has."""

    __slots__ = ("_pid", "_seats")
    _pid: int
    _seats: Seats


class WriterPlaces:
    """What a writer has."""

    __slots__ = ("limit", "state")
    limit: int
    state: State


use(
    pool_pid=vars(PoolPlaces)["_pid"],
    pool_seats=vars(PoolPlaces)["_seats"],
    writer_limit=vars(WriterPlaces)["limit"],
    writer_state=vars(WriterPlaces)["state"],
)
