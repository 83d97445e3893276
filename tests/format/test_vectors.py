"""The format for others: bundles as files with the faults in them, and a second reader that knows only the document."""

from __future__ import annotations

import json
import logging
import logging.config
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import second_reader
from bundles import make_bundle, make_node
from calyx_logging import Node
from calyx_logging.bundle.audit import audit_bundle
from calyx_logging.bundle.folder import check
from calyx_logging.outbox.export import export
from conftest import REPO, close_logging, config, events_of, python

VECTORS = REPO / "tests" / "vectors"
EXPECTED: dict[str, Any] = json.loads((VECTORS / "expected.json").read_text("utf-8"))


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_all_readers_agree_on_a_vector(name: str) -> None:
    """The package, the second reader, and the program that goes along with bundles."""
    folder, expected = VECTORS / name, EXPECTED[name]
    faults = {(kind, path) for kind, path in expected["faults"]}
    assert {(fault.kind, fault.path) for fault in check(folder).faults} == faults
    found = second_reader.read(folder)
    assert found.faults == faults
    assert len(found.events) == expected.get("events", len(found.events))
    program = REPO / "calyx_logging" / "bundle" / "verify_alone.py"
    done = subprocess.run([sys.executable, "-I", str(program), str(folder)], capture_output=True, check=False)
    # it compares files, and not the figures in a manifest
    forgiven = {("malformed", "manifest.json")} if name != "bad-no-json" else set()
    assert done.returncode == int(bool(faults - forgiven)), done.stdout


def test_every_vector_is_expected() -> None:
    """None lies there unused."""
    assert {path.name for path in VECTORS.iterdir() if path.is_dir()} == set(EXPECTED)
    assert second_reader.__doc__ is not None
    source = Path(second_reader.__file__).read_text("utf-8")
    assert "calyx_logging" not in "".join(line for line in source.splitlines() if "import" in line.split())
    assert source.count("\n") <= 160


def test_the_second_reader_knows_whole_sessions(tmp_path: Path) -> None:
    """A session that ended in order, in two bundles, is complete for it as it is for the package."""
    node = make_node(tmp_path, "n-1")
    bundle = make_bundle(node, range(50))
    found = second_reader.read(bundle)
    assert (found.faults, found.node_id) == (set(), "n-1")
    assert found.events == events_of(bundle)
    assert all(writer.is_complete for writer in found.writers.values())
    names = [path.name for path in bundle.glob("*.jsonl")]
    audit = audit_bundle(bundle, names, "n-1", check(bundle).manifest)
    assert {one.writer: one.state == "complete" for one in audit.writers} == {
        name: writer.is_complete for name, writer in found.writers.items()
    }


def test_the_second_reader_sees_what_is_missing(tmp_path: Path) -> None:
    """A killed writer has no end, a gap line names what was lost, and a line that was taken out leaves a hole."""
    node: Node = make_node(tmp_path, "n-1")
    body = (
        "import json, logging, logging.config, os, sys\n"
        "logging.config.dictConfig(json.loads(sys.argv[1]))\n"
        "for n in range(5): logging.getLogger('harness').info('event', extra={'n': n})\n"
        "os.kill(os.getpid(), 9) if hasattr(os, 'kill') and os.name != 'nt' else os._exit(9)\n"
    )
    python(body, json.dumps(config(node)))
    bundle = export(node).bundle
    assert bundle is not None
    (writer,) = second_reader.read(bundle).writers.values()
    assert (writer.is_complete, writer.end, writer.holes) == (False, "recovered", [])
    (chunk,) = bundle.glob("*.jsonl")
    kept = chunk.read_bytes().splitlines(keepends=True)
    chunk.write_bytes(b"".join(kept[:2] + kept[3:]))
    found = second_reader.read(bundle)
    (writer,) = found.writers.values()
    assert (writer.holes, found.faults) == ([2], {("changed", chunk.name)})
    gap = {**json.loads(kept[2]), "source": "calyx_logging", "control": "gap", "count": 1, "seqs": [[2, 2]]}
    gap["seq"] = 99
    chunk.write_bytes(b"".join([*kept[:2], json.dumps(gap).encode() + b"\n", *kept[3:]]))
    (writer,) = second_reader.read(bundle).writers.values()
    assert writer.lost == {2}


def test_the_session_of_several_writers(tmp_path: Path) -> None:
    """Threads have writers of their own, and each is complete by itself."""
    import threading

    node = make_node(tmp_path, "n-1")
    logging.config.dictConfig(config(node))
    threads = [
        threading.Thread(target=lambda: [logging.getLogger("harness").info("event") for _ in range(200)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    close_logging()
    bundle = export(node).bundle
    assert bundle is not None
    found = second_reader.read(bundle)
    assert len(found.events) == 800
    assert all(writer.is_complete for writer in found.writers.values())
