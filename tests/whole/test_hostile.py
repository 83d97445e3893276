"""Extreme records, objects, files and moments, each of which once exposed a fault."""

from __future__ import annotations

import copy
import enum
import json
import logging
import logging.config
import os
import pathlib
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calyx_logging import EventFormatter, Node, StampEvent
from calyx_logging.bundle.folder import verify
from calyx_logging.events.event import RESERVED
from calyx_logging.outbox.export import export
from conftest import close_logging, config, controls_of, events_of, lines_of, python, telemetry
from outboxes import foreign, index, log_events

Configure = Callable[..., logging.Logger]
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX only")


def record(**attributes: Any) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "harness", "msg": "m", "levelno": 20, **attributes})


class Broken:
    """Replaces a formatter."""

    def encode(self, record: logging.LogRecord) -> bytes:
        raise RuntimeError("broken")


class Liar:
    """An object whose `__class__` and other attributes raise."""

    @property
    def __class__(self) -> type:  # type: ignore[override]
        raise RuntimeError("no class")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class BadDict(dict[str, Any]):
    def __iter__(self) -> Any:
        raise RuntimeError("no items")

    keys = items = __iter__  # type: ignore[assignment]


class BadZone(tzinfo):
    def utcoffset(self, _: Any) -> Any:
        raise RuntimeError("no offset")


class BadError(Exception):
    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


class BadNotes(Exception):
    __notes__ = 5  # type: ignore[assignment]


class Name(enum.Enum):
    SEQ = "seq"
    SHADOWED = "shadowed"


@pytest.mark.parametrize(
    "attributes",
    [
        {"msg": Liar()},
        {"msg": BadDict(event="x")},
        {"msg": {Liar(): 1, "event": "x"}},
        {"ts_utc": Liar()},
        {"ts_utc": datetime(2026, 1, 1, tzinfo=BadZone())},
        {"event_id": Liar()},
        {"x": Liar()},
        {"exc_info": Liar()},
        {"exc_info": (ValueError, Liar(), None)},
        {"exc_text": Liar()},
        {"stack_info": Liar()},
        {"exc_info": (BadError, BadError("a"), None)},
        {"exc_info": (BadNotes, BadNotes("a"), None)},
        {"name": Liar()},
        {"levelno": Liar()},
        {"levelno": [], "levelname": Liar()},
        {"created": Liar()},
        {"args": Liar()},
        *({"_calyx": value} for value in (5, None, "x", [], (), {}, {"a": 1}, object())),
    ],
)
def test_any_record_yields_a_line(node: Node, configure: Configure, attributes: dict[str, Any]) -> None:
    """Any record gives a line, without an exception or a loss."""
    logger = configure()
    logger.handlers[0].handle(record(**attributes))
    logger.info("next")
    close_logging()
    assert [control["control"] for control in controls_of(node.outbox)] == ["end"]
    events = events_of(node.outbox)
    assert len(events) == 2
    assert events[1]["message"] == "next"


def test_a_callers_field_of_the_marks_name_is_kept(node: Node, configure: Configure) -> None:
    """A caller's value in the record's attribute `_calyx` becomes a field of the event."""
    configure().info("m", extra={"_calyx": {"mine": 1}})
    assert events_of(node.outbox)[0]["_calyx"] == {"mine": 1}


def test_keys_that_become_reserved_names_do_not_get_their_place(node: Node, configure: Configure) -> None:
    """An Enum or Path key whose text is `seq` neither duplicates a key nor loses a value."""
    configure().info({"message": "m", Name.SEQ: "mine", Name.SHADOWED: 5, pathlib.PurePosixPath("node_id"): "evil"})
    (line,) = (path.read_bytes() for path in node.outbox.glob("*.open"))
    pairs: list[str] = []
    json.loads(line, object_pairs_hook=lambda items: pairs.extend(key for key, _ in items))
    assert len(pairs) == len(set(pairs))
    (event,) = events_of(node.outbox)
    assert (event["seq"], event["seq (2)"], event["shadowed (2)"], event["node_id (2)"]) == (0, "mine", 5, "evil")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="an attribute of every record from 3.12 on")
def test_task_name_is_a_field_where_logging_has_no_such_attribute(node: Node, configure: Configure) -> None:
    """Only attributes that this Python's records always have are excluded from the fields."""
    configure().info("m", extra={"taskName": "warmup"})
    assert events_of(node.outbox)[0]["taskName"] == "warmup"


