"""`calyx-telemetry run`: every record of every logger of every process, counted, without touching the program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from calyx_logging import Node
from calyx_logging.outbox.export import export
from conftest import controls_of, events_of

posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

PROGRAM = """
import logging, logging.config, multiprocessing, os, subprocess, sys, time

def work(number):
    logging.getLogger(f"worker.{number}").warning("works")

def cut_off():
    logging.getLogger("first").warning("before")
    logging.config.dictConfig({"version": 1, "handlers": {}, "root": {"level": "INFO"}})
    stats = logging.getLogger("their.stats")
    stats.propagate = False
    stats.addHandler(logging.NullHandler())
    stats.warning("cut off")
    class Theirs(logging.Logger): pass
    logging.setLoggerClass(Theirs)
    own = logging.getLogger("own.class")
    own.propagate = False
    own.warning("own class")
    logging.getLogger().info("root")
    logging.getLogger().debug("not emitted")

def children():
    for method in sys.argv[2:]:
        with multiprocessing.get_context(method).Pool(2) as pool:
            pool.map(work, range(6))
    code = "import logging; logging.getLogger('sub').warning('by subprocess')"
    subprocess.run([sys.executable, "-c", code], check=True)

def filtered():
    logger = logging.getLogger("noisy")
    logger.addFilter(lambda record: record.msg != "noise")
    logger.warning("noise")
    logger.warning("signal")

if __name__ == "__main__":
    globals()[sys.argv[1]]()
"""


def recorded(
    node: Node, tmp_path: Path, *arguments: str, options: tuple[str, ...] = (), program: str = PROGRAM, **env: str
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run a program under `run`; what it did, and the event that counts."""
    script = tmp_path / "program.py"
    script.write_text(program)
    command = [sys.executable, "-m", "calyx_logging.scripts", "run", "--root", str(node.root), *options, "--"]
    done = subprocess.run(
        [*command, sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **env},
    )
    export(node)
    counts = [event for event in events_of(node.outbox) if event["logger"] == "calyx_logging.run"]
    return done, counts[-1] if counts else {}


def messages(node: Node) -> list[str]:
    return sorted(event["message"] for event in events_of(node.outbox) if event["logger"] != "calyx_logging.run")


def test_loggers_that_are_cut_off(node: Node, tmp_path: Path) -> None:
    """All arrive, whatever the program does to logging; its output is its own."""
    done, counts = recorded(node, tmp_path, "cut_off")
    assert done.returncode == 0, done.stderr
    assert messages(node) == ["before", "cut off", "own class", "root"]
    assert (counts["emitted"], counts["arrived"], counts["message"]) == (4, 4, "recorded 4 of 4 records of 1 process")
    assert done.stderr == "before\nown class\nrecorded 4 of 4 records of 1 process\n"
    assert {end["reason"] for end in controls_of(node.outbox) if end["control"] == "end"} == {"closed"}


METHODS = ["spawn", *([] if os.name == "nt" else ["fork", "forkserver"])]


def test_every_child(node: Node, tmp_path: Path) -> None:
    """By each start method, and by `subprocess`."""
    done, counts = recorded(node, tmp_path, "children", *METHODS)
    assert done.returncode == 0, done.stderr
    assert messages(node) == ["by subprocess", *(["works"] * 6 * len(METHODS))]
    assert (counts["emitted"], counts["arrived"]) == (6 * len(METHODS) + 1,) * 2


def test_what_does_not_arrive_is_said(node: Node, tmp_path: Path) -> None:
    """A filter of the program's, for one: with its logger, and an exit code where that is asked for."""
    done, counts = recorded(node, tmp_path, "filtered")
    assert done.returncode == 0
    assert "recorded 1 of 2 records of 1 process\n  missing of logger noisy: 1 record\n" in done.stderr
    assert counts["processes"][0]["missing"] == {"noisy": 1}
    assert counts["level"] == "warning"
    assert recorded(node, tmp_path, "filtered", options=("--strict",))[0].returncode == 1


def test_some_loggers_alone(node: Node, tmp_path: Path) -> None:
    """Those that are named, and those below them; the others are counted as missing."""
    _, counts = recorded(node, tmp_path, "cut_off", options=("--capture", "their", "--capture", "first"))
    assert messages(node) == ["before", "cut off"]
    assert (counts["emitted"], counts["arrived"]) == (4, 2)


def test_printed_lines_and_levels(node: Node, tmp_path: Path) -> None:
    """`--stdout` and `--level`."""
    program = "import logging\nprint('printed')\nlogging.info('info')"
    done, counts = recorded(node, tmp_path, options=("--stdout", "--level", "info"), program=program)
    assert messages(node) == ["info", "printed"]
    assert (counts["emitted"], counts["arrived"]) == (1, 1)
    assert done.stdout == "printed\n"


