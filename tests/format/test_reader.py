"""tail and show read present and new events, without locks and without disturbing a writer."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pytest

from bundles import make_bundle, make_node
from calyx_logging import Node
from calyx_logging.errors import ChunkError
from calyx_logging.format.reader import Filter, Follower, last_events
from calyx_logging.hub.importer import import_bundle
from calyx_logging.hub.store import Store
from calyx_logging.outbox.contents import look
from calyx_logging.outbox.export import export
from conftest import close_logging, config, events_of, telemetry, tree

Configure = Callable[..., logging.Logger]


def paths(node: Node) -> list[Path]:
    contents = look(node.outbox)
    return [node.outbox / name.sealed for name in contents.sealed] + [node.outbox / name.open for name in contents.open]


def numbers(follower: Follower) -> list[int]:
    return [line.event["n"] for line in follower.new() if "n" in line.event]


def test_following_through_rolls_seals_and_new_writers(node: Node, configure: Configure) -> None:
    """A follower yields every event once, in each writer's order, whatever happens to its chunk."""
    logger = configure(max_bytes=1000)
    logger.info("before", extra={"n": -1})
    follower = Follower(lambda: paths(node))
    assert numbers(follower) == []
    seen = []
    for n in range(60):
        logger.info("event", extra={"n": n})
        if n % 7 == 0:
            seen += numbers(follower)
        if n == 30:
            close_logging()
            logger = configure()
    close_logging()
    deadline = time.monotonic() + 30
    while len(seen) < 60 and time.monotonic() < deadline:
        seen += numbers(follower)
    assert sorted(seen) == list(range(60))
    assert numbers(follower) == []


def test_following_a_writer_that_dies(node: Node, configure: Configure) -> None:
    """A follower ignores a partial line, and continues in the chunk that recovery makes."""
    configure().info("event", extra={"n": 0})
    (path,) = node.outbox.glob("*.open")
    dead = node.outbox / path.name.replace("__harness__", "__dead__")
    line = path.read_bytes().splitlines(keepends=True)[0]
    dead.write_bytes(line + line[:20])
    (node.outbox / ".writers" / "x.lock").touch()
    follower = Follower(lambda: [dead if dead.exists() else dead.with_suffix("")])
    assert list(follower.new()) == []
    with dead.open("ab") as stream:
        stream.write(line[20:])
    assert numbers(follower) == [0]
    with dead.open("ab") as stream:
        stream.write(line[:30])
    assert numbers(follower) == []
    dead.with_suffix("").write_bytes(line * 2 + line.replace(b'"n":0', b'"n":7'))
    dead.unlink()
    assert numbers(follower) == [7]


def test_following_a_chunk_that_is_made_anew(node: Node, tmp_path: Path) -> None:
    """A first-generation chunk may be appended to, truncated, replaced and put back; each line comes once."""
    old = node.outbox / "old.jsonl"

    def lines(*names: int) -> str:
        return "".join(
            f'{{"node_id":"n","ts_utc":"2026-11-20T10:00:00+00:00","event_id":"{n}","n":{n}}}\n' for n in names
        )

    old.write_text(lines(1, 2))
    follower = Follower(lambda: [old])
    assert numbers(follower) == []
    with old.open("a") as stream:
        stream.write(lines(3, 3))
    assert numbers(follower) == [3, 3]
    old.write_text(lines(*range(10, 16)))  # truncated, and longer than before
    assert numbers(follower) == list(range(10, 16))
    old.unlink()
    assert numbers(follower) == []
    old.write_text(lines(1, 2, 3, 3, 20)[:-5])  # put back, with one more that is not whole
    assert numbers(follower) == []
    old.write_text(lines(1, 2, 3, 3, 20))
    assert numbers(follower) == [20]
    other = tmp_path / "other"
    other.write_text(lines(1, 2, 3, 3, 20, 21))  # an editor's way
    other.replace(old)
    assert numbers(follower) == [21]
    assert numbers(follower) == []


