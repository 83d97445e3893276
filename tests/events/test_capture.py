"""Capture keeps a handler on other code's loggers; the doctor names what stops a record and what helps."""

from __future__ import annotations

import gc
import json
import logging
import logging.config
import logging.handlers
import pickle
import queue
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from calyx_logging import KeepContext, Node, OutboxHandler, install_fast_logger
from calyx_logging.errors import ConfigError
from calyx_logging.events import capture
from calyx_logging.events.capture import captured_by
from calyx_logging.handlers.base import EventHandler
from calyx_logging.harness import doctor
from calyx_logging.harness.doctor import examine
from conftest import controls_of, events_of, python, telemetry, tree


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    """Restore loggers and root afterwards, and hide handlers of other tests."""
    EventHandler.alive.clear()
    root = logging.getLogger()
    before, handlers, level = set(logging.Logger.manager.loggerDict), list(root.handlers), root.level
    yield
    for handler in doctor.outbox_handlers():
        handler.close()
    for name in set(logging.Logger.manager.loggerDict) - before:
        del logging.Logger.manager.loggerDict[name]
    root.handlers[:] = handlers
    capture._set({})
    root.setLevel(level)
    logging.disable(logging.NOTSET)


def capturing(node: Node, *names: str, **options: Any) -> dict[str, Any]:
    """Make a dictConfig whose handler is on the root logger and captures these loggers."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "outbox": {
                "class": "calyx_logging.handlers.OutboxHandler",
                "root": str(node.root),
                "capture": list(names),
                "identity": False,
                **options,
            }
        },
        "root": {"level": "INFO", "handlers": ["outbox"]},
    }


def reconfigure_by_dict_config() -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"console": {"class": "logging.NullHandler"}},
            "loggers": {"their": {"level": "INFO", "handlers": ["console"], "propagate": False}},
            "root": {"level": "INFO", "handlers": ["console"]},
        }
    )


def empty_by_hand() -> None:
    logger = logging.getLogger("their")
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
    for handler in [*logger.handlers, *captured_by(logger)]:
        logger.removeHandler(handler)
        handler.close()
    logger.handlers.clear()
    del logger.handlers[:]
    logger.handlers = [logging.NullHandler()]
    logger.propagate = False


def empty_in_a_loop() -> None:
    logger = logging.getLogger("their")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    while logger.hasHandlers():
        logger.removeHandler(logger.handlers[0])
    while logger.handlers:
        logger.handlers.pop()


def basic_config_by_force() -> None:
    logging.getLogger("their").propagate = False
    logging.basicConfig(force=True, level=logging.INFO, handlers=[logging.NullHandler()])


def swap_the_class() -> None:
    install_fast_logger()
    logging.getLogger("their").propagate = False


SABOTAGE = [reconfigure_by_dict_config, empty_by_hand, empty_in_a_loop, basic_config_by_force, swap_the_class]


@pytest.mark.parametrize("sabotage", SABOTAGE, ids=lambda one: one.__name__)
@pytest.mark.parametrize("existing", [True, False])
def test_it_stays_attached(node: Node, sabotage: Callable[[], None], existing: bool) -> None:
    """Records of a harness's logger and its children arrive once each, whatever it does to its handlers."""
    if existing:
        logging.getLogger("their").addHandler(logging.NullHandler())
    logging.config.dictConfig(capturing(node, "their"))
    logging.getLogger("their").info("before")
    sabotage()
    logging.getLogger("their").info("own")
    logging.getLogger("their.child").info("child's")
    sabotage()
    logging.getLogger("their").info("again")
    for handler in doctor.outbox_handlers():
        handler.close()
    events = sorted(events_of(node.outbox), key=lambda event: str(event["ts_utc"]))  # closing ends its writer
    assert [event["message"] for event in events] == ["before", "own", "child's", "again"]
    assert list(node.outbox.glob("*.open")) == []


