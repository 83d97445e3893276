"""Write chunks as Parquet files: for the time of one query, or, of an outbox's sealed chunks, to be kept for the next.

    telemetry/outbox/<node_id>/.table/<key>-<hash>.parquet    a sealed chunk's rows

The key is of the chunk's name, length and time of change, of the node and of the table's version; the hash is of the
file's own bytes. So a file is used only for the chunk that it was made from, and only undamaged; it never changes, and
may be deleted at any time. Invariant: a chunk that cannot be read keeps no other from being asked; whoever asks is told
of it.
"""

from __future__ import annotations

import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from calyx_logging.core import files
from calyx_logging.core.reading import names_in, sha256_of
from calyx_logging.errors import CalyxError, ChunkError, StorageError
from calyx_logging.format.chunk import OPEN_SUFFIX, SEALED_SUFFIX, ChunkName
from calyx_logging.format.reader import ChunkRef
from calyx_logging.hub.inventory import digest_of
from calyx_logging.query.executors import Engine, or_threads
from calyx_logging.query.rows import TABLE_VERSION, batches_of, schema, write_parquet

__all__ = ["in_files"]

_WORTH_KEEPING = 8 * 1024 * 1024
"""Below this many bytes of chunks, making the rows is as fast as looking them up."""

_OURS = re.compile(r"[0-9a-f]{32}-[0-9a-f]{32}\.parquet|\.[0-9a-f]{16}\.tmp", re.ASCII)
_LEFT = 86_400.0
"""Seconds after which a file is deleted whose chunk is gone."""


@dataclass(frozen=True)
class _Task:
    """A chunk and the path of its file for one query; with `kept`, the folder and key to keep it under instead."""

    ref: ChunkRef
    target: Path
    kept: Path | None = None
    key: str = ""


def in_files(
    chunks: Iterable[ChunkRef],
    folder: Path,
    engine: Engine | None = None,
    warn: Callable[[str], None] | None = None,
    *,
    keep: bool = False,
) -> list[Path]:
    """Return one Parquet file per chunk, written into the folder; without chunks that have just been sealed or pruned.

    Args:
        chunks: which.
        folder: a temporary one.
        engine: makes the files; None for this process.
        warn: is told of chunks that cannot be read, which are left out; None raises.
        keep: use and keep files of sealed chunks in a folder beside them.

    Raises:
        ChunkError, StorageError: a chunk cannot be read, or the folder cannot be written.
        ConfigError: pyarrow is not installed.
    """
    schema()
    refs = list(chunks)
    keys = _keys_of(refs) if keep and sum(_size(ref.path) for ref in refs) > _WORTH_KEEPING else {}
    there = {kept: _kept_in(kept) for kept in {ref.path.parent / ".table" for ref in keys}}
    found: list[Path | CalyxError | None] = []
    tasks: list[_Task] = []
    for number, ref in enumerate(refs):
        task, kept = _Task(ref, folder / f"{number}.parquet"), ref.path.parent / ".table"
        if (key := keys.get(ref)) is None:
            tasks.append(task)
        elif (path := there[kept].get(key)) is not None and _is_whole(path):
            found.append(path)
        else:
            tasks.append(replace(task, kept=kept, key=key))
    size = sum(_size(task.ref.path) for task in tasks)
    found += or_threads(engine, size).map(_in_file, tasks, size)
    for error in found:
        if isinstance(error, CalyxError):
            if warn is None:
                raise error
            warn(str(error))
    for kept in there:
        _sweep(kept, set(keys.values()))
    return [path for path in found if isinstance(path, Path)]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _in_file(task: _Task) -> Path | CalyxError | None:
    """Write one chunk's file; return None where the chunk has gone, and the error where it cannot be read."""
    ref, target = task.ref, task.target
    if task.kept is not None and (path := _to_be_kept(task.kept)) is not None:
        target = path
    sealed = ref.path.with_name(ref.path.name.removesuffix(OPEN_SUFFIX) + SEALED_SUFFIX)
    # an open one may have been sealed since it was listed
    for path in (ref.path, sealed) if ref.path.name.endswith(OPEN_SUFFIX) else (ref.path,):
        try:
            write_parquet(target, batches_of(path, ref.node_id, bundle=ref.bundle))
            return target if target is task.target else _named(target, task.key)
        except (ChunkError, StorageError) as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                return error
        except OSError as error:
            if target is not task.target:  # the disk of the outbox is full, say
                return _in_file(replace(task, kept=None))
            hint = "free some space in the temporary folder"
            raise StorageError.of(error, "make the table", target.parent, hint) from error
    return None


# ------------------------------------------------------------------ files that are kept


def _keys_of(refs: Iterable[ChunkRef]) -> dict[ChunkRef, str]:
    """Return keys for the chunks that never change, which are our own sealed ones."""
    found = {}
    for ref in refs:
        name = ChunkName.parse(ref.path.name)
        if name is None or ref.path.name != name.sealed:
            continue
        with suppress(OSError):
            state = ref.path.lstat()
            what = (TABLE_VERSION, ref.node_id, ref.bundle, name.sealed, state.st_size, state.st_mtime_ns)
            found[ref] = sha256_of(repr(what).encode())[:32]
    return found


def _kept_in(folder: Path) -> dict[str, Path]:
    """Return a folder's files by key; nothing if it is a link or cannot be read."""
    if folder.is_symlink():
        return {}
    with suppress(StorageError):
        return {name.partition("-")[0]: folder / name for name in names_in(folder) if _OURS.fullmatch(name)}
    return {}


def _is_whole(path: Path) -> bool:
    try:
        is_regular = stat.S_ISREG(path.lstat().st_mode)
        return is_regular and path.stem.partition("-")[2] == digest_of(path)[:32]
    except (CalyxError, OSError):
        return False


def _to_be_kept(folder: Path) -> Path | None:
    """Return a path for a new file in the folder; None if it is a link or cannot be made."""
    with suppress(OSError):
        files.make_dirs(folder)
        return None if folder.is_symlink() else folder / f".{secrets.token_hex(8)}.tmp"
    return None


def _named(made: Path, key: str) -> Path:
    """Rename a finished file by its content, unless another query has just made the same one."""
    target = made.with_name(f"{key}-{digest_of(made)[:32]}.parquet")
    if _is_whole(target):
        files.remove(made)
    else:  # what is there under this name is damaged
        files.rename_over(made, target, sync=False)
    return target


def _sweep(folder: Path, wanted: set[str]) -> None:
    """Delete files whose chunk has long been gone, and those that were left half-made."""
    before = time.time() - _LEFT
    for name in [] if folder.is_symlink() or not folder.is_dir() else names_in(folder):
        path = folder / name
        with suppress(OSError):
            if _OURS.fullmatch(name) and name[:32] not in wanted and path.lstat().st_mtime < before:
                files.remove(path)
