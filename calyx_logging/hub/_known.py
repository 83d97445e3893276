"""Recognise a bundle that is in the store, whole, by its manifest, so that none of its own chunks need be read."""

from __future__ import annotations

from pathlib import Path

from calyx_logging.bundle.folder import VerifiedBundle
from calyx_logging.core import files
from calyx_logging.core.parallel import several_at_once
from calyx_logging.core.reading import sha256_of
from calyx_logging.errors import CalyxError, ManifestError
from calyx_logging.format.manifest import MANIFEST_NAME, Manifest, is_safe_filename
from calyx_logging.hub.inventory import Held, holdings_of
from calyx_logging.hub.store import Note, Store

__all__ = ["known_bundle"]


def known_bundle(store: Store, folder: Path) -> tuple[VerifiedBundle, Path] | None:
    """Return a bundle that was imported before, and its folder in the store; None if it has to be looked at closely.

    It is known when the store has its manifest, byte for byte, and each of its chunks, by their hashes (or importing it
    again would repair nothing), and when the files at hand have the lengths that the manifest says.
    """
    try:
        data = files.read_regular(folder / MANIFEST_NAME)
        manifest, digest = Manifest.parse(data), sha256_of(data)
        if any(not is_safe_filename(chunk.filename) or chunk.bytes is None for chunk in manifest.chunks):
            return None
        if any((folder / chunk.filename).lstat().st_size != chunk.bytes for chunk in manifest.chunks):
            return None
        entries = store.load(manifest.node_id)
        entry = next((one for one in entries if one.manifest_sha256 == digest), None)
        if entry is None or store.unsettled or not store.is_sound(manifest.node_id):
            return None
        held = holdings_of(store, entries)
        if held.warnings or held.left_over:
            return None
        notes: dict[str, Note] = {}
        for one in entries:
            notes = store.checked(one) | notes
        chunks = {chunk.sha256: held.by_hash.get(chunk.sha256) for chunk in manifest.chunks}
        there = [one for one in chunks.values() if one is not None]
        if len(there) < len(chunks) or not chunks.keys() <= notes.keys():
            return None
        if not all(several_at_once(Held.is_whole, there)):
            return None
        events = sum(notes[chunk.sha256].scan.logged for chunk in manifest.chunks)
        return VerifiedBundle(folder, manifest, digest, (), events), store.bundle(entry)
    except (OSError, ManifestError, CalyxError):
        return None
