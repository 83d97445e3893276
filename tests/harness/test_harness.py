"""Functions for existing harness code: mirror, execution log, results by node, envelopes."""

from __future__ import annotations

import datetime
import hashlib
import importlib
import json
import multiprocessing
import os
import runpy
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from calyx_logging import Node, harness, provision
from calyx_logging.bundle.folder import verify
from calyx_logging.errors import ConfigError, InvalidNodeId, ManifestError, StorageError
from calyx_logging.format.run_envelope import FileDigest, RunEnvelope
from calyx_logging.harness import append_event, get_node_id, get_results_dir, mirror, mirror_event, not_kept
from calyx_logging.outbox.export import export
from conftest import controls_of, events_of, lines_of, python, tree


@pytest.fixture(autouse=True)
def _fresh_mirrors() -> Iterator[None]:
    """Start each test without writers, and close those it made."""
    yield
    harness.set_processors([])
    for one in list(mirror._mirrors.values()):
        one.close()
    mirror._mirrors.clear()
    mirror._places.clear()
    mirror._lost.clear()
    for log in list(harness._logs.values()):
        log.close()
    harness._logs.clear()
    harness._lost_before.clear()


def close_mirrors() -> None:
    for one in list(mirror._mirrors.values()):
        one.close()


def log_of(node: Node) -> Path:
    return node.root / "runtime/benchmarks/execution_logs/r__i.events.jsonl"


def log_lines(node: Node) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log_of(node).read_bytes().splitlines()]


def recomputed_hash(event: dict[str, Any]) -> str:
    rest = {name: value for name, value in event.items() if name not in ("ts_utc", "payload_hash", "seq")}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, ensure_ascii=False).encode("utf-8")).hexdigest()


# ------------------------------------------------------------------ mirror_event


def test_a_dict_is_mirrored_and_not_changed(node: Node) -> None:
    """A mirrored dict keeps its own id and time; its reserved names move to `shadowed`."""
    event = {
        "event_id": "mine-1",
        "ts_utc": "2026-01-01T02:00:00+02:00",
        "level": "warning",
        "node_id": "elsewhere",
        "source": "other",
        "seq": 7,
        "message": 5,
        "control": "end",
        "case": {"deep": [1, 2]},
        "_record": "a caller's field",
    }
    before = json.dumps(event)
    assert mirror_event(MappingProxyType(event), "My Harness/v2", repo_root=node.root) is True
    assert mirror_event({}, "My Harness/v2", repo_root=str(node.root)) is True
    assert json.dumps(event) == before
    close_mirrors()
    first, second = events_of(node.outbox)
    assert first == {
        "node_id": "test-node",
        "ts_utc": "2026-01-01T00:00:00.000000+00:00",
        "event_id": "mine-1",
        "source": "My Harness/v2",
        "level": "warning",
        "logger": "My Harness/v2",
        "message": "",
        "case": {"deep": [1, 2]},
        "_record": "a caller's field",
        "shadowed": {"node_id": "elsewhere", "source": "other", "seq": 7, "message": 5, "control": "end"},
        "seq": 0,
    }
    assert (second["level"], second["logger"], second["message"], second["seq"]) == ("info", "My Harness/v2", "", 1)
    assert all("__my-harness-v2__" in path.name for path in node.outbox.glob("*.jsonl"))


@pytest.mark.parametrize(
    ("source", "component"),
    [
        ("bench_harness", "bench_harness"),
        ("Größe", "gr-e"),
        ("a__b--c", "a-b-c"),
        ("-x-", "x"),
        ("日本", "harness"),
        ("y" * 60, "y" * 48),
    ],
)
def test_the_component_is_the_slug_of_the_source(node: Node, source: str, component: str) -> None:
    """Any source gives a valid chunk name."""
    assert mirror.component_of(source) == component
    assert mirror_event({"n": 1}, source, repo_root=node.root)


