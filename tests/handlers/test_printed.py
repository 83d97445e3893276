"""Warnings and printed lines become events, and the terminal sees what it saw before."""

from __future__ import annotations

import json
from typing import Any

from calyx_logging import Node
from calyx_logging.outbox.export import export
from conftest import config, events_of, python

HEAD = """
import io, json, logging, logging.config, os, sys, threading, warnings
{before}
logging.config.dictConfig(json.loads(sys.argv[1]))
log = logging.getLogger("harness")
"""


def run(
    node: Node, body: str, *, before: str = "", code: int = 0, **options: Any
) -> tuple[list[dict[str, Any]], str, str]:
    """Run a program; its events, its output, and its standard error."""
    done = python(HEAD.format(before=before) + body, json.dumps(config(node, **options)))
    assert done.returncode == code, done.stderr
    export(node)
    return events_of(node.outbox), done.stdout, done.stderr


def messages(events: list[dict[str, Any]], source: str) -> list[str]:
    return [event["message"] for event in events if event["source"] == source]


# ------------------------------------------------------------------ warnings


def test_a_warning(node: Node) -> None:
    """An event with category, file and line; shown as before."""
    ((event,), _, stderr) = run(node, "warnings.warn('the cache is stale')")
    assert (event["level"], event["logger"], event["message"]) == ("warning", "py.warnings", "the cache is stale")
    assert (event["category"], event["file"], event["line"]) == ("UserWarning", "<string>", 6)
    assert stderr.count("UserWarning: the cache is stale") == 1


def test_what_is_not_shown_is_no_event(node: Node) -> None:
    """Filters of warnings, and tests that catch them, decide."""
    body = """
warnings.simplefilter("ignore", ResourceWarning)
warnings.warn("ignored", ResourceWarning)
with warnings.catch_warnings(record=True):
    warnings.simplefilter("always")
    warnings.warn("caught")
"""
    assert run(node, body)[0] == []


def test_captured_by_logging(node: Node) -> None:
    """Before or after: one event, with the same fields; nothing on standard error, as then."""
    for where in ("before", "after"):
        capture = "logging.captureWarnings(True)"
        body = f"{capture if where == 'after' else ''}\nwarnings.warn('stale', RuntimeWarning)\n"
        cfg = {**config(node), "root": {"level": "INFO", "handlers": list(config(node)["handlers"])}}
        cfg.pop("loggers", None)
        done = python(HEAD.format(before=capture if where == "before" else "") + body, json.dumps(cfg))
        assert done.returncode == 0, done.stderr
        assert "RuntimeWarning" not in done.stderr
    export(node)
    events = events_of(node.outbox)
    assert len(events) == 2
    for event in events:
        assert "RuntimeWarning: stale" in event["message"]
        assert (event["category"], event["file"]) == ("RuntimeWarning", "<string>")
        assert event["line"] in (6, 7)


def test_a_hook_that_raises(node: Node) -> None:
    """The program's own hook still runs, after the event."""
    before = "def bad(*_): raise LookupError('bad hook')\nwarnings.showwarning = bad"
    events, _, stderr = run(node, "warnings.warn('stale')", before=before, code=1)
    assert events[0]["message"] == "stale"
    assert "LookupError: bad hook" in stderr


def test_an_odd_warning(node: Node) -> None:
    """A message that cannot be said stops nothing."""
    body = """
class Odd(UserWarning):
    said = False
    def __str__(self):
        if self.said:
            raise RuntimeError("no text")
        self.said = True
        return "odd"
try:
    warnings.warn(Odd())
except RuntimeError:
    pass  # the stock hook's
log.info("goes on")
"""
    events, _, _ = run(node, body)
    assert [event.get("category") for event in events] == ["Odd", None]


def test_warnings_can_be_turned_off(node: Node) -> None:
    """`warnings: false`."""
    assert run(node, "warnings.warn('stale')", warnings=False)[0] == []


# ------------------------------------------------------------------ printed lines


def test_printed_lines(node: Node) -> None:
    """One event a line, of its stream's source; the output is the same, byte for byte."""
    body = """
print("scores:", 1, 2, sep=" ")
print("no end", end="")
print("", "of line")
sys.stderr.write("two\\nlines\\n")
sys.stdout.writelines(["a\\n", "b\\n"])
print()
print("last", end="")
"""
    events, stdout, stderr = run(node, body, stdout=True)
    assert messages(events, "stdout") == ["scores: 1 2", "no end of line", "a", "b", "last"]
    assert messages(events, "stderr") == ["two", "lines"]
    assert {(event["level"], event["logger"]) for event in events} == {("info", "stdout"), ("info", "stderr")}
    assert stdout == "scores: 1 2\nno end of line\na\nb\n\nlast"
    assert stderr == "two\nlines\n"


def test_a_console_handler_makes_no_loop(node: Node) -> None:
    """Made before or after, of logging or of rich: its lines are no events, and each record is one."""
    before = "early = logging.StreamHandler(sys.stderr)"
    body = """
from rich.logging import RichHandler
for handler in (early, logging.StreamHandler(sys.stdout), RichHandler()):
    log.addHandler(handler)
log.info("once")
print("printed")
"""
    events, stdout, stderr = run(node, body, before=before, stdout=True)
    assert [(event["source"], event["message"]) for event in events] == [
        ("bench_harness", "once"),
        ("stdout", "printed"),
    ]
    assert stdout.count("once") == 2
    assert stderr == "once\n"


