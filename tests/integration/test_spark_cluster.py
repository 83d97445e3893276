"""Spark as it is run: a standalone master and two workers on loopback, of which one is killed in the middle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from calyx_logging.hub.store import Store
from conftest import REPO, telemetry

pytest.importorskip("pyspark", reason='needs the extra "spark"')

import pyspark

from answers import check_answers_of
from calyx_logging.query import hub_table
from calyx_logging.query.in_force import behind, folder_of
from calyx_logging.query.named import NAMES, run_named
from calyx_logging.query.spark import SparkEngine, session
from fleet_data import make_fleet

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform == "win32", reason="Spark's own scripts are for POSIX"),
    pytest.mark.skipif(shutil.which("java") is None and "JAVA_HOME" not in os.environ, reason="Spark needs Java"),
]
NAMED = [name for name in NAMES if name not in ("around", "compare", "case")]


def in_nine_digits(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The order in which an engine adds numbers up shows in their last digits."""
    return [
        {name: float(f"{value:.9g}") if isinstance(value, float) else value for name, value in row.items()}
        for row in rows
    ]


class Cluster:
    """A master and its workers, each in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.master = f"spark://127.0.0.1:{port}"
        self.folder = folder
        self._environment = {
            **os.environ,
            "SPARK_HOME": str(Path(pyspark.__file__).parent),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "PYSPARK_PYTHON": sys.executable,
        }
        self.processes = [self._start("master.Master", "-h", "127.0.0.1", "-p", str(port), "--webui-port", "0")]
        wait(lambda: self._listens(port))
        for name in ("one", "two"):
            options = ["-h", "127.0.0.1", "-c", "1", "-m", "1g", "-d", str(folder / name), "--webui-port", "0"]
            self.processes.append(self._start("worker.Worker", self.master, *options))
        wait(lambda: self.log().count("Registering worker") == 2)

    def _start(self, what: str, *args: str) -> subprocess.Popen[bytes]:
        command = [self._environment["SPARK_HOME"] + "/bin/spark-class", f"org.apache.spark.deploy.{what}", *args]
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(command, stderr=log, stdout=log, start_new_session=True, env=self._environment)

    @staticmethod
    def _listens(port: int) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    def log(self) -> str:
        return (self.folder / "log.txt").read_text("utf-8", "replace")

    def kill(self, number: int) -> None:
        """A process with all it has started, as the end of a machine would."""
        with suppress(ProcessLookupError):
            os.killpg(self.processes[number].pid, signal.SIGKILL)
        self.processes[number].wait()


def wait(condition: Callable[[], bool]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not come about in a minute")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(tmp_path)
    yield found
    for number in range(3):
        found.kill(number)


def test_a_worker_is_killed_in_the_middle(cluster: Cluster, tmp_path: Path) -> None:
    """Import, table and queries by Spark: what the embedded engine gives, value by value, and what was counted."""
    truth = make_fleet(tmp_path / "fleet", 30, 20, 60, 7)
    store = Store(tmp_path / "the hub [é]")
    store.root.mkdir()
    engine = ["--engine", "spark", "--master", cluster.master]
    command = ["import", tmp_path / "fleet/bundles", "--root", store.root, "--accept-bad-lines", "--json", *engine]
    process = subprocess.Popen(
        [sys.executable, "-m", "calyx_logging.scripts", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPO.parent,
    )
    wait(lambda: len(list(store.folder.glob("node-*/*/manifest.json"))) > 5 or process.poll() is not None)
    cluster.kill(1)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    results = json.loads(out)
    assert len(results) == 60
    # what the dead worker had put in before it could say so is found there by the next
    assert {one["outcome"] for one in results} <= {"imported", "already imported"}
    assert len(list(store.folder.glob("node-*/*/manifest.json"))) == 60
    assert "Removing executor" in cluster.log() or "lost" in cluster.log().lower()

    assert behind(store) == []
    shutil.rmtree(folder_of(store))
    done = telemetry("table", "--root", store.root, "--json", *engine)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["made"] == json.loads(done.stdout)["files"] == 60

    spark = SparkEngine(session(cluster.master))
    for is_compacted in (False, True):
        if is_compacted:
            assert telemetry("table", "--root", store.root, "--compact").returncode == 0
        embedded, far = hub_table.connect(store), hub_table.connect(store, spark)
        check_answers_of(embedded, truth)
        for name in ("runs", "gaps", "nodes") if is_compacted else NAMED:
            rows = in_nine_digits(run_named(far, name).to_pylist())
            assert rows == in_nine_digits(run_named(embedded, name).to_pylist()), name
            assert rows or name in ("processes", "recoveries", "files", "changes")
        first, second = (row["run_instance_id"] for row in run_named(embedded, "runs").to_pylist()[:2])
        for name, arguments in (("compare", {"runs": [first, second]}), ("case", {"case_id": "case-000001"})):
            rows = in_nine_digits(run_named(far, name, **arguments).to_pylist())
            assert rows == in_nine_digits(run_named(embedded, name, **arguments).to_pylist())
            assert len(rows) > 1
        for event_id in truth.sample[:2]:
            rows = run_named(far, "around", event_id=event_id).to_pylist()
            assert rows == run_named(embedded, "around", event_id=event_id).to_pylist()
            assert len(rows) > 5
    spark.spark.stop()
    done = telemetry(
        "query", "--from", "hub", "--root", store.root, "SELECT count(*) AS n FROM events", "--json", *engine
    )
    assert json.loads(done.stdout) == [{"n": truth.events}], done.stderr


def test_what_is_not_there(tmp_path: Path) -> None:
    """A master that does not answer, a name that is none: one line each, at once."""
    (tmp_path / "telemetry/federated/n-1").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for master, what in (
        (f"spark://127.0.0.1:{port}", "there is no Spark master at spark://127.0.0.1"),
        ("spark://nowhere", "is no Spark master"),
    ):
        done = telemetry("table", "--root", tmp_path, "--engine", "spark", "--master", master)
        assert (done.returncode, done.stderr.count("\n"), what in done.stderr) == (2, 1, True), done.stderr
