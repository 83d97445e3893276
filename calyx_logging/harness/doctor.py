"""Check whether a logger's records reach the outbox and, if not, find what stops them.

A canary record is sent through each logger like any other record, into a temporary outbox; the node's own outbox stays
unchanged. If the canary does not arrive, its path is followed in `logging`'s order, and the first thing that stops it
is named, with advice.
"""

from __future__ import annotations

import logging
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calyx_logging.errors import CalyxError, EventError
from calyx_logging.events.capture import captured_by, names_captured_by
from calyx_logging.events.event import decode
from calyx_logging.format.chunk import open_chunk, read_lines
from calyx_logging.handlers.base import EventHandler
from calyx_logging.handlers.children import is_in_use, state_of_children
from calyx_logging.handlers.outbox import OutboxHandler
from calyx_logging.node import Node, provision
from calyx_logging.outbox.contents import look

__all__ = [
    "CANARY",
    "Diagnosis",
    "Finding",
    "doctor",
    "examine",
    "existing_loggers",
    "goes_into_a_queue",
    "outbox_handlers",
    "outbox_handlers_for",
]

CANARY = "_calyx_canary"
"""The canary's message, and the name of its field."""

_PATIENCE_SECONDS = 2.0
_ECHO_SECONDS = 0.1


@dataclass(frozen=True)
class Finding:
    """The result of one logger's canary.

    Attributes:
        logger: the logger's name.
        arrives: whether the canary reached the outbox.
        cause: the first thing that stops it: `logging.disable`, `disabled`, `level`, `filter`, `handler level`,
            `handler filter`, `queue`, `propagate`, `removed`, `elsewhere`, `no handler`, `dropped`; `twice` if it
            arrives more than once; None if it arrives once.
        where: the logger at which that happens.
        advice: what to do about it.
    """

    logger: str
    arrives: bool
    cause: str | None = None
    where: str | None = None
    advice: str | None = None

    @property
    def is_well(self) -> bool:
        """Whether the canary arrived exactly once."""
        return self.arrives and self.cause is None


def existing_loggers() -> set[str]:
    """List the names of all existing loggers; the root logger's is `root`."""
    made = [name for name, one in logging.Logger.manager.loggerDict.items() if isinstance(one, logging.Logger)]
    return {"root", *made}


def outbox_handlers() -> list[OutboxHandler]:
    """List every OutboxHandler of the process, attached or not."""
    return [one for one in EventHandler.alive if isinstance(one, OutboxHandler)]


def outbox_handlers_for(logger: logging.Logger, level: int) -> list[OutboxHandler]:
    """List the OutboxHandlers that a record of this level on this logger reaches, ignoring filters."""
    if logger.disabled or not logger.isEnabledFor(level):
        return []
    on_the_way = [handler for one in _way(logger) for handler in _handlers_of(one)]
    return [handler for handler in on_the_way if isinstance(handler, OutboxHandler) and handler.level <= level]


def goes_into_a_queue(logger: logging.Logger) -> bool:
    """Tell whether a queue takes the logger's records; their destination cannot then be known from the logger."""
    return any(hasattr(handler, "queue") for one in _way(logger) for handler in one.handlers)


def _handlers_of(logger: logging.Logger) -> Iterator[logging.Handler]:
    """List a logger's handlers, its capturing handlers, and those behind the queue listeners that dictConfig makes."""
    for handler in [*captured_by(logger), *logger.handlers]:
        yield handler
        yield from getattr(getattr(handler, "listener", None), "handlers", ())


def examine(names: Iterable[str], level: int = logging.INFO) -> list[Finding]:
    """Send a canary through each logger and return the findings in the order of the names."""
    loggers = {name: _logger(name) for name in names}
    tokens = {name: secrets.token_hex(8) for name in loggers}
    with _diverted() as node:
        for name, logger in loggers.items():
            with suppress(Exception):  # a filter or handler of the harness raised: it is found below
                logger.log(level, CANARY, extra={CANARY: tokens[name]})
        arrived = _wait_for(node, set(tokens.values()), any(map(goes_into_a_queue, loggers.values())))
    return [_found(name, logger, level, arrived[tokens[name]]) for name, logger in loggers.items()]


