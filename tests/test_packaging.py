"""The right files are built and installed."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipapp
import zipfile
from pathlib import Path

import pytest

from conftest import REPO, events_of, python


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


@pytest.mark.slow
def test_a_release_has_the_same_bytes_each_time(dist: Path, tmp_path: Path) -> None:
    """Built twice from the sdist, in folders of other names, at other times."""
    sys.path.insert(0, str(REPO / "tools"))
    try:
        import build_release
    finally:
        sys.path.pop(0)
    hashes = []
    for name in ("one", "another"):
        (tmp_path / name).mkdir()
        shutil.unpack_archive(next(dist.glob("*.tar.gz")), tmp_path / name, filter="data")
        (source,) = (tmp_path / name).iterdir()
        made = build_release.build(source, tmp_path / f"made {name}", "1700000000")
        hashes.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in made})
    assert len(hashes[0]) == 2
    assert hashes[0] == hashes[1]


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


def test_one_file_does_it_all(dist: Path, tmp_path: Path) -> None:
    """A zipapp of the wheel and what it needs, without orjson and uuid-utils, records, exports and imports."""
    (wheel,) = dist.glob("*.whl")
    app = tmp_path / "app"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(app)
    needed = ["structlog", "pythonjsonlogger", "concurrent_log_handler", "portalocker", "click", "rich", "markdown_it"]
    for name in [*needed, "mdurl", "pygments"]:
        (found,) = importlib.import_module(name).__path__
        shutil.copytree(found, app / name, ignore=shutil.ignore_patterns("__pycache__"))
    (app / "__main__.py").write_text("from calyx_logging.scripts.cli import main\nmain()\n")
    zipapp.create_archive(app, tmp_path / "calyx.pyz")
    for folder in ("node", "stick", "hub"):
        (tmp_path / folder).mkdir()
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "calyx.pyz")}
    log = "import logging, calyx_logging; calyx_logging.setup(root='node'); logging.warning('from a zip')"
    for args in (
        ["calyx.pyz", "provision", "n-1", "--root", "node"],
        ["-c", log],
        ["calyx.pyz", "export", "--root", "node", "--to", "stick", "--self-verifying"],
        ["calyx.pyz", "import", "stick", "--root", "hub"],
    ):
        # -S: nothing of this environment is there
        command = [sys.executable, "-S", *args]
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (args, done.stdout, done.stderr)
    (bundle,) = (tmp_path / "hub/telemetry/federated/n-1").glob("2*")
    assert [event["message"] for event in events_of(bundle)] == ["from a zip"]


def test_pyinstaller_is_told_where_the_hook_is(dist: Path) -> None:
    """By an entry point of the wheel, which names the folder of a hook that is in it."""
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entries = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert "[pyinstaller40]\nhook-dirs = calyx_logging.harness.pyinstaller:hook_dirs" in entries
    assert "calyx_logging/harness/pyinstaller/hook-calyx_logging.py" in names
    from calyx_logging.harness.pyinstaller import hook_dirs

    assert Path(hook_dirs()[0], "hook-calyx_logging.py").is_file()


# ------------------------------------------------------------------ the compiled core

ASK = """
import json, sys
from calyx_logging.compiled import WAY
import calyx_logging, logging
calyx_logging.provision(sys.argv[1], "test-node")
handler = calyx_logging.OutboxHandler(root=sys.argv[1], identity=False)
logging.getLogger().addHandler(handler)
logging.getLogger("harness").warning("kept %d", 1, extra={"ms": 1.5, "text": "é"})
handler.close()
print(WAY)
"""


def unpacked(dist: Path, folder: Path) -> Path:
    """The wheel's files, as they are installed."""
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def way_of(site: Path, root: Path, **environment: str) -> tuple[str, str]:
    """Log one event with an installed copy: which way it says it went, and what it says on standard error."""
    root.mkdir()
    done = python(ASK, str(root), cwd=root, PYTHONPATH=str(site), **environment)
    assert done.returncode == 0, done.stderr
    (event,) = events_of(root / "telemetry" / "outbox" / "test-node")
    assert (event["message"], event["ms"], event["text"], event["seq"]) == ("kept 1", 1.5, "é", 0)
    return done.stdout.strip(), done.stderr


@pytest.fixture
def site(dist: Path, tmp_path: Path) -> Path:
    """An installed copy with a compiled core."""
    site = unpacked(dist, tmp_path / "site")
    if not core_of(site).exists():
        pytest.skip("no C compiler is here")
    return site


def core_of(site: Path) -> Path:
    return site / "calyx_logging" / "compiled" / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"


def test_the_wheel_brings_the_compiled_core(site: Path, tmp_path: Path) -> None:
    """A fresh installation has the compiled core, which the environment can turn off."""
    assert way_of(site, tmp_path / "one", CALYX_PURE="") == ("compiled core", "")
    assert way_of(site, tmp_path / "two", CALYX_PURE="0") == ("compiled core", "")
    assert way_of(site, tmp_path / "three", CALYX_PURE="1") == ("pure Python (CALYX_PURE is set)", "")


def test_without_a_compiler_it_is_installed_all_the_same(dist: Path, tmp_path: Path) -> None:
    """Without a compiler the sdist installs in pure Python."""
    (sdist,) = dist.glob("*.tar.gz")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--no-isolation",
            "--wheel",
            "--outdir",
            str(tmp_path),
            *_unpack(sdist, tmp_path),
        ],
        check=True,
        capture_output=True,
        env={**os.environ, "CC": "no-such-compiler", "LDSHARED": "no-such-compiler", "PATH": str(tmp_path)},
    )
    site = unpacked(tmp_path, tmp_path / "site")
    assert not core_of(site).exists()
    assert way_of(site, tmp_path / "root", CALYX_PURE="") == ("pure Python (no compiled core is installed)", "")


def _unpack(sdist: Path, folder: Path) -> list[str]:
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return [str(folder / sdist.name.removesuffix(".tar.gz"))]


@pytest.mark.parametrize("kind", ["garbage", "empty", "cut off", "of another Python", "of another version"])
def test_a_core_that_does_not_fit_is_left_aside(site: Path, tmp_path: Path, kind: str) -> None:
    """A core that cannot be loaded is said in one line, and everything works."""
    core = core_of(site)
    if kind == "garbage":
        core.write_bytes(b"\x7fELF" + bytes(range(256)) * 40)
    elif kind == "empty":
        core.write_bytes(b"")
    elif kind == "cut off":
        core.write_bytes(core.read_bytes()[:5000])
    elif kind == "of another Python":
        core.rename(core.with_name("_core.cpython-399-x86_64-linux-gnu.so"))
    else:
        (site / "calyx_logging" / "_version.py").write_text('__version__ = "0.0.9"\n', "utf-8")
    way, said = way_of(site, tmp_path / "root", CALYX_PURE="")
    assert way.startswith("pure Python (the compiled core ")
    assert said.count("\n") == 1
    assert "going on in pure Python" in said
