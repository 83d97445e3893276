"""Runs of whole numbers: first and last of each."""

from __future__ import annotations

__all__ = ["runs_of"]


def runs_of(seqs: list[list[int]]) -> list[list[int]]:
    """Runs of `seq` (first and last) in order and joined: threads fail in any order."""
    runs: list[list[int]] = []
    for first, last in sorted(seqs):
        if runs and runs[-1][1] >= first - 1:
            runs[-1][1] = max(runs[-1][1], last)
        else:
            runs.append([first, last])
    return runs
