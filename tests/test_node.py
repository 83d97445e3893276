"""The node: its id, its root, provisioning."""

from __future__ import annotations

import hashlib
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calyx_logging import OutboxHandler
from calyx_logging.core.machine import fingerprint
from calyx_logging.errors import InvalidNodeId, NodeConflict, NodeNotProvisioned, RootNotFound, StorageError
from calyx_logging.node import Node, check_node_id, is_node_id, provision, read_fingerprint, read_node_id
from conftest import events_of, tree


@pytest.mark.parametrize("text", ["a", "calyx_laptop_01", "A.b-c_d", "0", "x" * 64, "com", "com10", "console"])
def test_node_ids_that_keep_the_rule(text: str) -> None:
    """Letters, digits, dot, underscore and dash, up to 64, are a node id."""
    assert check_node_id(text) == text


@pytest.mark.parametrize(
    "text",
    ["", ".a", "_a", "-a", "a.", "a b", "a/b", "a\\b", "..", "x" * 65, "ä", "a\n", "CON", "nul", "Com1", "LPT9.txt"],
)
def test_node_ids_that_break_the_rule(text: str) -> None:
    """Everything else is refused with the rule, device names with any extension too."""
    with pytest.raises(InvalidNodeId, match="1 to 64 letters"):
        check_node_id(text)


@given(st.text(max_size=70))
def test_a_node_id_is_always_a_safe_folder_name(text: str) -> None:
    """No accepted id can leave its folder or name another one."""
    if is_node_id(text):
        assert Path(text).name == text
        assert text.isascii()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """`machine(name)` has this be another machine; None: one that has no fingerprint."""

    def become(name: str | None) -> None:
        print_of = None if name is None else hashlib.sha256(name.encode()).hexdigest()[:32]
        monkeypatch.setattr("calyx_logging.node.fingerprint", lambda: print_of)

    return become


def test_provision_makes_the_id_and_the_outbox(tmp_path: Path, machine: Callable[[str | None], None]) -> None:
    """Provisioning makes exactly the id's file and the outbox with its .gitkeep."""
    machine(None)
    done = provision(tmp_path, "laptop-01")
    assert tree(tmp_path) == {
        "runtime": None,
        "runtime/node_id.txt": b"laptop-01\n",
        "telemetry": None,
        "telemetry/outbox": None,
        "telemetry/outbox/laptop-01": None,
        "telemetry/outbox/laptop-01/.gitkeep": b"",
    }
    assert sorted(path.name for path in done.made) == [".gitkeep", "node_id.txt"]


def test_the_machine_s_fingerprint(tmp_path: Path) -> None:
    """It is a hash, the same each time; what it is made of is nowhere in clear."""
    here = fingerprint()
    provision(tmp_path, "laptop-01")
    assert read_fingerprint(tmp_path) == here
    if here is None:
        pytest.skip("this system gives its installation no id")
    assert re.fullmatch("[0-9a-f]{32}", here)
    place = Path("/etc/machine-id")
    if place.exists():
        assert place.read_text().strip() not in (tmp_path / "runtime" / "node_machine.txt").read_text()


def test_a_root_that_was_copied_to_another_machine(
    tmp_path: Path, machine: Callable[[str | None], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """It is said when logging is configured, once, and the events are kept; a new id or `adopt` ends it."""
    machine("old laptop")
    provision(tmp_path, "laptop-01")
    machine("new laptop")
    with pytest.raises(NodeConflict, match="--adopt"):
        provision(tmp_path, "laptop-01")
    for _ in range(2):
        handler = OutboxHandler(root=tmp_path)
        handler.handle(logging.makeLogRecord({"msg": "kept"}))
        handler.close()
    assert capfd.readouterr().err.count("was provisioned on another machine") == 1
    assert len(events_of(tmp_path / "telemetry/outbox/laptop-01")) == 2
    assert [path.name for path in provision(tmp_path, "laptop-01", adopt=True).made] == ["node_machine.txt"]
    assert Node.find(tmp_path).stranger is None
    machine("a third one")
    assert Node.find(tmp_path).stranger is not None
    done = provision(tmp_path, "laptop-03", force=True)
    assert (done.replaced, done.node.stranger) == ("laptop-01", None)


def test_machines_that_are_not_known(tmp_path: Path, machine: Callable[[str | None], None]) -> None:
    """No fingerprint, of the root or of the machine, says nothing."""
    machine(None)
    node = provision(tmp_path, "laptop-01").node
    machine("laptop")
    assert node.stranger is None
    provision(tmp_path, "laptop-01")
    machine(None)
    assert node.stranger is None
    (tmp_path / "runtime" / "node_machine.txt").unlink()
    (tmp_path / "runtime" / "node_machine.txt").mkdir()
    assert node.stranger is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "/runtime/node_id.txt\n/runtime/node_machine.txt\n/telemetry/\n/exports/\n"),
        ("*.pyc", "*.pyc\n/runtime/node_id.txt\n/runtime/node_machine.txt\n/telemetry/\n/exports/\n"),
        ("telemetry\r\n/exports\r\n", "telemetry\r\n/exports\r\n/runtime/node_id.txt\r\n/runtime/node_machine.txt\r\n"),
    ],
)
def test_git_ignores_what_is_this_machine_s(tmp_path: Path, before: str | None, after: str) -> None:
    """Once, in a repository alone, and only what is missing."""
    root = tmp_path / "root"
    root.mkdir()
    assert not (provision(root, "n").node.root / ".gitignore").exists()
    (tmp_path / ".git").mkdir()
    if before is not None:
        (root / ".gitignore").write_bytes(before.encode())
    assert provision(root, "n", gitignore=False).made == ()
    assert [path.name for path in provision(root, "n").made] == [".gitignore"]
    assert (root / ".gitignore").read_bytes() == after.encode()
    assert provision(root, "n").made == ()


