"""The store's staging area: a folder for each import under way, and a lock that is held while its importer lives."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from calyx_logging.core import files
from calyx_logging.core.os_lock import Held, OsLock
from calyx_logging.core.reading import names_in
from calyx_logging.errors import StorageError

__all__ = ["staging_in"]


@contextmanager
def staging_in(store: Path) -> Iterator[Path]:
    """Create a private folder in a store, and remove it afterwards if it is still there; sweep those of dead importers.

    Raises:
        StorageError: the staging area is a link.
        OSError: it cannot be written.
    """
    area = store / ".staging"
    if area.is_symlink():
        raise StorageError("is a symbolic link", path=area, hint="delete it: what is in it gets deleted")
    token = secrets.token_hex(8)
    folder, lock = area / token, OsLock(area / f"{token}.lock")
    with OsLock(store / ".staging.lock"):  # or a lock that is just being made would be taken for a dead one's
        _sweep(area)
        lock.acquire()
    try:
        files.make_dirs(folder)
        yield folder
    finally:
        files.remove_tree(folder)
        lock.release()  # first, because Windows deletes no open file
        files.remove(area / f"{token}.lock")


def _sweep(area: Path) -> None:
    for name in names_in(area):
        token = name.removesuffix(".lock")
        lock = OsLock(area / f"{token}.lock")
        try:
            lock.acquire(blocking=False)
        except Held:
            continue  # it lives
        except OSError:
            continue  # somebody's folder of that name
        try:
            with suppress(OSError, RecursionError):  # somebody's own, nobody's harm
                files.remove_tree(area / token)
        finally:
            lock.release()
        with suppress(OSError):
            files.remove(area / f"{token}.lock")
