"""Object storage: a real server that speaks S3, and other file systems of fsspec; broken off, repeated, contested."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bundles import START, make_bundle, make_node, numbers
from calyx_logging import Node
from calyx_logging.bundle import object_store
from calyx_logging.bundle.local_place import LocalPlace
from calyx_logging.bundle.object_store import RemoteBundle, bundles_at, send
from calyx_logging.core import files as disk
from calyx_logging.errors import ConfigError, ManifestError, StorageError
from calyx_logging.hub.importer import import_bundle
from calyx_logging.hub.store import Store
from conftest import close_logging, config, telemetry

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "hub").mkdir()
    return Store(tmp_path / "hub")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """moto's server, and the environment that leads to it."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("moto") / "log.txt"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=stream, stderr=stream
        )
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment["AWS_ENDPOINT_URL"]
    process.terminate()
    process.wait()


@pytest.fixture(params=["s3", "file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place of each kind."""
    if request.param == "s3":
        request.getfixturevalue("server")
        bucket = f"calyx-{time.time_ns()}"
        files().mkdir(bucket)
        return f"s3://{bucket}/the fleet"
    if request.param == "file":
        return (tmp_path / "share").as_uri()
    return f"memory://{time.time_ns()}/fleet"


def files() -> Any:
    fsspec.clear_instance_cache() if hasattr(fsspec, "clear_instance_cache") else None
    return fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)


def test_there_and_into_a_hub(url: str, store: Store, tmp_path: Path) -> None:
    """A bundle is imported as it was sent; a second upload sends nothing; --paranoid reads everything."""
    node = make_node(tmp_path, "n-1")
    bundles = [make_bundle(node, range(k * 3, k * 3 + 3), second=k * 10) for k in range(2)]
    told: list[tuple[int, int]] = []
    sent = send(node.exports, "n-1", url, paranoid=True, progress=lambda done, total: told.append((done, total)))
    size = sum(path.stat().st_size for bundle in bundles for path in bundle.iterdir())
    assert (len(sent.new), sent.files, sent.bytes) == (2, 6, size)
    assert told[-1] == (size, size)
    again = send(node.exports, "n-1", url)
    assert (again.new, again.files, again.bundles) == ([], 0, sent.bundles)
    found = bundles_at(url)
    assert ([str(one) for one in found.bundles], found.unfinished) == (sorted(sent.bundles), [])
    assert bundles_at(sent.bundles[0]).bundles == [RemoteBundle(sent.bundles[0])]
    for one in found.bundles:
        result = import_bundle(store, one)
        assert (result.outcome, result.faults) == ("imported", [])
        assert import_bundle(store, one).outcome == "already imported"
    assert numbers(store) == list(range(6))


def test_broken_off_at_any_file(url: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the manifest is there, which comes last, the bundle is not taken; run again, it goes on from there."""
    node = make_node(tmp_path, "n-1")
    make_bundle(node, range(3))
    kind = LocalPlace if url.startswith("file:") else object_store._Files
    put = kind.put
    for number in range(3):
        left = 1

        def once(*args: Any) -> None:
            nonlocal left
            if left == 0:
                raise StorageError("the network is gone")
            left -= 1
            put(*args)

        monkeypatch.setattr(kind, "put", once)
        if number < 2:
            with pytest.raises(StorageError, match="the network is gone"):
                send(node.exports, "n-1", url)
            found = bundles_at(url)
            assert (found.bundles, len(found.unfinished)) == ([], 1)
        else:
            assert send(node.exports, "n-1", url).files == 1
    (one,) = bundles_at(url).bundles
    assert import_bundle(store, one).outcome == "imported"
    assert numbers(store) == [0, 1, 2]


def test_files_that_are_there_in_part(store: Store, tmp_path: Path) -> None:
    """A file that was cut off on a share is sent again, and so is the manifest."""
    url, node = (tmp_path / "share").as_uri(), make_node(tmp_path, "n-1")
    bundle = make_bundle(node, range(3))
    send(node.exports, "n-1", url)
    there = tmp_path / "share/n-1" / bundle.name
    for name in ("manifest.json", next(bundle.glob("*.jsonl")).name):
        data = (there / name).read_bytes()
        (there / name).write_bytes(data[: len(data) // 2])
    result = import_bundle(store, bundles_at(url).bundles[0])
    assert result.outcome == "refused"
    assert send(node.exports, "n-1", url).files == 2
    assert import_bundle(store, bundles_at(url).bundles[0]).outcome == "imported"


def test_what_is_there_is_not_replaced(url: str, tmp_path: Path) -> None:
    """Another machine's bundle of the same name; a file that was altered there is found by --paranoid."""
    one, two = make_node(tmp_path / "1", "n-1"), make_node(tmp_path / "2", "n-1")
    bundle = make_bundle(one, range(3))
    make_bundle(two, range(4))
    send(one.exports, "n-1", url)
    with pytest.raises(ManifestError, match=r"there is another file at .*two machines have this node id"):
        send(two.exports, "n-1", url)
    chunk = next(bundle.glob("*.jsonl"))
    system, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    system.pipe_file(f"{root}/n-1/{bundle.name}/{chunk.name}", b"x" * chunk.stat().st_size)
    assert send(one.exports, "n-1", url).files == 0
    with pytest.raises(ManifestError, match="delete it there"):
        send(one.exports, "n-1", url, paranoid=True)
    system.rm(f"{root}/n-1/{bundle.name}/{chunk.name}")
    assert send(one.exports, "n-1", url, paranoid=True).files == 1  # as it was told


def test_a_race_for_one_name(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 makes an object only where there is none: who comes second sees the same file, or says that it is another."""
    bucket = f"race-{time.time_ns()}"
    files().mkdir(bucket)
    url = f"s3://{bucket}"
    one, two = make_node(tmp_path / "1", "n-1"), make_node(tmp_path / "2", "n-1")
    make_bundle(one, range(3))
    make_bundle(two, range(40))
    monkeypatch.setattr(object_store._Files, "listing", lambda self: {})  # neither has seen the other
    send(one.exports, "n-1", url)
    assert send(one.exports, "n-1", url).files == 3
    with pytest.raises(ManifestError, match="there is another file at"):
        send(two.exports, "n-1", url)
    same = make_node(tmp_path / "3", "n-1")  # files of the same length, other content
    for source in (one.exports / name for name in os.listdir(one.exports) if not name.startswith(".")):
        target = same.exports / source.name
        shutil.copytree(source, target)
        manifest = (target / "manifest.json").read_bytes()
        (target / "manifest.json").write_bytes(manifest.replace(b'"exported_at": "2', b'"exported_at": "3'))
    with pytest.raises(ManifestError, match=r"there is another file at .*manifest\.json"):
        send(same.exports, "n-1", url)


def test_hostile_names(tmp_path: Path, store: Store) -> None:
    """Keys in a bucket may be anything: none leads out of staging, and what is in no manifest is a fault."""
    url, node = f"memory://{time.time_ns()}", make_node(tmp_path, "n-1")
    bundle = make_bundle(node, range(3))
    send(node.exports, "n-1", url)
    system, root = fsspec.core.url_to_fs(f"{url}/n-1/{bundle.name}")
    for name in ("sub/deep.jsonl", "a\\b.jsonl", "CON.jsonl", "more.jsonl"):
        system.pipe_file(f"{root}/{name}", b"{}\n")
    result = import_bundle(store, bundles_at(url).bundles[0])
    assert result.outcome == "refused"
    assert {fault.kind for fault in result.faults} == {"unsafe", "extra"}
    assert not list(store.folder.glob("[!.]*"))


def test_archives(tmp_path: Path, store: Store) -> None:
    """A bundle as one file, put there by other means."""
    node = make_node(tmp_path, "n-1")
    bundle = make_bundle(node, range(3))
    archive = shutil.make_archive(str(tmp_path / "share/one"), "zip", bundle)
    (one,) = bundles_at((tmp_path / "share").as_uri()).bundles
    assert one.url.endswith("/one.zip")
    assert one.size("") == Path(archive).stat().st_size
    assert import_bundle(store, one).outcome == "imported"


def test_the_commands(server: str, tmp_path: Path, store: Store) -> None:
    """`export --to`, `import URL` and `verify URL`; what cannot be reached is one line, and the bundle is made."""
    bucket = f"commands-{time.time_ns()}"
    files().mkdir(bucket)
    node: Node = make_node(tmp_path, "n-1")
    first = make_bundle(node, range(3))
    done = telemetry("export", "--root", node.root, "--to", f"s3://{bucket}", "--paranoid", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sent"][0]["bundles"] == [f"s3://{bucket}/n-1/{first.name}"]
    done = telemetry("export", "--root", node.root, "--to", f"s3://{bucket}")
    assert "nothing to send; 1 bundle from exports at s3://" in done.stdout, done.stderr
    assert telemetry("verify", f"s3://{bucket}/n-1/{first.name}").returncode == 0
    done = telemetry("import", f"s3://{bucket}", "--root", store.root, "--json")
    assert [one["outcome"] for one in json.loads(done.stdout)] == ["imported"], done.stderr
    assert json.loads(done.stdout)[0]["source"] == f"s3://{bucket}/n-1/{first.name}"
    for args, code, what in (
        (["export", "--to", f"s3://none-{time.time_ns()}/x"], 4, "there is no bucket"),
        (["export", "--to", "nowhere"], 2, "there is no folder"),
        (["export", "--to", "nosuch://x"], 2, "cannot be used"),
        (["export", "--paranoid"], 2, "--paranoid is for --to"),
    ):
        done = telemetry(*args, "--root", node.root)
        assert (done.returncode, what in done.stderr) == (code, True), done.stderr
    for args in (["import", f"s3://{bucket}/nothing", "--root", store.root], ["verify", f"s3://{bucket}/nothing"]):
        done = telemetry(*args)
        assert (done.returncode, "error: " in done.stderr) == (4, True), done.stderr
    logging.config.dictConfig(config(node))
    logging.getLogger("harness").info("one more")
    close_logging()
    done = telemetry("export", "--root", node.root, "--to", f"s3://none-{time.time_ns()}")
    assert (done.returncode, "exported 1 chunk, 1 event," in done.stdout) == (4, True)  # and can be sent later
    done = telemetry("export", "--root", node.root, "--to", f"s3://{bucket}")
    assert (done.returncode, "sent 1 bundle" in done.stdout) == (0, True), done.stderr


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the missing extra."""
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ConfigError, match=r"calyx-logging\[s3\]"):
        object_store.check_url("s3://bucket/folder")
    assert START > 0


def test_passwords_are_not_shown() -> None:
    """A password in a URL appears in no message and no result."""
    assert str(RemoteBundle("sftp://me:sec/ret@host/a")) == "sftp://me:***@host/a"
    assert str(RemoteBundle("https://host/a?x=1&token=secret")) == "https://host/a?x=***&token=***"
    assert str(RemoteBundle("s3://bucket/2026:1/a")) == "s3://bucket/2026:1/a"
    done = telemetry("import", "ftp://me:secret@127.0.0.1:1/x", "--root", Path.cwd(), "--json")
    assert done.returncode in (2, 4)
    assert "secret" not in done.stdout + done.stderr
    with pytest.raises((ConfigError, StorageError)) as caught:
        bundles_at("nosuch://me:secret@host/folder")
    assert "secret" not in str(caught.value)
    assert "me:***@host" in str(caught.value)


def test_two_half_uploads_of_one_name(tmp_path: Path) -> None:
    """An upload that somebody else began is not continued: nothing is mixed, nothing replaced."""
    url = (tmp_path / "share").as_uri()
    one, two = make_node(tmp_path / "1", "n-1"), make_node(tmp_path / "2", "n-1")
    bundle = make_bundle(one, range(3))
    make_bundle(two, range(3))
    send(one.exports, "n-1", url)
    there = tmp_path / "share/n-1" / bundle.name
    (there / "manifest.json").unlink()
    with pytest.raises(ManifestError, match=r"there is another file at .*SHA256SUMS"):
        send(two.exports, "n-1", url)
    done = telemetry("verify", url, "--json")
    assert (done.returncode, "has no manifest (yet)" in done.stderr) == (1, True), done.stderr
    assert send(one.exports, "n-1", url).files == 1
    assert telemetry("verify", url).returncode == 0


def test_marks_of_folders(server: str, tmp_path: Path, store: Store) -> None:
    """Folder markers that consoles create are no files; a missing bucket is reported."""
    bucket = f"marks-{time.time_ns()}"
    files().mkdir(bucket)
    node = make_node(tmp_path, "n-1")
    bundle = make_bundle(node, range(3))
    send(node.exports, "n-1", f"s3://{bucket}")
    files().pipe_file(f"{bucket}/n-1/{bundle.name}/", b"")
    (one,) = bundles_at(f"s3://{bucket}").bundles
    assert import_bundle(store, one).outcome == "imported"
    with pytest.raises(StorageError, match="there is no bucket"):
        bundles_at(f"s3://none-{time.time_ns()}/x")


@pytest.mark.parametrize("url", ["s3://", "s3:///x", "memory://x", "x", "s3:bucket"])
def test_urls_that_name_no_place(url: str, tmp_path: Path) -> None:
    """Nothing is written into a folder of that name, or a memory that ends with the process."""
    node = make_node(tmp_path, "n-1")
    make_bundle(node, range(3))
    done = telemetry("export", "--root", node.root, "--to", url, cwd=tmp_path)
    assert done.returncode == 2 if url != "s3:///x" else done.returncode != 0, done.stderr
    assert not (tmp_path / "s3:").exists()


def test_what_carriers_leave_in_a_store(store: Store, tmp_path: Path) -> None:
    """Leftovers around a bundle are not searched, those in it are warnings, and accents may be in any normal form."""
    node = make_node(tmp_path, "n-1")
    bundle = make_bundle(node, range(3))
    (chunk,) = (path.stem for path in bundle.glob("*.jsonl"))
    there = tmp_path / "there"
    sent = there / "n-1" / bundle.name
    shutil.copytree(bundle, sent)
    for name in ("__MACOSX/n-1/x/._manifest.json", "$RECYCLE.BIN/S-1/manifest.json", "n-1/._x.zip", "n-1/._a.jsonl"):
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(b"x")
    for name in (".DS_Store", "@eaDir/manifest.json", f"{chunk} (1).jsonl", "manifest (1).json"):
        (sent / name).parent.mkdir(exist_ok=True)
        (sent / name).write_bytes(b"x")
    url = f"file://{there}"
    assert [one.url for one in bundles_at(url).bundles] == [f"{url}/n-1/{bundle.name}"]
    assert bundles_at(url).unfinished == []
    done = telemetry("verify", url)
    assert (done.returncode, done.stderr.count("is not part of the bundle")) == (0, 4), done.stdout
    done = telemetry("import", url, "--root", store.root)
    assert (done.returncode, done.stderr.count("is not part of the bundle")) == (0, 4), done.stdout
    assert numbers(store) == [0, 1, 2]
    (sent / "more.jsonl").write_bytes(b"{}\n")
    assert telemetry("verify", url).returncode == 1


def test_an_archive_of_several_bundles_in_a_store(store: Store, tmp_path: Path) -> None:
    """Each bundle of it is taken in, and named with its place."""
    node = make_node(tmp_path, "n-1")
    for part in range(2):
        make_bundle(node, range(part, part + 1), second=part * 10)
    packed = shutil.make_archive(str(tmp_path / "there" / "all"), "zip", node.exports.parent)
    done = telemetry("import", f"file://{packed}", "--root", store.root)
    assert (done.returncode, done.stdout.count(f"imported: file://{packed}/n-1/2")) == (0, 2), done.stdout
    assert telemetry("verify", f"file://{packed}").stdout.count(": verified") == 2
    assert numbers(store) == [0, 1]


# ------------------------------------------------------------------ to a folder


def test_a_folder_takes_bundles_without_any_library(store: Store, tmp_path: Path) -> None:
    """A folder, by its path or file://, takes each bundle once, and import takes all nodes from it."""
    stick = tmp_path / "stick é"
    stick.mkdir()
    nodes = []
    for number, name in enumerate(("n-1", "n-2")):
        (tmp_path / name).mkdir()
        nodes.append(make_node(tmp_path / name, name))
        make_bundle(nodes[-1], range(3 * number, 3 * number + 3))
    code = "import sys; sys.modules['fsspec'] = None; from calyx_logging.scripts.cli import main; main()"
    for node, place in zip(nodes, (str(stick), stick.as_uri()), strict=True):
        for what in ("sent 1 bundle", "nothing to send"):
            command = [sys.executable, "-c", code, "export", "--root", str(node.root), "--to", place, "--paranoid"]
            done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
            assert (done.returncode, what in done.stdout) == (0, True), done.stdout + done.stderr
    there = sorted(path.relative_to(stick).as_posix() for path in stick.rglob("*") if path.is_file())
    assert len(there) == 6
    done = telemetry("import", stick, "--root", store.root)
    assert (done.returncode, done.stdout.count("imported: ")) == (0, 2)
    assert numbers(store) == list(range(6))


def test_a_stick_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    node = make_node(tmp_path, "n-1")
    make_bundle(node, range(3))
    done = telemetry("export", "--root", node.root, "--to", tmp_path / "stick")
    assert (done.returncode, "is the stick or share there?" in done.stderr) == (2, True)
    assert not (tmp_path / "stick").exists()
    done = telemetry("export", "--root", node.root, "--to", "file://elsewhere/share")
    assert (done.returncode, "is on another host" in done.stderr) == (2, True)


def test_what_is_written_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A medium that alters bytes is found out, and the file does not get its name."""
    node = make_node(tmp_path, "n-1")
    make_bundle(node, range(3))
    (tmp_path / "stick").mkdir()
    write_new = disk.write_new

    def altering(path: Path, data: Any, **options: Any) -> None:
        write_new(path, (block.replace(b"n-1", b"n-2") for block in data), **options)

    monkeypatch.setattr(disk, "write_new", altering)
    with pytest.raises(ManifestError, match="the medium is faulty"):
        send(node.exports, "n-1", str(tmp_path / "stick"))
    assert [path for path in (tmp_path / "stick").rglob("*") if path.is_file()] == []


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights are others there")
def test_a_full_or_locked_stick_is_said_and_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node(tmp_path, "n-1")
    make_bundle(node, range(3))
    stick = tmp_path / "stick"
    stick.mkdir()
    write_new = disk.write_new

    def full(path: Path, data: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "write_new", full)
    with pytest.raises(StorageError, match="free space there"):
        send(node.exports, "n-1", str(stick))
    monkeypatch.setattr(disk, "write_new", write_new)
    assert send(node.exports, "n-1", str(stick)).files == 3
    (chunk,) = stick.rglob("*.jsonl")
    with chunk.open("r+b") as stream:
        stream.truncate(10)
    assert send(node.exports, "n-1", str(stick)).files == 1
    chunk.with_name("manifest.json").write_text("{}")
    with pytest.raises(ManifestError, match="there is another file"):
        send(node.exports, "n-1", str(stick))