def test_what_it_was_configured_with_still_works(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    """Other handlers on a captured logger are added, listed and removed as usual; basicConfig still works."""
    logging.config.dictConfig(capturing(node, "root", "their") | {"root": {"level": "INFO"}})
    root, their = logging.getLogger(), logging.getLogger("their")
    assert root.handlers[:] == []
    logging.basicConfig(format="%(message)s!", stream=sys.stdout)
    assert len(root.handlers) == 1
    mine = logging.StreamHandler(sys.stdout)
    their.addHandler(mine)
    assert their.handlers[:] == [mine]
    their.info("hello")
    their.removeHandler(mine)
    assert their.handlers[:] == []
    assert isinstance(their, logging.Logger)
    assert isinstance(root, logging.RootLogger)
    assert capsys.readouterr().out == "hello\nhello!\n"
    for handler in doctor.outbox_handlers():
        handler.close()
    assert [event["message"] for event in events_of(node.outbox)] == ["hello"]


def test_loggers_that_are_made_later(node: Node) -> None:
    """Below a captured name: those that cut propagation, and those of a library's own class, made as it makes them."""
    code = """
        import json, logging, logging.config, sys
        logging.config.dictConfig(json.loads(sys.argv[1]))
        class TheirLogger(logging.Logger):
            pass
        logging.setLoggerClass(TheirLogger)
        their = logging.getLogger("their")
        assert type(their) is TheirLogger, type(their)
        for logger in (their, logging.getLogger("their.stats"), logging.getLogger("theirs")):
            logger.propagate = False
            logger.warning(logger.name)
    """
    done = python(code, json.dumps(capturing(node, "their") | {"root": {"level": "INFO"}}))
    assert done.returncode == 0, done.stderr
    assert done.stderr.split() == ["their", "their.stats", "theirs"]  # nobody else has them: logging's last resort
    assert sorted(event["message"] for event in events_of(node.outbox)) == ["their", "their.stats"]


def test_root_is_everything(node: Node) -> None:
    """A library that cuts its loggers off is heard, and the terminal shows what it showed before."""
    code = """
        import json, logging, logging.config, sys
        logging.config.dictConfig(json.loads(sys.argv[1]))
        lone = logging.getLogger("lone.child")
        lone.propagate = False
        lone.warning("one")
        logging.getLogger().warning("two")
    """
    done = python(code, json.dumps(capturing(node, "root") | {"root": {"level": "INFO"}}))
    assert (done.returncode, done.stderr) == (0, "one\ntwo\n")
    assert sorted(event["message"] for event in events_of(node.outbox)) == ["one", "two"]


@pytest.mark.parametrize("options", [{"capture": ["root"]}, {"fast": True}, {"fast": True, "capture": ["root"]}])
def test_stack_walks_find_the_caller(node: Node, options: dict[str, Any]) -> None:
    """Handlers that look for the first frame which is not logging's, as loguru's recipe does, find the program's."""
    code = """
        import json, logging, logging.config, sys
        logging.config.dictConfig(json.loads(sys.argv[1]))
        class Walk(logging.Handler):
            def emit(self, record):
                frame, depth = sys._getframe(), 0
                while depth == 0 or frame.f_code.co_filename == logging.__file__:
                    frame, depth = frame.f_back, depth + 1
                print(frame.f_code.co_name, record.funcName)
        logging.getLogger().addHandler(Walk())
        def caller():
            logging.getLogger("their").info("x")
            logging.getLogger("their").info("x", stack_info=True)
            logging.getLogger("their").info("x", stacklevel=2)
        def outer():
            caller()
        outer()
    """
    done = python(code, json.dumps(capturing(node, **options)))
    assert done.stdout.split("\n") == ["caller caller", "caller caller", "caller outer", ""], done.stderr


def test_another_handler_that_raises_at_exit(node: Node) -> None:
    """It ends logging's own shutdown; our end is in order all the same."""
    code = """
        import json, logging, logging.config, sys
        logging.config.dictConfig(json.loads(sys.argv[1]))
        class Bad(logging.NullHandler):
            def flush(self):
                raise RuntimeError("cannot flush")
        logging.getLogger().addHandler(Bad())
        logging.getLogger().info("event")
    """
    done = python(code, json.dumps(capturing(node)))
    assert "cannot flush" in done.stderr
    ends = [line for line in controls_of(node.outbox) if line["control"] == "end"]
    assert {end["reason"] for end in ends} == {"closed"}
    assert "event" in [event["message"] for event in events_of(node.outbox)]


def test_a_configuration_that_forgets_it(node: Node) -> None:
    """A dictConfig of the program's empties logging's list of handlers; events after it end in order, too."""
    code = """
        import json, logging, logging.config, sys
        logging.config.dictConfig(json.loads(sys.argv[1]))
        (handler,) = logging.getLogger().handlers
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
        logging.getLogger().addHandler(handler)
        logging.getLogger().warning("event")
    """
    done = python(code, json.dumps(capturing(node)))
    assert (done.returncode, done.stderr) == (0, "")
    assert [line["reason"] for line in controls_of(node.outbox)] == ["closed"]


def test_it_comes_before_those_who_write_into_records(node: Node) -> None:
    """A change that another handler's filter makes to the message does not reach the outbox."""
    logging.config.dictConfig(capturing(node, "their"))
    prefixing = logging.NullHandler()
    prefixing.handle = lambda record: setattr(record, "msg", f"their prefix: {record.msg}")  # type: ignore[method-assign]
    logging.getLogger("their").addHandler(prefixing)
    logging.getLogger("their").info("event")
    for handler in doctor.outbox_handlers():
        handler.close()
    assert [event["message"] for event in events_of(node.outbox)] == ["event"]


def test_a_new_configuration_takes_over(node: Node) -> None:
    """A new configuration with the same outbox, component and source writes each event once."""
    for _ in range(2):
        logging.config.dictConfig(capturing(node, "their"))
        logging.getLogger("their").propagate = False
        logging.getLogger("their").info("event")
    for handler in doctor.outbox_handlers():
        handler.close()
    assert [event["message"] for event in events_of(node.outbox)] == ["event", "event"]


def test_other_handlers_take_nothing_away(node: Node) -> None:
    """Handlers that capture nothing, or another logger, leave the first handler's loggers to it."""
    config = capturing(node, "their")
    config["handlers"]["second"] = {**config["handlers"]["outbox"], "capture": [], "level": "ERROR"}
    config["handlers"]["third"] = {**config["handlers"]["outbox"], "capture": ["another"]}
    logging.config.dictConfig(config | {"root": {"level": "INFO"}})
    OutboxHandler(root=node.root, identity=False)
    logging.getLogger("their").info("their")
    logging.getLogger("another").info("another")
    for handler in doctor.outbox_handlers():
        handler.close()
    assert sorted(event["message"] for event in events_of(node.outbox)) == ["another", "their"]


class MyLogger(logging.Logger):
    """A harness's own class."""


def test_code_that_goes_through_handlers_and_classes(node: Node) -> None:
    """Capture survives code that sets all handlers' formatters and levels, makes loggers of a captured logger's class,
    changes the class, or pickles the logger.
    """
    logging.config.dictConfig(capturing(node, "their"))
    their = logging.getLogger("their")
    plain = logging.NullHandler()
    their.addHandler(plain)
    for handler in their.handlers:
        handler.setFormatter(logging.Formatter("%(message)s"))
        handler.setLevel(logging.CRITICAL)
    assert list(their.handlers) == sorted(their.handlers, key=id) == [plain]
    assert type(their)("new").handlers == []
    their.info("one")
    assert pickle.loads(pickle.dumps(their)) is their
    their.__class__ = MyLogger
    their.info("two")
    logging.setLoggerClass(MyLogger)
    try:
        logging.config.dictConfig(capturing(node, "their.own.class"))
        own = logging.getLogger("their.own.class")
    finally:
        logging.setLoggerClass(logging.Logger)
    own.propagate = False
    own.info("three")
    assert isinstance(own, MyLogger)
    for handler in doctor.outbox_handlers():
        handler.close()
    assert sorted(event["message"] for event in events_of(node.outbox)) == ["one", "three", "two"]


def test_sealed_at_exit_though_logging_forgot_it(node: Node) -> None:
    """The chunk is sealed at exit even if another dictConfig made logging forget the handler."""
    code = """
        import json, logging, logging.config, sys
        logging.config.dictConfig(json.loads(sys.argv[1]))
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, "root": {"handlers": []}})
        logging.getLogger("their").warning("event")
    """
    done = python(code, json.dumps(capturing(node, "their")))
    assert (done.returncode, done.stderr) == (0, "event\n")  # logging's last resort
    assert [event["message"] for event in events_of(node.outbox)] == ["event"]
    assert [line["reason"] for line in controls_of(node.outbox)] == ["closed"]


@pytest.mark.parametrize("names", ["their", [1], [""], 3, {"a": 1}])
def test_bad_names(node: Node, names: Any) -> None:
    """Bad names are refused, and the error says what is expected."""
    with pytest.raises(ConfigError, match="give a list of loggers' names"):
        OutboxHandler(root=node.root, capture=names, identity=False)


# ------------------------------------------------------------------ the doctor


class Refuse(logging.Filter):
    """A harness's own class."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let nothing pass."""
        return False


def the_handler() -> OutboxHandler:
    (handler,) = doctor.outbox_handlers()
    return handler


def spoil(kind: str) -> None:
    their = logging.getLogger("their")
    handler = the_handler()
    if kind == "logging.disable":
        logging.disable(logging.INFO)
    elif kind == "disabled":
        logging.config.dictConfig({"version": 1, "incremental": False, "loggers": {}, "root": {}})
        logging.getLogger().addHandler(handler)
        their.disabled = True
    elif kind == "level":
        logging.getLogger("their").setLevel(logging.ERROR)
    elif kind == "filter":
        their.addFilter(Refuse())
    elif kind == "handler level":
        handler.setLevel(logging.ERROR)
    elif kind == "handler filter":
        handler.addFilter(lambda record: False)
    elif kind == "propagate":
        their.propagate = False
    elif kind == "removed":
        logging.basicConfig(force=True, handlers=[logging.NullHandler()], level=logging.INFO)
    elif kind == "elsewhere":
        logging.getLogger().removeHandler(handler)
        logging.getLogger("other").addHandler(handler)
    elif kind == "dropped":
        handler.handle = lambda record: True  # type: ignore[method-assign]


def follow(kind: str, node: Node) -> None:
    """Do what the advice says."""
    their = logging.getLogger("their")
    if kind == "logging.disable":
        logging.disable(logging.NOTSET)
    elif kind == "disabled":
        their.disabled = False
    elif kind == "level":
        their.setLevel(logging.INFO)
    elif kind == "filter":
        their.filters.clear()
    elif kind == "handler level":
        the_handler().setLevel(logging.INFO)
    elif kind == "handler filter":
        the_handler().filters.clear()
    elif kind == "dropped":
        del the_handler().handle  # type: ignore[method-assign]
    else:
        name = {"propagate": "their", "removed": "root", "elsewhere": "root"}[kind]
        logging.config.dictConfig(capturing(node, name))
        if kind != "elsewhere":
            spoil_again = {"propagate": lambda: None, "removed": basic_config_by_force}[kind]
            spoil_again()
            their.propagate = kind == "removed"


KINDS = {
    "logging.disable": "remove the call of logging.disable",
    "disabled": '"disable_existing_loggers": false',
    "level": "set it, or that of 'their.child', to INFO",
    "filter": "Refuse",
    "handler level": "set it to INFO or lower",
    "handler filter": "on the OutboxHandler refuses it",
    "propagate": '"capture": ["their"]',
    "removed": '"capture": ["root"]',
    "elsewhere": '"capture": ["root"]',
    "dropped": "but not the outbox",
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_it_names_the_cause_and_its_advice_helps(node: Node, kind: str) -> None:
    """The doctor names each kind of sabotage and leaves nothing in the node's outbox."""
    logging.config.dictConfig(capturing(node))
    name = "their" if kind in ("filter", "disabled") else "their.child"
    logging.getLogger(name)
    assert examine([name])[0].arrives
    spoil(kind)
    gc.collect()  # a removed handler may be collected
    (finding,) = examine([name])
    assert (finding.arrives, finding.cause) == (False, kind)
    assert KINDS[kind] in str(finding.advice)
    assert events_of(node.outbox) == []
    follow(kind, node)
    (finding,) = examine([name])
    assert finding.arrives, finding
    logging.getLogger(name).info("real")
    for handler in doctor.outbox_handlers():
        handler.close()
    assert [event["message"] for event in events_of(node.outbox)] == ["real"]


def test_no_handler_at_all() -> None:
    """The doctor reports that there is no handler."""
    code = """
        import logging
        from calyx_logging.harness.doctor import examine
        logging.getLogger("their").setLevel(logging.INFO)
        print(examine(["their"])[0].cause)
    """
    assert python(code).stdout.strip() == "no handler"


def test_through_a_queue_and_a_listener(node: Node) -> None:
    """The doctor waits for a canary that goes through a queue."""
    handler = OutboxHandler(root=node.root, identity=False)
    records: queue.Queue[Any] = queue.Queue()
    listener = logging.handlers.QueueListener(records, handler)
    logger = logging.getLogger("their")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.handlers.QueueHandler(records))
    listener.start()
    try:
        assert examine(["their"])[0].arrives
    finally:
        listener.stop()


def test_captured_and_queued(node: Node) -> None:
    """A double arrival is reported; with the advised filter the event arrives once."""
    logging.config.dictConfig(capturing(node, "their"))
    outbox = the_handler()
    records: queue.Queue[Any] = queue.Queue()
    queued = logging.handlers.QueueHandler(records)
    logger = logging.getLogger("their")
    logger.propagate = False
    logger.addHandler(queued)
    (finding,) = examine(["their"])
    assert finding.is_well  # no listener runs yet
    listener = logging.handlers.QueueListener(records, outbox)
    listener.start()
    try:
        (finding,) = examine(["their"])
        assert (finding.arrives, finding.cause, finding.is_well) == (True, "twice", False)
        queued.addFilter(KeepContext())
        (finding,) = examine(["their"])
        assert finding.is_well
    finally:
        listener.stop()


def test_a_queue_that_nobody_listens_to(node: Node) -> None:
    """A queue without listener is reported as such."""
    handler = OutboxHandler(root=node.root, identity=False)
    logger = logging.getLogger("their")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.handlers.QueueHandler(queue.Queue()))
    (finding,) = examine(["their"])
    assert (finding.cause, finding.where) == ("queue", "their")
    handler.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="dictConfig makes QueueHandlers from Python 3.12 on")
