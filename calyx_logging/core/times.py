"""Times as texts: the UTC text of every field, and the timestamp that names a bundle's folder.

Invariant: a UTC text has microseconds and `+00:00`, so that texts sort in order of time.
"""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["TIMESTAMP_FORMAT", "in_utc", "moment_text", "parse_timestamp", "parse_utc", "utc_text"]

TIMESTAMP_FORMAT = "%Y%m%d_%H%M%S"
"""The format of a bundle folder's name: whole seconds, UTC."""


def utc_text(seconds: float) -> str:
    """Format seconds since the epoch as ISO-8601 in UTC with microseconds and `+00:00`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def moment_text(moment: datetime) -> str:
    """Format an aware datetime as UTC text.

    Raises:
        OverflowError: its year in UTC is outside 1 to 9999.
    """
    return datetime.isoformat(moment.astimezone(UTC), timespec="microseconds")


def in_utc(moment: datetime, *, naive_is_utc: bool = False) -> datetime | None:
    """Convert a time to UTC; None if UTC cannot express it, or if it has no zone and that does not mean UTC."""
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC) if naive_is_utc else None
    try:
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def parse_utc(text: str, *, naive_is_utc: bool = False) -> datetime | None:
    """Parse an ISO-8601 text into a time in UTC; None if the text is not a time, or where `in_utc` returns None."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return in_utc(moment, naive_is_utc=naive_is_utc)


def parse_timestamp(name: str) -> datetime | None:
    """Parse the time in a bundle folder's name; None for a name of another form."""
    try:
        return datetime.strptime(name, TIMESTAMP_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
