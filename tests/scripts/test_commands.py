"""The commands: results, errors, exit codes; and each of them once as a program."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from calyx_logging import Node
from calyx_logging.core import files
from calyx_logging.scripts.cli import COMMANDS, run, size_text
from conftest import REPO, close_logging, events_of, python, telemetry, telemetry_program, tree
from outboxes import killed_writer
from serving import served

Configure = Callable[..., logging.Logger]


def log_event(configure: Configure) -> None:
    configure().info("event")
    close_logging()


def one_error_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line a failed command says, and nothing on standard output."""
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_every_command_has_help() -> None:
    """The group lists them all, each explains itself."""
    listing = telemetry("--help").stdout
    for name in COMMANDS:
        assert f"  {name}" in listing
        done = telemetry(name, "--help")
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) > 5
        if name != "completion":
            assert "--repo-root" in done.stdout
            assert "--json" in done.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS.values()))
def test_each_script_runs_by_itself(name: str) -> None:
    """`python scripts/telemetry_….py` where the package is installed."""
    done = subprocess.run(
        [sys.executable, str(REPO / "scripts" / f"{name}.py"), "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("Usage: ")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_script_without_the_package_says_what_to_run(name: str) -> None:
    """One line that names run.py, and no traceback."""
    script = REPO / "scripts" / f"{COMMANDS[name]}.py"
    done = subprocess.run([sys.executable, "-S", "-I", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"python3 run.py {name}" in done.stderr


def test_every_command_as_a_program(tmp_path: Path) -> None:
    """Commands run in their own processes, in the order of use at a node and its hub; none is left out."""
    for extra in ("ibis", "duckdb", "pyarrow", "jinja2", "starlette", "uvicorn"):
        pytest.importorskip(extra)
    ran = set()

    def runs(command: str, *args: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = telemetry_program(command, *args, cwd=tmp_path)
        assert done.returncode == code, (command, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        ran.add(command)
        return done

    node, hub, chunks = ("--root", tmp_path / "node"), ("--root", tmp_path / "hub"), tmp_path / "chunks"
    for folder in ("node", "hub", "chunks"):
        (tmp_path / folder).mkdir()
    assert "n-1" in runs("provision", "n-1", *node).stdout
    assert runs("smoke-test", *node).stdout.endswith("PASSED\n")
    logging_config = {"version": 1, "handlers": {"o": {"class": "calyx_logging.handlers.OutboxHandler"}}}
    (tmp_path / "logging.json").write_text(json.dumps({**logging_config, "root": {"level": "INFO", "handlers": ["o"]}}))
    assert "0 stopped" in runs("doctor", "logging.json", *node).stdout
    assert runs("seal", *node).stdout == "nothing is open\n"
    runs("export", *node)
    (bundle,) = (tmp_path / "node/exports/telemetry_exports/n-1").iterdir()
    assert str(bundle) in runs("verify", bundle).stdout
    assert json.loads(runs("status", *node, "--json").stdout)["nodes"][0]["bundles"] == 1
    (event,) = (json.loads(line) for line in runs("tail", *node, "--json", "-n", "1").stdout.splitlines())
    assert event["event_id"] in runs("show", event["event_id"], *node).stdout
    assert "no run attached" in runs("files", *node, code=1).stderr
    assert "imported" in runs("import", bundle, *hub).stdout
    runs("audit", *hub)
    assert json.loads(runs("query", "SELECT count(*) AS n FROM nodes", "--from", "hub", *hub, "--json").stdout) == [
        {"n": 1}
    ]
    runs("table", "--check", *hub)
    runs("report", "--from", "hub", *hub, "-o", "page.html")
    assert (tmp_path / "page.html").stat().st_size > 100_000
    with served("--from", "hub", *hub) as server:
        ran.add("view")
        assert "n-1" in server.page()
    runs("receipt", *hub)
    (receipt,) = (tmp_path / "hub/telemetry/federated/.receipts").glob("*.json")
    runs("prune", *node, "--receipt", receipt, "--accept-unsigned", "--dry-run")
    runs("trust", "n-1", tmp_path / "none.pub", *hub, code=2)
    for chunk in bundle.glob("*.jsonl"):
        (chunks / chunk.name).write_bytes(chunk.read_bytes())
    runs("manifest", chunks)
    program = (sys.executable, "-c", "import logging; logging.error(1)")
    assert "recorded 1 of 1 record" in runs("run", *node, *program).stderr
    assert "complete" in runs("completion", "bash").stdout
    assert ran == set(COMMANDS)


def test_provision_says_what_it_made(tmp_path: Path) -> None:
    """And does nothing the second time; a receipt on request."""
    done = telemetry("provision", "laptop-01", "--root", tmp_path)
    assert done.returncode == 0
    assert "node_id.txt" in done.stdout
    assert ".gitkeep" in done.stdout
    before = tree(tmp_path)
    again = telemetry("provision", "laptop-01", "--repo-root", tmp_path, "--json")
    assert json.loads(again.stdout) == {
        "node_id": "laptop-01",
        "root": str(files.reachable(tmp_path)),
        "made": [],
        "replaced": None,
    }
    assert tree(tmp_path) == before
    assert telemetry("provision", "laptop-01", "--root", tmp_path, "--receipt").returncode == 0
    receipt = (tmp_path / "docs" / "NODE_PROVISIONING_RECEIPT.md").read_text("utf-8")
    for word in ("`laptop-01`", "telemetry_exports", "calyx-telemetry export", "calyx-telemetry smoke-test", "moved"):
        assert word in receipt
    assert telemetry("provision", "laptop-01", "--receipt", "r.md", "--root", tmp_path).returncode == 0
    assert (tmp_path / "r.md").exists()


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("provision", "a b", "--root", "."), "1 to 64 letters"),
        (("provision", "other", "--root", "."), "--force"),
        (("provision", "TEST-NODE", "--root", "."), "another spelling"),
        (("provision", "x", "--root", "no/such/folder"), "no such folder"),
        (("export", "--root", "no/such/folder"), "no such folder"),
        (("smoke-test", "--root", "no/such/folder"), "no such folder"),
        (("status", "--root", "telemetry"), "provision NODE_ID"),
        (("manifest", "telemetry/outbox/with-chunk"), "other things"),
        (("verify", "no/such/folder"), "no such folder"),
        (("manifest", "no/such/folder"), "no such folder"),
        (("manifest", "runtime"), "no chunk"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(node: Node, args: tuple[str, ...], word: str) -> None:
    """The line says what to do; nothing is written."""
    (node.outboxes / "with-chunk").mkdir()
    (node.outboxes / "with-chunk" / "a.jsonl").write_text("{}\n")
    (node.outboxes / "with-chunk" / ".export.lock").touch()
    before = tree(node.root)
    assert word in one_error_line(telemetry(*args, cwd=node.root))
    assert tree(node.root) == before


def test_no_root_at_all(tmp_path: Path) -> None:
    """Without option, variable and parent folder, the error says how to provision."""
    done = telemetry("export", cwd=tmp_path)
    assert done.returncode == 2
    assert "or CALYX_ROOT" in one_error_line(done)


def test_usage_errors_are_clicks(node: Node) -> None:
    """Exit code 2."""
    for args in (("nonsense",), ("export", "--nonsense"), ("verify",), ("provision",)):
        done = telemetry(*args, cwd=node.root)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_export_and_verify(node: Node, configure: Configure) -> None:
    """The bundle's path is on standard output, and verifies."""
    log_event(configure)
    done = telemetry("export", cwd=node.root / "telemetry")
    assert done.returncode == 0
    summary, bundle = done.stdout.splitlines()
    assert summary.startswith("exported 1 chunk, 1 event,")
    assert telemetry("verify", bundle).returncode == 0
    assert telemetry("export", "--root", node.root).stdout == "nothing new to export\n"


def test_export_as_json(node: Node) -> None:
    """One document on standard output, remarks on standard error."""
    killed_writer(node)
    orphan = node.outbox / "20260101_000000__x__00000000-0000.jsonl.open"
    orphan.touch()
    os.utime(orphan, (0, 0))  # nothing was written to it for long
    done = telemetry("export", "--root", node.root, "--json")
    document = json.loads(done.stdout)
    (result,) = document["nodes"]
    assert (result["node_id"], result["chunks"], result["events"]) == (node.id, 1, 3)
    assert result["recovered"][0]["events"] == 3
    assert result["open"][0]["orphaned"] is True
    assert "--recover-orphans" in done.stderr
    assert telemetry("export", "--root", node.root, "--require-sealed").returncode == 1
    assert telemetry("export", "--root", node.root, "--recover-orphans", "--require-sealed").returncode == 0


def test_require_sealed(node: Node, configure: Configure) -> None:
    """A living writer makes the exit code 1; what is sealed is exported all the same."""
    logger = configure()
    logger.info("a")
    logger.handlers[0].seal()  # type: ignore[attr-defined]
    logger.info("b")
    done = telemetry("export", "--root", node.root, "--require-sealed")
    assert done.returncode == 1
    assert done.stdout.startswith("exported 1 chunk,")
    assert f"process {os.getpid()}" in done.stderr
    assert telemetry("export", "--root", node.root).returncode == 0


def test_verify_reports_every_fault(node: Node, configure: Configure) -> None:
    """Exit code 1, every fault named, for people and for programs."""
    log_event(configure)
    bundle = Path(telemetry("export", "--root", node.root).stdout.splitlines()[1])
    chunk = next(bundle.glob("*.jsonl"))
    chunk.rename(bundle / "renamed.jsonl")
    (bundle / ".DS_Store").touch()
    done = telemetry("verify", bundle)
    assert done.returncode == 1
    assert "2 faults" in done.stdout
    assert chunk.name in done.stdout
    assert "renamed.jsonl" in done.stdout
    assert ".DS_Store" in done.stderr
    (document,) = json.loads(telemetry("verify", "--json", bundle).stdout)
    assert document["verified"] is False
    assert [fault["kind"] for fault in document["faults"]] == ["missing", "extra"]


def test_manifest_makes_and_checks(node: Node, configure: Configure, tmp_path: Path) -> None:
    """It does so for any folder of chunks."""
    log_event(configure)
    (chunk,) = node.outbox.glob("*.jsonl")
    folder = tmp_path / "carried"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(chunk.read_bytes())
    assert telemetry("manifest", "--check", folder).returncode == 1
    done = telemetry("manifest", folder, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["verified"] is True
    assert telemetry("manifest", "--check", folder).returncode == 0
    assert "--force" in one_error_line(telemetry("manifest", folder))
    (folder / "a.jsonl").write_bytes(b"x\n")
    assert telemetry("manifest", "--check", folder).returncode == 1
    assert telemetry("manifest", "--force", "--node-id", "n", folder).returncode == 0


def test_status(node: Node, configure: Configure) -> None:
    """Open, sealed, exported and pending chunks with events and bytes; changes nothing."""
    log_event(configure)
    telemetry("export", "--root", node.root)
    log_event(configure)
    logger = configure()
    logger.info("open")
    before = tree(node.root)
    document = json.loads(telemetry("status", "--root", node.root, "--json").stdout)
    text = telemetry("status", "--root", node.root)
    assert tree(node.root) == before
    (status,) = document["nodes"]
    counts = {
        name: (status[name]["chunks"], status[name]["events"]) for name in ("open", "sealed", "exported", "pending")
    }
    assert counts == {"open": (1, 1), "sealed": (2, 2), "exported": (1, 1), "pending": (1, 1)}
    assert status["bundles"] == 1
    assert status["open_chunks"][0]["holder"].startswith(f"{os.getpid()} ")
    assert text.returncode == 0
    for word in (node.id, "pending", "last export", "free", str(node.root), f"process {os.getpid()}"):
        assert word in text.stdout


def test_smoke_test_in_a_provisioned_root(node: Node) -> None:
    """One event the whole way; the folder, the manifest and the sums are shown."""
    done = telemetry("smoke-test", "--root", node.root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("PASSED\n")
    for word in ("node_id", "ts_utc", "event_id", "source", "manifest.json:", "SHA256SUMS:", '"manifest_version": 1'):
        assert word in done.stdout
    (event,) = events_of(node.outbox)
    assert event["_smoke_test"] is True
    again = telemetry("smoke-test", "--root", node.root, "--json")
    assert json.loads(again.stdout)["passed"] is True


def test_smoke_test_without_a_node_id_uses_a_temporary_root(tmp_path: Path) -> None:
    """And says so; nothing is left in the folder."""
    done = telemetry("smoke-test", cwd=tmp_path)
    assert done.returncode == 0
    assert "temporary root" in done.stderr
    assert done.stdout.endswith("PASSED\n")
    assert tree(tmp_path) == {}


def test_smoke_test_that_fails_says_where(node: Node) -> None:
    """Exit code 1 and the step that failed."""
    (node.root / "exports").write_text("in the way")
    done = telemetry("smoke-test", "--root", node.root)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("FAILED: ")
    assert "exports" in done.stdout


AS_OTHERS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
"""Root's rights count no more than another user's in a program started by this."""


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("setpriv") is None, reason="setpriv of util-linux")
@pytest.mark.parametrize(
    "command",
    ["smoke-test", "export", "provision n-2 --force", "trust n-1 key.pub", "import {exports}", "table --anew"],
)
def test_a_root_that_cannot_be_written(node: Node, tmp_path: Path, command: str) -> None:
    """One line says what to do, and the exit code is not 0."""
    assert telemetry("smoke-test", "--root", node.root).returncode == 0
    assert telemetry("import", node.exports, "--root", node.root).returncode == 0
    assert telemetry("smoke-test", "--root", node.root).returncode == 0  # a bundle that is not at the hub yet
    exports = shutil.copytree(node.exports, tmp_path / "exports")
    (tmp_path / "key.pub").write_text(
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIWUGVbbbK6Rxi/Gj8nTyvxSVHYRKdWVGPTYQn0S0cLq k\n"
    )
    folders = [node.root, *(path for path in node.root.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        program = [*(AS_OTHERS if os.geteuid() == 0 else []), sys.executable, "-m", "calyx_logging.scripts"]
        args = [*command.format(exports=exports).split(), "--root", str(node.root)]
        done = subprocess.run([*program, *args], capture_output=True, text=True, cwd=tmp_path, check=False)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "denied" in line]
    assert (done.returncode in (1, 2, 4), len(said)) == (True, 1), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "(" in said[0]
    assert "Permission denied" in said[0]


def test_an_error_of_the_file_system_that_nobody_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with the place, the cause and what to do."""

    @click.command()
    def command() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))

    monkeypatch.setattr(sys, "argv", ["calyx-telemetry"])
    with pytest.raises(SystemExit) as stop:
        run(command)
    assert stop.value.code == 4
    assert capsys.readouterr().err == f"error: {tmp_path}: No space left on device (free some space)\n"


def test_output_survives_a_console_of_another_code_page(tmp_path: Path) -> None:
    """Characters that the console cannot show are escaped and cause no crash."""
    root = tmp_path / "мой корень"
    root.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "calyx_logging.scripts", "provision", "n", "--root", str(root)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        check=False,
    )
    assert done.returncode == 0
    assert b"\\u043c" in done.stdout or "мой".encode() in done.stdout


def test_a_reader_that_goes_away_is_no_traceback(node: Node) -> None:
    """`calyx-telemetry status | head -0`."""
    done = python(
        """
        import subprocess, sys
        command = [sys.executable, "-m", "calyx_logging.scripts", "smoke-test", "--root", sys.argv[1]]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        child.stdout.close()
        print(child.stderr.read().decode())
        """,
        str(node.root),
    )
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_500_000, "2.5 MB"), (3 * 10**15, "3000.0 TB")]
)
def test_sizes_for_people(count: int, text: str) -> None:
    """Powers of 1000."""
    assert size_text(count) == text


def test_every_command_counts_the_events_that_were_logged(node: Node, configure: Configure, tmp_path: Path) -> None:
    """Control lines are no events: of threads' writers, of recovery and of closing; a manifest counts its lines."""
    for extra in ("ibis", "duckdb", "pyarrow", "jinja2"):
        pytest.importorskip(extra)
    logger = configure()
    threads = [threading.Thread(target=logger.info, args=("event",)) for _ in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    close_logging()
    killed_writer(node, events=4)
    (tmp_path / "hub").mkdir()
    root, hub = ("--root", node.root), ("--root", tmp_path / "hub")
    done = telemetry("export", *root)
    assert ", 7 events, " in done.stdout
    assert "of a writer that died: 4 events" in done.stderr
    (bundle,) = node.exports.iterdir()
    lines = sum(chunk["events"] for chunk in json.loads((bundle / "manifest.json").read_text())["chunks"])
    assert lines == 9
    (status,) = json.loads(telemetry("status", *root, "--json").stdout)["nodes"]
    assert (status["sealed"]["events"], status["exported"]["events"]) == (7, 7)
    assert ", 7 events, " in telemetry("verify", bundle).stdout
    (verified,) = json.loads(telemetry("verify", bundle, "--json").stdout)
    assert (verified["events"], verified["lines"]) == (7, 9)
    assert ", 7 events, " in telemetry("import", bundle, *hub).stdout
    (imported,) = json.loads(telemetry("import", bundle, *hub, "--json").stdout)
    assert (imported["events"], imported["lines"]) == (7, 9)
    (audit,) = json.loads(telemetry("audit", *hub, "--json").stdout)
    assert audit["events"] == sum(writer["events"] for writer in audit["writers"]) == 7
    assert ", 7 events)" in telemetry("audit", *hub).stdout
    assert json.loads(telemetry("query", "SELECT count(*) AS n FROM events", *root, "--json").stdout) == [{"n": 7}]
    page = tmp_path / "page.html"
    for place in ("outbox", "hub", str(bundle)):
        where = hub if place == "hub" else root
        assert ", 7 events" in telemetry("report", "--from", place, *where, "-o", page).stdout
    (tmp_path / "other").mkdir()
    assert "verified: 1 chunk, 1 event, " in telemetry("smoke-test", "--root", tmp_path / "other").stdout


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-16", "utf-8"])
def test_what_programs_read_is_utf8_whatever_the_locale(node: Node, encoding: str) -> None:
    """JSON and CSV have the characters themselves; a locale that cannot say them alters nothing."""
    pytest.importorskip("duckdb")
    text = "\U0001f389 漢字 é"
    python(_ONE_EVENT, str(node.root), text)
    where = ("--root", str(node.root))

    def said(*args: str) -> bytes:
        command = [sys.executable, "-m", "calyx_logging.scripts", *args, *where]
        environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C"}
        done = subprocess.run(command, capture_output=True, env=environment, timeout=120, check=True)
        return done.stdout

    (event,) = (json.loads(line) for line in said("tail", "--json", "-n", "1").splitlines())
    assert event["message"] == text
    assert json.loads(said("query", "--json", "SELECT message FROM events")) == [{"message": text}]
    assert said("query", "--csv", "SELECT message FROM events").decode("utf-8") == f"message\n{text}\n"
    assert json.loads(said("show", "--json", event["event_id"]))[0]["event"]["message"] == text
    assert f'"message": "{text}"' in said("show", event["event_id"]).decode("utf-8")
    assert json.loads(said("status", "--json"))["root"] == str(node.root)


def test_in_a_hubs_folder_commands_read_the_hub(node: Node, tmp_path: Path) -> None:
    """Without `--from`; a folder that is both a node and a hub is the node, as before."""
    pytest.importorskip("ibis")
    pytest.importorskip("jinja2")
    python(_ONE_EVENT, str(node.root), "there")
    assert telemetry("export", "--root", node.root).returncode == 0
    hub = tmp_path / "hub"
    hub.mkdir()
    exports = node.root / "exports/telemetry_exports"
    assert telemetry("import", exports, "--root", hub).returncode == 0
    (hub / "below").mkdir()
    for where in ({"cwd": hub}, {"cwd": hub / "below"}, {"cwd": tmp_path}):
        root = ("--root", str(hub)) if where["cwd"] == tmp_path else ()
        assert "there" in telemetry("tail", *root, **where).stdout
        (row,) = json.loads(telemetry("query", "SELECT message FROM events", "--json", *root, **where).stdout)
        assert row == {"message": "there"}
        assert telemetry("status", *root, **where).stdout.startswith(f"{node.id}: complete")
        assert json.loads(telemetry("status", "--json", *root, **where).stdout)[0]["node_id"] == node.id
        done = telemetry("report", "-o", tmp_path / "page.html", *root, **where)
        assert (done.returncode, "1 node" in done.stdout) == (0, True), done.stderr
    assert telemetry("import", exports, "--root", node.root).returncode == 0
    assert "last export" in telemetry("status", cwd=node.root).stdout
    empty = tmp_path / "empty"
    empty.mkdir()
    done = telemetry("tail", "--root", empty)
    assert (done.returncode, "provision NODE_ID" in done.stderr) == (2, True)


@pytest.mark.parametrize(("typed", "meant"), [("statsu", "status"), ("exprot", "export"), ("reports", "report")])
def test_a_command_that_is_misspelt_is_named(typed: str, meant: str) -> None:
    done = telemetry(typed)
    assert done.returncode == 2
    assert f"Did you mean {meant}" in done.stderr
    assert "Did you mean" not in telemetry("xyzzy").stderr


_ONE_EVENT = (
    "import logging, sys; from calyx_logging import OutboxHandler; log = logging.getLogger(); "
    "log.addHandler(OutboxHandler(root=sys.argv[1])); log.warning(sys.argv[2])"
)
