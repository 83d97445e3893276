"""The event: its reserved field names, and how fields become a line and a line becomes fields.

Invariants: a line is one flat JSON object in UTF-8 with no newline inside; the reserved fields are the library's, and a
caller's field with a reserved name moves to `shadowed`; every alteration is listed in `degraded`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from calyx_logging.core import json_bytes
from calyx_logging.core.reading import sha256_of
from calyx_logging.core.times import utc_text
from calyx_logging.core.uuid7 import uuid7
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
"""Field names reserved for the library in every event."""

DEFAULT_MAX_EVENT_BYTES = 16 * 1024 * 1024
MIN_MAX_EVENT_BYTES = 4096
_SEQ_ROOM = 32

_ENCODING_FACTOR = 12
"""Bytes that encoding may take for one character of a text: buffers double, and a large line is read again."""

LARGE = 1024 * 1024
"""A line longer than this, in bytes, is inspected before it is parsed."""

MAX_CONTAINERS = LARGE - 1
"""The most arrays and objects that a line may have."""

_OPTIONS = (
    json_bytes.OPT_PASSTHROUGH_SUBCLASS | json_bytes.OPT_PASSTHROUGH_DATETIME | json_bytes.OPT_PASSTHROUGH_DATACLASS
)


def check_source(source: object) -> str:
    """Return a valid source, or raise `ConfigError` unless it is a non-empty text that is not the control lines'."""
    if not isinstance(source, str) or not source.strip():
        raise ConfigError(f"option 'source' is {source!r}: give a text that is not empty")
    if source == CONTROL_SOURCE:
        raise ConfigError(f"option 'source' is {source!r}, the source of control lines: choose another")
    return source


def shadow(event: MutableMapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Move fields with reserved names to `shadowed`; fields already there stay."""
    if fields:
        present = event.get("shadowed", {})
        event["shadowed"] = {**fields, **(present if isinstance(present, dict) else {"shadowed": present})}


def note(event: MutableMapping[str, Any], what: Iterable[str]) -> None:
    """Add notes of alterations to the event's `degraded`."""
    if what := list(what):
        present = event.get("degraded", [])
        if not isinstance(present, list):
            shadow(event, {"degraded": present})
            present = []
        event["degraded"] = [*present, *what]


def encode(event: Mapping[str, Any], max_bytes: int = DEFAULT_MAX_EVENT_BYTES, texts: int = 0) -> bytes:
    """Encode an event as JSON in UTF-8, without newline, of at most `max_bytes` including its `seq`.

    orjson writes NaN and infinities as null, so an event whose line contains `null` is checked for them. The first
    `texts` bytes are skipped, because the caller knows that they are texts, and that none of them is large.

    Raises:
        MemoryError: there is not enough memory for its large texts. Nothing else is raised.
    """
    if not texts:
        need_memory(event)
    try:
        line = json_bytes.dumps(event, by_rule, _OPTIONS)
        exact = line.find(b"null", texts) < 0 or not has_nonfinite(event)
    except Exception:  # orjson refused it, or foreign code (a property, model_dump) raised
        exact = False
    if not exact:
        line = json_bytes.dumps(_lowered(event))
    if len(line) + _SEQ_ROOM > max_bytes:
        line = json_bytes.dumps(_truncated(json_bytes.loads(line), max_bytes - _SEQ_ROOM))
    elif len(line) > LARGE and has_too_many(line):
        line = json_bytes.dumps(_truncated(json_bytes.loads(line), LARGE))
    return line


def need_memory(event: Mapping[str, Any]) -> None:
    """Raise MemoryError if the large texts of an event cannot be encoded; orjson would end the process instead."""
    size = 0
    for value in list(event.values()):
        inside = list(value.values()) if type(value) is dict else value if type(value) in (list, tuple) else (value,)
        size += sum(len(text) for text in inside if type(text) in (str, bytes) and len(text) > LARGE)
    if size:
        bytearray(_ENCODING_FACTOR * size)  # never touched, so that it costs address space alone


def _lowered(event: Mapping[str, Any]) -> dict[str, Any]:
    fields, altered = lower_fields(event, RESERVED)
    note(fields, altered)
    return fields


def _truncated(event: dict[str, Any], room: int) -> dict[str, Any]:
    """Replace the largest values by their size in bytes and SHA-256 until the line fits."""
    sizes = {name: len(json_bytes.dumps(value)) for name, value in event.items() if name not in RESERVED}
    sizes |= {name: len(json_bytes.dumps(event[name])) for name in ("shadowed", "exception") if name in event}
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if len(json_bytes.dumps(event)) <= room or sizes[name] <= 256:
            break
        event[name] = [_marker(event[name])] if name == "exception" else _marker(event[name])
        note(event, [f"truncated: {name[:100]}"])
    for name in ("message", "logger", "event_id", "level"):
        if len(json_bytes.dumps(event)) > room and len(text := event[name]) > 200:
            event[name] = f"{text[:200]}…"
            shadowed = event.get("shadowed", {})
            event["shadowed"] = {**shadowed, name: _marker(text)}
            note(event, [f"truncated: {name}"])
    if len(json_bytes.dumps(event)) > room:  # very many small fields remain
        fields = {name: value for name, value in event.items() if name not in RESERVED or name == "degraded"}
        event = {name: value for name, value in event.items() if name not in fields}
        event["shadowed"] = {"all fields": _marker({**fields, "shadowed": event.get("shadowed")})}
        event["degraded"] = ["truncated: all fields"]
    return event


def _marker(value: object) -> dict[str, Any]:
    data = value.encode() if isinstance(value, str) else json_bytes.dumps(value)
    return {"truncated": True, "bytes": len(data), "sha256": sha256_of(data)}


def with_seq(line: bytes, seq: int) -> bytes:
    """Return the line as it is in a chunk: with `seq` as its last field, and a newline."""
    return line[:-1] + end_of_line(seq)


def end_of_line(seq: int) -> bytes:
    """Return the bytes that end the line with this `seq` and occur nowhere else in a writer's chunks."""
    return b',"seq":%d}\n' % seq


def has_too_many(line: bytes) -> bool:
    """Tell whether a large line has more arrays and objects than a reader may spend memory on."""
    return line.count(b"[") + line.count(b"{") > MAX_CONTAINERS


def decode(line: bytes) -> dict[str, Any]:
    """Decode a line (with or without its newline) into an event.

    Raises:
        EventError: the bytes are not one JSON object.
    """
    if len(line) > LARGE and has_too_many(line):
        raise EventError(f"more than {MAX_CONTAINERS} arrays and objects")
    try:
        event = json_bytes.loads(line)
    except json_bytes.JSONDecodeError as error:
        raise EventError(f"no JSON: {error}") from None
    if not isinstance(event, dict):
        raise EventError(f"a JSON {type(event).__name__}, not an object")
    return event


def control_event(node_id: str, control: str, seconds: float, message: str, **fields: object) -> bytes:
    """Encode a control line without its `seq`, by which a writer or recovery reports on the chunk itself."""
    return encode(
        {
            "node_id": node_id,
            "ts_utc": utc_text(seconds),
            "event_id": str(uuid7()),
            "source": CONTROL_SOURCE,
            "level": "warning" if control == "gap" else "info",
            "logger": CONTROL_SOURCE,
            "message": message,
            "control": control,
            **fields,
        }
    )
