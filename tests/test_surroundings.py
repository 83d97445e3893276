"""The tests say which copy of the package they import, and where they make files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import surroundings
from conftest import REPO, python


def checkout_in(folder: Path) -> Path:
    """The packages and what pytest needs, as in a checkout that is not installed."""
    for name in ("calyx_logging", "handlers", "scripts"):
        shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "page"))
    (folder / "tests").mkdir()
    for name in ("conftest.py", "surroundings.py"):
        shutil.copy(REPO / "tests" / name, folder / "tests" / name)
    (folder / "tests" / "test_it.py").write_text("def test_it(): pass\n")
    (folder / "setup.cfg").write_text("[tool:pytest]\npythonpath = tests\n")
    return folder


def test_the_checkout_is_taken_off_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkout is taken off under each of its names; nothing else is."""
    monkeypatch.chdir(tmp_path)
    path = ["", "other", str(tmp_path), str(tmp_path / "tests"), "."]
    surroundings.take_checkout_off(path, tmp_path)
    assert path == ["other", str(tmp_path / "tests")]


def test_this_copy_can_be_tested() -> None:
    """Nothing is wrong, and the header names the folder that is imported."""
    import calyx_logging

    assert surroundings.trouble() is None
    assert str(Path(str(calyx_logging.__file__)).parent) in surroundings.tested_copy()


def test_a_copy_that_is_not_the_checkouts_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Otherwise somebody waits for a change to show."""
    monkeypatch.setattr(surroundings, "REPO", tmp_path)
    assert "changes of this checkout are not tested" in surroundings.tested_copy()


def test_without_an_installed_package_one_line_says_what_to_do(tmp_path: Path) -> None:
    """`python -m pytest` in a checkout, in a Python that has pytest and not the package."""
    checkout = checkout_in(tmp_path / "checkout")
    code = """
        import importlib.machinery, sys
        sys.meta_path[:] = [one for one in sys.meta_path if "editable" not in repr(one).lower()]
        class Missing:  # as if an installed copy were not there
            def find_spec(self, name, path=None, target=None):
                if name == "calyx_logging" and sys.argv[1] not in sys.path:
                    raise ModuleNotFoundError(name)
        sys.meta_path.insert(0, Missing())
        sys.path.insert(0, sys.argv[1])
        import pytest
        sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist"]))
    """
    done = python(code, str(checkout), cwd=checkout)
    assert done.returncode == 4, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    assert "python3 run.py test" in done.stderr


def test_a_checkout_can_be_imported_where_it_lies(tmp_path: Path) -> None:
    """`python -c "import calyx_logging.handlers"` in its root, whether a copy is installed or not."""
    checkout = checkout_in(tmp_path / "checkout")
    code = "import calyx_logging.handlers, calyx_logging.scripts; print(calyx_logging.handlers.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, timeout=60, check=False
    )
    assert Path(done.stdout.strip()) == checkout / "handlers" / "__init__.py", done.stderr


def test_files_are_made_in_memory_where_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where somebody has named a place, nor where there is too little room or no such folder."""
    monkeypatch.setattr(tempfile, "tempdir", tempfile.gettempdir())
    assert surroundings.make_files_in_memory({"TMPDIR": "/elsewhere"}, tmp_path, 0) is False
    assert surroundings.make_files_in_memory({"PYTEST_DEBUG_TEMPROOT": "/elsewhere"}, tmp_path, 0) is False
    assert surroundings.make_files_in_memory({}, tmp_path / "none", 0) is False
    assert surroundings.make_files_in_memory({}, tmp_path, 1 << 62) is False
    environment: dict[str, str] = {}
    assert surroundings.make_files_in_memory(environment, tmp_path, 0) is True
    assert environment == {"TMPDIR": os.fspath(tmp_path)}
