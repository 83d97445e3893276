"""Send bundles to a folder, to object storage, or anywhere else that fsspec reaches, and read them there.

    URL/<node_id>/<YYYYMMDD_HHMMSS>/    a bundle, as in exports/telemetry_exports

A bundle's manifest is sent last, so a partly sent bundle is never imported. Files already there are not sent again, and
nothing is replaced by other content. The store's own library handles credentials and endpoints; for S3 these are the
usual environment variables and files (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL …). URLs need fsspec and the
store's library; the extra `s3` installs both for s3://. A path, or a URL with file://, needs nothing (`local_place`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from calyx_logging.bundle.archive import has_archive_name
from calyx_logging.bundle.local_place import LocalPlace, path_of_url
from calyx_logging.core import files
from calyx_logging.core.carriers import CHECKER_NAME, left_by, left_folder
from calyx_logging.core.reading import BLOCK, names_in, sha256_of_blocks
from calyx_logging.errors import CalyxError, ConfigError, ManifestError, StorageError
from calyx_logging.format.chunk import SEALED_SUFFIX
from calyx_logging.format.manifest import MANIFEST_NAME, SIGNATURE_NAME, SUMS_NAME, Manifest

__all__ = ["RemoteBundle", "Sent", "bundles_at", "check_url", "is_url", "local_folder", "send"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_PLACED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://+[^/]")
_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@\s]*@")
_SECRET = re.compile(r"([?&][^=&\s]+)=[^&\s]+")
_ASKED_AT_ONCE = 8 * BLOCK
"""Bytes per request, because each one to an object store has a fixed delay."""

_MAKES_CONDITIONALLY = ("s3", "s3a")
"""Stores that can create an object only if it does not exist."""


def _without_password(url: str) -> str:
    return _SECRET.sub(r"\1=***", _PASSWORD.sub(r"\1:***@", url))


def _secret_of(url: str) -> str | None:
    found = _PASSWORD.search(url)
    return found[0].partition("://")[2].partition(":")[2].removesuffix("@") if found else None


def is_url(text: str) -> bool:
    """Tell whether a text is a URL for fsspec rather than a local path."""
    return _URL.match(text) is not None


def check_url(url: str) -> None:
    """Check a URL, or the path of a folder, before any work, and without contacting the store.

    Raises:
        ConfigError: it is no URL of a place, there is no such folder, or the library for it is not installed.
    """
    place = _local(url)
    if place is not None:
        if not place.root.is_dir():
            hint = "is the stick or share there? Make the folder first; an object store is named as s3://bucket/folder"
            raise ConfigError(f"there is no folder {place.root}", hint=hint)
        return
    if not _PLACED.match(url):
        raise ConfigError(f"{url!r} is no URL of a place", hint="name it as s3://bucket/folder")
    if url.startswith("memory://"):
        raise ConfigError("what is sent to memory:// is gone with this process", hint="name it as s3://bucket/folder")
    _Files.of(url)


def local_folder(url: str) -> Path | None:
    """Return the folder that a path or a file:// URL names; None for any other URL."""
    place = _local(url)
    return None if place is None else place.root


def _local(url: str) -> LocalPlace | None:
    """Return the folder that a path or a file:// URL names."""
    if url.startswith("file://"):
        return LocalPlace(url.rstrip("/"), path_of_url(url))
    return None if is_url(url) else LocalPlace.named(url)


def _place_of(url: str) -> _Files | LocalPlace:
    return _local(url) or _Files.of(url)


