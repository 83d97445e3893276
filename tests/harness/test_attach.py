"""Files that a run attaches: they come to the hub byte for byte, once, or it is said that they did not."""

from __future__ import annotations

import json
import logging.config
import os
import random
from pathlib import Path

import pytest

from calyx_logging import benchmark_run
from calyx_logging.core.reading import sha256_of
from calyx_logging.errors import ConfigError
from calyx_logging.hub.importer import import_bundle
from calyx_logging.hub.store import Store
from calyx_logging.node import Node
from calyx_logging.outbox.export import export
from calyx_logging.query.attachments import attachments_at, blocks_of_attachment
from conftest import close_logging, config, lines_of, python, telemetry

CONTENTS = {
    "empty.txt": b"",
    "small.json": b'{"a": 1}\n',
    "names ü 😀.txt": "ü😀\n".encode() * 1000,
    "large.bin": random.Random(1).randbytes(3 * 512 * 1024 + 17),
    "long.jsonl": b'{"answer": "the same"}\n' * 100_000,
}


def attached(place: str, root: Path) -> dict[str, bytes]:
    return {one.name: b"".join(blocks_of_attachment(one)) for one in attachments_at(place, root)}


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "made"
    folder.mkdir()
    for name, data in CONTENTS.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in CONTENTS}


