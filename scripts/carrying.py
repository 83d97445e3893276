"""Receipts on a folder that is carried, such as a stick: the node has it take them back, the hub leaves them there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from calyx_logging.bundle.object_store import local_folder
from calyx_logging.core import files
from calyx_logging.core.text import count_text
from calyx_logging.errors import CalyxError
from calyx_logging.format.receipt import RECEIPTS_DIR
from calyx_logging.hub.receipts import leave
from calyx_logging.hub.store import Store
from calyx_logging.node import Node
from calyx_logging.outbox.prune import take_note
from calyx_logging.outbox.receipts import is_kept, read_receipt, receipt_in
from calyx_logging.scripts.cli import remark, tell

__all__ = ["leave_receipts", "make_place_for_receipts", "take_receipts"]


def make_place_for_receipts(carrier: Path) -> None:
    """Have the next import from this folder leave receipts in it."""
    try:
        files.make_dirs(carrier / RECEIPTS_DIR)
    except OSError as error:
        remark(f"warning: {carrier} takes no receipts back: {error}")


def leave_receipts(store: Store, paths: Iterable[str], *, quiet: bool) -> None:
    """Leave receipts in those of the folders that bundles were imported from which take them back."""
    for path in paths:
        try:
            folder = local_folder(path)
            left = [] if folder is None else leave(store, folder)
        except CalyxError as error:
            remark(f"warning: {error}")
            continue
        if left and not quiet:
            tell(f"{count_text(len(left), 'receipt')} to carry back: {left[0].parent}")


def take_receipts(node: Node, carrier: Path, *, accept_unsigned: bool) -> None:
    """Keep the receipts that came back in this folder; one that cannot be taken stays there."""
    for node_id in node.all_ids():
        one = node.with_id(node_id)
        try:
            path = receipt_in(carrier, one)
            if not path.exists():
                continue
            carried = read_receipt(one, path, accept_unsigned=accept_unsigned)
            if is_kept(one, carried):
                continue
            take_note(one, carried)
        except (CalyxError, OSError) as error:
            remark(f"did not take the receipt: {error}")
            continue
        what = f"of {carried.receipt.written_at}, for {count_text(len(carried.receipt.chunks), 'chunk')}"
        prune = f'calyx-telemetry prune --root "{node.root}" --receipt "{carrier}"'
        unsigned = "" if carried.signed_by else " --accept-unsigned"
        remark(f"took the hub's receipt {what}; to delete what it covers: {prune}{unsigned}")
