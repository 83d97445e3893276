"""The end lines of writers say how their process ended; each way is tried with a program that really ends so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from calyx_logging import Node
from calyx_logging.outbox.export import export
from conftest import config, controls_of, events_of, python

posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

HEAD = """
import ctypes, faulthandler, json, logging, logging.config, os, signal, sys, threading
{before}
logging.config.dictConfig(json.loads(sys.argv[1]))
log = logging.getLogger("harness")
log.info("began")
"""


def end_of(
    node: Node, tmp_path: Path, body: str, *, before: str = "", code: int | None = None, **options: Any
) -> dict[str, Any]:
    """Run a script to its end, export, and return the only end line, without what every one has."""
    script = tmp_path / "script.py"
    script.write_text(HEAD.format(before=before) + textwrap.dedent(body))
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(config(node, **options))], capture_output=True, text=True, timeout=60
    )
    if code is not None:
        assert done.returncode == code, done.stderr
    export(node)
    assert [event["message"] for event in events_of(node.outbox) if event["logger"] == "harness"] == ["began"]
    (end,) = (line for line in controls_of(node.outbox) if line["control"] == "end")
    assert list((node.outbox / ".writers").iterdir()) == []
    stamped = {"node_id", "ts_utc", "event_id", "source", "logger", "control", "seq", "message", "level"}
    return {name: value for name, value in end.items() if name not in stamped}


CLOSED = {"reason": "closed"}
ZERO = {"exit_code": 0} if sys.version_info < (3, 14) else {}
"""From then on a script that ran to its end looks like one that raised SystemExit itself."""

STOP: tuple[int, dict[str, Any]] = (
    (-signal.SIGINT, {"signal": "SIGINT", "exception_type": "Stop"})
    if sys.version_info >= (3, 14) and os.name == "posix"
    else (1, {"exit_code": 1, "exception_type": "Stop"})
)
"""How a script ends by a subclass of KeyboardInterrupt."""

RECOVERED = {"reason": "recovered", "torn_bytes": 0, "bad_lines": 0}


@pytest.mark.parametrize(
    ("body", "code", "end"),
    [
        ("", 0, ZERO),
        ("sys.exit(3)", 3, {"exit_code": 3}),
        ("sys.exit()", 0, {"exit_code": 0}),
        ("sys.exit('no model')", 1, {"exit_code": 1}),
        ("raise SystemExit(4)", 4, {}),
        ("try:\n    sys.exit(5)\nexcept SystemExit:\n    pass", 0, ZERO),
        ("try:\n    sys.exit(5)\nexcept SystemExit:\n    sys.exit(6)", 6, {"exit_code": 6}),
        ("try:\n    sys.exit(5)\nexcept SystemExit:\n    pass\nraise SystemExit(6)", 6, {}),
        ("def main():\n    with open(__file__):\n        sys.exit(7)\nmain()", 7, {"exit_code": 7}),
        ("1 / 0", 1, {"exit_code": 1, "exception_type": "ZeroDivisionError"}),
        ("threading.Thread(target=lambda: 1 / 0).start()", 0, ZERO),
        ("threading.Thread(target=sys.exit, args=(8,)).start()", 0, ZERO),
        ("logging.config.dictConfig({'version': 1})\nsys.exit(9)", 9, {}),
        ("sys.exit(SystemExit(3))", 3, {}),
        ("class Stop(KeyboardInterrupt): pass\nraise Stop", *STOP),
        ("sys.excepthook(KeyError, KeyError(), None)", 0, ZERO),
        ("import atexit\natexit.register(sys.exit, 5)", 0, ZERO),
    ],
)
def test_an_orderly_end(node: Node, tmp_path: Path, body: str, code: int, end: dict[str, Any]) -> None:
    """The exit code where it is certain, and what was raised."""
    assert end_of(node, tmp_path, body, code=code) == {**CLOSED, **end}


@posix
@pytest.mark.parametrize(("given", "code"), [("True", 1), ("256", 0), ("-1", 255), ("2**80", 255)])
def test_numbers_that_the_system_cuts(node: Node, tmp_path: Path, given: str, code: int) -> None:
    """The end line has the exit code that the parent gets."""
    assert end_of(node, tmp_path, f"sys.exit({given})", code=code) == {**CLOSED, "exit_code": code}


@posix
@pytest.mark.parametrize(("given", "code"), [("256", 0), ("-1", 255)])
def test_numbers_that_exit_at_once_cuts(node: Node, tmp_path: Path, given: str, code: int) -> None:
    """The same of `os._exit`."""
    found = end_of(node, tmp_path, f"os._exit({given})", code=code)
    assert (found["reason"], found["exit_code"]) == ("recovered", code)


def test_a_tuple_as_exit_code(node: Node, tmp_path: Path) -> None:
    """Python's versions make different things of it; none is claimed, and the program ends as it does without us."""
    code = subprocess.run([sys.executable, "-c", "import sys; sys.exit((3,))"], capture_output=True).returncode
    assert end_of(node, tmp_path, "sys.exit((3,))", code=code) == CLOSED


