"""`calyx-telemetry`: the group of all commands, and what they share.

Contract of every command: results on standard output, progress and remarks on standard error, `--json` prints one
JSON document. Exit codes: 0 done, 1 the answer is no (a fault, a failed check), 2 usage or configuration, 3 another
process is already running it, 4 a file system error.
"""

from __future__ import annotations

import difflib
import importlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from calyx_logging import __version__
from calyx_logging.compiled import WAY
from calyx_logging.core import json_bytes
from calyx_logging.core.text import count_text
from calyx_logging.errors import CalyxError, remedy_for
from calyx_logging.events.values import lower
from calyx_logging.format.manifest import Manifest
from calyx_logging.scripts import completing

__all__ = [
    "advancing",
    "contents_text",
    "count_text",
    "hub_option",
    "json_option",
    "json_text",
    "machine_stream",
    "main",
    "named_root",
    "print_json",
    "progress_bar",
    "put",
    "remark",
    "root_option",
    "run",
    "shown",
    "sign_options",
    "size_text",
    "stepping",
    "tell",
    "warn_all",
]

COMMANDS = {
    "provision": "telemetry_provision",
    "smoke-test": "telemetry_smoke_test",
    "run": "telemetry_run",
    "status": "telemetry_status",
    "seal": "telemetry_seal",
    "export": "telemetry_export",
    "verify": "telemetry_verify",
    "import": "telemetry_import",
    "audit": "telemetry_audit",
    "table": "telemetry_table",
    "query": "telemetry_query",
    "report": "telemetry_report",
    "view": "telemetry_view",
    "tail": "telemetry_tail",
    "show": "telemetry_show",
    "files": "telemetry_files",
    "receipt": "telemetry_receipt",
    "prune": "telemetry_prune",
    "trust": "telemetry_trust",
    "manifest": "telemetry_manifest",
    "doctor": "telemetry_doctor",
    "completion": "telemetry_completion",
}
COMPLETE_VAR = "_CALYX_TELEMETRY_COMPLETE"
"""Set by a shell that asks what to offer (click, "Shell Completion")."""

_ACTS = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
"""Characters that a terminal interprets or does not show; in JSON they occur only inside strings."""

_MAX_WARNINGS = 20
_F = TypeVar("_F", bound=Callable[..., Any])


