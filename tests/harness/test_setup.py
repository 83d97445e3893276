"""`calyx_logging.setup()`: one line, beside what is there, in programs of every kind; each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from calyx_logging import Node
from calyx_logging.harness.setup import node_id_of_host
from calyx_logging.node import is_node_id
from conftest import events_of


def run(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder, without a terminal."""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("CALYX_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**surroundings, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def messages(node: Node) -> list[str]:
    return [event["message"] for event in events_of(node.outbox)]


def test_one_line_records_and_prints_and_says_where(node: Node) -> None:
    code = """
import logging, calyx_logging
calyx_logging.setup()
log = logging.getLogger("bench")
log.info("case done", extra={"case_id": "2+2", "score": 1.0})
try:
    raise TimeoutError("no answer")
except TimeoutError:
    log.exception("case failed")
log.debug("not seen")
"""
    done = run(code, node.root)
    assert (done.returncode, done.stdout) == (0, "")
    said = done.stderr.splitlines()
    assert said[0] == (
        f"calyx-logging: events from level INFO go to {node.outbox}; see them: "
        f'calyx-telemetry tail --root "{node.root}"'
    )
    assert "case done" in said[1]
    assert "case_id=2+2 score=1.0" in said[1]
    assert said[-1] == "TimeoutError: no answer"
    assert "not seen" not in done.stderr
    assert messages(node) == ["case done", "case failed"]


def test_what_is_there_stays(node: Node) -> None:
    """Handlers, formats and levels of basicConfig; nothing is printed twice."""
    code = """
import logging, calyx_logging
logging.basicConfig(level=logging.WARNING, format="mine: %(message)s")
before = list(logging.getLogger().handlers)
calyx_logging.setup()
logging.warning("seen")
logging.info("not seen")
assert logging.getLogger().handlers[:1] == before
assert logging.getLogger().level == logging.WARNING
"""
    done = run(code, node.root)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[1:] == ["mine: seen"]
    assert "from level WARNING" in done.stderr
    assert messages(node) == ["seen"]


@pytest.mark.parametrize("level", ["'debug'", "10", "logging.DEBUG"])
def test_a_level_is_set_where_it_is_asked_for(node: Node, level: str) -> None:
    code = f"import logging, calyx_logging; calyx_logging.setup(level={level}); logging.debug('fine')"
    assert run(code, node.root).returncode == 0
    assert messages(node) == ["fine"]


@pytest.mark.parametrize(
    ("console", "handlers", "is_printed"),
    [("None", "", True), ("False", "", False), ("True", "", True), ("None", "logging.NullHandler()", True)],
)
def test_a_console_is_added_where_there_is_none(node: Node, console: str, handlers: str, is_printed: bool) -> None:
    code = f"""
import logging, calyx_logging
for handler in [{handlers}]:
    logging.getLogger().addHandler(handler)
calyx_logging.setup(console={console}, announce=False)
logging.warning("hello")
"""
    done = run(code, node.root)
    assert (done.returncode, "hello" in done.stderr) == (0, is_printed)
    assert done.stderr.count("hello") == int(is_printed)
    assert "calyx-logging" not in done.stderr


def test_a_console_of_its_own_is_recognised(node: Node) -> None:
    """On either stream, or rich's."""
    code = """
import logging, sys, calyx_logging
from rich.logging import RichHandler
for handler in (logging.StreamHandler(sys.stdout), logging.StreamHandler(), RichHandler()):
    logging.getLogger().handlers = [handler]
    calyx_logging.setup(announce=False)
    assert len(logging.getLogger().handlers) == 2, handler
"""
    done = run(code, node.root)
    assert done.returncode == 0, done.stderr


def test_called_again_it_keeps_or_replaces_the_handler(node: Node) -> None:
    code = """
import logging, calyx_logging
first = calyx_logging.setup()
assert calyx_logging.setup() is first
assert calyx_logging.setup(component="harness", sync="seal") is first
private = calyx_logging.setup(redact=True)
assert private is not first
assert calyx_logging.setup(redact=True) is private
assert calyx_logging.setup() is private
logging.info("one")
second = calyx_logging.setup(component="other", capture=["theirs"])
assert second is not first
assert calyx_logging.setup(component="other", capture=["theirs"]) is second
logging.info("two")
assert sum(isinstance(one, calyx_logging.OutboxHandler) for one in logging.getLogger().handlers) == 1
"""
    done = run(code, node.root)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("calyx-logging:") == 1
    assert messages(node) == ["one", "two"]
    assert {name.name.split("__")[1] for name in node.outbox.glob("*.jsonl")} == {"harness", "other"}


def test_after_dictconfig_it_keeps_that_handler(node: Node) -> None:
    code = """
import logging.config, calyx_logging
logging.config.dictConfig({"version": 1, "handlers": {"o": {"class": "calyx_logging.handlers.OutboxHandler",
    "component": "mine"}}, "root": {"level": "INFO", "handlers": ["o"]}})
(there,) = logging.getLogger().handlers
assert calyx_logging.setup() is there
logging.info("once")
"""
    done = run(code, node.root)
    assert done.returncode == 0, done.stderr
    assert "once" in done.stderr
    assert messages(node) == ["once"]


def test_structlog_goes_along(node: Node) -> None:
    code = """
import calyx_logging, structlog
calyx_logging.setup()
structlog.get_logger("bench").info("case done", score=1.0)
"""
    done = run(code, node.root)
    assert "case done" in done.stderr
    assert "score=1.0" in done.stderr
    (event,) = events_of(node.outbox)
    assert (event["logger"], event["score"]) == ("bench", 1.0)


def test_structlog_gets_a_console_where_it_is_asked_for(node: Node) -> None:
    """In place of its own, which goes when its events go through logging; none is added to one that is there."""
    code = """
import logging, sys, calyx_logging, structlog
logging.getLogger().addHandler(calyx_logging.OutboxHandler())
logging.getLogger().setLevel("INFO")
calyx_logging.configure_structlog(console={console})
structlog.get_logger("bench").info("case done", score=1.0)
"""
    done = run(code.replace("{console}", "True"), node.root)
    assert (done.returncode, done.stderr.count("case done")) == (0, 1), done.stderr
    assert "case done" not in run(code.replace("{console}", "False"), node.root).stderr
    has_one = "import logging; logging.basicConfig()" + code.replace("{console}", "True")
    assert run(has_one, node.root).stderr.count("case done") == 1
    assert len(messages(node)) == 3
    bad = "import calyx_logging; calyx_logging.configure_structlog(calyx_logging.OutboxHandler(), console=True)"
    assert "either an outbox or a console" in run(bad, node.root).stderr


def test_a_structlog_that_is_configured_is_left_alone(node: Node) -> None:
    code = """
import calyx_logging, structlog
structlog.configure(processors=[structlog.processors.JSONRenderer()])
calyx_logging.setup()
structlog.get_logger().info("theirs")
"""
    done = run(code, node.root)
    assert done.stdout == '{"event": "theirs"}\n'
    assert messages(node) == []


def test_secrets_are_taken_out_where_that_is_asked_for(node: Node) -> None:
    code = (
        "import logging, calyx_logging; calyx_logging.setup(redact=True); logging.info('x', extra={'api_key': 'k-1'})"
    )
    assert run(code, node.root).returncode == 0
    (event,) = events_of(node.outbox)
    assert event["api_key"] == "[redacted]"


@pytest.mark.parametrize(("given", "node_id"), [("True", node_id_of_host()), ("'laptop-7'", "laptop-7")])
def test_a_node_id_is_made_where_that_is_asked_for(tmp_path: Path, given: str, node_id: str) -> None:
    code = f"import logging, calyx_logging; calyx_logging.setup(provision={given}); logging.info('hello')"
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    node = Node.find(tmp_path)
    assert (node.id, messages(node)) == (node_id, ["hello"])


def test_without_a_node_id_the_last_line_says_what_to_do(tmp_path: Path) -> None:
    for how in ("setup()", "setup(provision=False)"):
        done = run(f"import calyx_logging; calyx_logging.{how}", tmp_path)
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 1
        assert f'run: calyx-telemetry provision {node_id_of_host()} --root "{tmp_path}"' in last
        assert "setup(provision=True)" in last
    assert list(tmp_path.iterdir()) == []


def test_in_dictconfig_too_the_last_line_says_what_to_do(tmp_path: Path) -> None:
    code = """
import logging.config
logging.config.dictConfig({"version": 1, "handlers": {"o": {"class": "calyx_logging.handlers.OutboxHandler"}}})
"""
    last = run(code, tmp_path).stderr.splitlines()[-1]
    assert last.startswith("calyx-logging: ")
    assert "run: calyx-telemetry provision NODE_ID" in last


def test_an_error_that_was_caught_is_not_said_again(tmp_path: Path) -> None:
    code = """
import calyx_logging
try:
    calyx_logging.OutboxHandler()
except calyx_logging.CalyxError:
    pass
raise ValueError("theirs")
"""
    assert run(code, tmp_path).stderr.splitlines()[-1] == "ValueError: theirs"


def test_many_failures_leave_one_hook(tmp_path: Path) -> None:
    """A program that tries again and again does not pile them up."""
    code = """
import sys, calyx_logging
for _ in range(3000):
    try:
        calyx_logging.OutboxHandler()
    except calyx_logging.CalyxError as error:
        last = error
raise ValueError("theirs") from last
"""
    done = run(code, tmp_path)
    assert "RecursionError" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("calyx-logging: ")
    assert done.stderr.count("calyx-logging: ") == 1


def test_a_hub_is_not_made_a_node(tmp_path: Path) -> None:
    (tmp_path / "telemetry/federated").mkdir(parents=True)
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime/node_id.txt").write_text("")
    done = run("import calyx_logging; calyx_logging.setup(provision=True)", tmp_path)
    assert "this is the root of a hub" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "options",
    ["level='loud'", "level=True", "console=1", "redact='yes'", "provision=3", "colour='red'", "sync='never'"],
)
def test_bad_options_are_refused(node: Node, options: str) -> None:
    done = run(f"import calyx_logging; calyx_logging.setup({options})", node.root)
    last = done.stderr.splitlines()[-1]
    assert "ConfigError" in last
    assert options.partition("=")[0] in last


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize(("answer", "is_made"), [("y", True), ("n", False), ("", False)])
def test_at_a_terminal_it_asks(tmp_path: Path, answer: str, is_made: bool) -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "import calyx_logging; calyx_logging.setup()"]
    surroundings: dict[str, Any] = {name: value for name, value in os.environ.items() if not name.startswith("CALYX_")}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=surroundings, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True
    )
    os.write(ours, f"{answer}\n".encode())
    assert (process.wait(60) == 0) == is_made
    said = os.read(ours, 100_000).decode()
    assert f"Make it node {node_id_of_host()}?" in said.replace("\r\n", "")
    assert (tmp_path / "runtime").exists() == is_made
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(
    ("host", "node_id"),
    [("Lab PC 7", "lab-pc-7"), ("müller.local", "m-ller"), ("...", "node"), ("con", "node"), ("", "node")],
)
def test_ids_of_hosts(host: str, node_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    assert node_id_of_host() == node_id
    assert is_node_id(node_id_of_host())
