"""Every system call of the writer and of the export fails once, with each of several errors.

cd tests && python -m faults.failing_calls
"""

from __future__ import annotations

import errno
import json
import logging.config
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from calyx_logging import Node, provision
from calyx_logging.bundle.folder import verify
from calyx_logging.errors import CalyxError
from calyx_logging.outbox.export import export
from conftest import close_logging, config
from faults.disk import Failing, through

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)
SYNC_MODES = ("seal", "interval", "record")


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """Every line of the sealed chunks in a folder."""
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_bytes().splitlines()]


def account_for(node: Node, logged: int) -> tuple[int, int]:
    """Kept and lost events of the outbox; together they have to be all, and no seq may be unexplained."""
    lines = lines_of(node.outbox)
    kept = [line["n"] for line in lines if line["source"] != "calyx_logging"]
    gaps = [line for line in lines if line.get("control") == "gap"]
    assert len(kept) == len(set(kept)), "an event twice"
    explained = [seq for gap in gaps for first, last in gap["seqs"] for seq in range(first, last + 1)]
    lost = sum(gap["count"] for gap in gaps)
    assert len(explained) == lost, "a gap line whose count is not that of its seqs"
    assert sorted([line["seq"] for line in lines] + explained) == list(range(len(lines) + lost)), "a hole in seq"
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
    desk = logger.handlers[0]._recorder._desks[0]  # type: ignore[attr-defined]
    writer, desk.writer = desk.writer, None
    writer.leave()
    close_logging()


def main() -> int:
    """Fail them all and print how many there were."""
    with tempfile.TemporaryDirectory() as folder:
        writer = sum(fail_each_call_of_the_writer(Path(folder), c, s) for c in ERRORS for s in SYNC_MODES)
        exporter = sum(fail_each_call_of_the_export(Path(folder), code) for code in ERRORS)
    names = ", ".join(errno.errorcode[code] for code in ERRORS)
    print(f"{writer} failed calls of the writer, {exporter} of the export ({names}): every event kept or counted")
    return 0


if __name__ == "__main__":
    sys.exit(main())
