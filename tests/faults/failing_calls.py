"""Every system call of the writer and of the export fails once, with each of several errors.

cd tests && python -m faults.failing_calls [--error ENOSPC] [--sync seal] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import errno
import json
import logging.config
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from calyx_logging import Node, provision
from calyx_logging.bundle.folder import verify
from calyx_logging.errors import CalyxError
from calyx_logging.outbox.export import export
from conftest import close_logging, config, die_in_place
from faults.disk import Failing, through

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)
SYNC_MODES = ("seal", "interval", "record")


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """Every line of the sealed chunks in a folder."""
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_bytes().splitlines()]


def account_for(node: Node, logged: int) -> tuple[int, int]:
    """Kept and lost events of the outbox; together they have to be all, and no writer's seq may be unexplained."""
    kept: list[int] = []
    seqs: dict[str, list[int]] = defaultdict(list)
    lost = 0
    for path in node.outbox.glob("*.jsonl"):
        writer = path.stem[-13:-5]
        for line in map(json.loads, path.read_bytes().splitlines()):
            seqs[writer].append(line["seq"])
            if line["source"] != "calyx_logging":
                kept.append(line["n"])
            elif line["control"] == "gap":
                named = [seq for first, last in line["seqs"] for seq in range(first, last + 1)]
                assert len(named) == line["count"], "a gap line whose count is not that of its seqs"
                seqs[line.get("writer", writer)] += named
                lost += line["count"]
    assert len(kept) == len(set(kept)), "an event twice"
    for writer, found in seqs.items():
        assert sorted(found) == list(range(len(found))), f"a hole in the seq of writer {writer}, or one twice"
    assert len(kept) + lost == logged, f"{len(kept)} kept and {lost} counted of {logged}"
    return len(kept), lost


def _logger(node: Node, **options: Any) -> logging.Logger:
    logging.config.dictConfig(config(node, **options))
    return logging.getLogger("harness")


def fail_each_call_of_the_writer(folder: Path, code: int, sync: str) -> int:
    """A session of appends, rolls, seal and close, once for each of its system calls; how many there are."""
    number, hit = 0, True
    while hit:
        number += 1
        root = folder / f"writer-{code}-{sync}-{number}"
        root.mkdir()
        node = provision(root, "failing-node").node
        logger = _logger(node, max_bytes=900, sync=sync)
        proxy = Failing(number, code)
        with through(proxy):
            for n in range(8):
                logger.info("event", extra={"n": n, "pad": "x" * 100})
            close_logging()
        hit = bool(proxy.failed)
        result = export(node)
        if result.bundle is not None:
            verify(result.bundle)
        kept, _ = account_for(node, 8)
        assert kept >= 6, f"one failing call took {8 - kept} events"
        assert list(node.outbox.glob("*.open")) == []
    return number - 1


def fail_each_call_of_the_export(folder: Path, code: int) -> int:
    """An export with something to recover, once for each of its system calls; how many there are."""
    prepared = folder / f"prepared-{code}"
    prepared.mkdir()
    node = provision(prepared, "failing-node").node
    _session(node, range(3))
    export(node, clock=lambda: 1_700_000_000.0)
    _session(node, range(3, 7))
    number, hit = 0, True
    while hit:
        number += 1
        root = folder / f"export-{code}-{number}"
        shutil.copytree(prepared, root)
        node = Node(root, "failing-node")
        proxy = Failing(number, code)
        with through(proxy):
            try:
                export(node)
            except CalyxError as error:
                assert proxy.failed, error
                assert error.exit_code == 4, error
                assert os.strerror(code) in str(error), error
        hit = bool(proxy.failed)
        export(node)
        numbers = []
        for bundle in sorted(node.exports.iterdir()):
            verify(bundle)
            numbers += [line["n"] for line in lines_of(bundle) if line["source"] != "calyx_logging"]
        assert sorted(numbers) == list(range(7)), numbers
        assert list(node.outbox.glob("*.open")) == []
        shutil.rmtree(root)
    return number - 1


def _session(node: Node, numbers: range) -> None:
    """Log in a writer that then dies: its lock is free, its last chunk open."""
    logger = _logger(node, max_bytes=700)
    for n in numbers:
        logger.info("event", extra={"n": n})
    die_in_place()


def main() -> int:
    """Fail them all, or with the errors and in the modes that are named, and print how many there were."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [errno.errorcode[code] for code in ERRORS]
    parser.add_argument("--error", action="append", choices=known, help="may be repeated (default: every one)")
    parser.add_argument("--sync", action="append", choices=SYNC_MODES, help="may be repeated (default: every mode)")
    parser.add_argument("--folder", help="where the roots are made (default: the temporary folder)")
    options = parser.parse_args()
    errors = [getattr(errno, name) for name in options.error or known]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        modes = options.sync or SYNC_MODES
        writer = sum(fail_each_call_of_the_writer(Path(folder), code, sync) for code in errors for sync in modes)
        exporter = sum(fail_each_call_of_the_export(Path(folder), code) for code in errors)
    names = ", ".join(errno.errorcode[code] for code in errors)
    print(f"{writer} failed calls of the writer, {exporter} of the export ({names}): every event kept or counted")
    return 0


if __name__ == "__main__":
    sys.exit(main())
