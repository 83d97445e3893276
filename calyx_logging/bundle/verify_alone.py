"""Check calyx-logging bundles with Python alone (3.7 or newer): python3 verify.py [FOLDER...]

Each bundle in these folders (default: the folder of this file) is compared with its manifest.json: no file is missing,
none is there besides, and each has the bytes that were exported. Exit code 0 if all is well, 1 if not.

This file came with the bundle. It finds what was damaged on the way. Against somebody who alters bundles on purpose,
check a signature with calyx-telemetry, or use a copy of this file that did not travel.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and sys.path and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
    del sys.path[0]  # this folder came from elsewhere, and may hold a json.py

import hashlib
import json
import stat
import unicodedata
from typing import BinaryIO, Dict, Iterator, List, Tuple

OWN = ("manifest.json", "SHA256SUMS", "manifest.json.sig", "verify.py")


def main(args: List[str]) -> int:
    """Check the bundles in the folders given; return the exit code."""
    if args[:1] in (["-h"], ["--help"]):
        say((__doc__ or "").split("\n", 1)[0])
        return 0
    folders = args or [os.path.dirname(os.path.abspath(__file__))]
    bundles = sorted(found for folder in folders for found in bundles_in(folder))
    if not bundles:
        say(f"no bundle (a folder with manifest.json) in {', '.join(folders)}")
        return 1
    faulty = 0
    for bundle in bundles:
        try:
            faults, what = check(bundle)
        except Exception as error:  # a bundle made to confuse; the others are checked all the same
            faults, what = [f"cannot be checked: {error!r}"], ""
        say(f"{bundle}: {what if not faults else f'{len(faults)} fault(s)'}")
        for fault in faults:
            say(f"  {fault}")
        faulty += bool(faults)
    return 1 if faulty else 0


def say(text: str) -> None:
    """Print a line, with escapes for what the console cannot show."""
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    encoding = sys.stdout.encoding or "ascii"
    print(shown.encode(encoding, "backslashreplace").decode(encoding))


def bundles_in(folder: str) -> Iterator[str]:
    """Yield the folders at or below a folder that hold a bundle, or what is left of one."""
    for path, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if any(name in ("manifest.json", "SHA256SUMS") or name.endswith(".jsonl") for name in names):
            yield path


def check(bundle: str) -> Tuple[List[str], str]:
    """Return the faults of a bundle, and its description if it has none."""
    try:
        data = whole(os.path.join(bundle, "manifest.json"))
        manifest = json.loads(data.decode("utf-8-sig"))
        chunks = [(nfc(chunk.get("filename") or chunk["file"]), chunk) for chunk in manifest["chunks"]]
        hashes = {name: chunk["sha256"].lower() for name, chunk in chunks}
        node = manifest["node_id"]
        is_ours = "manifest_version" in manifest
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return [f"manifest.json cannot be read: {error!r}"], ""
    faults = ["manifest.json names a chunk twice"] if len(hashes) < len(chunks) else []
    there = {nfc(name): name for name in os.listdir(bundle)}  # macOS may write accents in another way
    size = lines = 0
    for name, chunk in chunks:
        if not name.endswith(".jsonl") or os.path.basename(name) != name or "\\" in name:
            faults.append(f"manifest.json names what is no chunk: {name}")
            continue
        try:
            digest, count, ends = digest_of(os.path.join(bundle, there.pop(name, name)))
        except OSError as error:
            faults.append(f"missing or unreadable: {name}: {error.strerror or error}")
            continue
        size, lines = size + count, lines + ends
        if digest != hashes[name]:
            faults.append(f"changed: {name} has SHA-256 {digest}, and the manifest says {hashes[name]}")
        elif chunk.get("bytes") not in (None, count):
            faults.append(f"manifest.json says {chunk['bytes']} bytes for {name}, which has {count}")
    faults += [f"extra: {name} is not in the manifest" for name in sorted(there) if not is_forgiven(name)]
    if is_ours and not os.path.exists(os.path.join(bundle, "SHA256SUMS")):
        faults.append("missing: SHA256SUMS")
    faults += sums_faults(bundle, dict(hashes, **{"manifest.json": hashlib.sha256(data).hexdigest()}))
    return faults, f"verified, node {node}, {len(chunks)} chunk(s), {lines} lines, {size} bytes"


def is_forgiven(name: str) -> bool:
    """Tell whether a name is of a bundle's own files that are no chunks, or of what systems leave in folders."""
    return name in OWN or name.startswith((".", "__MACOSX")) or name.lower() in ("desktop.ini", "thumbs.db")


def nfc(name: str) -> str:
    """Return a name with its accents in one form."""
    return unicodedata.normalize("NFC", name)


def regular(path: str) -> BinaryIO:
    """Open a file that is neither a link nor a pipe or device."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise OSError(f"{path} is no regular file")
    return open(path, "rb")


def whole(path: str) -> bytes:
    """Return a file of at most 64 MiB, as manifests are."""
    with regular(path) as stream:
        data = stream.read((64 << 20) + 1)
    if len(data) > 64 << 20:
        raise ValueError("it is larger than 64 MiB")
    return data


def digest_of(path: str) -> Tuple[str, int, int]:
    """Return a file's SHA-256, its bytes and its lines."""
    digest, size, ends = hashlib.sha256(), 0, 0
    with regular(path) as stream:
        while True:
            block = stream.read(1 << 20)
            if not block:
                return digest.hexdigest(), size, ends
            digest.update(block)
            size, ends = size + len(block), ends + block.count(b"\n")


def sums_faults(bundle: str, hashes: Dict[str, str]) -> List[str]:
    """Compare SHA256SUMS with what the manifest says; first-generation bundles have none."""
    path = os.path.join(bundle, "SHA256SUMS")
    if not os.path.exists(path):
        return []
    try:
        pairs = [line.strip().split(None, 1) for line in whole(path).decode("utf-8-sig").splitlines() if line.strip()]
        sums = {nfc(name.lstrip("*")): digest.lower() for digest, name in pairs}
    except (OSError, ValueError) as error:
        return [f"SHA256SUMS cannot be read: {error}"]
    wrong = [name for name in sorted(set(sums) | set(hashes)) if sums.get(name) != hashes.get(name)]
    return [f"SHA256SUMS and manifest.json disagree on {name}" for name in wrong]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
