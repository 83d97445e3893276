"""Chunk names are made and parsed, and chunks are read."""

from __future__ import annotations

import io
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calyx_logging.errors import ChunkError, ConfigError, StorageError
from calyx_logging.format.chunk import ChunkName, check_component, open_chunk, read_lines

names = st.builds(
    ChunkName,
    st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)).map(lambda t: t.replace(microsecond=0, tzinfo=UTC)),
    st.from_regex(r"[a-z0-9]{1,10}([_-][a-z0-9]{1,10}){0,3}", fullmatch=True),
    st.from_regex(r"[0-9a-f]{8}", fullmatch=True),
    st.integers(0, 9999),
)


@given(names)
def test_parsing_undoes_making(name: ChunkName) -> None:
    """Parsing a name gives back what it was made from."""
    assert ChunkName.parse(name.sealed) == name
    assert ChunkName.parse(name.open) == name
    assert check_component(name.component) == name.component


@given(st.lists(names, min_size=2))
def test_names_sort_as_text_by_time(many: list[ChunkName]) -> None:
    """Zero-padded names sort in the order of their times."""
    many = [name for name in many if name.when.year >= 1000]
    assert [name.when for name in sorted(many, key=lambda name: name.text)] == sorted(name.when for name in many)


def test_the_documented_form() -> None:
    """A name has the form <YYYYMMDD>_<HHMMSS>__<component>__<writer>-<n>."""
    name = ChunkName(datetime(2026, 11, 22, 6, 49, 12, tzinfo=UTC), "bench_runner", "3f9a1c20", 7)
    assert name.sealed == "20261122_064912__bench_runner__3f9a1c20-0007.jsonl"
    assert name.open == "20261122_064912__bench_runner__3f9a1c20-0007.jsonl.open"


@pytest.mark.parametrize(
    "filename",
    [
        "20261122_064912__bench__3f9a1c20-0007",
        "20261122_064912__bench__3f9a1c20-0007.json",
        "20261122_064912__bench__3f9a1c20-0007.jsonl.tmp",
        "20261122_064912__bench__3f9a1c20.jsonl",
        "20261122_064912__bench__3F9A1C20-0007.jsonl",
        "20261122_064912__be__nch__3f9a1c20-0007.jsonl",
        "20261122_064912__Bench__3f9a1c20-0007.jsonl",
        "20261322_064912__bench__3f9a1c20-0007.jsonl",
        "20261122_066012__bench__3f9a1c20-0007.jsonl",
        "٢0261122_064912__bench__3f9a1c20-0007.jsonl",
        "20261122_064912__bench__3f9a1c20-00007.jsonl",
        "x20261122_064912__bench__3f9a1c20-0007.jsonl",
        "20261122_064912__bench__3f9a1c20-0007.jsonl\n",
        f"20261122_064912__{'b' * 49}__3f9a1c20-0007.jsonl",
    ],
)
def test_other_names_are_not_ours(filename: str) -> None:
    """The parser is strict: other names give None."""
    assert ChunkName.parse(filename) is None


@pytest.mark.parametrize("component", ["a__b", "_a", "a-", "A", "ä", "", "a b", None, 3])
def test_components_that_break_the_rule(component: object) -> None:
    """Bad components are refused, and the error names the option."""
    with pytest.raises(ConfigError, match="component"):
        check_component(component)


def test_only_a_line_with_its_newline_is_whole() -> None:
    """Bytes after the last newline are a partial line, even if they look complete."""
    lines = list(read_lines(io.BytesIO(b'{"a":1}\n{"b":2}')))
    assert lines == [(b'{"a":1}', True), (b'{"b":2}', False)]


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """Folders, links and pipes with a chunk's name are not read."""
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises((ChunkError, StorageError)):
        open_chunk(tmp_path / "folder.jsonl")
    with pytest.raises(StorageError):
        open_chunk(tmp_path / "missing.jsonl")
    if sys.platform != "win32":
        (tmp_path / "real.jsonl").write_bytes(b"{}\n")
        (tmp_path / "link.jsonl").symlink_to("real.jsonl")
        with pytest.raises(ChunkError, match="symbolic link"):
            open_chunk(tmp_path / "link.jsonl")
        os.mkfifo(tmp_path / "pipe.jsonl")
        with pytest.raises(ChunkError, match="no regular file"):
            open_chunk(tmp_path / "pipe.jsonl")
