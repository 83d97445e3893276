"""Print what makes a shell complete this command's words; `calyx-telemetry completion`."""

from __future__ import annotations

try:
    import click
    from click.shell_completion import get_completion_class

    from calyx_logging.scripts.cli import COMPLETE_VAR, group, put, run
except ImportError as error:
    raise SystemExit(
        f"calyx-logging is not installed for this Python ({error}): run  python3 run.py completion"
    ) from None

_EPILOG = """\b
bash        echo 'source <(calyx-telemetry completion bash)' >> ~/.bashrc
zsh         echo 'source <(calyx-telemetry completion zsh)' >> ~/.zshrc
fish        calyx-telemetry completion fish > ~/.config/fish/completions/calyx-telemetry.fish
PowerShell  calyx-telemetry completion powershell >> $PROFILE
"""


@click.command("completion", short_help="Print the completion of a shell.", epilog=_EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish", "powershell"]))
def command(shell: str) -> None:
    """Print a script that makes a shell complete commands, options, files, nodes, runs and named queries.

    Add it to what the shell reads at its start, and start a new shell.
    """
    completion = get_completion_class(shell)
    assert completion is not None
    put(completion(group, {}, "calyx-telemetry", COMPLETE_VAR).source().strip())


if __name__ == "__main__":
    run(command)