def test_the_way_to_the_hub(node: Node, made: dict[str, Path], tmp_path: Path) -> None:
    """Outbox, bundle, hub; with envelope and receipt; re-cut and doubled bundles give each file once."""
    logging.config.dictConfig(config(node, max_bytes=100_000))
    with benchmark_run(suite="s", run_id="r-1", root=node.root, logger="harness") as run:
        for name, path in made.items():
            assert run.attach(path) is True
            made[name].write_bytes(b"changed since")
        with run.case("c-1"):
            assert run.attach(made["small.json"], "of the case.json")
        while_open = attached("outbox", node.root)
    close_logging()
    own = {run.envelope_path.name: run.envelope_path.read_bytes(), run.receipt_path.name: run.receipt_path.read_bytes()}
    expected = {**CONTENTS, "of the case.json": b"changed since", **own}
    assert while_open == {name: data for name, data in expected.items() if name not in own}
    assert attached("outbox", node.root) == expected
    bundle = export(node).bundle
    assert bundle is not None
    assert attached(str(bundle), node.root) == expected
    store = Store(tmp_path / "hub")
    store.root.mkdir()
    for _ in range(2):
        import_bundle(store, bundle)
        assert attached("hub", store.root) == expected
    (of_case,) = (one for one in attachments_at("hub", store.root) if one.name == "of the case.json")
    assert (of_case.run_id, of_case.case_id, of_case.suite) == ("r-1", "c-1", "s")
    done = telemetry("files", "--from", "hub", "--root", store.root, "--to", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert {one["name"]: Path(one["path"]).read_bytes() for one in json.loads(done.stdout)} == expected
    done = telemetry("files", "small.json", "--from", "hub", "--root", store.root, "--run", "r-1")
    assert (done.returncode, "small.json" in done.stdout) == (0, True)
    assert telemetry("files", "none.json", "--root", node.root).returncode == 1
    done = telemetry("query", "--from", "hub", "--root", store.root, "--named", "files", "--json")
    found = {row["name"]: (row["bytes"], row["sha256"], row["is_whole"]) for row in json.loads(done.stdout)}
    assert found == {name: (len(data), sha256_of(data), True) for name, data in expected.items()}
    done = telemetry("audit", "--root", store.root, "--strict")
    assert (done.returncode, "complete" in done.stdout) == (0, True), done.stdout


def test_where_they_are_written(node: Node, tmp_path: Path) -> None:
    """Cases of any name have folders of their own; of one name, the later ones are numbered; none is replaced."""
    logging.config.dictConfig(config(node))
    ids = ("6*7", "mmlu/12", "mmlu_12", "what is 2+2?", "x" * 300, "..", "con", "\U0001f600", "a.")
    expected = [f"of {case_id}" for case_id in ids]
    path = tmp_path / "log.txt"
    with benchmark_run(suite="s", run_id="r-1", root=node.root, logger="harness") as run:
        for case_id in ids:
            path.write_text(f"of {case_id}")
            with run.case(case_id):
                run.attach(path)
        for n in range(3):
            path.write_text(f"time {n}")
            run.attach(path)
    close_logging()
    for _ in range(2):
        done = telemetry(
            "files", "log.txt", "--root", node.root, "--to", tmp_path / "out", "--run", run.run_instance_id
        )
        assert (done.returncode, done.stderr) == (0, "")
        written = list((tmp_path / "out").rglob("log*.txt"))
        assert sorted(one.read_text() for one in written) == sorted([*expected, "time 0", "time 1", "time 2"])
    assert {one.name for one in written} == {"log.txt", "log.2.txt", "log.3.txt"}
    for one in written:
        one.write_text("mine")
    done = telemetry("files", "log.txt", "--root", node.root, "--to", tmp_path / "out")
    assert (done.returncode, done.stderr.count("another file of that name")) == (1, len(written))
    assert {one.read_text() for one in written} == {"mine"}


def test_what_is_not_taken(
    node: Node, made: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too large, missing, a folder, a pipe: said once, in the outbox as well; the run goes on."""
    logging.config.dictConfig(config(node))
    with benchmark_run(suite="s", run_id="r-1", root=node.root, logger="harness") as run:
        assert run.attach(made["large.bin"], max_bytes=1000) is False
        assert run.attach(tmp_path / "none") is False
        assert run.attach(tmp_path) is False
        if hasattr(os, "mkfifo"):
            os.mkfifo(tmp_path / "pipe")
            assert run.attach(tmp_path / "pipe") is False
        for name in ("", "a/b", "..", "CON", "a\nb"):
            with pytest.raises(ConfigError, match="the name is"):
                run.attach(made["small.json"], name)
    said = capsys.readouterr().err
    assert said.count("is not attached") == 3 + hasattr(os, "mkfifo")
    left_out = {one.name: one.left_out for one in attachments_at("outbox", node.root) if one.left_out}
    assert "the limit is 1000" in str(left_out["large.bin"])
    assert not {"a/b", "..", "CON"} & left_out.keys()
    done = telemetry("files", "--root", node.root)
    assert (done.returncode, "not attached: it has" in done.stdout) == (1, True), done.stdout
    close_logging()


def test_killed_in_the_middle(node: Node, tmp_path: Path) -> None:
    """A file of which parts are missing is named as such, and not written."""
    path = tmp_path / "large.bin"
    path.write_bytes(random.Random(2).randbytes(2_000_000))
    script = f"""
        import logging.config, os
        from calyx_logging import benchmark_run
        from calyx_logging.harness import _attach
        logging.config.dictConfig({config(node)!r})
        def lines(*args, keep=_attach.file_lines):
            for number, line in enumerate(keep(*args)):
                if number == 3:
                    os._exit(9)
                yield line
        with benchmark_run(suite="s", run_id="r-1", root={str(node.root)!r}, logger="harness") as run:
            _attach.file_lines = lines
            run.attach({str(path)!r})
    """
    assert python(script).returncode == 9
    assert [one.name for one in attachments_at("outbox", node.root)] == []  # without its last line it has no name
    assert len([line for line in lines_of(node.outbox) if line.get("control") == "file"]) == 3


def test_hostile_lines(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that lead elsewhere, parts that unpack to much, hashes that are wrong: nothing is written, each is said."""
    import base64
    import zlib

    chunk = node.outbox / "20260101_000000__x__old.jsonl"
    common = {"node_id": node.id, "ts_utc": "2026-01-01T00:00:00+00:00", "event_id": "e", "source": "calyx_logging"}

    def lines(file: str, name: str, data: bytes, **more: object) -> list[dict[str, object]]:
        part = {"part": 0, "data": base64.b64encode(zlib.compress(data)).decode()}
        whole = {"parts": 1, "bytes": len(data), "sha256": "0" * 64, **more}
        return [{**common, "control": "file", "file": file, "name": name, **one} for one in (part, whole)]

    some = [
        *lines("1", "../../evil", b"x"),
        *lines("2", "wrong hash", b"x"),
        *lines("3", "bomb", bytes(100_000_000)),
        *lines("4", "run", b"x", run_id="../../up"),
        *lines("5", "many", b"x", parts=10**9),
        *lines("6", "text", b"x", parts="one", bytes=-1),
    ]
    chunk.write_text("".join(json.dumps(one, separators=(",", ":")) + "\n" for one in some))
    before = sorted(tmp_path.rglob("*"))
    done = telemetry("files", "--root", node.root, "--to", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.count("warning: ") == 6
    written = [path for path in tmp_path.rglob("*") if path not in before and path.is_file()]
    assert written == []


def test_no_outbox(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an outbox that hears the run it is said, and False."""
    path = tmp_path / "a.txt"
    path.write_text("a")
    with benchmark_run(suite="s", run_id="r-1", root=tmp_path) as run:
        assert run.attach(path) is False
    assert "no OutboxHandler receives" in capsys.readouterr().err
