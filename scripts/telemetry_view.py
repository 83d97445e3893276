"""Show the report's page live in the browser, from this machine alone; `calyx-telemetry view`."""

from __future__ import annotations

try:
    import html
    import os
    import sys
    from contextlib import nullcontext
    from pathlib import Path

    import click

    from calyx_logging.core import files
    from calyx_logging.core.temporary import temporary_folder
    from calyx_logging.errors import ConfigError
    from calyx_logging.query.executors import Here, Pool
    from calyx_logging.report.report import MEMORY
    from calyx_logging.report.source import Source
    from calyx_logging.scripts.cli import print_json, remark, run, tell
    from calyx_logging.scripts.engines import jobs_option
    from calyx_logging.scripts.sources import from_option
    from calyx_logging.view.server import Server
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py view") from None

TOKEN = "CALYX_VIEW_TOKEN"
"""Environment variable for the token in the address; together with --port it keeps the address the same."""

_LEAST_TOKEN = 16


@click.command("view", short_help="Show the page live in the browser.")
@from_option
@click.option("--open", "open_it", is_flag=True, help="Open it in the browser.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Port to listen on. Default: a free one."
)
@click.option("--memory", default=MEMORY, show_default=True, metavar="SIZE", help="What the database takes at most.")
@click.option("--json", "as_json", is_flag=True, help="Print the address as one JSON document.")
@jobs_option
def command(
    place: str, root: str | None, open_it: bool, port: int, memory: str, as_json: bool, jobs: int | None
) -> None:
    """Serve the report's page to the browser on this machine, until Ctrl-C.

    Events of an outbox appear as they are written, from all processes, and the numbers keep up. Every run and case can
    be opened; they are read on demand. The server listens only on 127.0.0.1, requires the token in the address, and
    changes nothing. Needs the extra "view".
    """
    token = os.environ.get(TOKEN) or None
    if token is not None and not (len(token) >= _LEAST_TOKEN and token.replace("-", "").replace("_", "").isalnum()):
        raise ConfigError(
            f"{TOKEN} is no token", hint=f"give at least {_LEAST_TOKEN} letters, digits, - or _, or leave it out"
        )
    source = Source.find(place, root)
    engine = Here() if jobs == 1 else Pool(jobs)
    warn = lambda text: remark(f"warning: {text}")  # noqa: E731  # for one argument
    server = Server(source, engine, memory=memory, port=port, token=token, warn=warn)
    if as_json:
        print_json({"url": server.url, "port": server.port, "place": source.place, "where": source.where})
    else:
        tell(server.url)
        remark(f"Serving {source.where} to this machine only. Press Ctrl-C to stop.")
    with temporary_folder("calyx-view-") if open_it else nullcontext() as folder:
        if folder is not None and not _open(server.url, folder):
            remark("warning: no browser could be started: open the address above")
        server.run()
    if server.is_busy:  # a thread in the midst of the database's code cannot be ended otherwise
        sys.stdout.flush()
        os._exit(0)


def _open(url: str, folder: Path) -> bool:
    """Open the address through a page that only this user can read, since other users can see command lines."""
    page = folder / "open.html"
    target = html.escape(url)
    text = f'<!DOCTYPE html><meta http-equiv="refresh" content="0;url={target}"><a href="{target}">calyx-logging</a>'
    files.write_new(page, [text.encode()], sync=False)
    return click.launch(str(page)) == 0


if __name__ == "__main__":
    run(command)
