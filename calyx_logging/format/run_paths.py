"""Where the files of a run are (docs/format.md, "Runs"): its execution log, its results, its envelope and receipt.

Invariant: no name that comes from a harness leads out of the folder it belongs to, on any system.
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
"""Bytes of a file's name that leave room for what goes before and behind it while it is written."""
_UNFIT = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]|[. ]$|^\.\.?$')
_RULE = 'give 1 to 100 characters, none of < > : " / \\ | ? * and no control character, no dot or space at the end'


def check_run_name(what: str, text: object) -> str:
    """Return a name that is fit to be a part of a file's name on every system.

    Raises:
        ConfigError: it is not.
    """
    if not is_run_name(text):
        raise ConfigError(f"{what} is {text!r:.200}: it becomes part of a file's name", hint=_RULE)
    return text


def is_run_name(text: object) -> TypeGuard[str]:
    """Whether that is so."""
    return (
        isinstance(text, str)
        and 1 <= len(text) <= _MAX_NAME
        and not _UNFIT.search(text)
        and not is_device_name(text)
        and text.isprintable()
    )


def new_instance_id() -> str:
    """A name for a run that begins now: the time in UTC, and something that no other has."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(3)}"


def benchmarks_of(root: Path) -> Path:
    """The folder of all that benchmarks leave behind."""
    return root / "runtime" / "benchmarks"


def node_id_of(runtime: Path) -> str | None:
    """The id in `<runtime>/node_id.txt`; None when the file is absent or empty.

    Raises:
        InvalidNodeId: what is in it breaks the rule.
        StorageError: it cannot be read.
    """
    found = read_node_id(runtime)
    return None if found is None else check_node_id(found, path=runtime / "node_id.txt")


def results_dir(benchmarks: Path, suite: str, node_id: str | None) -> Path:
    """A suite's results, in a folder of the node's where there is a node id. Makes nothing.

    Raises:
        ConfigError: the suite's name would lead elsewhere.
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
    """The name of one of a run's files.

    Raises:
        ConfigError: an id is not fit to be part of it.
    """
    run = check_run_name("run_id", run_id)
    name = f"{run}__{check_run_name('run_instance_id', run_instance_id)}{suffix}"
    if len(name.encode()) > _MAX_FILE_NAME:
        raise ConfigError(f"run_id and run_instance_id are too long together: {name!r:.300}", hint="give shorter ones")
    return name


def execution_log(root: str | os.PathLike[str], run_id: str, run_instance_id: str) -> Path:
    """The one file that all processes of a run append their events to.

    Raises:
        ConfigError: an id is not fit to be part of a file's name.
    """
    return benchmarks_of(Path(root)) / "execution_logs" / run_file(run_id, run_instance_id, EXECUTION_LOG_SUFFIX)


def root_above(path: Path) -> Path | None:
    """The nearest folder above a path that has a node id; None when there is none.

    Raises:
        StorageError: the path cannot be looked at.
    """
    try:
        return next((folder for folder in path.parents if (folder / "runtime" / "node_id.txt").is_file()), None)
    except OSError as error:
        raise StorageError.of(error, "look for a root", path) from error
