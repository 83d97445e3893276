"""Options: those of a writer, their values, and what is wrong with others."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from calyx_logging.errors import ConfigError

__all__ = ["WriterOptions", "refuse_unknown", "whole_bytes"]

_SYNC_MODES = ("seal", "interval", "record")


@dataclass(frozen=True)
class WriterOptions:
    """What a writer does when.

    Attributes:
        max_bytes: a chunk is rolled before it would grow over this many bytes (one larger event has a chunk alone).
        max_age: seconds after which a chunk is rolled, idle or not; None for never.
        sync: `"seal"` (when sealed), `"interval"` (and every `sync_interval` seconds), `"record"` (after each event).
        sync_interval: seconds.

    Raises:
        ConfigError: a value is none of these.
    """

    max_bytes: int
    max_age: float | None
    sync: str
    sync_interval: float

    def __post_init__(self) -> None:
        if self.sync not in _SYNC_MODES:
            raise ConfigError(f"option 'sync' is {self.sync!r}: give one of {', '.join(map(repr, _SYNC_MODES))}")
        whole_bytes("max_bytes", self.max_bytes, 1)
        if self.max_age is not None:
            _check_seconds("max_age", self.max_age)
        _check_seconds("sync_interval", self.sync_interval)


def whole_bytes(name: str, value: object, least: int, most: int | None = None) -> int:
    """Return a number of bytes, or raise `ConfigError`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        rule = f"at least {least}" if most is None else f"{least} to {most}"
        raise ConfigError(f"option {name!r} is {value!r}: give a whole number of bytes, {rule}")
    return value


def _check_seconds(name: str, value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not (0 < value < math.inf):
        raise ConfigError(f"option {name!r} is {value!r}: give a number of seconds greater than 0")


def refuse_unknown(whose: str, options: Iterable[str], unknown: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for an option that is none, with the one that may be meant."""
    if unknown:
        name = min(unknown)
        options = list(options)
        near = difflib.get_close_matches(name, options, 1)
        raise ConfigError(
            f"{whose} has no option {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
            hint=f"its options are {', '.join(options)}",
        )
