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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from calyx_logging.errors import say
from calyx_logging.events.capture import attach, captured_by, detach

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

    from calyx_logging.handlers.outbox import OutboxHandler

__all__ = ["Following", "follow", "is_in_use", "step_aside"]

_KEY = "calyx_logging"
_PROCESS = "multiprocessing.process"
_parents: weakref.WeakSet[OutboxHandler] = weakref.WeakSet()
"""Handlers of this process that worker processes follow."""

_ours: list[OutboxHandler] = []
"""Handlers that this process has from its parent."""

_said: set[str] = set()
_is_setting_up = False


@dataclass(frozen=True)
class _Recipe:
    """What it takes to make a handler again: options, loggers' names, and the rest pickled."""

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
    process = sys.modules.get(_PROCESS)
    if process is not None:
        _enter(process)
    elif not any(isinstance(finder, _WhenImported) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenImported())


def step_aside() -> None:
    """Close the handlers that this process has from its parent: it makes one of its own."""
    if _is_setting_up:
        return
    while _ours:
        handler = _ours.pop()
        detach(handler)
        handler.close()


class _WhenImported:
    """A finder of modules that enters the mark when the program imports multiprocessing.

    To import that for a program that never does would cost milliseconds, and some time in every logging call.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _PROCESS:
            return None
        import importlib.util

        with contextlib.suppress(ValueError):
            sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
        return spec


class _Loader:
    """A module's loader, which enters the mark at its end."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _enter(module)


def _enter(process: ModuleType) -> None:
    with contextlib.suppress(AttributeError):  # a process object of another kind; nothing follows
        process.current_process()._config[_KEY] = Following()


def _loggers() -> Iterator[logging.Logger]:
    yield logging.getLogger()
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            yield logger


def _recipes() -> Iterator[_Recipe]:
    """Yield what makes the handlers again that a logger has now."""
    import pickle

    for handler in list(_parents):
        names = _loggers_of(handler)
        if not names:
            continue
        sent = {}
        for option, value in (("class", type(handler)), ("formatter", handler.formatter), ("filters", handler.filters)):
            try:
                sent[option] = pickle.dumps(value)
            except Exception as error:
                _say_once(
                    f"worker processes started without fork do not log: option {option!r} of the OutboxHandler cannot "
                    f"be sent to them ({error}); use functions and classes of modules, no lambdas"
                )
                break
        else:
            yield _Recipe(handler.options, names, handler.level, sent["class"], sent["formatter"], sent["filters"])


def is_in_use(handler: OutboxHandler) -> bool:
    """Whether a logger has the handler, or a queue that may end in it."""
    return bool(_loggers_of(handler))


def _loggers_of(handler: OutboxHandler) -> list[str]:
    names = [logger.name for logger in _loggers() if _has(logger, handler) and not logger.disabled]
    # where none has it, it may be behind a queue, which ends in this process
    return names or [logger.name for logger in _loggers() if _has_a_queue(logger)]


def _has(logger: logging.Logger, handler: logging.Handler) -> bool:
    found = logger.handlers
    return handler in captured_by(logger) or any(
        one is handler or getattr(one, "target", None) is handler for one in found
    )


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