@pytest.mark.parametrize(("body", "code"), [("sys.exit(3)", 3), ("1 / 0", 1), ("os._exit(4)", 4)])
def test_exit_codes_are_the_program_s(node: Node, tmp_path: Path, body: str, code: int) -> None:
    """And the counts are whole."""
    program = f"import logging, os, sys\nlogging.warning('one')\n{body}"
    done, counts = recorded(node, tmp_path, program=program)
    assert done.returncode == code
    assert (counts["emitted"], counts["arrived"], counts["exit_code"]) == (1, 1, code)


@posix
def test_a_program_that_is_killed(node: Node, tmp_path: Path) -> None:
    """Its totals survive it."""
    program = "import logging, os\nfor n in range(5): logging.warning(n)\nos.kill(os.getpid(), 9)"
    done, counts = recorded(node, tmp_path, program=program)
    assert done.returncode == 128 + signal.SIGKILL
    assert (counts["emitted"], counts["arrived"], counts["signal"]) == (5, 5, "SIGKILL")
    assert counts["processes"][0]["state"] == "killed"


@posix
def test_signals_are_passed_on(node: Node, tmp_path: Path) -> None:
    """Who ends `run` ends the program, which ends as it would."""
    (tmp_path / "program.py").write_text(
        "import logging, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "logging.warning('ready')\nprint('ready', flush=True)\ntime.sleep(60)"
    )
    command = [sys.executable, "-m", "calyx_logging.scripts", "run", "--root", str(node.root), sys.executable]
    process = subprocess.Popen([*command, str(tmp_path / "program.py")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 7
    process.stdout.close()


def test_the_environment_s_own_sitecustomize(node: Node, tmp_path: Path) -> None:
    """It is run as before, after the recorder is set up."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "sitecustomize.py").write_text("import logging\nlogging.warning('at start')\nOURS = 1\n")
    program = (
        "import sys, sitecustomize\nassert sitecustomize.OURS == 1\nassert not [p for p in sys.path if 'at_start' in p]"
    )
    done, _ = recorded(node, tmp_path, program=program, PYTHONPATH=str(tmp_path / "theirs"))
    assert done.returncode == 0, done.stderr
    assert messages(node) == ["at start"]


def test_a_program_with_its_own_handler(node: Node, tmp_path: Path) -> None:
    """One that is configured for the same outbox takes nothing twice."""
    program = (
        "import logging\nfrom calyx_logging import OutboxHandler\n"
        "logging.basicConfig(level='INFO', handlers=[OutboxHandler()])\nlogging.info('once')"
    )
    done, counts = recorded(node, tmp_path, program=program, CALYX_ROOT=str(node.root))
    assert done.returncode == 0, done.stderr
    assert messages(node) == ["once"]
    assert (counts["emitted"], counts["arrived"]) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("no-such-program-anywhere",), "there is no program 'no-such-program-anywhere'"),
        (("--level", "LOUD", "python"), "--level LOUD"),
        (("--component", "A b", "python"), "component"),
        ((), "Missing argument"),
    ],
)
def test_bad_input(node: Node, arguments: tuple[str, ...], says: str) -> None:
    """One line says what is wrong; nothing is run."""
    command = [sys.executable, "-m", "calyx_logging.scripts", "run", "--root", str(node.root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_python_without_the_library(node: Node, tmp_path: Path) -> None:
    """One line says that it is not recorded, and it runs as ever."""
    folder = tmp_path / "empty"
    folder.mkdir()
    import venv

    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    command = [sys.executable, "-m", "calyx_logging.scripts", "run", "--root", str(node.root), str(python), "-c"]
    done = subprocess.run([*command, "print(2)"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "2\n")
    assert "calyx-logging: not recorded: " in done.stderr
    assert "no Python that has calyx-logging was started" in done.stderr


def test_an_outbox_that_cannot_be_written(node: Node, tmp_path: Path) -> None:
    """The program runs, and is told of in one line."""
    (node.outbox / ".writers").mkdir(exist_ok=True)
    (node.root / "telemetry").rename(node.root / "elsewhere")
    (node.root / "telemetry").write_text("no folder")
    script = tmp_path / "program.py"
    script.write_text("print('runs')")
    command = [sys.executable, "-m", "calyx_logging.scripts", "run", "--root", str(node.root), sys.executable]
    done = subprocess.run([*command, str(script)], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "runs\n"
    assert "calyx-logging: not recorded: ConfigError" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_process_that_logs_nothing(node: Node, tmp_path: Path) -> None:
    """It leaves nothing in the outbox."""
    recorded(node, tmp_path, program="pass")
    assert [event["logger"] for event in events_of(node.outbox)] == ["calyx_logging.run"]