def test_items_of_structlogs_private_names(node: Node, configure: Configure) -> None:
    """In a dict message, `_logger` and `_name` are the caller's fields."""
    configure().info({"message": "m", "_logger": 1, "_name": 2})
    assert (events_of(node.outbox)[0]["_logger"], events_of(node.outbox)[0]["_name"]) == (1, 2)


def test_copies_of_a_handled_record_are_records(node: Node, configure: Configure) -> None:
    """A copy of a handled record with other content is an event of its own."""
    logger = configure()
    first = record(msg="first")
    logger.handle(first)
    second = copy.copy(first)
    second.msg = "second"
    logger.handle(second)
    logger.handle(logging.makeLogRecord({**first.__dict__, "msg": "third"}))
    for again in (first, second):
        logger.handle(again)
    events = events_of(node.outbox)
    assert [event["message"] for event in events] == ["first", "second", "third"]
    assert len({event["event_id"] for event in events}) == 3


def test_groups_raised_again_and_again_stay_small(node: Node, configure: Configure) -> None:
    """A retry loop that raises groups in each other's context does not grow exponentially."""
    logger = configure()

    def attempt(n: int) -> None:
        if n == 0:
            raise ValueError("first")
        try:
            attempt(n - 1)
        except Exception:
            parts: list[Exception] = []
            for _ in range(2):
                try:
                    raise TypeError(f"check {n}")
                except TypeError as error:
                    parts.append(error)
            raise ExceptionGroup(f"attempt {n}", parts)  # noqa: B904

    try:
        attempt(25)
    except ExceptionGroup:
        logger.exception("gave up")
    text = json.dumps(events_of(node.outbox)[0]["exception"])
    assert 0 < text.count('"type"') <= 100


