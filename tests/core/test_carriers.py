"""The list of what carriers leave beside files, and the names that are none of it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calyx_logging.core.carriers import copy_of, left_by, left_folder, pair_names, plain_text, sort_names
from calyx_logging.node import is_node_id

CHUNK = "20260101_000000__harness__3f9a1c20-0000"
ASKED = frozenset([f"{CHUNK}.jsonl", "run.jsonl", "manifest.json", "manifest.json.sig", "SHA256SUMS"])

LEFT = [
    "._x",
    ".DS_Store",
    ".fseventsd",
    ".Trashes",
    ".Spotlight-V100",
    "__MACOSX",
    ".AppleDouble",
    "Thumbs.db",
    "desktop.ini",
    "$RECYCLE.BIN",
    ".nfs00000000012345670000001f",
    ".fuse_hidden0000001f00000001",
    "@eaDir",
    ".directory",
    ".Trash-1000",
    "lost+found",
    ".dropbox",
    ".dropbox.attr",
    ".dropbox.attrs",
    ".dropbox.cache",
    ".stfolder",
    ".stignore",
    ".stversions",
    ".syncthing.run.jsonl.tmp",
    "~syncthing~run.jsonl.tmp",
    ".~lock.run.jsonl#",
    "~$run.jsonl",
    "run.jsonl~",
    ".run.jsonl.swp",
    "run.jsonl.part",
    "run.jsonl.partial",
    "run.jsonl.crdownload",
    "run.jsonl.filepart",
    "System Volume Information",
    "Icon\r",
]
COPIES = {
    f"{CHUNK}.sync-conflict-20240101-120000-ABCDEFG.jsonl": "Syncthing",
    f"{CHUNK} (conflicted copy 2024-01-01 120000).jsonl": "Dropbox or Nextcloud",
    f"{CHUNK} (Ada's conflicted copy 2024-01-01).jsonl": "Dropbox or Nextcloud",
    f"{CHUNK} (lab's conflicted copy).jsonl": "Dropbox or Nextcloud",
    f"{CHUNK}-LAPTOP-AB12.jsonl": "OneDrive",
    f"{CHUNK} (1).jsonl": "Google Drive or a second download",
    f"{CHUNK}(2).jsonl": "Google Drive or a second download",
    f"{CHUNK} - Copy.jsonl": "Windows",
    f"{CHUNK} - Kopie (2).jsonl": "Windows",
    f"{CHUNK} copy 2.jsonl": "macOS",
    f"{CHUNK} (another copy).jsonl": "a file manager",
    f"Copy of {CHUNK}.jsonl": "Google Drive",
    f".{CHUNK}.jsonl.aB3dE9": "rsync",
    "manifest (1).json": "Google Drive or a second download",
    "SHA256SUMS (1)": "Google Drive or a second download",
    "SHA256SUMS-DESKTOP": "OneDrive",
    "manifest.json.sync-conflict-20240101-120000-ABCDEFG.sig": "Syncthing",
}
NOT_LEFT = [
    *sorted(ASKED),
    "other.jsonl",
    "other (1).jsonl",
    f"{CHUNK} (1).json",
    f"{CHUNK}-LAP TOP.jsonl",
    f"{CHUNK}..jsonl",
    "run.sh",
    ".bashrc",
    ".ssh",
    ".hidden.jsonl",
    "x" * 600 + "~",
    "",
]


@pytest.mark.parametrize("name", LEFT)
def test_what_systems_leave(name: str) -> None:
    """Each is known by its name alone, in any case of its letters."""
    assert left_by(name) is not None
    assert left_by(name, ASKED) is not None
    assert left_by(name, ASKED | {name}) is None, "a name that is asked for is never a leftover"
    assert left_by(name.swapcase()) is not None


@pytest.mark.parametrize("name", COPIES)
def test_copies_of_what_is_asked_for(name: str) -> None:
    """A copy is one only of a name that is asked for."""
    found = left_by(name, ASKED)
    assert found is not None
    assert (found.by, found.of in ASKED, found.is_metadata) == (COPIES[name], True, False)
    assert copy_of(name, ASKED) == found
    assert left_by(name, ["other.jsonl"]) is None
    assert left_by(name) is None


@pytest.mark.parametrize("name", NOT_LEFT)
def test_names_that_are_no_leftovers(name: str) -> None:
    """Everything else stays what it was."""
    assert left_by(name, ASKED) is None


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True).filter(is_node_id))
def test_no_node_is_a_leftover(name: str) -> None:
    """A folder of any node is searched."""
    assert left_folder(name) is None


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def test_names_by_their_normal_form() -> None:
    """The exact name wins; another form counts where it is the only one."""
    assert pair_names([nfc("é.jsonl")], [nfd("é.jsonl")]) == {nfc("é.jsonl"): nfd("é.jsonl")}
    assert pair_names([nfd("é.jsonl")], [nfc("é.jsonl")]) == {nfd("é.jsonl"): nfc("é.jsonl")}
    both = [nfc("é.jsonl"), nfd("é.jsonl")]
    assert pair_names(both[:1], both) == {both[0]: both[0]}
    assert sort_names(both, both[:1]).others == both[1:]
    # three marks in two orders, neither of them the one asked for: nobody knows which
    first, second, asked = "a\u0323\u0307.jsonl", "a\u0307\u0323.jsonl", nfc("a\u0323\u0307.jsonl")
    assert len({first, second, asked}) == 3
    assert pair_names([asked], [first, second]) == {}
    assert pair_names(both, [nfc("x.jsonl")]) == {}
    assert pair_names(["e.jsonl"], ["é.jsonl"]) == {}


@given(st.lists(st.text(max_size=4)), st.lists(st.text(max_size=4)))
def test_sorting_loses_no_name(present: list[str], asked: list[str]) -> None:
    """Each name that is there is found, left over, or another."""
    there = sort_names(present, asked)
    sorted_ = [*there.found.values(), *there.leftovers, *there.others]
    assert sorted(sorted_) == sorted(set(present))
    assert there.found.keys() <= set(asked)
    assert all(nfc(name) == nfc(found) for name, found in there.found.items())


@given(
    st.lists(st.binary(min_size=1).filter(lambda x: b"\n" not in x and b"\r" not in x and x.strip() == x)),
    st.sampled_from([b"\n", b"\r\n", b"\r", b"\r\r\n"]),
    st.booleans(),
    st.integers(0, 2),
)
def test_line_ends(lines: list[bytes], end: bytes, bom: bool, last: int) -> None:
    """Any ends of lines, with or without a last one, give the same text."""
    lines = [line for line in lines if not line.startswith(b"\xef\xbb\xbf")]
    data = b"\xef\xbb\xbf" * bom + end.join(lines) + end * last
    assert plain_text(data) == b"".join(line + b"\n" for line in lines)