def test_a_queue_of_dict_config(node: Node) -> None:
    """A listener that nobody has started is what stops it; the doctor starts none, and says how."""
    config = capturing(node) | {"root": {"level": "INFO", "handlers": ["queue"]}}
    config["handlers"]["queue"] = {"class": "logging.handlers.QueueHandler", "handlers": ["outbox"]}
    logging.config.dictConfig(config)
    (finding,) = examine(["their"])
    assert (finding.arrives, finding.cause) == (False, "queue"), finding
    assert ".listener.start()" in str(finding.advice)
    listener = logging.getHandlerByName("queue").listener  # type: ignore[union-attr,attr-defined,unused-ignore]
    listener.start()
    try:
        (finding,) = examine(["their"])
        assert finding.is_well, finding
    finally:
        listener.stop()


def test_a_filter_that_raises(node: Node) -> None:
    """A filter that raises is reported as a finding; the doctor does not fail."""
    logging.config.dictConfig(capturing(node))

    def broken(record: logging.LogRecord) -> bool:
        raise KeyError("bug")

    logging.getLogger("their").addFilter(broken)
    (finding,) = examine(["their"])
    assert (finding.cause, "raises KeyError" in str(finding.advice)) == ("filter", True)


HARNESS = """
    import atexit, logging, logging.config, os

    LOGGING = {config}

    def setup():
        logging.config.dictConfig(LOGGING)

    def run():
        logging.getLogger("their.module").propagate = False
        print("their own output")
        os.system("echo their own output")
        atexit.register(print, "their own output")
"""


