"""Write the hub's receipt for a node, from what the store holds at that moment.

Invariant: a chunk is acknowledged only when it lies in the store as it came, and every line of it is an event of the
node. A receipt has its name only when it is whole; its signature comes after it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from calyx_logging.bundle.signing import RECEIPT_NAMESPACE, sign
from calyx_logging.core import files
from calyx_logging.core.os_lock import OsLock
from calyx_logging.core.parallel import several_at_once
from calyx_logging.core.ranges import runs_of
from calyx_logging.core.reading import names_in
from calyx_logging.core.times import utc_text
from calyx_logging.errors import ManifestError, StorageError
from calyx_logging.format.chunk import ChunkName
from calyx_logging.format.line_check import Scan, scan_chunk
from calyx_logging.format.receipt import RECEIPTS_DIR, SIGNATURE_SUFFIX, Receipt
from calyx_logging.hub.inventory import Held, holdings_of, prefix_digests
from calyx_logging.hub.store import Note, Store
from calyx_logging.node import is_node_id

__all__ = ["Written", "leave", "write_receipt"]


@dataclass(frozen=True)
class Written:
    """A receipt on disk: the value, its file, whether it is signed, and what the user should know."""

    receipt: Receipt
    path: Path
    signed: bool
    warnings: tuple[str, ...]


def write_receipt(
    store: Store, node_id: str, *, key: str | None = None, anew: bool = True, clock: Callable[[], float] = time.time
) -> Written:
    """Write what the store holds of a node to `.receipts/<node_id>.json`; keep a receipt that says the same.

    Args:
        store: the hub's.
        node_id: of a node in the store.
        key: to sign with, see `signature.sign`; None for an unsigned receipt.
        anew: compute the hash of every chunk, instead of only of those whose file has another length or time of change
            than when it came.
        clock: seconds since the epoch.

    Raises:
        StorageError: a file cannot be read or written.
        ConfigError: it cannot be signed; an older receipt stays.
    """
    path = store.receipts / f"{node_id}.json"
    signature = path.with_name(path.name + SIGNATURE_SUFFIX)
    try:
        files.make_dirs(store.receipts)
        with OsLock(store.receipts / f".{node_id}.lock"):
            with store.alone():
                receipt, warnings = _receipt(store, node_id, utc_text(clock()), anew)
            old = _old(path)
            was_signed = signature.exists()
            if old is not None and receipt.says_the_same(old):
                if key is not None:  # with this key now, whichever it was before
                    files.replace_file(signature, sign(files.read_regular(path), key, RECEIPT_NAMESPACE))
                return Written(old, path, was_signed or key is not None, warnings)
            if was_signed and key is None:
                warnings += ("it was signed before, and is not now: name the key with --sign",)
            data = receipt.to_bytes()
            armored = None if key is None else sign(data, key, RECEIPT_NAMESPACE)
            files.remove(signature)
            files.replace_file(path, data)
            if armored is not None:
                files.replace_file(signature, armored)
    except OSError as error:
        raise StorageError.of(error, "write the receipt", error.filename or path, "check the rights") from error
    return Written(receipt, path, key is not None, warnings)


def leave(store: Store, carrier: Path) -> list[Path]:
    """Copy receipts to a folder that bundles came in, if it takes them back: it has a folder `.receipts` then.

    Args:
        store: the hub's.
        carrier: a folder with a folder for each node, as `export --to` makes it.

    Returns:
        the receipts there, of those nodes.

    Raises:
        StorageError: one cannot be written.
    """
    folder = carrier / RECEIPTS_DIR
    if folder.is_symlink() or not folder.is_dir():
        return []
    left = []
    for node_id in sorted(name for name in names_in(carrier) if is_node_id(name)):
        source, target = store.receipts / f"{node_id}.json", folder / f"{node_id}.json"
        if not source.exists():
            continue  # the hub has nothing of this node
        try:
            with OsLock(store.receipts / f".{node_id}.lock"):
                data = files.read_regular(source)
                signature = source.with_name(source.name + SIGNATURE_SUFFIX)
                armored = files.read_regular(signature) if signature.exists() else None
            files.remove(target.with_name(target.name + SIGNATURE_SUFFIX))
            files.replace_file(target, data)
            if armored is not None:
                files.replace_file(target.with_name(target.name + SIGNATURE_SUFFIX), armored)
        except OSError as error:
            raise StorageError.of(error, "leave the receipt", target, "carry it by hand") from error
        left.append(target)
    return left


def _old(path: Path) -> Receipt | None:
    try:
        return Receipt.parse(files.read_regular(path))
    except (OSError, ManifestError):
        return None


def _receipt(store: Store, node_id: str, written_at: str, anew: bool) -> tuple[Receipt, tuple[str, ...]]:
    entries = store.load(node_id, anew=anew)
    holdings = holdings_of(store, entries)
    notes = store.notes(entries)
    held = list(holdings.by_hash.values())
    is_whole = several_at_once(lambda one: _is_whole(one, None if anew else notes.get(one.sha256)), held)
    whole = [one for one, is_so in zip(held, is_whole, strict=True) if is_so]
    unknown = [one for one in whole if one.sha256 not in notes]
    scans = {sha256: note.scan for sha256, note in notes.items()}
    scanned = several_at_once(lambda one: scan_chunk(one.path, node_id), unknown)
    scans.update({one.sha256: scan for one, scan in zip(unknown, scanned, strict=True)})
    good = {one.sha256 for one in whole if not scans[one.sha256].bad_count}
    for one in whole:  # what is here of a chunk that grew begins with its shorter states
        states = holdings.states[one.name] if one.grows and one.sha256 in good else {}
        sizes = {size: sha256 for sha256, size in states.items() if size is not None and size < one.size}
        begins = prefix_digests(one.path, sizes) if sizes else {}
        good.update(sha256 for size, sha256 in sizes.items() if begins.get(size) == sha256)
    warnings = list(holdings.warnings)
    if len(whole) < len(held):
        warnings.append(
            f"chunks in the store that are not what came, and are not acknowledged: {len(held) - len(whole)}"
        )
    bundles = tuple(sorted({entry.manifest_sha256 for entry, _ in holdings.manifests}))
    return Receipt(node_id, written_at, tuple(sorted(good)), _contiguous(whole, scans), bundles), tuple(warnings)


def _is_whole(held: Held, note: Note | None) -> bool:
    """Tell whether a chunk is unchanged: by the file's state as the import noted it, else by its hash."""
    return (note is not None and note.is_of(held.path)) or held.is_whole()


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
