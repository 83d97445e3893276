"""Count how a run's cases ended, and apply its threshold to their scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from numbers import Real
from typing import Any

from calyx_logging.errors import ConfigError

__all__ = ["Tally"]


_VERDICTS = {"true": True, "false": False}


class Tally:
    """The cases of a run that have ended.

    Args:
        expected: how many should end; None if nobody said.
        pass_at: the least score with which a case passes; None if scores decide nothing.
        before: how many earlier instances of the run completed.

    Raises:
        ConfigError: a number is none.
    """

    def __init__(self, expected: int | None, pass_at: float | None, before: int = 0) -> None:
        if expected is not None and (type(expected) is not int or expected < 0):
            raise ConfigError(f"cases_expected is {expected!r}: give a number of cases, or leave it out")
        self.expected = expected
        self.pass_at = None if pass_at is None else _threshold(pass_at)
        self.before = before
        self._ended: list[tuple[str, bool | None]] = []  # no lock: a fork or a signal handler could find it held

    @property
    def completed(self) -> int:
        """Cases that completed, in this instance and those before."""
        return self.before + sum(outcome == "completed" for outcome, _ in self._ended)

    def verdict(self, outcome: str, fields: Mapping[str, Any]) -> dict[str, bool]:
        """Return `passed` by the score, for a completed case of which the harness did not say it itself."""
        score = _number(fields.get("score"))
        if self.pass_at is None or score is None or outcome != "completed" or "passed" in fields:
            return {}
        return {"passed": score >= self.pass_at}

    def take(self, outcome: str, passed: object) -> None:
        """Count a case that ended, and what the harness said, as the column `passed` reads it."""
        self._ended.append((outcome, _VERDICTS.get(str(passed).lower())))

    @property
    def passed(self) -> int:
        """Cases of this instance that passed."""
        return sum(outcome == "completed" and said is True for outcome, said in self._ended)

    @property
    def judged(self) -> int:
        """Cases of this instance with a verdict; where there are any, those that did not complete count, too."""
        ended = list(self._ended)
        if all(said is None for _, said in ended):
            return 0
        return sum(said is not None or outcome != "completed" for outcome, said in ended)

    def status_after(self, error: BaseException | None) -> str:
        """Return the run's exit status after what left its block."""
        if error is None or (isinstance(error, SystemExit) and not error.code):
            ended = self.before + sum(outcome != "interrupted" for outcome, _ in self._ended)
            return "normal" if self.expected is None or ended >= self.expected else "incomplete"
        if isinstance(error, TimeoutError):
            return "timeout"
        return "error" if isinstance(error, Exception) else "incomplete"


def _threshold(value: object) -> float:
    number = None if isinstance(value, str) else _number(value)
    if number is None:
        said = repr(value) if isinstance(value, (str, bool, float)) else "no such number"
        raise ConfigError(f"pass_at is {said}: give the least score of a case that passes, or leave it out")
    return number


def _number(value: object) -> float | None:
    """Return a number, or a text that is one, as the column `score` has it."""
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal, str)) or (type(value) is str and "_" in value):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