@dataclass(frozen=True)
class Diagnosis:
    """The loggers of this process that reach the outbox now; `str()` gives a summary for people.

    Attributes:
        loggers: a finding for each logger. No record is sent: it says what would stop one.
        captured: the names that handlers capture.
        outboxes: the folders that handlers write to.
        children: what becomes of child processes, in a few lines.
    """

    loggers: list[Finding]
    captured: list[str]
    outboxes: list[str]
    children: list[str]

    def __str__(self) -> str:
        stopped = [finding for finding in self.loggers if not finding.arrives]
        lines = [f"outbox     {folder}" for folder in self.outboxes] or ["outbox     none: no OutboxHandler is in use"]
        lines.append(f"loggers    {len(self.loggers)}, {len(stopped)} stopped")
        for finding in stopped:
            lines += [f"  STOPPED  {finding.logger}  {finding.cause}", f"           {finding.advice}"]
        lines.append(f"captured   {', '.join(self.captured) or 'none'}")
        return "\n".join([*lines, *(f"children   {line}" for line in self.children)])


def doctor(level: int = logging.INFO) -> Diagnosis:
    """Examine this process, now: `print(calyx_logging.doctor())`.

    Args:
        level: of the records in question.
    """
    handlers = [one for one in outbox_handlers() if is_in_use(one)]
    captured = sorted({name for one in handlers for name in names_captured_by(one)})
    outboxes = sorted({str(one.outbox) for one in handlers})
    names = sorted(existing_loggers(), key=lambda name: (name != "root", name))
    return Diagnosis([_look(name, level) for name in names], captured, outboxes, state_of_children(handlers))


def _look(name: str, level: int) -> Finding:
    """Say whether a record of a logger would arrive, without sending one."""
    logger = _logger(name)
    record = logger.makeRecord(logger.name, level, "", 0, CANARY, (), None)
    if logger.isEnabledFor(level) and _refusing(logger, record) is None:
        reached = [one for one in [*captured_by(logger), *outbox_handlers_for(logger, level)] if one.level <= level]
        if any(isinstance(one, OutboxHandler) and _refusing(one, record) is None for one in reached):
            return Finding(name, True)
    return _why_not(name, logger, level)


def _found(name: str, logger: logging.Logger, level: int, times: int) -> Finding:
    if not times:
        return _why_not(name, logger, level)
    if times == 1:
        return Finding(name, True)
    advice = "it comes to the outbox directly and through a QueueHandler: take one away, or give the QueueHandler the "
    return Finding(name, True, "twice", name, advice + "filter calyx_logging.KeepContext, by which the second is known")


@contextmanager
def _diverted() -> Iterator[Node]:
    """Divert all OutboxHandlers into a temporary outbox, and stop all execution logs."""
    with tempfile.TemporaryDirectory(prefix="calyx-doctor-", ignore_cleanup_errors=True) as folder:
        node = provision(folder, "doctor").node
        handlers: list[Any] = [one for one in EventHandler.alive if hasattr(one, "divert")]
        for handler in handlers:
            handler.divert(node)
        try:
            yield node
        finally:
            for handler in handlers:
                handler.divert(None)


def _wait_for(node: Node, tokens: set[str], patiently: bool) -> Counter[str]:
    """Count each token in the outbox; wait some time for queue listeners."""
    end = time.monotonic() + (_PATIENCE_SECONDS if patiently else 0.0)
    while True:
        found = Counter(_tokens_in(node.outbox))
        if time.monotonic() >= end or (tokens <= found.keys() and not patiently):
            return found
        if tokens <= found.keys():
            end, patiently = time.monotonic() + _ECHO_SECONDS, True  # wait for a second arrival
            tokens = {""}
        time.sleep(0.02)


def _tokens_in(folder: Path) -> Iterator[str]:
    contents = look(folder)
    for path in [folder / name.open for name in contents.open] + [folder / name.sealed for name in contents.sealed]:
        try:
            with open_chunk(path) as stream:
                for line, _ in read_lines(stream):
                    yield str(decode(line).get(CANARY))
        except (CalyxError, EventError, OSError):
            continue  # just sealed, or a partial line: the next pass sees it


def _logger(name: str) -> logging.Logger:
    return logging.getLogger(None if name == "root" else name)


def _way(logger: logging.Logger) -> Iterator[logging.Logger]:
    """List the loggers whose handlers a record reaches."""
    one: logging.Logger | None = logger
    while one is not None:
        yield one
        one = one.parent if one.propagate else None


# ------------------------------------------------------------------ what stops it


