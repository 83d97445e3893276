"""Find what is missing of each node and writer, from the numbers that writers give their events and chunks.

A writer is complete when gap lines account for every hole in its `seq`, its chunk numbers have no hole, and its end
line is `closed` (docs/format.md). This module opens no files.

Invariant: `NodeAudit.verdict` is the only place that judges. Every command, page and exit code shows what it says, and
it never calls a node complete that lost events.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from calyx_logging.core.ranges import runs_of
from calyx_logging.core.text import count_text, runs_text
from calyx_logging.format.chunk import ChunkName
from calyx_logging.format.line_check import Scan

__all__ = ["Elsewhere", "NodeAudit", "Verdict", "WriterAudit", "findings", "findings_of", "worst", "writers_of"]

_KINDS = ("complete", "complete so far", "complete but for unknown tails", "events lost", "incomplete")
"""From best to worst."""


@dataclass(frozen=True)
class Verdict:
    """The overall result for a node.

    Attributes:
        kind: `complete`; `complete so far`: some writers may still write; `complete but for unknown tails`: nothing
            known is missing, but some writers were killed; `events lost`: writers reported events that they could not
            keep; `incomplete`: something that was kept is not here, or not as it was.
        lost: events that writers reported as lost.
        missing: what is missing or wrong, each in a few words.
    """

    kind: str
    lost: int = 0
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        lost = f"{count_text(self.lost, 'event', separator=',')} lost" if self.lost else ""
        if self.kind != "incomplete":
            return lost or self.kind
        return "; ".join(filter(None, [f"incomplete: {', '.join(self.missing)}", lost]))

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing, and nothing more is to come."""
        return self.kind == "complete"

    @property
    def is_bad(self) -> bool:
        """Whether events are lost or missing."""
        return self.kind in ("events lost", "incomplete")

    def document(self) -> dict[str, object]:
        """Return the verdict for `--json`: `verdict` (its kind), `lost`, and `missing`."""
        return {"verdict": self.kind, "lost": self.lost, "missing": list(self.missing)}

    def exit_code(self, *, strict: bool) -> int:
        """The exit code of a command that judges: 1 when something is missing.

        Args:
            strict: also when events were lost, or the tail of a killed writer is unknown.
        """
        return int(self.kind == "incomplete" or (strict and self.kind not in ("complete", "complete so far")))


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of several nodes' verdicts; complete for none."""
    return max(verdicts, key=lambda one: (_KINDS.index(one.kind), one.lost), default=Verdict("complete"))


@dataclass
class WriterAudit:
    """The completeness of one writer.

    Attributes:
        writer: its id.
        state: `complete`; `holes`: some of its events or chunks are missing; `tail unknown`: it was killed, and its
            last events may not have reached the disk; `unfinished`: it has no end line yet, so it still writes or more
            is to come.
        events: lines here, including control lines.
        chunks: its chunks here.
        last_seq: the greatest `seq` here; None without any.
        missing_seqs: runs of `seq` for which there is neither a line nor a gap line.
        missing_chunks: runs of missing chunk numbers.
        gaps: lost events that it reported, by cause.
        torn_bytes, bad_lines: what recovery could not keep.
        repeated: how often a `seq` occurs again.
        open_in: the last bundle made while one of its chunks was still open, if that chunk has not arrived since.
    """

    writer: str
    state: str = "complete"
    events: int = 0
    chunks: int = 0
    last_seq: int | None = None
    missing_seqs: list[list[int]] = field(default_factory=list)
    missing_chunks: list[list[int]] = field(default_factory=list)
    gaps: dict[str, int] = field(default_factory=dict)
    torn_bytes: int = 0
    bad_lines: int = 0
    repeated: int = 0
    open_in: str | None = None


