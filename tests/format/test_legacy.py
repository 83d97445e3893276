"""First-generation files are recognised by name and read like ours."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from calyx_logging.format.chunk import ChunkName
from calyx_logging.format.legacy import foreign_among, is_foreign, without_foreign
from calyx_logging.format.manifest import Manifest

OURS = "20260101_000000__x__0123abcd-0000.jsonl"


@given(
    st.lists(
        st.from_regex(r"[0-9]{8}_[0-9]{6}__[a-z0-9]{1,4}([_-][a-z]+)?__[0-9a-f]{8}-[0-9]{4}\.jsonl", fullmatch=True)
        | st.from_regex(r"[0-9]{8}_[0-9]{6}__[a-z_-]{1,9}__[0-9a-f-]{12,14}\.jsonl", fullmatch=True)
        | st.sampled_from(["events.jsonl", "20260101_000000__x__0a.jsonl", "a b.jsonl", ".jsonl"])
    )
)
def test_foreign_names_are_told_from_ours_by_form(names: list[str]) -> None:
    """Foreign names are recognised as by the parser, which also checks that the date exists."""
    foreign = foreign_among(names)
    for name in names:
        ours = ChunkName.parse(f"20260101_000000{name[15:]}" if name[:1].isdigit() else name)
        assert (name in foreign) == (ours is None)


def test_only_our_own_names_stay() -> None:
    """Only names of our own chunks remain, because these never change."""
    assert without_foreign({OURS, "events.jsonl"}) == {OURS}
    assert not is_foreign(OURS)
    assert is_foreign("events.jsonl")


def test_a_manifest_of_the_first_generation_reads_as_ours() -> None:
    """A byte order mark, `file` for `filename`, upper-case hashes and a missing version are accepted."""
    document = {
        "node_id": "n",
        "exported_at": "2026-01-01T00:00:00",
        "timestamp": "20260101_000000",
        "chunks": [{"file": "events.jsonl", "sha256": "AB" * 32, "bytes": 5}],
    }
    manifest = Manifest.parse(b"\xef\xbb\xbf" + json.dumps(document).encode())
    assert manifest.is_legacy
    (entry,) = manifest.chunks
    assert (entry.filename, entry.sha256, entry.bytes) == ("events.jsonl", "ab" * 32, 5)
