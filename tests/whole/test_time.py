"""With clocks set back, jumping or in odd zones, names stay unique and sorted and times stay UTC."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calyx_logging import Node, provision
from calyx_logging.events.event import encode
from calyx_logging.format.chunk import ChunkName
from calyx_logging.outbox.export import export
from calyx_logging.recording.options import WriterOptions
from calyx_logging.recording.writer import ChunkWriter
from conftest import config, events_of, lines_of, python

clocks = st.lists(st.integers(1_000_000_000, 2_000_000_000), min_size=1, max_size=12)


def chunk_names(node: Node) -> list[ChunkName]:
    return sorted(name for name in map(ChunkName.parse, (p.name for p in node.outbox.glob("*.jsonl"))) if name)


@pytest.mark.slow
@given(clocks)
def test_a_writers_names_never_go_back(tmp_path_factory: pytest.TempPathFactory, times: list[int]) -> None:
    """However the clock jumps, chunks' names sort in the order of the chunks."""
    root = tmp_path_factory.mktemp("clock")
    node = provision(root, "test-node").node
    moments = iter([*times, *[times[-1]] * 50])
    writer = ChunkWriter(
        node.outbox, node.id, "c", WriterOptions(10**6, None, "seal", 1.0), clock=lambda: float(next(moments))
    )
    for n in range(len(times)):
        writer.append(encode({"n": n}))
        writer.retire()
        writer.seal_full()
    writer.end()
    writer.leave(synced=True)
    names = chunk_names(node)
    assert [name.number for name in names] == list(range(len(names)))
    assert [line["n"] for line in lines_of(node.outbox) if "n" in line] == list(range(len(times)))


@pytest.mark.slow
@given(clocks)
def test_bundles_names_never_go_back(tmp_path_factory: pytest.TempPathFactory, times: list[int]) -> None:
    """Bundles of one second, or after a clock set back, have unique, sorted names in one chain."""
    root = tmp_path_factory.mktemp("clock")
    node = provision(root, "test-node").node
    writer = ChunkWriter(node.outbox, node.id, "c", WriterOptions(10**6, None, "seal", 1.0))
    made = []
    for n, moment in enumerate(times):
        writer.append(encode({"node_id": "n", "ts_utc": "t", "event_id": "e", "source": "s", "n": n}))
        writer.retire()
        writer.seal_full()
        result = export(node, clock=lambda moment=moment: float(moment))  # type: ignore[misc]
        assert result.bundle is not None
        assert result.manifest is not None
        made.append((result.bundle.name, result.manifest.previous_manifest_sha256, result.manifest_sha256))
    assert [name for name, _, _ in made] == sorted({name for name, _, _ in made})
    assert [previous for _, previous, _ in made[1:]] == [own for _, _, own in made[:-1]]
    writer.end()
    writer.leave(synced=True)


@pytest.mark.parametrize(
    "zone", ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Pacific/Apia", "XYZ+13:45"]
)
def test_the_systems_zone_shows_nowhere(node: Node, zone: str) -> None:
    """ts_utc, chunk names and bundle names are UTC whatever TZ says."""
    before = datetime.now(UTC).replace(microsecond=0)
    done = python(
        """
        import json, logging, logging.config, sys, time
        logging.config.dictConfig(json.loads(sys.argv[1]))
        logging.getLogger("harness").info("a")
        logging.shutdown()
        from calyx_logging import Node
        from calyx_logging.outbox.export import export
        print(export(Node.find(sys.argv[2])).bundle.name)
        """,
        json.dumps(config(node)),
        str(node.root),
        TZ=zone,
    )
    assert done.returncode == 0, done.stderr
    after = datetime.now(UTC)
    (event,) = events_of(node.outbox)
    moments = [
        datetime.fromisoformat(event["ts_utc"]),
        chunk_names(node)[0].when,
        datetime.strptime(done.stdout.strip(), "%Y%m%d_%H%M%S").replace(tzinfo=UTC),
    ]
    assert all(before <= moment <= after for moment in moments)
    assert event["ts_utc"].endswith("+00:00")


def test_the_hour_that_happens_twice(node: Node, configure: Callable[..., logging.Logger]) -> None:
    """Daylight saving ends: local time goes back, ts_utc does not."""
    logger = configure()
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp()  # 02:30 in Berlin, twice
    for second in (0, 3600):
        record = logger.makeRecord("harness", logging.INFO, __file__, 1, "m", (), None)
        record.created = first + second
        logger.handle(record)
    times = [event["ts_utc"] for event in events_of(node.outbox)]
    assert times == ["2026-10-25T00:30:00.000000+00:00", "2026-10-25T01:30:00.000000+00:00"]


def test_ages_do_not_hang_on_the_wall_clock(tmp_path: Path) -> None:
    """A clock set forward by a day rolls no chunk; a day that really passes does."""
    node = provision(tmp_path, "test-node").node
    wall, steady = [1_700_000_000.0], [0.0]
    writer = ChunkWriter(
        node.outbox,
        node.id,
        "c",
        WriterOptions(10**6, 3600.0, "seal", 1.0),
        clock=lambda: wall[0],
        monotonic=lambda: steady[0],
    )
    writer.append(encode({"n": 0}))
    wall[0] += 86_400
    writer.append(encode({"n": 1}))
    assert len(list(node.outbox.glob("*.jsonl"))) == 0
    steady[0] += 86_400
    writer.append(encode({"n": 2}))
    writer.seal_full()
    assert len(list(node.outbox.glob("*.jsonl"))) == 1
    writer.end()
    writer.leave(synced=True)