@dataclass
class NodeAudit:
    """The completeness of one node.

    Attributes:
        node_id: the node's id.
        bundles: its bundles in the store.
        events: events here, in all chunks; control lines are none.
        writers: the writers of our own chunks.
        foreign_chunks: first-generation chunks, whose completeness cannot be determined.
        missing_bundles: hashes of manifests that other bundles name as their predecessor and that are not here.
        followers: for each missing bundle, the folder of the one that follows it.
        histories: bundles that begin a chain, or follow a bundle that another one follows too; more than one if a
            machine was cloned or lost its record of exports.
        damaged: files in the store that differ from their manifest.
        rewritten: chunks that a person accepted in place of earlier content, which no longer counts.
        quarantined: its bundles that contradict the store and are kept apart.
        bad_lines: lines that are not events of the node, in chunks that were accepted with them.
        same_id: the first event ids that events with different content share.
        same_ids: how many there are.
        machines: fingerprints of the machines that its events come from, as far as start lines tell.
        goes_on: whether writers without an end line may still continue, because the node itself or one of its bundles
            was examined.
    """

    node_id: str
    bundles: int = 0
    events: int = 0
    writers: list[WriterAudit] = field(default_factory=list)
    foreign_chunks: int = 0
    missing_bundles: list[str] = field(default_factory=list)
    followers: dict[str, str] = field(default_factory=dict)
    histories: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    bad_lines: int = 0
    same_id: list[str] = field(default_factory=list)
    same_ids: int = 0
    machines: list[str] = field(default_factory=list)
    goes_on: bool = False

    @property
    def lost(self) -> int:
        """The number of events that its writers reported as lost."""
        return sum(sum(writer.gaps.values()) for writer in self.writers)

    @property
    def verdict(self) -> Verdict:
        """The overall result."""
        states = {writer.state for writer in self.writers}
        missing = tuple(self._missing())
        if missing:
            kind = "incomplete"
        elif self.lost:
            kind = "events lost"
        elif "tail unknown" in states:
            kind = "complete but for unknown tails"
        else:
            kind = "complete so far" if "unfinished" in states else "complete"
        return Verdict(kind, self.lost, missing)

    def _missing(self) -> Iterator[str]:
        """Yield what is missing or wrong, each in a few words."""
        holes = [writer for writer in self.writers if writer.state == "holes"]
        open_ones = [] if self.goes_on else [writer for writer in self.writers if writer.state == "unfinished"]
        for count, what in (
            (len(self.missing_bundles), "bundle"),
            (sum(_length(writer.missing_chunks) for writer in holes), "chunk"),
            (sum(_length(writer.missing_seqs) for writer in holes), "event"),
        ):
            if count:
                yield f"{count_text(count, what, separator=',')} missing"
        if repeated := sum(writer.repeated for writer in holes):
            yield f"{count_text(repeated, 'seq')} more than once"
        if open_ones:
            yield f"{count_text(len(open_ones), 'writer')} without an end"
        if self.histories:
            yield "two histories under one node id"
        if self.damaged:
            yield f"{count_text(len(self.damaged), 'damaged file')}"
        if self.bad_lines:
            yield f"{count_text(self.bad_lines, 'bad line')}"
        if self.quarantined:
            yield f"{count_text(len(self.quarantined), 'bundle')} in quarantine"


@dataclass(frozen=True)
class Elsewhere:
    """Parts of a writer that are not in its chunks here, and not missing.

    Attributes:
        writer: its id.
        numbers: runs of chunk numbers.
        seqs: runs of `seq`.
        lost: events that are reported there as lost.
        cause: why, in words.
    """

    writer: str
    numbers: list[list[int]]
    seqs: list[list[int]]
    lost: int = 0
    cause: str = "in chunks that were delivered and deleted here"


def writers_of(
    chunks: Iterable[tuple[ChunkName, Scan]],
    still_open: Mapping[str, str] | None = None,
    elsewhere: Iterable[Elsewhere] = (),
) -> list[WriterAudit]:
    """Determine the completeness of each writer, sorted by id.

    Args:
        chunks: the scan of each chunk's lines.
        still_open: for writers with a chunk that was open when a bundle was made and has not arrived since, that
            bundle.
        elsewhere: what is not here and need not be, of writers that have chunks here.
    """
    by_writer: dict[str, list[tuple[ChunkName, Scan]]] = defaultdict(list)
    told: dict[str, list[list[int]]] = defaultdict(list)
    for name, scan in chunks:
        by_writer[name.writer].append((name, scan))
        for gap in scan.gaps:
            told[gap.writer or name.writer] += gap.seqs
    numbers: dict[str, list[list[int]]] = defaultdict(list)
    lost: Counter[tuple[str, str]] = Counter()
    for other in elsewhere:
        told[other.writer] += other.seqs
        numbers[other.writer] += other.numbers
        lost[other.writer, other.cause] += other.lost
    found = {writer: _writer(writer, of, told[writer], numbers[writer]) for writer, of in by_writer.items()}
    for (writer, cause), count in lost.items():
        if count:
            found.setdefault(writer, WriterAudit(writer)).gaps[cause] = count
    for writer, folder in (still_open or {}).items():
        one = found.setdefault(writer, WriterAudit(writer))
        one.open_in = folder
        if one.state != "holes":
            one.state = "unfinished"
    return sorted(found.values(), key=lambda one: one.writer)