def test_a_progress_bar(node: Node) -> None:
    """Its last state alone."""
    body = """
for percent in range(101):
    sys.stderr.write(f"\\r{percent} %")
sys.stderr.write("\\n")
sys.stderr.write("\\r50 %\\r\\n")
"""
    events, _, stderr = run(node, body, stdout=True)
    assert messages(events, "stderr") == ["100 %", "50 %"]
    assert stderr.count("%") == 102


def test_threads_do_not_mix(node: Node) -> None:
    """Each one's lines are whole, though its parts are written between those of others."""
    body = """
barrier = threading.Barrier(2)
def work(name):
    for number in range(50):
        sys.stdout.write(name)
        barrier.wait()
        sys.stdout.write(f" {number}\\n")
threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    events, _, _ = run(node, body, stdout=True)
    assert sorted(messages(events, "stdout")) == sorted(f"{name} {number}" for name in "ab" for number in range(50))


def test_a_line_without_end(node: Node) -> None:
    """It takes no more than 64 Ki characters of memory."""
    events, stdout, _ = run(node, "sys.stdout.write('x' * 200_000)", stdout=True)
    assert [len(message) for message in messages(events, "stdout")] == [65536, 65536, 65536, 3392]
    assert len(stdout) == 200_000


def test_what_is_redirected_is_not_printed(node: Node) -> None:
    """A program that catches its own output keeps it to itself; the stream stays what it was."""
    body = """
import contextlib
before = type(sys.stdout), sys.stdout.fileno(), sys.stdout.encoding
with contextlib.redirect_stdout(io.StringIO()) as caught:
    print("caught")
assert caught.getvalue() == "caught\\n"
assert (type(sys.stdout), sys.stdout.fileno(), sys.stdout.encoding) == before
print(os.getpid() > 0)
"""
    assert messages(run(node, body, stdout=True)[0], "stdout") == ["True"]


def test_a_stream_that_fails(node: Node) -> None:
    """The program gets its error, and the event is no more than what was printed."""
    body = """
sys.stdout.close()
try:
    print("into the void")
except ValueError:
    log.info("closed")
"""
    events, _, _ = run(node, body, stdout=True)
    assert [event["message"] for event in events] == ["closed"]


def test_streams_of_other_kinds(node: Node) -> None:
    """None, as under pythonw, and objects that take no attributes."""
    before = """
class Bare:
    __slots__ = ()
    def write(self, text): return len(text)
    def flush(self): pass
sys.stdout = None
real, sys.stderr = sys.stderr, Bare()
"""
    events, _, _ = run(node, "print('nowhere')\nlog.info('goes on')", before=before, stdout=True)
    assert [event["message"] for event in events] == ["goes on"]


def test_forked_children(node: Node) -> None:
    """They go on with lines of their own."""
    body = """
sys.stdout.write("parent ")
sys.stdout.flush()
if hasattr(os, "fork"):
    pid = os.fork()
    if not pid:
        print("child")
        log.handlers[0].close()
        os._exit(0)
    os.waitpid(pid, 0)
print("goes on")
"""
    lines = messages(run(node, body, stdout=True)[0], "stdout")
    assert "parent goes on" in lines
    assert "parent child" not in lines


def test_filters_and_processors_apply(node: Node) -> None:
    """Secrets are taken out of printed lines as of any other record."""
    body = """
import calyx_logging
from calyx_logging.redact import RedactSecrets
handler = log.handlers[0]
handler.setFormatter(calyx_logging.EventFormatter(processors=[RedactSecrets()]))
handler.addFilter(lambda record: "noise" not in record.getMessage())
print("password=hunter2hunter2")
print("noise")
"""
    events, stdout, _ = run(node, body, stdout=True)
    assert messages(events, "stdout") == ["[redacted]"]
    assert "hunter2" in stdout


def test_a_filter_that_prints(node: Node) -> None:
    """Text that is printed while a printed line is logged is no event, or there would be no end of it."""
    body = """
def speak(record):
    print("speaking")
    return True
log.handlers[0].addFilter(speak)
print("once")
"""
    events, stdout, stderr = run(node, body, stdout=True)
    assert messages(events, "stdout") == ["once"]
    assert (stdout, stderr) == ("once\nspeaking\n", "")


def test_what_a_warning_is_about(node: Node) -> None:
    """Python shows its line on the object as it does without a handler."""
    before = "warnings.simplefilter('always')"
    _, _, stderr = run(node, "stream = open(os.devnull)\ndel stream", before=before)
    assert stderr.splitlines()[-1] == "ResourceWarning: Enable tracemalloc to get the object allocation traceback"


def test_warnings_after_a_handler_that_was_made_while_some_were_caught(node: Node) -> None:
    """The next handler hears of them again."""
    before = "warnings.catch_warnings().__enter__()"
    body = """
warnings.showwarning = warnings._showwarning_orig
logging.config.dictConfig(json.loads(sys.argv[1]))
warnings.warn("heard")
"""
    events, _, _ = run(node, body, before=before)
    assert "heard" in messages(events, "bench_harness")


def test_a_filter_that_warns(node: Node) -> None:
    """A warning that comes up while one is logged is shown, but is no event."""
    body = """
def careful(record):
    warnings.warn("inner")
    return True
log.handlers[0].addFilter(careful)
warnings.warn("outer")
"""
    events, _, stderr = run(node, body, before="warnings.simplefilter('always')")
    assert messages(events, "bench_harness") == ["outer"]
    assert stderr.count("UserWarning: ") == 2
