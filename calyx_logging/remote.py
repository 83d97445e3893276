"""Bundles in object storage, or wherever else fsspec reaches: sending them there, and reading them.

    URL/<node_id>/<YYYYMMDD_HHMMSS>/    a bundle, as it lies in exports/telemetry_exports

A bundle's manifest is sent last, so that one that is there in part is never taken. What is there already is not sent
again, and nothing is replaced by other content. Credentials and endpoints are those of the store's own library; for S3
the usual environment variables and files (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL …). Needs fsspec and the
library of the store; the extra `s3` has both for s3://.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calyx_logging import durable
from calyx_logging.archive import has_archive_name
from calyx_logging.chunk import SEALED_SUFFIX, names_in
from calyx_logging.errors import CalyxError, ConfigError, ManifestError, StorageError
from calyx_logging.manifest import MANIFEST_NAME, SIGNATURE_NAME, SUMS_NAME, Manifest

__all__ = ["RemoteBundle", "Sent", "bundles_at", "check_url", "is_url", "send"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_PASSWORD = re.compile(r"(://[^:/@]*):[^/]*@")
_BLOCK = 4 * 1024 * 1024
_MAKES_CONDITIONALLY = ("s3", "s3a")
"""Stores that can be told to make an object only where there is none."""


def _without_password(url: str) -> str:
    return _PASSWORD.sub(r"\1:***@", url)


def is_url(text: str) -> bool:
    """Whether a text names a place for fsspec, and no path of this machine."""
    return _URL.match(text) is not None


def check_url(url: str) -> None:
    """Find out before any work, and without asking the store, whether a place can be used.

    Raises:
        ConfigError: it is no URL, or the library for it is not installed.
    """
    if not is_url(url):
        raise ConfigError(f"{url!r} is no URL", hint="name it as s3://bucket/folder")
    _Files.of(url)


@dataclass(frozen=True)
class _Files:
    """What lies below a URL; `url` is for people."""

    url: str
    system: Any
    root: str

    @classmethod
    def of(cls, url: str) -> _Files:
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
            raise ConfigError(f"{_without_password(url)} cannot be used: {_said(error)}", hint=_hint(extra)) from None
        except Exception as error:
            raise StorageError(f"{_without_password(url)} cannot be reached: {_said(error)}") from None
        return cls(_without_password(url.rstrip("/")), system, root.rstrip("/"))

    @contextmanager
    def asked(self, what: str, name: str = "") -> Iterator[None]:
        """What the store refuses, in one line; each store's library has errors of its own."""
        try:
            yield
        except CalyxError:
            raise
        except Exception as error:
            place = f"{self.url}/{name}" if name else self.url
            hint = "check the network, the credentials and the bucket's name; running it again goes on from here"
            raise StorageError(f"cannot {what} {place}: {_said(error)}", hint=hint) from error

    def path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def listing(self) -> dict[str, int]:
        """Every file below, by its name, with its bytes."""
        with self.asked("list"):
            if not self.system.exists(self.root):
                return {}
            found = self.system.find(self.root, detail=True)
        below = {path.removeprefix(self.root).lstrip("/"): info for path, info in found.items()}
        return {name: int(info.get("size") or 0) for name, info in below.items()}

    def blocks(self, name: str) -> Iterator[bytes]:
        with self.asked("read", name), self.system.open(self.path(name), "rb", block_size=_BLOCK) as stream:
            while block := stream.read(_BLOCK):
                yield block


def _hint(extra: str | None) -> str:
    return f'pip install "calyx-logging[{extra}]"' if extra else "pip install fsspec and the library of that store"


