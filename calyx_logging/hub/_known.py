"""Recognise a bundle that is in the store, whole, by its manifest: then it is read where it is, and not copied."""

from __future__ import annotations

from pathlib import Path

from calyx_logging.bundle.folder import VerifiedBundle, check
from calyx_logging.core.parallel import several_at_once
from calyx_logging.core.reading import sha256_of
from calyx_logging.errors import CalyxError
from calyx_logging.format.chunk import open_chunk
from calyx_logging.format.manifest import MANIFEST_NAME, MAX_MANIFEST
from calyx_logging.hub.inventory import Held, holdings_of
from calyx_logging.hub.store import Store

__all__ = ["known_bundle"]


def known_bundle(store: Store, folder: Path) -> tuple[VerifiedBundle, Path] | None:
    """Return a bundle that was imported before, and its folder in the store; None if it has to be looked at closely.

    It is known when the store has its manifest, byte for byte, and each of its chunks, by their hashes (or importing it
    again would repair nothing), and when the files at hand have no fault.
    """
    try:
        with open_chunk(folder / MANIFEST_NAME) as stream:
            digest = sha256_of(stream.read(MAX_MANIFEST + 1))
        if not store.has(digest):
            return None
        report = check(folder)
        manifest = report.manifest
        if report.faults or manifest is None or report.manifest_sha256 != digest:
            return None
        entries = store.load(manifest.node_id)
        entry = next((one for one in entries if one.manifest_sha256 == digest), None)
        if entry is None or store.unsettled or not store.is_sound(manifest.node_id):
            return None
        held = holdings_of(store, entries)
        if held.warnings or held.left_over:
            return None
        notes = store.notes(entries)
        chunks = {chunk.sha256: held.by_hash.get(chunk.sha256) for chunk in manifest.chunks}
        there = [one for one in chunks.values() if one is not None]
        if (
            len(there) < len(chunks)
            or not chunks.keys() <= notes.keys()
            or not all(several_at_once(Held.is_whole, there))
        ):
            return None
        return VerifiedBundle(folder, manifest, digest, report.warnings, report.events), store.bundle(entry)
    except (OSError, CalyxError):
        return None
