"""A second reader of bundles, written from docs/format.md alone: it imports nothing of the package.

It shows that the document says enough. `read(folder)` returns what is wrong with a bundle's files, its events,
and for each writer which events are missing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OWN = {"manifest.json", "SHA256SUMS", "manifest.json.sig", "verify.py"}
CHUNK = re.compile(r"\d{8}_\d{6}__[a-z0-9]+(?:[_-][a-z0-9]+)*__([0-9a-f]{8})-(\d{4})\.jsonl", re.ASCII)


@dataclass
class Writer:
    """One writer's part of a bundle."""

    seqs: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)
    chunks: set[int] = field(default_factory=set)
    end: str | None = None

    @property
    def holes(self) -> list[int]:
        """The `seq` from the first to the last that are neither here nor in a gap line."""
        known = self.seqs | self.lost
        return sorted(set(range(min(known), max(known) + 1)) - known) if known else []

    @property
    def is_complete(self) -> bool:
        """True if all it wrote is here: from seq 0 and chunk 0 on without a hole, to an end line that says `closed`."""
        known, chunks = self.seqs | self.lost, self.chunks
        from_start = not known or min(known) == 0
        return from_start and not self.holes and chunks == set(range(len(chunks))) and self.end == "closed"


@dataclass
class Bundle:
    """The contents of a bundle's folder."""

    node_id: str = ""
    faults: set[tuple[str, str]] = field(default_factory=set)
    events: list[dict[str, Any]] = field(default_factory=list)
    writers: dict[str, Writer] = field(default_factory=dict)


def read(folder: Path) -> Bundle:
    """Read and check a bundle."""
    bundle = Bundle()
    present = {path.name for path in folder.iterdir()}
    if "manifest.json" not in present:
        bundle.faults.add(("missing", "manifest.json"))
        return bundle
    data = (folder / "manifest.json").read_bytes()
    try:
        manifest = json.loads(data.decode("utf-8-sig"))
        bundle.node_id = manifest["node_id"]
        chunks = {chunk.get("filename") or chunk["file"]: chunk for chunk in manifest["chunks"]}
        hashes = {name: chunk["sha256"].lower() for name, chunk in chunks.items()}
        is_ours = "manifest_version" in manifest
    except (ValueError, KeyError, TypeError, AttributeError):
        bundle.faults.add(("malformed", "manifest.json"))
        return bundle
    for name, chunk in chunks.items():
        if name not in present:
            bundle.faults.add(("missing", name))
            continue
        content = (folder / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != hashes[name]:
            bundle.faults.add(("changed", name))
        elif not all(chunk.get(key, value) == value for key, value in figures(content).items()):
            bundle.faults.add(("malformed", "manifest.json"))
        read_chunk(bundle, name, content)
    bundle.faults |= {("extra", name) for name in present - set(chunks) - OWN}
    if is_ours:
        hashes["manifest.json"] = hashlib.sha256(data).hexdigest()
        bundle.faults |= sums_faults(folder, hashes)
    return bundle


def lines(content: bytes) -> Iterator[dict[str, Any]]:
    """Yield the lines that are events; one without its newline does not count."""
    for line in content.split(b"\n")[:-1]:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def figures(content: bytes) -> dict[str, Any]:
    """Compute what a manifest says of a chunk, as far as the chunk itself shows it."""
    times = [event["ts_utc"] for event in lines(content)]
    seqs = [event["seq"] for event in lines(content) if "seq" in event]
    found: dict[str, Any] = {"bytes": len(content), "events": content.count(b"\n")}
    if times:
        found.update(first_ts_utc=min(times), last_ts_utc=max(times))
    if seqs:
        found.update(first_seq=min(seqs), last_seq=max(seqs))
    return found


def read_chunk(bundle: Bundle, name: str, content: bytes) -> None:
    """Take a chunk's lines apart: events, and what the control lines say."""
    match = CHUNK.fullmatch(name)
    writer = None
    if match is not None:
        writer = bundle.writers.setdefault(match[1], Writer())
        writer.chunks.add(int(match[2]))
    for event in lines(content):
        if writer is not None and isinstance(event.get("seq"), int):
            writer.seqs.add(event["seq"])
        if event.get("source") != "calyx_logging" or "control" not in event:
            bundle.events.append(event)
        elif event["control"] == "gap":
            whose = bundle.writers.setdefault(event["writer"], Writer()) if "writer" in event else writer
            for first, last in event["seqs"]:
                if whose is not None:
                    whose.lost.update(range(first, last + 1))
        elif event["control"] == "end" and writer is not None:
            writer.end = event["reason"]


def sums_faults(folder: Path, hashes: dict[str, str]) -> set[tuple[str, str]]:
    """Compare SHA256SUMS with the files' hashes."""
    path = folder / "SHA256SUMS"
    if not path.exists():
        return {("missing", "SHA256SUMS")}
    sums = {}
    for line in path.read_text("utf-8").splitlines():
        if not re.fullmatch(r"[0-9a-fA-F]{64} [ *].+", line):
            return {("malformed", "SHA256SUMS")}
        sums[line[66:]] = line[:64].lower()
    if sums == hashes:
        return set()
    other = {name for name in sums.keys() | hashes.keys() if sums.get(name) != hashes.get(name)}
    kind = "changed" if other == {"manifest.json"} and "manifest.json" in sums else "malformed"
    return {(kind, "manifest.json" if kind == "changed" else "SHA256SUMS")}
