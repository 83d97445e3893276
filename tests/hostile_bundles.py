"""Bundles as an enemy would make them: each case breaks a real one, and says what has to become of it.

`python tests/hostile_bundles.py` imports each, and prints the table of docs/hostile.md.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import stat
import struct
import subprocess
import tarfile
import tempfile
import threading
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundles import foreign, make_bundle, make_node, reseal
from calyx_logging.bundle.folder import sums_of
from calyx_logging.bundle.signing import RECEIPT_NAMESPACE, sign
from calyx_logging.errors import CalyxError
from calyx_logging.format.manifest import Manifest
from calyx_logging.hub.importer import ImportResult, Policy, import_bundle
from calyx_logging.hub.store import Store

LINE = b'{"node_id":"n-1","ts_utc":"2026-01-01T00:00:00.000000+00:00","event_id":"e","source":"s","seq":9}\n'


@dataclass
class Box:
    """A bundle of node n-1 on its way, the hub it goes to, and a folder that is neither's.

    Attributes:
        tmp: for whatever a case makes.
        store: the hub's.
        bundle: the folder that a case breaks.
        policy: the hub's.
        while_importing: goes on beside the import.
    """

    tmp: Path
    store: Store
    bundle: Path
    policy: Policy = field(default_factory=Policy)
    while_importing: Callable[[threading.Event], None] | None = None

    @property
    def outside(self) -> Path:
        """A place that nobody may read or write to."""
        folder = self.tmp / "outside"
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def chunk(self) -> Path:
        return next(self.bundle.glob("*.jsonl"))

    def manifest(self) -> dict[str, Any]:
        document = json.loads((self.bundle / "manifest.json").read_bytes())
        assert isinstance(document, dict)
        return document

    def write(self, document: Any) -> None:
        """A manifest as the enemy wants it, and sums that are right about it where they can be."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        (self.bundle / "manifest.json").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        try:
            (self.bundle / "SHA256SUMS").write_bytes(sums_of(Manifest.parse(data), digest))
        except (CalyxError, UnicodeEncodeError):
            return

    def add_line(self, line: bytes) -> None:
        """A line that the manifest is right about."""
        self.chunk.write_bytes(self.chunk.read_bytes() + line)
        reseal(self.bundle)


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        name: what it is.
        make: breaks the box's bundle; what to import, None for the bundle's folder.
        outcome: what has to become of it; `or` between several.
        kind: of a fault that has to be named.
        needs: `posix`, `ssh-keygen`, or nothing.
    """

    name: str
    make: Callable[[Box], Path | None]
    outcome: str
    kind: str = ""
    needs: str = ""


CASES: list[Case] = []


def case(
    name: str, outcome: str = "refused", kind: str = "", needs: str = ""
) -> Callable[[Callable[[Box], Path | None]], None]:
    """Make a function a case."""

    def add(make: Callable[[Box], Path | None]) -> None:
        CASES.append(Case(name, make, outcome, kind, needs))

    return add


def run(one: Case, box: Box) -> ImportResult:
    """Import what a case makes."""
    source = one.make(box) or box.bundle
    return imported(box, source)


def imported(box: Box, source: Path) -> ImportResult:
    """Import, with what the case lets go on meanwhile."""
    stop = threading.Event()
    beside = None
    if box.while_importing is not None:
        beside = threading.Thread(target=box.while_importing, args=(stop,), daemon=True)
        beside.start()
    try:
        return import_bundle(box.store, source, policy=box.policy)
    finally:
        stop.set()
        if beside is not None:
            beside.join()


def box_in(tmp: Path) -> Box:
    """A fresh one."""
    (tmp / "hub").mkdir()
    bundle = make_bundle(make_node(tmp, "n-1"), range(3))
    sent = tmp / "sent" / bundle.name
    shutil.copytree(bundle, sent)
    return Box(tmp, Store(tmp / "hub"), sent)


# ------------------------------------------------------------------ names of chunks

NAMES = {
    "one folder up": "../up.jsonl",
    "many folders up": "../../../../../../etc/passwd",
    "absolute": "/etc/passwd",
    "two slashes": "//server/share/x.jsonl",
    "UNC": "\\\\server\\share\\x.jsonl",
    "extended path": "\\\\?\\C:\\x.jsonl",
    "drive": "C:\\x.jsonl",
    "drive without slash": "C:x.jsonl",
    "stream": "x.jsonl:stream",
    "parent": "..",
    "self": ".",
    "empty": "",
    "folder inside": "a/b.jsonl",
    "backslash": "a\\b.jsonl",
    "NUL byte": "nul\0.jsonl",
    "device CON": "CON",
    "device con.jsonl": "con.jsonl",
    "device NUL.jsonl": "NUL.jsonl",
    "device COM1.jsonl": "COM1.jsonl",
    "device lpt9.txt.jsonl": "lpt9.txt.jsonl",
    "device CONIN$": "CONIN$.jsonl",
    "device COM and a superscript": "COM\u00b9.jsonl",
    "device and a blank": "nul .jsonl",
    "two hundred letters of two bytes": "\u00e9" * 200 + ".jsonl",
    "another suffix": "autorun.inf",
    "open": "x.jsonl.open",
    "dot at the end": "x.jsonl.",
    "blank at the end": "x.jsonl ",
    "blanks": "  ",
    "newline": "new\nline.jsonl",
    "terminal escape": "esc\x1b[2J.jsonl",
    "right-to-left override": "rtl\u202elnosj.jsonl",
    "zero-width": "zero\u200bwidth.jsonl",
    "byte order mark inside": "bom\ufeff.jsonl",
    "line separator": "line\u2028sep.jsonl",
    "private letter": "private\ue000.jsonl",
    "unassigned letter": "unassigned\u0378.jsonl",
    "hidden": ".hidden.jsonl",
    "the manifest": "manifest.json",
    "the manifest in capitals": "MANIFEST.JSON",
    "the manifest, full-width": "\uff4danifest.json",
    "the manifest, one-dot leader": "manifest\u2024json",
    "the sums": "SHA256SUMS",
    "the sums in small letters": "sha256sums",
    "the signature": "manifest.json.sig",
    "three hundred letters": "x" * 300,
    "question mark": "a?b.jsonl",
    "asterisk": "a*b.jsonl",
    "quote": 'a"b.jsonl',
    "less than": "a<b.jsonl",
    "pipe": "a|b.jsonl",
    "delete": "a\x7fb.jsonl",
}


def _named(text: str) -> Callable[[Box], Path | None]:
    def make(box: Box) -> None:
        document = box.manifest()
        document["chunks"][0]["filename"] = text
        box.write(document)

    return make


for _what, _text in NAMES.items():
    case(f"chunk name: {_what}", kind="unsafe")(_named(_text))


@case("chunk name: lone surrogate", kind="malformed")
def _(box: Box) -> None:
    document = json.dumps(box.manifest()).replace("20", r"\ud800", 1)
    box.write(document.replace('"filename": "', '"filename": "\\ud800').encode())


def _twins(first: str, second: str) -> Callable[[Box], Path | None]:
    def make(box: Box) -> None:
        document = box.manifest()
        (entry,) = document["chunks"]
        box.chunk.rename(box.bundle / first)
        document["chunks"] = [{**entry, "filename": first}, {**entry, "filename": second}]
        box.write(document)

    return make


for _what, _pair in {
    "same name": ("run.jsonl", "run.jsonl"),
    "case": ("Run.jsonl", "run.jsonl"),
    "normalisation": (unicodedata.normalize("NFC", "\u00e9.jsonl"), unicodedata.normalize("NFD", "\u00e9.jsonl")),
    "ligature": ("fi.jsonl", "\ufb01.jsonl"),
    "long s": ("s.jsonl", "\u017f.jsonl"),
    "sharp s": ("ss.jsonl", "\u00df.jsonl"),
    "Kelvin sign": ("k.jsonl", "\u212a.jsonl"),
}.items():
    case(f"twin names: {_what}", kind="malformed")(_twins(*_pair))


# ------------------------------------------------------------------ node ids


def _of_node(node_id: Any) -> Callable[[Box], Path | None]:
    def make(box: Box) -> None:
        box.write({**box.manifest(), "node_id": node_id})

    return make


for _what, _value in {
    "one folder up": "../n-1",
    "empty": "",
    "folder inside": "n/1",
    "backslash": "n\\1",
    "absolute": "/tmp/n-1",
    "device": "CON",
    "dot at the end": "n-1.",
    "hidden": ".staging",
    "blank": "n 1",
    "newline": "n-1\n",
    "zero-width": "n-1\u200b",
    "full-width": "\uff4e-1",
    "too long": "n" * 65,
    "number": 1,
    "null": None,
    "list": ["n-1"],
}.items():
    case(f"node id: {_what}", kind="malformed")(_of_node(_value))
case("node id: another's, over this one's lines", kind="bad line")(_of_node("n-2"))


@case("node id: another spelling of one that is here", kind="contradicts")
def _(box: Box) -> None:
    assert imported(box, box.bundle).outcome == "imported"
    shutil.rmtree(box.bundle)
    shutil.copytree(make_bundle(make_node(box.tmp / "2", "N-1"), range(2)), box.bundle)


# ------------------------------------------------------------------ what is no regular file


@case("chunk: symbolic link out of the bundle", kind="unreadable", needs="posix")
def _(box: Box) -> None:
    chunk = box.chunk
    secret = box.outside / "secret"
    secret.write_bytes(chunk.read_bytes())
    chunk.unlink()
    chunk.symlink_to(secret)


@case("chunk: symbolic link inside the bundle", kind="unreadable", needs="posix")
def _(box: Box) -> None:
    chunk = box.chunk
    chunk.rename(box.bundle / "real")
    chunk.symlink_to("real")


@case("chunk: symbolic link to nothing", kind="unreadable", needs="posix")
def _(box: Box) -> None:
    chunk = box.chunk
    chunk.unlink()
    chunk.symlink_to("/nonexistent/x")


@case("chunk: hard link", "imported", needs="posix")
def _(box: Box) -> None:
    os.link(box.chunk, box.tmp / "other name")


def _pipe(name: str) -> Callable[[Box], Path | None]:
    def make(box: Box) -> None:
        path = box.bundle / (name or box.chunk.name)
        path.unlink(missing_ok=True)
        os.mkfifo(path)

    return make


def _folder(name: str) -> Callable[[Box], Path | None]:
    def make(box: Box) -> None:
        path = box.bundle / (name or box.chunk.name)
        path.unlink(missing_ok=True)
        path.mkdir()

    return make


for _what, _file in {"chunk": "", "manifest": "manifest.json", "sums": "SHA256SUMS"}.items():
    case(f"{_what}: pipe", kind="unreadable", needs="posix")(_pipe(_file))
    case(f"{_what}: folder", kind="unreadable")(_folder(_file))


@case("chunk: socket", kind="unreadable", needs="posix")
def _(box: Box) -> None:
    path = box.chunk
    path.unlink()
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{short}/s")  # a socket's path may not be long
        Path(short, "s").rename(path)


@case("manifest: symbolic link", kind="unreadable", needs="posix")
def _(box: Box) -> None:
    (box.bundle / "manifest.json").rename(box.outside / "m")
    (box.bundle / "manifest.json").symlink_to(box.outside / "m")


@case("extra: folder with a bundle in it", kind="extra")
def _(box: Box) -> None:
    shutil.copytree(box.bundle, box.bundle / "inner")


@case("extra: file", kind="extra")
def _(box: Box) -> None:
    (box.bundle / "run.sh").write_text("rm -rf /")


@case("extra: hidden file", kind="unsafe")
def _(box: Box) -> None:
    (box.bundle / ".bashrc").write_text("rm -rf /")


@case("extra: a tebibyte that takes no room", kind="extra", needs="posix")
def _(box: Box) -> None:
    with (box.bundle / "movie.mp4").open("wb") as stream:
        stream.truncate(1 << 40)


@case("extra: ten thousand files", kind="extra")
def _(box: Box) -> None:
    for n in range(10_000):
        (box.bundle / f"x{n}").touch()


# ------------------------------------------------------------------ manifests


def _manifest(data: bytes) -> Callable[[Box], Path | None]:
    return lambda box: box.write(data)


for _what, _data in {
    "empty": b"",
    "cut": b'{"node_id": "n-1"',
    "a list": b"[]",
    "null": b"null",
    "a number": b"3",
    "a text": b'"n-1"',
    "no UTF-8": b'{"node_id": "\xff"}',
    "UTF-16": '{"node_id": "n-1"}'.encode("utf-16"),
    "not a number": b'{"node_id": NaN}',
    "nested a hundred thousand times": b"[" * 100_000,
    "nested objects": b'{"a":' * 50_000,
    "65 MiB": b" " * (65 << 20),
    "ten million chunks": b'{"chunks": [' + b"{}," * 10_000_000 + b"{}]}",
    "seven million texts": b'{"chunks": [' + b'"x",' * 7_000_000 + b"0]}",
    "two documents": b"{}{}",
    "null bytes": b"\0" * 1000,
}.items():
    case(f"manifest: {_what}", kind="malformed")(_manifest(_data))


@case("manifest: none", kind="missing")
def _(box: Box) -> None:
    (box.bundle / "manifest.json").unlink()


def _changed(**changes: Any) -> Callable[[Box], Path | None]:
    return lambda box: box.write({**box.manifest(), **changes})


def _entry(**changes: Any) -> Callable[[Box], Path | None]:
    def make(box: Box) -> None:
        document = box.manifest()
        document["chunks"][0].update(changes)
        box.write(document)

    return make


for _what, _make in {
    "version of the future": _changed(manifest_version=2),
    "version is a text": _changed(manifest_version="1"),
    "version is true": _changed(manifest_version=True),
    "chunks are an object": _changed(chunks={}),
    "a chunk is a text": _changed(chunks=["x.jsonl"]),
    "hash too short": _entry(sha256="ab"),
    "hash of other letters": _entry(sha256="z" * 64),
    "bytes are a text": _entry(bytes="123"),
    "bytes are not what is there": _entry(bytes=1),
    "bytes below zero": _entry(bytes=-1),
    "bytes of thirty digits": _entry(bytes=10**30),
    "events are not what is there": _entry(events=10**9),
    "seq is not what is there": _entry(last_seq=10**9),
    "times are not what is there": _entry(first_ts_utc="1970-01-01T00:00:00.000000+00:00"),
    "another writer": _entry(writer="ffffffff"),
    "previous is a number": _changed(previous_manifest_sha256=3),
}.items():
    case(f"manifest: {_what}", kind="malformed")(_make)
case("manifest: another hash", kind="changed")(_entry(sha256="0" * 64))


@case("manifest: 100,001 chunks", kind="malformed")
def _(box: Box) -> None:
    document = box.manifest()
    (entry,) = document["chunks"]
    document["chunks"] = [entry] * 100_001
    box.write(document)


@case("manifest: 90,000 chunks that are not there", kind="missing")
def _(box: Box) -> None:
    document = box.manifest()
    (entry,) = document["chunks"]
    document["chunks"] += [{**entry, "filename": f"{n}.jsonl"} for n in range(90_000)]
    box.write(document)


@case("manifest: node id twice", kind="malformed")
def _(box: Box) -> None:
    box.write(json.dumps(box.manifest()).replace("{", '{"node_id": "n-2", ', 1).encode())


@case("manifest: a chunk's hash twice", kind="malformed")
def _(box: Box) -> None:
    box.write(json.dumps(box.manifest()).replace('"sha256"', f'"sha256": "{"0" * 64}", "sha256"', 1).encode())


@case("manifest: a key twice, once escaped", kind="malformed")
def _(box: Box) -> None:
    box.write(json.dumps(box.manifest()).replace("{", '{"node_\\u0069d": "n-2", ', 1).encode())


@case("manifest: a folder's name that leads elsewhere", "imported")
def _(box: Box) -> None:
    box.write({**box.manifest(), "timestamp": "../../../../x"})


@case("manifest: the end of the calendar", "imported")
def _(box: Box) -> None:
    box.write({**box.manifest(), "timestamp": "99991231_235959"})


@case("manifest: it comes after itself", "imported")
def _(box: Box) -> None:
    box.write({**box.manifest(), "previous_manifest_sha256": "0" * 64})


@case("manifest: unknown keys", "imported")
def _(box: Box) -> None:
    box.write({**box.manifest(), "path": "/etc/passwd", "__class__": "x"})


# ------------------------------------------------------------------ sums


def _sums(change: Callable[[bytes], bytes]) -> Callable[[Box], Path | None]:
    def make(box: Box) -> None:
        path = box.bundle / "SHA256SUMS"
        path.write_bytes(change(path.read_bytes()))

    return make


for _what, _change, _kind in (
    ("junk", lambda _: b"junk", "malformed"),
    ("empty", lambda _: b"", "malformed"),
    ("no UTF-8", lambda data: data + b"0" * 64 + b"  \xff\n", "malformed"),
    ("another hash", lambda data: b"0" * 64 + data[64:], "malformed"),
    ("a line more", lambda data: data + b"0" * 64 + b"  ../../x\n", "malformed"),
    ("a line twice", lambda data: data * 2, "malformed"),
    ("a line less", lambda data: data.splitlines(keepends=True)[0], "malformed"),
    ("65 MiB", lambda _: b" " * (65 << 20), "malformed"),
):
    case(f"sums: {_what}", kind=_kind)(_sums(_change))  # type: ignore[arg-type]


@case("sums: none", kind="missing")
def _(box: Box) -> None:
    (box.bundle / "SHA256SUMS").unlink()


# ------------------------------------------------------------------ lines


def _line(line: bytes) -> Callable[[Box], Path | None]:
    return lambda box: box.add_line(line)


for _what, _bytes in {
    "no JSON": b"no json\n",
    "a list": b"[]\n",
    "an empty object": b"{}\n",
    "another node's": LINE.replace(b"n-1", b"n-2"),
    "node id twice": LINE.replace(b"{", b'{"node_id":"n-2",'),
    "node id twice, once escaped": LINE.replace(b"{", b'{"node\\u005fid":"n-2",'),
    "event id twice": LINE.replace(b"{", b'{"event_id":"x",'),
    "no UTF-8": LINE.replace(b'"e"', b'"\xff"'),
    "UTF-16": LINE.decode().encode("utf-16-le"),
    "not a number": LINE.replace(b"9", b"NaN"),
    "lone surrogate": LINE.replace(b'"e"', b'"\\ud800"'),
    "nested two thousand times": LINE.replace(b"9", b"[" * 2000 + b"]" * 2000),
    "null bytes": b"\0" * 100 + b"\n",
    "an id that is a number": LINE.replace(b'"e"', b"3"),
    "no source": LINE.replace(b"source", b"sauce"),
    "cut": LINE[:50],
}.items():
    case(f"line: {_what}", kind="bad line")(_line(_bytes))
case("line: terminal escapes in a message", "imported")(_line(LINE.replace(b"}", b',"message":"\\u001b[2J\\u202e"}')))
case("line: seq of twenty digits", "imported")(_line(LINE.replace(b"9", b"18446744073709551615")))
case("line: a gap that names a billion seq", "imported")(
    _line(LINE.replace(b'"s"', b'"calyx_logging","control":"gap","count":-5,"seqs":[[0,1000000000],[5,1],"x",[1]]'))
)
case("line: a million lists in one", kind="bad line")(_line(LINE.replace(b"9", b"[" + b"[]," * 1_100_000 + b"[]]")))
case("line: a million bad ones", kind="bad line")(_line(b"x\n" * 1_000_000))
case("line: eight megabytes", "imported")(_line(LINE.replace(b'"e"', b'"' + b"e" * (8 << 20) + b'"')))
case("line: a million empty ones", "imported")(_line(b"\n" * 1_000_000))


@case("chunk: one byte more", kind="changed")
def _(box: Box) -> None:
    box.chunk.write_bytes(box.chunk.read_bytes() + b"\n")


@case("chunk: one bit turned", kind="changed")
def _(box: Box) -> None:
    data = bytearray(box.chunk.read_bytes())
    data[20] ^= 1
    box.chunk.write_bytes(data)


@case("chunk: half of it", kind="changed")
def _(box: Box) -> None:
    data = box.chunk.read_bytes()
    box.chunk.write_bytes(data[: len(data) // 2])


@case("chunk: none", kind="missing")
def _(box: Box) -> None:
    box.chunk.unlink()


@case("chunk: one bit turned, and a good copy beside it", kind="changed")
def _(box: Box) -> None:
    chunk = box.chunk
    data = bytearray(chunk.read_bytes())
    shutil.copy(chunk, chunk.with_name(f"{chunk.stem} (1).jsonl"))
    data[20] ^= 1
    chunk.write_bytes(data)


@case("chunk: a copy of it alone", kind="missing")
def _(box: Box) -> None:
    box.chunk.rename(box.chunk.with_name(f"{box.chunk.stem} (1).jsonl"))


@case("chunk: a symbolic link with the name of a copy", "imported", needs="posix")
def _(box: Box) -> None:
    (box.outside / "secret").write_text("secret")
    box.chunk.with_name(f"{box.chunk.stem} (1).jsonl").symlink_to(box.outside / "secret")


@case("chunk: renamed", kind="missing")
def _(box: Box) -> None:
    box.chunk.rename(box.bundle / "other.jsonl")


# ------------------------------------------------------------------ changes while it is read


@case("meanwhile: a chunk grows and shrinks", "imported or refused")
def _(box: Box) -> None:
    chunk = box.chunk
    data = chunk.read_bytes()

    def change(stop: threading.Event) -> None:
        while not stop.is_set():
            with chunk.open("r+b") as stream:
                stream.write(data + LINE)
                stream.truncate(len(data) - 40)
                stream.seek(0)
                stream.write(data)

    box.while_importing = change


@case("meanwhile: a chunk becomes a link, and a chunk again", "imported or refused", needs="posix")
def _(box: Box) -> None:
    chunk, secret = box.chunk, box.outside / "secret"
    secret.write_text("secret\n")
    data = chunk.read_bytes()

    def change(stop: threading.Event) -> None:
        for name in ("link", "file"):
            (box.tmp / name).unlink(missing_ok=True)
        while not stop.is_set():
            (box.tmp / "link").symlink_to(secret)
            (box.tmp / "link").replace(chunk)
            (box.tmp / "file").write_bytes(data)
            (box.tmp / "file").replace(chunk)

    box.while_importing = change


@case("meanwhile: the manifest is exchanged", "imported or refused")
def _(box: Box) -> None:
    path = box.bundle / "manifest.json"
    good, bad = path.read_bytes(), json.dumps({**box.manifest(), "node_id": "n-2"}).encode()

    def change(stop: threading.Event) -> None:
        while not stop.is_set():
            for data in (bad, good):
                (box.tmp / "m").write_bytes(data)
                try:
                    (box.tmp / "m").replace(path)
                except PermissionError:
                    continue  # Windows, where it is just being read

    box.while_importing = change


# ------------------------------------------------------------------ archives


def _files(box: Box) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(box.bundle.iterdir())}


@contextmanager
def _zip(box: Box, *, whole: bool = True) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(box.tmp / "sent.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in _files(box).items() if whole else ():
            archive.writestr(name, data)
        yield archive


@contextmanager
def _tar(box: Box, *, whole: bool = True) -> Iterator[tarfile.TarFile]:
    with tarfile.open(box.tmp / "sent.tar.gz", "w:gz") as archive:
        for name, data in _files(box).items() if whole else ():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        yield archive


MEMBERS = {
    "one folder up": "../x.jsonl",
    "absolute": "/tmp/x.jsonl",
    "drive": "C:\\x.jsonl",
    "backslash": "a\\b.jsonl",
    "two folders deep": "a/b/c.jsonl",
    "parent as folder": "../manifest.json",
    "device": "NUL",
    "newline": "a\nb.jsonl",
    "NUL byte": "a\0b.jsonl",
    "hidden": ".ssh",
}


def _zip_member(name: str) -> Callable[[Box], Path | None]:
    def make(box: Box) -> Path:
        info = zipfile.ZipInfo("x")
        info.filename = name  # past the constructor, which would clean it
        with _zip(box) as archive:
            archive.writestr(info, b"x")
        return box.tmp / "sent.zip"

    return make


def _tar_member(info: tarfile.TarInfo, data: bytes = b"") -> Callable[[Box], Path | None]:
    def make(box: Box) -> Path:
        with _tar(box) as archive:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        return box.tmp / "sent.tar.gz"

    return make


for _what, _text in MEMBERS.items():
    case(f"zip member: {_what}", kind="unsafe")(_zip_member(_text))
    if "\0" not in _text:
        case(f"tar member: {_what}", kind="unsafe")(_tar_member(tarfile.TarInfo(_text), b"x"))


def _special(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("special.jsonl")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


for _what, _type in {
    "symbolic link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "pipe": tarfile.FIFOTYPE,
    "character device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
}.items():
    case(f"tar member: {_what}", kind="unreadable")(_tar_member(_special(_type)))


@case("zip member: symbolic link", kind="unreadable")
def _(box: Box) -> Path:
    info = zipfile.ZipInfo("link.jsonl")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with _zip(box) as archive:
        archive.writestr(info, "/etc/passwd")
    return box.tmp / "sent.zip"


@case("zip member: encrypted", kind="unreadable")
def _(box: Box) -> Path:
    with _zip(box):
        pass
    path = box.tmp / "sent.zip"
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02")
    data[place + 8] |= 1
    path.write_bytes(data)
    return path


@case("zip member: another compression", kind="unreadable")
def _(box: Box) -> Path:
    with _zip(box) as archive:
        archive.writestr("more.jsonl", b"x", compress_type=zipfile.ZIP_BZIP2)
    return box.tmp / "sent.zip"


@case("zip: a member twice", kind="malformed")
def _(box: Box) -> Path:
    import warnings

    with _zip(box) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("manifest.json", b"{}")
    return box.tmp / "sent.zip"


@case("tar: a member twice", kind="malformed")
def _(box: Box) -> Path:
    return _tar_member(tarfile.TarInfo("manifest.json"), b"{}")(box) or box.bundle


def _two(**more: bytes) -> Callable[[Box], Path | None]:
    def make(box: Box) -> Path:
        with _zip(box, whole=False) as archive:
            for folder in ("a", "b"):
                for name, data in _files(box).items():
                    archive.writestr(f"{folder}/{name}", data)
            for name, data in more.items():
                archive.writestr(name, data)
        return box.tmp / "sent.zip"

    return make


case("zip: one bundle twice", "imported")(_two())
case("zip: one bundle twice, and a file one folder up", kind="unsafe")(_two(**{"../x": b"x"}))
case("zip: one bundle twice, and a file in no bundle", "imported")(_two(**{"c/autorun.inf": b"x"}))
case("zip: one folder up in a folder that Finder leaves", kind="unsafe")(_zip_member("__MACOSX/../../x"))


@case("zip: a symbolic link in a folder that Finder leaves", "imported")
def _(box: Box) -> Path:
    info = zipfile.ZipInfo("__MACOSX/manifest.json")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with _zip(box) as archive:
        archive.writestr(info, "/etc/passwd")
    return box.tmp / "sent.zip"


@case("zip: ten thousand bundles and one", kind="malformed")
def _(box: Box) -> Path:
    with _zip(box, whole=False) as archive:
        for n in range(10_001):
            archive.writestr(f"{n}/manifest.json", b"{}")
    return box.tmp / "sent.zip"


@case("zip: no manifest", kind="missing")
def _(box: Box) -> Path:
    (box.bundle / "manifest.json").unlink()
    with _zip(box):
        pass
    return box.tmp / "sent.zip"


@case("zip: nothing in it", kind="missing")
def _(box: Box) -> Path:
    with _zip(box, whole=False):
        pass
    return box.tmp / "sent.zip"


@case("zip: a chunk of a gibibyte where the manifest says less", kind="changed")
def _(box: Box) -> Path:
    name = box.chunk.name
    box.chunk.unlink()
    with _zip(box) as archive, archive.open(name, "w", force_zip64=True) as member:
        for _ in range(1024):
            member.write(bytes(1 << 20))
    return box.tmp / "sent.zip"


@case("zip: a manifest of a gibibyte", kind="changed")
def _(box: Box) -> Path:
    (box.bundle / "manifest.json").unlink()
    with _zip(box) as archive, archive.open("manifest.json", "w", force_zip64=True) as member:
        for _ in range(1024):
            member.write(b" " * (1 << 20))
    return box.tmp / "sent.zip"


@case("zip: the manifest says a terabyte, and so does the archive", kind="unsafe")
def _(box: Box) -> Path:
    document = box.manifest()
    document["chunks"][0]["bytes"] = 1 << 40
    box.write(document)
    with _zip(box):
        pass
    return box.tmp / "sent.zip"


@case("zip: sizes that are not true", kind="unreadable")
def _(box: Box) -> Path:
    with _zip(box):
        pass
    path, name = box.tmp / "sent.zip", box.chunk.name.encode()
    data = bytearray(path.read_bytes())
    place = data.rindex(name) - 46
    size = struct.unpack_from("<I", data, place + 24)[0]
    struct.pack_into("<I", data, place + 24, size - 7)
    path.write_bytes(data)
    return path


@case("zip: all members at the same place", kind="unreadable")
def _(box: Box) -> Path:
    with _zip(box):
        pass
    path = box.tmp / "sent.zip"
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02")
    while place >= 0:
        struct.pack_into("<I", data, place + 42, 0)
        place = data.find(b"PK\x01\x02", place + 1)
    path.write_bytes(data)
    return path


@case("zip: a directory of two gibibytes, as it says", kind="unreadable")
def _(box: Box) -> Path:
    with _zip(box):
        pass
    path = box.tmp / "sent.zip"
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\x05\x06") + 12, 2 << 30)
    path.write_bytes(data)
    return path


@case("zip: three hundred thousand members", kind="unreadable")
def _(box: Box) -> Path:
    one = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0)
    directory = b"".join(one + b"%06d" % n for n in range(300_000))
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65535, 65535, len(directory), 0, 0)
    path = box.tmp / "sent.zip"
    path.write_bytes(directory + end)
    return path


for _what, _data in {"empty": b"", "junk": b"junk" * 1000, "half a header": b"PK\x03\x04" + b"\0" * 10}.items():
    for _suffix in ("zip", "tar.gz"):

        def _junk(box: Box, data: bytes = _data, suffix: str = _suffix) -> Path:
            path = box.tmp / f"sent.{suffix}"
            path.write_bytes(data)
            return path

        case(f"{_suffix}: {_what}", kind="unreadable")(_junk)


@case("tar.gz: junk inside", kind="unreadable")
def _(box: Box) -> Path:
    path = box.tmp / "sent.tar.gz"
    path.write_bytes(gzip.compress(b"junk" * 1000))
    return path


@case("tar.gz: a gibibyte of zeros", kind="unreadable")
def _(box: Box) -> Path:
    path = box.tmp / "sent.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for _ in range(1024):
            stream.write(bytes(1 << 20))
    return path


@case("tar.gz: a header of two hundred megabytes", kind="unreadable")
def _(box: Box) -> Path:
    path = box.tmp / "sent.tar.gz"
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 200_000_000
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(info.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(200):
            stream.write(bytes(1_000_000))
    return path


@case("tar.gz: a header of eight million digits", kind="unreadable")
def _(box: Box) -> Path:
    path = box.tmp / "sent.tar.gz"
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 8_000_000
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(info.tobuf(tarfile.USTAR_FORMAT))
        stream.write(b"1" * 8_000_000)
    return path


@case("tar.gz: ten thousand headers of four kibibytes", kind="unreadable")
def _(box: Box) -> Path:
    path = box.tmp / "sent.tar.gz"
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 4096
    header = info.tobuf(tarfile.USTAR_FORMAT) + b"1" * 4096
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for _ in range(100):
            stream.write(header * 100)
    return path


@case("tar.gz: sparse member", kind="unreadable")
def _(box: Box) -> Path:
    return _tar_member(_special(tarfile.GNUTYPE_SPARSE))(box) or box.bundle


@case("tar.gz: three hundred thousand members", kind="unreadable")
def _(box: Box) -> Path:
    path, member = box.tmp / "sent.tar.gz", tarfile.TarInfo("x").tobuf()
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for _ in range(300):
            stream.write(member * 1000)
    return path


@case("tar.gz: cut in the middle", kind="unreadable")
def _(box: Box) -> Path:
    with _tar(box):
        pass
    path = box.tmp / "sent.tar.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@case("zip: a symbolic link to one", kind="unreadable", needs="posix")
def _(box: Box) -> Path:
    with _zip(box):
        pass
    (box.tmp / "link.zip").symlink_to(box.tmp / "sent.zip")
    return box.tmp / "link.zip"


# ------------------------------------------------------------------ signatures


def _key(box: Box, name: str) -> Path:
    path = box.tmp / name
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


def _allow(box: Box, key: Path, options: str = "", node_id: str = "n-1") -> None:
    box.store.folder.mkdir(parents=True, exist_ok=True)
    with box.store.signers.open("a") as stream:
        stream.write(f"{node_id} {options} {key.with_suffix('.pub').read_text()}")


def _sign(box: Box, key: Path, namespace: str = "calyx-telemetry") -> None:
    data = (box.bundle / "manifest.json").read_bytes()
    (box.bundle / "manifest.json.sig").write_bytes(sign(data, str(key), namespace))


def _signed(box: Box, options: str = "", namespace: str = "calyx-telemetry") -> Path:
    """Have the bundle signed by a key that the hub knows."""
    key = _key(box, "key")
    _allow(box, key, options)
    _sign(box, key, namespace)
    return key


@case("signature: right", "imported", needs="ssh-keygen")
def _(box: Box) -> None:
    _signed(box)


@case("signature: right, with the line ends of Windows", "imported", needs="ssh-keygen")
def _(box: Box) -> None:
    _signed(box)
    path = box.bundle / "manifest.json.sig"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


@case("signature: none, of a node that has a key", kind="signature", needs="ssh-keygen")
def _(box: Box) -> None:
    _allow(box, _key(box, "key"))


@case("signature: none, where one is required", kind="signature")
def _(box: Box) -> None:
    box.policy = Policy(require_signature=True)


@case("signature: by another node's key", kind="signature", needs="ssh-keygen")
def _(box: Box) -> None:
    other = _key(box, "other")
    _allow(box, _key(box, "key"))
    _allow(box, other, node_id="n-2")
    _sign(box, other)


@case("signature: by a key nobody knows", kind="signature", needs="ssh-keygen")
def _(box: Box) -> None:
    _allow(box, _key(box, "key"))
    _sign(box, _key(box, "other"))


@case("signature: over another manifest", kind="signature", needs="ssh-keygen")
def _(box: Box) -> None:
    _signed(box)
    box.write({**box.manifest(), "exported_at": "later"})


@case("signature: a receipt's", kind="signature", needs="ssh-keygen")
def _(box: Box) -> None:
    _signed(box, namespace=RECEIPT_NAMESPACE)


@case("signature: by an expired key", kind="signature", needs="ssh-keygen")
def _(box: Box) -> None:
    _signed(box, 'valid-before="20200101"')


@case("signature: by a revoked key", kind="signature", needs="ssh-keygen")
def _(box: Box) -> None:
    shutil.copy(_signed(box).with_suffix(".pub"), box.store.revoked)


@case("signature: a list of revoked keys that cannot be read", kind="signature", needs="ssh-keygen")
def _(box: Box) -> None:
    _signed(box)
    box.store.revoked.write_text("junk\n")


for _what, _data in {"empty": b"", "junk": b"junk\n", "a megabyte": b"x" * (2 << 20)}.items():

    def _bad_signature(box: Box, data: bytes = _data) -> None:
        _allow(box, _key(box, "key"))
        (box.bundle / "manifest.json.sig").write_bytes(data)

    case(f"signature: {_what}", kind="signature", needs="ssh-keygen")(_bad_signature)

case("signature: pipe", kind="unreadable", needs="posix")(_pipe("manifest.json.sig"))
case("signature: folder", kind="unreadable")(_folder("manifest.json.sig"))


# ------------------------------------------------------------------ the past


@case("again: the same bundle", "already imported")
def _(box: Box) -> None:
    imported(box, box.bundle)


@case("again: the same bundle under another name", "already imported")
def _(box: Box) -> Path:
    imported(box, box.bundle)
    return box.bundle.rename(box.tmp / "other name")


@case("again: an old one, after later ones", "already imported")
def _(box: Box) -> None:
    imported(box, box.bundle)
    node = make_node(box.tmp / "2", "n-1")
    for second in (10, 20):
        imported(box, make_bundle(node, range(second, second + 2), second=second))


@case("again: the same chunks under another date", "imported")
def _(box: Box) -> None:
    imported(box, box.bundle)
    box.write({**box.manifest(), "exported_at": "2030-01-01T00:00:00.000000+00:00", "timestamp": "20300101_000000"})


@case("again: the same chunk under another name", "imported")
def _(box: Box) -> None:
    imported(box, box.bundle)
    box.chunk.rename(box.bundle / "other.jsonl")
    reseal(box.bundle)


@case("again: a chunk of that name with other content", kind="contradicts")
def _(box: Box) -> None:
    imported(box, box.bundle)
    box.chunk.write_bytes(box.chunk.read_bytes().replace(b'"n":1', b'"n":7'))
    reseal(box.bundle)


@case("again: an early state of a chunk that has grown", "imported")
def _(box: Box) -> Path:
    imported(box, foreign(box.tmp / "3", 3))
    return foreign(box.tmp / "1", 1)


@case("again: a first-generation chunk that was rewritten", kind="contradicts")
def _(box: Box) -> Path:
    imported(box, foreign(box.tmp / "3", 3))
    other = foreign(box.tmp / "4", 4)
    (chunk,) = other.glob("*.jsonl")
    chunk.write_bytes(chunk.read_bytes().replace(b'"n": 1', b'"n": 8'))
    document = json.loads((other / "manifest.json").read_bytes().decode("utf-8-sig"))
    document["chunks"][0]["sha256"] = hashlib.sha256(chunk.read_bytes()).hexdigest()
    (other / "manifest.json").write_text(json.dumps(document))
    return other


@case("again: after somebody deleted its chunks in the store", "already imported")
def _(box: Box) -> None:
    folder = imported(box, box.bundle).folder
    assert folder is not None
    next(folder.glob("*.jsonl")).unlink()


@case("again: re-signed by somebody else", kind="signature", needs="ssh-keygen")
def _(box: Box) -> None:
    _signed(box)
    assert imported(box, box.bundle).outcome == "imported"
    _sign(box, _key(box, "other"))


if __name__ == "__main__":
    print("| case | outcome | what is said |\n|---|---|---|")
    for one in CASES:
        with tempfile.TemporaryDirectory() as folder:
            done = run(one, box_in(Path(folder)))
            said = next((str(fault) for fault in done.faults if fault.kind == one.kind), "")
            said = said.replace(folder, "…")
            text = "".join(x if x.isprintable() else x.encode("unicode_escape").decode() for x in said)[:120]
            print(f"| {one.name} | {done.outcome} | {text.replace('|', chr(92) + '|')} |", flush=True)
