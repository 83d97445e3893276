"""The states a loss of power can leave, enumerated, and the recovery from each.

    cd tests && python -m faults.crash_states [--sync seal] [--sync record] [--folder FOLDER]

A scenario runs once while `core/files.py`'s operations are recorded. The model of the disk is pessimistic (POSIX, not
what one file system happens to give): bytes are certain only after their file was synced, names only after their
directory was. For every moment between two operations, for every prefix of the names that were not certain yet, and
with the names of any one directory late, the unsynced bytes are all there, gone, torn in the last write, or zeros.
Each different state is laid on disk; then the next export runs, and the invariants I2 to I5 are checked; with
`sync="record"` also I1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import logging.config
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calyx_logging import Node, provision
from calyx_logging.bundle.folder import verify
from calyx_logging.outbox.export import export
from conftest import close_logging, config, die_in_place
from faults.disk import Op, Recording, through

SYNC_MODES = ("seal", "interval", "record")
VARIANTS = ("kept", "gone", "torn", "zeros")


@dataclass
class _File:
    """An inode: the bytes that are certain, and what was written since."""

    certain: bytes = b""
    writes: list[bytes] = field(default_factory=list)

    def content(self, variant: str) -> bytes:
        data = self.certain
        if not self.writes or variant == "gone":
            return data
        if variant == "kept":
            return data + b"".join(self.writes)
        if variant == "zeros":
            return data + bytes(sum(map(len, self.writes)))
        return data + b"".join(self.writes[:-1]) + self.writes[-1][: len(self.writes[-1]) // 2]


Names = dict[str, Any]
"""Path to _File, or to None for a folder."""


def _apply(names: Names, op: Op, files: dict[int, _File]) -> None:
    if op.kind == "mkdir":
        names[op.path] = None
    elif op.kind == "create":
        names[op.path] = files[id(op)]
    elif op.kind in ("unlink", "rmdir"):
        names.pop(op.path, None)
    elif op.kind == "rename":
        moved = {path: inode for path, inode in names.items() if path == op.path or path.startswith(f"{op.path}/")}
        for path in moved:
            del names[path]
        names.update({op.target + path[len(op.path) :]: inode for path, inode in moved.items()})


def states(base: Names, ops: list[Op]) -> Iterator[tuple[int, Names, str]]:
    """Every (number of operations done, names, variant of the unsynced bytes)."""
    files = {id(op): _File() for op in ops if op.kind == "create"}
    now: Names = dict(base)
    pending: list[Op] = []
    certain: Names = dict(base)
    for done in range(len(ops) + 1):
        for kept in range(len(pending) + 1):
            names = dict(certain)
            for op in pending[:kept]:
                _apply(names, op, files)
            for variant in VARIANTS:
                yield done, names, variant
        for folder in {str(Path(op.path).parent) for op in pending}:  # one directory's names late, the others' there
            names = dict(certain)
            for op in pending:
                if str(Path(op.path).parent) != folder:
                    _apply(names, op, files)
            for variant in VARIANTS:
                yield done, names, variant
        if done == len(ops):
            return
        op = ops[done]
        if op.kind == "write":
            now[op.path].writes.append(op.data)
        elif op.kind == "truncate":
            _truncate(now[op.path], op.size)
        elif op.kind == "sync":
            inode = now[op.path]
            inode.certain, inode.writes = inode.content("kept"), []
        elif op.kind == "sync_dir":
            still = []
            for waiting in pending:
                parents = {str(Path(path).parent) for path in (waiting.path, waiting.target) if path}
                if op.path in parents:
                    _apply(certain, waiting, files)
                else:
                    still.append(waiting)
            pending = still
        else:
            _apply(now, op, files)
            pending.append(op)


def _truncate(inode: _File, size: int) -> None:
    data = inode.content("kept")[:size]
    if size >= len(inode.certain):
        inode.writes = [data[len(inode.certain) :]] if size > len(inode.certain) else []
    else:
        inode.certain, inode.writes = data, []


def lay(root: Path, names: Names, variant: str) -> str:
    """Put a state on disk, unless its folder is not there; a digest of it."""
    digest = hashlib.sha256()
    for path in sorted(names):
        inode, place = names[path], root / path
        if not place.parent.is_dir():
            continue  # its folder's name was lost
        digest.update(path.encode() + b"\0")
        if inode is None:
            place.mkdir(exist_ok=True)
        else:
            data = inode if isinstance(inode, bytes) else inode.content(variant)
            place.write_bytes(data)
            digest.update(hashlib.sha256(data).digest())
    return digest.hexdigest()


def snapshot(root: Path) -> Names:
    """Take the files that are on disk now as certain."""
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() for path in sorted(root.rglob("*"))
    }


@dataclass
class Tally:
    """The figures of an enumeration."""

    operations: int = 0
    states: int = 0
    events: int = 0
    faults: list[str] = field(default_factory=list)


def scenario(node: Node, sync: str) -> tuple[list[Op], dict[int, int], Names]:
    """A session that rolls and closes, its export, a second session that is cut short, its export.

    Returns the operations, for each event the number of operations after which its call had returned, and what was
    on disk before.
    """
    base = snapshot(node.root)
    recording = Recording(node.root)
    returned: dict[int, int] = {}
    with through(recording):
        for first in (0, 100):
            logging.config.dictConfig(config(node, sync=sync, max_bytes=900, max_age=None))
            logger = logging.getLogger("harness")
            for n in range(first, first + 5):
                logger.info("event", extra={"n": n, "pad": "x" * 60})
                recording.note_locks()
                returned[n] = len(recording.ops)
            if first == 0:
                close_logging()
            else:  # the process dies: its lock is free, its chunk open
                die_in_place()
            export(node, clock=lambda: 1_800_000_000.0)
    return recording.ops, returned, base


def check(node: Node, must_have: set[int]) -> list[str]:
    """Run the next export and name every broken invariant."""
    faults = []
    for bundle in _bundles(node):
        try:
            verify(bundle)
        except Exception as error:
            faults.append(f"I4: {error}")
    try:
        export(node, clock=lambda: 1_900_000_000.0)
        again = export(node, clock=lambda: 1_900_000_100.0)
    except Exception as error:
        return [*faults, f"the next export failed: {type(error).__name__}: {error}"]
    if again.bundle is not None:
        faults.append("I2: an export after the repairing one found something new")
    seen: dict[str, int] = {}
    in_bundles = set()
    for bundle in _bundles(node):
        try:
            verify(bundle)
        except Exception as error:
            faults.append(f"I4: {error}")
            continue
        for path in bundle.glob("*.jsonl"):
            in_bundles.add(path.name)
            for line in path.read_bytes().splitlines():
                if not _is_json(line):
                    faults.append(f"I3: {path.name} in {bundle.name}")
                    continue
                event = json.loads(line)
                event.pop("seq")
                if event["source"] != "calyx_logging":
                    seen[json.dumps(event)] = event["n"]
    numbers = sorted(seen.values())
    if len(numbers) != len(set(numbers)):
        faults.append(f"I2: an event twice: {numbers}")
    if missing := must_have - set(numbers):
        faults.append(f"I1: lost {sorted(missing)}")
    for path in node.outbox.glob("*.jsonl"):
        data = path.read_bytes()
        if not data.endswith(b"\n") or not all(map(_is_json, data.splitlines())):
            faults.append(f"I3: {path.name}")
    index = json.loads((node.outbox / ".exported_index.json").read_bytes()) if in_bundles else {"exported": []}
    if set(index["exported"]) != in_bundles:
        faults.append(f"I5: {set(index['exported']) ^ in_bundles}")
    return faults


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _bundles(node: Node) -> list[Path]:
    return [path for path in sorted(node.exports.glob("*")) if not path.name.startswith(".")]


def enumerate_states(sync: str, folder: Path, *, stop_at: int = 100) -> Tally:
    """Run the scenario, lay every state, check each; end after so many broken invariants."""
    root = folder / "original"
    root.mkdir(parents=True)
    node = provision(root, "power-node").node
    ops, returned, base = scenario(node, sync)
    tally = Tally(operations=len(ops), events=len(returned))
    known: set[str] = set()
    for done, names, variant in states(base, ops):
        place = folder / "state"
        place.mkdir()
        must = {n for n, after in returned.items() if after <= done} if sync == "record" else set()
        digest = lay(place, names, variant) + repr(sorted(must))
        if digest not in known:
            known.add(digest)
            for fault in check(Node(place, node.id), must):
                tally.faults.append(f"after {done} operations, {variant}: {fault}")
        shutil.rmtree(place)
        if len(tally.faults) >= stop_at:
            break
    tally.states = len(known)
    return tally


def main() -> int:
    """Enumerate for every sync mode that is named and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sync", action="append", choices=SYNC_MODES, help="may be repeated (default: every mode)")
    in_memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    parser.add_argument("--folder", default=in_memory, help="where states are laid (default: in memory)")
    options = parser.parse_args()
    failed = False
    for sync in options.sync or SYNC_MODES:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            tally = enumerate_states(sync, Path(folder))
        print(
            f"sync={sync}: {tally.operations} operations, {tally.states} states, {len(tally.faults)} broken invariants"
        )
        for fault in tally.faults[:20]:
            print(f"  {fault}")
        failed = failed or bool(tally.faults)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
