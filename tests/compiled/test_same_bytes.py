"""The compiled core and the Python code: the same bytes, whatever is logged."""

from __future__ import annotations

import datetime
import enum
import logging
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import example, given, settings
from hypothesis import strategies as st

from calyx_logging import OutboxHandler, configure_structlog, provision
from calyx_logging.compiled import CORE
from calyx_logging.events.context import PROCESS_FIELDS, Block
from calyx_logging.events.event import RESERVED
from calyx_logging.events.fast_logger import FastLogger
from faults.disk import python_way

pytestmark = pytest.mark.skipif(CORE is None, reason="no compiled core is installed")


class _Text(str):
    __slots__ = ()


class _Int(int):
    pass


class _Float(float):
    pass


class _Colour(enum.IntEnum):
    RED = 1


class _Liar:
    lies = False  # else Hypothesis could not tell of it

    def __repr__(self) -> str:
        if _Liar.lies:
            raise RuntimeError("no repr")
        return "Liar()"

    __str__ = __repr__


TEXTS = (
    st.text(st.characters()) | st.text('a"\\/\x00\x1f\x7f\n\té€\ud800\U0001f600', max_size=40) | st.text(min_size=200)
)
EDGES = (0, 1, -1, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64, 10**30)
INTS = st.sampled_from(EDGES) | st.integers()
FLOATS = (
    st.floats()
    | st.sampled_from(
        (0.0, -0.0, 0.1, 1e-3, 9.999e-4, 1e-4, 1e-5, 1e-7, 1e15, 1e16, 1e17, 1e22, 5e-324, 1e9, 123456789.123456)
    )
    | st.decimals(-(10**6), 10**6, places=3, allow_nan=False, allow_infinity=False).map(float)
    | st.integers(-(10**9), 10**9).map(lambda n: n / 128)
)
ODD = st.sampled_from(
    (_Text("sub"), _Int(3), _Float(1.5), _Colour.RED, b"bytes", {1, 2}, object, _Liar(), datetime.date(2026, 1, 2), 1j)
)
PLAIN = st.none() | st.booleans() | INTS | FLOATS | TEXTS
VALUES = st.recursive(
    PLAIN | ODD,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(TEXTS | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)
NAMES = TEXTS | st.sampled_from(
    [*sorted(RESERVED), "_record", "_calyx", "asctime", "model", "taskName", "event", "exc_info"]
)
FIELDS = st.dictionaries(NAMES, VALUES, max_size=6)
MESSAGES = TEXTS | st.sampled_from(
    ("%s and %d", "%(a)s", "100 %", "%", "%%", "%5.1f", "%r", "%c", {"event": "x"}, None, 7, _Text("t"))
)
ARGS = (
    st.lists(PLAIN | ODD, max_size=3).map(tuple) | st.dictionaries(TEXTS | st.just("a"), PLAIN, max_size=2) | st.none()
)
LEVELS = st.sampled_from((10, 20, 30, 40, 50, 15, 0, 5, -1, True, _Colour.RED, 10**30))
TIMES = (
    st.floats(0, 4e9)
    | st.floats()
    | st.sampled_from((0.0, 0.9999999, 1.5, 1e9 + 0.9999996, 253402300799.5, -1.0, 1782000000.000001))
    | st.integers(0, 2**31)
)
CONTEXT = st.just({}) | st.dictionaries(
    st.text("abc", min_size=1) | st.sampled_from(sorted(RESERVED)), VALUES, max_size=3
)


class Pair:
    """Two handlers for one record, the one compiled and the other not; `lines` returns what both have written last."""

    def __init__(self, folder: Path) -> None:
        self.handlers = []
        for name in ("compiled", "python"):
            (folder / name).mkdir()
            provision(folder / name, "test-node")
            self.handlers.append(OutboxHandler(root=folder / name, identity=False, max_bytes=2**40))
        self.compiled, self.python = self.handlers
        self.python._way = None
        for handler in self.handlers:
            handler._stamp._clock = lambda: 1.5  # for records whose time cannot be said
        self.read = [0, 0]
        self.taken_by_python = 0
        submit = self.compiled._pool.submit

        def count(*args: Any) -> Any:
            self.taken_by_python += 1
            return submit(*args)

        self.handle(record_of())  # begins their writers, which Python does
        self.compiled._pool.submit = count  # type: ignore[method-assign]
        self.compiled._choose_way()

    def handle(self, record: logging.LogRecord) -> tuple[bytes, bytes]:
        """Have both take it, the compiled one first, whose mark the other one has to find."""
        _Liar.lies = True
        self.compiled.handle(record)
        self.python.handle(record)
        _Liar.lies = False
        return self.lines()

    def lines(self) -> tuple[bytes, bytes]:
        found = []
        for n, handler in enumerate(self.handlers):
            (writer,) = handler._pool.writers
            chunk = writer.state[0]
            assert chunk is not None
            found.append(chunk.read(self.read[n]))
            self.read[n] += len(found[-1])
        return found[0], found[1]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two handlers that stay for a module's examples, with no context bound."""
    made = Pair(tmp_path_factory.mktemp("pair"))
    yield made
    _Liar.lies = False
    for handler in made.handlers:
        handler.close()


def record_of(**attributes: Any) -> logging.LogRecord:
    record = logging.LogRecord("harness", logging.INFO, __file__, 1, "m", (), None)
    record.__dict__.update(attributes)
    return record


def blank(line: bytes) -> bytes:
    """A line without what differs between two calls: time and id."""
    head, time, rest = line.partition(b'"ts_utc":"')
    return head + time + rest[rest.index(b'","source"') :]


@settings(max_examples=1500)
@given(MESSAGES, ARGS, LEVELS, TIMES, FIELDS, CONTEXT, st.sampled_from((None, None, None, "a text")))
def test_records(
    pair: Pair,
    message: Any,
    args: Any,
    level: Any,
    created: Any,
    fields: dict[str, Any],
    context: dict[str, Any],
    odd: Any,
) -> None:
    """Records of any kind, with any field, in any context, give the same bytes both ways."""
    record = record_of(**{**fields, "msg": message, "args": args, "levelno": level, "created": created})
    record.exc_text = odd
    with structlog.contextvars.bound_contextvars(**context):
        compiled, python = pair.handle(record)
    assert compiled == python


@settings(max_examples=400)
@given(TEXTS, st.dictionaries(st.text(min_size=1).map("x".__add__), PLAIN, max_size=8))
def test_plain_records_do_take_the_short_way(pair: Pair, message: str, fields: dict[str, Any]) -> None:
    """Else the tests here would compare Python with Python."""
    before = pair.taken_by_python
    compiled, python = pair.handle(record_of(**fields, msg=message))
    assert compiled == python
    is_plain = all(
        not (isinstance(value, int) and not -(2**63) <= value < 2**64)
        and not (isinstance(value, float) and not math.isfinite(value))
        and not (isinstance(value, str) and any(0xD800 <= ord(letter) < 0xE000 for letter in value))
        for value in (message, *fields, *fields.values())
    )
    assert pair.taken_by_python == before + (not is_plain)


@settings(max_examples=3000)
@given(st.lists(FLOATS | INTS, min_size=20, max_size=20))
def test_numbers(pair: Pair, numbers: list[Any]) -> None:
    """Numbers are written as orjson writes them."""
    compiled, python = pair.handle(record_of(numbers=numbers))
    assert compiled == python


@settings(max_examples=300)
@given(st.sampled_from(("debug", "info", "warning", "error", "critical")), MESSAGES, ARGS, FIELDS, CONTEXT)
@example("info", "%s", ({},), {}, {})
@example("info", "%(a)s", ({"a": 1},), {}, {})
def test_the_fast_loggers_calls(
    pair: Pair, method: str, message: Any, args: Any, fields: dict[str, Any], context: dict[str, Any]
) -> None:
    """A call that makes no record writes the line that the record would give, or raises as it would."""
    args = args if isinstance(args, tuple) else (args,)
    came = []
    for handler in pair.handlers:
        logger = FastLogger("fast")
        logger.manager = logging.root.manager  # type: ignore[attr-defined]
        logger.handlers = [handler]
        with structlog.contextvars.bound_contextvars(**context):
            try:
                getattr(logger, method)(message, *args, extra=fields)
                came.append(None)
            except KeyError as error:
                came.append(str(error))
    assert came[0] == came[1]
    compiled, python = pair.lines()
    assert came[0] or blank(compiled) == blank(python)


@settings(max_examples=300)
@given(st.sampled_from(("debug", "info", "warning", "error", "critical")), MESSAGES, FIELDS, FIELDS, CONTEXT)
def test_structlog_straight(
    pair: Pair, method: str, message: Any, bound: dict[str, Any], fields: dict[str, Any], context: dict[str, Any]
) -> None:
    """The events of structlog loggers, with what is bound to them."""
    bound = {name: value for name, value in bound.items() if name not in ("self", "event")}
    fields = {name: value for name, value in fields.items() if name not in ("self", "event")}
    for handler in pair.handlers:
        configure_structlog(handler, level="DEBUG")
        logger = structlog.get_logger("straight").bind(**bound)
        with structlog.contextvars.bound_contextvars(**context):
            getattr(logger, method)(message, **fields)
    structlog.reset_defaults()
    compiled, python = pair.lines()
    assert blank(compiled) == blank(python)


def test_fields_of_the_processs_run(pair: Pair) -> None:
    """They take the short way, and a block's values end with it."""
    before = pair.taken_by_python
    block = Block()
    PROCESS_FIELDS.update(run_id="r", case="of the process")
    try:
        for _ in range(2):
            with structlog.contextvars.bound_contextvars(
                case_id=block.value("c-1", None), case=block.value("bound", "before")
            ):
                compiled, python = pair.handle(record_of(case="own"))
                assert compiled == python
            block.ended = True
    finally:
        PROCESS_FIELDS.clear()
    assert pair.taken_by_python == before


def test_ten_thousand_fields(pair: Pair) -> None:
    """And as many in one of them."""
    many = {f"field {n}": n for n in range(10_000)}
    compiled, python = pair.handle(record_of(**many, nested=many, listed=list(many)))
    assert compiled == python


def test_large_values(pair: Pair) -> None:
    """Around the limit of what the core takes, and 32 MB."""
    for size in (2**20 - 400, 2**20, 2**20 + 1, 32 * 2**20):
        compiled, python = pair.handle(record_of(msg="x" * size))
        assert compiled == python
        compiled, python = pair.handle(record_of(values=["é" * 1000] * (size // 2000)))
        assert compiled == python


def test_deep_values(pair: Pair) -> None:
    """Around the depth that the core takes, and that orjson takes; cycles."""
    for depth in (15, 16, 17, 254, 255, 2000):
        value: Any = []
        for _ in range(depth):
            value = {"in": [value]}
        compiled, python = pair.handle(record_of(value=value))
        assert compiled == python
    value.update(value=value)
    compiled, python = pair.handle(record_of(value=value))
    assert compiled == python


def test_what_a_console_handler_sets_is_no_field(pair: Pair) -> None:
    """Formatters of handlers that came before leave `message` and `asctime` in the record."""
    before = pair.taken_by_python
    record = record_of(msg="m %d", args=(1,), case=7)
    logging.Formatter("%(asctime)s %(message)s").format(record)
    compiled, python = pair.handle(record)
    assert compiled == python
    assert pair.taken_by_python == before


def test_a_level_of_its_own(pair: Pair) -> None:
    """One with a name, one whose name is coloured, one without a name."""
    names = dict(logging._levelToName)
    try:
        for number, name in ((25, "Notice"), (33, "\x1b[1mLOUD\x1b[0m"), (logging.ERROR, "\x1b[31mERROR")):
            logging.addLevelName(number, name)
        for number in (25, 33, 34, logging.ERROR):
            compiled, python = pair.handle(record_of(levelno=number))
            assert compiled == python
    finally:
        for number in (25, 33):
            logging._nameToLevel.pop(logging._levelToName.pop(number))
        logging.addLevelName(logging.ERROR, names[logging.ERROR])
        logging._nameToLevel.pop("\x1b[31mERROR", None)


def test_a_handler_out_of_reach_of_the_core(pair: Pair) -> None:
    """Filters, subclasses and replaced methods keep their say, added at any time."""
    record = record_of()
    for name, value in (("filters", [lambda _: False]), ("handle", lambda _: None)):
        before = getattr(pair.compiled, name)
        setattr(pair.compiled, name, value)
        logger = FastLogger("fast")
        logger.manager = logging.root.manager  # type: ignore[attr-defined]
        logger.handlers = [pair.compiled]
        logger.info("kept from it")
        if name == "handle":
            del pair.compiled.handle  # type: ignore[attr-defined]
        else:
            pair.compiled.handle(record)
            setattr(pair.compiled, name, before)
    with python_way():
        assert pair.compiled._way is None
    pair.python._way = None
    assert pair.lines() == (b"", b"")
    assert sys.getrefcount(record) < 6
