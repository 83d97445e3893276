"""Measure what a hub's size costs: a bundle imported, and a question asked, where there are many others.

    python benchmarks/catalog_speed.py [--rounds 5] [--sizes 100,1000,100000] [--rows 1000,1000000] [--write docs]

The hubs are made without chunks' bytes: each bundle is a folder with a manifest, of 100 bundles a node. Then a small
bundle of one node is imported, with its table; audited; and imported again. Each is a command, start-up included.
Figures are medians. The second table is of the catalog alone, with rows of bundles that have no folders.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from export_speed import fill
from peers import write_between

from calyx_logging import provision
from calyx_logging.hub.importer import settle
from calyx_logging.hub.store import Store
from calyx_logging.outbox.export import export
from calyx_logging.query.in_force import seal
from calyx_logging.query.rows import TABLE_VERSION

_A_NODE = 100
_START = 1_760_000_000
_NOT_TABLED = "SELECT node_id FROM bundles WHERE tabled < ?1 UNION SELECT node_id FROM bundles WHERE tabled > ?1"


def make_hub(root: Path, bundles: int) -> Store:
    """Make folders of bundles, and have them taken into the catalog."""
    store = Store(root)
    for number in range(bundles):
        node_id = f"node-{number // _A_NODE:05d}"
        folder = store.folder / node_id / time.strftime("%Y%m%d_%H%M%S", time.gmtime(_START + number))
        folder.mkdir(parents=True)
        chunk = {"filename": f"20260101_000000__x__{number:08x}-0000.jsonl", "sha256": f"{number:064x}", "bytes": 1}
        manifest = {"manifest_version": 1, "node_id": node_id, "exported_at": "2026-01-01T00:00:00+00:00"}
        manifest |= {"timestamp": folder.name, "previous_manifest_sha256": None, "open_chunks": []}
        data = json.dumps({**manifest, "chunks": [{**chunk, "events": 1, "first_ts_utc": None, "last_ts_utc": None}]})
        (folder / "manifest.json").write_text(data)
        digest = hashlib.sha256(data.encode()).hexdigest()
        (folder / "SHA256SUMS").write_text(f"{chunk['sha256']}  {chunk['filename']}\n{digest}  manifest.json\n")
    settle(store)
    store.catalog.write_index()
    with store.catalog.changing() as change:  # else each command would look for the rows of chunks that are not there
        change.execute("UPDATE bundles SET tabled = ?", [TABLE_VERSION])
        for node_id in store.nodes():
            seal(store, change, node_id, compared=1)
    return store


def make_bundle(folder: Path, node_id: str) -> Path:
    """Export a bundle of a thousand events."""
    folder.mkdir()
    node = provision(folder, node_id).node
    fill(node.outbox, 1, 270_000)
    bundle = export(node).bundle
    assert bundle is not None
    return bundle


def run(*args: object) -> float:
    """Run a command; return its seconds."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "calyx_logging.scripts", *map(str, args)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr.decode())
    return time.perf_counter() - began


def measure(folder: Path, bundles: int, rounds: int) -> dict[str, float]:
    """Return the median seconds of each command at a hub of so many bundles."""
    store = make_hub(folder / "hub", bundles)
    bundle = make_bundle(folder / "node", "node-00000")
    took: dict[str, list[float]] = {}
    # the folders have to be as old as those of any hub
    time.sleep(4)
    settle(store)
    for _ in range(rounds):
        for name, args in {
            "import of a bundle, with its table": ("import", bundle),
            "the same bundle again": ("import", bundle),
            "audit of its node": ("audit", "node-00000"),
            "query of its events": ("query", "--from", "hub", "SELECT count(*) FROM events"),
        }.items():
            took.setdefault(name, []).append(run(*args, "--root", store.root))
        _forget(store, "node-00000", bundle)
    return {name: statistics.median(found) for name, found in took.items()}


def _forget(store: Store, node_id: str, bundle: Path) -> None:
    digest = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    for entry in store.indexed(node_id):
        if entry.manifest_sha256 == digest:
            shutil.rmtree(store.bundle(entry))
    with store.catalog.changing() as change:
        change.execute("DELETE FROM bundles WHERE manifest_sha256 = ?", [digest])
        change.execute("DELETE FROM files")
        seal(store, change, node_id)


def measure_rows(folder: Path, rows: int, rounds: int) -> dict[str, float]:
    """Return the median milliseconds of a change and a question in a catalog of so many bundles."""
    store = Store(folder)
    with store.catalog.changing() as change:
        change.executemany(
            "INSERT INTO bundles (node_id, folder, manifest_sha256, imported_at, tabled) VALUES (?, ?, ?, '', ?)",
            ((f"node-{n // _A_NODE:05d}", f"{n:015d}", f"{n:064x}", TABLE_VERSION) for n in range(rows)),
        )

    def put() -> None:
        with store.catalog.changing() as change:
            change.execute(
                "INSERT INTO bundles (node_id, folder, manifest_sha256, imported_at) VALUES ('node-00000', ?, ?, '')",
                [f"x{time.time_ns()}", f"{time.time_ns():064x}"],
            )

    steps: dict[str, Callable[[], object]] = {
        "a bundle put in": put,
        "whether a bundle is known": lambda: store.has("f" * 64),
        "the bundles of a node": lambda: store.indexed("node-00000"),
        "what is not in the table": lambda: store.catalog.rows(_NOT_TABLED, [TABLE_VERSION]),
    }
    found = {}
    for name, step in steps.items():
        times = []
        for _ in range(rounds * 10):
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
        found[name] = statistics.median(times) * 1000
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", default="100,1000,100000")
    parser.add_argument("--rows", default="1000,100000,1000000")
    parser.add_argument("--write", type=Path, metavar="DOCS")
    options = parser.parse_args()
    sizes, rows = ([int(text) for text in texts.split(",")] for texts in (options.sizes, options.rows))
    with tempfile.TemporaryDirectory() as folder:
        hubs = {size: measure(Path(folder) / str(size), size, options.rounds) for size in sizes}
        catalogs = {count: measure_rows(Path(folder) / f"rows-{count}", count, options.rounds) for count in rows}
    made = f"python benchmarks/catalog_speed.py --rounds {options.rounds} --sizes {options.sizes} --rows {options.rows}"
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    lines = [
        f"{machine}; medians. Made by `{made} --write docs`.",
        "",
        f"| seconds, at a hub of | {' | '.join(f'{size:,} bundles' for size in sizes)} | last / first |",
        f"|---|{'---|' * (len(sizes) + 1)}",
    ]
    for name in hubs[sizes[0]]:
        values = [hubs[size][name] for size in sizes]
        lines.append(f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} | {values[-1] / values[0]:.2f} |")
    lines += ["", f"| milliseconds, in a catalog of | {' | '.join(f'{count:,} bundles' for count in rows)} |"]
    lines.append(f"|---|{'---|' * len(rows)}")
    for name in catalogs[rows[0]]:
        lines.append(f"| {name} | {' | '.join(f'{catalogs[count][name]:.2f}' for count in rows)} |")
    print("\n".join(lines))
    if options.write:
        write_between(options.write / "scaling.md", "catalog", "\n".join(lines))


if __name__ == "__main__":
    main()
