"""Does what a logger says arrive in the outbox, and if not, what stops it?

A canary record is sent through each logger, the way every record goes, into a temporary outbox: nothing is left in the
node's own. Where it does not arrive, the way is walked in `logging`'s order, and the first thing on it that stops a
record is named, with what to do about it.
"""

from __future__ import annotations

import logging
import secrets
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calyx_logging import outbox
from calyx_logging.chunk import open_chunk, read_lines
from calyx_logging.errors import CalyxError, EventError
from calyx_logging.event import decode
from calyx_logging.handlers.outbox import OutboxHandler
from calyx_logging.node import Node, provision

__all__ = ["CANARY", "Finding", "examine", "existing_loggers", "outbox_handlers", "outbox_handlers_for"]

CANARY = "_calyx_canary"
"""The canary's message, and the name of its field."""

_PATIENCE_SECONDS = 2.0


@dataclass(frozen=True)
class Finding:
    """What became of one logger's canary.

    Attributes:
        logger: its name.
        arrives: whether the canary came to the outbox.
        cause: what stops it: `logging.disable`, `disabled`, `level`, `filter`, `handler level`, `handler filter`,
            `propagate`, `removed`, `elsewhere`, `no handler`, `dropped`; None when it arrives.
        where: the logger, handler or filter that does.
        advice: what to do about it.
    """

    logger: str
    arrives: bool
    cause: str | None = None
    where: str | None = None
    advice: str | None = None


def existing_loggers() -> set[str]:
    """The names of all loggers there are; the root logger's is `root`."""
    made = [name for name, one in logging.Logger.manager.loggerDict.items() if isinstance(one, logging.Logger)]
    return {"root", *made}


def outbox_handlers() -> list[OutboxHandler]:
    """Every OutboxHandler of the process, attached or not."""
    known = [reference() for reference in list(getattr(logging, "_handlerList", []))]
    attached = [handler for name in existing_loggers() for handler in _logger(name).handlers]
    found = {id(one): one for one in (*known, *attached) if isinstance(one, OutboxHandler)}
    return list(found.values())


def outbox_handlers_for(logger: logging.Logger, level: int) -> list[OutboxHandler]:
    """The OutboxHandlers that a record of that level on that logger comes to, filters left aside."""
    if logger.disabled or not logger.isEnabledFor(level):
        return []
    return [
        handler
        for one in _way(logger)
        for handler in one.handlers
        if isinstance(handler, OutboxHandler) and handler.level <= level
    ]


def examine(names: Iterable[str], level: int = logging.INFO) -> list[Finding]:
    """Send a canary through each logger and say what became of it, in the order of the names."""
    loggers = {name: _logger(name) for name in names}
    tokens = {name: secrets.token_hex(8) for name in loggers}
    with _diverted() as node:
        for name, logger in loggers.items():
            logger.log(level, CANARY, extra={CANARY: tokens[name]})
        arrived = _wait_for(node, set(tokens.values()), any(map(_is_indirect, loggers.values())))
    return [
        Finding(name, True) if tokens[name] in arrived else _why_not(name, logger, level)
        for name, logger in loggers.items()
    ]


@contextmanager
def _diverted() -> Iterator[Node]:
    """All OutboxHandlers write into a temporary outbox."""
    with tempfile.TemporaryDirectory(prefix="calyx-doctor-", ignore_cleanup_errors=True) as folder:
        node = provision(folder, "doctor").node
        handlers = outbox_handlers()
        for handler in handlers:
            handler.divert(node)
        try:
            yield node
        finally:
            for handler in handlers:
                handler.divert(None)


def _wait_for(node: Node, tokens: set[str], patiently: bool) -> set[str]:
    """The tokens that are in the outbox; a queue's listener is given some time."""
    end = time.monotonic() + (_PATIENCE_SECONDS if patiently else 0.0)
    while True:
        found = set(_tokens_in(node.outbox))
        if tokens <= found or time.monotonic() >= end:
            return found
        time.sleep(0.02)


