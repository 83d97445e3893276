"""The right files are built and installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from conftest import REPO, python


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist, built from a clean copy of what git tracks."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    for name in listing.stdout.decode().split("\0"):
        if name and (REPO / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPO / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(source)],
        check=True,
        capture_output=True,
    )
    return target


def tracked(folder: str) -> set[str]:
    return {path.name for path in (REPO / folder).glob("*.py")}


def test_the_wheel_holds_three_packages_and_nothing_else(dist: Path) -> None:
    """handlers and scripts are under calyx_logging; no top-level name is taken from anyone."""
    (wheel,) = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2
    assert "calyx_logging" in tops
    for folder in ("handlers", "scripts"):
        inside = {Path(name).name for name in names if name.startswith(f"calyx_logging/{folder}/")}
        assert inside == tracked(folder)
    assert "calyx_logging/py.typed" in names
    assert {
        f"calyx_logging/format/schemas/{path.name}" for path in (REPO / "calyx_logging/format/schemas").iterdir()
    } <= set(names)
    assert {f"calyx_logging/report/page/{path.name}" for path in (REPO / "calyx_logging/report/page").iterdir()} <= set(
        names
    )
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("ECHARTS-NOTICE.txt") and "licenses" in name for name in names)
    entry_points = next(name for name in names if name.endswith("entry_points.txt"))
    assert "calyx-telemetry = calyx_logging.scripts.cli:main" in zipfile.ZipFile(wheel).read(entry_points).decode()


def test_the_sdist_can_be_built_from(dist: Path) -> None:
    """Sources, licence and README."""
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for name in (
        "setup.cfg",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "handlers/outbox.py",
        "scripts/cli.py",
        "run.py",
    ):
        assert name in names
    for name in ("tests/conftest.py", "docs/format.md", "examples/inspect_ai_eval.py", "CHANGELOG.md"):
        assert name in names
    for name in ("CONTRIBUTING.md", "SECURITY.md", ".pre-commit-config.yaml", ".github/workflows/tests.yml"):
        assert name in names


def test_a_plain_install_works_from_anywhere(dist: Path, tmp_path: Path) -> None:
    """Imported from the installed copy, not from the checkout."""
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    done = python(
        "import calyx_logging, calyx_logging.handlers, calyx_logging.scripts.cli as c; print(c.__file__)",
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path / "site"),
    )
    assert done.stdout.strip().startswith(str(tmp_path / "site")), done.stderr
