"""Helpers for all tests: provisioned roots, real dictConfig, real child processes, reading back what was written."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import surroundings
from surroundings import REPO

surroundings.take_checkout_off(sys.path)
if (said := surroundings.trouble()) is not None:
    print(said, file=sys.stderr)
    raise SystemExit(pytest.ExitCode.USAGE_ERROR)

from calyx_logging import Node, provision
from calyx_logging.compiled import PURE_VARIABLE, WAY
from calyx_logging.scripts.cli import group, run
from faults.disk import python_way

hypothesis.settings.register_profile("calyx", deadline=None)  # machines are shared and noisy
hypothesis.settings.load_profile("calyx")

NODE_ID = "test-node"


def pytest_configure(config: pytest.Config) -> None:
    """Files are made in memory where that can be."""
    if config.option.basetemp is None:
        surroundings.make_files_in_memory(os.environ)


def pytest_report_header() -> list[str]:
    """Name the copy that is tested, and the folder for files."""
    return [f"{surroundings.tested_copy()}, {WAY}", f"temporary files: {tempfile.gettempdir()}"]


@pytest.fixture(autouse=True)
def _no_root_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CALYX_ROOT", raising=False)


@pytest.fixture(autouse=True)
def _logger_class() -> Iterator[None]:
    """The one of before comes back: structlog's LoggerFactory sets one of its own for the whole process."""
    before = logging.getLoggerClass()
    yield
    logging.setLoggerClass(before)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A provisioned node in a root of its own."""
    root = tmp_path / "root"
    root.mkdir()
    return provision(root, NODE_ID).node


def config(node: Node, **options: Any) -> dict[str, Any]:
    """A dictConfig with one OutboxHandler on the logger `harness`."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"event": {"()": "calyx_logging.EventFormatter"}},
        "handlers": {
            "outbox": {
                "class": "calyx_logging.handlers.OutboxHandler",
                "formatter": "event",
                "root": str(node.root),
                "identity": False,  # a line that most tests would have to leave out
                **options,
            }
        },
        "loggers": {"harness": {"level": "DEBUG", "handlers": ["outbox"], "propagate": False}},
    }


@pytest.fixture
def configure(node: Node) -> Iterator[Callable[..., logging.Logger]]:
    """`configure(**options)` configures logging for the node and returns the logger; undone after the test."""

    def apply(**options: Any) -> logging.Logger:
        logging.config.dictConfig(config(node, **options))
        return logging.getLogger("harness")

    yield apply
    close_logging()


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Node:
    """A node that has logged a session of the module `sessions`; to be read only."""
    from sessions import logged_node  # which uses this module

    return logged_node(tmp_path_factory.mktemp("root"))


def close_logging() -> None:
    """Close the handler of the logger `harness`, as the end of a program would."""
    logger = logging.getLogger("harness")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def die_in_place() -> None:
    """Leave the outbox as if this process had died: locks are free, open chunks stay, nothing ends in order."""
    for handler in list(logging.getLogger("harness").handlers):
        pool = handler._pool  # type: ignore[attr-defined]
        with pool._care:  # housekeeping would go on with what is dead
            for writer in pool.writers:
                writer.lock.give_back(delete=False)
                writer.abandon()
            pool._begin()
    close_logging()


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """Every line of every chunk in a folder, sealed or open, in the order of the files' names."""
    while True:
        paths = sorted(path for path in folder.iterdir() if path.name.endswith((".jsonl", ".jsonl.open")))
        try:
            return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]
        except FileNotFoundError:
            continue  # sealed in between


def events_of(folder: Path) -> list[dict[str, Any]]:
    """The lines that are no control lines."""
    return [line for line in lines_of(folder) if line["source"] != "calyx_logging"]


def controls_of(folder: Path) -> list[dict[str, Any]]:
    """The control lines."""
    return [line for line in lines_of(folder) if line["source"] == "calyx_logging"]


@pytest.fixture
def in_python(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The Python way, also of child processes."""
    monkeypatch.setenv(PURE_VARIABLE, "1")
    with python_way():
        yield


def python(code: str, *args: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a Python of its own, from a folder that is not the checkout."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *args],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=cwd or REPO.parent,
        env={**os.environ, "PYTHONUTF8": "1", "CALYX_LOGGING_ENVIRONMENT": "", **environment},
        timeout=120,
        check=False,
    )


def telemetry(*args: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of `calyx-telemetry` in this process: its exit code, and what it wrote to both streams.

    All but the doctor, which takes over its process: streams, logging and imports.
    """
    if args[:1] == ("doctor",):
        return telemetry_program(*args, cwd=cwd)
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2))
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd or REPO.parent)
        patch.setenv("COLUMNS", "200")
        patch.setattr(sys, "argv", ["calyx-telemetry", *map(str, args)])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        try:
            run(group)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    out.flush()
    err.flush()
    said, remarks = (stream.buffer.getvalue().decode().replace(os.linesep, "\n") for stream in (out, err))  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(["calyx-telemetry", *map(str, args)], code, said, remarks)


def telemetry_program(*args: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `calyx-telemetry` as a program, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "calyx_logging.scripts", *map(str, args)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=cwd or REPO.parent,
        env={**os.environ, "PYTHONUTF8": "1", "COLUMNS": "200"},
        timeout=120,
        check=False,
    )


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every path under a folder with its bytes (None for folders and pipes), to compare whole directories.

    Without the memory that SQLite's readers share, and its log where that is empty: they come and go with them.
    """
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if not path.name.endswith("sqlite3-shm") and not (path.name.endswith("sqlite3-wal") and not path.stat().st_size)
    }