def test_following_a_chunk_that_can_be_read_later(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first-generation chunk that cannot be read at first is named; then what is appended to it comes, no more."""
    old = node.outbox / "old.jsonl"
    line = '{{"node_id":"n","ts_utc":"2026-11-20T10:00:00+00:00","event_id":"{0}","n":{0}}}\n'
    old.write_text(line.format(1))

    def refuse(path: Path) -> BinaryIO:
        raise ChunkError("cannot be read", path=path)

    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr("calyx_logging.format.reader.open_chunk", refuse)
        follower = Follower(lambda: [old], said.append)
        assert numbers(follower) == []
    assert len(said) == 1
    with old.open("a") as stream:
        stream.write(line.format(2))
    assert numbers(follower) == [2]


def test_the_last_ones(node: Node, configure: Configure) -> None:
    """The last events are found by time over all chunks, with filters; chunks without new events are not read."""
    for part in range(3):
        logger = configure(source=f"s{part}")
        for n in range(3):
            logger.log(
                (logging.DEBUG, logging.WARNING, logging.ERROR)[n],
                "event",
                extra={"n": part * 3 + n, "run_id": f"r{n}"},
            )
        close_logging()

    def found(count: int, **wanted: object) -> list[int]:
        return [line.event["n"] for line in last_events(paths(node), count, Filter(**wanted))]  # type: ignore[arg-type]

    assert found(4) == [5, 6, 7, 8]
    assert found(100) == list(range(9))
    assert found(0) == []
    assert found(9, level="warning") == [1, 2, 4, 5, 7, 8]
    assert found(9, source="s1") == [3, 4, 5]
    assert found(9, run="r2") == [2, 5, 8]
    old = next(path for path in paths(node) if b'"n":0' in path.read_bytes())
    os.utime(old, (1, 1))
    old.write_bytes(b"\xff" * 10)
    os.utime(old, (1, 1))
    assert found(3) == [6, 7, 8]
    assert [line.event["control"] for line in last_events(paths(node), 1, Filter(control=True))] == ["end"]


def test_tail(node: Node, configure: Configure, tmp_path: Path) -> None:
    """tail prints text or JSON from outbox, bundle and hub; control characters are escaped."""
    logger = configure()
    for n in range(20):
        logger.info("event %d \x1b[2J", n, extra={"n": n})
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("failed", extra={"case_id": "c" * 500})
    before = tree(node.root)
    root = ("--root", node.root)
    done = telemetry("tail", *root)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 10
    assert "\\x1b[2J" in lines[0]
    assert "\x1b" not in done.stdout
    assert "exception=ValueError: broken" in lines[-1]
    assert len(lines[-1]) < 500
    assert tree(node.root) == before
    done = telemetry("tail", *root, "--json", "-n", "3", "--level", "error")
    assert json.loads(done.stdout)["message"] == "failed"
    close_logging()
    bundle = export(node).bundle
    assert bundle is not None
    store = Store(tmp_path)
    import_bundle(store, bundle)
    for place in (bundle, "hub"):
        where = ("--root", tmp_path) if place == "hub" else ()
        done = telemetry("tail", "--from", place, *where, "-n", "100", "--json")
        assert [json.loads(line) for line in done.stdout.splitlines()] == events_of(bundle)
    assert telemetry("tail", "--from", tmp_path / "none").returncode == 4
    (tmp_path / "empty").mkdir()
    assert telemetry("tail", "--from", tmp_path / "empty").returncode == 2
    assert telemetry("tail", "--from", "hub", *("--root", tmp_path), "-f").returncode == 2
    assert telemetry("tail", *root, "--level", "loud").returncode == 2


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_tail_follow(node: Node, configure: Configure) -> None:
    """tail --follow prints each new event once; Ctrl-C ends it."""
    import signal

    logger = configure()
    logger.info("before")
    command = [sys.executable, "-u", "-m", "calyx_logging.scripts", "tail", "-f", "--json", "--root", str(node.root)]

    def as_in_a_terminal() -> None:  # a background test run ignores Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=as_in_a_terminal) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["message"] == "before"
            close_logging()
            logger = configure()
            for n in range(5):
                logger.info("event", extra={"n": n})
            assert [json.loads(process.stdout.readline())["n"] for _ in range(5)] == list(range(5))
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_show(tmp_path: Path) -> None:
    """show prints the whole event with its writer's events before and after; exit code 1 if there is none."""
    node = make_node(tmp_path, "n-1")
    logging.config.dictConfig(config(node, max_bytes=600))
    for n in range(9):
        logging.getLogger("harness").info("event", extra={"n": n, "event_id": f"id-{n % 8}", "text": "\x9b" * 3})
    close_logging()
    bundle = export(node).bundle
    assert bundle is not None
    assert len(list(bundle.glob("*.jsonl"))) > 2
    for place in ("outbox", bundle):
        where = ("--from", place, "--root", node.root)
        done = telemetry("show", "id-4", *where, "--json", "--before", "2", "--after", "1")
        (one,) = json.loads(done.stdout)
        assert one["event"]["n"] == 4
        assert [event["n"] for event in one["around"]] == [2, 3, 4, 5]
        assert json.loads(Path(one["chunk"]).read_bytes().splitlines()[one["line"] - 1]) == one["event"]
        assert [one["event"]["n"] for one in json.loads(telemetry("show", "id-0", *where, "--json").stdout)] == [0, 8]
        done = telemetry("show", "id-4", *where)
        assert json.loads(done.stdout.partition("\n")[2])["n"] == 4
        assert "\x9b" not in done.stdout
        done = telemetry("show", "id-44", *where)
        assert (done.returncode, "there is no event id-44" in done.stderr) == (1, True)


def test_bundles_of_several_nodes(tmp_path: Path) -> None:
    """At the hub, tail shows the last events of all nodes."""
    store = Store(tmp_path)
    for name in ("n-1", "n-2"):
        import_bundle(store, make_bundle(make_node(tmp_path, name), range(3)))
    done = telemetry("tail", "--from", "hub", "--root", tmp_path, "--json", "-n", "6")
    assert sorted(json.loads(line)["node_id"] for line in done.stdout.splitlines()) == ["n-1"] * 3 + ["n-2"] * 3


def test_tail_selects_and_says_its_zone(node: Node, configure: Configure) -> None:
    """Events are selected by time, logger, case and text; show takes the short id that is printed."""
    log = configure()
    log.info("early", extra={"case_id": "a"})
    time.sleep(0.01)
    between = datetime.now(UTC).isoformat()
    logging.getLogger("harness.one.sub").info("late", extra={"case_id": 7, "note": "a needle here"})
    logging.getLogger("harness.one_two").info("other")
    root = ("--root", node.root)

    def said(*args: str) -> list[str]:
        done = telemetry("tail", *root, "--json", *args)
        assert done.returncode == 0, done.stderr
        return [json.loads(line)["message"] for line in done.stdout.splitlines()]

    assert said() == ["early", "late", "other"]
    assert said("--since", between) == ["late", "other"]
    assert said("--since", "1h") == ["early", "late", "other"]
    assert said("--since", "0s") == []
    assert said("--since", "1h", "-n", "1") == ["other"]
    assert said("--logger", "harness.one") == ["late"]
    assert said("--case", "7") == ["late"]
    assert said("--case", "a") == ["early"]
    assert said("--grep", "need.e") == ["late"]
    assert said("--grep", "^other$") == ["other"]
    assert said("--node", node.id) == ["early", "late", "other"]
    assert said("--node", "n-9") == []
    for bad in (("--since", "soon"), ("--since", "10"), ("--grep", "("), ("--since", "9999-12-31T23:59+00:00x")):
        assert telemetry("tail", *root, *bad).returncode == 2
    (line,) = telemetry("tail", *root, "-n", "1", "--utc").stdout.splitlines()
    day, clock, short_id, *_ = line.split()
    (event,) = (json.loads(text) for text in telemetry("tail", *root, "-n", "1", "--json").stdout.splitlines())
    assert f"{day} {clock}" == f"{event['ts_utc'][:10]} {event['ts_utc'][11:23]}Z"
    assert event["event_id"].endswith(short_id)
    shown = json.loads(telemetry("show", *root, "--json", short_id).stdout)
    assert [one["event"] for one in shown] == [event]
    assert telemetry("show", *root, short_id[1:]).returncode == 1


@pytest.mark.skipif(sys.platform == "win32", reason="TZ is not heard there")
def test_tail_prints_local_times(node: Node, configure: Configure) -> None:
    log = configure()
    log.info("now")
    (event,) = (json.loads(text) for text in telemetry("tail", "--root", node.root, "--json").stdout.splitlines())
    command = [sys.executable, "-m", "calyx_logging.scripts", "tail", "--root", str(node.root)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TZ": "XXX-05:30"}, check=True)
    text = done.stdout[:29]
    assert text.endswith("+05:30")
    assert datetime.fromisoformat(text) == datetime.fromisoformat(f"{event['ts_utc'][:23]}+00:00")
