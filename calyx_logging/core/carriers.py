"""The one list of what zip programs, file shares, sync programs and editors do to files, and what we forgive them.

    leftovers       files and folders that they leave beside others, and copies that they make (`left_by`)
    normal forms    names whose accents come back written in another way (`pair_names`)
    line ends       of small texts (`plain_text`)

Names and line ends are forgiven, content never is. Invariants: a name that is asked for is never a leftover; a copy is
a leftover only of a name that is asked for.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from calyx_logging.core.reading import BOM

__all__ = [
    "CHECKER_NAME",
    "Leftover",
    "SortedNames",
    "copy_of",
    "left_by",
    "left_folder",
    "pair_names",
    "plain_text",
    "shown",
    "sort_names",
]

CHECKER_NAME = "verify.py"
"""The program that `export --self-verifying` puts beside a bundle's files; as code that came by carrier, nobody runs it
but the user."""

_FOLDERS = {
    "__macosx": "macOS",
    ".appledouble": "macOS",
    ".documentrevisions-v100": "macOS",
    ".fseventsd": "macOS",
    ".spotlight-v100": "macOS",
    ".temporaryitems": "macOS",
    ".trashes": "macOS",
    "$recycle.bin": "Windows",
    "system volume information": "Windows",
    "lost+found": "Linux",
    "@eadir": "Synology",
    "#recycle": "Synology",
    "#snapshot": "Synology",
    ".dropbox.cache": "Dropbox",
    ".stfolder": "Syncthing",
    ".stversions": "Syncthing",
    ".~tmp~": "rsync",
    ".rsync-partial": "rsync",
}
_FILES = {
    ".ds_store": "macOS",
    ".apdisk": "macOS",
    ".localized": "macOS",
    ".volumeicon.icns": "macOS",
    "icon\r": "macOS",
    CHECKER_NAME: "calyx-telemetry export",
    "desktop.ini": "Windows",
    "thumbs.db": "Windows",
    "ehthumbs.db": "Windows",
    ".directory": "KDE",
    ".dropbox": "Dropbox",
    ".dropbox.attr": "Dropbox",
    ".dropbox.attrs": "Dropbox",
    ".stignore": "Syncthing",
}
_KEEP_FILES = frozenset(
    [".trashes", "$recycle.bin", "lost+found", "#recycle", "#snapshot", ".stversions", ".dropbox.cache"]
) | {".~tmp~", ".rsync-partial", ".documentrevisions-v100", ".temporaryitems"}
"""Folders that may hold files of the user's."""