def test_a_hook_that_exits(node: Node, tmp_path: Path) -> None:
    """The end line has the code that a hook chose."""
    before = "sys.excepthook = lambda *args: sys.exit(5)"
    expected = {**CLOSED, "exit_code": 5, "exception_type": "ZeroDivisionError"}
    assert end_of(node, tmp_path, "1 / 0", before=before, code=5) == expected


@posix
def test_output_that_cannot_be_written(node: Node, tmp_path: Path) -> None:
    """Python ends with 120 then, whatever the program's code."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    program = HEAD.format(before="") + "sys.stdout = open('/dev/full', 'w')\nprint('lost')\nsys.exit(3)"
    assert python(program, json.dumps(config(node))).returncode == 120
    assert {line["exit_code"] for line in controls_of(node.outbox) if line["control"] == "end"} == {120}


@pytest.mark.parametrize(("ending", "typed", "code"), [("1 / 0", "", 0), ("", "exit(3)\n", 3), ("sys.exit(4)", "", 0)])
def test_an_interactive_interpreter_goes_on(node: Node, tmp_path: Path, ending: str, typed: str, code: int) -> None:
    """After a script that was run with `-i`: nothing certain is known of its end."""
    script = tmp_path / "script.py"
    script.write_text(HEAD.format(before="") + ending)
    command = [sys.executable, "-i", str(script), json.dumps(config(node))]
    done = subprocess.run(command, input=typed, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    export(node)
    (end,) = (line for line in controls_of(node.outbox) if line["control"] == "end")
    assert not {"exit_code", "exception_type", "signal"} & set(end)


def test_a_program_from_the_command_line(node: Node) -> None:
    """Nothing tells how it ended, though it has given itself a name."""
    program = HEAD.format(before="") + "raise SystemExit(4)"
    program = f"import sys\nsys.argv[0] = 'prog'\n{program}"
    done = subprocess.run([sys.executable, "-c", program, json.dumps(config(node))], capture_output=True, timeout=60)
    assert done.returncode == 4, done.stderr
    (end,) = (line for line in controls_of(node.outbox) if line["control"] == "end")
    assert "exit_code" not in end


@posix
def test_ctrl_c_while_another_thread_runs_a_text(node: Node, tmp_path: Path) -> None:
    """Python forgets then that it is to end by the signal; what gathers the environment runs such texts."""
    body = """
    before = sys.excepthook
    sys.excepthook = lambda *args: (before(*args), eval("1"))
    raise KeyboardInterrupt
    """
    assert end_of(node, tmp_path, body, code=-signal.SIGINT)["signal"] == "SIGINT"


@posix
def test_signals_that_faulthandler_has_from_the_program(node: Node, tmp_path: Path) -> None:
    """They stay the program's: it writes its stacks where it did, and goes on."""
    before = "faulthandler.register(signal.SIGUSR1)"
    body = "os.kill(os.getpid(), signal.SIGUSR1)\nsys.exit(3)"
    assert end_of(node, tmp_path, body, before=before, code=3) == {**CLOSED, "exit_code": 3}


@posix
def test_a_crash_after_the_program_has_closed_every_descriptor(node: Node, tmp_path: Path) -> None:
    """Nothing is written into its own files."""
    body = f"""
    os.closerange(3, 100)
    mine = [open({str(tmp_path)!r} + f"/mine-{{n}}", "wb") for n in range(30)]
    os.kill(os.getpid(), signal.SIGTERM)
    """
    end_of(node, tmp_path, body, code=-signal.SIGTERM)
    assert [path for path in tmp_path.glob("mine-*") if path.stat().st_size] == []


