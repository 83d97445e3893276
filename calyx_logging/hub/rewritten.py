"""Record which rewritten chunks a person accepted at the hub as their node's word, and which content they replace.

    telemetry/federated/.rewritten/<node_id>/<manifest_sha256>.json    written before its bundle gets its final name

Invariants: nothing is deleted: replaced content stays in the folder of the bundle that brought it, and only no longer
counts. A note counts only while its bundle is in the store; of several on one chunk, the one imported last decides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from calyx_logging.core import files, json_bytes
from calyx_logging.errors import ManifestError
from calyx_logging.format.manifest import loads_object
from calyx_logging.hub.store import Entry, Store

__all__ = ["Rewrite", "note_rewrites", "replaced_by", "rewrites"]


@dataclass(frozen=True)
class Rewrite:
    """A rewritten chunk that was accepted.

    Attributes:
        filename: the chunk.
        sha256: its hash, which counts.
        replaces: hashes of earlier content, which no longer counts.
    """

    filename: str
    sha256: str
    replaces: tuple[str, ...]


def note_rewrites(store: Store, node_id: str, manifest_sha256: str, found: Iterable[Rewrite]) -> None:
    """Note the rewritten chunks of a bundle.

    Raises:
        OSError: the note cannot be written.
    """
    path = _path(store, node_id, manifest_sha256)
    files.make_dirs(path.parent)
    document = {"chunks": [asdict(one) for one in found]}
    files.replace_file(path, json_bytes.dumps(document, option=json_bytes.OPT_APPEND_NEWLINE))


def rewrites(store: Store, entry: Entry) -> tuple[Rewrite, ...]:
    """Return the rewritten chunks that were accepted with a bundle; none if there is no readable note."""
    try:
        document = loads_object(files.read_regular(_path(store, entry.node_id, entry.manifest_sha256)), "a note")
        return tuple(
            Rewrite(str(one["filename"]), str(one["sha256"]), tuple(map(str, one["replaces"])))
            for one in document["chunks"]
        )
    except (OSError, ManifestError, KeyError, TypeError):
        return ()


def replaced_by(store: Store, entries: Iterable[Entry]) -> Mapping[str, set[str]]:
    """Map the names of chunks to the hashes of their content that no longer counts."""
    found: dict[str, set[str]] = defaultdict(set)
    for entry in sorted(entries, key=lambda one: one.imported_at):
        for one in rewrites(store, entry):
            found[one.filename] = (found[one.filename] | set(one.replaces)) - {one.sha256}
    return found


def _path(store: Store, node_id: str, manifest_sha256: str) -> Path:
    return store.folder / ".rewritten" / node_id / f"{manifest_sha256}.json"