def test_a_processor_that_logs_for_every_event_ends(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    """Nested calls are followed 8 deep, the rest is counted, and the outer call returns."""
    settings = config(node)
    settings["formatters"]["event"]["processors"] = [
        lambda *args: logging.getLogger("harness").info("again") or args[2]
    ]
    logging.config.dictConfig(settings)
    logging.getLogger("harness").info("outer")
    close_logging()
    assert [event["message"] for event in events_of(node.outbox)] == ["again"] * 7 + ["outer"]
    gap = next(line for line in controls_of(node.outbox) if line["control"] == "gap")
    assert (gap["control"], gap["count"]) == ("gap", 1)
    assert "cannot keep an event" in capfd.readouterr().err


@pytest.mark.slow
@posix
def test_a_signal_handler_that_logs_and_ends_the_process(node: Node) -> None:
    """The handler's event is kept wherever it interrupts a logging call."""
    code = """
    import json, logging, logging.config, os, signal, sys
    logging.config.dictConfig(json.loads(sys.argv[1]))
    log = logging.getLogger("harness")
    def stop(*_):
        log.critical("terminating")
        os._exit(1)
    signal.signal(signal.SIGALRM, stop)
    for delay in (float(sys.argv[2]),):
        signal.setitimer(signal.ITIMER_REAL, delay)
    while True:
        log.info("work")
    """
    for n in range(12):
        python(code, json.dumps(config(node, max_bytes=3000)), str(0.02 + n * 0.00037))
    export(node)
    messages = [event["message"] for event in events_of(node.outbox)]
    assert messages.count("terminating") == 12


@pytest.mark.usefixtures("in_python")
def test_a_lost_event_is_told_of_at_once_when_writing_works(node: Node, configure: Configure) -> None:
    """The gap line is written as soon as writing works, without waiting for the next event."""
    logger = configure()
    logger.info("one")
    handler: Any = logger.handlers[0]
    formatter, handler._event_formatter = handler._event_formatter, Broken()
    logger.info("lost")
    handler._event_formatter = formatter
    (gap,) = controls_of(node.outbox)
    assert (gap["count"], gap["seqs"], gap["seq"]) == (1, [[1, 1]], 2)


@posix
def test_a_file_size_limit_only_means_another_chunk(node: Node) -> None:
    """EFBIG concerns one file, so the writer continues in another chunk."""
    code = """
    import json, logging, logging.config, resource, signal, sys
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    logging.config.dictConfig(json.loads(sys.argv[1]))
    for n in range(1000):
        logging.getLogger("harness").info("event", extra={"n": n, "pad": "x" * 100})
    """
    done = python(code, json.dumps(config(node)))
    assert done.returncode == 0
    export(node)
    assert [event["n"] for event in events_of(node.outbox)] == list(range(1000))


@posix
@pytest.mark.usefixtures("in_python")
def test_standard_error_that_nobody_reads_holds_up_nobody(node: Node) -> None:
    """Calls return although losses are to be reported on a full pipe."""
    code = """
    import json, logging, logging.config, os, sys, time
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True: os.write(writer, b"x" * 4096)
    except BlockingIOError: pass
    os.set_blocking(writer, True)
    sys.stderr = open(writer, "w")
    logging.config.dictConfig(json.loads(sys.argv[1]))
    log = logging.getLogger("harness")
    handler = log.handlers[0]
    for n in range(300):
        good, handler._event_formatter = handler._event_formatter, type("B", (), dict(encode=None))()
        log.info("lost")
        handler._event_formatter = good
        log.info("kept")
    os.dup2(1, writer)
    print("done")
    """
    done = python(code, json.dumps(config(node)))
    assert done.stdout.endswith("done\n"), done.stderr
    export(node)
    assert sum(control.get("count", 0) for control in controls_of(node.outbox)) == 300


@pytest.mark.parametrize("stream", ["None", "Closed()", "Reentrant()"])
@pytest.mark.usefixtures("in_python")
def test_an_odd_standard_error_raises_nothing(node: Node, stream: str) -> None:
    """A missing stderr, as in pythonw, or one that raises does no harm."""
    code = f"""
    import io, json, logging, logging.config, sys
    class Reentrant:
        def write(self, text): raise RuntimeError("reentrant call")
        def fileno(self): raise RuntimeError("reentrant call")
    def Closed():
        stream = io.StringIO()
        stream.close()
        return stream
    logging.config.dictConfig(json.loads(sys.argv[1]))
    log = logging.getLogger("harness")
    good = log.handlers[0]._event_formatter
    sys.stderr = {stream}
    log.handlers[0]._event_formatter = type("Broken", (), dict(encode=None))()
    log.info("lost")
    log.handlers[0]._event_formatter = good
    log.info("kept")
    logging.shutdown()
    sys.stderr = sys.__stderr__
    """
    done = python(code, json.dumps(config(node)))
    assert done.returncode == 0
    assert [event["message"] for event in events_of(node.outbox)] == ["kept"]
    assert sum(line.get("count", 0) for line in controls_of(node.outbox)) == 1


@posix
def test_control_c_while_a_chunk_is_opened_or_sealed(node: Node) -> None:
    """After Ctrl-C at any moment the writer continues in the next call, and no chunk is forgotten."""
    code = """
    import json, logging, logging.config, os, signal, sys
    logging.config.dictConfig(json.loads(sys.argv[1]))
    log = logging.getLogger("harness")
    handler = log.handlers[0]
    def interrupt(*_): raise KeyboardInterrupt
    signal.signal(signal.SIGALRM, interrupt)
    for n in range(300):
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.00005 * (n % 60 + 1))
            log.info("a")
            handler.seal()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        log.info("event", extra={"n": n})
    """
    done = python(code, json.dumps(config(node)))
    assert done.returncode == 0, done.stderr
    assert "lost" not in done.stderr
    export(node)
    assert sorted(event["n"] for event in events_of(node.outbox) if "n" in event) == list(range(300))


@pytest.mark.slow
@posix
def test_a_living_writers_lock_is_never_deleted(node: Node) -> None:
    """Writers that start during recovery keep their locks, and nothing is orphaned."""
    code = """
    import json, logging, logging.config, os, sys, time
    import calyx_logging.handlers.outbox
    settings = json.loads(sys.argv[1])
    for n in range(60):
        pid = os.fork()
        if pid == 0:
            logging.config.dictConfig(settings)
            logging.getLogger("harness").info("event", extra={"n": n})
            os._exit(0)
        os.waitpid(pid, 0)
    """
    import threading

    thread = threading.Thread(target=python, args=(code, json.dumps(config(node))))
    thread.start()
    while thread.is_alive():
        assert export(node).recovery.orphaned == []
    thread.join()
    result = export(node)
    assert result.recovery.orphaned == []
    numbers = [e["n"] for bundle in node.exports.iterdir() if bundle.name[0] != "." for e in events_of(bundle)]
    assert sorted(numbers) == list(range(60))


@posix
def test_foreign_names_that_no_bundle_can_hold(node: Node, configure: Configure) -> None:
    """Two spellings of one name, or a line separator, stay with a warning, and the bundle verifies."""
    log_events(configure, 1)
    good = foreign(node, '{"n":1}')
    for name in ("A.jsonl", "a.jsonl", "b\u2028c.jsonl"):
        (node.outbox / name).write_bytes(good.read_bytes())
        os.utime(node.outbox / name, (1, 1))
    result = export(node)
    assert result.bundle is not None
    verify(result.bundle)
    assert sum("plain file name" in warning for warning in result.warnings) == 2


@posix
def test_a_name_that_is_no_text(node: Node) -> None:
    """A name that is not text is reported, also in JSON."""
    os.close(os.open(os.fsencode(node.outbox) + b"/b\xff.jsonl", os.O_WRONLY | os.O_CREAT))
    for command in ("export", "status"):
        done = telemetry(command, "--root", node.root, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)


def test_a_bundle_from_the_end_of_time(node: Node, configure: Configure) -> None:
    """An index that names 99991231_235959 does not stop the export."""
    log_events(configure, 1)
    path = node.outbox / ".exported_index.json"
    bundle = {"timestamp": "99991231_235959", "manifest_sha256": "0" * 64}
    path.write_text(json.dumps({"exported": [], "bundles": [bundle]}))
    assert export(node).bundle is not None
    assert len(index(node)["bundles"]) == 2


@posix
@pytest.mark.parametrize(
    "place", [".manifests/20200101_000000.json", ".exported_index.json", "../../../runtime/node_id.txt"]
)
def test_a_pipe_in_place_of_a_file_is_waited_for_by_nobody(node: Node, configure: Configure, place: str) -> None:
    """A pipe in place of a file gives an error or a warning at once."""
    log_events(configure, 1)
    path = node.outbox / place
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    began = time.monotonic()
    done = telemetry("export", "--root", node.root)
    assert time.monotonic() - began < 60
    assert "regular file" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_node_id_can_be_replaced_as_the_error_says(node: Node) -> None:
    """--force replaces a damaged node id, as the error says."""
    (node.root / "runtime" / "node_id.txt").write_bytes(b"\xff\x00\x01")
    done = telemetry("provision", "n1", "--root", node.root)
    assert (done.returncode, "--force" in done.stderr) == (2, True)
    assert telemetry("provision", "n1", "--root", node.root, "--force").returncode == 0


def test_strays_among_the_locks_and_in_staging(node: Node, configure: Configure) -> None:
    """A folder with a lock's name, or a file named .staging, does not stop an export."""
    log_events(configure, 1)
    (node.outbox / ".writers" / "0123abcd.lock").mkdir(parents=True)
    node.exports.mkdir(parents=True)
    (node.exports / ".staging").write_text("x")
    assert export(node).bundle is not None


weird = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=[]))
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.builds(Liar)
    | st.builds(object),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.slow