class _Group(click.Group):
    """Loads a command's module when the command is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], COMMANDS, 2)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {' or '.join(near)}?", ctx) from None

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"calyx_logging.scripts.{COMMANDS[cmd_name]}").command
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(f"{__version__} ({WAY})", prog_name="calyx-telemetry")
def group() -> None:
    """Provision a node, look at its outbox, export it as verified bundles; import them at a hub.

    Exit codes: 0 done; 1 the answer is no (a fault, a failed check); 2 usage or configuration; 3 another process is
    already running it; 4 a file system error.
    """


def root_option(function: _F) -> _F:
    """`--root`, with `--repo-root` as its other name."""
    return named_root(
        "The folder that holds runtime/, telemetry/ and exports/. Default: CALYX_ROOT, else the nearest folder "
        "from here upwards with runtime/node_id.txt."
    )(function)


def hub_option(function: _F) -> _F:
    """`--root` of a hub."""
    return named_root(
        "The hub's root; the store is telemetry/federated below it. Default: CALYX_ROOT, else as for a node."
    )(function)


def named_root(help_text: str) -> Callable[[_F], _F]:
    """`--root` with a help of its own."""
    return click.option(
        "--root", "--repo-root", "root", metavar="FOLDER", help=help_text, shell_complete=completing.folders
    )


def sign_options(function: _F) -> _F:
    """`--sign KEY` and `--no-sign`."""
    sign = click.option(
        "--sign",
        metavar="KEY",
        shell_complete=completing.files,
        help="Sign with this OpenSSH private key, or the .pub of one that ssh-agent has. Default: the key named with "
        "provision --signing-key, if one was.",
    )
    return sign(click.option("--no-sign", is_flag=True, help="Do not sign, even if a key is configured.")(function))


def json_option(function: _F) -> _F:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(function)


@contextmanager
def machine_stream(file: TextIO | None = None) -> Iterator[TextIO]:
    """Yield a stream for what programs read: UTF-8 whatever the locale, on standard output unless `file` is given."""
    target = sys.stdout if file is None else file
    target.flush()
    buffer = getattr(target, "buffer", None)
    if buffer is None:  # a stream of text alone, in another program
        yield target
        return
    stream = io.TextIOWrapper(buffer, encoding="utf-8", errors="backslashreplace", newline="")
    try:
        yield stream
    finally:
        stream.detach()


def put(text: str, file: TextIO | None = None) -> None:
    """Print one line for programs."""
    with machine_stream(file) as stream:
        stream.write(f"{text}\n")


def print_json(document: object, file: TextIO | None = None) -> None:
    """Print the result for programs, on standard output unless `file` is given."""
    put(json_text(document, indent=True), file)


def json_text(document: object, *, indent: bool = False) -> str:
    """Return JSON without characters that a terminal would interpret."""
    text = json_bytes.dumps(lower(document)[0], option=json_bytes.OPT_INDENT_2 if indent else 0).decode()
    return _ACTS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def remark(text: str) -> None:
    """Print one line for people on standard error."""
    click.echo(shown(text), err=True)


def warn_all(texts: Sequence[str]) -> None:
    """Print warnings on standard error; only the first ones if there are very many."""
    for text in texts[:_MAX_WARNINGS]:
        remark(f"warning: {text}")
    if len(texts) > _MAX_WARNINGS:
        remark(f"warning: and {len(texts) - _MAX_WARNINGS} more of these")


def tell(text: str) -> None:
    """Print one line of the result for people."""
    click.echo(shown(text))


def shown(text: str) -> str:
    """Escape what a terminal would interpret or not show, since names and texts may be from elsewhere."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode() for letter in text
    )


def contents_text(manifest: Manifest, events: int) -> str:
    """Describe a bundle's contents: `2 chunks, 31 events, 12.5 kB`; control lines are no events."""
    return (
        f"{count_text(len(manifest.chunks), 'chunk')}, {count_text(events, 'event')}, {size_text(manifest.total_bytes)}"
    )


def size_text(count: int) -> str:
    """Format a size in bytes for people: `512 B`, `3.4 MB` (powers of 1000)."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a callback (bytes done, bytes in all) that draws a bar; None if standard error is no terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # results belong on standard output, even while a bar is drawn
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def advancing(what: str, size: Callable[[], int]) -> Iterator[Callable[[int], None]]:
    """Yield a callback that advances a bar by bytes; `size`, the total, is called only if there is a bar."""
    with progress_bar(what) as progress:
        total = 0 if progress is None else size()
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, total)

        yield advance


@contextmanager
def stepping() -> Iterator[Callable[[str], None] | None]:
    """Yield a callback that shows the current step; None if standard error is no terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("beginning") as status:
        yield lambda text: status.update(shown(text))


def run(command: click.Command) -> None:
    """Run a command as a program: a CalyxError becomes one line on standard error and its exit code."""
    _utf8_streams()
    try:
        command.main(standalone_mode=False, prog_name="calyx-telemetry" if command is group else None)
    except CalyxError as error:
        _fail(str(error), error.exit_code)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
    except BrokenPipeError:
        # the reader (head, less) has gone; Python must not try to flush to it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        name: object = Path.cwd() if error.filename is None else error.filename
        place = os.fsdecode(name) if isinstance(name, bytes) else name
        _fail(f"{place}: {error.strerror or error} ({remedy_for(error)})", 4)


def main() -> None:
    """The entry point of `calyx-telemetry`."""
    run(group)


def _fail(text: str, code: int) -> None:
    click.echo(f"error: {shown(text)}", err=True)
    sys.exit(code)


def _utf8_streams() -> None:
    """Make the streams escape what a console's code page cannot show, so that no result is lost."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
