"""Times as texts: the UTC text of every field, and the timestamp that names a bundle's folder.

Invariant: a UTC text has microseconds and `+00:00`, so that texts sort as the times do.
"""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["TIMESTAMP_FORMAT", "in_utc", "moment_text", "parse_timestamp", "parse_utc", "utc_text"]

TIMESTAMP_FORMAT = "%Y%m%d_%H%M%S"
"""Of a bundle's folder: whole seconds, UTC."""


def utc_text(seconds: float) -> str:
    """Seconds since the epoch as ISO-8601 in UTC with microseconds and `+00:00`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def moment_text(moment: datetime) -> str:
    """The UTC text of a time with a zone.

    Raises:
        OverflowError: in UTC its year is not 1 to 9999.
    """
    return datetime.isoformat(moment.astimezone(UTC), timespec="microseconds")


def in_utc(moment: datetime, *, naive_is_utc: bool = False) -> datetime | None:
    """A time in UTC; None where it has no zone, unless that means UTC, and where UTC cannot express it."""
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC) if naive_is_utc else None
    try:
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def parse_utc(text: str, *, naive_is_utc: bool = False) -> datetime | None:
    """The time that an ISO-8601 text gives, in UTC; None as `in_utc` does, and where the text gives no time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return in_utc(moment, naive_is_utc=naive_is_utc)


def parse_timestamp(name: str) -> datetime | None:
    """The time in the name of a bundle's folder; None for a name of another form."""
    try:
        return datetime.strptime(name, TIMESTAMP_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
