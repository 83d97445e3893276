"""A session that goes on: its programs are asked to seal what they have logged so far."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from calyx_logging import Node
from calyx_logging.core import files
from calyx_logging.node import seal_request
from calyx_logging.outbox.export import ExportOptions, export
from calyx_logging.outbox.live import ask_to_seal
from conftest import config, events_of, telemetry

posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

SESSION = """
import json, logging, logging.config, sys, time
logging.config.dictConfig(json.loads(sys.argv[1]))
log = logging.getLogger("harness")
log.info("first")
print("ready", flush=True)
for line in sys.stdin:
    log.info(line.strip())
    print("logged", flush=True)
"""


@contextmanager
def session(node: Node, body: str = SESSION, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A program that has logged one event, and logs what it is given."""
    process = subprocess.Popen(
        [sys.executable, "-c", body, json.dumps(config(node, **options))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        if os.name != "nt":
            process.send_signal(signal.SIGCONT)
        process.stdin.close()
        assert process.wait(timeout=30) == 0
        process.stdout.close()


def say(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{text}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "logged\n"


def messages(node: Node) -> list[str]:
    return sorted(event["message"] for event in events_of(node.outbox))


LIVE = ExportOptions(live=20.0)


def test_what_was_logged_so_far_is_taken(node: Node) -> None:
    """Twice, and the session goes on; nothing is exported twice."""
    with session(node) as process:
        first = export(node, LIVE)
        assert first.manifest is not None
        assert (first.manifest.events, first.unanswered) == (1, [])
        say(process, "second")
        second = export(node, LIVE)
        assert second.manifest is not None
        assert second.manifest.events == 1
        assert export(node, LIVE).bundle is None
        assert not seal_request(node.outbox).exists()
    export(node)
    assert messages(node) == ["first", "second"]


def test_all_processes_answer(node: Node) -> None:
    """Each seals its own."""
    with session(node), session(node), session(node):
        result = export(node, LIVE)
        assert result.manifest is not None
        assert (len(result.manifest.chunks), result.unanswered) == (3, [])


@posix
def test_a_stopped_process_is_named(node: Node) -> None:
    """The others' chunks are taken, and its own later."""
    with session(node), session(node) as stopped:
        stop(stopped)
        result = export(node, ExportOptions(live=3.0))
        assert result.manifest is not None
        assert len(result.manifest.chunks) == 1
        assert [chunk.holder for chunk in result.unanswered] == [f"{stopped.pid} {os.uname().nodename}"]
        stopped.send_signal(signal.SIGCONT)
        taken = export(node, LIVE)
        assert taken.manifest is not None
        assert (taken.manifest.events, taken.unanswered) == (1, [])


@posix
def test_a_dead_process_is_not_waited_for(node: Node) -> None:
    """Recovery seals its chunk."""
    body = "import os\n" + SESSION.replace("print(", "os.kill(os.getpid(), 9) if 'ready' in ('ready',) else print(", 1)
    done = subprocess.run([sys.executable, "-c", body, json.dumps(config(node))], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    started = time.monotonic()
    result = export(node, ExportOptions(live=60.0))
    assert time.monotonic() - started < 30
    assert result.manifest is not None
    assert (len(result.recovery.recovered), result.unanswered) == (1, [])


def test_a_request_from_before(node: Node) -> None:
    """One that a killed exporter left asks nobody who begins later."""
    files.replace_file(seal_request(node.outbox), b"{}\n")
    with session(node):
        time.sleep(2.5)
        assert len(list(node.outbox.glob("*.jsonl.open"))) == 1
        assert list(node.outbox.glob("*.jsonl")) == []
        assert export(node, LIVE).unanswered == []


def test_nothing_is_open(node: Node) -> None:
    """Then there is no request, and no waiting."""
    assert ask_to_seal(node.outbox, 60.0) == ([], [])


def test_a_request_that_cannot_be_written(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The export takes what is sealed, and says why nobody was asked."""
    replace = files.replace_file

    def full(path: Path, data: bytes) -> None:
        if path == seal_request(node.outbox):
            raise OSError(28, "No space left on device", str(path))
        replace(path, data)

    with session(node) as process:
        export(node, LIVE)
        say(process, "second")
        monkeypatch.setattr(files, "replace_file", full)
        result = export(node, LIVE)
        assert result.bundle is None
        assert ["cannot ask living processes" in warning for warning in result.warnings] == [True]


def test_a_long_idle_thread_pool(node: Node) -> None:
    """Idle writers of other threads seal theirs, too."""
    body = SESSION.replace(
        'print("ready"',
        """
import threading
barrier = threading.Barrier(8)
def work(name):
    barrier.wait()
    for number in range(50):
        log.info(name)
threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("ready\"""",
    )
    with session(node, body):
        result = export(node, LIVE)
        assert result.manifest is not None
        assert result.unanswered == []
        assert len(messages(node)) == 401


def stop(process: subprocess.Popen[str]) -> None:
    """Stop a process, and wait until all of its threads stand still."""
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)


@posix
def test_the_commands(node: Node) -> None:
    """`seal` and `export --live`, their words and exit codes."""
    root = ["--root", str(node.root)]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return telemetry(*arguments, *root)

    assert run("seal").stdout == "nothing is open\n"
    with session(node) as process:
        done = run("seal", "--wait", "20")
        assert (done.returncode, done.stdout) == (0, "sealed 1 chunk\n")
        say(process, "more")
        stop(process)
        done = run("seal", "--wait", "1")
        assert (done.returncode, done.stdout) == (1, "sealed 0 chunks\n")
        assert "did not answer within 1 s (is it stopped?): " in done.stderr
        assert str(process.pid) in done.stderr
        done = run("export", "--live", "--wait", "0.5", "--require-sealed")
        assert done.returncode == 1
        assert "did not answer in time" in done.stderr
        process.send_signal(signal.SIGCONT)
        done = run("export", "--live", "--wait", "20", "--require-sealed", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["nodes"][0]["unanswered"] == []
    assert run("export", "--wait", "3").returncode == 2
