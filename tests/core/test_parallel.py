"""several_at_once runs a function over several items."""

from __future__ import annotations

import pytest

from calyx_logging.core.parallel import several_at_once


def test_several_at_once_keeps_order_and_errors() -> None:
    """Results come in order, and the first error is raised in its place."""
    assert list(several_at_once(str, range(1000))) == [str(n) for n in range(1000)]
    assert list(several_at_once(str, [])) == []

    def fails(n: int) -> int:
        if n in (3, 5):
            raise OSError(f"number {n}")
        return n

    results = several_at_once(fails, range(9))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="number 3"):
        next(results)
