"""Count how a run's cases ended, and apply its threshold to their scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calyx_logging.errors import ConfigError
from calyx_logging.format.results import number_of, verdict_of

__all__ = ["Tally"]


class Tally:
    """The cases of a run that have ended.

    Args:
        expected: how many should end; None if nobody said.
        pass_at: the least score with which a case passes; None if scores decide nothing.

    Attributes:
        before: the number of cases that earlier instances of the run completed.

    Raises:
        ConfigError: `expected` or `pass_at` is not such a number.
    """

    def __init__(self, expected: int | None, pass_at: float | None) -> None:
        if expected is not None and (type(expected) is not int or expected < 0):
            raise ConfigError(f"cases_expected is {expected!r}: give a number of cases, or leave it out")
        self.expected = expected
        self.pass_at = None if pass_at is None else _threshold(pass_at)
        self.before = 0
        self._ended: list[tuple[str, bool | None]] = []  # no lock: a fork or a signal handler could find it held

    @property
    def completed(self) -> int:
        """Cases that completed, in this instance and those before."""
        return self.before + sum(outcome == "completed" for outcome, _ in self._ended)

    def verdict(self, outcome: str, fields: Mapping[str, Any]) -> dict[str, bool]:
        """Judge a completed case by its score, unless the harness has judged it: return `passed`, or nothing."""
        score = number_of(fields.get("score"))
        if self.pass_at is None or score is None or outcome != "completed" or "passed" in fields:
            return {}
        return {"passed": score >= self.pass_at}

    def take(self, outcome: str, passed: object) -> None:
        """Count a case that ended, and the harness's verdict on it."""
        self._ended.append((outcome, verdict_of(passed)))

    @property
    def passed(self) -> int:
        """Cases of this instance that passed."""
        return sum(outcome == "completed" and said is True for outcome, said in self._ended)

    @property
    def judged(self) -> int:
        """Cases of this instance with a verdict; if there are any, those that did not complete count as well."""
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
    number = None if isinstance(value, str) else number_of(value)
    if number is None:
        said = repr(value) if isinstance(value, (str, bool, float)) else "no such number"
        raise ConfigError(f"pass_at is {said}: give the least score of a case that passes, or leave it out")
    return number
