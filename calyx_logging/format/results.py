"""Read the fields that say how a case went: its verdict and its score, as every part of the project reads them."""

from __future__ import annotations

import math
from decimal import Decimal
from numbers import Real

__all__ = ["number_of", "verdict_of"]

_VERDICTS = {"true": True, "false": False}


def verdict_of(value: object) -> bool | None:
    """Return a boolean, or a text that is one; None for anything else."""
    return _VERDICTS.get(str(value).lower())


def number_of(value: object) -> float | None:
    """Return a finite number, or a text that is one; None for anything else."""
    if isinstance(value, str):
        if "_" in value:
            return None
    elif isinstance(value, bool) or not isinstance(value, (int, float, Real, Decimal)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
