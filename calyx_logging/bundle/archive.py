"""Write a bundle as one file, `.zip` or `.tar.gz`, and read such files safely.

Reading yields members one by one with the names they have; nothing is extracted here, and no name is joined to a path.
Limits protect the reader: on the unpacked size, the number of members, and the length of headers.
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

from calyx_logging.bundle.verification import names_of
from calyx_logging.core import files
from calyx_logging.core.carriers import CHECKER_NAME, sort_names
from calyx_logging.core.reading import BLOCK, names_in
from calyx_logging.errors import ArchiveError, ManifestError, StorageError
from calyx_logging.format.chunk import open_chunk
from calyx_logging.format.manifest import MANIFEST_NAME, SUMS_NAME, Manifest

__all__ = ["FORMATS", "Member", "has_archive_name", "is_archive", "members_of", "unpacked_limit", "write_archive"]

FORMATS = ("zip", "tar.gz")
"""The formats that `write_archive` writes."""

_SUFFIXES = (".zip", ".tar.gz", ".tgz")
_MAX_MEMBERS = 250_000
_MAX_DIRECTORY = 32 * 1024 * 1024
"""The largest central directory of a zip, in bytes."""

_MAX_HEADER = 4096
"""The largest header of a tar, in bytes; tarfile needs quadratic time for larger ones."""

_MAX_HEADERS = 1024 * 1024
"""The most bytes of all headers of a tar, without the plain ones of 512 bytes, whose texts have a fixed length."""

_ALWAYS_UNPACKED = 256 * 1024 * 1024
_RATIO = 200
"""The highest ratio of unpacked to packed bytes; lines with random ids never compress to less than a hundredth."""

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
        path: its name in the archive.
        size: the bytes it unpacks to, as the archive says.
        kind: `file`, `folder`, or another kind.
        blocks: returns its bytes, at most `size` of them.
    """

    path: str
    size: int
    kind: str
    blocks: Callable[[], Iterator[bytes]]


def is_archive(path: Path) -> bool:
    """Tell whether a path is a file with an archive's name."""
    return has_archive_name(path.name) and path.is_file()


def has_archive_name(name: str) -> bool:
    """Tell whether a name is an archive's."""
    return name.lower().endswith(_SUFFIXES)


def unpacked_limit(size: int) -> int:
    """Return how many bytes an archive of `size` bytes may unpack to."""
    return max(_ALWAYS_UNPACKED, _RATIO * size)


# ------------------------------------------------------------------ writing


def write_archive(bundle: Path, target: Path) -> None:
    """Pack a finished bundle's folder into `target` (`….zip` or `….tar.gz`).

    The archive gets its name only once it is complete and synced. Its members are in a folder with the bundle's name,
    the manifest first. The same bundle gives the same bytes.

    Raises:
        ChunkError: something in it is not a regular file.
        StorageError: a file cannot be read or written.
    """
    there = sort_names([name for name in names_in(bundle) if not name.startswith(".")], _listed_in(bundle))
    names = [*there.found.values(), *there.others, *there.leftovers.keys() & {CHECKER_NAME}]
    names.sort(key=lambda name: (name != MANIFEST_NAME, name != SUMS_NAME, name))
    temporary = target.with_name(f".{target.name}.tmp")
    pack = _pack_zip if target.name.endswith(".zip") else _pack_tar
    try:
        files.write_file(temporary, lambda stream: pack(bundle, names, stream))
        files.rename_over(temporary, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            files.remove(temporary)
        raise StorageError.of(
            error, "write the archive", target, "free some space, or check the permissions"
        ) from error


def _listed_in(bundle: Path) -> set[str]:
    with contextlib.suppress(OSError, ManifestError):  # packed as it is: who reads the archive checks it
        return names_of(Manifest.parse(files.read_regular(bundle / MANIFEST_NAME)))
    return set()


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
    """Yield an archive's members; their `blocks` can be read until the context ends.

    Args:
        path: the archive; nobody may write to it meanwhile.
        scratch: a file that does not exist, for the unpacked content of a `.tar.gz`; the caller deletes it.

    Raises:
        ArchiveError: it is not an archive, is damaged, or would unpack to far more than bundles do.
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
    return [Member(_zip_name(info), info.file_size, _zip_kind(info), _zip_reader(archive, info)) for info in infos]


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return a member's name; Finder and `zip` write UTF-8 without the flag for it, and zipfile takes it for cp437."""
    name = info.orig_filename
    if info.flag_bits & 0x800 or name.isascii():
        return name
    try:
        return name.encode("cp437").decode()
    except UnicodeError:
        return name


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
    """A file that never reads more than `limit` bytes at a time, whatever a header says."""

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__(cast(io.BufferedReader, open_chunk(path)).detach())
        self.limit = limit
        self.headers = 0

    def seek(self, target: int, whence: int = 0, /) -> int:
        """Seek as in io; raise ArchiveError for an impossible position."""
        try:
            return super().seek(target, whence)
        except (OSError, ValueError):
            if whence:
                raise  # before the start of a short file: zipfile's test whether it is a zip
            raise ArchiveError(f"the archive refers to a position outside itself ({target})") from None

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `size` bytes; raise ArchiveError if that exceeds the limit."""
        wanted = os.fstat(self.fileno()).st_size - self.tell() if size is None or size < 0 else size
        self.headers += wanted if 512 < wanted <= _MAX_HEADER else 0
        if wanted > self.limit or self.headers > _MAX_HEADERS:
            raise ArchiveError(f"the archive has a header of {wanted} bytes, or too many")
        return super().read(wanted)
