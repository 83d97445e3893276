"""A prompt for SQL, with history and completion; `calyx-telemetry query --shell`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from calyx_logging.errors import CalyxError, ConfigError
from calyx_logging.query.sql import run_sql
from calyx_logging.query.views import VIEWS
from calyx_logging.scripts.cli import remark, tell

__all__ = ["converse", "history_file"]

_HELP = """\
A query ends with a semicolon. The views: .tables, .columns VIEW. Up and Ctrl-R: earlier queries. Tab completes.
Ctrl-C stops a query. .quit or Ctrl-D ends."""


def history_file() -> Path:
    """Return the file of earlier queries, in the user's folder for such state."""
    if os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home())
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return base / "calyx-logging" / "sql_history"


def converse(backend: Any, show: Callable[[str], None]) -> None:
    """Read queries from a terminal and show their answers, until the end of input.

    Args:
        backend: of `run_sql`.
        show: runs a query and shows its rows; an error of this package is printed.

    Raises:
        ConfigError: there is no terminal, or prompt_toolkit is not installed.
    """
    if not sys.stdin.isatty():
        raise ConfigError("--shell needs a terminal", hint="leave it out to read one query from standard input")
    session = _session(backend)
    tell("Query events in SQL; .help says more.")
    lines: list[str] = []
    while True:
        try:
            line = session.prompt("...> " if lines else "sql> ")
        except KeyboardInterrupt:
            lines = []
            continue
        except EOFError:
            return
        if not lines and line.strip().startswith("."):
            if line.strip() in (".quit", ".exit"):
                return
            line = _command(line.split())
            if line:
                _answer(line, show)
            continue
        lines.append(line)
        if line.rstrip().endswith(";"):
            _answer("\n".join(lines), show)
            lines = []
        elif not line.strip():
            lines = [one for one in lines if one.strip()]


def _session(backend: Any) -> Any:
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import FileHistory, InMemoryHistory
        from prompt_toolkit.lexers import PygmentsLexer
        from pygments.lexers.sql import SqlLexer
    except ImportError as error:
        hint = 'pip install "calyx-logging[query]"'
        raise ConfigError(f"the shell needs prompt_toolkit, which is not installed ({error})", hint=hint) from None
    found = run_sql(backend, "SELECT table_name, column_name FROM information_schema.columns").to_pylist()
    words = {word for row in found for word in row.values()}
    words |= {row["w"] for row in run_sql(backend, "SELECT keyword_name AS w FROM duckdb_keywords()").to_pylist()}
    path = history_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        history: Any = FileHistory(str(path))
    except OSError as error:
        remark(f"queries are not remembered: {error}")
        history = InMemoryHistory()
    completer = WordCompleter(sorted(words), ignore_case=True)
    return PromptSession(
        history=history, completer=completer, complete_while_typing=False, lexer=PygmentsLexer(SqlLexer)
    )


def _command(words: list[str]) -> str:
    """Return the query that a command stands for; or say what it asks for, and return none."""
    if words[0] == ".tables":
        tell(", ".join(VIEWS))
        return ""
    if words[0] == ".columns" and len(words) == 2:
        name = words[1].replace('"', '""')
        return f'SELECT column_name AS "column", column_type AS type FROM (DESCRIBE "{name}")'
    tell(_HELP)
    return ""


def _answer(sql: str, show: Callable[[str], None]) -> None:
    try:
        show(sql)
    except KeyboardInterrupt:
        remark("stopped")
    except CalyxError as error:
        remark(f"error: {error}")
