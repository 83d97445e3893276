"""The outbox has the exception that a program dies of, and those that Python can only report."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from calyx_logging import Node
from calyx_logging.outbox.export import export
from conftest import config, events_of, python

HEAD = """
import json, logging, logging.config, os, signal, sys, threading
before = []
{before}
logging.config.dictConfig(json.loads(sys.argv[1]))
log = logging.getLogger("harness")
log.info("began")
"""


def crash(
    node: Node, body: str, *, before: str = "", code: int = 1, **options: Any
) -> tuple[list[dict[str, Any]], str]:
    """Run a program; its events of uncaught exceptions, and what it wrote to standard error."""
    done = python(HEAD.format(before=before) + body, json.dumps(config(node, **options)))
    assert done.returncode == code, done.stderr
    export(node)
    events = events_of(node.outbox)
    assert [event["message"] for event in events if event["logger"] == "harness"] == ["began"]
    return [event for event in events if event["logger"] == "uncaught"], done.stderr


def test_the_program(node: Node) -> None:
    """The traceback is on standard error as before, and the writer ends in order."""
    ((event,), stderr) = crash(node, "raise ValueError('no model')")
    assert (event["level"], event["message"]) == ("critical", "uncaught ValueError")
    assert (event["exception"][0]["type"], event["exception"][0]["value"]) == ("ValueError", "no model")
    assert stderr.count("ValueError: no model") == 1


def test_a_thread(node: Node) -> None:
    """A thread's exception is an event with the thread's name; a thread that ends itself is no crash."""
    body = """
threading.Thread(target=lambda: 1 / 0, name="worker").start()
threading.Thread(target=sys.exit).start()
"""
    ((event,), stderr) = crash(node, body, code=0)
    assert (event["message"], event["thread_name"]) == ("uncaught ZeroDivisionError", "worker")
    assert "Exception in thread worker" in stderr


def test_a_finalizer(node: Node) -> None:
    """An exception that Python ignores is an event, with its object."""
    body = """
class Model:
    def __repr__(self):
        return "a model"
    def __del__(self):
        raise OSError("still in use")
Model()
"""
    ((event,), stderr) = crash(node, body, code=0)
    assert (event["message"], event["exception"][0]["value"]) == ("uncaught OSError", "still in use")
    assert "__del__" in event["object"] + event["where"]
    assert "Exception ignored" in stderr


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c(node: Node) -> None:
    """An interrupt that nobody catches."""
    ((event,), _) = crash(node, "os.kill(os.getpid(), signal.SIGINT)\nsignal.pause()", code=-signal.SIGINT)
    assert event["exception"][0]["type"] == "KeyboardInterrupt"


def test_an_exit_is_no_crash(node: Node) -> None:
    """SystemExit is no crash, whatever its code."""
    assert crash(node, "sys.exit(3)", code=3)[0] == []


def test_the_hooks_that_were_there_are_called(node: Node) -> None:
    """Once each, after the event."""
    before = """
sys.excepthook = lambda *args: print("hook", args[0].__name__, file=sys.stderr)
threading.excepthook = lambda args: print("thread hook", args.exc_type.__name__, file=sys.stderr)
sys.unraisablehook = lambda args: print("unraisable hook", args.exc_type.__name__, file=sys.stderr)
"""
    body = """
class Model:
    def __del__(self):
        raise OSError
Model()
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise ValueError
"""
    events, stderr = crash(node, body, before=before)
    assert len(events) == 3
    assert stderr.split("\n") == ["unraisable hook OSError", "thread hook ZeroDivisionError", "hook ValueError", ""]


def test_it_can_be_turned_off(node: Node) -> None:
    """`crashes: false`."""
    assert crash(node, "raise ValueError", crashes=False)[0] == []


def test_a_handler_that_no_logger_has(node: Node) -> None:
    """It hears of nothing any more."""
    assert crash(node, "logging.config.dictConfig({'version': 1})\nraise ValueError")[0] == []


def test_filters_and_levels_apply(node: Node) -> None:
    """A handler's filters and levels apply to a crash as to any other record."""
    body = """
handler = log.handlers[0]
handler.addFilter(lambda record: "Zero" not in record.getMessage())
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise ValueError
"""
    events, _ = crash(node, body)
    assert [event["message"] for event in events] == ["uncaught ValueError"]


def test_an_exception_that_cannot_be_said(node: Node) -> None:
    """Odd exceptions are logged as far as they can be, and the hooks go on."""
    body = """
class Odd(Exception):
    def __str__(self):
        raise RuntimeError("no text")
raise Odd
"""
    ((event,), stderr) = crash(node, body)
    assert event["exception"][0]["type"] == "Odd"
    assert "Odd" in stderr


def test_a_filter_that_raises(node: Node) -> None:
    """One line says so, and the traceback is there as before."""
    body = """
def bad(record):
    raise LookupError("bad filter")
log.handlers[0].addFilter(bad)
raise ValueError("the crash")
"""
    events, stderr = crash(node, body)
    assert events == []
    assert "calyx-logging: an uncaught ValueError could not be logged: LookupError: bad filter" in stderr
    assert "ValueError: the crash" in stderr
