"""Have worker processes that are started without fork follow their parent's OutboxHandlers.

`multiprocessing`, `concurrent.futures` and joblib send a new process its `Process` object. A `Following` in that
object's configuration is pickled as the options of the handlers that the parent has at that moment, and is unpickled,
which sets them up, before the function that the process is to run.

Invariants:

* A child that makes an OutboxHandler of its own, before or after, has that one alone.
* In the child the handlers capture their loggers (`calyx_logging.events.capture`): the child's own configuration of
  logging works as if they were not there.
* A handler whose formatter or filters cannot be sent does not follow, for it would write what they keep out; the parent
  says so once.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from calyx_logging.core.on_import import when_imported
from calyx_logging.errors import say
from calyx_logging.events.capture import attach, detach, names_captured_by
from calyx_logging.recording.background import close_at_end_of_worker

if TYPE_CHECKING:
    from calyx_logging.handlers.outbox import OutboxHandler

__all__ = ["Following", "follow", "is_in_use", "state_of_children", "step_aside"]

_KEY = "calyx_logging"
_parents: weakref.WeakSet[OutboxHandler] = weakref.WeakSet()
"""Handlers of this process that worker processes follow."""

_ours: list[OutboxHandler] = []
"""Handlers that this process has from its parent."""

_follows: list[bool] = []
"""Not empty once the marks are set, or will be when the program imports multiprocessing."""


class _Said(set[str]):
    """A set that can be referred to weakly."""


_said = _Said()
_is_setting_up = False


@dataclass(frozen=True)
class _Recipe:
    """A handler's options, its loggers' names, and the rest pickled: enough to make it again."""

    options: dict[str, Any]
    loggers: list[str]
    level: int
    kind: bytes
    formatter: bytes
    filters: bytes


class Following:
    """Stands in a process object for the parent's handlers."""

    def __reduce__(self) -> Any:
        levels = {logger.name: logger.level for logger in _loggers() if logger.level}
        return _set_up, (list(_recipes()), levels)


def follow(handler: OutboxHandler) -> None:
    """Have worker processes started from now on follow a handler, while a logger has it."""
    _parents.add(handler)
    if not _follows:
        _follows.append(True)
        when_imported("multiprocessing.process", _enter)  # to import it here would slow every logging call
        when_imported("multiprocessing.util", _end_in_order)


def step_aside() -> None:
    """Close the handlers that this process has from its parent: it makes one of its own."""
    if _is_setting_up:
        return
    while _ours:
        handler = _ours.pop()
        detach(handler)
        handler.close()


def _enter(process: ModuleType) -> None:
    with contextlib.suppress(AttributeError):  # a process object of another kind; nothing follows
        process.current_process()._config[_KEY] = Following()


def _end_in_order(util: ModuleType) -> None:
    """Have forked workers, too, close their writers at their end, whether or not they have logged."""
    util.register_after_fork(_said, lambda _: close_at_end_of_worker(is_one=True))


def _loggers() -> Iterator[logging.Logger]:
    yield logging.getLogger()
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            yield logger


def _recipes() -> Iterator[_Recipe]:
    """Yield what makes the handlers again that a logger has now."""
    for handler in list(_parents):
        names = _loggers_of(handler)
        if not names:
            continue
        sent = {option: (data, error) for option, data, error in _pickled(handler)}
        failed = [(option, error) for option, (_, error) in sent.items() if error is not None]
        for option, error in failed:
            _say_once(
                f"worker processes started without fork do not log: option {option!r} of the OutboxHandler cannot "
                f"be sent to them ({error}); use functions and classes of modules, no lambdas"
            )
        if not failed:
            data = [sent[option][0] for option in ("class", "formatter", "filters")]
            yield _Recipe(handler.options, names, handler.level, *data)


def is_in_use(handler: OutboxHandler) -> bool:
    """Return whether a logger has the handler, or a queue that may end in it."""
    return bool(_loggers_of(handler))


def state_of_children(handlers: Iterable[OutboxHandler]) -> list[str]:
    """Say what becomes of child processes' records, in a few lines."""
    following = [handler for handler in handlers if handler in _parents]
    lines = ["worker processes (multiprocessing, concurrent.futures, joblib) log as this one does"]
    if not following:
        lines = ["worker processes started without fork do not log here (follow_children is off)"]
    for handler in following:
        lines += [
            f"option {option!r} cannot be sent to them: {error}" for option, _, error in _pickled(handler) if error
        ]
    root = following[0].options["root"] if following else "THE_ROOT"
    lines.append(
        f"programs started by subprocess configure themselves; CALYX_ROOT={root} in their environment names the root"
    )
    return lines


def _pickled(handler: OutboxHandler) -> Iterator[tuple[str, bytes, Exception | None]]:
    """Pickle what goes to workers beside a handler's options; where that fails, yield why."""
    import pickle

    for option, value in (("class", type(handler)), ("formatter", handler.formatter), ("filters", handler.filters)):
        try:
            yield option, pickle.dumps(value), None
        except Exception as error:
            yield option, b"", error


def _loggers_of(handler: OutboxHandler) -> list[str]:
    names = names_captured_by(handler)
    names += [logger.name for logger in _loggers() if _has(logger, handler) and not logger.disabled]
    # where none has it, it may be behind a queue, which ends in this process
    return names or [logger.name for logger in _loggers() if _has_a_queue(logger)]


def _has(logger: logging.Logger, handler: logging.Handler) -> bool:
    return any(one is handler or getattr(one, "target", None) is handler for one in logger.handlers)


def _has_a_queue(logger: logging.Logger) -> bool:
    queue_handler = getattr(sys.modules.get("logging.handlers"), "QueueHandler", None)
    return queue_handler is not None and any(isinstance(one, queue_handler) for one in logger.handlers)


def _set_up(recipes: list[_Recipe], levels: dict[str, int]) -> Following:
    """In a worker process: make the parent's handlers again, unless the program has made one."""
    global _is_setting_up
    import pickle

    from calyx_logging.handlers.outbox import OutboxHandler

    if OutboxHandler.made or not recipes:
        return Following()
    _is_setting_up = True
    try:
        for recipe in recipes:
            handler = pickle.loads(recipe.kind)(**recipe.options)
            handler.setLevel(recipe.level)
            handler.setFormatter(pickle.loads(recipe.formatter))
            handler.filters = pickle.loads(recipe.filters)
            attach(handler, recipe.loggers, handler)
            _ours.append(handler)
        close_at_end_of_worker(is_one=True)
        for name, level in levels.items():
            logging.getLogger(None if name == "root" else name).setLevel(level)
    except Exception as error:
        say(f"this worker process cannot log as its parent does: {type(error).__name__}: {error}")
    finally:
        _is_setting_up = False
    return Following()


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        say(text)
