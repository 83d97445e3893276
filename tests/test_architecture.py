"""The house's rules: imports go down only, one door to the disk, the public names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import calyx_logging
from conftest import REPO

LAYERS = [
    ["_version", "errors", "durable", "wording"],
    ["engine", "fast_logger", "housekeeping", "options", "capture"],
    ["node"],
    ["jsonable", "run_files"],
    ["event", "chunk", "exception"],
    ["gap", "locks", "context", "processors", "redact", "envelope"],
    ["exporter", "filling", "manifest", "plain", "scan", "signature"],
    ["archive", "completeness", "receipt", "stats", "store", "writer"],
    ["desk", "verification"],
    ["bundle", "formatter", "remote", "holdings", "outbox", "reader", "recorder"],
    ["exported", "handlers.base", "arrival", "in_force", "mirror", "reconcile", "refusals", "table"],
    ["hub", "acknowledge", "acknowledged", "audit", "database", "places", "stored"],
    ["handlers.outbox", "handlers.execution_log", "spark", "outcomes"],
    ["export", "federated", "named", "handlers", "structlog_bridge", "harness", "doctor"],
    ["status", "benchmark", "prune", "query"],
    ["condition"],
    ["facts"],
    ["excerpts"],
    ["template"],
    ["sheet"],
    ["report"],
    ["pytest_plugin"],
    ["scripts.cli", "scripts"],
    ["scripts.telemetry_verify", "scripts.telemetry_receipt", "scripts.sources", "scripts.engines"],
    [
        "scripts.telemetry_provision",
        "scripts.telemetry_export",
        "scripts.telemetry_manifest",
        "scripts.telemetry_status",
        "scripts.telemetry_smoke_test",
        "scripts.telemetry_doctor",
        "scripts.telemetry_import",
        "scripts.telemetry_table",
        "scripts.telemetry_tail",
        "scripts.telemetry_query",
        "scripts.telemetry_report",
        "scripts.telemetry_show",
        "scripts.telemetry_trust",
        "scripts.telemetry_audit",
        "scripts.telemetry_prune",
        "scripts.__main__",
    ],
]
FLOOR = {name: floor for floor, names in enumerate(LAYERS) for name in names}
DISK = {
    "os": {"open", "write", "rename", "replace", "unlink", "remove", "rmdir", "mkdir", "makedirs", "fsync", "truncate"},
    "shutil": {"rmtree", "move", "copy", "copy2", "copyfile", "copytree"},
    "path": {"write_text", "write_bytes", "unlink", "rename", "replace", "touch", "mkdir", "rmdir", "symlink_to"},
}
ALLOWED = {
    ("chunk", "open"): "for reading",
    ("scripts.cli", "open"): "the null device, when the reader of a pipe has gone",
    ("locks", "write"): "the holder's name into its lock file",
    ("envelope", "open"): "for reading",
    ("handlers.execution_log", "open"): "the execution log is concurrent-log-handler's",
    ("handlers.execution_log", "write"): "the execution log is concurrent-log-handler's",
    ("handlers.execution_log", "truncate"): "the execution log is concurrent-log-handler's",
    ("handlers.execution_log", "fsync"): "the execution log is concurrent-log-handler's",
}


HUB = {
    "hub",
    "store",
    "holdings",
    "reconcile",
    "refusals",
    "acknowledge",
    "audit",
    "in_force",
    "stored",
    "federated",
    "scripts.telemetry_import",
    "scripts.telemetry_audit",
    "scripts.telemetry_receipt",
}
NODE_SIDE = {
    "outbox",
    "export",
    "exporter",
    "exported",
    "acknowledged",
    "prune",
    "recorder",
    "writer",
    "harness",
    "mirror",
    "capture",
    "doctor",
    "benchmark",
}


def modules() -> dict[str, Path]:
    found = {}
    for folder, prefix in (("calyx_logging", ""), ("handlers", "handlers"), ("scripts", "scripts")):
        for path in (REPO / folder).glob("*.py"):
            parts = [part for part in (prefix, "" if path.stem == "__init__" else path.stem) if part]
            if parts:
                found[".".join(parts)] = path
    return found


def imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for item in ast.walk(tree):
        if isinstance(item, ast.ImportFrom) and (item.module or "").split(".")[0] == "calyx_logging":
            inside = (item.module or "").removeprefix("calyx_logging").lstrip(".")
            if inside:
                names.add(inside)
            else:
                names.update(alias.name for alias in item.names if alias.name in FLOOR)
        elif isinstance(item, ast.Import):
            names.update(
                alias.name.removeprefix("calyx_logging.")
                for alias in item.names
                if alias.name.startswith("calyx_logging.")
            )
    return names


def test_every_module_has_its_floor() -> None:
    """A new module is given a place when it is made."""
    assert set(modules()) == set(FLOOR)


@pytest.mark.parametrize("name", sorted(FLOOR))
def test_imports_go_down_only(name: str) -> None:
    """A module imports from lower floors alone."""
    tree = ast.parse(modules()[name].read_text("utf-8"))
    for other in imported(tree):
        assert FLOOR[other] < FLOOR[name], f"{name} imports {other}"


@pytest.mark.parametrize("name", sorted(HUB))
def test_the_hub_knows_nothing_of_the_node(name: str) -> None:
    """They meet in the format alone."""
    others = imported(ast.parse(modules()[name].read_text("utf-8")))
    assert not {other for other in others if other in NODE_SIDE or other.startswith("handlers")}


@pytest.mark.parametrize("name", sorted(set(FLOOR) - {"durable"}))
def test_durable_is_the_only_door_to_the_disk(name: str) -> None:
    """No other module writes, syncs, renames or deletes."""
    for call in ast.walk(ast.parse(modules()[name].read_text("utf-8"))):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        owner = call.func.value.id if isinstance(call.func.value, ast.Name) else "path"
        kind = owner if owner in ("os", "shutil") else "path"
        if owner in ("durable", "sys", "self", "text", "when") or call.func.attr not in DISK[kind]:
            continue
        if kind == "path" and call.func.attr == "replace":
            continue  # of texts and datetimes; Path.replace is os.replace, which ruff's PTH would ask for
        assert (name, call.func.attr) in ALLOWED, f"{name}:{call.lineno} {ast.unparse(call)}"


@pytest.mark.parametrize("name", sorted(FLOOR))
def test_modules_are_of_a_size_to_be_read(name: str) -> None:
    """About 350 lines; functions that can be seen at once."""
    source = modules()[name].read_text("utf-8")
    assert source.count("\n") <= 400
    for item in ast.walk(ast.parse(source)):
        if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert item.end_lineno is not None
            assert item.end_lineno - item.lineno <= 60, f"{name}.{item.name}"


def test_the_public_names() -> None:
    """What `from calyx_logging import …` offers is decided here."""
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
        "install_fast_logger",
        "provision",
        "seal",
    ]
    for name in calyx_logging.__all__:
        assert getattr(calyx_logging, name) is not None
    assert set(dir(calyx_logging)) == set(calyx_logging.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        calyx_logging.nonsense  # noqa: B018


@pytest.mark.parametrize("name", sorted(FLOOR))
def test_every_module_and_public_name_is_documented(name: str) -> None:
    """A docstring says what a module owns and what a function takes and gives."""
    tree = ast.parse(modules()[name].read_text("utf-8"))
    assert ast.get_docstring(tree)
    for item in tree.body:
        if isinstance(item, (ast.FunctionDef, ast.ClassDef)) and not item.name.startswith("_"):
            is_command = any("command" in ast.unparse(decorator) for decorator in item.decorator_list)
            assert ast.get_docstring(item) or is_command, f"{name}.{item.name}"
