"""Select the lines to keep of a chunk whose writer died, and count the rest.

Invariant: only whole lines that are events are kept, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calyx_logging.core.reading import blocks_of, whole_lines
from calyx_logging.errors import EventError
from calyx_logging.events.event import CONTROL_SOURCE, decode
from calyx_logging.format.chunk import open_chunk
from calyx_logging.format.plain_lines import read_plain_lines

__all__ = ["RecoveredLines"]

_REQUIRED_TEXTS = ("node_id", "ts_utc", "event_id", "source")
_LINE_START = b'{"node_id":'
_HEAD = re.compile(rb'\{"node_id":"([A-Za-z0-9._-]+)","ts_utc":"')


class RecoveredLines:
    """The lines to keep of a chunk, and counts of the rest; the file is read once to count and once to copy.

    Attributes:
        events: lines kept.
        logged: those of them that are no control lines.
        torn_bytes: bytes after the last newline.
        bad_lines: complete lines that are not events.
        whole_bytes: the length up to and including the last newline.
        ended: whether the last line kept is an end line.
    """

    def __init__(self, source: Path, start: int = 0) -> None:
        self._source = source
        self._start = start
        self.events = self.logged = self.torn_bytes = self.bad_lines = 0
        self.whole_bytes = start
        self.ended = False
        for _ in self._kept(None):
            pass

    def lines(self, end: bytes | None) -> Iterator[bytes]:
        """Yield the lines to keep, up to the length counted before, and then the end line if one is given."""
        whole_bytes, self.whole_bytes = self.whole_bytes, self._start
        self.events = self.logged = self.bad_lines = 0
        yield from self._kept(whole_bytes)
        if end is not None:
            yield end

    def _kept(self, upto: int | None) -> Iterator[bytes]:
        with open_chunk(self._source) as stream:
            stream.seek(self._start)
            for lines in whole_lines(blocks_of(stream)):
                assert lines is not None  # none is too long here
                if lines[-1] != ord("\n"):
                    self.torn_bytes = len(lines)
                elif self._are_events(lines, upto):
                    yield bytes(lines)
                else:
                    yield from self._kept_of(bytes(lines).split(b"\n")[:-1], upto)

    def _are_events(self, lines: memoryview, upto: int | None) -> bool:
        """Count lines by the compiled core, if it finds all of them to be events, and none a control line."""
        is_within = upto is None or self.whole_bytes + len(lines) <= upto
        if not is_within or (head := _HEAD.match(lines)) is None:
            return False
        plain = read_plain_lines(lines, head[1].decode())
        if plain is None or plain.others:
            return False
        self.whole_bytes += len(lines)
        self.events += plain.events
        self.logged += plain.events
        self.ended = False
        return True

    def _kept_of(self, lines: list[bytes], upto: int | None) -> Iterator[bytes]:
        for line in lines:
            if upto is not None and self.whole_bytes >= upto:
                return  # a living writer has added more
            self.whole_bytes += len(line) + 1
            kept, event = line, _event_of(line)
            if event is None:
                self.bad_lines += 1
                kept, event = _behind_fragment(line)
                if event is None:
                    continue
            self.events += 1
            self.logged += not (event["source"] == CONTROL_SOURCE and "control" in event)
            self.ended = event["source"] == CONTROL_SOURCE and event.get("control") == "end"
            yield kept + b"\n"


def _event_of(line: bytes) -> dict[str, Any] | None:
    try:
        event = decode(line)
    except EventError:
        return None
    return event if all(isinstance(event.get(name), str) for name in _REQUIRED_TEXTS) else None


def _behind_fragment(line: bytes) -> tuple[bytes, dict[str, Any] | None]:
    """Return the complete line that another thread wrote after a partial one, which a full disk had cut off."""
    start = line.find(_LINE_START, 1)
    while start > 0:
        event = _event_of(line[start:])
        if event is not None:
            return line[start:], event
        start = line.find(_LINE_START, start + 1)
    return b"", None