def _tokens_in(folder: Path) -> Iterator[str]:
    contents = outbox.look(folder)
    for path in [folder / name.open for name in contents.open] + [folder / name.sealed for name in contents.sealed]:
        try:
            with open_chunk(path) as stream:
                for line, _ in read_lines(stream):
                    yield str(decode(line).get(CANARY))
        except (CalyxError, EventError, OSError):
            continue  # sealed in between, or half a line: the next look sees it


def _logger(name: str) -> logging.Logger:
    return logging.getLogger(None if name == "root" else name)


def _way(logger: logging.Logger) -> Iterator[logging.Logger]:
    """The loggers whose handlers a record comes to."""
    one: logging.Logger | None = logger
    while one is not None:
        yield one
        one = one.parent if one.propagate else None


def _is_indirect(logger: logging.Logger) -> bool:
    return any(hasattr(handler, "queue") for one in _way(logger) for handler in one.handlers)


# ------------------------------------------------------------------ what stops it


def _why_not(name: str, logger: logging.Logger, level: int) -> Finding:
    def because(cause: str, where: str, advice: str) -> Finding:
        return Finding(name, False, cause, where, advice)

    said = logging.getLevelName(level)
    if logger.manager.disable >= level:
        return because("logging.disable", "logging", "take the call of logging.disable() out of the harness")
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
        return because("level", owner.name, f"{of}: set it, or that of {name!r}, to {said}")
    record = logger.makeRecord(logger.name, level, "", 0, CANARY, (), None)
    if (refusing := _refusing(logger, record)) is not None:
        return because("filter", name, f"filter {refusing} on logger {name!r} refuses it: remove or change the filter")
    on_the_way = [(one, handler) for one in _way(logger) for handler in one.handlers]
    ours = [(one, handler) for one, handler in on_the_way if isinstance(handler, OutboxHandler)]
    for one, handler in ours:
        if handler.level > level:
            limit_name = logging.getLevelName(handler.level)
            return because(
                "handler level", one.name, f"the OutboxHandler's own level is {limit_name}: set it to {said} or lower"
            )
        if (refusing := _refusing(handler, record)) is not None:
            return because("handler filter", one.name, f"filter {refusing} on the OutboxHandler refuses it")
    if ours:
        return because("dropped", ours[0][0].name, "a processor, a filter or a class of the harness's own drops it")
    return because(*_why_no_handler(name, logger))


def _why_no_handler(name: str, logger: logging.Logger) -> tuple[str, str, str]:
    """Cause, where and advice when no OutboxHandler is on the way of a logger's records."""
    capture = f'give the handler "capture": [{", ".join(f"{one!r}" for one in _cut_from(logger))}]'.replace("'", '"')
    existing = outbox_handlers()
    if not existing and not OutboxHandler.made:
        return "no handler", "logging", "no OutboxHandler is configured: see the README, Configure"
    homes = {one for one in existing_loggers() if any(h in existing for h in _logger(one).handlers)}
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
    return "elsewhere", ", ".join(sorted(homes)), f"no OutboxHandler is on its way, only elsewhere: {capture}"


def _cut_from(logger: logging.Logger) -> list[str]:
    """Where a handler has to be to get what the logger says: where its way ends."""
    return [list(_way(logger))[-1].name]


def _ancestors(logger: logging.Logger) -> Iterator[logging.Logger]:
    one: logging.Logger | None = logger
    while one is not None:
        yield one
        one = one.parent


def _refusing(filterer: Any, record: logging.LogRecord) -> str | None:
    """The filter that lets a record not pass."""
    for one in list(filterer.filters):
        try:
            passes = one.filter(record) if hasattr(one, "filter") else one(record)
        except Exception as error:  # then it stops every record
            return f"{_name_of(one)} (raises {type(error).__name__})"
        if not passes:
            return _name_of(one)
    return None


def _name_of(thing: object) -> str:
    kind = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', kind)}"
