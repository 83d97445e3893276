"""The event: the names of its fields, the stamp, and the one way from fields to a line and back.

Invariants: a line is one flat JSON object in UTF-8 with no newline inside; the reserved fields are the library's, and
a caller's field of such a name stands under `shadowed`; whatever was altered is named in `degraded`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson
import uuid_utils

from calyx_logging.core.reading import sha256_of
from calyx_logging.core.times import moment_text, parse_utc, utc_text
from calyx_logging.errors import ConfigError, EventError
from calyx_logging.events.values import by_rule, has_nonfinite, is_a, lower_fields
from calyx_logging.node import Node, check_node_id

if TYPE_CHECKING:
    from structlog.typing import EventDict

__all__ = [
    "CONTROL_SOURCE",
    "DEFAULT_MAX_EVENT_BYTES",
    "DEFAULT_SOURCE",
    "MIN_MAX_EVENT_BYTES",
    "OWNER",
    "QUEUED",
    "RECORD_MARK",
    "RESERVED",
    "TO_BE_STAMPED",
    "StampEvent",
    "check_source",
    "control_event",
    "decode",
    "encode",
    "end_of_line",
    "identity",
    "mark_of",
    "note",
    "shadow",
    "take",
    "with_seq",
]

DEFAULT_SOURCE = "bench_harness"
CONTROL_SOURCE = "calyx_logging"
"""The source of control lines; no configuration may take it."""

RESERVED = frozenset(
    {
        "node_id",
        "ts_utc",
        "event_id",
        "source",
        "seq",
        "level",
        "logger",
        "message",
        "exception",
        "control",
        "shadowed",
        "degraded",
    }
)
"""Names that are the library's own in every event."""

TO_BE_STAMPED = "to be stamped"
"""Stands in an event's four stamped places when nobody has claimed them, so that the stamp need not copy the event."""

RECORD_MARK = "_calyx"
"""The attribute a LogRecord is marked with: a dict of plain values, so that the record still pickles anywhere."""

OWNER = "record"
"""In a mark: the identity of the record it belongs to."""

QUEUED = "queued"
"""In a mark: what a queue would lose of the record (`calyx_logging.events.context.KeepContext`)."""

identity = object.__hash__
"""Tells objects apart that exist at the same time, as `id` does, at a fourth of its cost from Python 3.12 on."""

DEFAULT_MAX_EVENT_BYTES = 16 * 1024 * 1024
MIN_MAX_EVENT_BYTES = 4096
_SEQ_ROOM = 32

LARGE = 1024 * 1024
"""Bytes of a line that is looked at before it is read."""

MAX_CONTAINERS = LARGE - 1
"""Arrays and objects of one line."""

_OPTIONS = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS


# ------------------------------------------------------------------ the stamp


