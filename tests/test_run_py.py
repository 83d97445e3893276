"""run.py: a private environment from a Python and pip alone. (The whole way is proved by `.ci/run`.)"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPO


def call(*args: str, code: str = "", cwd: Path = REPO) -> subprocess.CompletedProcess[str]:
    """Run run.py, or code that has imported it as `run`."""
    command = [sys.executable, str(REPO / "run.py"), *args]
    if code:
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(REPO)!r}); import run\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_help_without_arguments() -> None:
    """It says what it can do, and that something was missing."""
    assert call().returncode == 2
    assert call("--help").returncode == 0
    assert "smoke-test" in call("--help").stdout


def test_it_needs_only_the_standard_library() -> None:
    """Nothing is imported that a bare Python does not have."""
    tree = ast.parse((REPO / "run.py").read_text("utf-8"), feature_version=(3, 6))
    names = {alias.name for item in ast.walk(tree) if isinstance(item, ast.Import) for alias in item.names}
    assert names <= set(sys.stdlib_module_names)


def test_neither_pip_nor_ensurepip_names_the_package(tmp_path: Path) -> None:
    """One message with the command that mends it."""
    done = call(code=f"run.has_module = lambda name: False; run.make_venv({str(tmp_path / 'v')!r}, 'x')")
    assert done.returncode == 1
    assert "sudo apt install python3-venv" in done.stderr
    assert not (tmp_path / "v").exists()


def test_an_old_python_looks_for_a_newer_one() -> None:
    """It runs with it, or says what is needed."""
    done = call(code="run.LEAST = (99, 0); run.NEWER = ['no-such-python']; run.main(['smoke-test'])")
    assert done.returncode == 1
    assert "needs Python 99.0 or newer" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="venv layout")
def test_an_environment_without_ensurepip_is_fed_by_the_systems_pip(tmp_path: Path) -> None:
    """venv --without-pip, then `pip --python`."""
    venv = tmp_path / "my vënv"
    done = call(
        code=f"""
import os
real = run.has_module
run.has_module = lambda name: name != "ensurepip" and real(name)
venv = {str(venv)!r}
python = os.path.join(venv, "bin", "python")
run.make_venv(venv, python)
run.pip(venv, python, ["--version"])
"""
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pip ")
    assert not list(venv.glob("bin/pip*"))


@pytest.mark.parametrize(
    ("args", "parallel", "fast"),
    [
        ([], True, False),
        (["--fast"], True, True),
        (["-q", "--durations=20"], True, False),
        (["-k", "chunk"], False, False),
        (["tests/core"], False, False),
        (["-x", "--pdb"], False, False),
        (["--fast", "tests/query"], False, True),
        (["-n", "3"], False, False),
    ],
)
def test_all_tests_run_in_parallel_and_a_selection_does_not(args: list[str], parallel: bool, fast: bool) -> None:
    """No workers are started for a few tests, or under a debugger; pytest is given the arguments as they are."""
    done = call(code=f"print(*run.pytest_arguments({args!r}), sep='\\n')")
    given = done.stdout.splitlines()
    assert ("--dist" in given, "not slow" in given) == (parallel, fast), done.stderr
    assert [arg for arg in given if arg in args] == [arg for arg in args if arg != "--fast"]
    assert "--fast" not in given
