"""Completion, asked for as bash, zsh, fish and PowerShell do, and by those shells themselves where they are."""

from __future__ import annotations

import logging
import logging.config
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bundles import make_bundle, make_node
from calyx_logging import benchmark_run
from calyx_logging.query.named import NAMES
from conftest import config, telemetry

PROGRAM = [sys.executable, "-m", "calyx_logging.scripts"]


def offered(line: str, shell: str = "bash") -> list[tuple[str, str]]:
    """Ask as a shell does; (kind, text) of each offer."""
    words = [*shlex.split(line), *([""] if line.endswith(" ") else [])]
    asked = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        "powershell": {"CALYX_COMPLETE_LINE": line.rstrip(), "CALYX_COMPLETE_WORD": words[-1]},
    }[shell]
    environ = {**os.environ, "_CALYX_TELEMETRY_COMPLETE": f"{shell}_complete", **asked}
    done = subprocess.run(PROGRAM, env=environ, capture_output=True, text=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    lines = [one for one in done.stdout.splitlines() if one]
    if shell == "powershell":
        return [("plain", one.split("\t")[0]) for one in lines]
    return [(one.split(",", 1)[0], one.split(",", 1)[1]) for one in lines]


@pytest.fixture
def node_and_hub(tmp_path: Path) -> tuple[Path, Path]:
    """A node with two runs, and a hub that has them."""
    node = make_node(tmp_path, "n-1")
    for run_id in ("first-run", "second-run"):
        logging.config.dictConfig(config(node))
        with benchmark_run(suite="arithmetic", run_id=run_id, root=node.root):
            logging.getLogger("harness").info("event")
    make_bundle(node, range(1))
    (tmp_path / "hub").mkdir()
    assert telemetry("import", node.exports, "--root", tmp_path / "hub").returncode == 0
    return node.root, tmp_path / "hub"


@pytest.mark.parametrize("shell", ["bash", "powershell"])
def test_commands_and_named_queries(shell: str) -> None:
    """By their beginning."""
    assert offered("calyx-telemetry ta", shell) == [("plain", "table"), ("plain", "tail")]
    assert {text for _, text in offered("calyx-telemetry query --named ", shell)} == set(NAMES)
    assert offered("calyx-telemetry query --named lead", shell)[0] == ("plain", "leaderboard")
    assert ("plain", "--root") in offered("calyx-telemetry status --ro", shell)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("calyx-telemetry status --root ", "dir"),
        ("calyx-telemetry verify ", "file"),
        ("calyx-telemetry import x", "file"),
        ("calyx-telemetry export --to ", "dir"),
        ("calyx-telemetry export --sign ", "file"),
        ("calyx-telemetry report -o ", "file"),
        ("calyx-telemetry query --from ./", "dir"),
    ],
)
def test_files_are_left_to_the_shell(line: str, kind: str) -> None:
    """The shell quotes them itself."""
    assert [found for found, _ in offered(line)] == [kind]
    assert offered(line, "powershell") == []


def test_runs_and_nodes(node_and_hub: tuple[Path, Path]) -> None:
    """Those of the root that was named, at a node and at a hub."""
    for root in map(str, node_and_hub):
        for command in ("tail", "report", "files"):
            offers = {text for _, text in offered(f"calyx-telemetry {command} --root {shlex.quote(root)} --run ")}
            assert offers == {"first-run", "second-run"}, (command, root)
        assert offered(f"calyx-telemetry tail --root {shlex.quote(root)} --node ") == [("plain", "n-1")]
    assert offered(f"calyx-telemetry audit --root {node_and_hub[1]} n") == [("plain", "n-1")]
    assert offered("calyx-telemetry tail --root /nowhere --run ") == []


def test_names_that_a_shell_would_run_are_not_offered(tmp_path: Path) -> None:
    """Names may be from elsewhere, and shells insert them as they are."""
    node = make_node(tmp_path, "n-1")
    for run_id in ("$(touch PWN)", "two words", "fine-1.2", "a,b", "`x`", "a;b"):
        with benchmark_run(suite="arithmetic", run_id=run_id, root=node.root):
            pass
    offers = offered(f"calyx-telemetry report --root {shlex.quote(str(node.root))} --run ")
    assert offers == [("plain", "fine-1.2")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_real_shell(tmp_path: Path, shell: str) -> None:
    """The script is understood, and offers the commands."""
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    script = telemetry("completion", shell)
    assert script.returncode == 0
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "calyx-telemetry"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m calyx_logging.scripts "$@"\n')
    program.chmod(0o755)
    (tmp_path / "script").write_text(script.stdout)
    asks = {
        "bash": "source ./script; COMP_WORDS=(calyx-telemetry ta); COMP_CWORD=1;"
        " _calyx_telemetry_completion calyx-telemetry;"
        ' printf "%s\\n" "${COMPREPLY[@]}"',
        "zsh": "compdef() { :; }; compadd() { print -l ${@[-1]}; };"
        " _describe() { print -l ${(P)3//:*/} ${(P)5//:*/}; };"
        " source ./script; words=(calyx-telemetry ta); CURRENT=2; _calyx_telemetry_completion",
        "fish": "source script; complete -C 'calyx-telemetry ta'",
    }
    flags = ["--norc"] if shell == "bash" else ["-f"] if shell == "zsh" else ["--no-config"]
    environ = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(
        [shell, *flags, "-c", asks[shell]], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert {"table", "tail"} <= set(done.stdout.split()), done.stdout + done.stderr


def test_the_scripts(tmp_path: Path) -> None:
    """Each names the program, and another shell is a usage error that says which there are."""
    for shell in ("bash", "zsh", "fish", "powershell"):
        done = telemetry("completion", shell)
        assert (done.returncode, "calyx-telemetry" in done.stdout) == (0, True)
    done = telemetry("completion", "csh")
    assert (done.returncode, "powershell" in done.stderr) == (2, True)
