"""A fleet's bundles on their way to one hub: shuffled, repeated, damaged and sent again, to importers that get killed.

    cd tests && python -m faults.fleet [--nodes 50] [--bundles 1000] [--importers 8] [--compactions 2] [--seed N]

Each node logs and exports for real. Every bundle is delivered one to three times, a tenth of them also with a bit
turned, a file missing or one cut. Importers are processes of `calyx-telemetry import`, each with a handful of
deliveries, and beside them others compact the table; one of those that run is killed every now and then, and what it
had is delivered again. In the end every event that was logged has to be in the store once and in the table once, every
damaged delivery reported, every chunk acknowledged, every node complete; and none may have ended in an error.
"""

from __future__ import annotations

import argparse
import json
import logging
import logging.config
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from calyx_logging import provision
from calyx_logging.format.receipt import Receipt
from calyx_logging.hub.audit import audit_node
from calyx_logging.hub.store import Store
from calyx_logging.outbox.export import export
from conftest import close_logging, config, lines_of

_BATCH = 8
_START = 1_760_000_000


@dataclass
class Outcome:
    """The result of a fleet campaign.

    Attributes:
        bundles, nodes, deliveries: how many.
        damaged, reported: deliveries that were damaged; of those, such as an importer called refused.
        wrongly_refused: whole ones that were refused.
        runs, kills: importers and compactions that were begun; of those, killed.
        errors: that those ended in which were not killed.
        events: logged.
        lost, doubled: of those, not in the store; there more than once.
        rows_lost, rows_doubled: the same of the events that a query finds.
        acknowledged, chunks: chunks in receipts; in bundles.
        incomplete: nodes that the audit does not call complete.
        seconds: from the first importer to the last.
    """

    nodes: int
    bundles: int
    deliveries: int = 0
    damaged: int = 0
    reported: int = 0
    wrongly_refused: int = 0
    runs: int = 0
    kills: int = 0
    events: int = 0
    lost: int = 0
    doubled: int = 0
    rows_lost: int = 0
    rows_doubled: int = 0
    errors: list[str] = field(default_factory=list)
    acknowledged: int = 0
    chunks: int = 0
    incomplete: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether every promise held."""
        return (
            not (self.lost or self.doubled or self.incomplete or self.wrongly_refused or self.errors)
            and not (self.rows_lost or self.rows_doubled)
            and self.reported == self.damaged
            and self.acknowledged == self.chunks
        )

    def text(self) -> str:
        """Count lines."""
        return (
            f"{self.bundles} bundles of {self.nodes} nodes, {self.deliveries} deliveries, {self.damaged} of them "
            f"damaged: {self.reported} reported, {self.wrongly_refused} whole ones refused\n"
            f"{self.runs} importers and compactions, {self.kills} of them killed, in {self.seconds:.0f} s\n"
            f"{self.events} events logged: {self.lost} lost, {self.doubled} doubled\n"
            f"in the table {self.rows_lost} lost, {self.rows_doubled} doubled\n"
            f"{self.acknowledged} of {self.chunks} chunks acknowledged\n"
            f"nodes that are not complete: {', '.join(self.incomplete) or 'none'}\n"
            f"errors: {'; '.join(self.errors) or 'none'}"
        )


@dataclass
class _Run:
    process: subprocess.Popen[bytes]
    deliveries: list[Path]
    output: IO[bytes]
    error: IO[bytes]


def make_bundles(folder: Path, nodes: int, bundles: int, chance: random.Random) -> list[Path]:
    """Log and export in `nodes` roots; event `n` of a node bears that number."""
    found = []
    for number in range(nodes):
        root = folder / f"node-{number:03d}"
        root.mkdir(parents=True)
        node = provision(root, root.name).node
        n = 0
        for part in range(bundles // nodes + (number < bundles % nodes)):
            logging.config.dictConfig(config(node, max_bytes=2000))
            for _ in range(chance.randint(1, 30)):
                logging.getLogger("harness").info("event", extra={"n": n})
                n += 1
            close_logging()
            bundle = export(node, clock=lambda second=part * 10: float(_START + second)).bundle  # type: ignore[misc]
            assert bundle is not None
            found.append(bundle)
    return found


def damage(bundle: Path, target: Path, chance: random.Random) -> Path:
    """A copy that something has happened to on its way."""
    shutil.copytree(bundle, target)
    files = sorted(target.iterdir())
    victim = chance.choice(files)
    kind = chance.choice(["missing", "cut", "turned"])
    data = bytearray(victim.read_bytes())
    if kind == "missing":
        victim.unlink()
    elif kind == "cut":
        victim.write_bytes(data[: len(data) // 2])
    else:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        victim.write_bytes(data)
    return target


def send(folder: Path, *, nodes: int, bundles: int, importers: int, seed: int, compactions: int = 0) -> Outcome:
    """The whole way; `folder` is empty."""
    chance = random.Random(seed)
    made = make_bundles(folder / "nodes", nodes, bundles, chance)
    store = Store(folder / "hub")
    store.root.mkdir()
    outcome = Outcome(nodes, len(made))
    deliveries = [bundle for bundle in made for _ in range(chance.randint(1, 3))]
    broken = {
        damage(bundle, folder / "damaged" / str(number), chance)
        for number, bundle in enumerate(chance.sample(made, len(made) // 10))
    }
    deliveries += broken
    chance.shuffle(deliveries)
    outcome.deliveries, outcome.damaged = len(deliveries), len(broken)
    refused = _import_all(store, deliveries, importers, compactions, chance, outcome)
    outcome.reported = len(refused & {str(path) for path in broken})
    outcome.wrongly_refused = len(refused - {str(path) for path in broken})
    _look(store, made, outcome)
    return outcome


def _import_all(
    store: Store, deliveries: list[Path], importers: int, compactions: int, chance: random.Random, outcome: Outcome
) -> set[str]:
    """Until everything has been through an importer that ended by itself; what was refused."""
    refused: set[str] = set()
    running: list[_Run] = []
    begun = time.monotonic()
    next_kill = begun + 0.3
    while deliveries or running:
        while deliveries and sum(bool(run.deliveries) for run in running) < importers:
            batch, deliveries = deliveries[:_BATCH], deliveries[_BATCH:]
            running.append(_begin(store, "import", batch))
            outcome.runs += 1
        if deliveries and store.nodes() and sum(not run.deliveries for run in running) < compactions:
            running.append(_begin(store, "table", []))
            outcome.runs += 1
        time.sleep(0.02)
        for run in list(running):
            if run.process.poll() is None:
                continue
            running.remove(run)
            run.output.seek(0)
            said = run.output.read()
            run.output.close()
            run.error.seek(0)
            error = run.error.read().decode(errors="replace")
            run.error.close()
            if run.process.returncode in (2, 3, 4) or "Traceback" in error:
                outcome.errors.append(error[-500:])
            if not run.deliveries:
                continue
            if run.process.returncode not in (0, 1) or not said:  # killed; on Windows with code 1
                chance.shuffle(run.deliveries)
                deliveries += run.deliveries
                continue
            sources = {one["source"] for one in json.loads(said) if one["outcome"] == "refused"}
            refused |= {source.removeprefix("\\\\?\\") for source in sources}  # of a long path on Windows
        # a third of them at most: where a process takes long to start, none would end
        if running and time.monotonic() > next_kill and 3 * outcome.kills < outcome.runs:
            victim = chance.choice(running)
            if victim.process.poll() is None:
                victim.process.kill()
                outcome.kills += 1
            next_kill = time.monotonic() + chance.uniform(0.1, 1.5)
    outcome.seconds = time.monotonic() - begun
    return refused


def _begin(store: Store, what: str, batch: list[Path]) -> _Run:
    output, error = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115  # closed when the process has ended
    options = ["--root", str(store.root), "--json", *(["--compact"] if what == "table" else [])]
    command = [sys.executable, "-m", "calyx_logging.scripts", what, *map(str, batch), *options]
    return _Run(subprocess.Popen(command, stdout=output, stderr=error, cwd=store.root), batch, output, error)


def _look(store: Store, made: list[Path], outcome: Outcome) -> None:
    logged = Counter((line["node_id"], line["n"]) for bundle in made for line in lines_of(bundle) if "n" in line)
    stored = Counter(
        (line["node_id"], line["n"])
        for folder in store.folder.glob("[!.]*/*")
        for line in lines_of(folder)
        if "n" in line
    )
    outcome.events = sum(logged.values())
    outcome.lost = sum((logged - stored).values())
    outcome.doubled = sum((stored - logged).values())
    if find_spec("pyarrow") and find_spec("duckdb"):
        from calyx_logging.query import connect
        from calyx_logging.query.sql import run_sql

        database = connect(store.root, "hub", plain=True, warn=outcome.errors.append)
        found = run_sql(database, "SELECT node_id, CAST(rest.n AS BIGINT) FROM events WHERE rest.n IS NOT NULL")
        rows = Counter((node_id, n) for node_id, n in found.values())
        outcome.rows_lost = sum((logged - rows).values())
        outcome.rows_doubled = sum((rows - logged).values())
    sent = {
        chunk["sha256"] for bundle in made for chunk in json.loads((bundle / "manifest.json").read_bytes())["chunks"]
    }
    receipts = [Receipt.parse(path.read_bytes()) for path in store.receipts.glob("*.json")]
    outcome.chunks = len(sent)
    outcome.acknowledged = len(sent & {sha256 for receipt in receipts for sha256 in receipt.chunks})
    for node_id in store.nodes():
        if not audit_node(store, node_id).verdict.is_complete:
            outcome.incomplete.append(node_id)
    if len(store.nodes()) != outcome.nodes:
        outcome.incomplete.append(f"{outcome.nodes - len(store.nodes())} nodes that are not there")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--bundles", type=int, default=1000)
    parser.add_argument("--importers", type=int, default=8)
    parser.add_argument("--compactions", type=int, default=2)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        outcome = send(
            Path(folder),
            nodes=options.nodes,
            bundles=options.bundles,
            importers=options.importers,
            compactions=options.compactions,
            seed=options.seed,
        )
    print(outcome.text())
    sys.exit(0 if outcome.clean else 1)


if __name__ == "__main__":
    main()
