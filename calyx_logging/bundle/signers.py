"""Files of keys: who may sign, in OpenSSH's `allowed_signers` format, and revoked keys.

Invariant: a file of signers is only ever replaced atomically, and one with a line that is none lets nobody sign.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from calyx_logging.core import files
from calyx_logging.core.os_lock import OsLock
from calyx_logging.core.reading import BOM
from calyx_logging.errors import ConfigError, StorageError

__all__ = [
    "KEY_LINE",
    "PublicKey",
    "Signer",
    "add_line",
    "is_blob",
    "is_listed",
    "keys_in",
    "read_public_key",
    "signer_line",
    "signers_in",
    "signers_of",
    "text_of",
]

KEY_LINE = re.compile(r"(?P<kind>[a-z0-9@.-]+)[ \t]+(?P<blob>[A-Za-z0-9+/]+={0,2})(?:[ \t]+(?P<comment>[^\r\n]*))?")
_KINDS = (
    r"(?:ssh-(?:ed25519|rsa|dss)|ecdsa-sha2-nistp(?:256|384|521)|sk-ssh-ed25519@openssh\.com"
    r"|sk-ecdsa-sha2-nistp256@openssh\.com|[a-z0-9-]+-cert-v01@openssh\.com)"
)
_OPTION = r'(?:cert-authority|(?:namespaces|valid-after|valid-before)="[^"]*")'
_SIGNER = re.compile(
    r'(?P<quote>"?)(?P<names>[^\s",]+(?:,[^\s",]+)*)(?P=quote)[ \t]+'
    rf"(?:(?i:{_OPTION}(?:,{_OPTION})*)[ \t]+)?(?P<kind>{_KINDS})[ \t]+(?P<blob>[A-Za-z0-9+/]+={{0,2}})(?:[ \t].*)?"
)
_NAME = re.compile(r"!?[A-Za-z0-9*?][A-Za-z0-9._*?@+-]*", re.ASCII)
_BREAKS = re.compile("[\\v\\f\\x1c-\\x1e\\x85\\u2028\\u2029]|\\r(?!\\n|$)")


@dataclass(frozen=True)
class PublicKey:
    """An OpenSSH public key: kind (`ssh-ed25519`), base64 text, comment."""

    kind: str
    blob: str
    comment: str

    @property
    def fingerprint(self) -> str:
        """The key's fingerprint `SHA256:…`, as ssh-keygen -l prints it."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def __str__(self) -> str:
        return f"{self.kind} {self.blob}" + (f" {self.comment}" if self.comment else "")