class StampEvent:
    """A structlog processor that gives an event its `node_id`, `ts_utc`, `event_id` and `source`.

    Put it last in a chain. A caller's aware timestamp in `ts_utc` (text or datetime) is kept, normalised to UTC; a
    caller's own non-empty text in `event_id` is kept; any other value under the four names is moved to `shadowed`.

    Args:
        node_id: the node's id.
        source: what produces the events.
        clock: seconds since the epoch, for events that carry no time of their own.
        new_id: makes an `event_id`; the default is UUIDv7 (RFC 9562).

    Raises:
        InvalidNodeId: `node_id` breaks the rule.
        ConfigError: `source` is no source.
    """

    __slots__ = ("_clock", "_new_id", "_second", "node_id", "source")

    def __init__(
        self,
        node_id: str,
        source: str = DEFAULT_SOURCE,
        *,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], object] = uuid_utils.uuid7,
    ) -> None:
        self.node_id = check_node_id(node_id)
        self.source = check_source(source)
        self._clock = clock
        self._new_id = new_id
        self._second = (0.0, 0.0, "")

    @classmethod
    def for_root(cls, root: str | os.PathLike[str] | None = None, source: str = DEFAULT_SOURCE) -> StampEvent:
        """The stamp of the node that `Node.find` finds at `root`."""
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
                mark = record.__dict__.get(RECORD_MARK)
                if mark is None:  # else who made the event has looked at it
                    mark = mark_of(record)
                # setdefault is one step under the interpreter lock: two threads that stamp one record agree on its id
                event_dict["event_id"] = mark.get("event_id") or mark.setdefault("event_id", str(self._new_id()))
            event_dict["source"] = self.source
            return event_dict
        return self.stamped(record, event_dict)

    def stamped(self, record: logging.LogRecord | None, event_dict: EventDict) -> EventDict:
        """The event with the stamp first, and callers' claims to it settled."""
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
                if fraction < 1_000_000:  # what rounds up to a whole second is left to datetime
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
    """The mark of a record: its `event_id` once it has one, the handlers that took it, whose record it is.

    A copy of a record is another record with the same id: it gets a mark of its own; but not one that a queue made,
    which stands for the record. Something else that bears the mark's name is a caller's field, and kept as one.
    """
    mark: Any = record.__dict__.get(RECORD_MARK)
    if type(mark) is dict and (mark.get(OWNER) == identity(record) or QUEUED in mark):
        return mark
    fresh: dict[str, Any] = {OWNER: identity(record)}
    if type(mark) is dict and type(mark.get(OWNER)) is int:
        fresh.update({name: mark[name] for name in ("event_id", "field") if name in mark})
    elif RECORD_MARK in record.__dict__:
        fresh["field"] = mark
    record.__dict__[RECORD_MARK] = fresh
    return fresh


def take(record: logging.LogRecord, taker: str) -> bool:
    """Note in a record's mark that `taker` has it now; False when it had it before."""
    attributes = record.__dict__
    if RECORD_MARK not in attributes:
        attributes[RECORD_MARK] = {OWNER: identity(record), taker: True}
        return True
    mark = mark_of(record)
    if taker in mark:
        return False
    mark[taker] = True
    return True


def check_source(source: object) -> str:
    """Return a source, or raise `ConfigError`: it is a text, not empty, and not the one of control lines."""
    if not isinstance(source, str) or not source.strip():
        raise ConfigError(f"option 'source' is {source!r}: give a text that is not empty")
    if source == CONTROL_SOURCE:
        raise ConfigError(f"option 'source' is {source!r}, the source of control lines: choose another")
    return source


def _aware(value: Any) -> str | None:
    """A caller's timestamp normalised to UTC; None unless it is a valid aware one."""
    try:
        moment: Any = parse_utc(str.__str__(value)) if is_a(value, str) else value
        if not is_a(moment, datetime) or moment.utcoffset() is None:
            return None
        return moment_text(moment)
    except Exception:  # a caller's zone may raise anything: then it is no valid timestamp
        return None


