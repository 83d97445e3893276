"""Audit an outbox: whether its writers kept everything, as far as it is still here. Only looks, and takes no locks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from calyx_logging.core.locks import writers_with_locks
from calyx_logging.format.chunk import ChunkName
from calyx_logging.format.completeness import Elsewhere, NodeAudit
from calyx_logging.format.loss_note import read_note
from calyx_logging.format.manifest import ChunkEntry
from calyx_logging.format.survey import Survey, audit_surveys, survey_chunks
from calyx_logging.node import Node
from calyx_logging.outbox import export_index
from calyx_logging.outbox.contents import Contents, look

__all__ = ["audit_outbox", "audit_surveyed", "survey_outbox"]


def audit_outbox(node: Node) -> NodeAudit:
    """Audit one node id's outbox; chunks that were delivered and deleted count as far as their manifests tell.

    Raises:
        StorageError: the outbox cannot be read.
    """
    return audit_surveyed(node, survey_outbox(node, look(node.outbox)))


def survey_outbox(node: Node, contents: Contents) -> dict[str, Survey | str]:
    """Survey each chunk, as `survey_chunks` does."""
    names = [*(name.sealed for name in contents.sealed), *contents.foreign, *(name.open for name in contents.open)]
    return survey_chunks(node.outbox, names, node.id)


def audit_surveyed(node: Node, surveys: Mapping[str, Survey | str]) -> NodeAudit:
    """Audit an outbox by the surveys of its chunks."""
    done = list(export_index.manifests_of(node, export_index.load(node).bundles))
    deleted = _deleted(entry for _, manifest in done for entry in manifest.chunks if entry.filename not in surveys)
    audit = audit_surveys(node.id, surveys, [*deleted, *_noted(node, surveys)])
    audit.bundles = len(done)
    return audit


def _noted(node: Node, surveys: Mapping[str, Survey | str]) -> Iterator[Elsewhere]:
    """Yield what writers lost and could not write into a chunk yet."""
    told = [gap for survey in surveys.values() if not isinstance(survey, str) for gap in survey.scan.gaps]
    for writer in writers_with_locks(node.outbox):
        note = read_note(node.outbox, writer)
        for gap, _ in () if note is None else note.untold(told).gaps:
            yield Elsewhere(gap.writer or writer, [], gap.seqs, gap.count, f"{gap.cause} (no gap line of it yet)")


def _deleted(entries: Iterable[ChunkEntry]) -> Iterator[Elsewhere]:
    """Yield the parts of writers that were delivered and deleted here.

    What is missing of `seq` inside of a chunk, or between two that follow each other, was told of in a gap line.
    """
    of_writer: dict[str, dict[int, ChunkEntry]] = defaultdict(dict)
    for entry in entries:
        name = ChunkName.parse(entry.filename)
        if name is not None:
            of_writer[name.writer][name.number] = entry
    for writer, by_number in of_writer.items():
        numbers, seqs, lost = sorted(by_number), [], 0
        for number in numbers:
            entry, before = by_number[number], by_number.get(number - 1)
            if entry.first_seq is None or entry.last_seq is None or entry.events is None:
                continue
            first = entry.first_seq
            if before is not None and before.last_seq is not None:
                first = min(first, before.last_seq + 1)
            seqs.append([first, entry.last_seq])
            lost += max(0, entry.last_seq - first + 1 - entry.events)
        yield Elsewhere(writer, [[number, number] for number in numbers], seqs, lost)
