"""The SQL of the views, plain enough for every engine.

They are over `loose` and `known`, which have the columns of `rows.schema`: of the rows of `known` it is known which of
them repeat an event.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from calyx_logging.query.result_views import result_views
from calyx_logging.query.rows import COLUMNS

__all__ = ["PLACE", "VIEWS", "WHERE", "Dialect", "views"]

PLACE = "row_number() OVER (PARTITION BY node_id, identity ORDER BY chunk, line, bundle)"
"""Numbers the copies of an event; lines with one `identity` (content apart from `seq`) are one event."""

WHERE = ("node_id", "bundle", "chunk", "line")
"""Columns that tell a hub's rows apart, and are those of `repeats`."""

VIEWS = (
    *("events", "runs", "cases", "suites", "models", "leaderboard", "changes", "nodes", "files"),
    *("chunks", "bundles", "gaps", "processes", "recoveries", "lines"),
)
"""Names of the views that are documented."""

_NOT_SHOWN = ("bad_line", "identity", "control", "resumed_as")
_ALL = ", ".join(COLUMNS)
_OURS = "source = 'calyx_logging'"


@dataclass(frozen=True)
class Dialect:
    """The parts of the SQL that engines write differently.

    Attributes:
        single: a SELECT of the rows of `loose` that are events, each event once.
        known: the same of `known`.
        text_of: the function of a JSON text and a path that gives the text there.
        document: `rest` as the engine's type for JSON.
        micros: of a time, as a template: microseconds since the epoch.
        last: the aggregate function of a value and a time that gives the value of the last time, null where it is null.
    """

    single: str
    known: str
    text_of: str
    document: str
    micros: str
    last: str


def views(dialect: Dialect) -> dict[str, str]:
    """Return the SQL of each view, in the order of their creation."""
    text_of = dialect.text_of
    shown = ", ".join(
        f"{dialect.document} AS rest" if name == "rest" else name for name in COLUMNS if name not in _NOT_SHOWN
    )
    return {
        "lines": f"SELECT {_ALL} FROM loose UNION ALL SELECT {_ALL} FROM known",
        "once": f"SELECT {_ALL} FROM ({dialect.single}) AS single "
        f"UNION ALL SELECT {_ALL} FROM ({dialect.known}) AS known_once",
        "logged": f"SELECT {_ALL} FROM once WHERE control IS NULL OR source <> 'calyx_logging'",
        "events": f"SELECT {shown} FROM logged",
        "chunks": "SELECT node_id, chunk, min(bundle) AS bundle, min(writer) AS writer, count(*) AS lines, "
        "count(bad_line) AS bad_lines, min(ts) AS first_ts, max(ts) AS last_ts FROM lines GROUP BY node_id, chunk",
        "bundles": "SELECT node_id, bundle, count(DISTINCT chunk) AS chunks, count(*) AS lines, min(ts) AS first_ts, "
        "max(ts) AS last_ts FROM lines WHERE bundle IS NOT NULL GROUP BY node_id, bundle",
        "gaps": f"SELECT node_id, writer, ts, TRY_CAST({text_of}(rest, '$.count') AS BIGINT) AS count, "
        f"{text_of}(rest, '$.cause') AS cause, {text_of}(rest, '$.seqs') AS seqs, chunk FROM once "
        f"WHERE control = 'gap' AND {_OURS}",
        "starts": f"SELECT DISTINCT node_id, writer, {text_of}(rest, '$.process') AS process FROM once "
        f"WHERE control = 'start' AND {_OURS}",
        "files": _files(text_of),
        "processes": _processes(text_of),
        "recoveries": f"SELECT node_id, writer, ts, TRY_CAST({text_of}(rest, '$.torn_bytes') AS BIGINT) AS torn_bytes, "
        f"TRY_CAST({text_of}(rest, '$.bad_lines') AS BIGINT) AS bad_lines, chunk FROM once "
        f"WHERE control = 'end' AND {_OURS} AND {text_of}(rest, '$.reason') = 'recovered'",
        **result_views(text_of, dialect.micros, dialect.last),
    }


def _files(text_of: str) -> str:
    """Return the SQL of the view of files that runs attached."""

    def field(name: str, kind: str = "") -> str:
        text = f"{text_of}(rest, '$.{name}')"
        return f"TRY_CAST({text} AS {kind}) AS {name}" if kind else f"{text} AS {name}"

    ours = f"control = 'file' AND {_OURS}"
    part = f"{text_of}(rest, '$.part')"
    parts = f"SELECT node_id, {field('file')}, count(DISTINCT {part}) AS parts FROM once "
    parts += f"WHERE {ours} AND {part} IS NOT NULL GROUP BY node_id, {text_of}(rest, '$.file')"
    fields = [field("name"), field("sha256"), field("left_out"), field("file"), field("bytes", "BIGINT")]
    whole = f"SELECT node_id, ts, suite, run_id, run_instance_id, case_id, {', '.join(fields)}, "
    whole += f"{field('parts', 'BIGINT')} FROM once WHERE {ours} AND {part} IS NULL"
    shown = ("node_id", "ts", "suite", "run_id", "run_instance_id", "case_id", "name", "bytes", "sha256", "left_out")
    return (
        f"SELECT {', '.join(f'w.{name}' for name in shown)}, coalesce(p.parts, 0) = w.parts AS is_whole "
        f"FROM ({whole}) AS w LEFT JOIN ({parts}) AS p ON w.node_id = p.node_id AND w.file = p.file"
    )


_OF_START = ("host", "machine", "user", "program", "python", "platform", "cwd", "pid")
_OF_ENVIRONMENT = ("git_commit", "git_dirty", "packages_sha256", "cpu", "cpus", "memory_bytes")
_NUMBERS = frozenset({"pid", "cpus", "memory_bytes", "exit_code"})
_OF_END = ("reason", "exit_code", "signal", "exception_type")


def _processes(text_of: str) -> str:
    """Return the SQL of the view of processes: their start lines, what they ran on, and how they ended."""

    def taken(names: Iterable[str]) -> str:
        return ", ".join(f"max({field(name)}) AS {name}" for name in names)

    def field(name: str) -> str:
        text = f"{text_of}(rest, '$.{name}')"
        return f"TRY_CAST({text} AS BIGINT)" if name in _NUMBERS else text

    def control(kind: str) -> str:
        return f"control = '{kind}' AND {_OURS}"

    names = ", ".join([*_OF_START, *_OF_ENVIRONMENT, *_OF_END])
    starts = f"SELECT node_id, writer AS process, min(ts) AS ts, {taken(_OF_START)} FROM once WHERE {control('start')} "
    starts += f"AND {text_of}(rest, '$.process') = writer GROUP BY node_id, writer"
    environments = f"SELECT once.node_id, starts.process, {taken(_OF_ENVIRONMENT)} FROM once JOIN starts ON "
    environments += "once.node_id = starts.node_id AND once.writer = starts.writer "
    environments += f"WHERE {control('environment')} GROUP BY once.node_id, starts.process"
    ends = f"SELECT node_id, writer AS process, max(ts) AS ended, {taken(_OF_END)} FROM once WHERE {control('end')} "
    ends += "GROUP BY node_id, writer"
    return (
        f"SELECT a.node_id, a.process, a.ts, z.ended, {names} FROM ({starts}) AS a "
        f"LEFT JOIN ({environments}) AS e ON a.node_id = e.node_id AND a.process = e.process "
        f"LEFT JOIN ({ends}) AS z ON a.node_id = z.node_id AND a.process = z.process"
    )
