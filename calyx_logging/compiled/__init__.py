"""The compiled core: an optional extension that takes the short way of plain records and of sound chunks.

Invariant: whatever it does, the Python code does with the same bytes. Where it cannot be loaded, or is not wanted
(`CALYX_PURE=1`), the Python code is used, and nothing else changes. docs/compiled.md is the guide to it.

The way through it: a module hands its Python function to `shortcut`, which returns it as it is, or with the short way
before it; `use` tells the core what it has to know of Python classes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, TypeVar

from calyx_logging._version import __version__
from calyx_logging.errors import say

__all__ = ["CORE", "PURE_VARIABLE", "WAY", "shortcut", "use"]

PURE_VARIABLE = "CALYX_PURE"
"""The environment variable that turns the core off."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _load() -> tuple[Any, str]:
    """Return the core, or None, and what is in use."""
    if os.environ.get(PURE_VARIABLE, "0") not in ("", "0"):
        return None, f"pure Python ({PURE_VARIABLE} is set)"
    try:
        _refuse_cut_off(Path(__file__).parent)
        from calyx_logging.compiled import _core as core  # type: ignore[attr-defined,unused-ignore]
    except ImportError as error:
        files = [path.name for path in Path(__file__).parent.glob("_core*") if path.suffix in (".so", ".pyd")]
        if not files:
            return None, "pure Python (no compiled core is installed)"
        say(f"the compiled core ({', '.join(files)}) cannot be loaded: {error}; going on in pure Python, only slower")
        return None, "pure Python (the compiled core cannot be loaded)"
    version: str = core.VERSION
    if version != __version__:
        say(f"the compiled core is of version {version}, not {__version__}: going on in pure Python; install again")
        return None, f"pure Python (the compiled core is of version {version})"
    return core, "compiled core"


def _refuse_cut_off(folder: Path) -> None:
    """Raise ImportError for a file that ends too early: the system would map it, and end the process that reads it."""
    for path in (folder / f"_core{suffix}" for suffix in EXTENSION_SUFFIXES):
        try:
            with path.open("rb") as stream:
                head, size = stream.read(64), os.fstat(stream.fileno()).st_size
        except OSError:
            continue
        if head[:6] == b"\x7fELF\x02\x01":  # 64 bit, little endian; its table of sections comes last
            table, length, count = (
                int.from_bytes(head[at : at + n], "little") for at, n in ((40, 8), (58, 2), (60, 2))
            )
            if size < table + length * count:
                raise ImportError(f"{path.name} is cut off")
        return


CORE, WAY = _load()
"""The extension module, or None; and in words which way is in use."""


def shortcut(kind: str, *more: Any) -> Callable[[_Function], _Function]:
    """Put the core's short way of this kind before a method, where there is a core.

    Args:
        kind: `handle`, `log` or `straight`.
        more: for the last two, the class where the method is looked up in each call (None: it stays what it is), its
            name, and the level.
    """

    def decorate(function: _Function) -> _Function:
        return function if CORE is None else CORE.shortcut(kind, function, *more)

    return decorate


def use(**told: Any) -> None:
    """Tell the core objects, and places of attributes (members of classes' `__slots__`), by its names for them."""
    if CORE is not None:
        CORE.use(**told)
