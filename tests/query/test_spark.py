"""Without Spark, one line says what to do. Tests with a cluster: integration/test_spark_cluster.py."""

from __future__ import annotations

import socket
import sys

import pytest

from calyx_logging.errors import ConfigError
from conftest import telemetry

pytest.importorskip("pyarrow")

from calyx_logging.query import spark


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the missing extra."""
    monkeypatch.setitem(sys.modules, "pyspark", None)
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(ConfigError, match=r"pip install \"calyx-logging\[spark\]\""):
        spark.session("local[*]")


def test_without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Java is not pip's to install."""
    pytest.importorskip("pyspark")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"Spark needs Java.*install Java 17"):
        spark.session("local[*]")


def test_masters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that are none; several, as of a cluster with stand-by masters; one that does not answer."""
    assert spark._hosts_of("local[2]") == []
    assert spark._hosts_of("spark://a:7077,b:7078") == [("a", 7077), ("b", 7078)]
    assert spark._hosts_of("spark://[::1]:7077") == [("::1", 7077)]
    for name in ("spark://", "spark://a", "spark://:7077", "spark://a:x"):
        with pytest.raises(ConfigError, match="is no Spark master"):
            spark._hosts_of(name)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        assert spark._answers(("127.0.0.1", port))
    assert not spark._answers(("127.0.0.1", port))


def test_where_it_has_no_place(tmp_path: object) -> None:
    """Queries of a node or a bundle are not for a cluster."""
    done = telemetry("query", "--engine", "spark", "SELECT 1")
    assert (done.returncode, "--engine spark is for --from hub" in done.stderr) == (2, True)
