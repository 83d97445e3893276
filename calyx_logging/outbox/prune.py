"""Delete at the node what a hub has acknowledged, and nothing else.

Two steps: `plan` says what would be deleted, `carry_out` deletes it under the exporter's lock. Both compute each file's
hash again, so that changed files stay. Invariants: a chunk is deleted only if the hash of its present bytes is in the
receipt; a bundle's folder only if all its chunks are, and it is first renamed to a dot name, so that a killed prune
leaves no partial bundle; copies of manifests and the index stay.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from calyx_logging.bundle.archive import FORMATS, members_of
from calyx_logging.bundle.folder import check
from calyx_logging.bundle.staging import bring, verdict
from calyx_logging.bundle.verification import names_of
from calyx_logging.core import files
from calyx_logging.core.carriers import CHECKER_NAME, left_by, left_folder, shown, sort_names
from calyx_logging.core.locks import is_gone
from calyx_logging.core.parallel import several_at_once
from calyx_logging.core.reading import blocks_of, names_in, sha256_of, sha256_of_blocks
from calyx_logging.errors import ManifestError, StorageError
from calyx_logging.format.chunk import open_chunk
from calyx_logging.format.manifest import MANIFEST_NAME, Manifest
from calyx_logging.node import Node
from calyx_logging.outbox import contents, export_index, receipts
from calyx_logging.outbox.export_index import MANIFESTS_DIR
from calyx_logging.outbox.export_lock import exclusive
from calyx_logging.outbox.receipts import CarriedReceipt

__all__ = ["Plan", "carry_out", "plan", "take_note"]

_PRUNING = ".pruning-"
_CHECKING = ".checking-"


@dataclass
class Plan:
    """The files that a receipt allows to delete.

    Attributes:
        chunks: sealed chunks in the outbox, by file name, with their bytes.
        bundles: bundles' folders, by name, with their bytes.
        archives: archives of those bundles, by file name, with their bytes.
        kept: files that stay although they look acknowledged, and why.
    """

    chunks: dict[str, int] = field(default_factory=dict)
    bundles: dict[str, int] = field(default_factory=dict)
    archives: dict[str, int] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Total size of the files to delete."""
        return sum(sum(sizes.values()) for sizes in (self.chunks, self.bundles, self.archives))

    def __bool__(self) -> bool:
        return bool(self.chunks or self.bundles or self.archives)


def plan(node: Node, carried: CarriedReceipt) -> Plan:
    """Find what a receipt allows to delete; writes nothing but temporary copies of archives' contents.

    Args:
        node: the receipt's node.
        carried: the receipt.

    Raises:
        StorageError: a file cannot be read.
        OSError: the copy of an archive cannot be written.
    """
    known = set(carried.receipt.chunks)
    found = Plan()
    hashes = export_index.hashes(node)
    sealed = [name.sealed for name in contents.look(node.outbox).sealed]
    asked = [name for name in sealed if hashes.get(name) in known]
    for name, (sha256, size) in zip(asked, several_at_once(lambda one: _hash(node.outbox / one), asked), strict=True):
        if sha256 in known:
            found.chunks[name] = size
        else:
            found.kept.append(f"{node.outbox / name} has changed since it was exported: inspect it by hand")
    for name in names_in(node.exports):
        path = node.exports / name
        if name.startswith(".") or path.is_symlink() or left_by(name) is not None:
            continue
        if path.is_dir():
            _look_at_bundle(path, known, found)
        elif path.is_file():
            _look_at_archive(node, path, known, found)
    return found


def take_note(node: Node, carried: CarriedReceipt, *, clock: Callable[[], float] = time.time) -> None:
    """Save the receipt for `status` and `export --since-receipt`; deletes nothing.

    Raises:
        LockHeld: an export or a prune is running.
        StorageError: it cannot be written.
    """
    try:
        with exclusive(node, clock):
            receipts.keep(node, carried)
    except OSError as error:
        raise StorageError.of(error, "keep the receipt", error.filename or node.outbox) from error


