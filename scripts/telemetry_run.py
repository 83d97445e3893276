"""Run a program with every record of every logger recorded, and count; `calyx-telemetry run`."""

from __future__ import annotations

try:
    import contextlib
    import logging
    import os
    import shutil
    import signal
    import subprocess
    import sys
    import tempfile
    import time
    from collections import Counter
    from collections.abc import Iterator, Sequence
    from dataclasses import asdict
    from pathlib import Path
    from typing import Any

    import click

    from calyx_logging.errors import ConfigError, StorageError
    from calyx_logging.format.chunk import check_component
    from calyx_logging.harness.mirror import Mirror
    from calyx_logging.harness.reach import ProcessCount, counts_in, environment_for
    from calyx_logging.node import Node
    from calyx_logging.scripts.cli import count_text, json_option, print_json, remark, root_option, run
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py run") from None

_MAX_LINES = 20
_WAIT_SECONDS = 1.0
"""So long it waits for processes that outlive the program."""


@click.command(
    "run",
    short_help="Run a program, record all it logs, and count what arrived.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("command_line", nargs=-1, required=True, metavar="[--] COMMAND…", type=click.UNPROCESSED)
@root_option
@click.option("--capture-all", is_flag=True, help="Record every logger, whatever cuts it off: the default.")
@click.option("--capture", multiple=True, metavar="NAME", help="Record this logger and those below it (repeatable).")
@click.option("--component", default="harness", show_default=True, help="Part of the chunks' names.")
@click.option("--level", metavar="LEVEL", help="Set the root logger's level first, for consoles, too.")
@click.option("--stdout", is_flag=True, help="Also record the lines that it prints.")
@click.option("--strict", is_flag=True, help="Exit with 1 when a record did not arrive.")
@json_option
def command(
    command_line: tuple[str, ...],
    root: str | None,
    capture_all: bool,
    capture: tuple[str, ...],
    component: str,
    level: str | None,
    stdout: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Run COMMAND with the recorder set up before its first line, in it and in every Python process below it.

    Nothing of the program is changed, and its exit code is this command's. At the end it says how many records were
    emitted and how many arrived, and writes that into the outbox. COMMAND's Python must have calyx-logging installed.
    """
    node = Node.find(root)
    if level is not None and level.upper() not in logging.getLevelNamesMapping():
        raise ConfigError(f"--level {level}: give the name of a level, such as INFO")
    with tempfile.TemporaryDirectory(prefix="calyx-run-", ignore_cleanup_errors=True) as folder:
        options: dict[str, Any] = {
            "counts": folder,
            "root": str(node.root),
            "component": check_component(component),
            "capture": ["root"] if capture_all or not capture else list(capture),
            "stdout": stdout,
        }
        if level is not None:
            options["level"] = level.upper()
        code = _run(command_line, environment_for(options, dict(os.environ)))
        counts = _when_ended(Path(folder))
    emitted, arrived = sum(one.emitted for one in counts), sum(one.arrived for one in counts)
    text = f"recorded {arrived} of {count_text(emitted, 'record')} of {len(counts)} process{'es' * (len(counts) != 1)}"
    document = {"emitted": emitted, "arrived": arrived, "processes": [asdict(one) for one in counts]}
    _write(node, text, {**document, **_ending(code), "program": Path(command_line[0]).name})
    if as_json:
        print_json({"exit_code": code, **document}, sys.stderr)
    else:
        _tell(text, counts)
    if code < 0 and os.name == "posix":  # as the program died, for whoever looks at how
        code = 128 - code
    raise SystemExit(code or int(strict and arrived < emitted))


def _when_ended(folder: Path) -> list[ProcessCount]:
    """Return the counts once all processes have ended, or after a moment."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while any(one.state == "running" for one in counts_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return counts_in(folder)


def _run(command_line: Sequence[str], environment: dict[str, str]) -> int:
    """Run the program in the terminal's foreground, and pass on what would end this one; return its exit code."""
    program = shutil.which(command_line[0])
    if program is None:
        raise ConfigError(f"there is no program {command_line[0]!r}", hint="give a command that the shell would find")
    try:
        process = subprocess.Popen([program, *command_line[1:]], env=environment)
    except OSError as error:
        raise StorageError.of(error, "run the program", program) from error
    with _passing_on(process):
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # it has it from the terminal itself
                return process.wait()


@contextlib.contextmanager
def _passing_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    def pass_on(number: int, _: object) -> None:
        process.send_signal(number)

    names = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2") if os.name == "posix" else ()
    before = {name: signal.signal(getattr(signal, name), pass_on) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def _ending(code: int) -> dict[str, object]:
    if code >= 0:
        return {"exit_code": code}
    try:
        return {"signal": signal.Signals(-code).name}
    except ValueError:
        return {"exit_code": code}


def _write(node: Node, text: str, fields: dict[str, Any]) -> None:
    mirror = Mirror(node, "run")
    missed = fields["arrived"] < fields["emitted"]
    event = {"message": text, "logger": "calyx_logging.run", "level": "warning" if missed else "info"}
    if not mirror.keep({**fields, **event}):
        remark(f"could not be written to the outbox: {text}")
    mirror.close()


def _tell(text: str, counts: list[ProcessCount]) -> None:
    remark(text)
    lines = []
    for one in counts:
        if one.state != "ended" and (one.state == "running" or one.arrived < one.emitted):
            of = "was killed" if one.state == "killed" else "still runs"
            lines.append(f"process {one.pid} ({one.program}) {of}: {one.arrived} of {one.emitted} arrived so far")
    missing: Counter[str] = Counter()
    for one in counts:
        missing.update(one.missing)
    lines += [f"missing of logger {name}: {count_text(count, 'record')}" for name, count in missing.most_common()]
    for line in lines[:_MAX_LINES]:
        remark(f"  {line}")
    if len(lines) > _MAX_LINES:
        remark(f"  and {len(lines) - _MAX_LINES} more lines; --json has all")
    if not counts:
        remark("  no Python that has calyx-logging was started, or only with -I, -E or -S, which shut the recorder out")


if __name__ == "__main__":
    run(command)