@dataclass(frozen=True)
class _Files:
    """The files below a URL; `url` is for messages."""

    url: str
    system: Any
    root: str
    secret: str | None = None

    @classmethod
    def of(cls, url: str) -> _Files:
        if not _PLACED.match(url):
            raise ConfigError(f"{url!r} is no URL of a place", hint="name it as s3://bucket/folder")
        extra = "s3" if url.startswith(("s3:", "s3a:")) else None
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise ConfigError(
                f"{_without_password(url)} needs fsspec, which is not installed ({error})", hint=_hint(extra)
            ) from None
        try:
            system, root = url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"{_without_password(url)} cannot be used: {_error_text(error, _secret_of(url))}", hint=_hint(extra)
            ) from None
        except Exception as error:
            raise StorageError(
                f"{_without_password(url)} cannot be reached: {_error_text(error, _secret_of(url))}"
            ) from None
        return cls(_without_password(url.rstrip("/")), system, root.rstrip("/"), _secret_of(url))

    @contextmanager
    def asked(self, what: str, name: str = "") -> Iterator[None]:
        """Turn the errors of the store's library into a StorageError of one line."""
        try:
            yield
        except CalyxError:
            raise
        except Exception as error:
            place = f"{self.url}/{name}" if name else self.url
            hint = "check the network, the credentials and the bucket's name; running it again goes on from here"
            raise StorageError(f"cannot {what} {place}: {_error_text(error, self.secret)}", hint=hint) from error

    def below(self, name: str) -> _Files:
        """Return a folder in this one."""
        return replace(self, url=f"{self.url}/{name}", root=f"{self.root}/{name}")

    def path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def listing(self) -> dict[str, int]:
        """List every file below a folder by name, with its size in bytes."""
        with self.asked("list"):
            bucket = self.root.partition("/")[0]
            if self.is_s3 and not self.system.exists(bucket):
                raise StorageError(f"there is no bucket {bucket}", hint="make it, or name another")
            try:
                found = self.system.find(self.root, detail=True)
            except FileNotFoundError:
                return {}
        below = {path.removeprefix(self.root).lstrip("/"): info for path, info in found.items()}
        # a web console's folder marker is an object, but not a file
        return {name: int(info.get("size") or 0) for name, info in below.items() if name and not name.endswith("/")}

    @property
    def is_s3(self) -> bool:
        """Whether it can create an object only if it does not exist."""
        protocol = self.system.protocol
        return not set(_MAKES_CONDITIONALLY).isdisjoint([protocol] if isinstance(protocol, str) else protocol)

    def size(self, name: str) -> int:
        """Return a file's size in bytes, 0 if unknown."""
        with self.asked("read", name):
            return int(self.system.info(self.path(name)).get("size") or 0)

    def put(self, source: Path, name: str) -> None:
        """Send one file; accept it if another process has just sent the same content."""
        with self.asked("write", name):
            if self.is_s3:
                try:
                    self.system.put_file(str(source), self.path(name), mode="create")
                except FileExistsError:
                    if not _is_there(self, name, source, self.size(name)):
                        raise _another(self, name) from None
                return
            self.system.makedirs(self.path(name).rpartition("/")[0], exist_ok=True)
            self.system.put_file(str(source), self.path(name))

    def blocks(self, name: str) -> Iterator[bytes]:
        with self.asked("read", name), self.system.open(self.path(name), "rb", block_size=_ASKED_AT_ONCE) as stream:
            while block := stream.read(_ASKED_AT_ONCE):
                yield block


def _hint(extra: str | None) -> str:
    return f'pip install "calyx-logging[{extra}]"' if extra else "pip install fsspec and the library of that store"


def _error_text(error: Exception, secret: str | None) -> str:
    text = " ".join(_without_password(str(error)).split())
    text = text.replace(secret, "***") if secret else text
    return text[:300] or type(error).__name__


# ------------------------------------------------------------------ from there


@dataclass(frozen=True)
class RemoteBundle:
    """A bundle's folder, or an archive, at a URL; a `Source` for imports.

    Attributes:
        url: its URL.
    """

    url: str

    def __str__(self) -> str:
        return _without_password(self.url)

    @property
    def name(self) -> str:
        """The last part of its URL."""
        return self.url.rpartition("/")[2]

    @property
    def is_archive(self) -> bool:
        """Whether it is an archive, by its name."""
        return has_archive_name(self.url)

    def names(self) -> list[str]:
        """List the names of its files and folders.

        Raises:
            StorageError: they cannot be listed.
        """
        return sorted({name.partition("/")[0] for name in _place_of(self.url).listing()})

    def size(self, name: str) -> int:
        """Return a file's size in bytes, 0 if unknown."""
        try:
            return _place_of(self.url).size(name)
        except StorageError:
            return 0

    def blocks(self, name: str) -> Iterator[bytes]:
        """Yield a file's bytes.

        Raises:
            StorageError: they cannot be read.
        """
        return _place_of(self.url).blocks(name)


@dataclass
class FoundThere:
    """The result of a search at a URL: bundles, and folders of chunks whose manifest has not arrived (yet)."""

    bundles: list[RemoteBundle] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)


def bundles_at(url: str) -> FoundThere:
    """Find the bundles at a URL: the URL itself, or all below it.

    Raises:
        ConfigError: the library for it is not installed.
        StorageError: the URL cannot be reached, or there is no bundle.
    """
    url = url.rstrip("/")
    if has_archive_name(url):
        return FoundThere([RemoteBundle(url)])
    names = {name: size for name, size in _place_of(url).listing().items() if not _is_left(name)}
    folders = {name.rpartition("/")[0] for name in names if name.rpartition("/")[2] == MANIFEST_NAME}
    outermost = {folder for folder in folders if not any(_is_below(folder, other) for other in folders)}
    inside = {name for name in names if any(_is_below(name, folder) for folder in outermost)}
    archives = {name for name in names if has_archive_name(name)} - inside
    begun = {name.rpartition("/")[0] for name in names.keys() - inside if name.endswith((SEALED_SUFFIX, SUMS_NAME))}
    if not outermost and not archives and not begun:
        raise StorageError(
            f"there is no bundle at {_without_password(url)}", hint="at the node, export --to sends them"
        )
    places = sorted(f"{url}/{name}".rstrip("/") for name in outermost | archives)
    return FoundThere(
        [RemoteBundle(place) for place in places], sorted(f"{_without_password(url)}/{name}" for name in begun)
    )


