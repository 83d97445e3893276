"""The node: its id, its root, and every path of the layout (docs/format.md, "On disk").

Only this module builds these paths. `provision` sets the id once; everything else reads it.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from calyx_logging.core import files
from calyx_logging.core.machine import fingerprint
from calyx_logging.core.reading import BOM
from calyx_logging.errors import InvalidNodeId, NodeConflict, NodeNotProvisioned, RootNotFound, StorageError

__all__ = [
    "NODE_ID_RULE",
    "Node",
    "Provisioned",
    "check_node_id",
    "is_device_name",
    "is_node_id",
    "provision",
    "read_fingerprint",
    "read_node_id",
    "seal_request",
]

_MACHINE_FILE = Path("runtime", "node_machine.txt")
_IGNORED = ("/runtime/node_id.txt", "/runtime/node_machine.txt", "/telemetry/", "/exports/")

NODE_ID_RULE = (
    "1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit, no dot at the end, "
    "and no Windows device name such as CON, NUL or COM1"
)
_NODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$", "clock$"]
    + [f"{port}{n}" for port in ("com", "lpt") for n in range(10)]
)
_NODE_FILE = Path("runtime", "node_id.txt")


def is_node_id(text: str) -> bool:
    """Tell whether `text` follows the rule for node ids (`NODE_ID_RULE`)."""
    return _NODE_ID.fullmatch(text) is not None and not text.endswith(".") and not is_device_name(text)


def is_device_name(name: str) -> bool:
    """Tell whether Windows treats a file name as a device's; what follows the first dot does not matter."""
    return unicodedata.normalize("NFKC", name.split(".", 1)[0]).rstrip().lower() in _DEVICES


def check_node_id(text: str, *, path: Path | None = None) -> str:
    """Return a valid node id, or raise `InvalidNodeId` and state the rule."""
    if not is_node_id(text):
        raise InvalidNodeId(f"{text[:80]!r} is no node id", path=path, hint=f"a node id is {NODE_ID_RULE}")
    return text


