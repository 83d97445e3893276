"""The stream hands on every event of an outbox once, within bounds."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from calyx_logging import Node
from calyx_logging.query.locations import chunks_at
from calyx_logging.view import stream as module
from calyx_logging.view.stream import Batch, Stream
from serving import until


@pytest.fixture
def stream(node: Node) -> Iterator[Stream]:
    warnings: list[str] = []
    found = Stream(chunks_at("outbox", str(node.root)), lambda: None, warnings.append)
    yield found
    found.close()
    assert warnings == []


def messages(batch: Batch) -> list[str]:
    return [json.loads(line)["message"] for line in batch.lines]


def test_events_before_and_after_its_beginning_are_handed_on_once(
    stream: Stream, configure: Callable[..., logging.Logger]
) -> None:
    log = configure()
    for n in range(10):
        log.info("%d", n)
    stream.start()
    until(lambda: stream.next > 10)
    for n in range(10, 2500):
        log.info("%d", n)
    until(lambda: stream.next > 2500)
    place, found = 1, []
    while (batch := stream.after(place)).lines:
        assert (batch.first, batch.missed) == (place, 0)
        assert len(batch.lines) <= 1000
        place = batch.after
        found += messages(batch)
    assert found == [str(n) for n in range(2500)]


def test_chunks_that_are_sealed_meanwhile_are_followed(
    stream: Stream, configure: Callable[..., logging.Logger]
) -> None:
    log = configure(max_bytes=3000)
    stream.start()
    for n in range(400):
        log.info("%d", n)
        if n % 40 == 0:
            until(lambda n=n: stream.next > n)  # so that it looks while chunks are full and sealed
    until(lambda: stream.next > 400)
    found = messages(stream.after(1))
    assert sorted(map(int, found)) == list(range(400)), "each once; of two chunks at a time either may come first"


def test_who_is_slower_than_the_window_is_told_what_was_missed(
    node: Node, stream: Stream, configure: Callable[..., logging.Logger], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_EVENTS", 100)
    log = configure()
    stream.start()
    for n in range(300):
        log.info("%d", n)
    until(lambda: stream.next > 300)
    batch = stream.after(50)
    assert (batch.first, batch.missed, messages(batch)[0], messages(batch)[-1]) == (201, 151, "200", "299")
    assert stream.after(301) == Batch(301, [], 0)


def test_memory_does_not_grow_with_the_events(
    stream: Stream, configure: Callable[..., logging.Logger], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_CHARACTERS", 50_000)
    log = configure()
    stream.start()
    for n in range(200):
        log.info("%d", n, extra={"text": "x" * 10_000})
    until(lambda: stream.next > 200)
    assert sum(map(len, stream._window)) <= 60_000
    assert messages(stream.after(1))[-1] == "199"


def test_a_long_event_is_cut(stream: Stream, configure: Callable[..., logging.Logger]) -> None:
    log = configure()
    stream.start()
    log.info("long", extra={"text": "x" * 400_000})
    until(lambda: stream.next > 1)
    (line,) = stream.after(1).lines
    assert len(line) < 33_000
    assert json.loads(line)["message"] == "long"


def test_readers_and_the_follower_do_not_disturb_each_other(
    stream: Stream, configure: Callable[..., logging.Logger]
) -> None:
    log = configure()
    stream.start()
    found: dict[int, list[str]] = {n: [] for n in range(4)}

    def read(into: list[str]) -> None:
        place = 1
        while len(into) < 2000:
            batch = stream.after(place)
            place = batch.after
            into.extend(messages(batch))

    threads = [threading.Thread(target=read, args=(into,)) for into in found.values()]
    for thread in threads:
        thread.start()
    for n in range(2000):
        log.info("%d", n)
    for thread in threads:
        thread.join(60)
    assert all(into == [str(n) for n in range(2000)] for into in found.values())


def test_an_outbox_that_cannot_be_read_is_said_once_and_tried_again(
    node: Node, configure: Callable[..., logging.Logger]
) -> None:
    warnings: list[str] = []
    refused = [True]
    chunks: Any = chunks_at("outbox", str(node.root))

    def listing() -> Any:
        if refused[0]:
            raise OSError("the disk is gone")
        return chunks()

    stream = Stream(listing, lambda: None, warnings.append)
    stream.start()
    until(lambda: warnings)
    refused[0] = False
    configure().info("there")
    until(lambda: stream.next > 1)
    stream.close()
    assert messages(stream.after(1)) == ["there"]
    assert warnings == ["the disk is gone"]
