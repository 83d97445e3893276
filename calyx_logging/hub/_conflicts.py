"""Compare an incoming bundle with the store: find duplicates and contradictions, and repair what was damaged.

Invariants: a file of the store is checked by its hash, never by its length; content that was accepted once is
never replaced by other content, whether it is still there or not; a damaged file is moved to quarantine, never
deleted. The caller holds the store's lock.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from calyx_logging.bundle.folder import VerifiedBundle
from calyx_logging.bundle.verification import Fault
from calyx_logging.core import files
from calyx_logging.errors import ManifestError
from calyx_logging.format.legacy import is_foreign
from calyx_logging.format.manifest import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    SUMS_NAME,
    ChunkEntry,
    is_safe_filename,
    parse_sums,
)
from calyx_logging.hub.inventory import Held, Holdings, begins_with, digest_of, prefix_digests
from calyx_logging.hub.rewritten import Rewrite
from calyx_logging.hub.store import Store

__all__ = ["bring_back_manifest", "compare", "put_back", "set_aside", "tidy"]


def put_back(store: Store, bundle: VerifiedBundle, held: Holdings, folder: Path, warnings: list[str]) -> None:
    """Restore chunks that were deleted or damaged in the store from the bundle that contains them."""
    back: list[str] = []
    hashes: set[str] = set()
    for chunk in bundle.manifest.chunks:
        new, known = bundle.path / chunk.filename, held.chunks.get(chunk.filename)
        if known is not None and known.is_whole():
            if known.sha256 == chunk.sha256 or begins_with(known.path, new):
                continue
            if not (known.grows and begins_with(new, known.path)):
                warnings.append(f"{known.path} has other content than this bundle, and is left")
                continue
        twin = held.by_hash.get(chunk.sha256) if known is None else None
        if known is None and (chunk.sha256 in hashes or (twin is not None and not twin.grows and twin.is_whole())):
            continue  # it is there under another name
        shorter = known is not None and known.is_whole()
        path = known.path if known is not None and known.sha256 == chunk.sha256 else folder / chunk.filename
        if known is not None and not shorter:
            set_aside(store, bundle.manifest.node_id, known.path, warnings)
        if os.path.lexists(path):
            set_aside(store, bundle.manifest.node_id, path, warnings)
        files.rename_new(new, path)
        files.sync_dir(path.parent)
        if shorter and known is not None and known.path != path:
            files.remove(known.path)
        back.append(chunk.filename)
        if not is_foreign(chunk.filename):
            hashes.add(chunk.sha256)
    if back:
        store.catalog.forget_table(bundle.manifest.node_id)
        warnings.append(f"put back in the store, where they were missing or damaged: {', '.join(back[:5])}")


def set_aside(store: Store, node_id: str, path: Path, warnings: list[str]) -> None:
    """Move a damaged file to quarantine. It is not deleted, since parts of it may exist nowhere else."""
    folder = store.quarantine / node_id / f"damaged-{secrets.token_hex(4)}"
    files.make_dirs(folder)
    files.publish(path, folder / path.name) if path.is_dir() else files.rename_new(path, folder / path.name)
    files.sync_dir(folder)
    warnings.append(f"{path} was damaged, and is kept in {folder}")


def bring_back_manifest(store: Store, bundle: VerifiedBundle, warnings: list[str]) -> None:
    """Restore a manifest that was deleted or altered in the store, so that its bundle is recognised again."""
    for entry in store.indexed(bundle.manifest.node_id):
        folder = store.bundle(entry)
        path = folder / MANIFEST_NAME
        if entry.manifest_sha256 != bundle.manifest_sha256 or not is_safe_filename(entry.folder):
            continue
        if not folder.is_dir() or folder.is_symlink():
            continue
        if os.path.lexists(path):
            if _sum_of_manifest(folder) != bundle.manifest_sha256 or digest_of(path) == bundle.manifest_sha256:
                continue  # belongs to this bundle or to another one, even if the index says otherwise
            set_aside(store, bundle.manifest.node_id, path, warnings)
        for name in (SUMS_NAME, SIGNATURE_NAME, MANIFEST_NAME):
            if (bundle.path / name).exists():
                files.replace_file(folder / name, files.read_regular(bundle.path / name))
        warnings.append("its manifest was missing in the store, or altered, and was put back")


def _sum_of_manifest(folder: Path) -> str | None:
    """Return the hash of the manifest that a folder's SHA256SUMS names."""
    try:
        return parse_sums(files.read_regular(folder / SUMS_NAME)).get(MANIFEST_NAME)
    except (OSError, ManifestError):
        return None


