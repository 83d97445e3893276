"""The event: the names of its fields, and the one way from fields to a line and back.

Invariants: a line is one flat JSON object in UTF-8 with no newline inside; the reserved fields are the library's, and
a caller's field of such a name stands under `shadowed`; whatever was altered is named in `degraded`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import orjson
import uuid_utils

from calyx_logging.core.reading import sha256_of
from calyx_logging.core.times import utc_text
from calyx_logging.errors import ConfigError, EventError
from calyx_logging.events.values import by_rule, has_nonfinite, lower_fields

if TYPE_CHECKING:
    pass

__all__ = [
    "CONTROL_SOURCE",
    "DEFAULT_MAX_EVENT_BYTES",
    "DEFAULT_SOURCE",
    "MIN_MAX_EVENT_BYTES",
    "RESERVED",
    "check_source",
    "control_event",
    "decode",
    "encode",
    "end_of_line",
    "note",
    "shadow",
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

DEFAULT_MAX_EVENT_BYTES = 16 * 1024 * 1024
MIN_MAX_EVENT_BYTES = 4096
_SEQ_ROOM = 32

LARGE = 1024 * 1024
"""Bytes of a line that is looked at before it is read."""

MAX_CONTAINERS = LARGE - 1
"""Arrays and objects of one line."""

_OPTIONS = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS


def check_source(source: object) -> str:
    """Return a source, or raise `ConfigError`: it is a text, not empty, and not the one of control lines."""
    if not isinstance(source, str) or not source.strip():
        raise ConfigError(f"option 'source' is {source!r}: give a text that is not empty")
    if source == CONTROL_SOURCE:
        raise ConfigError(f"option 'source' is {source!r}, the source of control lines: choose another")
    return source


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
