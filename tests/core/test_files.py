"""core.files keeps its guarantees whatever the system does."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from calyx_logging import OutboxHandler, provision
from calyx_logging.bundle.folder import check, verify
from calyx_logging.core import files
from calyx_logging.outbox.export import export
from calyx_logging.outbox.status import status_of
from faults.disk import Proxy, through


class Held(Proxy):
    """Simulates a virus scanner that holds every file for its first few calls."""

    def __init__(self, refusals: int) -> None:
        self.left = refusals

    def _take(self, name: str, *args: Any) -> Any:
        if self.left:
            self.left -= 1
            raise PermissionError(13, "held", str(args[0]))
        return getattr(os, name)(*args)

    def rename(self, *args: Any) -> Any:
        return self._take("rename", *args)

    def replace(self, *args: Any) -> Any:
        return self._take("replace", *args)

    def unlink(self, *args: Any) -> Any:
        return self._take("unlink", *args)


@pytest.fixture
def windows_retries(monkeypatch: pytest.MonkeyPatch) -> tuple[float, ...]:
    """Use Windows' retry delays on this system too."""
    delays = files.WINDOWS_RETRY_DELAYS
    monkeypatch.setattr(files, "_RETRY_DELAYS", delays)
    return delays


def test_a_file_that_is_held_for_a_moment(tmp_path: Path, windows_retries: tuple[float, ...]) -> None:
    """Renames, replacements and deletions are retried, for at most 50 ms in all."""
    assert sum(windows_retries) <= 0.05
    (tmp_path / "a").write_bytes(b"1")
    with through(Held(len(windows_retries))):
        files.rename_new(tmp_path / "a", tmp_path / "b")
    with through(Held(len(windows_retries))):
        files.replace_file(tmp_path / "b", b"2")
    assert (tmp_path / "b").read_bytes() == b"2"
    with through(Held(len(windows_retries))):
        files.remove(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_held_for_good(tmp_path: Path, windows_retries: tuple[float, ...]) -> None:
    """The system's error is raised, and nothing has changed."""
    (tmp_path / "a").write_bytes(b"1")
    with through(Held(len(windows_retries) + 1)), pytest.raises(PermissionError):
        files.rename_new(tmp_path / "a", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_no_name_is_taken_from_anyone(tmp_path: Path) -> None:
    """rename_new and write_new refuse an existing name."""
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    with pytest.raises(FileExistsError):
        files.rename_new(tmp_path / "a", tmp_path / "b")
    with pytest.raises(FileExistsError):
        files.write_new(tmp_path / "b", [b"x"])
    assert (tmp_path / "b").read_bytes() == b"b"


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """No file is left, whether the disk or the source of the bytes fails."""

    def parts() -> Any:
        yield b"some"
        raise OSError("the source failed")

    with pytest.raises(OSError, match="the source failed"):
        files.write_new(tmp_path / "a", parts())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "room", "form"),
    [
        ("C:\\work", 200, "C:\\work"),
        ("C:\\" + "w" * 60, 200, "\\\\?\\C:\\" + "w" * 60),
        ("\\\\hub\\share\\" + "w" * 60, 200, "\\\\?\\UNC\\hub\\share\\" + "w" * 60),
        ("\\\\?\\C:\\" + "w" * 60, 200, "\\\\?\\C:\\" + "w" * 60),
        ("\\\\.\\pipe\\" + "w" * 60, 200, "\\\\.\\pipe\\" + "w" * 60),
    ],
)
def test_long_windows_paths(path: str, room: int, form: str) -> None:
    """A folder gets the extended form if names below it could exceed 259 characters."""
    assert files.extended(path, room) == form


def test_a_long_path_is_written_exported_and_verified(tmp_path: Path) -> None:
    """A root of 300 characters works from logging to verification."""
    root = tmp_path
    while len(str(root)) < 300:
        root = root / ("long folder name " + "x" * 30)
        files.reachable(root).mkdir()
    node = provision(root, "n" * 64).node
    handler = OutboxHandler(root=root, component="c" * 48, identity=False)
    handler.handle(logging.makeLogRecord({"msg": "far down", "levelno": logging.INFO}))
    assert [chunk.holder is None for chunk in status_of(node).open_chunks] == [False]
    handler.close()
    result = export(node)
    assert result.bundle is not None
    assert verify(result.bundle).manifest.events == 2
    assert [fault.kind for fault in check(root).faults] == ["missing"]


def test_a_link_to_a_folder_is_removed_and_not_followed(tmp_path: Path) -> None:
    """remove_tree deletes the folder's content, not the targets of links in it."""
    if os.name == "nt":
        pytest.skip("links need rights on Windows")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_bytes(b"x")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "precious")
    files.remove_tree(tmp_path / "tree")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "precious"]


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    """A folder is named in the error, and leaves no descriptor open."""
    for _ in range(3):
        with pytest.raises(OSError, match="no regular file") as caught:
            files.read_regular(tmp_path)
    assert caught.value.filename == str(tmp_path)
    if Path("/proc/self/fd").is_dir():
        assert str(tmp_path) not in [os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()]