def tidy(store: Store, node_id: str, held: Holdings, warnings: list[str]) -> bool:
    """Resolve two files of one chunk, left by a killed import: keep the longest intact one, else both."""
    changed = False
    for shorter, longer in held.left_over:
        if not longer.is_whole():
            if shorter.is_whole():
                set_aside(store, node_id, longer.path, warnings)
                changed = True
        elif not shorter.is_whole():
            set_aside(store, node_id, shorter.path, warnings)
            changed = True
        elif begins_with(longer.path, shorter.path):
            files.remove(shorter.path)
            changed = True
    return changed


def compare(
    bundle: VerifiedBundle, held: Holdings, faults: list[Fault], accepted: list[Rewrite] | None = None
) -> tuple[list[str], list[Held]]:
    """Return the names that need not be stored again, and the stored chunks that the bundle's chunks replace.

    Contradictions become faults or, if `accepted` is given, are added to it; their stored chunks stay where they are.
    """
    there, superseded = [], []
    hashes: set[str] = set()
    for chunk in sorted(bundle.manifest.chunks, key=lambda one: is_foreign(one.filename)):
        new, known = bundle.path / chunk.filename, held.chunks.get(chunk.filename)
        grows = is_foreign(chunk.filename)
        if (other := _contradicted(chunk, new, held, grows)) and accepted is not None:
            earlier = tuple(sha256 for sha256 in held.states[chunk.filename] if sha256 != chunk.sha256)
            accepted.append(Rewrite(chunk.filename, chunk.sha256, earlier))
        elif other:
            where = "" if known is None else f", as in {known.path.parent}"
            faults.append(Fault("contradicts", chunk.filename, f"sha256 {other}{where}", f"sha256 {chunk.sha256}"))
        elif known is None:
            twin = held.by_hash.get(chunk.sha256)
            # the same lines under another name; of a chunk that grows nobody knows how long they stay the same
            if chunk.sha256 in hashes or (twin is not None and not twin.grows and twin.is_whole()):
                there.append(chunk.filename)
        elif not known.is_whole():
            superseded.append(known)
        elif known.sha256 == chunk.sha256 or begins_with(known.path, new):
            there.append(chunk.filename)
        else:
            superseded.append(known)
        if not grows:
            hashes.add(chunk.sha256)
    return there, superseded


def _contradicted(chunk: ChunkEntry, new: Path, held: Holdings, grows: bool) -> str | None:
    """Return the hash of an earlier state of this chunk that the new file neither continues nor begins.

    Whether that state is still in the store does not matter: accepted content is not replaced by other content.
    """
    states = {sha256: size for sha256, size in held.states.get(chunk.filename, {}).items() if sha256 != chunk.sha256}
    if not grows:
        return next(iter(states), None)
    digests = prefix_digests(new, [size for size in states.values() if size is not None])
    length, known = new.stat().st_size, held.chunks.get(chunk.filename)
    for sha256, size in states.items():
        if size is not None and size <= length:
            if digests.get(size) != sha256:
                return sha256
        elif known is not None and known.sha256 == sha256 and known.is_whole() and not begins_with(known.path, new):
            return sha256
    return None