def test_the_root_is_found_in_this_order(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The root is repo_root, else runtime_root's parent, else above log_path, else found as usual."""
    other = tmp_path / "other"
    other.mkdir()
    second = provision(other, "second").node
    log = log_of(node)
    assert mirror_event({"n": 1}, repo_root=node.root, runtime_root=other / "runtime", log_path=log)
    assert mirror_event({"n": 2}, runtime_root=other / "runtime", log_path=log)
    assert mirror_event({"n": 3}, log_path=log)
    monkeypatch.chdir(other)
    assert mirror_event({"n": 4})
    monkeypatch.setenv("CALYX_ROOT", str(node.root))
    assert mirror_event({"n": 5})
    monkeypatch.chdir(node.root)
    assert mirror_event({"n": 6}, runtime_root="runtime")
    close_mirrors()
    assert sorted(event["n"] for event in events_of(node.outbox)) == [1, 3, 5, 6]
    assert sorted(event["n"] for event in events_of(second.outbox)) == [2, 4]


def test_what_cannot_be_mirrored_is_counted_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A missing node id, a value that is no mapping, a bad source or a bad path give False, not an exception."""
    monkeypatch.chdir(tmp_path)
    assert [mirror_event({"n": n}, repo_root=tmp_path) for n in range(3)] == [False] * 3
    assert mirror_event(["no", "dict"], repo_root=tmp_path) is False  # type: ignore[arg-type]
    assert mirror_event({"n": 1}, repo_root=tmp_path / "missing") is False
    assert mirror_event({"n": 1}, repo_root=object()) is False  # type: ignore[arg-type]
    provision(tmp_path, "n-1")
    assert mirror_event({"n": 1}, "", repo_root=tmp_path) is False
    assert mirror_event({"n": 1}, "calyx_logging", repo_root=tmp_path) is False
    assert mirror_event({"n": 4}, repo_root=tmp_path) is True
    assert sum(not_kept().values()) == 8
    assert max(not_kept().values()) == 3
    said = capfd.readouterr().err
    assert said.count("the node id is missing") == 1
    assert "calyx-telemetry provision" in said
    assert "an event is a dict, not list" in said


@pytest.mark.skipif(sys.platform == "win32", reason="writes through a link to /dev/full")
def test_a_mirror_on_a_disk_that_fails_says_false(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a failing disk the caller gets False, and a gap line counts the event."""
    from calyx_logging.core import files

    assert mirror_event({"n": 0}, repo_root=node.root)

    def full(self: files.AppendFile, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files.AppendFile, "write", full)
        patched.setattr(files.AppendFile, "append", full)
        assert mirror_event({"n": 1}, repo_root=node.root) is False
    assert mirror_event({"n": 2}, repo_root=node.root) is True
    assert list(not_kept().values()) == [1]
    close_mirrors()
    assert [event["n"] for event in events_of(node.outbox)] == [0, 2]
    gap = next(line for line in controls_of(node.outbox) if line["control"] == "gap")
    assert (gap["control"], gap["count"]) == ("gap", 1)


def test_one_writer_for_each_root_and_source(node: Node, tmp_path: Path) -> None:
    """Many threads, three names of one root and a module re-imported for each event share one mirror per source."""
    script = tmp_path / "their_module.py"
    ways = [{"repo_root": node.root}, {"runtime_root": node.root / "runtime"}, {"log_path": log_of(node)}]
    script.write_text(
        "from calyx_logging.harness import mirror_event\ndef log(n, **where): return mirror_event({'n': n}, **where)\n"
    )

    def work(first: int) -> None:
        for n in range(first, first + 50):
            where = ways[n % 3]
            assert runpy.run_path(str(script))["log"](n, **where)
            assert mirror_event({"n": n}, "second", repo_root=node.root)

    threads = [threading.Thread(target=work, args=(k * 50,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    importlib.reload(harness)
    assert harness.mirror_event({"n": -1}, repo_root=node.root)
    close_mirrors()
    assert {path.name.split("__")[1] for path in node.outbox.glob("*.jsonl")} == {"bench_harness", "second"}
    firsts = [path for path in node.outbox.glob("*.jsonl") if b'"control":"start"' not in path.read_bytes()]
    assert len(firsts) == 2, "writers of one process that do not name the first of them"
    assert len(events_of(node.outbox)) == 401


def test_mirrors_in_child_processes_and_at_exit(node: Node) -> None:
    """A forked child has its own writer, and everything is sealed at exit."""
    code = """
        import os, sys
        from calyx_logging.harness import mirror_event
        assert mirror_event({"n": 0}, repo_root=sys.argv[1])
        if hasattr(os, "fork"):
            pid = os.fork()
            assert mirror_event({"n": 1 if pid else 2}, repo_root=sys.argv[1])
            if pid:
                os.wait()
    """
    done = python(code, str(node.root))
    assert done.returncode == 0, done.stderr
    assert list(node.outbox.glob("*.open")) == []
    assert len(list(node.outbox.glob("*.jsonl"))) == (2 if hasattr(os, "fork") else 1)
    assert {line["reason"] for line in controls_of(node.outbox)} == {"closed"}


# ------------------------------------------------------------------ append_event


def test_an_event_is_in_both_places_with_one_id_and_its_hash(node: Node) -> None:
    """The returned event is the line, and its hash can be recomputed from the log alone."""
    payload = {"case_id": "2+2", "score": 1.0, "grösse": "ü", "when": datetime.date(2026, 1, 1), "x": float("nan")}
    event = append_event(log_of(node), "r", "case_done", action_id="a-1", risk_score=0.25, payload=payload)
    assert (event["run_id"], event["stage"], event["decision_type"], event["policy_reason"]) == (
        "r",
        "case_done",
        "allow",
        None,
    )
    assert (event["when"], event["x"], event["score"]) == ("2026-01-01", "NaN", 1.0)
    assert event["payload_hash"] == recomputed_hash(event)
    assert log_lines(node) == [event]
    close_mirrors()
    (there,) = events_of(node.outbox)
    assert there.pop("seq") == 0
    assert there == event
    assert payload["score"] == 1.0
    assert len(payload) == 5


def test_what_payload_and_arguments_both_say(node: Node) -> None:
    """The argument wins unless it is None, nothing is dropped, and the payload's id and time become the event's."""
    event = append_event(
        log_of(node),
        "r",
        "start",
        payload={
            "stage": "other",
            "run_id": "r",
            "action_id": "from payload",
            "payload_hash": "theirs",
            "event_id": "id-7",
            "ts_utc": "2026-01-01T00:00:00+00:00",
        },
    )
    assert (event["stage"], event["action_id"], event["event_id"]) == ("start", "from payload", "id-7")
    assert event["ts_utc"] == "2026-01-01T00:00:00.000000+00:00"
    assert event["shadowed"] == {"stage": "other", "payload_hash": "theirs"}
    assert event["payload_hash"] == recomputed_hash(event)


def test_without_node_id_the_execution_log_goes_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without a node id the line has none and the mirror loss is counted; with an id both places get the event."""
    log = tmp_path / "runtime/benchmarks/execution_logs/r__i.events.jsonl"
    first = append_event(log, "r", "start")
    assert "node_id" not in first
    assert first["payload_hash"] == recomputed_hash(first)
    assert sum(not_kept().values()) == 1
    node = provision(tmp_path, "n-1").node
    second = append_event(log, "r", "end")
    assert second["node_id"] == "n-1"
    assert log_lines(node) == [first, second]
    assert len(events_of(node.outbox)) == 1
    assert capfd.readouterr().err.count("not mirrored") == 1


def test_one_sink_that_fails_does_not_stop_the_other(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    """With a folder in the log's place, the outbox gets the event; the failure is reported and counted."""
    log_of(node).mkdir(parents=True)
    for _ in range(2):
        assert append_event(log_of(node), "r", "start")["stage"] == "start"
    assert len(events_of(node.outbox)) == 2
    assert sum(not_kept().values()) == 2
    assert capfd.readouterr().err.count("write the execution log") == 1
    with pytest.raises(TypeError, match="give a dict"):
        append_event(log_of(node), "r", "start", payload=[1])  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        append_event(None, "r", "start")  # type: ignore[arg-type]


def test_many_runs_in_one_process(node: Node) -> None:
    """Only a few logs stay open, and each has its lines."""
    logs = [log_of(node).with_name(f"r{n}__i.events.jsonl") for n in range(40)]
    for stage in ("start", "end"):
        for log in logs:
            append_event(log, log.name[:-20], stage)
    assert all(len(log.read_bytes().splitlines()) == 2 for log in logs)
    assert len(harness._logs) == 16
    close_mirrors()
    assert len(events_of(node.outbox)) == 80


def test_processors_of_the_mirror(node: Node) -> None:
    """Processors apply to all mirrored and appended events, and may remove secrets or drop events."""
    harness.set_processors(["calyx_logging.redact.RedactSecrets"])
    event = append_event(log_of(node), "r", "start", payload={"api_key": "hunter2xyz", "n": 1})
    assert mirror_event({"text": "Bearer abcdefgh1234"}, repo_root=node.root)
    assert (event["api_key"], event["degraded"]) == ("[redacted]", ["redacted: 1"])
    close_mirrors()
    assert b"hunter2" not in b"".join(path.read_bytes() for path in node.outbox.glob("*.jsonl"))
    assert [event.get("degraded") for event in events_of(node.outbox)] == [["redacted: 1"]] * 2
    with pytest.raises(ConfigError, match="was not found"):
        harness.set_processors(["no.such.processor"])


OLDER = """
import sys
from pathlib import Path
{imports}

def main(root):
    runtime = Path(root, "runtime")
    log = runtime / "benchmarks" / "execution_logs" / "run-7__inst-1.events.jsonl"
    results = get_results_dir(runtime / "benchmarks", "arithmetic", runtime)
    results.mkdir(parents=True, exist_ok=True)
    append_event(log, "run-7", "run_start", payload={{"node": get_node_id(runtime)}})
    for n in range(20):
        append_event(log, "run-7", "case_done", action_id=f"case-{{n}}", adapter_status="ok", risk_label="low",
                     risk_score=n / 20, payload={{"case_id": str(n), "score": n % 2}})
    append_event(log, "run-7", "run_end", decision_type="deny", policy_reason="over")
    (results / "summary.json").write_text("[]")
    print(results)

main(sys.argv[1])
"""


def test_a_harness_for_the_older_functions_runs_with_other_imports_alone(node: Node) -> None:
    """After changing only imports, every append_event is in the execution log and a bundle, with equal ids."""
    code = OLDER.format(imports="from calyx_logging.harness import append_event, get_node_id, get_results_dir")
    done = python(code, str(node.root))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert Path(done.stdout.strip()) == node.root / "runtime/benchmarks/results/arithmetic/test-node"
    log = node.root / "runtime/benchmarks/execution_logs/run-7__inst-1.events.jsonl"
    here = [json.loads(line) for line in log.read_bytes().splitlines()]
    result = export(node)
    assert result.bundle is not None
    verify(result.bundle)
    there = [line for line in lines_of(result.bundle) if line.get("source") == "bench_harness"]
    assert len(here) == 22
    assert [event["event_id"] for event in here] == [event["event_id"] for event in there]
    assert all(event["payload_hash"] == recomputed_hash(event) for event in here)


def _append(log: str, first: int) -> None:
    for n in range(first, first + 20):
        append_event(log, "r", "step", payload={"n": n})


def test_append_event_from_many_processes_and_threads(node: Node) -> None:
    """Many processes and threads share one execution log; every event is whole and once in both places."""
    processes = [
        multiprocessing.get_context("spawn").Process(target=_append, args=(str(log_of(node)), k * 20)) for k in range(3)
    ]
    threads = [threading.Thread(target=_append, args=(str(log_of(node)), 100 + k * 20)) for k in range(3)]
    for one in (*processes, *threads):
        one.start()
    for one in (*processes, *threads):
        one.join()
    close_mirrors()
    expected = sorted([*range(60), *range(100, 160)])
    assert sorted(event["n"] for event in log_lines(node)) == expected
    assert sorted(event["n"] for event in events_of(node.outbox)) == expected


# ------------------------------------------------------------------ results by node


def test_what_a_processor_does_to_mirrored_events(node: Node) -> None:
    """A dropped event counts as neither kept nor lost; a hash set by a processor is shadowed."""
    import structlog

    def drop(logger: object, method: str, event: Any) -> Any:
        if event.get("drop"):
            raise structlog.DropEvent
        return {**event, "payload_hash": "theirs"}

    harness.set_processors([drop])
    assert mirror_event({"drop": 1}, repo_root=node.root) is False
    assert append_event(log_of(node), "r", "start", payload={"drop": 1})["stage"] == "start"
    assert not log_of(node).exists()
    assert not_kept() == {}
    event = append_event(log_of(node), "r", "start")
    assert event["payload_hash"] == recomputed_hash(event)
    assert event["shadowed"] == {"payload_hash": "theirs"}
    assert log_of(node).read_bytes().count(b'"payload_hash":') == 2  # one of them in `shadowed`


def test_paths_that_are_none_and_payloads_that_lie(node: Node, tmp_path: Path) -> None:
    """With a pipe or a NUL as path or an odd mapping, the outbox gets the event and nothing hangs."""

    class Odd(dict[str, Any]):
        def __bool__(self) -> bool:
            raise RuntimeError("no")

    if hasattr(os, "mkfifo"):
        os.mkfifo(node.root / "pipe.jsonl")
        assert append_event(node.root / "pipe.jsonl", "r", "s")["stage"] == "s"
    assert append_event(f"{node.root}/a\0b/c.jsonl", "r", "s")["stage"] == "s"
    assert append_event(log_of(node), "r", "s", payload=Odd(n=1))["n"] == 1
    assert sum(not_kept().values()) >= 1


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
def test_another_process_that_holds_the_lock_for_good(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock held by a stopped process is waited for with a limit, then the event is counted as lost."""
    import fcntl

    from calyx_logging.handlers import execution_log

    append_event(log_of(node), "r", "first")
    monkeypatch.setattr(execution_log, "_LOCK_SECONDS", 0.05)
    with (log_of(node).parent / f".__{log_of(node).name}.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        append_event(log_of(node), "r", "second")
        fcntl.flock(lock, fcntl.LOCK_UN)
    append_event(log_of(node), "r", "third")
    assert [line.get("stage", line.get("control")) for line in log_lines(node)] == ["first", "gap", "third"]
    close_mirrors()
    assert [event["stage"] for event in events_of(node.outbox)] == ["first", "second", "third"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_tell_of_its_parents_losses(node: Node) -> None:
    """Each loss is in one gap line, and losses without one are reported at exit."""
    code = """
        import os, sys
        from pathlib import Path
        from calyx_logging import harness
        from calyx_logging.handlers.execution_log import ExecutionLogFile
        write, log = ExecutionLogFile._write_locked, Path(sys.argv[1], "log.jsonl")
        def refuse(self, line, sync):
            raise OSError(28, "No space left on device")
        harness.append_event(log, "r", "first")
        ExecutionLogFile._write_locked = refuse
        harness.append_event(log, "r", "lost")
        ExecutionLogFile._write_locked = write
        if os.fork() == 0:
            assert harness.not_kept() == {}, harness.not_kept()
            harness.append_event(log, "r", "child")
            os._exit(0)
        os.wait()
        assert sum(harness.not_kept().values()) == 1
        harness.append_event(log, "r", "parent")
        ExecutionLogFile._write_locked = refuse
        harness.append_event(log, "r", "lost, too")
    """
    done = python(code, str(node.root))
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in (node.root / "log.jsonl").read_bytes().splitlines()]
    assert [line.get("stage", line.get("control")) for line in found] == ["first", "child", "gap", "parent"]
    assert "1 events are missing in" in done.stderr


def test_the_node_id_of_a_runtime_folder(tmp_path: Path) -> None:
    """The id is None if absent or empty; byte order mark and white space are stripped."""
    assert get_node_id(tmp_path) is None
    for data, expected in ((b"", None), (b" \r\n", None), (b"\xef\xbb\xbflaptop-1 \r\n", "laptop-1")):
        (tmp_path / "node_id.txt").write_bytes(data)
        assert get_node_id(str(tmp_path)) == expected
    (tmp_path / "node_id.txt").write_text("../up")
    with pytest.raises(InvalidNodeId, match="is no node id"):
        get_node_id(tmp_path)


def test_the_results_folder(node: Node, tmp_path: Path) -> None:
    """The results folder ends in the node id if there is one, and is not created."""
    benchmarks, runtime = node.root / "runtime/benchmarks", node.root / "runtime"
    before = tree(node.root)
    assert get_results_dir(benchmarks, "suite", runtime) == benchmarks / "results/suite/test-node"
    assert (
        get_results_dir(str(benchmarks), "family/suite", str(runtime)) == benchmarks / "results/family/suite/test-node"
    )
    assert get_results_dir(benchmarks, "suite", tmp_path) == benchmarks / "results/suite"
    assert tree(node.root) == before


@pytest.mark.parametrize(
    "suite", ["", ".", "..", "../x", "a/../../b", "/etc", "a//b", "C:x", "a\\b", "a\0b", "x ", None, 3]
)
def test_a_suite_that_would_leave_the_folder(node: Node, suite: Any) -> None:
    """A suite that leads out of the folder is refused, and the error states the rule."""
    with pytest.raises(ConfigError, match="the suite id is"):
        get_results_dir(node.root / "runtime/benchmarks", suite, node.root / "runtime")


# ------------------------------------------------------------------ envelopes


def test_an_envelope_from_start_to_end(tmp_path: Path) -> None:
    """The start envelope is `incomplete`, and the end envelope replaces it atomically."""
    path, log = tmp_path / "deep" / "r__i.envelope.json", tmp_path / "log.jsonl"
    log.write_bytes(b"line\n")
    started = RunEnvelope.start("s", "r", "i", node_id="n-1", cases_expected=2, clock=lambda: 0.0)
    started.write(path)
    assert RunEnvelope.read(path) == started
    assert json.loads(path.read_text())["exit_status"] == "incomplete"
    digest = FileDigest.of(log, tmp_path)
    assert digest == FileDigest("log.jsonl", hashlib.sha256(b"line\n").hexdigest(), 5)
    ended = started.end("timeout", cases_completed=1, execution_log=digest, receipts=[digest], error="TimeoutError: x")
    ended.write(path)
    assert RunEnvelope.read(path) == ended
    assert list(path.parent.iterdir()) == [path]
    without = json.loads(RunEnvelope.start("s", "r", "i").to_bytes())
    assert "node_id" not in without
    assert (without["ended_at"], without["cases_completed"]) == (None, 0)
    with pytest.raises(ConfigError, match="give one of 'normal'"):
        started.end("fine", cases_completed=1)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b"\xff", b'{"suite":1}', b"[" * 100_000]
    + [
        json.dumps(json.loads(RunEnvelope.start("s", "r", "i").to_bytes()) | change).encode()
        for change in (
            {"exit_status": "fine"},
            {"cases_expected": "2"},
            {"cases_completed": None},
            {"cases_judged": 1.5},
            {"pass_at": "0.5"},
            {"execution_log": {"path": "x"}},
            {"receipts": 3},
            {"node_id": 4},
        )
    ],
)
def test_what_is_no_envelope(tmp_path: Path, data: bytes) -> None:
    """Bytes that are no envelope give one clear error."""
    path = tmp_path / "envelope.json"
    path.write_bytes(data)
    with pytest.raises(ManifestError, match="is not the envelope of a run"):
        RunEnvelope.read(path)


def test_envelopes_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    """File system errors are reported with the path."""
    with pytest.raises(StorageError, match="read the run's envelope"):
        RunEnvelope.read(tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="write the run's envelope"):
        RunEnvelope.start("s", "r", "i").write(tmp_path / "file" / "x.json")
    with pytest.raises(StorageError, match="hash a file"):
        FileDigest.of(tmp_path / "none", tmp_path)
