"""Counts and runs of numbers as text, the same in commands, audit and report."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["count_text", "runs_text"]

_MAX_RUNS = 20


def count_text(count: int, thing: str, *, separator: str = "") -> str:
    """Write a count with its noun: `1 chunk`, `2 chunks`, `2,000 chunks`."""
    return f"{count:{separator}} {thing}" if count == 1 else f"{count:{separator}} {thing}s"


def runs_text(runs: Sequence[Sequence[int]]) -> str:
    """Write runs as `3, 5-9`; of more than twenty, only the first twenty."""
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:_MAX_RUNS]]
    return ", ".join(texts) + (f" and {len(runs) - _MAX_RUNS} more runs" if len(runs) > _MAX_RUNS else "")
