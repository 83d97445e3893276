"""A bundle as one file: `.zip` and `.tar.gz`, written for the way, read with suspicion.

Reading gives members as they are named, one by one; nothing is extracted here, and no name is joined to a path. What an
archive can make its reader do is bounded: what it unpacks to, how many members, how long a header.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from calyx_logging.core import files
from calyx_logging.core.reading import BLOCK, names_in
from calyx_logging.errors import ArchiveError, StorageError
from calyx_logging.format.chunk import open_chunk
from calyx_logging.format.manifest import MANIFEST_NAME, SUMS_NAME

__all__ = ["FORMATS", "Member", "has_archive_name", "is_archive", "members_of", "unpacked_limit", "write_archive"]

FORMATS = ("zip", "tar.gz")
"""What `write_archive` writes."""

_SUFFIXES = (".zip", ".tar.gz", ".tgz")
_MAX_MEMBERS = 250_000
_MAX_DIRECTORY = 32 * 1024 * 1024
"""Of a zip."""

_MAX_HEADER = 4096
"""Of a tar: tarfile reads a larger one in quadratic time."""

_MAX_HEADERS = 1024 * 1024
"""Of one tar in all, those of 512 bytes, which have no text of any length, not counted."""

_ALWAYS_UNPACKED = 256 * 1024 * 1024
_RATIO = 200
"""Lines with random ids in them are never pressed to less than a hundredth."""

_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    RecursionError,
    IndexError,
    KeyError,
)


@dataclass(frozen=True)
class Member:
    """One entry of an archive.

    Attributes:
        path: its name, as it stands there.
        size: bytes it unpacks to, as the archive says.
        kind: `file`, `folder`, or what else it is.
        blocks: its bytes; at most `size` of them.
    """

    path: str
    size: int
    kind: str
    blocks: Callable[[], Iterator[bytes]]


def is_archive(path: Path) -> bool:
    """Whether a path is a file of a name that archives have."""
    return has_archive_name(path.name) and path.is_file()


def has_archive_name(name: str) -> bool:
    """Whether a name is one that archives have."""
    return name.lower().endswith(_SUFFIXES)


def unpacked_limit(size: int) -> int:
    """Bytes that an archive of `size` bytes may unpack to."""
    return max(_ALWAYS_UNPACKED, _RATIO * size)


# ------------------------------------------------------------------ writing


def write_archive(bundle: Path, target: Path) -> None:
    """Pack a finished bundle's folder; `target` (`….zip`, `….tar.gz`) has its name only when it is whole and synced.

    The members stand in a folder of the bundle's name, the manifest first. The same bundle gives the same bytes.

    Raises:
        ChunkError: something in it is no regular file.
        StorageError: a file cannot be read or written.
    """
    names = [name for name in names_in(bundle) if not name.startswith(".")]
    names.sort(key=lambda name: (name != MANIFEST_NAME, name != SUMS_NAME, name))
    temporary = target.with_name(f".{target.name}.tmp")
    pack = _pack_zip if target.name.endswith(".zip") else _pack_tar
    try:
        files.write_file(temporary, lambda stream: pack(bundle, names, stream))
        files.rename_over(temporary, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            files.remove(temporary)
        raise StorageError.of(error, "write the archive", target, "free some space, or check the rights") from error


def _pack_zip(bundle: Path, names: list[str], stream: BinaryIO) -> None:
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        for name in names:
            info = zipfile.ZipInfo(f"{bundle.name}/{name}")
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            with open_chunk(bundle / name) as source:
                large = os.fstat(source.fileno()).st_size > 2**31 - 2**20
                with archive.open(info, "w", force_zip64=large) as member:
                    while block := source.read(BLOCK):
                        member.write(block)


def _pack_tar(bundle: Path, names: list[str], stream: BinaryIO) -> None:
    with (
        gzip.GzipFile("", "wb", 6, stream, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in names:
            info = tarfile.TarInfo(f"{bundle.name}/{name}")
            with open_chunk(bundle / name) as source:
                info.size = os.fstat(source.fileno()).st_size
                archive.addfile(info, source)


# ------------------------------------------------------------------ reading


@contextmanager
def members_of(path: Path, scratch: Path) -> Iterator[list[Member]]:
    """The members of an archive, whose `blocks` can be read until the context ends.

    Args:
        path: of the archive; nobody else may write to it meanwhile.
        scratch: a file that does not exist, for what a `.tar.gz` unpacks to; its caller deletes it.

    Raises:
        ArchiveError: it is none, is damaged, or would unpack to far more than bundles do.
        OSError: a file cannot be read or written.
    """
    with contextlib.ExitStack() as stack:
        try:
            if path.name.lower().endswith(".zip"):
                members = _zip_members(path, stack)
            else:
                limit = min(unpacked_limit(path.stat().st_size), shutil.disk_usage(scratch.parent).free)
                files.write_new(scratch, _unpacked(path, limit), sync=False)
                members = _tar_members(scratch, stack)
        except gzip.BadGzipFile as error:
            raise ArchiveError(f"the archive is damaged: {error}") from None
        except _BROKEN as error:
            raise ArchiveError(f"the archive is damaged: {error or type(error).__name__}") from None
        yield members


def _unpacked(path: Path, limit: int) -> Iterator[bytes]:
    done = 0
    with gzip.open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            done += len(block)
            if done > limit:
                raise ArchiveError(
                    f"the archive unpacks to more than {limit} bytes: more than is free, or far more than a bundle does"
                )
            yield block


def _zip_members(path: Path, stack: contextlib.ExitStack) -> list[Member]:
    archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(_Bounded(path, _MAX_DIRECTORY)), "r"))
    infos = archive.infolist()
    if len(infos) > _MAX_MEMBERS:
        raise ArchiveError(f"the archive has {len(infos)} members, more than a bundle has chunks")
    return [Member(info.orig_filename, info.file_size, _zip_kind(info), _zip_reader(archive, info)) for info in infos]


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & 0x1:
        return "an encrypted file"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "a file of a compression that is not read here"
    if info.orig_filename.endswith("/"):
        return "folder"
    if mode == stat.S_IFLNK:
        return "a symbolic link"
    return "file" if mode in (0, stat.S_IFREG) else "a special file"


def _zip_reader(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], Iterator[bytes]]:
    def blocks() -> Iterator[bytes]:
        try:
            with archive.open(info) as stream:
                yield from _blocks_of(stream, info.file_size)
        except _BROKEN as error:
            raise ArchiveError(f"the archive is damaged: {error or type(error).__name__}") from None

    return blocks


def _tar_members(path: Path, stack: contextlib.ExitStack) -> list[Member]:
    stream = stack.enter_context(_Bounded(path, _MAX_HEADER))
    members: list[Member] = []
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # or it keeps them all
            if len(members) >= _MAX_MEMBERS:
                raise ArchiveError(f"the archive has more than {_MAX_MEMBERS} members, more than a bundle has chunks")
            reader = _tar_reader(stream, info.offset_data, info.size)
            members.append(Member(info.name, info.size, _tar_kind(info), reader))
    return members


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.issym():
        return "a symbolic link"
    if info.islnk():
        return "a hard link"
    if info.isdir():
        return "folder"
    if info.issparse():
        return "a sparse file"
    return "file" if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) else "a special file"


def _tar_reader(stream: _Bounded, start: int, size: int) -> Callable[[], Iterator[bytes]]:
    def blocks() -> Iterator[bytes]:
        stream.limit, stream.headers = BLOCK, 0
        stream.seek(start)
        yield from _blocks_of(stream, size)

    return blocks


def _blocks_of(stream: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0 and (block := stream.read(min(BLOCK, size))):
        size -= len(block)
        yield block
    if size > 0:
        raise ArchiveError(f"the archive is damaged: it ends {size} bytes too early")


class _Bounded(io.BufferedReader):
    """A file whose reader never gets more than `limit` bytes at a time, whatever a header says."""

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__(cast(io.BufferedReader, open_chunk(path)).detach())
        self.limit = limit
        self.headers = 0

    def seek(self, target: int, whence: int = 0, /) -> int:
        """As in io; ArchiveError for a place that no file has."""
        try:
            return super().seek(target, whence)
        except (OSError, ValueError):
            if whence:
                raise  # from the end, in a file that is shorter: zipfile asks so whether it is one
            raise ArchiveError(f"the archive points to a place that it does not have ({target})") from None

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to `size` bytes; ArchiveError when that is too much."""
        wanted = os.fstat(self.fileno()).st_size - self.tell() if size is None or size < 0 else size
        self.headers += wanted if 512 < wanted <= _MAX_HEADER else 0
        if wanted > self.limit or self.headers > _MAX_HEADERS:
            raise ArchiveError(f"the archive has a header of {wanted} bytes, or too many")
        return super().read(wanted)
