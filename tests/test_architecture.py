"""The house's rules: which wing may import which, one door to the disk, the public names.

python tests/test_architecture.py    prints the imports that cross from wing to wing, and the size of each
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

import calyx_logging

REPO = Path(__file__).resolve().parent.parent

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "compiled": {"errors"},
    "core": {"errors"},
    "node": {"core"},
    "events": {"node", "compiled"},
    "format": {"events", "compiled"},
    "bundle": {"format"},
    "recording": {"format", "redact"},
    "handlers": {"recording"},
    "redact": {"events"},
    "outbox": {"bundle"},
    "hub": {"bundle"},
    "harness": {"handlers", "recording", "outbox"},
    "pytest_plugin": {"harness"},
    "query": {"outbox", "hub"},
    "report": {"query", "outbox", "hub", "bundle"},
    "view": {"report"},
    "scripts": {"view", "report", "query", "outbox", "hub", "harness", "pytest_plugin", "redact"},
}
"""Each wing, or module beside the wings, and what it may import besides itself: these, and what they may."""

FOR_ANNOTATIONS = {("events.structlog_bridge", "handlers")}
"""Imported by type checkers alone."""

DISK = {
    "os": {"open", "write", "rename", "replace", "unlink", "remove", "rmdir", "mkdir", "makedirs", "fsync", "truncate"},
    "shutil": {"rmtree", "move", "copy", "copy2", "copyfile", "copytree"},
    "path": {"write_text", "write_bytes", "unlink", "rename", "replace", "touch", "mkdir", "rmdir", "symlink_to"},
}
ALLOWED = {
    ("format.chunk", "open"): "for reading",
    ("scripts.cli", "open"): "the null device, when the reader of a pipe has gone",
    ("core.os_lock", "open"): "the file of a lock",
    ("core.os_lock", "write"): "into the file of a lock",
    ("core.crash_file", "open"): "the descriptors that faulthandler is given",
    ("core.crash_file", "write"): "the process's name into its crash file, and its exit",
    ("core.locks", "write"): "the holder's name into its lock file",
    ("core.locks", "fsync"): "the holder's name into its lock file",
    ("format.run_envelope", "open"): "for reading",
    ("handlers.execution_log", "open"): "the execution log is concurrent-log-handler's",
    ("handlers.execution_log", "write"): "the execution log is concurrent-log-handler's",
    ("handlers.execution_log", "truncate"): "the execution log is concurrent-log-handler's",
    ("handlers.execution_log", "fsync"): "the execution log is concurrent-log-handler's",
    ("scripts.sql_shell", "mkdir"): "the user's own history of queries",
    ("scripts.sql_shell", "touch"): "the user's own history of queries",
}


def modules() -> dict[str, Path]:
    """Every module but the package's own `__init__`, by its dotted name below `calyx_logging`."""
    found = {}
    for folder, prefix in (("calyx_logging", []), ("handlers", ["handlers"]), ("scripts", ["scripts"])):
        for path in (REPO / folder).rglob("*.py"):
            inside = path.relative_to(REPO / folder).with_suffix("").parts
            if name := ".".join([*prefix, *(part for part in inside if part != "__init__")]):
                found[name] = path
    return found


MODULES = modules()
WINGS = sorted({name.split(".")[0] for name in MODULES} - {"_version"})


def wing_of(module: str) -> str:
    return module.split(".")[0]


def imports_of(module: str) -> set[str]:
    """The modules of ours that one imports, anywhere in it."""
    names: set[str] = set()
    for item in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(item, ast.ImportFrom) and (item.module or "").split(".")[0] == "calyx_logging":
            inside = (item.module or "").removeprefix("calyx_logging").lstrip(".")
            dotted = (".".join(filter(None, (inside, alias.name))) for alias in item.names)
            names |= {name if name in MODULES else inside for name in dotted}
        elif isinstance(item, ast.Import):
            ours = (alias.name for alias in item.names if alias.name.startswith("calyx_logging."))
            names |= {name.removeprefix("calyx_logging.") for name in ours}
    return names - {""}  # the package itself: the version, and public names in scripts


def reach_of(wing: str) -> set[str]:
    """The wing, what it may import, and what they may."""
    found, todo = {wing, "_version"}, [wing]
    while todo:
        new = MAY_IMPORT[todo.pop()] - found
        found |= new
        todo += new
    return found


