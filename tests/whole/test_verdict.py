"""One verdict, wherever it is shown: a node that lost events is called complete by no command, page or exit code."""

from __future__ import annotations

import errno
import json
import logging
import logging.config
from pathlib import Path

import pytest

from bundles import START, make_bundle, make_node
from calyx_logging import Node
from calyx_logging.hub.importer import import_bundle
from calyx_logging.hub.receipts import write_receipt
from calyx_logging.hub.store import Store
from calyx_logging.outbox.audit import audit_outbox
from calyx_logging.outbox.export import export
from calyx_logging.outbox.prune import carry_out, take_note
from calyx_logging.outbox.receipts import read_receipt
from conftest import close_logging, config, telemetry
from faults.disk import Failing, through


def log_on_a_full_disk(node: Node, *, kept: int, lost: int) -> None:
    """Log events, so many of which the disk does not take."""
    logging.config.dictConfig(config(node))
    logger = logging.getLogger("harness")
    for n in range(kept):
        logger.info("kept", extra={"n": n})
    with through(Failing(1, errno.ENOSPC, forever=True)):
        for n in range(lost):
            logger.info("lost", extra={"n": n})
    close_logging()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node whose disk was full for seven events."""
    made = make_node(tmp_path, "small-disk")
    log_on_a_full_disk(made, kept=3, lost=7)
    return made


def test_every_command_says_that_events_were_lost(node: Node, tmp_path: Path) -> None:
    """The verdict is the same at the node and at the hub, in words and for programs, and 1 under --strict."""
    here, hub = ("--root", node.root), tmp_path / "hub"
    hub.mkdir()
    there = ("--root", hub)
    pytest.importorskip("duckdb")

    done = telemetry("status", *here)
    assert (done.returncode, "node small-disk: 7 events lost" in done.stdout) == (0, True), done.stdout
    assert "No space left on device" in done.stdout
    (said,) = json.loads(telemetry("status", *here, "--json").stdout)["nodes"]
    assert (said["verdict"], said["lost"], said["missing"]) == ("events lost", 7, [])
    assert telemetry("status", *here, "--strict").returncode == 1

    done = telemetry("export", *here, "--strict")
    assert (done.returncode, done.stdout.startswith("7 events lost\n")) == (1, True), done.stdout
    (bundle,) = node.exports.iterdir()

    done = telemetry("import", bundle, *there, "--strict")
    assert (done.returncode, "small-disk: 7 events lost" in done.stdout) == (1, True), done.stdout
    (result,) = json.loads(telemetry("import", bundle, *there, "--json").stdout)
    assert result["node"] == {"verdict": "events lost", "lost": 7, "missing": []}

    done = telemetry("audit", *there)
    assert (done.returncode, done.stdout.startswith("small-disk: 7 events lost")) == (0, True)
    assert telemetry("audit", *there, "--strict").returncode == 1
    (said,) = json.loads(telemetry("audit", *there, "--json").stdout)
    assert (said["complete"], said["verdict"], said["lost"]) == (False, "events lost", 7)

    for place, at in (("hub", there), ("outbox", here), (str(bundle), ())):
        done = telemetry("query", "--named", "nodes", "--from", place, *at, "--json")
        (row,) = json.loads(done.stdout)
        assert (row["node_id"], row["verdict"], row["lost"]) == ("small-disk", "events lost", 7), place
        assert "small-disk: 7 events lost" in done.stderr
        page = tmp_path / "page.html"
        done = telemetry("report", "--from", place, *at, "--output", page)
        assert done.returncode == 0, done.stderr
        assert '<span class="problem">7 events were lost before being written.</span>' in page.read_text("utf-8"), place


def test_what_was_deleted_here_still_counts(node: Node, tmp_path: Path) -> None:
    """After its chunks were delivered and pruned, an outbox knows from their manifests that events were lost."""
    log_on_a_full_disk(node, kept=2, lost=2)
    result = export(node, clock=lambda: float(START))
    assert result.bundle is not None
    hub = Store(tmp_path / "hub")
    hub.root.mkdir()
    import_bundle(hub, result.bundle)
    write_receipt(hub, node.id)
    carried = read_receipt(node, hub.receipts / f"{node.id}.json", accept_unsigned=True)
    take_note(node, carried)
    carry_out(node, carried)
    assert list(node.outbox.glob("*.jsonl")) == []
    audit = audit_outbox(node)
    assert (audit.verdict.kind, audit.lost) == ("events lost", 9)
    make_bundle(node, range(2), second=20)
    assert audit_outbox(node).lost == 9


def test_a_chunk_that_is_missing_from_the_outbox(tmp_path: Path) -> None:
    """The node itself says so, with exit code 1."""
    node = make_node(tmp_path, "n-1")
    logging.config.dictConfig(config(node, max_bytes=600))
    for n in range(9):
        logging.getLogger("harness").info("event", extra={"n": n})
    close_logging()
    sealed = sorted(node.outbox.glob("*.jsonl"))
    assert telemetry("status", "--root", node.root, "--strict").returncode == 0
    sealed[1].unlink()
    done = telemetry("status", "--root", node.root)
    assert (done.returncode, "incomplete: 1 chunk missing" in done.stdout) == (1, True), done.stdout