@posix
def test_an_end_without_a_free_descriptor(node: Node, tmp_path: Path) -> None:
    """The crash file goes all the same, and the writer ends in order."""
    body = """
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    mine = []
    try:
        while True:
            mine.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    """
    assert end_of(node, tmp_path, body, code=0) == {**CLOSED, **ZERO}


@posix
def test_ctrl_c(node: Node, tmp_path: Path) -> None:
    """An interrupt that nobody catches ends the process by its signal."""
    end = end_of(node, tmp_path, "signal.raise_signal(signal.SIGINT)", code=-signal.SIGINT)
    assert end == {**CLOSED, "signal": "SIGINT", "exception_type": "KeyboardInterrupt"}


@posix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGALRM"])
def test_a_signal_from_outside(node: Node, tmp_path: Path, name: str) -> None:
    """The process dies of it as ever, and its stacks are kept."""
    number = getattr(signal, name)
    end = end_of(node, tmp_path, f"def waits():\n    os.kill(os.getpid(), {int(number)})\nwaits()", code=-number)
    assert "in waits" in end.pop("fault")
    assert end == {**RECOVERED, "signal": name}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_signal_is_left_to_the_threads_of_the_program(node: Node, tmp_path: Path) -> None:
    """A thread of ours that is just beginning has no stack to keep."""
    body = """
    import re
    signals = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU, signal.SIGALRM)
    ours = []
    while not ours:
        ours = [task.path for task in os.scandir("/proc/self/task") if task.name != str(os.getpid())]
    for path in ours:
        blocked = ~0
        while blocked >> signal.SIGSEGV - 1 & 1:  # as everything is while a thread is made
            blocked = int(re.search("SigBlk:(.*)", open(path + "/status").read())[1], 16)
        assert all(blocked >> number - 1 & 1 for number in signals), hex(blocked)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    """
    assert end_of(node, tmp_path, body, code=0) == {**CLOSED, **ZERO}


@posix
@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("ctypes.string_at(0)", "SIGSEGV"),
        ("os.abort()", "SIGABRT"),
        *((f"signal.raise_signal(signal.{name})", name) for name in ("SIGBUS", "SIGFPE", "SIGILL")),
    ],
)
def test_a_fatal_error(node: Node, tmp_path: Path, body: str, name: str) -> None:
    """The interpreter cannot go on; faulthandler's text says where.

    The system sends such a signal to the thread at fault, as `raise_signal` does.
    """
    end = end_of(node, tmp_path, body, code=-getattr(signal, name))
    assert "Fatal Python error" in (fault := end.pop("fault"))
    assert "script.py" in fault
    assert end == {**RECOVERED, "signal": name}


def test_an_exit_that_runs_nothing(node: Node, tmp_path: Path) -> None:
    """`os._exit` leaves its code."""
    end = end_of(node, tmp_path, "os._exit(7)", code=7)
    assert end == {**RECOVERED, "exit_code": 7} or (os.name == "nt" and end == RECOVERED)


@posix
def test_a_kill(node: Node, tmp_path: Path) -> None:
    """Nothing can be known of it, and nothing is claimed."""
    assert end_of(node, tmp_path, "os.kill(os.getpid(), signal.SIGKILL)", code=-signal.SIGKILL) == RECOVERED


@posix
@pytest.mark.parametrize(
    ("before", "body", "code", "expected"),
    [
        ("", "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n{term}", 5, {**CLOSED, "exit_code": 5}),
        ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))", "{term}", 5, {**CLOSED, "exit_code": 5}),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", "{term}", 0, {**CLOSED, **ZERO}),
    ],
)
def test_a_signal_that_the_program_sees_to(
    node: Node, tmp_path: Path, before: str, body: str, code: int, expected: dict[str, Any]
) -> None:
    """Set before or after: it is the program's."""
    body = body.format(term="os.kill(os.getpid(), signal.SIGTERM)")
    assert end_of(node, tmp_path, body, before=before, code=code) == expected


