"""Say which copy of the package the tests import, and in which folder they make files.

`conftest.py` asks this before it imports the package. Standard library only.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
IN_MEMORY = Path("/dev/shm")
ROOM = 2 << 30
"""Bytes that have to be free in memory; the tests need about a quarter of that at once."""


def take_checkout_off(path: list[str], checkout: Path = REPO) -> None:
    """Take a checkout's root off `sys.path`, where `python -m pytest` puts it.

    The checkout keeps `calyx_logging.handlers` and `calyx_logging.scripts` in folders of other names, which only an
    installation maps. With an editable one the same files are imported; with a plain one the tests in this process and
    the programs they start use the same copy.
    """
    path[:] = [entry for entry in path if Path(entry or ".").resolve() != checkout]


def trouble() -> str | None:
    """One line that says what to do when the package cannot be tested; None when it can."""
    try:
        found = importlib.util.find_spec("calyx_logging.scripts.cli")
    except ModuleNotFoundError:
        found = None
    if found is not None:
        return None
    return (
        f"calyx-logging is not installed for {sys.executable}: run  python3 run.py test"
        "  or  python -m pip install --editable '.[test]'"
    )


def tested_copy() -> str:
    """Name the copy of the package that is tested, with a remark if that is not the checkout's."""
    spec = importlib.util.find_spec("calyx_logging")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).resolve().parent
    if folder == REPO / "calyx_logging":
        return f"calyx-logging: {folder}"
    return f"calyx-logging: {folder}, an installed copy: changes of this checkout are not tested"


def make_files_in_memory(environ: MutableMapping[str, str], folder: Path = IN_MEMORY, room: int = ROOM) -> bool:
    """Have temporary files made in memory where there is such a folder with enough room; TMPDIR says another place.

    Most of the tests' time on a disk is spent waiting for syncs.
    """
    if any(environ.get(name) for name in ("TMPDIR", "TEMP", "TMP", "PYTEST_DEBUG_TEMPROOT")):
        return False
    if not folder.is_dir() or not os.access(folder, os.W_OK) or shutil.disk_usage(folder).free < room:
        return False
    environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None
    return True
