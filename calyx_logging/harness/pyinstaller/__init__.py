"""Tell PyInstaller what a frozen program needs: handlers and wings that are named only in texts.

PyInstaller finds this folder by the entry point `pyinstaller40`, and reads the hook in it when a program imports
`calyx_logging`.
"""

from __future__ import annotations

import os

__all__ = ["hook_dirs"]


def hook_dirs() -> list[str]:
    """Return the folder that has the hook."""
    return [os.path.dirname(__file__)]
