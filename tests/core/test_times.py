"""Times are formatted as text and parsed back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calyx_logging.core.times import TIMESTAMP_FORMAT, in_utc, moment_text, parse_timestamp, parse_utc, utc_text


@given(st.floats(min_value=0, max_value=4e9))
def test_times_are_utc_with_microseconds(seconds: float) -> None:
    """The text reads back as the same moment, to the microsecond."""
    text = utc_text(seconds)
    assert len(text) == 32
    assert text.endswith("+00:00")
    assert abs(datetime.fromisoformat(text).timestamp() - seconds) <= 1e-6


def test_utc_is_not_the_systems_zone() -> None:
    """The zone written is UTC, whatever the process's is."""
    assert datetime.fromisoformat(utc_text(0)).tzinfo == UTC


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=st.just(UTC)))
def test_a_text_is_read_as_it_was_written(moment: datetime) -> None:
    """Times round-trip to the microsecond, folder names to the second."""
    assert parse_utc(moment_text(moment)) == moment
    whole = moment.replace(microsecond=0)
    if whole.year >= 1000:  # some systems' strftime does not pad shorter years
        assert parse_timestamp(whole.strftime(TIMESTAMP_FORMAT)) == whole


def test_other_zones_become_utc() -> None:
    """Other zones are converted to the same moment in UTC."""
    there = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=-5)))
    assert moment_text(there) == "2026-01-02T08:04:05.000000+00:00"
    assert parse_utc("2026-01-02T03:04:05-05:00") == there
    assert in_utc(there) == there


@pytest.mark.parametrize("text", ["", "yesterday", "2026-02-30T00:00:00Z", "0001-01-01T00:00:00+14:00"])
def test_texts_that_give_no_time(text: str) -> None:
    """Invalid texts and times that UTC cannot express give None, not an error."""
    assert parse_utc(text) is None
    assert parse_utc(text, naive_is_utc=True) is None


def test_a_time_without_a_zone_is_utc_only_where_that_is_known() -> None:
    """A naive time counts as UTC only on request, as for the rows of a query."""
    naive = "2026-01-02T03:04:05"
    assert parse_utc(naive) is None
    assert parse_utc(naive, naive_is_utc=True) == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize("name", ["", "first-export", "20260230_000000", "2026-01-02"])
def test_names_that_are_no_timestamp(name: str) -> None:
    """Other names give None, because a first-generation folder may have any name."""
    assert parse_timestamp(name) is None
