"""The manifest as a value and as bytes, and SHA256SUMS.

Only this module knows the manifest's keys (docs/format.md, "Manifest"); `legacy` knows those of the first generation.
Parsing takes bytes and returns a `Manifest` or raises `ManifestError`; it reads no files.
"""

from __future__ import annotations

import contextlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from calyx_logging.core import json_bytes
from calyx_logging.core.reading import BOM
from calyx_logging.errors import ManifestError
from calyx_logging.format import legacy
from calyx_logging.node import is_device_name

__all__ = [
    "MANIFEST_NAME",
    "MAX_CHUNKS",
    "MAX_MANIFEST",
    "SIGNATURE_NAME",
    "SUMS_NAME",
    "ChunkEntry",
    "Covered",
    "Manifest",
    "format_sums",
    "is_safe_filename",
    "loads_object",
    "name_key",
    "parse_sums",
]

MANIFEST_NAME = "manifest.json"
SUMS_NAME = "SHA256SUMS"
SIGNATURE_NAME = "manifest.json.sig"
MAX_CHUNKS = 100_000
"""The most chunks in one bundle."""

MAX_MANIFEST = 64 * 1024 * 1024
"""The largest manifest accepted, in bytes; one with `MAX_CHUNKS` chunks is smaller."""

VERSION = 1
_MAX_VALUES = 4_000_000
"""The most commas and brackets in a manifest, which bounds the memory for parsing it."""

_UNSEEN = frozenset(["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"])
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class ChunkEntry:
    """A manifest's entry for one chunk; None where the first generation says nothing, or a value is unknown.

    Attributes:
        filename: a plain file name.
        sha256: 64 lower-case hex digits.
        bytes: the chunk's length.
        events: the number of its lines.
        first_ts_utc: the least `ts_utc`.
        last_ts_utc: the greatest `ts_utc`.
        writer: the id of its writer.
        first_seq: the least `seq`.
        last_seq: the greatest `seq`.
    """

    filename: str
    sha256: str
    bytes: int | None = None
    events: int | None = None
    first_ts_utc: str | None = None
    last_ts_utc: str | None = None
    writer: str | None = None
    first_seq: int | None = None
    last_seq: int | None = None


@dataclass(frozen=True)
class Covered:
    """An earlier manifest that a hub need not receive, and its predecessor."""

    manifest_sha256: str
    previous_manifest_sha256: str | None


