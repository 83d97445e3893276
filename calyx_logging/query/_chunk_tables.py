"""Write chunks as Parquet files for the time of one query.

Invariant: a chunk that cannot be read keeps no other from being asked; whoever asks is told of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from calyx_logging.errors import CalyxError, ChunkError, StorageError
from calyx_logging.format.chunk import OPEN_SUFFIX, SEALED_SUFFIX
from calyx_logging.format.reader import ChunkRef
from calyx_logging.query.executors import Engine, Here
from calyx_logging.query.rows import batches_of, schema, write_parquet

__all__ = ["in_files"]


@dataclass(frozen=True)
class _Task:
    ref: ChunkRef
    target: Path


def in_files(
    chunks: Iterable[ChunkRef],
    folder: Path,
    engine: Engine | None = None,
    warn: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write one Parquet file per chunk into the folder; skip chunks that have just been sealed or pruned.

    `warn` is told of chunks that cannot be read, which are left out; None raises.

    Raises:
        ChunkError, StorageError: a chunk cannot be read, or the folder cannot be written.
        ConfigError: pyarrow is not installed.
    """
    schema()
    tasks = [_Task(ref, folder / f"{number}.parquet") for number, ref in enumerate(chunks)]
    size = sum(_size(task.ref.path) for task in tasks)
    found = list((engine or Here()).map(_in_file, tasks, size))
    for error in found:
        if isinstance(error, CalyxError):
            if warn is None:
                raise error
            warn(str(error))
    return [task.target for task, is_there in zip(tasks, found, strict=True) if is_there is True]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _in_file(task: _Task) -> bool | CalyxError:
    """Write one chunk's file; return False where the chunk has gone, and the error where it cannot be read."""
    ref = task.ref
    sealed = ref.path.with_name(ref.path.name.removesuffix(OPEN_SUFFIX) + SEALED_SUFFIX)
    # an open one may have been sealed since it was listed
    for path in (ref.path, sealed) if ref.path.name.endswith(OPEN_SUFFIX) else (ref.path,):
        try:
            write_parquet(task.target, batches_of(path, ref.node_id, bundle=ref.bundle))
        except (ChunkError, StorageError) as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                return error
        except OSError as error:
            hint = "free some space in the temporary folder"
            raise StorageError.of(error, "make the table", task.target.parent, hint) from error
        else:
            return True
    return False
