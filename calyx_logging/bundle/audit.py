"""Audit a bundle by itself: whether its writers kept everything that they put into its chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from calyx_logging.format.chunk import ChunkName
from calyx_logging.format.completeness import Elsewhere, NodeAudit
from calyx_logging.format.manifest import Manifest
from calyx_logging.format.survey import audit_surveys, survey_chunks

__all__ = ["audit_bundle"]


def audit_bundle(folder: Path, names: Iterable[str], node_id: str, manifest: Manifest | None) -> NodeAudit:
    """Audit the chunks of a bundle; what their writers wrote before and after is in other bundles.

    Args:
        folder: the bundle's, or one with chunks and no manifest.
        names: of the chunks.
        node_id: the node.
        manifest: the bundle's; None if it cannot be read.
    """
    names = list(names)
    return audit_surveys(node_id, survey_chunks(folder, names, node_id), _before(names, manifest))


def _before(names: Iterable[str], manifest: Manifest | None) -> Iterator[Elsewhere]:
    """Yield what the same writers wrote before: it is in other bundles."""
    least: dict[str, int] = {}
    for name in filter(None, map(ChunkName.parse, names)):
        least[name.writer] = min(name.number, least.get(name.writer, name.number))
    seqs: dict[str, int] = {}
    for entry in () if manifest is None else manifest.chunks:
        if entry.writer is not None and entry.first_seq is not None:
            seqs[entry.writer] = min(entry.first_seq, seqs.get(entry.writer, entry.first_seq))
    for writer, number in least.items():
        earlier = [[0, seqs[writer] - 1]] if number and seqs.get(writer) else []
        yield Elsewhere(writer, [[0, number - 1]] if number else [], earlier)