def _why_not(name: str, logger: logging.Logger, level: int) -> Finding:
    def because(cause: str, where: str, advice: str) -> Finding:
        return Finding(name, False, cause, where, advice)

    level_name = logging.getLevelName(level)
    if logger.manager.disable >= level:
        return because("logging.disable", "logging", "remove the call of logging.disable() from the harness")
    if logger.disabled:
        return because(
            "disabled",
            name,
            'give "disable_existing_loggers": false to every dictConfig or fileConfig that is called, '
            f"or set logging.getLogger({name!r}).disabled = False after them",
        )
    if (limit := logger.getEffectiveLevel()) > level:
        owner = next(one for one in _ancestors(logger) if one.level)
        of = f"the level of logger {owner.name!r} is {logging.getLevelName(limit)}"
        return because("level", owner.name, f"{of}: set it, or that of {name!r}, to {level_name}")
    record = logger.makeRecord(logger.name, level, "", 0, CANARY, (), None)
    if (refusing := _refusing(logger, record)) is not None:
        return because("filter", name, f"filter {refusing} on logger {name!r} refuses it: remove or change the filter")
    on_the_way = [(one, handler) for one in _way(logger) for handler in _handlers_of(one)]
    ours = [(one, handler) for one, handler in on_the_way if isinstance(handler, OutboxHandler)]
    for one, handler in ours:
        if handler.level > level:
            limit_name = logging.getLevelName(handler.level)
            return because(
                "handler level",
                one.name,
                f"the OutboxHandler's own level is {limit_name}: set it to {level_name} or lower",
            )
        if (refusing := _refusing(handler, record)) is not None:
            return because(
                "handler filter",
                one.name,
                f"filter {refusing} on the OutboxHandler refuses it: remove or change the filter",
            )
    if ours and not _is_behind_a_queue_alone(logger):
        processors = [processor for _, handler in ours for processor, _ in handler.event_formatter.processors]
        return because(
            "dropped",
            ours[0][0].name,
            "it reached the OutboxHandler but not the outbox: look at "
            + (f"its processors ({', '.join(processors)})" if processors else "its subclass")
            + f", and at what replaces methods of logger {name!r} (a {_name_of(logger)})",
        )
    if goes_into_a_queue(logger):
        return because(
            "queue",
            next(one.name for one in _way(logger) if any(hasattr(handler, "queue") for handler in one.handlers)),
            "a QueueHandler takes it, and no listener brings it to an OutboxHandler: start the QueueListener, with the "
            "OutboxHandler among its handlers (of one that dictConfig made: "
            'logging.getHandlerByName("NAME_OF_THE_QUEUE_HANDLER").listener.start())',
        )
    return because(*_why_no_handler(name, logger))


def _is_behind_a_queue_alone(logger: logging.Logger) -> bool:
    """Check whether OutboxHandlers are reached only through a queue listener that dictConfig made."""
    direct = [handler for one in _way(logger) for handler in [*captured_by(one), *one.handlers]]
    return not any(isinstance(handler, OutboxHandler) for handler in direct)


def _why_no_handler(name: str, logger: logging.Logger) -> tuple[str, str, str]:
    """Return cause, place and advice if no OutboxHandler is on the path of a logger's records."""
    capture = f'give the handler "capture": [{", ".join(f"{one!r}" for one in _cut_from(logger))}]'.replace("'", '"')
    existing = outbox_handlers()
    if not existing and not OutboxHandler.made:
        return "no handler", "logging", "no OutboxHandler is configured: see the README, Configure"
    homes = {one for one in existing_loggers() if any(handler in existing for handler in _handlers_of(_logger(one)))}
    if not homes:
        return (
            "removed",
            "root",
            "the OutboxHandler was configured and is on no logger any more: something configured logging again "
            f"(dictConfig, basicConfig(force=True), handlers.clear()); {capture}, which outlasts that",
        )
    above = {one.name for one in _ancestors(logger)}
    cut = next((one for one in _ancestors(logger) if not one.propagate and one.parent is not None), None)
    if cut is not None and homes & above:
        return "propagate", cut.name, f"propagate is off on logger {cut.name!r}: {capture}"
    return "elsewhere", ", ".join(sorted(homes)), f"no OutboxHandler is on its path, only elsewhere: {capture}"


def _cut_from(logger: logging.Logger) -> list[str]:
    """Return the logger at which a handler would receive the records, that is where their path ends."""
    return [list(_way(logger))[-1].name]


def _ancestors(logger: logging.Logger) -> Iterator[logging.Logger]:
    one: logging.Logger | None = logger
    while one is not None:
        yield one
        one = one.parent


def _refusing(filterer: Any, record: logging.LogRecord) -> str | None:
    """Return the filter that rejects a record."""
    for one in list(filterer.filters):
        try:
            passes = one.filter(record) if hasattr(one, "filter") else one(record)
        except Exception as error:  # a filter that raises stops every record
            return f"{_name_of(one)} (raises {type(error).__name__})"
        if not passes:
            return _name_of(one)
    return None


def _name_of(thing: object) -> str:
    kind = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', kind)}"
