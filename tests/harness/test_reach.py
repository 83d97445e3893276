"""`calyx-telemetry run`: every record of every logger of every process, counted, without touching the program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
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
    """Children of each start method, and of `subprocess`, are reached."""
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


OWN_HANDLE = """
import logging
class Theirs(logging.Logger):
    def handle(self, record):
        if self.filter(record):
            self.callHandlers(record)
theirs = Theirs("theirs")
theirs.addHandler(logging.StreamHandler())
theirs.warning("own handle")
theirs.error("own handle")
class Again(logging.Handler):
    def emit(self, record):
        logging.getLogger("elsewhere").handle(record)
log = logging.getLogger("handed.on")
log.addHandler(Again())
log.warning("once")
"""


def test_loggers_with_their_own_way_to_handlers(node: Node, tmp_path: Path) -> None:
    """A class that replaces `handle` (absl's, for one) is counted; a record that is handed on counts once."""
    done, counts = recorded(node, tmp_path, program=OWN_HANDLE)
    assert done.returncode == 0, done.stderr
    assert messages(node) == ["once", "own handle", "own handle"]
    assert (counts["emitted"], counts["arrived"]) == (3, 3)


STACK_WALK = """
import inspect, logging
class Intercept(logging.Handler):
    def emit(self, record):
        frame, depth = inspect.currentframe(), 0
        while frame and (depth == 0 or frame.f_code.co_filename == logging.__file__):
            frame, depth = frame.f_back, depth + 1
        print(frame.f_code.co_name)
def caller():
    logging.getLogger("walked").warning("one")
    logging.getLogger("walked").warning("%d", "no number")
logging.basicConfig(handlers=[Intercept()])
caller()
logging.basicConfig(handlers=[logging.StreamHandler()], force=True)
caller()
"""


def test_code_that_looks_for_the_caller(node: Node, tmp_path: Path) -> None:
    """Handlers that walk the stack (loguru's recipe), and what `logging` prints of a bad record, are as without it."""
    done, _ = recorded(node, tmp_path, program=STACK_WALK)
    alone = subprocess.run([sys.executable, tmp_path / "program.py"], capture_output=True, text=True, check=True)
    assert done.stdout == alone.stdout == "caller\ncaller\n"
    stack, of_alone = (
        text.partition("Call stack:")[2].partition("recorded")[0] for text in (done.stderr, alone.stderr)
    )
    assert stack.strip() == of_alone.strip()


LOST = """
import logging, os, resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
most = resource.RLIM_INFINITY
resource.setrlimit(resource.RLIMIT_FSIZE, (60, most))
for n in range(5):
    logging.getLogger("early").warning("lost")
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
logging.getLogger("late").warning("kept")
"""


@posix
def test_records_that_are_lost(node: Node, tmp_path: Path) -> None:
    """An event that could not be written is not counted as arrived."""
    done, counts = recorded(node, tmp_path, program=LOST)
    assert done.returncode == 0, done.stderr
    assert messages(node) == ["kept"]
    assert (counts["emitted"], counts["arrived"]) == (6, 1)
    assert counts["processes"][0]["missing"] == {"early": 5}


OUTLIVES = """
import json, logging, os, subprocess, sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")  # from Python 3.12 on there is one of a fork beside a thread
log = logging.getLogger("daemon")
log.warning("begins")
if os.fork():
    os._exit(0)
os.setsid()
err = os.open("late.txt", os.O_WRONLY | os.O_CREAT)
os.dup2(err, 1), os.dup2(err, 2)
counts = Path(json.loads(os.environ["CALYX_LOGGING_RUN"])["counts"])
while counts.exists():
    time.sleep(0.05)
if child := os.fork():
    os.waitpid(child, 0)
    subprocess.run([sys.executable, "-c", "import logging; logging.warning('started later')"])
    Path("done").touch()
else:
    log.warning("forked later")
    sys.exit()
"""


@posix
def test_workers_that_begin_after_run_has_ended(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon's: they are recorded; one line says that they are not counted, and nothing is raised in them."""
    monkeypatch.chdir(tmp_path)
    recorded(node, tmp_path, program=OUTLIVES)
    deadline = time.monotonic() + 30
    while not (tmp_path / "done").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    said = (tmp_path / "late.txt").read_text()
    assert said.count("are not counted: FileNotFoundError") == 2, said
    assert "Traceback" not in said
    assert "not recorded" not in said
    export(node)
    assert messages(node) == ["begins", "forked later", "started later"]


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


CLOSES_ALL = """
import logging, os, sys
logging.warning("before")
if child := os.fork():
    sys.exit(os.waitpid(child, 0)[1])
os.closerange(3, 100)
files = [open(f"own-{n}.txt", "w") for n in range(20)]
logging.warning("daemon")
for file in files:
    file.write("own")
    file.flush()
logging.warning("ends")
os._exit(0)
"""


@posix
def test_a_daemon_that_closes_all_descriptors(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files it opens by the same numbers are its own."""
    monkeypatch.chdir(tmp_path)
    done, counts = recorded(node, tmp_path, program=CLOSES_ALL, PYTHONWARNINGS="ignore")
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"own-{n}.txt").read_text() for n in range(20)] == ["own"] * 20
    assert messages(node) == ["before", "daemon", "ends"]
    assert (counts["emitted"], counts["arrived"]) == (3, 3)


@posix
def test_a_server_that_ends_by_the_signal_it_had(node: Node, tmp_path: Path) -> None:
    """It handles the signal, gives its handler up and sends the signal again (uvicorn, for one): the end line says."""
    program = (
        "import logging, os, signal\nlogging.warning('serves')\n"
        "before = signal.signal(signal.SIGTERM, lambda *_: logging.warning('stops'))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\nsignal.signal(signal.SIGTERM, before)\n"
        "signal.raise_signal(signal.SIGTERM)"
    )
    done, counts = recorded(node, tmp_path, program=program)
    assert done.returncode == 128 + signal.SIGTERM
    assert (counts["emitted"], counts["arrived"], counts["signal"]) == (2, 2, "SIGTERM")
    (end,) = [line for line in controls_of(node.outbox) if line.get("reason") == "recovered"]
    assert end["signal"] == "SIGTERM"


@posix
def test_signals_are_passed_on(node: Node, tmp_path: Path) -> None:
    """A signal to `run` ends the program as it would end alone."""
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


@pytest.mark.parametrize("option", ["-I", "-E"])
def test_a_python_that_shuts_the_recorder_out(node: Node, tmp_path: Path, option: str) -> None:
    """It cannot be recorded; the end says why that may be."""
    command = [sys.executable, "-m", "calyx_logging.scripts", "run", "--root", str(node.root), sys.executable, option]
    done = subprocess.run([*command, "-c", "print(2)"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "2\n")
    assert "was started, or only with -I, -E or -S, which shut the recorder out" in done.stderr


@pytest.mark.parametrize("option", [["-m", "this"], ["-mthis"], ["-um", "this"]])
def test_modules_are_named(node: Node, tmp_path: Path, option: list[str]) -> None:
    """However `-m` is written."""
    command = [sys.executable, "-m", "calyx_logging.scripts", "run", "--json", "--root", str(node.root), sys.executable]
    done = subprocess.run([*command, *option], capture_output=True, text=True, check=False, timeout=60)
    assert [one["program"] for one in json.loads(done.stderr)["processes"]] == ["-m this"]


def test_a_process_that_logs_nothing(node: Node, tmp_path: Path) -> None:
    """It leaves nothing in the outbox."""
    recorded(node, tmp_path, program="pass")
    assert [event["logger"] for event in events_of(node.outbox)] == ["calyx_logging.run"]
