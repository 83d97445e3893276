"""Map functions and run queries on Spark, when one machine is not enough. Needs the extra `spark`.

The workers of a cluster have to reach the store by the same path as this process, and to have calyx-logging with the
extra `query` installed for the same Python version. Nothing else is needed there.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from calyx_logging.errors import ConfigError, StorageError
from calyx_logging.query.rows import schema
from calyx_logging.query.views import PLACE, WHERE, Dialect, views

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["SparkEngine", "attach", "session"]

_HINT = 'pip install "calyx-logging[spark]"; Spark also needs Java 17 or newer'
_REACHED = 5.0
"""Seconds to wait for a master's answer."""

_JOINED = 60.0
"""Seconds to wait for the first worker to join."""

_SLICES = 4
"""Tasks per core: with more of them, less is repeated when a worker dies."""

_RAISED = re.compile(r"[A-Za-z_.]*(Error|Exception): ")
_TYPES = {
    "timestamp[us]": "TIMESTAMP_NTZ",
    "int64": "BIGINT",
    "string": "STRING",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
}
_T = TypeVar("_T")
_R = TypeVar("_R")


def session(master: str) -> SparkSession:
    """A session of this process on a cluster; the one there is, if there is one.

    Args:
        master: its URL, `spark://host:7077`, or `local[*]`.

    Raises:
        ConfigError: the extra or Java is not installed, there is no such cluster, or no worker joins.
    """
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise ConfigError(f"Spark is not installed ({error})", hint=_HINT) from None
    if not os.environ.get("JAVA_HOME") and shutil.which("java") is None:
        raise ConfigError("Spark needs Java, which is not here", hint="install Java 17 or newer, or set JAVA_HOME")
    hosts = _hosts_of(master)
    if hosts and not any(map(_answers, hosts)):
        raise ConfigError(f"there is no Spark master at {master}", hint="start it, or name another with --master")
    builder = SparkSession.builder.master(master).appName("calyx-logging")
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.sql.session.timeZone": "UTC",
    }
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if all(host in ("127.0.0.1", "localhost", "::1") for host, _ in hosts):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        settings |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        found = builder.getOrCreate()
    except Exception as error:  # Java's, py4j's and pyspark's have no base in common
        raise ConfigError(f"Spark does not start at {master}: {_first_line(error)}", hint=_HINT) from None
    if hosts:
        _wait_for_workers(found, master)
    return found


def _hosts_of(master: str) -> list[tuple[str, int]]:
    """The hosts and ports of a standalone cluster's masters; none for any other."""
    if not master.startswith("spark://"):
        return []
    hosts = []
    for one in master.removeprefix("spark://").split(","):
        host, _, port = one.strip().rpartition(":")
        if not host or not port.isdigit():
            raise ConfigError(f"{master!r} is no Spark master", hint="name it as spark://host:7077")
        hosts.append((host.strip("[]"), int(port)))
    return hosts


def _answers(place: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(place, timeout=_REACHED):
            return True
    except OSError:
        return False


def _wait_for_workers(found: SparkSession, master: str) -> None:
    """Wait for a first worker: without one, a job would hang for ever without a message."""
    until = time.monotonic() + _JOINED
    status: Any = found.sparkContext._jsc.sc()
    while status.getExecutorMemoryStatus().size() < 2:  # the driver is one
        if time.monotonic() > until:
            found.stop()
            raise ConfigError(f"no worker of {master} takes work", hint="start one, or free one: see the master's page")
        time.sleep(0.1)


def _first_line(error: Exception) -> str:
    """Return the last exception that the message names, else its first line."""
    text = str(error).split("Driver stacktrace")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("\tat ")]
    raised = [line for line in lines if _RAISED.match(line)]
    return (raised[-1:] or lines or [type(error).__name__])[0][:300]


class SparkEngine:
    """Maps on the cluster of a session."""

    def __init__(self, spark: SparkSession) -> None:
        self.spark = spark

    def map(self, function: Callable[[_T], _R], items: Sequence[_T], size: int) -> Iterator[_R]:
        """The function's results, in the order of the items, when all are there.

        Raises:
            StorageError: Spark gave up: on every worker an item failed several times.
        """
        if not items:
            return
        context = self.spark.sparkContext
        slices = min(len(items), _SLICES * max(2, context.defaultParallelism))
        try:
            yield from context.parallelize(items, slices).map(function).collect()
        except Exception as error:
            hint = "workers need calyx-logging, and the same paths as this process; what is done is kept"
            raise StorageError(f"Spark gave up: {_first_line(error)}", hint=hint) from error


def attach(
    spark: SparkSession,
    loose: Iterable[Path],
    known: Iterable[Path],
    repeats: Sequence[Path] = (),
) -> Any:
    """An Ibis backend (PySpark) over Parquet files, with the views of `database`.

    Args:
        spark: the session.
        loose: files in which an event may be there several times.
        known: files of nodes whose repeated rows are known.
        repeats: the files that list these rows.

    Raises:
        ConfigError: the extra is not installed.
    """
    try:
        import ibis
    except ImportError as error:
        raise ConfigError(f"queries need ibis, which is not installed ({error})", hint=_HINT) from None
    columns = ", ".join(f"{field.name} {_TYPES[str(field.type)]}" for field in schema())

    def rows_of(files: Iterable[Path], ddl: str) -> Any:
        paths = [_literal(path) for path in files]
        reader = spark.read.schema(ddl).option("recursiveFileLookup", True)
        return reader.parquet(*paths) if paths else spark.createDataFrame([], ddl)

    rows_of(loose, columns).createOrReplaceTempView("loose")
    rows_of(known, columns).createOrReplaceTempView("known")
    of_repeats = ", ".join(f"{name} {'BIGINT' if name == 'line' else 'STRING'}" for name in WHERE)
    rows_of(repeats, of_repeats).createOrReplaceTempView("repeats")
    once = f"SELECT * FROM known LEFT ANTI JOIN repeats USING ({', '.join(WHERE)}) WHERE bad_line IS NULL"
    ranked = f"SELECT *, {PLACE} AS place FROM loose WHERE bad_line IS NULL"
    single = f"SELECT * FROM ({ranked}) AS ranked WHERE place = 1"
    dialect = Dialect(
        single, once, "get_json_object", document="rest", micros="unix_micros(CAST({} AS TIMESTAMP))", last="max_by"
    )
    for name, sql in views(dialect).items():
        spark.sql(sql).createOrReplaceTempView(name)
    return ibis.pyspark.connect(spark)


def _literal(path: Path) -> str:
    """Quote a path for Spark, which treats some characters as patterns."""
    return "file://" + "".join(f"\\{letter}" if letter in "[]{}*?\\," else letter for letter in str(path))