def read_public_key(path: Path) -> PublicKey:
    """Read the key in a `.pub` file.

    Raises:
        ConfigError: it is a private key, not a key at all, or missing.
        StorageError: it cannot be read.
    """
    try:
        data = files.read_regular(path)
    except FileNotFoundError:
        raise ConfigError("there is no such key", path=path, hint="name the .pub file of one") from None
    except OSError as error:
        raise StorageError.of(error, "read the public key", path, "name a .pub file") from error
    if b"PRIVATE KEY" in data:
        raise ConfigError("is a private key", path=path, hint=f"it stays where it is: name {path.name}.pub")
    lines = [line.strip() for line in data.decode("utf-8", "replace").splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    match = KEY_LINE.fullmatch(keys[0]) if len(keys) == 1 else None
    if match is None or not is_blob(match["kind"], match["blob"]):
        raise ConfigError("is no OpenSSH public key", path=path, hint="name the .pub file that ssh-keygen made")
    return PublicKey(match["kind"], match["blob"], (match["comment"] or "").strip())


def is_blob(kind: str, blob: str) -> bool:
    """Tell whether a base64 text is a key of a kind."""
    try:
        data = base64.b64decode(blob, validate=True)
    except binascii.Error:
        return False
    return data[:4] == len(kind).to_bytes(4, "big") and data[4 : 4 + len(kind)] == kind.encode()


def signer_line(principal: str, key: PublicKey, namespace: str) -> str:
    """Make the line of an `allowed_signers` file that lets a key sign for a principal."""
    return f'{principal} namespaces="{namespace}" {key}'


def add_line(path: Path, line: str) -> bool:
    """Add a line to a file of signers or of revoked keys; return False if it is there, apart from the key's comment.

    Raises:
        ConfigError: the file is not text.
        StorageError: it cannot be read or written.
    """
    wanted = 4 if "namespaces=" in line else 2
    try:
        files.make_dirs(path.parent)
        with OsLock(path.with_name(f".{path.name.removeprefix('.')}.lock")):
            text = text_of(path)
            if any(" ".join(known.split()).startswith(" ".join(line.split()[:wanted])) for known in text.splitlines()):
                return False
            if text and not text.endswith("\n"):
                text += "\n"
            files.replace_file(path, f"{text}{line}\n".encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise StorageError.of(error, "add the key", path, "make the folder writable") from error
    return True


def is_listed(path: Path, key: PublicKey) -> bool:
    """Tell whether a file of keys contains a key.

    Raises:
        StorageError: the file exists but cannot be read.
    """
    lines = (line.split() for line in text_of(path).splitlines())
    return any(words[:2] == [key.kind, key.blob] for words in lines)


@dataclass(frozen=True)
class Signer:
    """A line of a file of signers: the names for which a key may sign, as patterns, and its other options."""

    names: str
    key: PublicKey
    line: str


def signers_in(path: Path) -> Iterator[Signer]:
    """Yield the lines of a file of signers, if it exists.

    Raises:
        ConfigError: it has a malformed line, whose principal cannot be determined.
        StorageError: the file exists but cannot be read.
    """
    for number, line in enumerate(text_of(path).splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _SIGNER.fullmatch(line)
        if (
            match is None
            or not is_blob(match["kind"], match["blob"])
            or not all(_NAME.fullmatch(name) for name in match["names"].split(","))
        ):
            hint = "a line is: NODE_ID KIND KEY, with options before KIND; delete it, or put # before it"
            raise ConfigError(f"line {number} is not a valid line of a signers file", path=path, hint=hint)
        comment = line.partition(match["blob"])[2].strip()
        yield Signer(match["names"], PublicKey(match["kind"], match["blob"], comment), line)


def signers_of(path: Path, principal: str) -> bool:
    """Tell whether a file of signers has a line for a principal, in any spelling; raises as `signers_in` does."""
    matches = [
        _matches(signer.names, principal) for signer in signers_in(path)
    ]  # of every line, so that all are checked
    return any(matches)


def keys_in(path: Path) -> list[PublicKey]:
    """Return the keys of a file of keys, such as revoked ones; lines of other forms are passed over.

    Raises:
        StorageError: the file exists but cannot be read.
    """
    matches = (KEY_LINE.fullmatch(line.strip()) for line in text_of(path).splitlines())
    found = (PublicKey(match["kind"], match["blob"], match["comment"] or "") for match in matches if match)
    return [key for key in found if is_blob(key.kind, key.blob)]


def _matches(patterns: str, principal: str) -> bool:
    """Match OpenSSH's pattern lists: `*`, `?`, and `!` for exceptions."""
    found = False
    for pattern in patterns.casefold().split(","):
        escaped = pattern.removeprefix("!").replace("[", "[[]")
        if fnmatch.fnmatchcase(principal.casefold(), escaped):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def text_of(path: Path) -> str:
    """Read a small file's text; empty if the file does not exist."""
    try:
        data = files.read_regular(path)
    except FileNotFoundError as error:
        if path.is_symlink():
            raise StorageError.of(error, "read what this link leads to", path) from error
        return ""
    except OSError as error:
        raise StorageError.of(error, "read the file", path) from error
    if data.startswith(b"SSHKRL"):
        raise ConfigError("is a binary list of revoked keys", path=path, hint="use ssh-keygen -k -u to add a key to it")
    if data.startswith((BOM, b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
        raise ConfigError("is no plain text", path=path, hint="save it as UTF-8 without byte order mark")
    text = data.decode("utf-8", "surrogateescape")
    if _BREAKS.search(text):
        raise ConfigError(
            "has line breaks that ssh-keygen does not know", path=path, hint="end each line with a newline"
        )
    return text
