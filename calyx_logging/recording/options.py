"""Options: those of a writer, their values, and what is wrong with others."""

from __future__ import annotations

import math
from dataclasses import dataclass

from calyx_logging.core.validation import whole_bytes
from calyx_logging.errors import ConfigError

__all__ = ["WriterOptions"]

_SYNC_MODES = ("seal", "interval", "record")


@dataclass(frozen=True)
class WriterOptions:
    """Says when a writer rolls and syncs.

    Attributes:
        max_bytes: a chunk is rolled before it would grow over this many bytes (one larger event has a chunk alone).
        max_age: seconds after which a chunk is rolled, idle or not; None for never.
        sync: `"seal"` (when sealed), `"interval"` (and every `sync_interval` seconds), `"record"` (after each event).
        sync_interval: seconds.
        identity: whether control lines say what runs (`calyx_logging.recording.identity`).

    Raises:
        ConfigError: a value is none of these.
    """

    max_bytes: int
    max_age: float | None
    sync: str
    sync_interval: float
    identity: bool = False

    def __post_init__(self) -> None:
        if self.sync not in _SYNC_MODES:
            raise ConfigError(f"option 'sync' is {self.sync!r}: give one of {', '.join(map(repr, _SYNC_MODES))}")
        whole_bytes("max_bytes", self.max_bytes, 1)
        if self.max_age is not None:
            _check_seconds("max_age", self.max_age)
        _check_seconds("sync_interval", self.sync_interval)


def _check_seconds(name: str, value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not (0 < value < math.inf):
        raise ConfigError(f"option {name!r} is {value!r}: give a number of seconds greater than 0")