@posix
@pytest.mark.parametrize("before", ["", "signal.signal(signal.SIGTERM, lambda *_: None)"])
def test_a_signal_that_the_program_sees_to_no_more(node: Node, tmp_path: Path, before: str) -> None:
    """It ends the program by default, as if the program had never seen to it."""
    body = "signal.signal(signal.SIGTERM, signal.SIG_DFL)\nos.kill(os.getpid(), signal.SIGTERM)"
    end = end_of(node, tmp_path, body, before=before, code=-signal.SIGTERM)
    assert "script.py" in end.pop("fault")
    assert end == {**RECOVERED, "signal": "SIGTERM"}


@posix
def test_a_program_with_its_own_faulthandler(node: Node, tmp_path: Path) -> None:
    """It keeps its output; the end line has less to say."""
    before = "faulthandler.enable(open(sys.argv[0] + '.txt', 'w'))"
    assert end_of(node, tmp_path, "ctypes.string_at(0)", before=before) == RECOVERED
    assert "Segmentation fault" in (tmp_path / "script.py.txt").read_text()


def test_it_can_be_turned_off(node: Node, tmp_path: Path) -> None:
    """`crashes: false` wraps nothing."""
    assert end_of(node, tmp_path, "sys.exit(3)", code=3, crashes=False) == CLOSED
    body = "assert (sys.exit, os._exit, faulthandler.is_enabled()) == (exit, _exit, False)"
    assert (
        python(
            HEAD.format(before="from sys import exit; from os import _exit") + body,
            json.dumps(config(node, crashes=False)),
        ).returncode
        == 0
    )


WORKERS = """
import json, logging, logging.config, multiprocessing, os, signal, sys

def work(how):
    if how == "error":
        raise ValueError("no model")
    if how == "exit":
        sys.exit(3)
    if how == "fault":
        os.abort()
    if how == "logs first":
        logging.getLogger("harness").info("works")
        os.abort()

if __name__ == "__main__":
    logging.config.dictConfig(json.loads(sys.argv[1]))
    process = multiprocessing.get_context(sys.argv[2]).Process(target=work, args=(sys.argv[3],))
    process.start()
    process.join()
"""


def ends_of_worker(node: Node, tmp_path: Path, method: str, how: str) -> list[dict[str, Any]]:
    (tmp_path / "workers.py").write_text(WORKERS)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "workers.py"), json.dumps(config(node)), method, how],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    export(node)
    assert list((node.outbox / ".writers").iterdir()) == []
    return [line for line in controls_of(node.outbox) if line["control"] == "end"]


METHODS = ["spawn", *([] if os.name == "nt" else ["fork", "forkserver"])]


@pytest.mark.parametrize("method", METHODS)
def test_an_exception_that_ends_a_worker(node: Node, tmp_path: Path, method: str) -> None:
    """It is an event like any other uncaught one, though the worker has logged nothing before."""
    (end,) = ends_of_worker(node, tmp_path, method, "error")
    assert (end["reason"], end["exit_code"], end["exception_type"]) == ("closed", 1, "ValueError")
    (event,) = events_of(node.outbox)
    assert (event["level"], event["message"]) == ("critical", "uncaught ValueError")
    assert [frame["name"] for frame in event["exception"][0]["frames"]][-1] == "work"


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_that_dies(node: Node, tmp_path: Path, method: str) -> None:
    """Its signal is its own, not its parent's."""
    (end,) = ends_of_worker(node, tmp_path, method, "logs first")
    assert end["reason"] == "recovered"
    if os.name != "nt":
        assert (end["signal"], "in work" in end["fault"]) == ("SIGABRT", True)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_worker_that_dies_before_its_first_event(node: Node, tmp_path: Path, method: str) -> None:
    """It has no chunk; one with the end line alone says so."""
    (end,) = ends_of_worker(node, tmp_path, method, "fault")
    assert (end["reason"], end["signal"], end["level"], end["seq"]) == ("recovered", "SIGABRT", "critical", 0)


