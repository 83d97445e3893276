"""Paths of a run's files (docs/format.md, "Runs"): execution log, results, envelope and receipt.

Invariant: no name from a harness leads out of its folder, on any system.
"""

from __future__ import annotations

import os
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeGuard

from calyx_logging.errors import ConfigError, StorageError
from calyx_logging.node import check_node_id, is_device_name, read_node_id

__all__ = [
    "ENVELOPE_SUFFIX",
    "RECEIPT_SUFFIX",
    "benchmarks_of",
    "check_run_name",
    "execution_log",
    "is_run_name",
    "new_instance_id",
    "node_id_of",
    "results_dir",
    "root_above",
    "run_file",
]

ENVELOPE_SUFFIX = ".envelope.json"
RECEIPT_SUFFIX = ".cases.jsonl"
EXECUTION_LOG_SUFFIX = ".events.jsonl"
_MAX_NAME = 100
_MAX_FILE_NAME = 240
"""The longest file name in bytes, which leaves room for the affixes of temporary files."""
_UNFIT = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]|[. ]$|^\.\.?$')
_RULE = 'give 1 to 100 characters, none of < > : " / \\ | ? * and no control character, no dot or space at the end'


def check_run_name(what: str, text: object) -> str:
    """Return a name that may be part of a file name on every system.

    Raises:
        ConfigError: the name breaks the rule.
    """
    if not is_run_name(text):
        raise ConfigError(f"{what} is {text!r:.200}: it becomes part of a file's name", hint=_RULE)
    return text


def is_run_name(text: object) -> TypeGuard[str]:
    """Tell whether a name may be part of a file name on every system."""
    return (
        isinstance(text, str)
        and 1 <= len(text) <= _MAX_NAME
        and not _UNFIT.search(text)
        and not is_device_name(text)
        and text.isprintable()
    )


def new_instance_id() -> str:
    """Make a unique name for a run that begins now: the time in UTC and a random part."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(3)}"


def benchmarks_of(root: Path) -> Path:
    """Return the folder for everything that benchmarks write."""
    return root / "runtime" / "benchmarks"


def node_id_of(runtime: Path) -> str | None:
    """Read the id in `<runtime>/node_id.txt`; None if the file is absent or empty.

    Raises:
        InvalidNodeId: its content breaks the rule.
        StorageError: it cannot be read.
    """
    found = read_node_id(runtime)
    return None if found is None else check_node_id(found, path=runtime / "node_id.txt")


def results_dir(benchmarks: Path, suite: str, node_id: str | None) -> Path:
    """Return a suite's results folder, with the node id as last part if there is one; creates nothing.

    Raises:
        ConfigError: the suite's name would lead out of the results.
    """
    parts = suite.split("/") if isinstance(suite, str) else [suite]
    if not all(is_run_name(part) for part in parts):
        raise ConfigError(
            f"the suite id is {suite!r:.200}: it becomes a folder below the results",
            hint=f"{_RULE}; '/' only between the names of folders",
        )
    folder = benchmarks.joinpath("results", *parts)
    return folder if node_id is None else folder / node_id


def run_file(run_id: str, run_instance_id: str, suffix: str) -> str:
    """Make the name of one of a run's files.

    Raises:
        ConfigError: an id may not be part of a file name.
    """
    run = check_run_name("run_id", run_id)
    name = f"{run}__{check_run_name('run_instance_id', run_instance_id)}{suffix}"
    if len(name.encode()) > _MAX_FILE_NAME:
        raise ConfigError(f"run_id and run_instance_id are too long together: {name!r:.300}", hint="give shorter ones")
    return name


def execution_log(root: str | os.PathLike[str], run_id: str, run_instance_id: str) -> Path:
    """Return the file to which all processes of a run append their events.

    Raises:
        ConfigError: an id may not be part of a file name.
    """
    return benchmarks_of(Path(root)) / "execution_logs" / run_file(run_id, run_instance_id, EXECUTION_LOG_SUFFIX)


def root_above(path: Path) -> Path | None:
    """Find the nearest folder above a path that has a node id; None if there is none.

    Raises:
        StorageError: the path cannot be examined.
    """
    try:
        return next((folder for folder in path.parents if (folder / "runtime" / "node_id.txt").is_file()), None)
    except OSError as error:
        raise StorageError.of(error, "look for a root", path) from error
