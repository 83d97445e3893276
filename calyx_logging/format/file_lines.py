"""A file as control lines: how a run's logs, predictions and results travel with its events.

Each line with `control: file` holds one part of a file (`data`: zlib, then base64). A last line gives the number of
parts and bytes and the SHA-256. Files are thus kept, exported, verified, imported once and acknowledged like events. A
file that was not attached has only a last line, which says why (`left_out`).
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from calyx_logging.errors import EventError

__all__ = ["FILE", "PART_BYTES", "Attachment", "Attachments", "file_lines"]

FILE = "file"
"""The `control` of these lines."""

PART_BYTES = 512 * 1024
"""Maximum number of the file's bytes in one line."""

_OF_RUN = ("suite", "run_id", "run_instance_id", "case_id")
_MAX_PARTS = 1_000_000


def file_lines(file: str, name: str, blocks: Iterable[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the message and the fields of each line of a file.

    Args:
        file: an id of this file, new for each.
        name: its name.
        blocks: its bytes, in blocks of at most `PART_BYTES`.
    """
    digest, size, parts = hashlib.sha256(), 0, 0
    for block in blocks:
        digest.update(block)
        size += len(block)
        data = base64.b64encode(zlib.compress(block)).decode()
        yield f"part {parts + 1} of {name}", {"file": file, "name": name, "part": parts, "data": data}
        parts += 1
    whole = {"parts": parts, "bytes": size, "sha256": digest.hexdigest()}
    yield f"attached {name}, {size} bytes", {"file": file, "name": name, **whole}


@dataclass
class Attachment:
    """A file that a run attached, as its last line describes it; the values come from a node and are not trusted.

    Attributes:
        node_id, ts_utc, name: the node, the time, and the file's name.
        suite, run_id, run_instance_id, case_id: of the run; None where there was none.
        size, sha256, parts: of the file, the size in bytes; None if it was not taken.
        left_out: why it was not taken.
        here: the places of the parts that were found, by number.
    """

    node_id: str
    ts_utc: str
    name: str
    suite: str | None = None
    run_id: str | None = None
    run_instance_id: str | None = None
    case_id: str | None = None
    size: int | None = None
    sha256: str | None = None
    parts: int | None = None
    left_out: str | None = None
    here: dict[int, Any] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether every part is there."""
        parts = self.parts
        return parts is not None and len(self.here) >= parts and all(part in self.here for part in range(parts))

    def blocks(self, data_of: Callable[[Any], str]) -> Iterator[bytes]:
        """Yield the file's bytes.

        Args:
            data_of: returns the `data` of the line at a place of `here`.

        Raises:
            EventError: a part is missing or damaged, or the bytes are not those that were attached.
        """
        digest, size = hashlib.sha256(), 0
        for part in range(self.parts or 0):
            try:
                unpacked = zlib.decompressobj()
                block = unpacked.decompress(base64.b64decode(data_of(self.here[part]), validate=True), PART_BYTES + 1)
                if len(block) > PART_BYTES or not unpacked.eof:
                    raise ValueError("it is too long")
            except KeyError:
                raise EventError(f"{self.name!r} lacks part {part + 1} of {self.parts}") from None
            except (ValueError, TypeError, zlib.error) as error:
                raise EventError(f"part {part + 1} of {self.name!r} is damaged: {error}") from None
            digest.update(block)
            size += len(block)
            yield block
        if (size, digest.hexdigest()) != (self.size, self.sha256):
            raise EventError(f"{self.name!r} is not what was attached: its hash is {digest.hexdigest()}")


class Attachments:
    """Collects attached files from lines in any order; lines may be repeated."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Attachment] = {}
        self._parts: dict[tuple[str, str], dict[int, Any]] = {}

    def add(self, event: Mapping[str, Any], place: Any) -> None:
        """Add a line's event, and where it is."""
        node_id, file, part = event.get("node_id"), event.get("file"), event.get("part")
        if not isinstance(node_id, str) or not isinstance(file, str):
            return
        parts = self._parts.setdefault((node_id, file), {})
        if type(part) is int and 0 <= part < _MAX_PARTS:
            parts[part] = place
            return
        text = {name: str(event[name]) for name in (*_OF_RUN, "left_out", "sha256") if event.get(name) is not None}.get
        counts = (event.get("bytes"), event.get("parts"))
        size, count = (number if type(number) is int and number >= 0 else None for number in counts)
        what = Attachment(node_id, str(event.get("ts_utc")), str(event.get("name")), here=parts)
        what.suite, what.run_id, what.run_instance_id, what.case_id = map(text, _OF_RUN)
        what.size, what.parts, what.sha256, what.left_out = size, count, text("sha256"), text("left_out")
        self._found[node_id, file] = what

    def all(self) -> list[Attachment]:
        """Return them by node, run, case and name."""
        return sorted(
            self._found.values(),
            key=lambda one: (
                *(one.node_id, str(one.run_id), str(one.run_instance_id), str(one.case_id), one.name, one.ts_utc),
            ),
        )
