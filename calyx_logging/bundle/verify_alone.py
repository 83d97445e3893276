"""Check calyx-logging bundles with Python alone (3.7 or newer): python3 verify.py [FOLDER...]

Each bundle in these folders (default: the folder of this file) is compared with its manifest.json: no chunk is missing,
none is there besides, and each has the bytes that were exported. Exit code 0 if all is well, 1 if not.

This file came with the bundle. It finds what was damaged on the way. Against somebody who alters bundles on purpose,
check a signature with calyx-telemetry, or use a copy of this file that did not travel.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import unicodedata
from typing import Dict, Iterator, List, Tuple


def main(args: List[str]) -> int:
    """Check the bundles in the folders given; return the exit code."""
    folders = args or [os.path.dirname(os.path.abspath(__file__))]
    bundles = sorted(found for folder in folders for found in bundles_in(folder))
    if not bundles:
        say(f"no bundle (a folder with manifest.json) in {', '.join(folders)}")
        return 1
    faulty = 0
    for bundle in bundles:
        faults, what = check(bundle)
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
    """Yield the folders with a manifest at or below a folder."""
    for path, folders, names in os.walk(folder):
        folders[:] = [] if "manifest.json" in names else [name for name in folders if not name.startswith(".")]
        if "manifest.json" in names:
            yield path


def check(bundle: str) -> Tuple[List[str], str]:
    """Return the faults of a bundle, and its description if it has none."""
    try:
        with open(os.path.join(bundle, "manifest.json"), "rb") as stream:
            data = stream.read()
        manifest = json.loads(data.decode("utf-8-sig"))
        chunks = [(nfc(chunk.get("filename") or chunk["file"]), chunk) for chunk in manifest["chunks"]]
        hashes = {name: chunk["sha256"].lower() for name, chunk in chunks}
        node = manifest["node_id"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
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
            faults.append(f"missing or unreadable: {name}: {error.strerror}")
            continue
        size, lines = size + count, lines + ends
        if digest != hashes[name]:
            faults.append(f"changed: {name} has SHA-256 {digest}, and the manifest says {hashes[name]}")
        elif chunk.get("bytes") not in (None, count):
            faults.append(f"manifest.json says {chunk['bytes']} bytes for {name}, which has {count}")
    faults += [f"extra: {name} is not in the manifest" for name in sorted(there) if name.endswith(".jsonl")]
    faults += sums_faults(bundle, dict(hashes, **{"manifest.json": hashlib.sha256(data).hexdigest()}))
    return faults, f"verified, node {node}, {len(chunks)} chunk(s), {lines} lines, {size} bytes"


def nfc(name: str) -> str:
    """Return a name with its accents in one form."""
    return unicodedata.normalize("NFC", name)


def digest_of(path: str) -> Tuple[str, int, int]:
    """Return a file's SHA-256, its bytes and its lines."""
    digest, size, ends = hashlib.sha256(), 0, 0
    with open(path, "rb") as stream:
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
        with open(path, encoding="utf-8-sig") as stream:
            pairs = [line.strip().split(None, 1) for line in stream if line.strip()]
        sums = {nfc(name.lstrip("*")): digest.lower() for digest, name in pairs}
    except (OSError, ValueError) as error:
        return [f"SHA256SUMS cannot be read: {error}"]
    wrong = [name for name in sorted(set(sums) | set(hashes)) if sums.get(name) != hashes.get(name)]
    return [f"SHA256SUMS and manifest.json disagree on {name}" for name in wrong]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