def _writer(
    writer: str, chunks: list[tuple[ChunkName, Scan]], told: list[list[int]], numbers: list[list[int]]
) -> WriterAudit:
    scans = [scan for _, scan in chunks]
    found = WriterAudit(writer, events=sum(scan.logged for scan in scans), chunks=len(chunks))
    seqs = [list(run) for scan in scans for run in scan.seqs]
    lines = runs_of(seqs)
    found.repeated = sum(scan.repeated for scan in scans) + _length(seqs) - _length(lines)
    found.last_seq = lines[-1][1] if lines else None
    found.missing_seqs = _holes(runs_of([*map(list, seqs), *map(list, told)]))
    found.missing_chunks = _holes(runs_of([*numbers, *([name.number, name.number] for name, _ in chunks)]))
    causes: Counter[str] = Counter()
    for gap in (gap for scan in scans for gap in scan.gaps):
        causes[gap.cause] += gap.count
    found.gaps = dict(causes)
    ends = [end for scan in scans for end in scan.ends]
    recovered = [end for end in ends if end["reason"] != "closed"]
    found.torn_bytes = sum(end.get("torn_bytes", 0) for end in recovered)
    found.bad_lines = sum(end.get("bad_lines", 0) for end in recovered)
    if found.missing_seqs or found.missing_chunks or found.repeated:
        found.state = "holes"
    elif recovered:
        found.state = "tail unknown"
    elif not ends:
        found.state = "unfinished"
    return found


def _length(runs: Iterable[list[int]]) -> int:
    return sum(last - first + 1 for first, last in runs)


def _holes(runs: list[list[int]]) -> list[list[int]]:
    """Return the runs between 0 and the last number that are not in `runs`."""
    holes, next_one = [], 0
    for first, last in runs:
        if first > next_one:
            holes.append([next_one, first - 1])
        next_one = last + 1
    return holes


# ------------------------------------------------------------------ in words


def findings(audit: NodeAudit) -> Iterator[str]:
    """Yield the findings about a node, one line each; none for a complete one."""
    for sha256 in audit.missing_bundles:
        after = audit.followers[sha256]
        yield f"a bundle is missing: the one before {after}, whose manifest has sha256 {sha256}"
    if audit.missing_bundles:
        yield "(if it is lost: carry the receipt to the node, prune with it there, and export --since-receipt)"
    for history in audit.histories:
        yield f"two histories under one node id (a cloned machine, or a lost index): {history}"
    if len(audit.machines) > 1:
        named = ", ".join(audit.machines[:5])
        yield (
            f"events of {len(audit.machines)} machines under one node id (fingerprints {named}): "
            "give each an id of its own, unless one has replaced another"
        )
    for chunk in audit.rewritten:
        yield f"rewritten, and accepted as the node's word in place of earlier content: {chunk}"
    for place in audit.quarantined:
        yield f"in quarantine (inspect it, then delete it): {place}"
    for damage in audit.damaged:
        yield f"damaged: {damage}"
    if audit.bad_lines:
        yield f"bad lines, in chunks accepted with them: {audit.bad_lines}"
    for writer in audit.writers:
        for finding in findings_of(writer):
            yield f"writer {writer.writer}: {finding}"
    if audit.foreign_chunks:
        yield f"{count_text(audit.foreign_chunks, 'chunk')} of the first generation: nobody can tell what is missing"
    if audit.same_ids:
        named = ", ".join(repr(one)[:80] for one in audit.same_id[:3])
        yield f"{count_text(audit.same_ids, 'event id')} shared by events with different content, such as {named}"


def findings_of(writer: WriterAudit) -> Iterator[str]:
    """Yield the findings about a writer, one line each."""
    if writer.missing_seqs:
        yield f"holes: seq {runs_text(writer.missing_seqs)} are not here"
    if writer.missing_chunks:
        yield f"holes: chunks {runs_text(writer.missing_chunks)} are not here"
    if writer.repeated:
        yield f"{count_text(writer.repeated, 'seq')} more than once"
    if writer.state == "tail unknown":
        lost = f"; not kept: {writer.torn_bytes} torn bytes, {writer.bad_lines} bad lines" if writer.torn_bytes else ""
        yield f"tail unknown: it was killed; all up to seq {writer.last_seq} is here{lost}"
    if writer.open_in is not None:
        yield f"unfinished: a chunk was open when {writer.open_in} was exported, and has not arrived"
    elif writer.state == "unfinished":
        yield f"unfinished: it still writes, or more is to come; all up to seq {writer.last_seq} is here"
    for cause, count in writer.gaps.items():
        yield f"{count_text(count, 'event')} lost: {cause}"
