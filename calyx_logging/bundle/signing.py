"""Sign manifests and receipts, and check their signatures, with OpenSSH's `ssh-keygen -Y`.

A file in OpenSSH's `allowed_signers` format (see ssh-keygen(1), "ALLOWED SIGNERS") lists the trusted keys: at the hub
the nodes' keys, each under its node id; at a node the hubs' keys. Stock ssh-keygen makes and accepts the same
signatures. Manifests and receipts have separate namespaces, so that neither can be passed off as the other.

Invariants: every verdict is ssh-keygen's; a file of signers is only ever replaced atomically.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from calyx_logging.bundle.signers import KEY_LINE, PublicKey, is_blob, read_public_key, text_of
from calyx_logging.core import files
from calyx_logging.core.carriers import plain_text
from calyx_logging.errors import ConfigError, SignatureError, StorageError

__all__ = [
    "MANIFEST_NAMESPACE",
    "RECEIPT_NAMESPACE",
    "check_key",
    "name_key",
    "named_key",
    "sign",
    "signing_key_of",
    "verify_signature",
]

MANIFEST_NAMESPACE = "calyx-telemetry"
RECEIPT_NAMESPACE = "calyx-telemetry-receipt"
_KEY_FILE = Path("runtime", "signing_key")
_MAX_SIGNATURE = 1024 * 1024
_GOOD = re.compile(r'^Good ".*" signature for (?P<who>.*) with (?P<key>\S+ key SHA256:\S+)', re.MULTILINE)


# ------------------------------------------------------------------ making and checking


def named_key(root: Path) -> str | None:
    """Return the signing key that was named when the root was provisioned; None if there was none.

    Raises:
        StorageError: the file that names it cannot be read.
    """
    return text_of(root / _KEY_FILE).strip() or None


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


def signing_key_of(data: bytes, signature: bytes, namespace: str) -> str:
    """Return the key that signed these bytes (`ED25519 key SHA256:…`), whoever it belongs to.

    Args:
        data: the bytes that were signed.
        signature: armored; with any line ends.
        namespace: the required namespace.

    Raises:
        SignatureError: it is damaged, or over other bytes.
        ConfigError: ssh-keygen is missing.
        StorageError: a temporary file cannot be written.
    """
    with _in_file(signature) as path:
        return _key_that_signed(path, namespace, data)


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
    with _in_file(signature) as path:
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


@contextmanager
def _in_file(signature: bytes) -> Iterator[Path]:
    """Put a signature where ssh-keygen reads it."""
    if len(signature) > _MAX_SIGNATURE:
        raise SignatureError("the signature is no SSH signature: it is larger than 1 MiB")
    with tempfile.TemporaryDirectory(prefix="calyx-signature-") as folder:
        path = Path(folder, "signature")
        try:
            files.write_new(path, [plain_text(signature)], sync=False)
        except OSError as error:
            raise StorageError.of(error, "write the signature", path, "free some space") from error
        yield path


def _who_signed(signature: Path, namespace: str, data: bytes) -> str:
    """Say whether a signature is over these bytes at all, and by which key."""
    try:
        return f"signed with {_key_that_signed(signature, namespace, data)}"
    except SignatureError as error:
        return error.message


def _key_that_signed(signature: Path, namespace: str, data: bytes) -> str:
    done = _ssh_keygen("check-novalidate", "-n", namespace, "-s", str(signature), data=data)
    match = re.search(rb"(\S+ key SHA256:\S+)", done.stdout)
    if done.returncode or match is None:
        raise SignatureError("the signature is damaged, or over other bytes than these")
    return match[1].decode("utf-8", "replace")


def _why_revoked(revoked: Path, key: str) -> str:
    try:
        lines = text_of(revoked).splitlines()
    except (ConfigError, StorageError):
        lines = []
    for line in lines:
        match = KEY_LINE.fullmatch(line.strip())
        known = match and is_blob(match["kind"], match["blob"]) and PublicKey(match["kind"], match["blob"], "")
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
