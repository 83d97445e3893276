"""Publish the files of the hub's stored table as a Delta Lake table, for other programs.

    telemetry/federated/.table/_delta_log/      which of the table's files are in force, in Delta's form

The log follows the catalog. Deleting it ends the publication; a damaged one is made again. The rows are all lines of
the chunks; docs/query.md says how to leave out those that are not events.

Needs the extra `delta`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from calyx_logging.core import files
from calyx_logging.core.os_lock import OsLock
from calyx_logging.errors import CalyxError, ConfigError, StorageError
from calyx_logging.hub.store import Store
from calyx_logging.query.in_force import Part, folder_of, parts_of, refuse_links
from calyx_logging.query.rows import schema
from calyx_logging.query.sql import first_lines

__all__ = ["is_published", "publish"]

_LOG = "_delta_log"


def is_published(store: Store) -> bool:
    """Tell whether the table has been published."""
    return (folder_of(store) / _LOG).is_dir()


def publish(store: Store) -> int:
    """Bring the Delta Lake table up to date with the files in force; make it where there is none.

    Returns:
        Its version.

    Raises:
        ConfigError: the extra `delta` is not installed.
        StorageError: it cannot be written.
    """
    try:
        import deltalake
        from deltalake.exceptions import DeltaError
        from deltalake.transaction import RemoveAction  # noqa: F401  (older versions have none)
    except ImportError as error:
        hint = 'pip install "calyx-logging[delta]"'
        raise ConfigError(
            f"Delta Lake needs deltalake 1.6.6 or newer, which is not installed ({error})", hint=hint
        ) from None
    folder = folder_of(store)
    try:
        for node_id in store.nodes():
            refuse_links(store, node_id)
        with OsLock(folder / ".delta.lock"):
            parts = {part.name: part for some in parts_of(store).values() for part in some}
            try:
                table = deltalake.DeltaTable(folder.as_uri()) if is_published(store) else None
            except DeltaError:
                table = None
            if table is None or table.schema() != deltalake.Schema.from_arrow(schema()):
                files.remove_tree(folder / _LOG)
                table = deltalake.DeltaTable.create(folder.as_uri(), schema(), name="events")
            _change(table, parts, folder)
            return int(table.version())
    except OSError as error:
        raise StorageError.of(error, "publish the table", error.filename or folder, "check rights and space") from error
    except CalyxError:
        raise
    except Exception as error:  # deltalake's, which have no base in common with one another
        hint = "delta-rs takes no folder with a % in its name" if "%" in str(folder) else "check rights and space"
        raise StorageError(f"cannot publish the table: {first_lines(error)}", path=folder / _LOG, hint=hint) from error


def _change(table: Any, parts: dict[str, Part], folder: Path) -> None:
    """Commit the files that were added and removed, if there are any."""
    import pyarrow as pa
    from deltalake.transaction import AddAction, RemoveAction

    there = set(pa.table(table.get_add_actions()).column("path").to_pylist())
    now = int(time.time() * 1000)
    actions: list[Any] = [RemoveAction(name, True, now) for name in sorted(there - parts.keys())]
    for name in sorted(parts.keys() - there):
        changed, stats = int((folder / name).stat().st_mtime * 1000), json.dumps({"numRecords": parts[name].rows})
        actions.append(AddAction(name, parts[name].bytes, {}, changed, True, stats))
    if actions:
        table.create_write_transaction(actions, "append", schema())
        table.update_incremental()
