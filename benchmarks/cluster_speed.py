"""Compare making the hub's table on this machine, on Spark and on Dask, with 1, 2 and 4 workers of one core.

    pip install calyx-logging[spark] distributed
    python benchmarks/fleet_data.py FOLDER --nodes 20 --chunks 20 --events 2500
    python benchmarks/cluster_speed.py FOLDER [--rounds 3] [--workers 1,2,4]

imports FOLDER/bundles into a hub, and makes its table anew with the same function on each engine. Starting an engine is
measured by itself. Workers of a cluster are processes of this machine, so this tells what an engine costs, not what
more machines bring. Figures are median seconds.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calyx_logging.hub.store import Store
from calyx_logging.query.executors import Engine, Here, Pool
from calyx_logging.query.table import refresh


class DaskEngine:
    """Maps on a Dask cluster."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], size: int) -> Iterator[Any]:
        """Yield the function's results, in the order of the items."""
        yield from self.client.gather(self.client.map(function, items, pure=False))


@contextmanager
def dask(workers: int) -> Iterator[Engine]:
    """A cluster of processes with a thread each."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(workers)
        yield DaskEngine(client)


@contextmanager
def spark(workers: int) -> Iterator[Engine]:
    """A cluster of executors with a core each."""
    import pyspark

    from calyx_logging.query.spark import SparkEngine, session

    os.environ.setdefault("SPARK_HOME", str(Path(pyspark.__file__).parent))
    found = session(f"local-cluster[{workers},1,1024]")
    engine = SparkEngine(found)
    list(engine.map(abs, list(range(workers * 4)), 0))  # the executors begin with the first job
    try:
        yield engine
    finally:
        found.stop()


@contextmanager
def here(workers: int) -> Iterator[Engine]:
    """Threads of this process."""
    yield Here() if workers == 1 else Pool(workers)


ENGINES = {"this process": here, "Dask": dask, "Spark": spark}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", default="1,2,4")
    options = parser.parse_args()
    counts = [int(text) for text in options.workers.split(",")]
    took: dict[tuple[str, int], tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "calyx_logging.scripts", "import", str(options.folder / "bundles")]
        subprocess.run(
            [*command, "--root", folder, "--no-table", "--accept-bad-lines"], check=False, stdout=subprocess.DEVNULL
        )
        store = Store(Path(folder))
        refresh(store, store.nodes())
        for count in counts:
            for name, start in ENGINES.items():
                began = time.perf_counter()
                with start(count) as engine:
                    started = time.perf_counter() - began
                    seconds = []
                    for _ in range(options.rounds):
                        began = time.perf_counter()
                        rows = refresh(store, store.nodes(), engine, anew=True).rows
                        seconds.append(time.perf_counter() - began)
                took[name, count] = started, statistics.median(seconds)
                print(name, count, took[name, count], flush=True)
    print(f"\n{rows:,} lines; {platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print(f"| seconds | {' | '.join(f'{count} workers' for count in counts)} | start |")
    print(f"|---|{'---|' * (len(counts) + 1)}")
    for name in ENGINES:
        cells = " | ".join(f"{took[name, count][1]:.1f}" for count in counts)
        print(f"| {name} | {cells} | {max(took[name, count][0] for count in counts):.1f} |")


if __name__ == "__main__":
    main()