@given(
    message=weird | st.sampled_from(["%s", "%d %d", "%(x)s", "100%"]),
    args=st.just(()) | st.lists(weird, max_size=3).map(tuple),
    extra=st.dictionaries(st.text() | st.sampled_from(sorted(RESERVED)), weird, max_size=4),
)
@settings(max_examples=300, suppress_health_check=list(HealthCheck))
def test_any_message_arguments_and_fields_give_one_valid_line(message: Any, args: Any, extra: dict[str, Any]) -> None:
    """Any input from a harness gives one line of valid JSON with the node's own fields."""
    formatter = EventFormatter().bound_to(StampEvent("node-1", "src"))
    made = record(msg=message, args=args, created=1.0)
    for name, value in extra.items():
        made.__dict__.setdefault(name, value)
    line = formatter.encode(made)
    assert line is not None
    assert b"\n" not in line
    event = json.loads(line.decode())
    assert (event["node_id"], event["source"], event["level"]) == ("node-1", "src", "info")
    assert isinstance(event["message"], str)
    assert isinstance(event.get("degraded", []), list)
    assert isinstance(event.get("shadowed", {}), dict)


def test_deep_recursion_is_the_callers_own(node: Node, configure: Configure) -> None:
    """After a stack overflow while logging, completed calls are kept or counted and logging continues."""
    logger = configure()
    returned = []

    def dive(n: int) -> None:
        logger.info("depth", extra={"n": n})
        returned.append(n)
        dive(n + 1)

    with pytest.raises(RecursionError):
        dive(0)
    logger.info("after", extra={"n": -1})
    close_logging()
    kept = {event["n"] for event in events_of(node.outbox)}
    counted = sum(control.get("count", 0) for control in controls_of(node.outbox))
    assert len(set(returned) - kept) <= counted
    assert -1 in kept
    assert len(lines_of(node.outbox)) > 50


