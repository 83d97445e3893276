"""Load structlog processors from a configuration, and run them so that none can break an event.

This module does not import structlog: a processor is any callable.
"""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from calyx_logging.errors import ConfigError
from calyx_logging.events.event import note, shadow

if TYPE_CHECKING:
    from structlog.typing import EventDict

__all__ = ["NamedProcessor", "conform", "is_drop", "resolve_all", "run_all"]

NamedProcessor = tuple[str, Callable[..., Any]]

_LEFT = ("_record", "level", "logger")
"""The fields that remain of an event when a processor with `withhold` fails."""


def run_all(processors: Sequence[NamedProcessor], logger: object, method: str, event: EventDict) -> EventDict:
    """Run all processors over an event; undo, skip and note in the event one that raises or returns no mapping.

    A processor with a true `withhold` is not skipped: if it fails, the event's fields are dropped.
    """
    for name, processor in processors:
        try:
            # a copy, so that the changes of a processor that raises are discarded
            result = processor(logger, method, copy.copy(event))
            if not isinstance(result, MutableMapping):
                raise TypeError(f"returned {type(result).__name__}, not a mapping")
            event = dict(result)
        except Exception as error:
            if getattr(processor, "withhold", False):
                event = {key: event[key] for key in _LEFT if key in event} | {"message": "[withheld]"}
                note(event, [f"all fields withheld: processor {name} failed: {type(error).__name__}"])
            else:
                note(event, [f"processor {name} skipped: {type(error).__name__}"])
    return event


def conform(event: EventDict, own: Mapping[str, str]) -> EventDict:
    """Restore reserved fields that processors gave invalid values; `own` names the text fields and their fallbacks."""
    for name, value in own.items():
        if type(event.get(name)) is not str:
            if name in event:
                shadow(event, {name: event[name]})
            event[name] = value
    shadow(event, {name: event.pop(name) for name in ("seq", "control") if name in event})
    for name, kind in (("exception", list), ("degraded", list), ("shadowed", dict)):
        if name in event and not isinstance(event[name], kind):
            value = event.pop(name)
            shadow(event, {name: value})
    return event


def is_drop(error: BaseException) -> bool:
    """Tell whether an error is structlog's DropEvent, which is not an Exception: the event is to be dropped."""
    exceptions = sys.modules.get("structlog.exceptions")
    return exceptions is not None and isinstance(error, exceptions.DropEvent)


def resolve_all(processors: object) -> list[NamedProcessor]:
    """Resolve a list of callables, dotted names or `{"()": dotted name, …}` into callables.

    Raises:
        ConfigError: one of them cannot be found, or is not a processor.
    """
    if isinstance(processors, (str, Mapping)) or not isinstance(processors, Sequence):
        raise ConfigError(f"option 'processors' is {processors!r}: give a list of dotted names or callables")
    # by index: dictConfig passes a list that resolves ext:// and cfg:// only when indexed
    return [_resolve(processors[n]) for n in range(len(processors))]


def _resolve(spec: Any) -> tuple[str, Callable[..., Any]]:
    name, found, options = spec, spec, {}
    if isinstance(spec, Mapping):
        options = {key: spec[key] for key in spec if key != "()"}
        name = found = spec.get("()")
    if isinstance(found, str):
        found = _import_dotted(found)
    try:
        if isinstance(found, type) or isinstance(spec, Mapping):
            found = found(**options)
    except Exception as error:
        raise ConfigError(f"option 'processors': {name!r} cannot be created: {error}") from error
    if not callable(found):
        raise ConfigError(f"option 'processors': {name!r} is not callable")
    return (name if isinstance(name, str) else getattr(name, "__name__", type(name).__name__)), found


def _import_dotted(name: str) -> Any:
    """Import an object by its dotted name: the longest importable module, then attributes."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        module_name = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
                continue
            raise ConfigError(f"option 'processors': {name!r} cannot be imported: {error}") from error
        except (ImportError, ValueError) as error:
            raise ConfigError(f"option 'processors': {name!r} cannot be imported: {error}") from error
        try:
            for attribute in parts[cut:]:
                found = getattr(found, attribute)
        except AttributeError as error:
            raise ConfigError(f"option 'processors': {name!r} was not found: {error}") from error
        return found
    raise ConfigError(f"option 'processors': {name!r} was not found: no module {parts[0]!r}")
