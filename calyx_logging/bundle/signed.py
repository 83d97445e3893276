"""Judge who signed a bundle, by the keys that a hub trusts, or without any."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from calyx_logging.bundle.signers import keys_in, signers_of
from calyx_logging.bundle.signing import MANIFEST_NAMESPACE, signing_key_of, verify_signature
from calyx_logging.errors import SignatureError

__all__ = ["Signed", "Trust", "who_signed"]


@dataclass(frozen=True)
class Trust:
    """The keys of a hub: its `allowed_signers` file, and that of revoked keys."""

    signers: Path
    revoked: Path


@dataclass(frozen=True)
class Signed:
    """The signature of a bundle.

    Attributes:
        key: the key (`ED25519 key SHA256:…`); None if it is not signed, or the signature is wrong.
        is_trusted: whether the key is one that is trusted for the node; None if no keys of that node are known.
        fault: what is wrong with the signature; empty if nothing is.
        unchecked: why it could not be checked; empty if it was.
    """

    key: str | None
    is_trusted: bool | None
    fault: str = ""
    unchecked: str = ""


def who_signed(manifest: bytes, signature: bytes | None, node_id: str, trust: Trust | None) -> Signed:
    """Check the signature of a manifest.

    Args:
        manifest: the bytes of the manifest.
        signature: armored; None if there is none.
        node_id: the node that the manifest names.
        trust: whose keys are trusted; None to find only which key it was.

    Raises:
        ConfigError: ssh-keygen is missing, or the files of keys are damaged.
        StorageError: a file cannot be read or written.
    """
    known = trust is not None and bool(signers_of(trust.signers, node_id))
    if signature is None:
        fault = f"it is not signed, and keys are trusted for node {node_id}" if known else ""
        return Signed(None, False if known else None, fault)
    try:
        if trust is None or not known:
            key = signing_key_of(manifest, signature, MANIFEST_NAMESPACE)
            if trust is not None and any(key.endswith(one.fingerprint) for one in keys_in(trust.revoked)):
                return Signed(None, False, f"signed with {key}, which is revoked in {trust.revoked}")
            return Signed(key, None)
        key = verify_signature(
            manifest,
            signature,
            signers=trust.signers,
            principal=node_id,
            namespace=MANIFEST_NAMESPACE,
            revoked=trust.revoked,
        )
    except SignatureError as error:
        return Signed(None, False if known else None, error.message)
    return Signed(key, True)
