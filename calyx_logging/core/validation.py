"""Checks of options."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from calyx_logging.errors import ConfigError

__all__ = ["refuse_unknown", "whole_bytes"]


def whole_bytes(name: str, value: object, least: int, most: int | None = None) -> int:
    """Return a valid number of bytes, or raise `ConfigError`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        rule = f"at least {least}" if most is None else f"{least} to {most}"
        raise ConfigError(f"option {name!r} is {value!r}: give a whole number of bytes, {rule}")
    return value


def refuse_unknown(whose: str, options: Iterable[str], unknown: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for an unknown option, and suggest the one that was probably meant."""
    if unknown:
        name = min(unknown)
        options = list(options)
        near = difflib.get_close_matches(name, options, 1)
        raise ConfigError(
            f"{whose} has no option {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
            hint=f"its options are {', '.join(options)}",
        )