def carry_out(node: Node, carried: CarriedReceipt, *, clock: Callable[[], float] = time.time) -> Plan:
    """Delete what `plan` finds now, and return what was deleted.

    Raises:
        LockHeld: an export or another prune is running.
        StorageError: as in `plan`, or a file cannot be deleted; everything deleted so far was acknowledged.
    """
    try:
        with exclusive(node, clock):
            for name in names_in(node.exports):
                if name.startswith(_PRUNING) or _is_left(node.exports / name):  # left by a killed prune
                    files.remove_tree(node.exports / name)
            done = export_index.load(node)
            export_index.save(node, done)  # copy every bundle's manifest before the bundle is deleted
            found = plan(node, carried)
            for name in found.chunks:
                files.remove(node.outbox / name)
            files.sync_dir(node.outbox)
            for name in found.archives:
                files.remove(node.exports / name)
            for name in found.bundles:
                files.publish(node.exports / name, node.exports / f"{_PRUNING}{name}")
                files.remove_tree(node.exports / f"{_PRUNING}{name}")
            return found
    except OSError as error:
        raise StorageError.of(
            error, "prune", error.filename or node.outbox, "check the folder's permissions"
        ) from error


def _is_left(path: Path) -> bool:
    """Tell whether a folder is the copy of an archive left by a killed process."""
    pid = path.name.removeprefix(_CHECKING).split("-", 1)[0]
    return path.name.startswith(_CHECKING) and is_gone(f"{pid} {socket.gethostname()}")


def _hash(path: Path) -> tuple[str, int]:
    with open_chunk(path) as stream:
        return sha256_of_blocks(blocks_of(stream))


def _look_at_bundle(folder: Path, known: set[str], found: Plan) -> None:
    try:
        manifest = Manifest.parse(files.read_regular(folder / MANIFEST_NAME))
    except (OSError, ManifestError) as error:
        found.kept.append(f"{folder} is not a readable bundle: {error}")
        return
    if not manifest.chunks or not known.issuperset(chunk.sha256 for chunk in manifest.chunks):
        return
    report = check(folder)
    if report.faults:
        found.kept.append(f"{folder} is damaged and stays: {report.faults[0]}")
        return
    there = sort_names(names_in(folder), names_of(manifest))
    belongs = {folder / name for name in there.found.values()}
    for path in folder.iterdir():
        left = there.leftovers.get(path.name)
        is_plain = path.is_file() or (path.is_dir() and left_folder(path.name) is not None)
        if path.is_symlink() or not is_plain or not (path in belongs or (left is not None and left.is_metadata)):
            found.kept.append(f"{folder} stays: {shown(path.name)} in it does not belong to the bundle")
            return
    found.bundles[folder.name] = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _look_at_archive(node: Node, path: Path, known: set[str], found: Plan) -> None:
    """Plan to delete an archive with its bundle if its manifest equals the copy kept under its name."""
    suffix = next((suffix for suffix in FORMATS if path.name.endswith(f".{suffix}")), None)
    if suffix is None:
        return
    try:
        data = files.read_regular(node.outbox / MANIFESTS_DIR / f"{path.name.removesuffix(f'.{suffix}')}.json")
        chunks = Manifest.parse(data).chunks
    except (OSError, ManifestError):
        return
    if not chunks or not known.issuperset(chunk.sha256 for chunk in chunks):
        return
    with tempfile.TemporaryDirectory(prefix=f"{_CHECKING}{os.getpid()}-", dir=node.exports) as room:
        reports = [verdict(copied) for copied in bring(path, Path(room))]
        report = reports[0]
        is_it = len(reports) == 1 and not report.faults and report.manifest_sha256 == sha256_of(data)
        if is_it and report.manifest is not None:
            with members_of(path, Path(room, "list")) as members:
                names = [member.path.rsplit("/", 1)[-1] for member in members if member.kind != "folder"]
            is_it = {CHECKER_NAME, *names_of(report.manifest)}.issuperset(names)
    if is_it:
        found.archives[path.name] = path.stat().st_size
    else:
        found.kept.append(f"{path} differs from the bundle of that name and stays")