def _is_left(name: str) -> bool:
    """Check whether a carrier left a file, or a folder that it is in."""
    *folders, file = name.split("/")
    if any(part.startswith(".") for part in folders):  # as what an export has not finished
        return True
    return left_by(file) is not None or any(left_folder(folder) is not None for folder in folders)


def _is_below(name: str, folder: str) -> bool:
    return name != folder and (not folder or name.startswith(f"{folder}/"))


# ------------------------------------------------------------------ to there


@dataclass
class Sent:
    """The result of `send`: the place, the bundles there now, which of them are new, and how much was sent."""

    url: str
    bundles: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0


def send(
    exports: Path,
    node_id: str,
    url: str,
    *,
    paranoid: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Sent:
    """Send those of a node's bundles that are missing or incomplete at a URL.

    Args:
        exports: the folder of the node's bundles; the caller holds the exporter's lock.
        node_id: the node.
        url: the place below which they are stored: a URL, or the path of a folder.
        paranoid: read everything there again, and compare its hashes with the manifests.
        progress: receives the bytes sent and the bytes to be sent.

    Raises:
        ConfigError: the library for the URL is not installed.
        StorageError: the URL cannot be reached or written; what was sent stays, and another call continues.
        ManifestError: another bundle there has the same name, or its content differs from what was sent.
    """
    place = _place_of(url).below(node_id)
    there = place.listing()
    sent = Sent(place.url)
    folders = [exports / name for name in names_in(exports) if not name.startswith(".")]
    todo = {folder: _missing(place, folder, there) for folder in folders if (folder / MANIFEST_NAME).is_file()}
    total = sum((folder / file).stat().st_size for folder, names in todo.items() for file in names)
    for folder, names in todo.items():
        for file in names:
            place.put(folder / file, f"{folder.name}/{file}")
            sent.files += 1
            sent.bytes += (folder / file).stat().st_size
            if progress is not None:
                progress(sent.bytes, total)
        if paranoid:
            _read_again(place, folder.name, files.read_regular(folder / MANIFEST_NAME))
        sent.bundles.append(f"{place.url}/{folder.name}")
        if names:
            sent.new.append(sent.bundles[-1])
    return sent


def _missing(place: _Files | LocalPlace, folder: Path, there: dict[str, int]) -> list[str]:
    """List the files of a bundle that are missing or incomplete there, the manifest last.

    Raises:
        ManifestError: a file there has other content.
    """
    chunks = [chunk.filename for chunk in Manifest.parse(files.read_regular(folder / MANIFEST_NAME)).chunks]
    others = (CHECKER_NAME, SUMS_NAME, SIGNATURE_NAME, MANIFEST_NAME)
    own = [name for name in others if (folder / name).is_file()]
    names = [(name, f"{folder.name}/{name}") for name in [*own, *chunks]]
    is_there = {
        name: there.get(key) is not None and _is_there(place, key, folder / name, there[key]) for name, key in names
    }
    return [name for name in [*chunks, *own] if not is_there[name]]


def _is_there(place: _Files | LocalPlace, name: str, source: Path, size: int) -> bool:
    """Tell whether a file is there with its full length.

    Raises:
        ManifestError: the file there has other content.
    """
    ours = source.stat().st_size
    is_small = source.name in (MANIFEST_NAME, SUMS_NAME, SIGNATURE_NAME, CHECKER_NAME)
    if size == ours and not is_small:
        return True  # its name belongs to one writer; the hub and --paranoid check its content
    with source.open("rb") as stream:
        if size > ours or not all(stream.read(len(block)) == block for block in place.blocks(name)):
            raise _another(place, name)
    return size == ours


def _another(place: _Files | LocalPlace, name: str) -> ManifestError:
    hint = "two machines have this node id, or it was damaged: look at it, and delete it there"
    return ManifestError(f"there is another file at {place.url}/{name}", hint=hint)


def _read_again(place: _Files | LocalPlace, name: str, manifest: bytes) -> None:
    for chunk in Manifest.parse(manifest).chunks:
        digest, _ = sha256_of_blocks(place.blocks(f"{name}/{chunk.filename}"))
        if digest != chunk.sha256:
            raise ManifestError(
                f"{place.url}/{name}/{chunk.filename} has sha256 {digest}, and not {chunk.sha256}",
                hint="delete it there, and run this again",
            )