_SHAPES = (
    (r"\._.*", "macOS"),
    (r"\.nfs[0-9a-f]{8,}", "NFS"),
    (r"\.fuse_hidden[0-9a-f]+", "FUSE"),
    (r"\.trash-[0-9]+", "Linux"),
    (r"\.~lock\..*#", "LibreOffice"),
    (r"~\$.*", "Microsoft Office"),
    (r"(?:\.syncthing\.|~syncthing~).*\.tmp", "Syncthing"),
    (r"\.(?:sync_|csync_journal|owncloudsync|nextcloudsync).*", "Nextcloud"),
    (r".*\.(?:partial|part|filepart|crdownload|download)", "an unfinished transfer"),
    (r"\..*\.sw[a-p]", "vim"),
    (r"\.#.*|#.*#", "Emacs"),
    (r".*~", "an editor"),
)
_SHAPE = re.compile("|".join(f"(?P<s{n}>{pattern})" for n, (pattern, _) in enumerate(_SHAPES)), re.IGNORECASE)
_COPIES = tuple(
    (re.compile(f"(?P<base>.+?){pattern}", re.IGNORECASE), by)
    for pattern, by in (
        (r"\.sync-conflict-[0-9]{8}-[0-9]{6}(?:-[A-Z0-9]{7})?", "Syncthing"),
        (r" \((?:[^()]* )?conflicted copy(?: [^()]*)?\)", "Dropbox or Nextcloud"),
        (r"_conflict-[0-9]{8}-[0-9]{6}", "Nextcloud"),
        (r" ?\([0-9]{1,3}\)", "Google Drive or a second download"),
        (r" - (?:Copy|Kopie|Copie|Copia)(?: ?\([0-9]{1,3}\))?", "Windows"),
        (r" copy(?: [0-9]{1,3})?", "macOS"),
        (r" \([^()]*copy(?: [0-9]{1,3})?\)", "a file manager"),
    )
)
_COMPUTER = re.compile(r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*", re.ASCII)
_BY_RSYNC = re.compile(r"\.(?P<base>.+)\.[A-Za-z0-9]{6}", re.ASCII)
_LONGEST = 512
"""The longest name that is looked at; file systems have 255."""

_MAX_NAMED = 100
"""The most leftovers of one place that are named one by one."""


@dataclass(frozen=True)
class Leftover:
    """A file or folder that no user put there.

    Attributes:
        by: the program.
        of: the file that it is a copy of; empty for anything else.
        is_metadata: whether it holds nothing of the user's, so that it may be deleted with the files beside it.
    """

    by: str
    of: str = ""
    is_metadata: bool = False

    def __str__(self) -> str:
        return f"a copy of {shown(self.of)}, made by {self.by}" if self.of else f"left by {self.by}"


def left_by(name: str, asked: Collection[str] = ()) -> Leftover | None:
    """Recognise a file or folder that a program leaves behind, by its name; return None for any other.

    Args:
        name: of a file or folder, without the path.
        asked: the names that are asked for, which alone can have copies; none of them is a leftover.
    """
    if name in asked or len(name) > _LONGEST:
        return None
    if (folder := left_folder(name)) is not None:
        return folder
    if (by := _FILES.get(name.lower())) is not None:
        return Leftover(by, is_metadata=True)
    if asked and (copy := copy_of(name, asked)) is not None:
        return copy
    if (match := _SHAPE.fullmatch(name)) is not None and match.lastgroup is not None:
        by = _SHAPES[int(match.lastgroup[1:])][1]
        return Leftover(by, is_metadata=name.startswith("._") or by == "Nextcloud")
    return None


def left_folder(name: str) -> Leftover | None:
    """Recognise a folder that a program leaves behind; return None for every name that a node or a bundle may have."""
    by = _FOLDERS.get(name.lower())
    return None if by is None else Leftover(by, is_metadata=name.lower() not in _KEEP_FILES)


def copy_of(name: str, asked: Collection[str]) -> Leftover | None:
    """Recognise a copy that a program made of a file that is asked for; return None for any other name."""
    if len(name) > _LONGEST:
        return None
    stem, dot, ending = name.rpartition(".")
    for text, suffix in ((stem, dot + ending), (name, "")):
        for pattern, by in _COPIES:
            match = pattern.fullmatch(text)
            if match is not None and match["base"] + suffix in asked:
                return Leftover(by, match["base"] + suffix)
        for at in (at for at, letter in enumerate(text) if letter == "-"):
            if text[:at] + suffix in asked and _COMPUTER.fullmatch(text, at + 1):
                return Leftover("OneDrive", text[:at] + suffix)
    if name.startswith("Copy of ") and name.removeprefix("Copy of ") in asked:
        return Leftover("Google Drive", name.removeprefix("Copy of "))
    match = _BY_RSYNC.fullmatch(name)
    return Leftover("rsync", match["base"]) if match is not None and match["base"] in asked else None


# ------------------------------------------------------------------ names


def pair_names(asked: Iterable[str], present: Collection[str]) -> dict[str, str]:
    """Map each name that is asked for to the one that is there: itself, or else the only one of its normal form (NFC).

    Names that are not there are left out.
    """
    asked, there = set(asked), set(present)
    found = {name: name for name in asked & there}
    missing = asked - there
    others = [name for name in there - asked if not name.isascii()] if missing else []
    if others:
        spellings: dict[str, list[str]] = defaultdict(list)
        for name in others:
            spellings[_nfc(name)].append(name)
        times = Counter(map(_nfc, missing))
        for name in missing:
            if times[_nfc(name)] == 1 and len(same := spellings.get(_nfc(name), [])) == 1:
                found[name] = same[0]
    return found


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


@dataclass(frozen=True)
class SortedNames:
    """The names in a folder, by what they are.

    Attributes:
        found: the names that were asked for and are there, each with the name that it has there.
        leftovers: the names that carriers left.
        others: all other names, sorted.
    """

    found: dict[str, str]
    leftovers: dict[str, Leftover]
    others: list[str]

    def warnings(self) -> Iterator[str]:
        """Say each leftover, and each name in another normal form, in a line."""
        leftovers = sorted(self.leftovers.keys() - {CHECKER_NAME})
        for name in leftovers[:_MAX_NAMED]:
            yield f"{shown(name)} is not part of the bundle ({self.leftovers[name]})"
        if len(leftovers) > _MAX_NAMED:
            yield f"{len(leftovers) - _MAX_NAMED} more such files and folders are not part of the bundle"
        for name in sorted(name for name, there in self.found.items() if name != there):
            yield f"{shown(name)} was found by its letters: its accents came in another normal form"


def sort_names(present: Collection[str], asked: Collection[str]) -> SortedNames:
    """Sort the names in a folder; `asked` are those that its manifest names."""
    asked = frozenset(asked)
    found = pair_names(asked, present)
    leftovers, others = {}, []
    for name in sorted(set(present).difference(found.values())):
        if (left := left_by(name, asked)) is not None:
            leftovers[name] = left
        else:
            others.append(name)
    return SortedNames(found, leftovers, others)


def shown(name: str) -> str:
    """Return a name as it can be printed."""
    return name if name.isprintable() else repr(name)


# ------------------------------------------------------------------ texts


def plain_text(data: bytes) -> bytes:
    """Return a text as it was before an editor or a transfer changed its line ends, or put a byte order mark before it.

    Its lines are those that are not empty, each ended by a newline.
    """
    lines = re.split(rb"[\r\n]+", data.removeprefix(BOM))
    return b"".join(line.rstrip() + b"\n" for line in lines if line.strip())
