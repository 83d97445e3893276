"""The machine's fingerprint: a hash by which a folder that was copied to another machine is noticed.

It is made of the id that the operating system gives its installation, which is not read from any hardware and is never
written anywhere in clear. Where the system has none (most containers), there is no fingerprint.
"""

from __future__ import annotations

import hashlib
import sys
from functools import lru_cache
from pathlib import Path

__all__ = ["fingerprint"]

_PLACES = ("/etc/machine-id", "/var/lib/dbus/machine-id")


@lru_cache(maxsize=1)
def fingerprint() -> str | None:
    """32 hex digits, the same as long as the system is not installed anew; None where it cannot be known."""
    found = _installation_id()
    if not found:
        return None
    return hashlib.sha256(f"calyx-logging machine {found}".encode()).hexdigest()[:32]


def _installation_id() -> str | None:
    try:
        if sys.platform == "win32":
            return _of_windows()
        if sys.platform == "darwin":
            return _of_macos()
        return _of_linux()
    except Exception:  # no access, an unusual system: then there is none
        return None


def _of_linux() -> str | None:
    for place in _PLACES:
        try:
            text = Path(place).read_text("ascii").strip()
        except OSError:
            continue
        if len(text) >= 32 and text.strip("0"):  # an image may hold "uninitialized", or nothing
            return text
    return None


def _of_windows() -> str | None:
    if sys.platform == "win32":
        import winreg

        access = winreg.KEY_READ | winreg.KEY_WOW64_64KEY
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SOFTWARE\Microsoft\Cryptography", 0, access) as key:
            return str(winreg.QueryValueEx(key, "MachineGuid")[0]) or None
    return None


def _of_macos() -> str | None:
    import ctypes

    uuid, wait = (ctypes.c_ubyte * 16)(), (ctypes.c_long * 2)(1, 0)
    failed = ctypes.CDLL(None).gethostuuid(ctypes.byref(uuid), ctypes.byref(wait))
    return None if failed else bytes(uuid).hex()
