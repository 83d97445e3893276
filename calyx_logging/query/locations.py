"""Find the chunks of an outbox, a hub's store or a bundle's folder; shared by all readers of events."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from calyx_logging.bundle.verification import names_of
from calyx_logging.core import files
from calyx_logging.core.carriers import sort_names
from calyx_logging.core.reading import names_in
from calyx_logging.errors import ConfigError, ManifestError, StorageError
from calyx_logging.format.chunk import OPEN_SUFFIX, SEALED_SUFFIX
from calyx_logging.format.manifest import MANIFEST_NAME, Manifest
from calyx_logging.format.reader import ChunkRef
from calyx_logging.hub.inventory import holdings_of
from calyx_logging.hub.store import Store, find_hub
from calyx_logging.node import Node
from calyx_logging.outbox.contents import look

__all__ = ["chunks_at"]


def chunks_at(place: str, root: str | os.PathLike[str] | None) -> Callable[[], list[ChunkRef]]:
    """Return a function that lists the chunks of a place at the time of the call.

    Args:
        place: `outbox`, `hub`, or the path of a bundle's folder.
        root: of the node or hub; None for the one that is found.

    Raises:
        CalyxError: there is no such place.
    """
    if place == "outbox":
        node = Node.find(root)
        return lambda: [ref for node_id in node.all_ids() for ref in _of_outbox(node.with_id(node_id))]
    if place == "hub":
        store = Store(find_hub(root))
        nodes = store.asked_for(())
        return lambda: [ref for node_id in nodes for ref in _of_hub(store, node_id)]
    if "://" in place:
        raise ConfigError(f"{place!r} is a URL", hint="import it into a hub first, and say --from hub")
    folder = Path(place)
    if not folder.is_dir():
        raise StorageError(
            "there is no such folder", path=folder, hint="say --from outbox, --from hub, or the folder of a bundle"
        )
    names = names_in(folder)
    manifest = _manifest_of(folder)
    there = sort_names(names, () if manifest is None else names_of(manifest))
    found = sorted(
        name for name in [*there.found.values(), *there.others] if name.endswith((SEALED_SUFFIX, OPEN_SUFFIX))
    )
    chunks = [ChunkRef(folder / name, None if manifest is None else manifest.node_id, folder.name) for name in found]
    if MANIFEST_NAME not in names and not chunks:
        raise ConfigError("is no bundle", path=folder, hint="name the folder that has manifest.json in it")
    return lambda: chunks


def _manifest_of(folder: Path) -> Manifest | None:
    """Return the manifest of a bundle; None if it cannot be read."""
    try:
        return Manifest.parse(files.read_regular(folder / MANIFEST_NAME))
    except (OSError, ManifestError):
        return None


def _of_outbox(node: Node) -> list[ChunkRef]:
    contents = look(node.outbox)
    names = [*(name.sealed for name in contents.sealed), *contents.foreign, *(name.open for name in contents.open)]
    names += contents.odd  # so that the reader says that it cannot read it
    return [ChunkRef(node.outbox / name, node.id) for name in names]


def _of_hub(store: Store, node_id: str) -> list[ChunkRef]:
    held = sorted(holdings_of(store, store.load(node_id)).chunks.values(), key=lambda one: one.path)
    return [ChunkRef(one.path, node_id, one.entry.folder) for one in held]