def harness_in(folder: Path, node: Node, *names: str) -> Path:
    path = folder / "their_harness.py"
    path.write_text(textwrap.dedent(HARNESS).replace("{config}", repr(capturing(node, *names))))
    return path


def test_the_command(node: Node, tmp_path: Path) -> None:
    """The command takes modules and functions, writes JSON and sets exit codes; with its advice the canary arrives."""
    harness_in(tmp_path, node)
    before = tree(node.outbox)
    done = telemetry("doctor", "their_harness:setup", "their_harness:run", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "STOPPED  their.module" in done.stdout
    assert '"capture": ["their.module"]' in done.stdout
    assert "their own output" not in done.stdout
    document = json.loads(
        telemetry("doctor", "their_harness:LOGGING", "their_harness:run", "--json", cwd=tmp_path).stdout
    )
    findings = {one["logger"]: one for one in document["loggers"]}
    assert findings["root"]["arrives"] is True
    assert findings["their.module"]["cause"] == "propagate"
    harness_in(tmp_path, node, "their.module")
    done = telemetry("doctor", "their_harness.py:setup", "their_harness:run", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "0 stopped" in done.stdout
    after = {name: data for name, data in tree(node.outbox).items() if not name.startswith(".writers")}
    assert after == {name: data for name, data in before.items() if not name.startswith(".writers")}


def test_the_doctor_leaves_the_execution_log_alone(node: Node) -> None:
    """A canary is not written to the execution log."""
    config = capturing(node)
    config["handlers"]["log"] = {
        "class": "calyx_logging.handlers.ExecutionLogHandler",
        "root": str(node.root),
        "run_id": "r",
        "run_instance_id": "i",
    }
    config["root"]["handlers"].append("log")
    logging.config.dictConfig(config)
    assert examine(["their"])[0].is_well
    logging.getLogger("their").info("real")
    path = node.root / "runtime/benchmarks/execution_logs/r__i.events.jsonl"
    assert [json.loads(line)["message"] for line in path.read_bytes().splitlines()] == ["real"]


@pytest.mark.slow
def test_configuration_files(node: Node, tmp_path: Path) -> None:
    """The doctor reads JSON, YAML, TOML, INI and Python configurations."""
    config = capturing(node) | {"loggers": {"named": {"level": "WARNING"}}}
    (tmp_path / "log.json").write_text(json.dumps(config))
    (tmp_path / "log.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "log.py").write_text(f"import logging.config\nlogging.config.dictConfig({config!r})\n")
    (tmp_path / "log.ini").write_text(
        "[loggers]\nkeys=root,named\n[handlers]\nkeys=outbox\n[formatters]\nkeys=\n[logger_root]\nlevel=INFO\n"
        "handlers=outbox\n[logger_named]\nqualname=named\nlevel=WARNING\nhandlers=\n[handler_outbox]\n"
        f"class=calyx_logging.handlers.OutboxHandler\nkwargs={{'root': {str(node.root)!r}}}\n"
    )
    (tmp_path / "log.toml").write_text(
        "version = 1\ndisable_existing_loggers = false\n[handlers.outbox]\n"
        f"class = 'calyx_logging.handlers.OutboxHandler'\nroot = '{node.root}'\n"
        "[loggers.named]\nlevel = 'WARNING'\n[root]\nlevel = 'INFO'\nhandlers = ['outbox']\n"
    )
    for name in ("log.json", "log.yaml", "log.toml", "log.ini", "log.py"):
        done = telemetry("doctor", tmp_path / name)
        assert done.returncode == 1, (name, done.stderr)
        assert "ok       root" in done.stdout, name
        assert "STOPPED  named" in done.stdout, name
        assert telemetry("doctor", tmp_path / name, "--level", "warning").returncode == 0, name


@pytest.mark.parametrize(
    ("target", "content", "code", "says"),
    [
        ("none.json", None, 4, "read the configuration"),
        ("bad.json", "{", 2, "cannot be read"),
        ("bad.yaml", "a: [", 2, "cannot be read"),
        ("list.json", "[]", 2, "no configuration for dictConfig"),
        ("other.json", '{"version": 1}', 2, "configures no OutboxHandler"),
        ("wrong.json", '{"version": 1, "handlers": {"x": {"class": "no.such"}}}', 2, "fails: "),
        ("raises.py", "raise SystemExit(3)", 2, "fails: SystemExit: 3"),
        ("no.such.module", None, 2, "fails: ModuleNotFoundError"),
        ("json:nothing", None, 2, "no 'nothing' in it"),
        (
            "unprovisioned.json",
            '{"version": 1, "handlers": {"x": {"class": "calyx_logging.handlers.OutboxHandler"}}}',
            2,
            "calyx-telemetry provision",
        ),
    ],
)
def test_targets_that_are_none(tmp_path: Path, target: str, content: str | None, code: int, says: str) -> None:
    """Bad targets give one line that says what to do, without a traceback."""
    if content is not None:
        (tmp_path / target).write_text(content)
    done = telemetry("doctor", target, cwd=tmp_path)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert telemetry("doctor", target, "--level", "LOUD", cwd=tmp_path).returncode == 2


def test_a_logger_for_each_request(configure: Callable[..., logging.Logger], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all their names are remembered; names that are no text are taken, too."""
    monkeypatch.setattr(capture, "_MOST_NAMES", 10)
    (handler,) = configure(capture=["request"]).handlers
    for n in range(100):
        assert captured_by(logging.Logger(f"request.{n}")) == [handler]
    assert captured_by(logging.Logger(None)) == []  # type: ignore[arg-type]
    assert len(capture._found) <= 10