@posix
def test_a_process_of_many_writers(node: Node) -> None:
    """The file goes on to another writer when its own one ends, and every end line names the signal."""
    done = python(
        HEAD.format(before="")
        + """
pool = log.handlers[0]._pool
held = []
for _ in range(4):
    log.info("one writer each")
    while not pool._seats.idle: pass
    held.append(pool._seats.idle.pop())
pool._seats.idle.extend(held)
first = min(pool.writers, key=lambda writer: writer.first is not writer)
with pool._care:
    seat = pool._seats.take(first)
    pool._end([first], pool._seats)
assert len(list(pool.outbox.glob(".writers/*.crash"))) == 1
os.abort()
""",
        json.dumps(config(node)),
    )
    assert done.returncode == -signal.SIGABRT, done.stderr
    export(node)
    ends = [line for line in controls_of(node.outbox) if line["control"] == "end"]
    recovered = [end for end in ends if end["reason"] == "recovered"]
    assert len(ends) - len(recovered) == 1
    assert len(recovered) >= 3
    assert {end["signal"] for end in recovered} == {"SIGABRT"}
    assert sum("fault" in end for end in recovered) == 1


@posix
def test_a_writer_that_had_sealed_everything(node: Node, tmp_path: Path) -> None:
    """It has no chunk open; the next one has the end line."""
    end = end_of(node, tmp_path, "log.handlers[0].seal()\nos.abort()")
    assert (end["reason"], end["signal"]) == ("recovered", "SIGABRT")


@posix
@pytest.mark.parametrize("kind", ["text", "pipe", "folder", "unreadable"])
def test_a_crash_file_that_cannot_be_read(node: Node, tmp_path: Path, kind: str) -> None:
    """The end line says so, and recovery goes on."""
    path = "next(log.handlers[0]._pool.outbox.glob('.writers/*.crash'))"
    spoil = {
        "text": f"{path}.write_text('nonsense')",
        "pipe": f"p = {path}; p.unlink(); os.mkfifo(p)",
        "folder": f"p = {path}; p.unlink(); p.mkdir()",
        "unreadable": f"p = {path}; p.unlink(); p.symlink_to('/nowhere/at/all')",
    }[kind]
    script = HEAD.format(before="") + f"{spoil}\nos.kill(os.getpid(), signal.SIGKILL)"
    assert python(script, json.dumps(config(node))).returncode == -signal.SIGKILL
    export(node)
    (end,) = (line for line in controls_of(node.outbox) if line["control"] == "end")
    assert end["reason"] == "recovered"
    assert kind == "unreadable" or ".crash cannot be read" in end["fault"]


@posix
def test_a_crash_file_that_cannot_be_made(node: Node) -> None:
    """One line says so, and the program logs."""
    before = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (11, 11))"
    done = python(HEAD.format(before=before) + "log.info('more')", json.dumps(config(node)))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("what ends this process from outside will not be known") == 1
    export(node)
    assert [event["message"] for event in events_of(node.outbox)] == ["began", "more"]


@posix
def test_descriptors_do_not_grow(node: Node) -> None:
    """Handlers that are made and closed again use those of the first one, and never the program's."""
    done = python(
        HEAD.format(before="")
        + """
import pathlib
count = lambda: len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
first = count()
for _ in range(50):
    logging.config.dictConfig(json.loads(sys.argv[1]))
    log.info("again")
assert count() == first, (count(), first)
logging.config.dictConfig({"version": 1})
mine = open(sys.argv[0] if sys.argv[0] != "-c" else os.devnull)
os.kill(os.getpid(), signal.SIGTERM)
""",
        json.dumps(config(node)),
    )
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert list((node.outbox / ".writers").iterdir()) == []


@posix
def test_the_system_was_restarted(node: Node) -> None:
    """A lock file of an earlier boot says that a loss of power may be the cause."""
    if not Path("/proc/sys/kernel/random/boot_id").exists():
        pytest.skip("this system names no boot")
    body = "os.kill(os.getpid(), signal.SIGKILL)"
    assert python(HEAD.format(before="") + body, json.dumps(config(node))).returncode == -signal.SIGKILL
    for path in (node.outbox / ".writers").iterdir():
        lines = path.read_bytes().split(b"\n")
        path.write_bytes(b"\n".join([lines[0], b"11111111-1111-1111-1111-111111111111" + lines[1][36:], *lines[2:]]))
    past = time.time() - 10_000
    for path in [*node.outbox.glob("*.open"), *(node.outbox / ".writers").iterdir()]:
        os.utime(path, (past, past))
    export(node)
    (end,) = (line for line in controls_of(node.outbox) if line["control"] == "end")
    assert (end["reason"], end["rebooted"]) == ("recovered", True)