def _said(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{type(error).__name__}: {text}"[:300]


# ------------------------------------------------------------------ from there


@dataclass(frozen=True)
class RemoteBundle:
    """A bundle's folder, or an archive, at a URL; a `Source` for imports.

    Attributes:
        url: of it.
    """

    url: str

    def __str__(self) -> str:
        return _without_password(self.url)

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    @property
    def is_archive(self) -> bool:
        """Whether it is one file, by its name."""
        return has_archive_name(self.url)

    def names(self) -> list[str]:
        """Of the files in it, and of folders.

        Raises:
            StorageError: they cannot be listed.
        """
        return sorted({name.partition("/")[0] for name in _Files.of(self.url).listing()})

    def size(self, name: str) -> int:
        """Bytes of a file, 0 where that cannot be said."""
        files = _Files.of(self.url)
        try:
            with files.asked("read", name):
                return int(files.system.info(files.path(name)).get("size") or 0)
        except StorageError:
            return 0

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of a file.

        Raises:
            StorageError: they cannot be read.
        """
        return _Files.of(self.url).blocks(name)


@dataclass
class FoundThere:
    """What lies at a URL: bundles, and folders of chunks whose manifest has not come (yet)."""

    bundles: list[RemoteBundle] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)


def bundles_at(url: str) -> FoundThere:
    """The bundles that a URL names: itself, or all below it.

    Raises:
        ConfigError: the library for it is not installed.
        StorageError: it cannot be reached, or there is nothing.
    """
    url = url.rstrip("/")
    if has_archive_name(url):
        return FoundThere([RemoteBundle(url)])
    names = _Files.of(url).listing()
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


def _is_below(name: str, folder: str) -> bool:
    return name != folder and (not folder or name.startswith(f"{folder}/"))


# ------------------------------------------------------------------ to there


@dataclass
class Sent:
    """What `send` did: where, which bundles are there now, which of them are new, and how much it sent for that."""

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
    """Send the bundles of a node that are not there yet, or not whole.

    Args:
        exports: the folder of the node's bundles; call this with the exporter's lock held.
        node_id: whose they are.
        url: below which they are to be.
        paranoid: read all that is there again, and compare its hashes with the manifests.
        progress: is told of bytes sent, and of bytes to be sent.

    Raises:
        ConfigError: the library for the URL is not installed.
        StorageError: it cannot be reached or written; what was sent stays, and running it again goes on.
        ManifestError: there is another bundle of that name, or what is read there is not what was sent.
    """
    files = _Files.of(f"{url.rstrip('/')}/{node_id}")
    there = files.listing()
    sent, wanted = Sent(files.url), []
    for name in names_in(exports):
        folder = exports / name
        if name.startswith(".") or not (folder / MANIFEST_NAME).is_file():
            continue
        manifest = durable.read_regular(folder / MANIFEST_NAME)
        is_there = _has_manifest(files, there, name, manifest)
        wanted.append((name, manifest, is_there))
    todo = {name: _missing(exports / name, manifest, there) for name, manifest, is_there in wanted if not is_there}
    total = sum((exports / name / file).stat().st_size for name, names in todo.items() for file in names)
    for name, manifest, is_there in wanted:
        for file in todo.get(name, ()):
            size = (exports / name / file).stat().st_size
            _put(files, exports / name / file, f"{name}/{file}")
            sent.files += 1
            sent.bytes += size
            if progress is not None:
                progress(sent.bytes, total)
        if paranoid:
            _read_again(files, name, manifest)
        sent.bundles.append(f"{files.url}/{name}")
        if not is_there:
            sent.new.append(sent.bundles[-1])
    return sent


def _has_manifest(files: _Files, there: dict[str, int], name: str, manifest: bytes) -> bool:
    """Whether the bundle is there; one that is cut off is not."""
    if f"{name}/{MANIFEST_NAME}" not in there:
        return False
    found = b"".join(files.blocks(f"{name}/{MANIFEST_NAME}"))
    if found != manifest and not manifest.startswith(found):
        raise ManifestError(
            f"there is another bundle at {files.url}/{name}",
            hint="two machines have this node id, or the folder was changed: look at it",
        )
    return found == manifest


def _missing(folder: Path, manifest: bytes, there: dict[str, int]) -> list[str]:
    """The files of a bundle that are not there, or not whole; the manifest last."""
    names = [chunk.filename for chunk in Manifest.parse(manifest).chunks]
    names += [name for name in (SUMS_NAME, SIGNATURE_NAME) if (folder / name).is_file()]
    missing = [name for name in names if there.get(f"{folder.name}/{name}") != (folder / name).stat().st_size]
    return [*missing, MANIFEST_NAME]


def _put(files: _Files, source: Path, name: str) -> None:
    """One file; where somebody else has just sent the same, that is it."""
    with files.asked("write", name):
        if not isinstance(files.system.protocol, str) and set(files.system.protocol) & set(_MAKES_CONDITIONALLY):
            try:
                files.system.put_file(str(source), files.path(name), mode="create")
            except FileExistsError:
                if int(files.system.info(files.path(name))["size"]) != source.stat().st_size:
                    hint = "two machines have this node id, or it was damaged: look at it, and delete it there"
                    raise ManifestError(f"there is another file at {files.url}/{name}", hint=hint) from None
            return
        files.system.makedirs(files.path(name).rpartition("/")[0], exist_ok=True)
        files.system.put_file(str(source), files.path(name))


def _read_again(files: _Files, name: str, manifest: bytes) -> None:
    for chunk in Manifest.parse(manifest).chunks:
        digest = hashlib.sha256()
        for block in files.blocks(f"{name}/{chunk.filename}"):
            digest.update(block)
        if digest.hexdigest() != chunk.sha256:
            raise ManifestError(
                f"{files.url}/{name}/{chunk.filename} has sha256 {digest.hexdigest()}, and not {chunk.sha256}",
                hint="delete it there, and run this again",
            )