def test_every_wing_has_its_rule() -> None:
    """A new wing is given its place when it is made."""
    assert set(WINGS) == set(MAY_IMPORT)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_what_its_wing_may(module: str) -> None:
    """And nothing else of ours."""
    if module == "_version":
        return
    allowed = reach_of(wing_of(module))
    others = {wing_of(other) for other in imports_of(module)} - allowed
    assert {other for other in others if (module, other) not in FOR_ANNOTATIONS} == set()


def test_no_wing_stands_above_itself() -> None:
    """The rule has no cycle, so that wings can be read from the ground up."""
    for wing in MAY_IMPORT:
        assert all(wing not in reach_of(below) for below in MAY_IMPORT[wing]), wing


@pytest.mark.parametrize("wing", [wing for wing in WINGS if (REPO / "calyx_logging" / wing).is_dir()])
def test_what_others_use_of_a_wing_is_named_by_it(wing: str) -> None:
    """Rooms that begin with an underscore are the wing's own."""
    for module in MODULES:
        if wing_of(module) != wing:
            used = {name for name in imports_of(module) if wing_of(name) == wing}
            assert not {name for name in used if name.split(".")[-1].startswith("_")}, module


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"core.files"}))
def test_core_files_is_the_only_door_to_the_disk(module: str) -> None:
    """No other module writes, syncs, renames or deletes."""
    for call in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        owner = call.func.value.id if isinstance(call.func.value, ast.Name) else "path"
        kind = owner if owner in ("os", "shutil") else "path"
        if owner in ("files", "sys", "self", "text", "when") or call.func.attr not in DISK[kind]:
            continue
        if kind == "path" and call.func.attr == "replace":
            continue  # of texts and datetimes; Path.replace is os.replace, which ruff's PTH would ask for
        assert (module, call.func.attr) in ALLOWED, f"{module}:{call.lineno} {ast.unparse(call)}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_modules_are_of_a_size_to_be_read(module: str) -> None:
    """About 350 lines; functions that can be seen at once."""
    source = MODULES[module].read_text("utf-8")
    assert source.count("\n") <= 400
    for item in ast.walk(ast.parse(source)):
        if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert item.end_lineno is not None
            assert item.end_lineno - item.lineno <= 60, f"{module}.{item.name}"


def test_the_public_names() -> None:
    """This test decides what `from calyx_logging import …` offers."""
    assert sorted(calyx_logging.__all__) == [
        "CalyxError",
        "EventFormatter",
        "ExecutionLogHandler",
        "KeepContext",
        "Node",
        "OutboxHandler",
        "StampEvent",
        "__version__",
        "benchmark_run",
        "configure_structlog",
        "doctor",
        "install_fast_logger",
        "provision",
        "seal",
        "setup",
    ]
    for name in calyx_logging.__all__:
        assert getattr(calyx_logging, name) is not None
    assert set(dir(calyx_logging)) == set(calyx_logging.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        calyx_logging.nonsense  # noqa: B018


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_module_and_public_name_is_documented(module: str) -> None:
    """A docstring says what a module owns and what a function takes and gives."""
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    assert ast.get_docstring(tree)
    for item in tree.body:
        if isinstance(item, (ast.FunctionDef, ast.ClassDef)) and not item.name.startswith("_"):
            is_command = any("command" in ast.unparse(decorator) for decorator in item.decorator_list)
            assert ast.get_docstring(item) or is_command, f"{module}.{item.name}"


def print_structure() -> None:
    """The imports that cross from wing to wing, and what each wing holds."""
    crossing = Counter(
        (wing_of(module), wing_of(other))
        for module in MODULES
        for other in imports_of(module)
        if wing_of(other) != wing_of(module)
    )
    print(f"{sum(crossing.values())} imports cross between {len(crossing)} pairs of wings:")
    for (wing, other), count in sorted(crossing.items()):
        print(f"  {wing:>13} -> {other:<10} {count:3}")
    lines = {name: path.read_text("utf-8").count("\n") for name, path in MODULES.items()}
    print(f"{len(MODULES)} modules, {sum(lines.values())} lines:")
    for wing in ["_version", *WINGS]:
        own = {name: lines[name] for name in MODULES if wing_of(name) == wing}
        print(f"  {wing:>13} {len(own):3} modules {sum(own.values()):6} lines")


if __name__ == "__main__":
    print_structure()
