"""loguru's records: as events of a sink, and what its usual recipe does to the outbox."""

from __future__ import annotations

import json
from typing import Any

import pytest

from calyx_logging import Node
from calyx_logging.errors import ConfigError
from calyx_logging.harness.loguru import sink
from conftest import controls_of, events_of, python

pytest.importorskip("loguru")

HEAD = """
import json, logging, logging.config, sys
from loguru import logger
from calyx_logging.harness.loguru import sink
logging.config.dictConfig(json.loads(sys.argv[1]))
"""


def configured(node: Node, **options: Any) -> str:
    handler = {"class": "calyx_logging.handlers.OutboxHandler", "root": str(node.root), **options}
    root = {"level": "INFO", "handlers": ["outbox"]}
    return json.dumps({"version": 1, "disable_existing_loggers": False, "handlers": {"outbox": handler}, "root": root})


def run(node: Node, body: str, **options: Any) -> tuple[list[dict[str, Any]], str]:
    done = python(HEAD + body, configured(node, **options))
    assert done.returncode == 0, done.stderr
    return events_of(node.outbox), done.stderr


def test_fields_levels_and_places(node: Node) -> None:
    """Bound and passed values are flat fields; levels bear loguru's names; the place is the caller's."""
    body = """
logger.remove()
logger.add(sink(), level=0)
def caller():
    logger.bind(case_id="2+2", name="x", args=[1]).info("answer {answer}", answer=4)
with logger.contextualize(run="r1"):
    caller()
for level in ("trace", "success", "warning", "critical"):
    getattr(logger, level)(level)
"""
    events, stderr = run(node, body)
    first = events[0]
    assert (first["message"], first["level"], first["logger"]) == ("answer 4", "info", "__main__")
    assert {name: first[name] for name in ("case_id", "name", "args", "answer", "run")} == {
        "case_id": "2+2",
        "name": "x",
        "args": [1],
        "answer": 4,
        "run": "r1",
    }
    assert "extra" not in first
    assert "shadowed" not in first
    assert [event["level"] for event in events[1:]] == ["trace", "success", "warning", "critical"]
    assert stderr == ""


def test_the_caller_s_place(node: Node) -> None:
    """File, line and function, for a formatter that asks for them."""
    body = """
import calyx_logging
(handler,) = logging.getLogger().handlers
handler.setFormatter(calyx_logging.EventFormatter(fmt=["funcName", "lineno"]))
logger.add(sink(), level=0)
def caller():
    logger.info("here")
caller()
"""
    events, _ = run(node, body)
    assert (events[0]["funcName"], events[0]["lineno"]) == ("caller", 12)


def test_exceptions(node: Node) -> None:
    """Structured, with their causes, of `logger.exception` and `logger.catch`."""
    body = """
logger.remove()
logger.add(sink(), level=0)
@logger.catch
def fails():
    try:
        {}["missing"]
    except KeyError as error:
        raise ValueError("no model") from error
fails()
"""
    events, _ = run(node, body)
    assert [one["type"] for one in events[0]["exception"]] == ["ValueError", "KeyError"]
    assert events[0]["exception"][0]["frames"][-1]["name"] == "fails"
    assert events[0]["level"] == "error"


def test_without_a_configured_handler(node: Node) -> None:
    """The sink makes one, and its chunk ends in order; without a root it says what to do."""
    code = """
from loguru import logger
from calyx_logging.harness.loguru import sink
logger.add(sink(), level="INFO")
logger.info("alone")
"""
    done = python(code, CALYX_ROOT=str(node.root))
    assert done.returncode == 0, done.stderr
    assert [event["message"] for event in events_of(node.outbox)] == ["alone"]
    assert [line["reason"] for line in controls_of(node.outbox) if line["control"] == "end"] == ["closed"]
    done = python(code, CALYX_ROOT=str(node.root / "nowhere"))
    assert "there is no such folder" in done.stderr.strip().splitlines()[-1]


def test_a_sink_for_something_else() -> None:
    """An argument that is no OutboxHandler is refused."""
    with pytest.raises(ConfigError, match="give an OutboxHandler"):
        sink("outbox")  # type: ignore[arg-type]


TAKE_OVER = """
class ToLoguru(logging.Handler):
    def emit(self, record):
        frame, depth = sys._getframe(6), 6
        while frame and frame.f_code.co_filename == logging.__file__:
            frame, depth = frame.f_back, depth + 1
        logger.opt(depth=depth, exception=record.exc_info).log(record.levelname, record.getMessage())
logging.basicConfig(handlers=[ToLoguru()], level=0, force=True)
logging.getLogger("some.library").info("from a library")
"""


def test_the_recipe_that_takes_the_root_logger_over(node: Node) -> None:
    """It is said, once, with what helps."""
    events, stderr = run(node, TAKE_OVER)
    assert events == []
    assert stderr.count("basicConfig(force=True) has taken the OutboxHandler off the root logger") == 1


def test_the_recipe_with_capture(node: Node) -> None:
    """The advice helps; with a sink besides, what comes from logging is an event once for each way it came."""
    events, stderr = run(node, TAKE_OVER, capture=["root"])
    assert [event["message"] for event in events] == ["from a library"]
    assert "has taken" not in stderr
