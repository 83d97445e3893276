"""The stamp that gives an event its node, time, id and source, and the mark by which a record keeps its id.

Invariants: every event has `node_id`, `ts_utc`, `event_id` and `source`, first and in this order; one record has one
`event_id`, however many handlers and threads it passes through. Nothing is added to a record for that: other handlers
see what they would see without this library (`KeepContext` alone adds an attribute, which has to cross a queue).
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Callable, MutableMapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from calyx_logging.compiled import CORE
from calyx_logging.core.times import moment_text, parse_utc, utc_text
from calyx_logging.core.uuid7 import uuid7
from calyx_logging.events.event import DEFAULT_SOURCE, check_source, note, shadow
from calyx_logging.events.values import is_a
from calyx_logging.node import Node, check_node_id

if TYPE_CHECKING:
    from structlog.typing import EventDict

__all__ = [
    "QUEUED",
    "RECORD_MARK",
    "TO_BE_STAMPED",
    "StampEvent",
    "has_taken",
    "keep_with",
    "mark_of",
    "take",
]

TO_BE_STAMPED = "to be stamped"
"""Placeholder for an event's four stamped fields while no caller has set them, so that the stamp need not copy it."""

RECORD_MARK = "_calyx"
"""The attribute by which a mark crosses a queue: a dict of plain values, so that the record can still be pickled."""

QUEUED = "queued"
"""Key in a mark: what the record would lose in a queue (`calyx_logging.events.context.KeepContext`)."""

_marks: dict[weakref.ref[logging.LogRecord], dict[str, Any]] = {}
"""The marks of records that are still there."""

_forget: Any = _marks.pop


def _mark_outside_in_python(record: logging.LogRecord) -> dict[str, Any]:
    return _marks.setdefault(weakref.ref(record, _forget), {})


_mark_outside: Callable[[logging.LogRecord], dict[str, Any]] = (
    _mark_outside_in_python if CORE is None else CORE.mark_of  # which alone has the marks of records that it took
)

_NEW_ID: Callable[[], object] = uuid7 if CORE is None else CORE.event_id


class StampEvent:
    """A structlog processor that gives an event its `node_id`, `ts_utc`, `event_id` and `source`.

    Put it last in a chain. A caller's aware timestamp in `ts_utc` (text or datetime) is kept, normalised to UTC; a
    caller's own non-empty text in `event_id` is kept; any other value under the four names is moved to `shadowed`.

    Args:
        node_id: the node's id.
        source: names the producer of the events.
        clock: seconds since the epoch, for events that carry no time of their own.
        new_id: creates an `event_id`; default UUIDv7 (RFC 9562), increasing within a process.

    Raises:
        InvalidNodeId: `node_id` breaks the rule.
        ConfigError: `source` is not valid.

    Attributes:
        is_stock: whether its ids are the default ones.
    """

    __slots__ = ("_clock", "_new_id", "_second", "is_stock", "node_id", "source")

    def __init__(
        self,
        node_id: str,
        source: str = DEFAULT_SOURCE,
        *,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], object] = _NEW_ID,
    ) -> None:
        self.node_id = check_node_id(node_id)
        self.source = check_source(source)
        self._clock = clock
        self._new_id = new_id
        self.is_stock = new_id is _NEW_ID and type(self) is StampEvent
        self._second = (0.0, 0.0, "")

    @classmethod
    def for_root(cls, root: str | os.PathLike[str] | None = None, source: str = DEFAULT_SOURCE) -> StampEvent:
        """Make the stamp of the node that `Node.find` finds at `root`."""
        return cls(Node.find(root).id, source)

    def __call__(self, logger: object, method_name: str, event_dict: EventDict) -> EventDict:
        record = event_dict.pop("_record", None)
        if event_dict.get("node_id") is TO_BE_STAMPED:
            event_dict["node_id"] = self.node_id
            created = self._clock() if record is None else record.created
            event_dict["ts_utc"] = self._time_of(created, event_dict)
            if record is None:
                event_dict["event_id"] = str(self._new_id())
            else:
                mark = mark_of(record)
                # setdefault is atomic under the interpreter lock: two threads that stamp one record agree on its id
                event_dict["event_id"] = mark.get("event_id") or mark.setdefault("event_id", str(self._new_id()))
            event_dict["source"] = self.source
            return event_dict
        return self.stamped(record, event_dict)

    def stamped(self, record: logging.LogRecord | None, event_dict: EventDict) -> EventDict:
        """Return the event with the stamp first; a caller's values for its fields are kept or moved to `shadowed`."""
        if record is None:
            created, mark = self._clock(), None
        else:
            created, mark = record.created, mark_of(record)
        stamped: dict[str, Any] = {
            "node_id": self.node_id,
            "ts_utc": None,
            "event_id": None,
            "source": self.source,
        }
        claims = {name: event_dict.pop(name) for name in stamped if name in event_dict}
        ts_utc = event_id = None
        if claims:
            ts_utc, event_id = self._accept(claims, event_dict)
        stamped["ts_utc"] = ts_utc or self._time_of(created, event_dict)
        if event_id is None:
            event_id = str(self._new_id()) if mark is None else mark.setdefault("event_id", str(self._new_id()))
        stamped["event_id"] = event_id
        stamped.update(event_dict)
        return stamped

    def _accept(self, claims: dict[str, Any], event: MutableMapping[str, Any]) -> tuple[str | None, str | None]:
        ts_utc, event_id = _aware(claims.get("ts_utc")), claims.get("event_id")
        if ts_utc is not None:
            del claims["ts_utc"]
        if is_a(event_id, str) and event_id:
            event_id = str.__str__(event_id)
            del claims["event_id"]
        else:
            event_id = None
        for name, own in (("node_id", self.node_id), ("source", self.source)):
            if name in claims and type(claims[name]) is str and claims[name] == own:
                del claims[name]
        shadow(event, claims)
        return ts_utc, event_id

    def _time_of(self, created: float, event: MutableMapping[str, Any]) -> str:
        try:
            since, until, text = self._second
            if since <= created < until:
                fraction = round((created - since) * 1e6)  # as datetime rounds it
                if fraction < 1_000_000:  # else it rounds up to a whole second: datetime does that
                    return f"{text}{str(1_000_000 + fraction)[1:]}+00:00"
            whole = utc_text(created)
            second = float(int(created))
            if second >= 0:
                self._second = (second, second + 1.0, utc_text(second)[:20])
            return whole
        except (ValueError, OverflowError, OSError, TypeError):
            note(event, ["time of the record: ts_utc"])
            return utc_text(self._clock())


