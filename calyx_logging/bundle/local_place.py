"""Send bundles to a folder, such as a stick or a share, and read them there; a place of `object_store` without fsspec.

Invariant: a file appears under its name only when it is whole and checked. It is written under another name, flushed to
the disk, read back, and then renamed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from calyx_logging.core import files
from calyx_logging.core.reading import blocks_of, sha256_on_disk
from calyx_logging.errors import CalyxError, ConfigError, ManifestError, StorageError
from calyx_logging.format.chunk import open_chunk

__all__ = ["LocalPlace", "path_of_url"]

_PART = ".part"


def path_of_url(url: str) -> Path:
    """Return the path that a `file://` URL names.

    Raises:
        ConfigError: it names another host.
    """
    hint = "give the path of the folder, or file:///path"
    try:
        parts = urlsplit(url)
        path = url2pathname(parts.path)
    except ValueError as error:
        raise ConfigError(f"{url!r} is no URL: {error}", hint=hint) from None
    if parts.netloc not in ("", "localhost"):
        raise ConfigError(f"{url} is on another host", hint="give the path of the share, or file:///path")
    if not path or "\0" in path:
        raise ConfigError(f"{url!r} names no folder", hint=hint)
    if parts.query or parts.fragment:
        raise ConfigError(f"{url!r} has a ? or #", hint="give the path of the folder, or write %3F and %23")
    return Path(path)


@dataclass(frozen=True)
class LocalPlace:
    """The files below a folder, which need not be there yet; `url` is for messages."""

    url: str
    root: Path

    @classmethod
    def named(cls, path: str) -> LocalPlace:
        """Return the folder that a user named.

        Raises:
            ConfigError: no folder has that name.
        """
        if not path or "\0" in path:
            raise ConfigError("no folder is named", hint="name a folder, such as a stick, or s3://bucket/folder")
        try:
            return cls(path.rstrip("/\\") or path, Path(path).expanduser().absolute())
        except RuntimeError as error:  # there is no such user
            raise ConfigError(f"{path}: {error}", hint="name the folder in full") from None

    def below(self, name: str) -> LocalPlace:
        """Return a folder in this one."""
        return LocalPlace(f"{self.url}/{name}", self.root / name)

    def listing(self) -> dict[str, int]:
        """List every file below the folder by name, with its size in bytes; links are not followed."""
        found = {}
        with self.asked("list"):
            for folder, _, names in os.walk(self.root, onerror=_unless_missing):
                for name in names:
                    path = Path(folder, name)
                    if not name.endswith(_PART) and path.is_file() and not path.is_symlink():
                        found[path.relative_to(self.root).as_posix()] = path.lstat().st_size
        return found

    def size(self, name: str) -> int:
        """Return a file's size in bytes."""
        with self.asked("read", name):
            return self._path(name).lstat().st_size

    def blocks(self, name: str) -> Iterator[bytes]:
        """Yield a file's bytes."""
        with self.asked("read", name), open_chunk(self._path(name)) as stream:
            yield from blocks_of(stream)

    def put(self, source: Path, name: str) -> None:
        """Write a file and check it; one that is there and incomplete is replaced."""
        target = self._path(name)
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}{_PART}")
        with self.asked("write", name):
            files.make_dirs(target.parent)
            digest = hashlib.sha256()
            try:
                with source.open("rb") as stream:
                    files.write_new(part, _hashed(blocks_of(stream), digest))
                if sha256_on_disk(part) != digest.hexdigest():
                    raise ManifestError(f"{target} is not what was written", hint="the medium is faulty: use another")
                files.rename_over(part, target)
            finally:
                with suppress(OSError):
                    files.remove(part)

    @contextmanager
    def asked(self, what: str, name: str = "") -> Iterator[None]:
        """Turn errors into a StorageError that names the file."""
        try:
            yield
        except CalyxError:
            raise
        except OSError as error:
            full, other = "free space there, or take another", "check that it is there and can be written"
            hint = f"{full if files.is_full(error) else other}; running it again goes on from here"
            raise StorageError.of(error, what, self._path(name) if name else self.root, hint) from error

    def _path(self, name: str) -> Path:
        return self.root / name


def _hashed(blocks: Iterable[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    for block in blocks:
        digest.update(block)
        yield block


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
