"""Runs of consecutive whole numbers, each as its first and last."""

from __future__ import annotations

__all__ = ["runs_of"]


def runs_of(seqs: list[list[int]]) -> list[list[int]]:
    """Sort and join runs of `seq` (first and last); threads report theirs in any order."""
    runs: list[list[int]] = []
    for first, last in sorted(seqs):
        if runs and runs[-1][1] >= first - 1:
            runs[-1][1] = max(runs[-1][1], last)
        else:
            runs.append([first, last])
    return runs
