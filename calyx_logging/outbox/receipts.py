"""Read hubs' receipts that came back to a node, and keep them in its outbox's `.receipts/`.

Invariant: only receipts with a verified signature, or accepted unsigned by the user, are kept here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from calyx_logging.bundle.signing import RECEIPT_NAMESPACE, verify_signature
from calyx_logging.core import files
from calyx_logging.core.carriers import left_by
from calyx_logging.core.reading import names_in, sha256_of
from calyx_logging.errors import ConfigError, ManifestError, SignatureError, StorageError
from calyx_logging.format.receipt import MAX_RECEIPT, RECEIPTS_DIR, SIGNATURE_SUFFIX, Receipt
from calyx_logging.node import Node

__all__ = [
    "Acknowledged",
    "CarriedReceipt",
    "hub_signers",
    "is_kept",
    "keep",
    "load_acknowledged",
    "read_receipt",
    "receipt_in",
]

_MAX_SIGNATURE = 1024 * 1024


@dataclass(frozen=True)
class CarriedReceipt:
    """A receipt from a hub: the value, its bytes, and the key that signed it (None: accepted unsigned)."""

    receipt: Receipt
    data: bytes
    signed_by: str | None


@dataclass
class Acknowledged:
    """The union of the kept receipts.

    Attributes:
        chunks: hashes of acknowledged chunks.
        bundles: hashes of the manifests that a hub has.
        count: how many receipts there are.
        last: when the newest was written; None without one.
        warnings: receipts that cannot be read.
    """

    chunks: set[str] = field(default_factory=set)
    bundles: set[str] = field(default_factory=set)
    count: int = 0
    last: str | None = None
    warnings: list[str] = field(default_factory=list)


def hub_signers(node: Node) -> Path:
    """Return the file, in OpenSSH's format, of the hubs whose receipts this root trusts."""
    return node.root / "runtime" / "hub_signers"


def receipt_in(folder: Path, node: Node) -> Path:
    """Return the path of a node's receipt in a folder that came back from a hub, or in a hub; it need not be there."""
    name = f"{node.id}.json"
    places = (folder / RECEIPTS_DIR / name, folder / "telemetry" / "federated" / RECEIPTS_DIR / name, folder / name)
    return next((path for path in places if path.exists()), places[0])


def is_kept(node: Node, carried: CarriedReceipt) -> bool:
    """Tell whether a receipt is in the outbox already."""
    return (node.outbox / RECEIPTS_DIR / _name(carried)).exists()


def read_receipt(node: Node, path: Path, *, accept_unsigned: bool) -> CarriedReceipt:
    """Read and check a receipt from a hub.

    Args:
        node: the node; the receipt may be for any id of its root.
        path: the receipt; its signature is beside it as `….sig`.
        accept_unsigned: accept a receipt that is not signed, or whose signer is not trusted here yet; only as long as
            no hub is trusted.

    Raises:
        ManifestError: it is not a receipt, or it is for another node.
        SignatureError: its signature is not by a hub that is trusted here, or it has none although one is trusted.
        ConfigError: it is unsigned or no hub is trusted, and that was not accepted; or ssh-keygen is missing.
        StorageError: it cannot be read.
    """
    try:
        if path.stat().st_size > MAX_RECEIPT:
            raise ManifestError(f"is not a receipt: it is larger than {MAX_RECEIPT} bytes", path=path)
        data = files.read_regular(path)
        signature_path = path.with_name(path.name + SIGNATURE_SUFFIX)
        signature = None
        if signature_path.exists():
            if signature_path.stat().st_size > _MAX_SIGNATURE:
                raise SignatureError("is no SSH signature", path=signature_path)
            signature = files.read_regular(signature_path)
    except OSError as error:
        raise StorageError.of(error, "read the receipt", path, "name the file that the hub wrote") from error
    try:
        receipt = Receipt.parse(data)
    except ManifestError as error:
        hint = error.hint or "name the file NODE_ID.json that the hub wrote"
        raise ManifestError(error.message, path=path, hint=hint) from None
    if receipt.node_id not in node.all_ids():
        raise ManifestError(f"is for node {receipt.node_id}, and this is {node.id}", path=path)
    signers = hub_signers(node)
    if signature is not None and signers.exists():
        try:
            signed_by = verify_signature(data, signature, signers=signers, principal=None, namespace=RECEIPT_NAMESPACE)
        except SignatureError as error:
            raise SignatureError(error.message, path=path, hint=error.hint) from None
        return CarriedReceipt(receipt, data, signed_by)
    if signature is None and os.path.lexists(signers):
        hint = f"at the hub: calyx-telemetry receipt --sign KEY --root HUB; or here, remove the hubs from {signers}"
        raise SignatureError("is not signed, and this root trusts hubs, which sign", path=path, hint=hint)
    if not accept_unsigned:
        what = "is not signed" if signature is None else f"is signed, but {signers} trusts no hub"
        hint = "trust the hub's key with: calyx-telemetry trust --hub HUB KEY.pub; or say --accept-unsigned"
        raise ConfigError(what, path=path, hint=hint)
    return CarriedReceipt(receipt, data, None)


def keep(node: Node, carried: CarriedReceipt) -> None:
    """Keep a receipt in the outbox and delete those that it includes; the caller holds the exporter's lock.

    Raises:
        OSError: it cannot be written.
    """
    folder = node.outbox / RECEIPTS_DIR
    files.make_dirs(folder)
    name = _name(carried)
    files.replace_file(folder / name, carried.data)
    known, bundles = set(carried.receipt.chunks), set(carried.receipt.bundles)
    for other in names_in(folder):
        if other.startswith(".") or other == name:
            continue
        try:
            older = Receipt.parse(files.read_regular(folder / other))
            if known.issuperset(older.chunks) and bundles.issuperset(older.bundles):
                files.remove(folder / other)
        except (OSError, ManifestError):
            continue  # `load_acknowledged` warns of it


def _name(carried: CarriedReceipt) -> str:
    return f"{sha256_of(carried.data)[:16]}.json"


def load_acknowledged(node: Node) -> Acknowledged:
    """Load the receipts kept in the outbox as one acknowledgement.

    Raises:
        StorageError: the folder cannot be read.
    """
    found = Acknowledged()
    folder = node.outbox / RECEIPTS_DIR
    for name in names_in(folder):
        if name.startswith(".") or left_by(name) is not None:
            continue
        try:
            receipt = Receipt.parse(files.read_regular(folder / name))
        except (OSError, ManifestError) as error:
            found.warnings.append(f"{folder / name} cannot be read and is ignored: {error}")
            continue
        if receipt.node_id == node.id:
            found.chunks.update(receipt.chunks)
            found.bundles.update(receipt.bundles)
            found.count += 1
            found.last = max(found.last or "", receipt.written_at)
    return found
