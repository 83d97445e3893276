"""Find out whether the records of loggers arrive in the outbox, and if not, why; `calyx-telemetry doctor`."""

from __future__ import annotations

try:
    import importlib
    import json
    import logging
    import logging.config
    import os
    import runpy
    import sys
    from collections.abc import Iterable
    from dataclasses import asdict
    from pathlib import Path
    from types import SimpleNamespace
    from typing import Any, TextIO

    import click

    from calyx_logging.errors import CalyxError, ConfigError, StorageError
    from calyx_logging.handlers.outbox import OutboxHandler
    from calyx_logging.harness.doctor import Finding, examine, existing_loggers
    from calyx_logging.scripts import completing
    from calyx_logging.scripts.cli import count_text, json_option, print_json, root_option, run
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py doctor") from None

_OWN = ("calyx_logging", "asyncio", "click", "concurrent", "concurrent_log_handler", "portalocker", "rich")


@click.command("doctor", short_help="Show which loggers reach the outbox, and what stops the others.")
@click.argument("targets", nargs=-1, required=True, metavar="TARGET…", shell_complete=completing.files)
@root_option
@click.option("--logger", "named", multiple=True, metavar="NAME", help="Examine this logger, too (may be repeated).")
@click.option("--named-only", is_flag=True, help="Leave out loggers that no configuration and no --logger names.")
@click.option("--level", default="INFO", show_default=True, help="The level of the canary.")
@json_option
def command(
    targets: tuple[str, ...], root: str | None, named: tuple[str, ...], named_only: bool, level: str, as_json: bool
) -> None:
    """Send a canary record through every logger and say what stops those that do not arrive in the outbox.

    Each TARGET is set up in turn, as the harness would: a logging configuration (.json, .yaml, .toml, .ini), a Python
    file, or a module, with a function to call if need be (harness.main:setup). Canaries go into a temporary outbox.
    Exit code 1 when one does not arrive.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ConfigError(f"--level {level}: give the name of a level, such as INFO")
    if root is not None:
        os.environ["CALYX_ROOT"] = root
    before, names = existing_loggers(), list(named)
    results = _take_standard_output()
    for target in targets:
        names += _set_up(target)
    _as_servers_start()
    if not OutboxHandler.made:
        raise ConfigError(
            f"{', '.join(targets)} configures no OutboxHandler",
            hint="name the file that configures logging (not one that does so under __main__ only), or module:function",
        )
    made = [] if named_only else sorted(name for name in existing_loggers() - before if not _is_own(name))
    findings = examine(dict.fromkeys(["root", *names, *made]), number)
    if as_json:
        print_json({"level": level.upper(), "loggers": [asdict(finding) for finding in findings]}, results)
    else:
        _show(findings, results)
    results.flush()
    if not all(finding.is_well for finding in findings):
        raise SystemExit(1)


def _as_servers_start() -> None:
    """Configure loggers as imported servers will when they start, unless the set-up has done so."""
    uvicorn = sys.modules.get("uvicorn.config")
    if uvicorn is not None and not logging.getLogger("uvicorn").handlers:
        _call("uvicorn", logging.config.dictConfig, uvicorn.LOGGING_CONFIG)


def _take_standard_output() -> TextIO:
    """Keep standard output for results: what the harness prints, now or at exit, goes to standard error."""
    sys.stdout.flush()
    results = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors="backslashreplace")
    os.dup2(2, 1)
    return results


def _is_own(name: str) -> bool:
    return name.partition(".")[0] in _OWN


def _set_up(target: str) -> list[str]:
    """Apply a target's logging set-up; return the names of the loggers it configures."""
    path = Path(target)
    if path.suffix.lower() in (".json", ".yaml", ".yml", ".toml"):
        return _configure(_read(path), target)
    if path.suffix.lower() in (".ini", ".cfg", ".conf"):
        _call(target, logging.config.fileConfig, target, disable_existing_loggers=False)
        return []
    module, _, attribute = target.partition(":")
    if target.endswith(".py") or ".py:" in target:
        script, _, attribute = (target if ".py:" in target else f"{target}:").rpartition(":")
        found: Any = SimpleNamespace(**_call(target, runpy.run_path, script, run_name="__doctor__"))
    else:
        sys.path.insert(0, "")
        found = _call(target, importlib.import_module, module)
    for part in attribute.split(".") if attribute else ():
        if not hasattr(found, part):
            raise ConfigError(f"{target}: there is no {part!r} in it")
        found = getattr(found, part)
    if isinstance(found, dict):
        return _configure(found, target)
    if attribute:
        _call(target, found)
    return []


def _read(path: Path) -> Any:
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise StorageError.of(error, "read the configuration", path) from error
    try:
        if path.suffix.lower() == ".json":
            return json.loads(text)
        if path.suffix.lower() == ".toml":
            import tomllib

            return tomllib.loads(text)
        try:
            import yaml  # type: ignore[import-untyped]
        except ImportError:
            raise ConfigError("PyYAML is not installed", path=path, hint="pip install PyYAML") from None
        return yaml.safe_load(text)
    except CalyxError:
        raise
    except Exception as error:  # each parser has errors of its own
        raise ConfigError(f"cannot be read: {error}", path=path) from None


def _configure(config: object, target: str) -> list[str]:
    if not isinstance(config, dict):
        raise ConfigError(f"{target} holds a {type(config).__name__}, no configuration for dictConfig")
    _call(target, logging.config.dictConfig, config)
    loggers = config.get("loggers")
    return list(loggers) if isinstance(loggers, dict) else []


def _call(target: str, function: Any, *args: Any, **options: Any) -> Any:
    """Call a function of the harness; turn any exception it raises into a configuration error."""
    try:
        return function(*args, **options)
    except (CalyxError, KeyboardInterrupt):
        raise
    except BaseException as error:
        cause = error
        while cause.__cause__ is not None:  # dictConfig wraps what a handler raised
            cause = cause.__cause__
        if isinstance(cause, CalyxError):
            raise cause from None
        hint = "name it as seen from this folder, or give a file" if isinstance(cause, ModuleNotFoundError) else None
        raise ConfigError(f"{target} fails: {type(cause).__name__}: {cause}", hint=hint) from error


def _show(findings: Iterable[Finding], results: TextIO) -> None:
    findings = list(findings)
    width = max(len(finding.logger) for finding in findings)
    for finding in findings:
        state = "ok     " if finding.is_well else "TWICE  " if finding.arrives else "STOPPED"
        click.echo(f"{state}  {finding.logger:{width}}  {finding.cause or ''}".rstrip(), results)
        if finding.advice:
            click.echo(f"         {finding.advice}", results)
    stopped = sum(not finding.arrives for finding in findings)
    click.echo(f"{count_text(len(findings), 'logger')}, {stopped} stopped in this set-up", results)
    click.echo("what a program does to logging later is not seen: calyx-telemetry run counts a real run", results)


if __name__ == "__main__":
    run(command)
