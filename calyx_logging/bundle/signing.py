"""Sign manifests and receipts, and check their signatures, with OpenSSH's `ssh-keygen -Y`.

A file in OpenSSH's `allowed_signers` format (see ssh-keygen(1), "ALLOWED SIGNERS") lists the trusted keys: at the hub
the nodes' keys, each under its node id; at a node the hubs' keys. Stock ssh-keygen makes and accepts the same
signatures. Manifests and receipts have separate namespaces, so that neither can be passed off as the other.

Invariants: every verdict is ssh-keygen's; a file of signers is only ever replaced atomically.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from calyx_logging.core import files
from calyx_logging.core.carriers import plain_text
from calyx_logging.core.os_lock import OsLock
from calyx_logging.core.reading import BOM
from calyx_logging.errors import ConfigError, SignatureError, StorageError

__all__ = [
    "MANIFEST_NAMESPACE",
    "RECEIPT_NAMESPACE",
    "PublicKey",
    "add_line",
    "check_key",
    "is_listed",
    "name_key",
    "named_key",
    "read_public_key",
    "sign",
    "signer_line",
    "signers_of",
    "verify_signature",
]

MANIFEST_NAMESPACE = "calyx-telemetry"
RECEIPT_NAMESPACE = "calyx-telemetry-receipt"
_KEY_FILE = Path("runtime", "signing_key")
_MAX_SIGNATURE = 1024 * 1024
_KEY_LINE = re.compile(r"(?P<kind>[a-z0-9@.-]+)[ \t]+(?P<blob>[A-Za-z0-9+/]+={0,2})(?:[ \t]+(?P<comment>[^\r\n]*))?")
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
_GOOD = re.compile(r'^Good ".*" signature for (?P<who>.*) with (?P<key>\S+ key SHA256:\S+)', re.MULTILINE)


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
    match = _KEY_LINE.fullmatch(keys[0]) if len(keys) == 1 else None
    if match is None or not _is_blob(match["kind"], match["blob"]):
        raise ConfigError("is no OpenSSH public key", path=path, hint="name the .pub file that ssh-keygen made")
    return PublicKey(match["kind"], match["blob"], (match["comment"] or "").strip())


def _is_blob(kind: str, blob: str) -> bool:
    try:
        data = base64.b64decode(blob, validate=True)
    except binascii.Error:
        return False
    return data[:4] == len(kind).to_bytes(4, "big") and data[4 : 4 + len(kind)] == kind.encode()


# ------------------------------------------------------------------ who may sign


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
            text = _text_of(path)
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
    lines = (line.split() for line in _text_of(path).splitlines())
    return any(words[:2] == [key.kind, key.blob] for words in lines)


def signers_of(path: Path, principal: str) -> bool:
    """Tell whether a file of signers, if it exists, has a line for a principal, in any spelling.

    Raises:
        ConfigError: it has a malformed line, whose principal cannot be determined.
        StorageError: the file exists but cannot be read.
    """
    found = False
    for number, line in enumerate(_text_of(path).splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _SIGNER.fullmatch(line)
        if (
            match is None
            or not _is_blob(match["kind"], match["blob"])
            or not all(_NAME.fullmatch(name) for name in match["names"].split(","))
        ):
            hint = "a line is: NODE_ID KIND KEY, with options before KIND; delete it, or put # before it"
            raise ConfigError(f"line {number} is not a valid line of a signers file", path=path, hint=hint)
        found = found or _matches(match["names"], principal)
    return found


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


def _text_of(path: Path) -> str:
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


# ------------------------------------------------------------------ making and checking


def named_key(root: Path) -> str | None:
    """Return the signing key that was named when the root was provisioned; None if there was none.

    Raises:
        StorageError: the file that names it cannot be read.
    """
    return _text_of(root / _KEY_FILE).strip() or None


def name_key(root: Path, key: str) -> Path:
    """Save which key a root signs with: the path of a private key, or of a public one whose private half an agent has.

    Raises:
        ConfigError: there is no such key.
        StorageError: it cannot be saved.
    """
    path = check_key(key)
    target = root / _KEY_FILE
    try:
        files.make_dirs(target.parent)
        files.replace_file(target, f"{path}\n".encode())
    except OSError as error:
        raise StorageError.of(error, "note the signing key", target, "make the folder writable") from error
    return target


def check_key(key: str) -> Path:
    """Return the absolute path of a valid key to sign with.

    Raises:
        ConfigError: there is no such file, or it is not an OpenSSH key.
        StorageError: it cannot be read.
    """
    path = files.reachable(Path(key).expanduser())
    hint = "name an OpenSSH private key, or the .pub of one that ssh-agent holds"
    if not path.is_file():
        raise ConfigError("there is no such key", path=path, hint=hint)
    try:
        data = files.read_regular(path)
    except OSError as error:
        raise StorageError.of(error, "read the key", path, "give this user access to it") from error
    if b"PRIVATE KEY" not in data[:200]:
        try:
            read_public_key(path)
        except ConfigError:
            raise ConfigError("is no OpenSSH key", path=path, hint=hint) from None
    return path


def sign(data: bytes, key: str, namespace: str) -> bytes:
    """Make an armored SSH signature.

    Args:
        data: the bytes to sign.
        key: the path of a private key, or of a public one whose private half ssh-agent holds.
        namespace: the signature's namespace.

    Raises:
        ConfigError: ssh-keygen is missing or cannot sign with this key; the error gives its reason.
    """
    path = check_key(key)
    done = _ssh_keygen("sign", "-f", str(path), "-n", namespace, data=data)
    if done.returncode == 0 and done.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        return done.stdout
    complaint = _complaint_of(done)
    if "passphrase" in complaint:
        hint = "add it to ssh-agent with ssh-add and name its .pub file, or run this in a terminal"
    elif "too open" in complaint:
        hint = f"chmod 600 {path}"
    elif path.suffix == ".pub":
        hint = "add its private key to ssh-agent with ssh-add, or name the private key"
    else:
        hint = "name an OpenSSH private key, or the .pub of one that ssh-agent holds"
    raise ConfigError(f"cannot sign with this key: {complaint}", path=path, hint=hint)


def verify_signature(
    data: bytes,
    signature: bytes,
    *,
    signers: Path,
    principal: str | None,
    namespace: str,
    revoked: Path | None = None,
) -> str:
    """Check a signature and return the key that made it (`ED25519 key SHA256:…`).

    Args:
        data: the bytes that were signed.
        signature: armored; with any line ends.
        signers: a file in OpenSSH's `allowed_signers` format.
        principal: the required signer; None for anyone the file names.
        namespace: the required namespace.
        revoked: a file of revoked keys, if there is one.

    Raises:
        SignatureError: it is not by one of the principal's keys, or the key has expired or is revoked.
        ConfigError: ssh-keygen is missing.
        StorageError: a temporary file cannot be written.
    """
    if len(signature) > _MAX_SIGNATURE:
        raise SignatureError("the signature is no SSH signature: it is larger than 1 MiB")
    with tempfile.TemporaryDirectory(prefix="calyx-signature-") as folder:
        path = Path(folder, "signature")
        try:
            files.write_new(path, [plain_text(signature)], sync=False)
        except OSError as error:
            raise StorageError.of(error, "write the signature", path, "free some space") from error
        if principal is None:
            found = _ssh_keygen("find-principals", "-f", str(signers), "-s", str(path), "-n", namespace, data=b"")
            if found.returncode:
                raise SignatureError(
                    f"{_who_signed(path, namespace, data)}, which is not trusted here: {_complaint_of(found)}",
                    hint="if that key is the hub's: calyx-telemetry trust --hub HUB KEY.pub",
                )
            principal = found.stdout.decode("utf-8", "replace").splitlines()[0].split(",")[0]
        options = ["-f", str(signers), "-I", principal, "-n", namespace, "-s", str(path)]
        done = _ssh_keygen("verify", *options, data=data)
        match = _GOOD.search(done.stdout.decode("utf-8", "replace")) if done.returncode == 0 else None
        if match is None:
            who = _who_signed(path, namespace, data)
            raise SignatureError(f"{who}, which is not trusted for {principal}: {_complaint_of(done)}")
        # a separate check, because ssh-keygen does not say that a key is revoked
        if revoked is not None and os.path.lexists(revoked):
            done = _ssh_keygen("verify", *options, "-r", str(revoked), data=data)
            if done.returncode:
                raise SignatureError(f"signed with {match['key']}, {_why_revoked(revoked, match['key'])}")
    return match["key"]


def _who_signed(signature: Path, namespace: str, data: bytes) -> str:
    """Say whether a signature is over these bytes at all, and by which key."""
    done = _ssh_keygen("check-novalidate", "-n", namespace, "-s", str(signature), data=data)
    match = re.search(rb"(\S+ key SHA256:\S+)", done.stdout)
    if done.returncode or match is None:
        return "the signature is damaged, or over other bytes than these"
    return f"signed with {match[1].decode('utf-8', 'replace')}"


def _why_revoked(revoked: Path, key: str) -> str:
    try:
        lines = _text_of(revoked).splitlines()
    except (ConfigError, StorageError):
        lines = []
    for line in lines:
        match = _KEY_LINE.fullmatch(line.strip())
        known = match and _is_blob(match["kind"], match["blob"]) and PublicKey(match["kind"], match["blob"], "")
        if known and key.endswith(known.fingerprint):
            return f"which is revoked in {revoked}"
    return f"which is revoked in {revoked}, or that is no list of keys that ssh-keygen reads"


def _complaint_of(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return ssh-keygen's complaint as one line."""
    text = (done.stderr + b"\n" + done.stdout).decode("utf-8", "replace")
    lines = [line.strip(" @\r") for line in text.splitlines()]
    kept = [line.removeprefix("Enter passphrase: ") for line in lines if line and "on standard input" not in line]
    return "; ".join(kept)[:500] or f"ssh-keygen ended with {done.returncode}"


def _program() -> str | None:
    """Find ssh-keygen by PATH alone; Windows would search the working directory first, which may be a USB stick."""
    name = "ssh-keygen.exe" if os.name == "nt" else "ssh-keygen"
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        path = Path(folder, name)
        if path.is_absolute() and path.is_file() and os.access(path, os.X_OK):
            return str(path)
    return None


def _ssh_keygen(action: str, *options: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
    program = _program()
    if program is None:
        raise ConfigError(
            "ssh-keygen is not installed, and signatures need it",
            hint="install OpenSSH (Debian: openssh-client; Windows: the optional feature OpenSSH Client)",
        )
    try:
        return subprocess.run(
            [program, "-Y", action, *options],
            input=data,
            capture_output=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        raise ConfigError(f"ssh-keygen cannot be run: {error}", path=program, hint="reinstall OpenSSH") from error