def test_provisioning_again_changes_nothing(tmp_path: Path) -> None:
    """The same id again is a no-op."""
    provision(tmp_path, "laptop-01")
    before = tree(tmp_path)
    assert provision(tmp_path, "laptop-01").made == ()
    assert tree(tmp_path) == before


def test_another_id_needs_force(tmp_path: Path) -> None:
    """Another id is refused, and with force the old outbox stays."""
    provision(tmp_path, "old")
    with pytest.raises(NodeConflict, match="--force"):
        provision(tmp_path, "new")
    done = provision(tmp_path, "new", force=True)
    assert done.replaced == "old"
    assert done.node.all_ids() == ["new", "old"]


@pytest.mark.parametrize("force", [False, True])
def test_another_spelling_is_refused(tmp_path: Path, force: bool) -> None:
    """Two spellings that casefold alike are one node, whether or not force is set."""
    provision(tmp_path, "Laptop")
    with pytest.raises(NodeConflict, match="another spelling"):
        provision(tmp_path, "laptop", force=force)


def test_a_spelling_seen_before_is_refused(tmp_path: Path) -> None:
    """The rule holds against ids the root bore earlier, too."""
    provision(tmp_path, "Laptop")
    provision(tmp_path, "other", force=True)
    with pytest.raises(NodeConflict, match="another spelling"):
        provision(tmp_path, "LAPTOP", force=True)
    assert provision(tmp_path, "Laptop", force=True).node.id == "Laptop"


def test_provisioning_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """A mistyped root is not made."""
    with pytest.raises(RootNotFound, match="no such folder"):
        provision(tmp_path / "nowhere", "laptop-01")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "data",
    [
        b"laptop-01",
        b"laptop-01\r\n",
        b"\xef\xbb\xbflaptop-01\r\n",
        "laptop-01\r\n".encode("utf-16"),
        b"  laptop-01 \n\n",
    ],
)
def test_node_id_files_as_editors_and_powershell_write_them(tmp_path: Path, data: bytes) -> None:
    """Byte order marks and white space are no part of the id."""
    (tmp_path / "node_id.txt").write_bytes(data)
    assert read_node_id(tmp_path) == "laptop-01"


@pytest.mark.parametrize("data", [None, b"", b" \n", b"\xef\xbb\xbf\n"])
def test_a_missing_or_empty_node_id_says_how_to_provision(tmp_path: Path, data: bytes | None) -> None:
    """An absent or empty file is no identity."""
    (tmp_path / "runtime").mkdir()
    if data is not None:
        (tmp_path / "runtime" / "node_id.txt").write_bytes(data)
    with pytest.raises(NodeNotProvisioned, match="calyx-telemetry provision NODE_ID"):
        Node.find(tmp_path)


@pytest.mark.parametrize("data", [b"not an id\n", b"\xff\xfe\xff", b"\x80\x81"])
def test_a_damaged_node_id_is_refused(tmp_path: Path, data: bytes) -> None:
    """An id in the file has to keep the rule as well."""
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "node_id.txt").write_bytes(data)
    with pytest.raises(InvalidNodeId):
        Node.find(tmp_path)


def test_the_root_is_the_argument_then_the_environment_then_the_nearest_parent(tmp_path: Path) -> None:
    """The first of the three that is there counts."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        provision(tmp_path / name, f"node-{name}")
    below = tmp_path / "c" / "deep" / "er"
    below.mkdir(parents=True)
    environ = {"CALYX_ROOT": str(tmp_path / "b")}
    assert Node.find(tmp_path / "a", environ=environ, cwd=below).id == "node-a"
    assert Node.find(environ=environ, cwd=below).id == "node-b"
    assert Node.find(environ={}, cwd=below).id == "node-c"
    with pytest.raises(NodeNotProvisioned, match="or CALYX_ROOT"):
        Node.find(environ={}, cwd=tmp_path)


def test_a_root_that_was_mistyped(tmp_path: Path) -> None:
    """It is not taken for one that has no node id yet."""
    with pytest.raises(RootNotFound, match="no such folder"):
        Node.find(tmp_path / "nowhere")
    with pytest.raises(RootNotFound, match="CALYX_ROOT"):
        Node.find(environ={"CALYX_ROOT": str(tmp_path / "nowhere")})


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX rights")
def test_a_root_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder in the way of the outbox is one clear error, and no id is written."""
    (tmp_path / "telemetry").write_text("a file in the way")
    with pytest.raises(StorageError, match="Not a directory"):
        provision(tmp_path, "laptop-01")
    assert not (tmp_path / "runtime" / "node_id.txt").exists()
