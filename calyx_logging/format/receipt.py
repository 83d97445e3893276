"""The receipt, as a value and as bytes: what a hub has of a node, and so what the node may delete.

Parsing takes bytes and returns a `Receipt` or raises `ManifestError`; it reads no files (docs/format.md, "Receipt").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from calyx_logging.core import json_bytes
from calyx_logging.errors import ManifestError
from calyx_logging.format.manifest import loads_object
from calyx_logging.node import is_node_id

__all__ = ["MAX_RECEIPT", "RECEIPTS_DIR", "SIGNATURE_SUFFIX", "Receipt"]

VERSION = 1
SIGNATURE_SUFFIX = ".sig"
RECEIPTS_DIR = ".receipts"
"""The folder of receipts: in a hub's store, in an outbox, and in a folder that carries bundles to a hub and receipts
back. No node id begins with a dot."""

MAX_RECEIPT = 512 * 1024 * 1024
"""The largest receipt accepted, in bytes; each chunk takes 72."""

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}\+00:00", re.ASCII)
_WRITER = re.compile(r"[0-9a-f]{8}", re.ASCII)


@dataclass(frozen=True)
class Receipt:
    """A hub's acknowledgement of a node's chunks.

    Attributes:
        node_id: the node.
        written_at: UTC, as `ts_utc`.
        chunks: the hashes of chunks that are in the store unchanged, with only events as lines; sorted.
        writers: for each writer, the greatest `seq` up to which every event is in the store or in a gap line.
        bundles: the hashes of the manifests in the store; sorted.
    """

    node_id: str
    written_at: str
    chunks: tuple[str, ...]
    writers: Mapping[str, int]
    bundles: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """Serialise as UTF-8 JSON, the same bytes for the same value."""
        document = {
            "receipt_version": VERSION,
            "node_id": self.node_id,
            "written_at": self.written_at,
            "chunks": list(self.chunks),
            "writers": dict(sorted(self.writers.items())),
            "bundles": list(self.bundles),
        }
        return json_bytes.dumps(document, option=json_bytes.OPT_INDENT_2 | json_bytes.OPT_APPEND_NEWLINE)

    def says_the_same(self, other: Receipt) -> bool:
        """Tell whether another receipt acknowledges the same, whatever its time."""
        return replace(self, written_at=other.written_at) == other

    @classmethod
    def parse(cls, data: bytes) -> Receipt:
        """Parse a receipt.

        Raises:
            ManifestError: not a JSON object, a key is missing or has the wrong type, or the version is newer than this
                release.
        """
        if len(data) > MAX_RECEIPT:
            raise ManifestError(f"the receipt is larger than {MAX_RECEIPT} bytes")
        document = loads_object(data, "the receipt")
        version = document.get("receipt_version")
        if type(version) is not int or version < 1:
            raise ManifestError(
                "it is not a receipt: it has no 'receipt_version'", hint="name the file that the hub wrote"
            )
        if version > VERSION:
            raise ManifestError(f"the receipt is of version {version}", hint=f"this release reads up to {VERSION}")
        node_id, written_at = document.get("node_id"), document.get("written_at")
        if (
            type(node_id) is not str
            or not is_node_id(node_id)
            or type(written_at) is not str
            or not _TIME.fullmatch(written_at)
        ):
            raise ManifestError("the receipt has no node_id, or no written_at (UTC)")
        chunks, writers, bundles = document.get("chunks"), document.get("writers"), document.get("bundles", [])
        for name, hashes in (("chunks", chunks), ("bundles", bundles)):
            if not isinstance(hashes, list) or not all(type(one) is str and _SHA256.fullmatch(one) for one in hashes):
                raise ManifestError(f"the receipt's {name!r} is not a list of SHA-256 hashes")
        if not isinstance(writers, dict) or not all(
            _WRITER.fullmatch(writer) and type(seq) is int and seq >= 0 for writer, seq in writers.items()
        ):
            raise ManifestError("the receipt's 'writers' is not an object of writers and seq")
        return cls(node_id, written_at, tuple(chunks or ()), writers, tuple(bundles))
