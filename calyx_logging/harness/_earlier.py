"""Find out which cases earlier instances of a run completed, whatever ended those.

Receipts tell of it, and the events in the outbox where a receipt is missing or torn. Lines that cannot be read are
passed over: their cases are done once more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calyx_logging.core import files
from calyx_logging.errors import CalyxError, ConfigError
from calyx_logging.events.event import decode
from calyx_logging.format import run_paths
from calyx_logging.format.chunk import open_chunk, read_lines
from calyx_logging.format.run_envelope import RunEnvelope
from calyx_logging.outbox.contents import look

__all__ = ["Earlier", "case_id_of", "earlier_instances"]


@dataclass
class Earlier:
    """The instances of a run before this one.

    Attributes:
        instances: their ids, the first one first.
        completed: the cases that they completed.
    """

    instances: list[str] = field(default_factory=list)
    completed: set[str] = field(default_factory=set)


def earlier_instances(results: Path, outbox: Path | None, suite: str, run_id: str) -> Earlier:
    """Find the instances of a run that left an envelope here, and the cases they completed.

    Args:
        results: this node's results folder of the suite.
        outbox: the node's outbox, if there is one.
        suite: the run's suite.
        run_id: the run.
    """
    started: dict[str, str] = {}
    whole: dict[str, bool] = {}
    found = Earlier()
    for path in results.glob(f"*{run_paths.ENVELOPE_SUFFIX}"):
        try:
            envelope = RunEnvelope.read(path)
        except CalyxError:  # not whole; what it completed is in its receipt, and counts by its file's name
            continue
        is_of_run = (envelope.suite, envelope.run_id) == (suite, run_id)
        whole[path.name.removesuffix(run_paths.ENVELOPE_SUFFIX)] = is_of_run
        if is_of_run:
            started[envelope.run_instance_id] = envelope.started_at
            for earlier in envelope.continues:
                started.setdefault(earlier, "")
    found.instances = sorted(started, key=lambda instance: (started[instance], instance))
    for path in results.glob(f"*{run_paths.RECEIPT_SUFFIX}"):
        stem = path.name.removesuffix(run_paths.RECEIPT_SUFFIX)
        if whole.get(stem, _is_named_after(stem, run_id)):
            found.completed.update(_completed_in(path))
    if outbox is not None:
        found.completed.update(_completed_in_outbox(outbox, suite, run_id))
    return found


def _is_named_after(stem: str, run_id: str) -> bool:
    """Check that a file can belong to no other run: `a__b__c` may be of run `a`, or of run `a__b`."""
    return stem.startswith(f"{run_id}__") and "__" not in stem.removeprefix(f"{run_id}__")


def _completed_in(receipt: Path) -> Iterator[str]:
    try:
        lines = files.read_regular(receipt).splitlines()
    except OSError:
        return
    for line in lines:
        try:
            case = json.loads(line)
        except (ValueError, RecursionError):  # its process died while writing it
            continue
        if isinstance(case, dict) and _is_completed(case):
            yield case["case_id"]


def _completed_in_outbox(outbox: Path, suite: str, run_id: str) -> Iterator[str]:
    try:
        contents = look(outbox)
    except CalyxError:
        return
    for name in [*(one.sealed for one in contents.sealed), *(one.open for one in contents.open)]:
        try:
            with open_chunk(outbox / name) as stream:
                for line, whole in read_lines(stream):
                    if whole and b'"case_ended"' in line:
                        event = decode(line)
                        if (event.get("suite"), event.get("run_id")) == (suite, run_id) and _is_completed(event):
                            yield event["case_id"]
        except (CalyxError, OSError):
            continue  # just sealed, or not readable: its cases are done once more


def _is_completed(case: dict[str, Any]) -> bool:
    return case.get("outcome") == "completed" and isinstance(case.get("case_id"), str)


def case_id_of(case: object) -> str:
    """Return the id of a case: itself, its `case_id`, or its `id`.

    Raises:
        ConfigError: it has none.
    """
    if isinstance(case, str):
        return case
    for name in ("case_id", "id"):
        found = case.get(name) if isinstance(case, Mapping) else getattr(case, name, None)
        if isinstance(found, str):
            return found
    raise ConfigError(f"remaining() was given {case!r:.100}: give ids of cases, or things with a case_id or an id")
