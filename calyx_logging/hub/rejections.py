"""Record in the store which bundles the hub refused, and why, so that this can be looked up later.

    telemetry/federated/.refused/<hash of the source>.json    the last time that a bundle from there was refused

Invariant: a note that cannot be written or read stops no import. It is deleted when a bundle from
the same place is taken in, and counts as settled when the same bundle has come from another.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass

from calyx_logging.bundle.verification import Fault
from calyx_logging.core import files, json_bytes
from calyx_logging.core.reading import names_in, sha256_of
from calyx_logging.errors import ManifestError
from calyx_logging.format.manifest import loads_object
from calyx_logging.hub.store import Store

__all__ = ["Refusal", "note_refused", "note_taken", "refusals"]

_MAX_FAULTS = 20
_MAX_TEXT = 500
_MAX_NOTES = 1000


@dataclass(frozen=True)
class Refusal:
    """A bundle that was refused.

    Attributes:
        source: where it came from.
        refused_at: UTC, as `ts_utc`.
        node_id, timestamp, manifest_sha256: of its manifest; None where that cannot be read.
        faults: the first of them, in words.
        fault_count: how many there were.
    """

    source: str
    refused_at: str
    node_id: str | None
    timestamp: str | None
    manifest_sha256: str | None
    faults: tuple[str, ...]
    fault_count: int


def note_refused(
    store: Store,
    source: str,
    refused_at: str,
    faults: Iterable[Fault],
    *,
    node_id: str | None,
    timestamp: str | None,
    manifest_sha256: str | None,
) -> None:
    """Note a refusal; delete the oldest notes when there are too many.

    Raises:
        OSError: it cannot be written.
    """
    fault_texts = [str(fault)[:_MAX_TEXT] for fault in faults]
    names = (node_id, None if timestamp is None else timestamp[:_MAX_TEXT], manifest_sha256)
    note = Refusal(source, refused_at, *names, tuple(fault_texts[:_MAX_FAULTS]), len(fault_texts))
    files.make_dirs(store.refused)
    files.replace_file(
        store.refused / _name(source), json_bytes.dumps(asdict(note), option=json_bytes.OPT_APPEND_NEWLINE)
    )
    known = names_in(store.refused)
    if len(known) > _MAX_NOTES:
        oldest = sorted((_mtime(store, name), name) for name in known)
        for _, name in oldest[: len(known) - _MAX_NOTES]:
            files.remove(store.refused / name)


def note_taken(store: Store, source: str) -> None:
    """Delete the note about a source whose bundle has been imported."""
    with suppress(OSError):
        files.remove(store.refused / _name(source))


def refusals(store: Store) -> list[Refusal]:
    """List refused bundles that have not been imported since, newest first; skip notes that cannot be read."""
    found = []
    for name in names_in(store.refused):
        with suppress(OSError, ManifestError, KeyError, TypeError, ValueError):
            document = loads_object(files.read_regular(store.refused / name), "a refusal")
            texts = {key: None if document[key] is None else str(document[key]) for key in Refusal.__annotations__}
            if texts["source"] is None or texts["refused_at"] is None:
                continue
            faults = tuple(str(fault)[:_MAX_TEXT] for fault in document["faults"])
            found.append(Refusal(**{**texts, "faults": faults, "fault_count": int(document["fault_count"])}))  # type: ignore[arg-type]
    open_ones = [one for one in found if one.manifest_sha256 is None or not store.has(one.manifest_sha256)]
    return sorted(open_ones, key=lambda one: one.refused_at, reverse=True)


def _name(source: str) -> str:
    return f"{sha256_of(source.encode('utf-8', 'surrogatepass'))[:32]}.json"


def _mtime(store: Store, name: str) -> float:
    try:
        return (store.refused / name).lstat().st_mtime
    except OSError:
        return 0.0
