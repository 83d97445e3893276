"""Functions for existing harness code: mirror dicts into the outbox, write the execution log, find results by node.

They have the signatures that such code already calls, so that only its import lines change. Lost events never stop the
harness: they are counted (`not_kept`) and reported once on standard error. Data flow: a dict or a case's record is
encoded like any event, and goes to a writer of this process (`mirror`) and to the run's files (`benchmark`). Other
wings use `doctor`, which finds out why a harness's events do not arrive.

    from calyx_logging.harness import append_event, get_results_dir

    append_event(log_path, run_id, "case_done", payload={"case_id": "2+2", "score": 1.0})
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calyx_logging.core.reading import sha256_of
from calyx_logging.errors import CalyxError, ConfigError
from calyx_logging.events.event import DEFAULT_MAX_EVENT_BYTES, DEFAULT_SOURCE, control_event, decode, encode, shadow
from calyx_logging.events.stamp import StampEvent
from calyx_logging.format import run_paths
from calyx_logging.format.run_envelope import FileDigest, RunEnvelope
from calyx_logging.harness.mirror import Mirror, count_lost, encode_mirrored, lost, mirror_of, set_processors

if TYPE_CHECKING:
    from calyx_logging.handlers.execution_log import ExecutionLogFile

__all__ = [
    "FileDigest",
    "RunEnvelope",
    "append_event",
    "get_node_id",
    "get_results_dir",
    "mirror_event",
    "not_kept",
    "set_processors",
]

_Path = str | os.PathLike[str]


def mirror_event(
    event: Mapping[str, Any],
    source: str = DEFAULT_SOURCE,
    *,
    log_path: _Path | None = None,
    runtime_root: _Path | None = None,
    repo_root: _Path | None = None,
) -> bool:
    """Write one dict to the node's outbox as an event; never raises.

    The event's own `event_id` and valid `ts_utc` are kept, as are texts in `level`, `logger` and `message`; the dict is
    not changed. If it returns True, the event survives the death of the process.

    Args:
        event: any mapping.
        source: the event's `source`; its slug is the chunks' component.
        log_path: a file of the run; the root is searched for above it.
        runtime_root: the root's `runtime` folder; takes precedence over `log_path`.
        repo_root: the root; takes precedence over both. Without any of them, the root is found as in `OutboxHandler`.

    Returns:
        Whether the event was kept. If not, the loss is counted, and reported once on standard error.
    """
    try:
        if not isinstance(event, Mapping):
            raise ConfigError(f"an event is a dict, not {type(event).__name__}")
        return mirror_of(source, log_path, runtime_root, repo_root).keep(event)
    except Exception as error:  # no root, no node id, an unwritable outbox, or a bad argument
        count_lost(error)
        return False


def append_event(
    log_path: _Path,
    run_id: str,
    stage: str,
    *,
    action_id: str | None = None,
    decision_type: str = "allow",
    adapter_status: str | None = None,
    risk_label: str | None = None,
    risk_score: float | None = None,
    policy_reason: str | None = None,
    payload: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Append one event to a run's execution log, synced, and mirror it into the outbox.

    The line is the outbox's event line without `seq`. If the root has no node id, the line has none either, and the
    event is not mirrored but counted as lost. `payload` is merged in: its `event_id` and valid `ts_utc` become the
    event's, and its other fields stand beside the arguments. A payload field with an argument's name is moved to
    `shadowed`, unless the argument is None. If one of the two places fails, the event is still in the other.

    Args:
        log_path: the execution log; its folder is created if missing.
        run_id: the run's id; a field of the event, like all following arguments.
        stage: what happened.
        action_id: the action concerned.
        decision_type: the decision about it.
        adapter_status: how the model adapter ended.
        risk_label: a class of risk.
        risk_score: the risk as a number.
        policy_reason: the reason for the decision.
        payload: more fields.

    Returns:
        The event as written; its `payload_hash` is the SHA-256 of `json.dumps(event without ts_utc and payload_hash,
        sort_keys=True, ensure_ascii=False)` in UTF-8.

    Raises:
        TypeError: `payload` is not a mapping, or `log_path` is not a path.
    """
    path = Path(log_path).absolute()
    if payload is not None and not isinstance(payload, Mapping):
        raise TypeError(f"payload is a {type(payload).__name__}: give a dict")
    arguments = {
        "run_id": run_id,
        "stage": stage,
        "action_id": action_id,
        "decision_type": decision_type,
        "adapter_status": adapter_status,
        "risk_label": risk_label,
        "risk_score": risk_score,
        "policy_reason": policy_reason,
    }
    return _append(path, _merged(arguments, {} if payload is None else payload))


