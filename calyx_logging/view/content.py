"""Answer what the page asks, from the same queries and lines as the report.

A `Snapshot` is the state of a place at one time: its database, where its chunks are, and the page's facts. Invariant:
one thread at a time asks a snapshot's database; a snapshot is closed when a newer one has taken its place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from calyx_logging.errors import CalyxError, ConfigError
from calyx_logging.hub.store import Store, find_hub
from calyx_logging.query import connect
from calyx_logging.query.executors import Engine
from calyx_logging.query.locations import chunks_at
from calyx_logging.query.named import named
from calyx_logging.report.collect import Choice, Facts, ask_queries, look_for_missing, newest_first
from calyx_logging.report.events import Excerpt, Paths, document_of, events_of, newest_of, paths_of
from calyx_logging.report.report import MEMORY, TABLES, case_rows, envelopes_of, errors_named, process_rows
from calyx_logging.report.runs import cases_of, processes_of, rows_of, run_key
from calyx_logging.report.served import live_page, run_rows, waiting_page
from calyx_logging.report.source import Source

__all__ = ["Content", "Snapshot"]

_RUNS_AT_ONCE = 5000
_CASES_AT_ONCE = 5000
"""Maximum number of cases that the page has from the beginning, of the newest runs."""

_OTHERS = 30
"""Maximum number of other runs in which a case is looked for."""


@dataclass
class Snapshot:
    """The state of a place at one time.

    Attributes:
        backend: of `query.connect`.
        paths: where its chunks are.
        facts: of the page.
        lock: is held by whoever asks the database.
        is_closed: whether it has been.
    """

    backend: Any
    paths: Paths
    facts: Facts
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_closed: bool = False

    @cached_property
    def runs(self) -> dict[str, dict[str, Any]]:
        """The rows of the runs in the page, by their keys, the newest first."""
        return {run_key(row): row for row in self.facts.answers["runs"].rows}

    @cached_property
    def all_runs(self) -> dict[str, dict[str, Any]]:
        """The rows of all runs, by their keys, the newest first."""
        runs = named(self.backend, "runs")
        return {run_key(row): row for row in rows_of(self.backend, runs.order_by(newest_first()))}

    def run(self, key: str) -> dict[str, Any]:
        """Return the row of a run.

        Raises:
            ConfigError: there is none with this key.
        """
        row = self.runs.get(key)
        if row is None and self.facts.answers["runs"].left_out:
            row = self.all_runs.get(key)
        if row is None:
            raise ConfigError(f"there is no run {key[:40]!r}", hint="load the page again")
        return row

    def close(self) -> None:
        """Close the database when nobody asks it."""
        with self.lock:
            self.is_closed = True
            self.backend.disconnect()


class Content:
    """Makes the page, and answers the questions that it asks.

    Args:
        source: the place.
        engine: reads chunks.
        memory: that a database takes at most.
        tell: is told what is being done.
    """

    def __init__(self, source: Source, engine: Engine, *, memory: str = MEMORY, tell: Callable[[str], None]) -> None:
        self.source = source
        self._engine, self._memory, self._tell = engine, memory, tell
        self._chunks = chunks_at(source.place, source.root)
        self._now: Snapshot | None = None
        self._asked: Any = None
        self._page = b""
        self._pages = 0
        self._seen: object = None
        self._looked: tuple[Any, ...] | None = None
        self._look_again_at = 0.0

    @property
    def page(self) -> bytes:
        """Return the page as HTML; until there is one, a page that says so."""
        return self._page or waiting_page(self.source.where)

    def has_changed(self) -> bool:
        """Tell whether there is more at the place than in the page; it costs little."""
        state = self._state()
        return state is None or state != self._seen

    def refresh(self, made: Callable[[int], None], *, look: bool = True) -> None:
        """Make a new page.

        Args:
            made: is called with its number, before missing events have been looked for, and again after.
            look: whether to look for them again even if that took long the last time.

        Raises:
            CalyxError: something cannot be read.
        """
        state = self._state()
        self._tell("reading")
        warnings: list[str] = []
        chunks = self._chunks()
        backend = connect(
            *(self.source.root, self.source.place),
            engine=self._engine,
            memory=self._memory,
            closed=True,
            warn=warnings.append,
            tables=TABLES,
        )
        self._asked = backend
        try:
            facts = ask_queries(backend, self.source, Choice(last=0), step=self._tell, warnings=warnings)
        except BaseException:
            backend.disconnect()
            raise
        before, self._now = self._now, Snapshot(backend, paths_of(chunks), facts)
        if before is not None:
            before.close()
        if self._looked is not None:
            facts.conditions, facts.refused, facts.was_looked_at = self._looked
        self._show(facts, made)
        if look or time.monotonic() >= self._look_again_at:
            self._tell("looking for what is missing")
            began = time.monotonic()
            look_for_missing(facts, self._engine)
            self._look_again_at = time.monotonic() + 10 * (time.monotonic() - began)
            self._looked = facts.conditions, facts.refused, True
            self._show(facts, made)
        self._seen = state

    def interrupt(self) -> None:
        """Cancel the queries that other threads are running."""
        backends: list[Any] = [self._asked, None if self._now is None else self._now.backend]
        for backend in backends:
            with suppress(Exception):  # there is none, or it is closed
                backend.con.interrupt()

    def close(self) -> None:
        """Close the database; from now on nothing is answered."""
        now, self._now = self._now, None
        if now is not None:
            now.close()

    # -------------------------------------------------------------- what is asked of it

    def first_cases(self) -> dict[str, Any]:
        """Return the cases of the newest runs, by `run_key`, and how many each has."""
        chosen, room = [], _CASES_AT_ONCE
        with self._asking() as now:
            for row in now.runs.values():
                room -= row["cases"]
                if room < 0:
                    break
                chosen.append(row)
            found, counts = cases_of(now.backend, chosen)
        return {run_key(row): _cases(row, found, counts) for row in chosen}

    def older_runs(self, first: int) -> dict[str, Any]:
        """Return runs from number `first` on, as the page has them."""
        with self._asking() as now:
            return run_rows(list(now.all_runs.values())[first : first + _RUNS_AT_ONCE])

    def run(self, key: str, first: int = 0) -> dict[str, Any]:
        """Return a run's cases from number `first` on, its processes and its envelope."""
        with self._asking() as now:
            row = now.run(key)
            found, counts = cases_of(now.backend, [row], first)
            processes, process_counts = ({}, {}) if first else processes_of(now.backend, [row])
        return {
            **_cases(row, found, counts),
            "processes": process_rows(processes.get(key, [])),
            "process_count": process_counts.get(key, 0),
            "envelope": envelopes_of(self.source, [row]).get(key),
        }

    def events(
        self, key: str, case_id: str | None = None, first: int | None = None, event_id: str | None = None
    ) -> dict[str, Any]:
        """Return a run's events, or the last `errors`, or the last `outside` of runs.

        Args:
            key: of the run, or one of these two words.
            case_id: only those of this case.
            first: the number of the first, if there are very many.
            event_id: only those with this id.
        """
        with self._asking() as now:
            if key in ("errors", "outside"):
                return _document(newest_of(now.backend, now.paths, key, errors_named(now.facts)))
            chosen = [now.run(key)]
            (one,) = events_of(now.backend, now.paths, chosen, case_id=case_id, first=first, event_id=event_id)
            return _document(one)

    def others(self, key: str, case_id: str) -> dict[str, Any]:
        """Return a case and its events in the newest other runs of the suite that have it, and how many have it."""
        with self._asking() as now:
            suite = now.run(key)["suite"]
            rows = [row for other, row in now.runs.items() if row["suite"] == suite and other != key]
            cases, _ = cases_of(now.backend, rows, case_id=case_id)
            some = [row for row in rows if run_key(row) in cases]
            excerpts = events_of(now.backend, now.paths, some[:_OTHERS], case_id=case_id)
        found = [{"key": one.key, "cases": case_rows(cases[one.key]), **_document(one)} for one in excerpts]
        return {"others": found, "count": len(some)}

    # -------------------------------------------------------------- within

    def _show(self, facts: Facts, made: Callable[[int], None]) -> None:
        self._pages += 1
        self._page = live_page(facts, time.time(), self._pages, follows=self.source.place == "outbox")
        made(self._pages)

    @contextmanager
    def _asking(self) -> Iterator[Snapshot]:
        """Yield the newest snapshot, which nobody else asks meanwhile."""
        while (now := self._now) is not None:
            with now.lock:
                if not now.is_closed:
                    yield now
                    return
        raise ConfigError("the page is being made", hint="wait for it")

    def _state(self) -> object:
        """Return a value that changes when something is added; None if nothing can be said."""
        try:
            if self.source.place == "hub":
                store = Store(find_hub(self.source.root))
                paths = [store.folder, *(store.folder / node_id for node_id in store.nodes())]
            else:
                paths = [ref.path for ref in self._chunks()]
            states = ((path, path.lstat()) for path in paths)
            return [(path, state.st_size, state.st_mtime_ns) for path, state in states]
        except (CalyxError, OSError):
            return None


def _cases(row: dict[str, Any], found: dict[str, list[dict[str, Any]]], counts: dict[str, int]) -> dict[str, Any]:
    key = run_key(row)
    return {"cases": case_rows(found.get(key, [])), "case_count": counts.get(key, 0)}


def _document(excerpt: Excerpt) -> dict[str, Any]:
    return {**document_of(excerpt), "count": excerpt.count}
