"""The text of a level: the standard numbers have the standard names, whatever a library makes of `logging`'s names."""

from __future__ import annotations

import logging
from collections.abc import Mapping

__all__ = ["LEVEL_TEXTS", "level_text"]

LEVEL_TEXTS: Mapping[int, str] = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "critical",
}
"""Libraries rename these for their console (`addLevelName(ERROR, "\\033[31mERROR")`); queries look for these."""


def level_text(number: int) -> str:
    """Return the level's name in lower case, as events carry it.

    Raises:
        TypeError, AttributeError: it is no number.
    """
    return LEVEL_TEXTS.get(number) or logging.getLevelName(number).lower()