def get_node_id(runtime_root: _Path) -> str | None:
    """Read `<runtime_root>/node_id.txt`, without byte order mark and white space; None if absent or empty.

    Raises:
        InvalidNodeId: its content breaks the rule for node ids.
        StorageError: it cannot be read.
    """
    return run_paths.node_id_of(Path(runtime_root))


def get_results_dir(benchmarks_root: _Path, suite_id: str, runtime_root: _Path) -> Path:
    """Return `<benchmarks_root>/results/<suite_id>/<node_id>`, without the last part if there is no node id.

    The folder is not created.

    Raises:
        ConfigError: the suite id would lead out of the folder.
        InvalidNodeId, StorageError: as in `get_node_id`.
    """
    return run_paths.results_dir(Path(benchmarks_root), suite_id, get_node_id(runtime_root))


def not_kept() -> dict[str, int]:
    """Count this process's events that could be neither mirrored nor logged so far, by cause."""
    found = Counter(lost())
    for path, count in [*_lost_before.items(), *((path, log.lost) for path, log in list(_logs.items()))]:
        if count:
            found[f"{path} cannot be written"] += count
    return dict(found)


# ------------------------------------------------------------------ inside

_HASH = "payload_hash"
_MAX_BYTES = DEFAULT_MAX_EVENT_BYTES - 128
"""The longest line, in bytes, before its hash is added."""

_NO_NODE = StampEvent(f"none-{secrets.token_hex(8)}")
"""The stamp used without a node; its id never leaves this module."""

_MAX_LOGS = 16
_logs: dict[str, ExecutionLogFile] = {}
_lost_before: Counter[str] = Counter()


def _append(path: Path, fields: dict[str, Any]) -> dict[str, Any]:
    mirror = None
    try:
        mirror = mirror_of(DEFAULT_SOURCE, path, None, None)
    except Exception as error:  # no node id, or an unwritable outbox: still write the execution log
        count_lost(error)
    line = _line_of(fields, mirror)
    if line is None:  # a processor dropped it
        return fields
    try:
        _log_at(path, mirror).keep(line, sync=True)
    except CalyxError as error:  # its folder cannot be created: the event is still in the outbox
        count_lost(error, "are not in the execution log")
    if mirror is not None:
        mirror.keep_line(line)
    return decode(line)


def _merged(arguments: Mapping[str, Any], payload: Mapping[str, Any]) -> dict[str, Any]:
    """Merge arguments and payload; if both have a name, the argument stays and the payload's value is shadowed."""
    fields = {**payload, **{name: value for name, value in arguments.items() if value is not None}}
    doubled = {name: payload[name] for name in arguments if name in payload and fields[name] is not payload[name]}
    if _HASH in fields:
        doubled[_HASH] = fields.pop(_HASH)
    shadow(fields, doubled)
    return {**arguments, **fields}


def _line_of(fields: Mapping[str, Any], mirror: Mirror | None) -> bytes | None:
    """Encode the line with its hash, without `seq`; None if a processor dropped the event."""
    if mirror is not None:
        line = mirror.encode(fields, _MAX_BYTES)
    else:
        line = encode_mirrored(fields, _NO_NODE, _MAX_BYTES)
    if line is None:
        return None
    event = decode(line)
    if mirror is None or _HASH in event:
        if mirror is None:
            del event["node_id"]
        if _HASH in event:  # set by a processor; appending another would put it into the line twice
            shadow(event, {_HASH: event.pop(_HASH)})
        line = encode(event)
    event = decode(line)
    del event["ts_utc"]
    text = json.dumps(event, sort_keys=True, ensure_ascii=False)
    return b'%b,"%b":"%b"}' % (line[:-1], _HASH.encode(), sha256_of(text.encode()).encode())


def _without_node(line: bytes) -> bytes:
    event = decode(line)
    del event["node_id"]
    return encode(event)


def _log_at(path: Path, mirror: Mirror | None) -> ExecutionLogFile:
    """Return this process's file for an execution log; a few stay open."""
    name = str(path)
    if (log := _logs.get(name)) is None:
        from calyx_logging.handlers.execution_log import ExecutionLogFile

        node_id = None if mirror is None else mirror.node.id
        log = _logs.setdefault(name, ExecutionLogFile(path, partial(_gap_line, node_id)))
        while len(_logs) > _MAX_LOGS:
            oldest = next(iter(_logs))
            gone = _logs.pop(oldest)
            _lost_before[oldest] += gone.lost
            gone.close()
    return log


def _gap_line(node_id: str | None, count: int, cause: str) -> bytes:
    message = f"{count} events could not be kept"
    line = control_event(node_id or _NO_NODE.node_id, "gap", time.time(), message, count=count, cause=cause)
    return _without_node(line) if node_id is None else line
