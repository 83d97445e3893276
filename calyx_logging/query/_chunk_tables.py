"""Write chunks as Parquet files, for the time of one query or, beside an outbox, for later ones.

Invariant: a chunk that cannot be read keeps no other from being asked; whoever asks is told of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from calyx_logging.errors import CalyxError, ChunkError, StorageError
from calyx_logging.format.chunk import OPEN_SUFFIX, SEALED_SUFFIX
from calyx_logging.format.reader import ChunkRef
from calyx_logging.query._kept_tables import can_keep, forget, kept_table
from calyx_logging.query.executors import Engine, Here
from calyx_logging.query.rows import batches_of, schema, write_parquet

__all__ = ["in_files"]


@dataclass(frozen=True)
class _Task:
    """A chunk, the file for its rows, and whether that is kept beside the chunk instead, if possible."""

    ref: ChunkRef
    target: Path
    keep: bool


def in_files(
    chunks: Iterable[ChunkRef],
    folder: Path,
    engine: Engine | None = None,
    warn: Callable[[str], None] | None = None,
    *,
    keep: bool = False,
) -> list[Path]:
    """Write one Parquet file per chunk; skip chunks that have just been sealed or pruned.

    Args:
        chunks: of outboxes, bundles or a hub.
        folder: for the files.
        engine: makes them; None for this process.
        warn: is told of chunks that cannot be read, which are left out; None raises.
        keep: keep the files beside the chunks, and make only what has not been made before; those that cannot be kept
            go into the folder.

    Raises:
        ChunkError, StorageError: a chunk cannot be read, or the folder cannot be written.
        ConfigError: pyarrow is not installed.
    """
    schema()
    refs = list(chunks)
    outboxes = {ref.path.parent for ref in refs} if keep else set()
    with_room = {outbox for outbox in outboxes if can_keep(outbox)}
    tasks = [_Task(ref, folder / f"{number}.parquet", ref.path.parent in with_room) for number, ref in enumerate(refs)]
    size = sum(_size(task.ref.path) for task in tasks)
    found = list((engine or Here()).map(_in_file, tasks, size))
    for outbox in with_room:
        forget(outbox, (ref.path for ref in refs))
    for error in found:
        if isinstance(error, CalyxError):
            if warn is None:
                raise error
            warn(str(error))
    return [one for one in found if isinstance(one, Path)]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _in_file(task: _Task) -> Path | CalyxError | None:
    """Return the file with one chunk's rows, None where the chunk has gone, the error where it cannot be read."""
    ref = task.ref
    sealed = ref.path.with_name(ref.path.name.removesuffix(OPEN_SUFFIX) + SEALED_SUFFIX)
    # an open one may have been sealed since it was listed
    for path in (ref.path, sealed) if ref.path.name.endswith(OPEN_SUFFIX) else (ref.path,):
        one = ChunkRef(path, ref.node_id, ref.bundle)
        try:
            if task.keep and (kept := _kept(one)) is not None:
                return kept
            write_parquet(task.target, batches_of(path, ref.node_id, bundle=ref.bundle))
        except (ChunkError, StorageError) as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                return error
        except OSError as error:
            hint = "free some space in the temporary folder"
            raise StorageError.of(error, "make the table", task.target.parent, hint) from error
        else:
            return task.target
    return None


def _kept(ref: ChunkRef) -> Path | None:
    """Return the file that is kept; None where that is not possible, for whatever reason."""
    try:
        return kept_table(ref)
    except (OSError, CalyxError, ValueError):  # the last is pyarrow's, of a file that was damaged
        return None