@dataclass(frozen=True)
class Manifest:
    """A bundle's manifest: its chunks, its node, and the bundle before it.

    Attributes:
        node_id: the node that exported it.
        exported_at: the time of the export, UTC.
        timestamp: the name of its folder.
        chunks: the entries of its chunks.
        previous_manifest_sha256: the manifest of the node's bundle before this one; None for the first.
        open_chunks: names of chunks that were still being written.
        covers: earlier manifests that a hub may never receive, because each of their chunks is in this bundle or was
            acknowledged.
        version: the format's version; `legacy.VERSION` for the first generation.
    """

    node_id: str
    exported_at: str
    timestamp: str
    chunks: tuple[ChunkEntry, ...]
    previous_manifest_sha256: str | None = None
    open_chunks: tuple[str, ...] = ()
    covers: tuple[Covered, ...] = ()
    version: int = VERSION

    @property
    def events(self) -> int:
        """Events in all chunks whose number is given."""
        return sum(chunk.events or 0 for chunk in self.chunks)

    @property
    def total_bytes(self) -> int:
        """Bytes in all chunks whose size is given."""
        return sum(chunk.bytes or 0 for chunk in self.chunks)

    @property
    def is_legacy(self) -> bool:
        """Whether it is of the first generation: without SHA256SUMS, and not in a chain of bundles."""
        return self.version <= legacy.VERSION

    def to_bytes(self) -> bytes:
        """Serialise as `manifest.json`: UTF-8, no byte order mark, the same bytes for the same value."""
        document: dict[str, Any] = {
            "manifest_version": self.version,
            "node_id": self.node_id,
            "exported_at": self.exported_at,
            "timestamp": self.timestamp,
            "previous_manifest_sha256": self.previous_manifest_sha256,
            "chunks": self.chunks,
            "open_chunks": self.open_chunks,
        }
        if self.covers:
            document["covers"] = self.covers
        return json_bytes.dumps(document, option=json_bytes.OPT_INDENT_2 | json_bytes.OPT_APPEND_NEWLINE)

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Parse a manifest of ours or of the first generation.

        Raises:
            ManifestError: not a JSON object, a key is missing or has the wrong type, or the version is newer than this
                release.
        """
        if len(data) > MAX_MANIFEST or sum(map(data.count, (b",", b"[", b"{"))) > _MAX_VALUES:
            raise ManifestError(f"the manifest is larger than that of {MAX_CHUNKS} chunks")
        document = loads_object(data, "the manifest")
        version = _get(document, "manifest_version", int, legacy.VERSION)
        if version > VERSION:
            raise ManifestError(
                f"the manifest is of version {version}", hint=f"this release reads up to {VERSION}: update it"
            )
        entries = _get(document, "chunks", list)
        if len(entries) > MAX_CHUNKS:
            raise ManifestError(f"the manifest names {len(entries)} chunks; a bundle has at most {MAX_CHUNKS}")
        manifest = cls(
            node_id=_get(document, "node_id", str),
            exported_at=_get(document, "exported_at", str),
            timestamp=_get(document, "timestamp", str),
            chunks=tuple(_parse_entry(entry, n) for n, entry in enumerate(entries)),
            previous_manifest_sha256=_optional(document, "previous_manifest_sha256", str),
            open_chunks=tuple(str(name) for name in _get(document, "open_chunks", list, [])),
            covers=tuple(_parse_covered(one, n) for n, one in enumerate(_get(document, "covers", list, []))),
            version=version,
        )
        if manifest.to_bytes() != data:  # not ours: a key may occur twice, and readers differ in which value they use
            _refuse_twice(data)
        return manifest


def _refuse_twice(data: bytes) -> None:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            twice, _ = Counter(name for name, _ in items).most_common(1)[0]
            raise ManifestError(f"the manifest says {twice[:100]!r} twice")
        return found

    with contextlib.suppress(RecursionError):  # nested too deeply to be parsed
        json.loads(data.removeprefix(BOM), object_pairs_hook=pairs, parse_int=str, parse_float=str)


def _parse_covered(covered: object, number: int) -> Covered:
    where = f"covers[{number}]"
    if not isinstance(covered, Mapping):
        raise ManifestError(f"the manifest's {where} is no object")
    return Covered(
        _get(covered, "manifest_sha256", str, where=where), _optional(covered, "previous_manifest_sha256", str, where)
    )


def _parse_entry(entry: object, number: int) -> ChunkEntry:
    where = f"chunks[{number}]"
    if not isinstance(entry, Mapping):
        raise ManifestError(f"the manifest's {where} is no object")
    entry = legacy.entry_like_ours(entry)
    name = entry["filename"]
    if not isinstance(name, str):
        raise ManifestError(f"the manifest's {where} has no 'filename'")
    sha256 = _get(entry, "sha256", str, where=where)
    if not _SHA256.fullmatch(sha256):
        raise ManifestError(f"the manifest's {where}.sha256 is not 64 hex digits")
    return ChunkEntry(
        filename=name,
        sha256=sha256,
        bytes=_optional(entry, "bytes", int, where),
        events=_optional(entry, "events", int, where),
        first_ts_utc=_optional(entry, "first_ts_utc", str, where),
        last_ts_utc=_optional(entry, "last_ts_utc", str, where),
        writer=_optional(entry, "writer", str, where),
        first_seq=_optional(entry, "first_seq", int, where),
        last_seq=_optional(entry, "last_seq", int, where),
    )


_REQUIRED = object()


def _get(document: Mapping[str, Any], key: str, kind: type, default: Any = _REQUIRED, *, where: str = "") -> Any:
    value = document.get(key, default)
    name = f"{where}.{key}" if where else repr(key)
    if value is _REQUIRED:
        raise ManifestError(f"the manifest has no {name}")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ManifestError(f"the manifest's {name} is no {kind.__name__}")
    return value


def _optional(document: Mapping[str, Any], key: str, kind: type, where: str = "") -> Any:
    return None if document.get(key) is None else _get(document, key, kind, where=where)


def loads_object(data: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object from bytes, with or without a byte order mark; `what` names it in errors."""
    try:
        document = json_bytes.loads(data.removeprefix(BOM))
    except json_bytes.JSONDecodeError as error:
        raise ManifestError(f"{what} is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise ManifestError(f"{what} is a JSON {type(document).__name__}, not an object")
    return document


_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')


def is_safe_filename(name: str) -> bool:
    """Tell whether a name is a plain, visible file name on every system.

    It must have no folder, drive or stream in it, must not be hidden or a device's name, and must have no invisible or
    text-reversing characters.
    """
    return (
        0 < len(name) <= 255
        and len(name.encode("utf-8", "surrogatepass")) <= 255
        and not _UNSAFE.search(name)
        and not name.startswith(".")
        and not name.endswith((".", " "))
        and len(name.splitlines()) == 1
        and not is_device_name(name)
        and (name.isascii() or not any(unicodedata.category(letter) in _UNSEEN for letter in name))
    )


def name_key(name: str) -> str:
    """Return a key that is equal for names that some system or reader would confuse."""
    return name.casefold() if name.isascii() else unicodedata.normalize("NFKC", name).casefold()


# ------------------------------------------------------------------ SHA256SUMS


def format_sums(entries: Iterable[tuple[str, str]]) -> bytes:
    """Format (file name, hex hash) pairs as `SHA256SUMS`, as `sha256sum -c` reads it."""
    return "".join(f"{sha256}  {name}\n" for name, sha256 in entries).encode()


def parse_sums(data: bytes) -> dict[str, str]:
    """Parse `SHA256SUMS` into lower-case hex hashes by file name.

    Raises:
        ManifestError: a line is not `HASH  NAME`.
    """
    sums: dict[str, str] = {}
    try:
        lines = data.removeprefix(BOM).decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise ManifestError(f"{SUMS_NAME} is no UTF-8 text") from None
    for number, line in enumerate(lines, 1):
        line = line.removesuffix("\r")
        sha256, separator, name = line[:64].lower(), line[64:66], line[66:]
        if not _SHA256.fullmatch(sha256) or separator not in ("  ", " *") or not name:
            raise ManifestError(f"{SUMS_NAME} line {number} is not 'HASH  NAME'")
        if name in sums:
            raise ManifestError(f"{SUMS_NAME} names {name!r} twice")
        sums[name] = sha256
    return sums