def mark_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return a record's mark: its `event_id` once it has one, and the handlers that took it.

    A copy of a record is another record. A copy made by a queue stands for the record where `KeepContext` was there,
    and has its mark. A record of a class that compares by value, or that has no weak references, has none to keep.
    """
    if RECORD_MARK in record.__dict__ and _is_kept(mark := record.__dict__[RECORD_MARK]):
        return mark  # type: ignore[no-any-return]
    kind = type(record)
    if kind is not logging.LogRecord and (kind.__hash__, kind.__eq__) != (object.__hash__, object.__eq__):
        return {}
    try:
        return _mark_outside(record)
    except TypeError:
        return {}


def keep_with(record: logging.LogRecord, to_keep: Callable[[logging.LogRecord], dict[str, Any]]) -> None:
    """Have a record carry its mark through queues, with what `to_keep` makes of it, unless it does already."""
    mark = mark_of(record)
    if QUEUED in mark:
        return
    kept = to_keep(record)
    if RECORD_MARK in record.__dict__:
        kept["field"] = record.__dict__[RECORD_MARK]
    mark[QUEUED] = kept
    record.__dict__[RECORD_MARK] = mark


def take(record: logging.LogRecord, taker: str) -> bool:
    """Note in a record's mark that `taker` has it; return False if it already had it."""
    mark = mark_of(record)
    if taker in mark:
        return False
    mark[taker] = True
    return True


def has_taken(record: logging.LogRecord, taker: str) -> bool:
    """Whether `take` has noted it."""
    return taker in mark_of(record)


def _is_kept(mark: Any) -> bool:
    """Whether a value is a mark that came through a queue, and no field of the caller's."""
    return type(mark) is dict and type(mark.get(QUEUED)) is dict and type(mark[QUEUED].get("context")) is dict


def _aware(value: Any) -> str | None:
    """Normalise a caller's timestamp to UTC; None unless it is valid and aware."""
    try:
        moment: Any = parse_utc(str.__str__(value)) if is_a(value, str) else value
        if not is_a(moment, datetime) or moment.utcoffset() is None:
            return None
        return moment_text(moment)
    except Exception:  # a caller's time zone may raise anything: the timestamp is not valid
        return None
