"""Query the events of an outbox, a bundle or the hub as one database.

from calyx_logging.query import connect
db = connect(root)                     # of the node's outbox; connect(root, "hub") of a hub
db.table("events").filter(...).to_pandas()

Invariant: one function (in `rows`) makes every table of events, so a query has one answer on every engine.

The way: `locations` finds the chunks; `rows` makes them Parquet, for the time of a query (`duckdb_views`) or in the
hub's stored table (`refresh`, `snapshot`, `hub_table`), wherever `executors` or `spark` map it; `views` and
`result_views` are what can be asked, `named` asks. Other wings use these, and `connect`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Any

from calyx_logging.hub.store import Store, find_hub
from calyx_logging.query import hub_table
from calyx_logging.query.duckdb_views import MEMORY, connect_chunks
from calyx_logging.query.executors import Engine
from calyx_logging.query.locations import chunks_at

__all__ = ["connect"]


def connect(
    root: str | os.PathLike[str] | None = None,
    place: str = "outbox",
    *,
    engine: Engine | None = None,
    memory: str = MEMORY,
    closed: bool = False,
    warn: Callable[[str], None] | None = None,
    plain: bool = False,
    tables: Collection[str] = (),
) -> Any:
    """An Ibis backend with the views `events`, `runs`, `cases`, `nodes`, `gaps` and so on (docs/query.md).

    Args:
        root: of the node or hub; None for the one that the commands would find.
        place: `outbox`, `hub`, or the path of a bundle's folder.
        engine: does what there is to do; None for this process. At a hub, a SparkEngine also answers.
        memory: that the database takes at most.
        closed: whether queries may read no other file, and write none (DuckDB's; Spark's may).
        warn: is told of what cannot be read; None raises, except at a hub.
        tables: views to compute once, because many questions use them (DuckDB's).
        plain: whether what `run_sql` and `run_named` need is enough; it is there sooner, without Ibis.

    Raises:
        ConfigError: the extra `query` is not installed, or there is no such place.
        ChunkError, StorageError: a chunk cannot be read, or the temporary folder cannot be written.
    """
    if place == "hub":
        store = Store(find_hub(root))
        store.asked_for(())
        return hub_table.connect(store, engine, memory=memory, closed=closed, warn=warn, plain=plain, tables=tables)
    chunks, keep = chunks_at(place, root)(), place == "outbox"
    return connect_chunks(
        chunks, engine, memory=memory, closed=closed, warn=warn, plain=plain, keep=keep, tables=tables
    )