def shadow(event: MutableMapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Keep fields that bear reserved names under `shadowed`; the first of a name stays."""
    if fields:
        present = event.get("shadowed", {})
        event["shadowed"] = {**fields, **(present if isinstance(present, dict) else {"shadowed": present})}


def note(event: MutableMapping[str, Any], what: Iterable[str]) -> None:
    """Say in the event that it had to be altered."""
    if what := list(what):
        present = event.get("degraded", [])
        if not isinstance(present, list):
            shadow(event, {"degraded": present})
            present = []
        event["degraded"] = [*present, *what]


# ------------------------------------------------------------------ the line


def encode(event: Mapping[str, Any], max_bytes: int = DEFAULT_MAX_EVENT_BYTES, texts: int = 0) -> bytes:
    """One JSON object in UTF-8, without newline, of at most `max_bytes` bytes with its `seq`; never raises.

    orjson writes not-a-number as null, so an event with a null in it is looked through once more; but not its first
    `texts` bytes, which the caller knows to be texts.
    """
    try:
        line = orjson.dumps(event, by_rule, _OPTIONS)
        exact = line.find(b"null", texts) < 0 or not has_nonfinite(event)
    except Exception:  # what orjson refuses, and whatever foreign code raised (a property, model_dump)
        exact = False
    if not exact:
        line = orjson.dumps(_lowered(event))
    if len(line) + _SEQ_ROOM > max_bytes:
        line = orjson.dumps(_truncated(orjson.loads(line), max_bytes - _SEQ_ROOM))
    elif len(line) > LARGE and has_too_many(line):
        line = orjson.dumps(_truncated(orjson.loads(line), LARGE))
    return line


def _lowered(event: Mapping[str, Any]) -> dict[str, Any]:
    fields, altered = lower_fields(event, RESERVED)
    note(fields, altered)
    return fields


def _truncated(event: dict[str, Any], room: int) -> dict[str, Any]:
    """Replace the largest values by what they were (bytes, SHA-256) until the line has room."""
    sizes = {name: len(orjson.dumps(value)) for name, value in event.items() if name not in RESERVED}
    sizes |= {name: len(orjson.dumps(event[name])) for name in ("shadowed", "exception") if name in event}
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if len(orjson.dumps(event)) <= room or sizes[name] <= 256:
            break
        event[name] = [_marker(event[name])] if name == "exception" else _marker(event[name])
        note(event, [f"truncated: {name[:100]}"])
    for name in ("message", "logger", "event_id", "level"):
        if len(orjson.dumps(event)) > room and len(text := event[name]) > 200:
            event[name] = f"{text[:200]}…"
            shadowed = event.get("shadowed", {})
            event["shadowed"] = {**shadowed, name: _marker(text)}
            note(event, [f"truncated: {name}"])
    if len(orjson.dumps(event)) > room:  # very many small fields
        fields = {name: value for name, value in event.items() if name not in RESERVED or name == "degraded"}
        event = {name: value for name, value in event.items() if name not in fields}
        event["shadowed"] = {"all fields": _marker({**fields, "shadowed": event.get("shadowed")})}
        event["degraded"] = ["truncated: all fields"]
    return event


def _marker(value: object) -> dict[str, Any]:
    data = value.encode() if isinstance(value, str) else orjson.dumps(value)
    return {"truncated": True, "bytes": len(data), "sha256": sha256_of(data)}


def with_seq(line: bytes, seq: int) -> bytes:
    """The line as it stands in a chunk: `seq` as last field, and the newline."""
    return line[:-1] + end_of_line(seq)


def end_of_line(seq: int) -> bytes:
    """The bytes that end the line with this `seq` and stand nowhere else in a writer's chunks."""
    return b',"seq":%d}\n' % seq


def has_too_many(line: bytes) -> bool:
    """Whether a large line has more arrays and objects than a reader makes of one line, whose memory they take."""
    return line.count(b"[") + line.count(b"{") > MAX_CONTAINERS


def decode(line: bytes) -> dict[str, Any]:
    """The event of a line (with or without its newline).

    Raises:
        EventError: the bytes are not one JSON object.
    """
    if len(line) > LARGE and has_too_many(line):
        raise EventError(f"more than {MAX_CONTAINERS} arrays and objects")
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise EventError(f"no JSON: {error}") from None
    if not isinstance(event, dict):
        raise EventError(f"a JSON {type(event).__name__}, not an object")
    return event


def control_event(node_id: str, control: str, seconds: float, message: str, **fields: object) -> bytes:
    """A control line without its `seq`: what a writer or recovery has to say about the chunk itself."""
    return encode(
        {
            "node_id": node_id,
            "ts_utc": utc_text(seconds),
            "event_id": str(uuid_utils.uuid7()),
            "source": CONTROL_SOURCE,
            "level": "warning" if control == "gap" else "info",
            "logger": CONTROL_SOURCE,
            "message": message,
            "control": control,
            **fields,
        }
    )
