"""The answers of a database of events, held against what the generator of a fleet counted."""

from __future__ import annotations

from typing import Any

from calyx_logging.query.named import run_named
from calyx_logging.query.sql import run_sql
from fleet_data import Truth, differences


def check_answers_of(db: Any, truth: Truth) -> None:
    assert differences(lambda name: run_named(db, name).to_pylist(), truth) == []
    assert run_sql(db, "SELECT count(*) AS n FROM lines WHERE bad_line IS NOT NULL").to_pylist() == [
        {"n": truth.bad_lines}
    ]
