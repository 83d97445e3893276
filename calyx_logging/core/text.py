"""Counts and runs of numbers in words, the same for commands, the audit and the report."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["count_text", "runs_text"]

_MAX_RUNS = 20


def count_text(count: int, thing: str, *, separator: str = "") -> str:
    """`1 chunk`, `2 chunks`; `2,000 chunks` with `,` between thousands."""
    return f"{count:{separator}} {thing}" if count == 1 else f"{count:{separator}} {thing}s"


def runs_text(runs: Sequence[Sequence[int]]) -> str:
    """First and last of each run: `3, 5-9`; of many the first twenty."""
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:_MAX_RUNS]]
    return ", ".join(texts) + (f" and {len(runs) - _MAX_RUNS} more runs" if len(runs) > _MAX_RUNS else "")
