"""Acknowledging: the hub's receipt for a node, from what the store holds at that moment.

Invariant: a chunk is acknowledged only when it lies in the store in its full length and every line of it is an event of
the node. A receipt has its name only when it is whole; its signature comes after it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from calyx_logging import durable
from calyx_logging.chunk import ChunkName
from calyx_logging.errors import ManifestError, StorageError
from calyx_logging.event import utc_text
from calyx_logging.gap import runs_of
from calyx_logging.holdings import Held, holdings_of
from calyx_logging.locks import os_lock
from calyx_logging.receipt import SIGNATURE_SUFFIX, Receipt
from calyx_logging.scan import Scan, scan_chunk
from calyx_logging.signature import RECEIPT_NAMESPACE, sign
from calyx_logging.stats import several_at_once
from calyx_logging.store import Entry, Store

__all__ = ["Written", "scans_of", "write_receipt"]


@dataclass(frozen=True)
class Written:
    """A receipt on disk: the value, its file, whether it is signed, and what the user should know."""

    receipt: Receipt
    path: Path
    signed: bool
    warnings: tuple[str, ...]


def write_receipt(
    store: Store, node_id: str, *, key: str | None = None, clock: Callable[[], float] = time.time
) -> Written:
    """Write what the store holds of a node to `.receipts/<node_id>.json`; one that says the same stays.

    Args:
        store: the hub's.
        node_id: of a node in the store.
        key: to sign with, see `signature.sign`; None for an unsigned receipt.
        clock: seconds since the epoch.

    Raises:
        StorageError: a file cannot be read or written.
        ConfigError: it cannot be signed; an older receipt stays.
    """
    path = store.receipts / f"{node_id}.json"
    signature = path.with_name(path.name + SIGNATURE_SUFFIX)
    try:
        durable.make_dirs(store.receipts)
        with os_lock(store.receipts / f".{node_id}.lock"):
            with store.alone():
                receipt, warnings = _receipt(store, node_id, utc_text(clock()))
            old = _old(path)
            was_signed = signature.exists()
            if old is not None and receipt.says_the_same(old) and (was_signed or key is None):
                return Written(old, path, was_signed, warnings)
            if was_signed and key is None:
                warnings += ("it was signed before, and is not now: name the key with --sign",)
            data = receipt.to_bytes()
            armored = None if key is None else sign(data, key, RECEIPT_NAMESPACE)
            durable.remove(signature)
            durable.replace_file(path, data)
            if armored is not None:
                durable.replace_file(signature, armored)
    except OSError as error:
        raise StorageError.of(error, "write the receipt", error.filename or path, "check the rights") from error
    return Written(receipt, path, key is not None, warnings)


def _old(path: Path) -> Receipt | None:
    try:
        return Receipt.parse(durable.read_regular(path))
    except (OSError, ManifestError):
        return None


def _receipt(store: Store, node_id: str, written_at: str) -> tuple[Receipt, tuple[str, ...]]:
    entries = store.load(node_id)
    holdings = holdings_of(store, entries)
    expected = {
        chunk.sha256: chunk.bytes for _, manifest in holdings.manifests for chunk in manifest.chunks if chunk.bytes
    }
    whole = [held for held in holdings.by_hash.values() if held.size == expected.get(held.sha256, held.size)]
    scans = scans_of(store, node_id, whole, entries)
    good = sorted(held.sha256 for held in whole if not scans[held.sha256].bad_count)
    warnings = list(holdings.warnings)
    if len(whole) < len(holdings.by_hash):
        warnings.append(f"{len(holdings.by_hash) - len(whole)} chunks in the store are not of their full length")
    bundles = tuple(sorted({entry.manifest_sha256 for entry, _ in holdings.manifests}))
    return Receipt(node_id, written_at, tuple(good), _contiguous(whole, scans), bundles), tuple(warnings)


def scans_of(store: Store, node_id: str, held: Iterable[Held], entries: Iterable[Entry]) -> dict[str, Scan]:
    """What the lines of chunks say, by hash: as their import noted it, else read again."""
    held = list(held)
    scans: dict[str, Scan] = {}
    for entry in entries:
        scans.update(store.checked(entry))
    unknown = [one for one in held if one.sha256 not in scans]
    found = several_at_once(lambda one: scan_chunk(one.path, node_id), unknown)
    scans.update({one.sha256: scan for one, scan in zip(unknown, found, strict=True)})
    return scans


def _contiguous(whole: Iterable[Held], scans: dict[str, Scan]) -> dict[str, int]:
    runs: dict[str, list[list[int]]] = defaultdict(list)
    ours = [(name.writer, held) for held in whole if (name := ChunkName.parse(held.name)) is not None]
    writers = {writer for writer, _ in ours}
    for writer, held in ours:
        scan = scans[held.sha256]
        runs[writer] += scan.seqs
        for gap in scan.gaps:
            runs[gap.writer or writer] += gap.seqs
    greatest = {}
    for writer in writers:
        seqs = runs[writer]
        first, last = runs_of(seqs)[0] if seqs else (1, 1)
        if first == 0:
            greatest[writer] = last
    return greatest