def read_node_id(runtime: Path) -> str | None:
    """Read the id in `<runtime>/node_id.txt`, unchecked; None if the file is absent or empty.

    A byte order mark (UTF-8, or UTF-16 as Windows PowerShell writes it) and white space around the id are ignored.

    Raises:
        StorageError: the file exists but cannot be read.
        InvalidNodeId: the file is not text.
    """
    path = runtime / "node_id.txt"
    try:
        data = files.read_regular(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError.of(error, "read the node id", path) from error
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    try:
        return data.removeprefix(BOM).decode(encoding).strip() or None
    except UnicodeDecodeError as error:
        raise InvalidNodeId("is no text", path=path, hint="provision the node again with --force") from error


@dataclass(frozen=True)
class Node:
    """One machine's identity and the paths under its root."""

    root: Path
    id: str

    @classmethod
    def find(
        cls,
        root: str | os.PathLike[str] | None = None,
        *,
        environ: Mapping[str, str] = os.environ,
        cwd: Path | None = None,
    ) -> Node:
        """Find the node of a root: `root`, else `CALYX_ROOT`, else the nearest folder at or above `cwd` that has an id.

        Raises:
            RootNotFound: the root given is not a folder.
            NodeNotProvisioned: there is no root, or its id is missing or empty.
            InvalidNodeId: the id in the file breaks the rule.
        """
        folder = find_root(root, environ=environ, cwd=cwd)
        node_id = read_node_id(folder / "runtime")
        if node_id is None:
            hint = f'run: calyx-telemetry provision NODE_ID --root "{folder}"'
            if (folder / "telemetry" / "federated").is_dir():
                hint = "this is the root of a hub: ask audit; or files, query, report, show and tail, with --from hub"
            raise NodeNotProvisioned("the node id is missing or empty", path=folder / _NODE_FILE, hint=hint)
        return cls(folder, check_node_id(node_id, path=folder / _NODE_FILE))

    def with_id(self, node_id: str) -> Node:
        """Return the same root under another id (one it had before)."""
        return Node(self.root, node_id)

    @property
    def outboxes(self) -> Path:
        """The folder that holds one outbox for each id this root has had."""
        return self.root / "telemetry" / "outbox"

    @property
    def outbox(self) -> Path:
        """This node's outbox."""
        return self.outboxes / self.id

    @property
    def stranger(self) -> str | None:
        """Advice for a root that was provisioned on another machine; None if it was this one, or nobody knows.

        One node id on two machines makes two histories of one node at the hub.
        """
        known, here = read_fingerprint(self.root), fingerprint()
        if known is None or here is None or known == here:
            return None
        return (
            f"{self.root} was provisioned on another machine, and node {self.id!r} is that one's: give this one an id "
            f'of its own (calyx-telemetry provision NEW_ID --root "{self.root}" --force) or, where this machine has '
            f'replaced it, say so (calyx-telemetry provision {self.id} --root "{self.root}" --adopt)'
        )

    @property
    def exports(self) -> Path:
        """The folder that holds this node's bundles."""
        return self.root / "exports" / "telemetry_exports" / self.id

    def all_ids(self) -> list[str]:
        """List every id with an outbox here, the present one first; an id replaced by force leaves its outbox."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.outboxes) if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise StorageError.of(error, "read the outboxes", self.outboxes) from error
        return [self.id, *(name for name in names if name != self.id and is_node_id(name))]


def read_fingerprint(root: Path) -> str | None:
    """Read the fingerprint of the machine on which a root was provisioned; None if none was written."""
    try:
        text = files.read_regular(root / _MACHINE_FILE).decode("ascii", "replace").strip()
    except OSError:
        return None
    return text or None


def seal_request(outbox: Path) -> Path:
    """The file by which an exporter asks the living processes that write to an outbox to seal what they have open."""
    return outbox / ".seal_request.json"


def find_root(
    root: str | os.PathLike[str] | None, *, environ: Mapping[str, str] = os.environ, cwd: Path | None = None
) -> Path:
    """Find the root by the rule of `Node.find`, as an absolute path."""
    if root is not None:
        return _existing(Path(root), "check the root given")
    if environ.get("CALYX_ROOT"):
        return _existing(Path(environ["CALYX_ROOT"]), "check the variable CALYX_ROOT")
    here = files.reachable(Path.cwd() if cwd is None else cwd)
    for folder in (here, *here.parents):
        if (folder / _NODE_FILE).is_file():
            return folder
    raise NodeNotProvisioned(
        f"no {_NODE_FILE.as_posix()} in this folder or above it",
        path=here,
        hint="run: calyx-telemetry provision NODE_ID --root FOLDER, or name the root (--root, root=, or CALYX_ROOT)",
    )


def _existing(root: Path, hint: str) -> Path:
    folder = files.reachable(root.expanduser())
    if not folder.is_dir():
        raise RootNotFound("there is no such folder", path=folder, hint=hint)
    return folder


@dataclass(frozen=True)
class Provisioned:
    """The result of `provision`: the node, the files it created, the id it replaced."""

    node: Node
    made: tuple[Path, ...]
    replaced: str | None


def provision(
    root: str | os.PathLike[str], node_id: str, *, force: bool = False, adopt: bool = False, gitignore: bool = True
) -> Provisioned:
    """Give a root its node id and outbox; repeating it with the same id changes nothing.

    Args:
        root: the folder.
        node_id: the id.
        force: replace another id.
        adopt: take over a root with this id that was provisioned on another machine.
        gitignore: where the root is in a git repository, have git ignore what is this machine's alone.

    Raises:
        InvalidNodeId: the id breaks the rule.
        NodeConflict: the root has another id and `force` is not set, or was provisioned with this one on another
            machine and `adopt` is not set, or has seen another spelling of this one (two spellings that casefold alike
            are one node, and folders of both could not stand side by side).
        RootNotFound: the root is not a folder.
        StorageError: a file cannot be written.
    """
    node = Node(files.reachable(Path(root).expanduser()), check_node_id(node_id))
    if not node.root.is_dir():
        raise RootNotFound("there is no such folder", path=node.root, hint="create it first, or name another root")
    try:
        present = read_node_id(node.root / "runtime")
    except InvalidNodeId:
        if not force:
            raise
        present = None
    _refuse_conflicts(node, present, force=force, adopt=adopt)
    made = []
    try:
        for folder in (node.root / "runtime", node.outbox):
            files.make_dirs(folder)
        keep = node.outbox / ".gitkeep"
        if not keep.exists():
            files.replace_file(keep, b"")
            made.append(keep)
        if present != node_id:
            files.replace_file(node.root / _NODE_FILE, f"{node_id}\n".encode())
            made.append(node.root / _NODE_FILE)
        if (here := fingerprint()) is not None and here != read_fingerprint(node.root):
            files.replace_file(node.root / _MACHINE_FILE, f"{here}\n".encode())
            made.append(node.root / _MACHINE_FILE)
        if gitignore and _ignore(node.root):
            made.append(node.root / ".gitignore")
    except OSError as error:
        raise StorageError.of(
            error, "provision the node", error.filename or node.root, "make the folder writable"
        ) from error
    return Provisioned(node, tuple(made), None if present == node_id else present)


def _refuse_conflicts(node: Node, present: str | None, *, force: bool, adopt: bool) -> None:
    """Raise `NodeConflict` where the root may not have this id; `present` is the one it has."""
    known = {present, *node.all_ids()[1:]} - {None, node.id}
    for other in sorted(name for name in known if name is not None):
        if other.casefold() == node.id.casefold():
            raise NodeConflict(
                f"{other!r} is here already and {node.id!r} is the same id in another spelling",
                path=node.root,
                hint=f"use {other!r}, or choose an id that differs in more than case",
            )
    if present not in (None, node.id) and not force:
        raise NodeConflict(
            f"this root is node {present!r}",
            path=node.root / _NODE_FILE,
            hint=f"keep that id, or replace it by {node.id!r} with --force (its old outbox is still exported)",
        )
    if present == node.id and not (adopt or force) and (stranger := node.stranger) is not None:
        raise NodeConflict(stranger)


def _ignore(root: Path) -> bool:
    """Add to `.gitignore` what no other machine may get by git; return whether anything had to be added."""
    if not any((folder / ".git").exists() for folder in (root, *root.parents)):
        return False
    path = root / ".gitignore"
    try:
        before = files.read_regular(path)
    except FileNotFoundError:
        before = b""
    known = {line.strip().strip(b"/") for line in before.splitlines()}
    missing = [line for line in _IGNORED if line.strip("/").encode() not in known]
    if not missing:
        return False
    end = b"\r\n" if b"\r\n" in before else b"\n"
    head = before if not before or before.endswith(b"\n") else before + end
    files.replace_file(path, head + b"".join(line.encode() + end for line in missing))
    return True
