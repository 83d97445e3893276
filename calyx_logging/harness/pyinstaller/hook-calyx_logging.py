"""The hook: the recorder and its commands, without what only the extras need."""

from __future__ import annotations

from PyInstaller.utils.hooks import collect_data_files, collect_submodules

_EXTRAS = tuple(f"calyx_logging.{wing}" for wing in ("query", "report", "view", "pytest_plugin", "harness.pyinstaller"))

hiddenimports = collect_submodules("calyx_logging", filter=lambda name: not name.startswith(_EXTRAS))
datas = collect_data_files("calyx_logging", includes=["format/schemas/*.json"])
