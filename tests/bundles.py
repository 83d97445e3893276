"""Real bundles for the tests of the hub: made by logging and exporting, or as the first generation made them."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import logging.config
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from calyx_logging import Node, provision
from calyx_logging.bundle.folder import sums_of
from calyx_logging.format.chunk_stats import stats_of
from calyx_logging.format.manifest import Manifest
from calyx_logging.hub.receipts import write_receipt
from calyx_logging.hub.store import Store
from calyx_logging.outbox.export import ExportOptions, export
from calyx_logging.outbox.receipts import CarriedReceipt
from conftest import close_logging, config, lines_of

START = 1_760_000_000


def make_node(folder: Path, name: str) -> Node:
    root = folder / f"root of {name}"
    root.mkdir(parents=True)
    return provision(root, name).node


def make_bundle(node: Node, numbers: range, second: int = 0, options: ExportOptions | None = None) -> Path:
    """Log, close, export; the bundle's folder."""
    logging.config.dictConfig(config(node))
    for n in numbers:
        logging.getLogger("harness").info("event", extra={"n": n})
    close_logging()
    bundle = export(node, options, clock=lambda: float(START + second)).bundle
    assert bundle is not None
    return bundle


def stored(store: Store) -> list[dict[str, Any]]:
    """Every line in the store, as who reads it with a glob finds it."""
    return [line for folder in sorted(store.folder.glob("[!.]*/*")) for line in lines_of(folder)]


def numbers(store: Store) -> list[int]:
    return sorted(line["n"] for line in stored(store) if "n" in line)


def foreign(folder: Path, count: int) -> Path:
    """A first-generation bundle: BOM, upper-case hashes, `file`, no counts, a chunk that grows in place."""
    folder.mkdir(parents=True)
    event = {"node_id": "old-1", "ts_utc": "2026-01-01T00:00:00.0000000+01:00", "event_id": "e", "source": "bench"}
    data = b"".join(json.dumps({**event, "n": n}).encode() + b"\r\n" for n in range(count))
    name = "20260101_000000__runner__abc.jsonl"
    (folder / name).write_bytes(b"\xef\xbb\xbf" + data)
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest().upper()
    manifest = {
        "node_id": "old-1",
        "exported_at": f"2026-01-01T00:00:0{count}.1234567+01:00",
        "timestamp": "20260101_000000",
        "chunks": [{"file": name, "sha256": digest}],
    }
    (folder / "manifest.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(manifest).encode())
    return folder


def reseal(bundle: Path, **changes: Any) -> None:
    """Make a bundle's manifest and sums right again after its chunks were changed; `changes` to the manifest."""
    manifest = Manifest.parse((bundle / "manifest.json").read_bytes())
    chunks = []
    for path in sorted(bundle.glob("*.jsonl")):
        with path.open("rb") as stream:
            chunks.append(stats_of(stream, path.name).entry(path.name))
    fields = {**manifest.__dict__, "chunks": tuple(chunks), **changes}
    data = Manifest(**fields).to_bytes()
    (bundle / "manifest.json").write_bytes(data)
    (bundle / "SHA256SUMS").write_bytes(sums_of(Manifest.parse(data), hashlib.sha256(data).hexdigest()))


def receipt_of(store: Store, node_id: str = "n-1") -> CarriedReceipt:
    """The hub's, carried back."""
    receipt = write_receipt(store, node_id).receipt
    return CarriedReceipt(receipt, receipt.to_bytes(), None)


def make_key(path: Path, passphrase: str = "", kind: str = "ed25519") -> Path:
    """A new key pair; the private key's path."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-keygen")
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    """A tar.gz by hand."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path
