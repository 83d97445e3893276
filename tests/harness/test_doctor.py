"""`calyx_logging.doctor()`: what reaches the outbox in the running process, found without sending anything."""

from __future__ import annotations

import json
import logging

import pytest

import calyx_logging
from calyx_logging import Node
from conftest import events_of, python, telemetry_program

HEAD = """
import json, logging, logging.config, sys
import calyx_logging
"""


def configured(node: Node, **options: object) -> str:
    handler = {"class": "calyx_logging.handlers.OutboxHandler", "root": str(node.root), **options}
    root = {"level": "INFO", "handlers": ["outbox"]}
    return json.dumps({"version": 1, "disable_existing_loggers": False, "handlers": {"outbox": handler}, "root": root})


def test_a_process(node: Node) -> None:
    """Loggers that are stopped, by what, and what helps; captured names; children. No record is sent."""
    code = (
        HEAD
        + """
logging.config.dictConfig(json.loads(sys.argv[1]))
for name in ("fine", "cut", "cut.child", "quiet", "captured", "filtered", "off"):
    logging.getLogger(name)
logging.getLogger("cut").propagate = False
logging.getLogger("captured").propagate = False
logging.getLogger("quiet").setLevel(logging.ERROR)
logging.getLogger("filtered").addFilter(lambda record: False)
logging.getLogger("off").disabled = True
found = calyx_logging.doctor()
print(json.dumps({one.logger: one.cause for one in found.loggers if not one.arrives}))
print(found.captured, found.outboxes)
print(found)
"""
    )
    done = python(code, configured(node, capture=["captured"]))
    assert done.returncode == 0, done.stderr
    first, second, *text = done.stdout.splitlines()
    stopped = {"cut": "propagate", "cut.child": "propagate", "quiet": "level", "filtered": "filter", "off": "disabled"}
    assert {
        name: cause for name, cause in json.loads(first).items() if "." not in name or name == "cut.child"
    } == stopped
    assert second == f"['captured'] ['{node.outbox}']"
    assert f"outbox     {node.outbox}" in text
    assert "  STOPPED  cut  propagate" in text
    assert "captured   captured" in text
    assert any("worker processes" in line and "log as this one does" in line for line in text)
    assert any(f"CALYX_ROOT={node.root}" in line for line in text)
    assert events_of(node.outbox) == []


def test_children_that_cannot_follow(node: Node) -> None:
    """The doctor names the option that is wrong, and the reason."""
    code = (
        HEAD
        + """
logging.config.dictConfig(json.loads(sys.argv[1]))
logging.getLogger().handlers[0].addFilter(lambda record: True)
print(calyx_logging.doctor())
"""
    )
    assert "option 'filters' cannot be sent" in python(code, configured(node)).stdout
    code = HEAD + "logging.config.dictConfig(json.loads(sys.argv[1]))\nprint(calyx_logging.doctor())"
    assert "follow_children is off" in python(code, configured(node, follow_children=False)).stdout


def test_nothing_is_configured() -> None:
    """Then that is what it says."""
    done = python(HEAD + "print(calyx_logging.doctor(logging.WARNING))")
    assert "none: no OutboxHandler is in use" in done.stdout
    assert "see the README" in done.stdout


def test_servers_that_configure_logging_when_they_start(node: Node) -> None:
    """uvicorn cuts its loggers off then; the command sees that, and says what it does not see."""
    pytest.importorskip("uvicorn")
    program = node.root / "app.py"
    program.write_text(
        f"import logging.config, uvicorn\nlogging.config.dictConfig({configured(node).replace('false', 'False')})"
    )
    done = telemetry_program("doctor", str(program), "--root", node.root)
    assert done.returncode == 1
    assert "STOPPED  uvicorn" in done.stdout
    assert "calyx-telemetry run counts a real run" in done.stdout
    program.write_text(program.read_text().replace('"root": ', '"capture": ["uvicorn"], "root": ', 1))
    assert telemetry_program("doctor", str(program), "--root", node.root).returncode == 0


def test_it_is_public() -> None:
    """`calyx_logging.doctor` takes the level as its argument."""
    assert callable(calyx_logging.doctor)
    assert calyx_logging.doctor(logging.CRITICAL).loggers[0].logger == "root"
