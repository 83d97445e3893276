"""Make the bundles in tests/vectors: good and bad ones, as files, each with the faults that a reader has to find.

    python tests/make_vectors.py

The good ones are made by logging and exporting; each bad one is a good one with one harm done to it. Made again they
have other ids and hashes, so that is only for a new version of the format.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import bundles  # noqa: E402

TARGET = HERE / "vectors"


def resum(folder: Path) -> None:
    """Write SHA256SUMS anew, so that only one thing is wrong."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    pairs = [(chunk["filename"], chunk["sha256"]) for chunk in manifest["chunks"]]
    pairs.append(("manifest.json", hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()))
    (folder / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in pairs), "utf-8", newline="\n")


def rewrite(folder: Path, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    """Change the manifest, and write SHA256SUMS anew."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", "utf-8", newline="\n")
    resum(folder)


def chunk_of(folder: Path) -> Path:
    return min(folder.glob("*.jsonl"))


def harm_byte(folder: Path) -> None:
    data = chunk_of(folder).read_bytes()
    chunk_of(folder).write_bytes(data.replace(b"event", b"Event", 1))


def harm_cut(folder: Path) -> None:
    data = chunk_of(folder).read_bytes()
    chunk_of(folder).write_bytes(data[: len(data) // 2])


def harm_events(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest["chunks"][0].update(events=99))


def harm_hash(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest["chunks"][0].update(sha256="0" * 64))


def harm_manifest(folder: Path) -> None:
    data = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(data.replace(b"n-1", b"n-2"))


def harm_sums(folder: Path) -> None:
    (folder / "SHA256SUMS").write_text("not a line of sums\n", "utf-8", newline="\n")


HARMS: dict[str, tuple[Callable[[Path], object], list[list[str]]]] = {
    "changed-byte": (harm_byte, [["changed", "CHUNK"]]),
    "cut-short": (harm_cut, [["changed", "CHUNK"]]),
    "missing-chunk": (lambda folder: chunk_of(folder).unlink(), [["missing", "CHUNK"]]),
    "extra-chunk": (lambda folder: (folder / "more.jsonl").write_bytes(b"{}\n"), [["extra", "more.jsonl"]]),
    "wrong-count": (harm_events, [["malformed", "manifest.json"]]),
    "wrong-hash": (harm_hash, [["changed", "CHUNK"]]),
    "other-manifest": (harm_manifest, [["changed", "manifest.json"]]),
    "no-manifest": (lambda folder: (folder / "manifest.json").unlink(), [["missing", "manifest.json"]]),
    "no-json": (lambda folder: (folder / "manifest.json").write_bytes(b"{"), [["malformed", "manifest.json"]]),
    "no-sums": (lambda folder: (folder / "SHA256SUMS").unlink(), [["missing", "SHA256SUMS"]]),
    "malformed-sums": (harm_sums, [["malformed", "SHA256SUMS"]]),
}


def main() -> None:
    """Make them all anew."""
    shutil.rmtree(TARGET, ignore_errors=True)
    expected: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        node = bundles.make_node(Path(scratch), "n-1")
        first = bundles.make_bundle(node, range(3))
        second = bundles.make_bundle(node, range(3, 5), second=10)
        for name, source in (("good", first), ("good-next", second)):
            shutil.copytree(source, TARGET / name)
            expected[name] = {"faults": [], "events": 3 if source is first else 2}
        bundles.foreign(TARGET / "good-first-generation", 3)
        expected["good-first-generation"] = {"faults": [], "events": 3}
        for name, (harm, faults) in HARMS.items():
            shutil.copytree(first, TARGET / f"bad-{name}")
            chunk = chunk_of(TARGET / f"bad-{name}").name
            harm(TARGET / f"bad-{name}")
            named = [[kind, chunk if path == "CHUNK" else path] for kind, path in faults]
            expected[f"bad-{name}"] = {"faults": named}
    (TARGET / "expected.json").write_text(json.dumps(expected, indent=2) + "\n", "utf-8", newline="\n")


if __name__ == "__main__":
    main()
