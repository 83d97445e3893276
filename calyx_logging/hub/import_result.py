"""The import's policy, and the result for one bundle."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from calyx_logging.bundle.staging import Source
from calyx_logging.bundle.verification import Fault
from calyx_logging.format.manifest import Manifest

__all__ = ["ImportResult", "Policy"]


@dataclass(frozen=True)
class Policy:
    """Rules for which bundles the hub accepts.

    Attributes:
        require_signature: refuse every unsigned bundle. Otherwise accept those of nodes that have no key here.
        accept_bad_lines: accept chunks with lines that are not events of their node; those are noted, and the chunk is
            never acknowledged.
        accept_rewritten: bundles, as `NODE_ID/TIMESTAMP`, whose chunks are accepted as the node's word although they
            contradict earlier content of the same name.
    """

    require_signature: bool = False
    accept_bad_lines: bool = False
    accept_rewritten: frozenset[str] = frozenset()

    def accepts_rewritten(self, manifest: Manifest) -> bool:
        """Return whether a person has named this bundle."""
        return f"{manifest.node_id}/{manifest.timestamp}" in self.accept_rewritten


@dataclass
class ImportResult:
    """Outcome of the import of one bundle.

    Attributes:
        source: the place it came from.
        outcome: `imported`, `already imported`, `refused`; with a dry run `would be imported`; `failed` when the file
            system said no, or a program that is needed is missing.
        folder: where it is in the store; for one that contradicts the store, in quarantine.
        manifest: None where it cannot be read.
        manifest_sha256: likewise.
        events: in its chunks, without control lines.
        signed_by: the key, where a signature was checked and is valid.
        bad_lines: lines that are no events of the node and were accepted.
        faults: why it was refused, all of them.
        warnings: what the user should know.
        next_step: what to do about it; None unless it was refused.
        exit_code: of a command that has only this to do.
        inside: its folder in an archive of several.
    """

    source: Path | Source
    outcome: str
    folder: Path | None = None
    manifest: Manifest | None = None
    manifest_sha256: str | None = None
    events: int = 0
    signed_by: str | None = None
    bad_lines: int = 0
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    next_step: str | None = None
    exit_code: int = 0
    inside: str = ""

    @property
    def place(self) -> str:
        """The place it came from, in words."""
        return f"{self.source}/{self.inside}" if self.inside else str(self.source)