def vanish(node: Node) -> None:
    for path in node.outbox.glob("*.open"):
        path.unlink()


@posix
def test_a_chunk_that_is_truncated_takes_no_gap_line_with_it(node: Node, configure: Configure) -> None:
    """Gap lines lost by truncation are written again, so that every event is kept or counted once."""
    logger = configure()
    handler: Any = logger.handlers[0]
    for _ in range(2):
        handler._pool.submit(lambda _: 1 / 0, None)
        logger.info("gone")
        logger.info("gone")
        (path,) = node.outbox.glob("*.open")
        os.truncate(path, 0)
        handler.seal()
    logger.info("kept")
    close_logging()
    assert [event["message"] for event in events_of(node.outbox)] == ["kept"]
    lost = {seq for line in controls_of(node.outbox) for a, b in line.get("seqs", ()) for seq in range(a, b + 1)}
    kept = [line["seq"] for line in lines_of(node.outbox)]
    assert sorted([*kept, *lost]) == list(range(len(kept) + len(lost)))
    assert len(lost) >= 6  # and the gap lines that were cut off


@posix
def test_a_chunk_that_vanishes_before_a_roll(node: Node, configure: Configure) -> None:
    """A vanished chunk is rewritten from the descriptor that the writer still has."""
    logger = configure(max_bytes=400)
    logger.info("gone", extra={"pad": "x" * 200})
    vanish(node)
    for message in ("a", "b"):
        logger.info(message, extra={"pad": "x" * 200})
    close_logging()
    assert [event["message"] for event in events_of(node.outbox)] == ["gone", "a", "b"]
    assert [line["control"] for line in controls_of(node.outbox)] == ["end"]


def test_standard_error_that_leads_back_into_logging(
    node: Node, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a StreamToLogger as standard error, our messages become events, and no lock is held meanwhile."""
    logger = configure()
    handler: Any = logger.handlers[0]

    class ToLogger:
        def write(self, text: str) -> None:
            assert not handler._pool._care._is_owned()
            if text.strip():
                logger.warning(text.strip())

        def flush(self) -> None:
            pass

    monkeypatch.setattr(sys, "stderr", ToLogger())
    good, handler._event_formatter = handler._event_formatter, Broken()
    handler._pool.submit(lambda _: 1 / 0, None)
    handler._event_formatter = good
    logger.info("kept")
    close_logging()
    messages = [event["message"] for event in events_of(node.outbox)]
    assert "kept" in messages
    counted = sum(line.get("count", 0) for line in controls_of(node.outbox))
    assert any("cannot keep an event" in text for text in messages) or counted >= 1


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of address space")
@pytest.mark.parametrize("megabytes", [60, 200, 400])
@pytest.mark.parametrize("field", ["text", "nested", "message"])
def test_a_large_text_under_a_memory_limit(node: Node, megabytes: int, field: str) -> None:
    """If memory is short the event is counted and the process lives; the encoder itself would end it."""
    done = python(
        """
        import json, logging, logging.config, resource, sys
        settings, megabytes, field = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
        logging.config.dictConfig(settings)
        log = logging.getLogger("harness")
        log.info("before")
        text = "x" * (50 * 2**20)
        with open("/proc/self/statm") as stream:
            size = int(stream.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + megabytes * 2**20,) * 2)
        if field == "message":
            log.info(text)
        else:
            log.info("large", extra={"field": text if field == "text" else {"inside": text, "n": 1}})
        log.info("after")
        logging.shutdown()
        """,
        json.dumps(config(node)),
        str(megabytes),
        field,
    )
    assert done.returncode == 0, done.stderr
    messages = [event["message"][:10] for event in events_of(node.outbox)]
    lost = sum(line.get("count", 0) for line in controls_of(node.outbox))
    assert {"before", "after"} <= set(messages)
    assert len(messages) + lost == 3
