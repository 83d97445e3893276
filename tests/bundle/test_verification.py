"""Verification of a bundle against its manifest, with bytes in memory only: no file is opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calyx_logging.bundle.folder import sums_of
from calyx_logging.bundle.verification import Report, judge
from calyx_logging.errors import StorageError
from calyx_logging.format.chunk_stats import stats_for
from calyx_logging.format.manifest import Manifest

CHUNK = "20260101_000000__harness__3f9a1c20-0000.jsonl"
OLD = "20260101_000000__runner__abc.jsonl"


def line(seq: int) -> bytes:
    when = f"2026-01-01T00:00:0{seq}.000000+00:00"
    event = {"node_id": "n-1", "ts_utc": when, "event_id": f"e{seq}", "source": "bench", "seq": seq}
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


def bundle() -> dict[str, bytes]:
    """A whole one: by the name of each file its bytes."""
    files = {CHUNK: b"".join(map(line, range(5))), OLD: b'{"n":1}\r\n'}
    entries = []
    for name, data in files.items():
        stats = stats_for(name)
        assert b"".join(stats.through([data])) == data
        entries.append(stats.entry(name))
    manifest = Manifest("n-1", "2026-01-01T00:00:09.000000+00:00", "20260101_000009", tuple(entries)).to_bytes()
    sums = sums_of(Manifest.parse(manifest), hashlib.sha256(manifest).hexdigest())
    return {**files, "manifest.json": manifest, "SHA256SUMS": sums}


WHOLE = bundle()


def judged(files: dict[str, bytes], step: int = 7) -> Report:
    def read(name: str) -> Iterator[bytes]:
        data = files[name]
        return (data[start : start + step] for start in range(0, len(data), step))

    return judge(files, read)


def test_a_whole_bundle() -> None:
    """A sound bundle has no fault for any block size, and junk beside it is a warning."""
    for step in (1, 7, 10_000):
        report = judged({**WHOLE, ".DS_Store": b"x"}, step)
        assert (report.faults, len(report.warnings)) == ((), 1)
        assert report.manifest == Manifest.parse(WHOLE["manifest.json"])
        assert report.manifest_sha256 == hashlib.sha256(WHOLE["manifest.json"]).hexdigest()


def _said(sums: bytes) -> bytes:
    """Normalise sums: one end of the last line is ignored, an empty line is not."""
    return sums.lower().replace(b" *", b"  ").removesuffix(b"\n").removesuffix(b"\r")


@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_any_byte_that_is_another_is_a_fault(name: str, data: st.DataObject) -> None:
    """Any file that is cut off, extended or altered is a fault."""
    was = WHOLE[name]
    place = data.draw(st.integers(0, len(was) - 1))
    kind = data.draw(st.sampled_from(["altered", "cut", "added"]))
    if kind == "altered":
        now = was[:place] + bytes([was[place] ^ data.draw(st.integers(1, 255))]) + was[place + 1 :]
    else:
        now = was[:place] if kind == "cut" else was + was[place:]
    report = judged({**WHOLE, name: now})
    same_sums = name == "SHA256SUMS" and _said(now) == _said(was)
    assert bool(report.faults) != same_sums, (kind, place)


@given(st.permutations(sorted(WHOLE)), st.sets(st.sampled_from(sorted(WHOLE))))
def test_files_that_are_missing(names: list[str], gone: set[str]) -> None:
    """Each is named, in any order of listing; without a manifest nothing else is reported."""
    report = judged({name: WHOLE[name] for name in names if name not in gone})
    missing = {fault.path for fault in report.faults if fault.kind == "missing"}
    assert missing == ({"manifest.json"} if "manifest.json" in gone else gone)
    assert len(report.faults) == len(missing)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), StorageError("cannot be read")])
@pytest.mark.parametrize("name", sorted(WHOLE))
def test_files_that_cannot_be_read(name: str, error: Exception) -> None:
    """A fault of that file; the others are looked at all the same."""

    def read(asked: str) -> Iterator[bytes]:
        yield WHOLE[asked][:3]
        if asked == name:
            raise error
        yield WHOLE[asked][3:]

    report = judge(WHOLE, read)
    assert [fault.path for fault in report.faults] == [name]
    assert report.faults[0].found in ("Input/output error", "cannot be read")


def test_a_manifest_without_end() -> None:
    """Is read no further than a manifest can be long."""
    blocks = 0

    def read(name: str) -> Iterator[bytes]:
        nonlocal blocks
        while True:
            blocks += 1
            yield bytes(1024 * 1024)

    assert judge(["manifest.json"], read).faults[0].kind == "malformed"
    assert blocks < 100
