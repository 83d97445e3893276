"""Every example of the README and of the pages it leads to runs, in order, in one fresh root."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_architecture import MAY_IMPORT

from calyx_logging import provision
from calyx_logging.events.event import RESERVED
from calyx_logging.handlers import execution_log, outbox
from calyx_logging.scripts.cli import COMMANDS
from conftest import REPO, events_of
from conftest import telemetry_program as telemetry  # as it is shown
from serving import served

README = (REPO / "README.md").read_text("utf-8")
HARNESS, CONFIGURATION, READING, COMMANDS_PAGE = (
    (REPO / "docs" / f"{name}.md").read_text("utf-8") for name in ("harness", "configuration", "reading", "commands")
)


def blocks(language: str, document: str = README) -> list[str]:
    return [body for name, body in re.findall(r"^```(\w+)\n(.*?)^```", document, re.M | re.S) if name == language]


def run_python(code: str, root: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A root in which the README was followed: provisioned, logged to in every way it shows, exported."""
    root = tmp_path_factory.mktemp("readme")
    commands = [line for body in blocks("console") for line in body.splitlines()]
    provision = next(line for line in commands if " provision " in line)
    assert telemetry(*provision.split()[1:], cwd=root).returncode == 0
    configure, structlog_example, runs = blocks("python")
    by_dictconfig, straight = blocks("python", CONFIGURATION)
    run_python(configure, root)
    run_python(configure + structlog_example, root)
    run_python(by_dictconfig, root)
    run_python(straight, root)
    run_python(configure.partition("log = ")[0] + runs, root)
    (yaml_config,) = blocks("yaml", CONFIGURATION)
    (root / "logging.yaml").write_text(yaml_config)
    run_python(
        "import logging, logging.config, yaml\n"
        "logging.config.dictConfig(yaml.safe_load(open('logging.yaml')))\n"
        "logging.getLogger('bench').info('from yaml')",
        root,
    )
    export = next(line for line in commands if line.startswith("calyx-telemetry export"))
    assert telemetry(*export.split()[1:], cwd=root).returncode == 0
    yield root
    shutil.rmtree(root)


def lines(root: Path) -> list[dict[str, object]]:
    return [
        json.loads(line)
        for path in sorted(root.glob("exports/telemetry_exports/*/*/*.jsonl"))
        for line in path.read_bytes().splitlines()
    ]


def test_structlog_straight(root: Path) -> None:
    """Its line is there with the others."""
    (line,) = (line for line in lines(root) if line["message"] == "case done, straight")
    assert (line["logger"], line["level"], line["score"]) == ("bench", "info", 1.0)


def test_the_run_of_the_readme(root: Path) -> None:
    """Its fields are on the library's record, its files where docs/harness.md says."""
    (asking,) = (line for line in lines(root) if line["message"] == "asking")
    assert (asking["suite"], asking["run_id"], asking["case_id"]) == ("arithmetic", "model-a", "2+2")
    folder = root / "runtime/benchmarks/results/arithmetic/laptop-01"
    assert sorted(path.name.partition(".")[2] for path in folder.iterdir()) == ["cases.jsonl", "envelope.json"]


def test_the_first_two_commands_are_run_pys() -> None:
    """One does the main job, one runs the tests."""
    assert blocks("console")[0].splitlines() == ["python3 run.py smoke-test", "python3 run.py test"]


def test_the_examples_log_what_they_say(root: Path) -> None:
    """Python, structlog and YAML: every event is in the bundle, and bears what the text promises."""
    events = [line for line in lines(root) if line["source"] == "bench_harness"]
    assert [event["message"] for event in events].count("case done") == 3
    assert [event["message"] for event in events].count("case failed") == 2
    assert [event["message"] for event in events].count("from yaml") == 1
    assert [event["message"] for event in events].count("from dictConfig") == 1
    bound = [event for event in events if event.get("run_id") == "r-42"]
    assert len(bound) == 1
    assert {event["node_id"] for event in events} == {"laptop-01"}


def test_the_line_shown_is_such_a_line(root: Path) -> None:
    """The same fields in the same order as a real one."""
    (shown,) = blocks("json")
    real = next(line for line in lines(root) if line["message"] == "case done")
    assert list(json.loads(shown)) == list(real)
    for name in RESERVED - set(real):
        assert f"`{name}`" in CONFIGURATION


def test_the_commands_shown_work(root: Path) -> None:
    """Each calyx-telemetry command of the README, then of the page on reading, succeeds where it stands."""
    (root / "hub").mkdir()
    (root / "my_harness.py").write_text("import logging\nlogging.getLogger('theirs').warning('told')\n")
    for line in (line for body in blocks("console") + blocks("console", READING) for line in body.splitlines()):
        program, *args = shlex.split(line)
        if program != "calyx-telemetry" or (
            args[0] in ("query", "report", "view") and importlib.util.find_spec("ibis") is None
        ):
            continue
        if args[0] == "view":  # until it is ended
            assert args[-1] == "--open"
            with served(*args[1:-1], cwd=root) as server:
                assert "case failed" in server.page()
            continue
        expanded: list[str] = []
        for arg in args:
            expanded += [str(path) for path in root.glob(arg)] if "/*" in arg else [arg]
        expanded = [sys.executable if arg == "python" else arg for arg in expanded]  # the one of the environment
        done = telemetry(*expanded, cwd=root)
        assert done.returncode == 0, (line, done.stderr)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum on this system")
def test_sha256sum_works_as_shown(root: Path) -> None:
    """The command works in every bundle."""
    bundles = list(root.glob("exports/telemetry_exports/*/*"))
    assert bundles
    for bundle in bundles:
        subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=bundle, check=True, capture_output=True)


def test_the_jq_example(root: Path) -> None:
    """The program between the quotes, over the files it names."""
    jq = pytest.importorskip("jq")
    (example,) = blocks("sh", READING)
    program = example.split("'")[1]
    found = [answer for line in lines(root) for answer in jq.compile(program).input_value(line).all()]
    assert [answer["why"] for answer in found] == ["model did not answer"] * 2
    assert {answer["case_id"] for answer in found} == {"6*7"}


def test_the_pandas_example(root: Path) -> None:
    """It prints the mean score of the case."""
    pytest.importorskip("pandas")
    assert re.search(r"2\+2\s+1\.0", run_python(blocks("python", READING)[-1], root))


def test_every_command_and_option_is_in_its_page() -> None:
    """A command nobody can find does not exist."""
    for name in COMMANDS:
        assert f"**{name}**" in COMMANDS_PAGE
    for option in outbox._OPTIONS[:-3]:  # logging's own three are no news
        assert f"| `{option}` |" in CONFIGURATION
    for option in execution_log._OPTIONS[:-4]:
        assert f"`{option}`" in HARNESS


def test_every_example_of_the_harness_document(tmp_path: Path) -> None:
    """The examples run in order in one fresh root, and do what the text says of each."""
    node = provision(tmp_path, "laptop-01").node
    runs, resumed, older, both, captured, of_loguru, secrets = blocks("python", HARNESS)
    configure = blocks("python")[0].partition("log = ")[0]
    run_python(configure + runs, tmp_path)
    for _ in range(2):  # the second time there is nothing left
        run_python(configure + resumed, tmp_path)
    ended = [event for event in events_of(node.outbox) if event.get("run_id") == "model-b" and "outcome" in event]
    assert [event["case_id"] for event in ended] == ["1+1", "2+2", "3+3"]
    run_python(configure + of_loguru + "\nlogger.info('of loguru')", tmp_path)
    assert run_python(older, tmp_path).endswith(" True\n")
    run_python(both, tmp_path)
    (yaml_config,) = blocks("yaml", HARNESS)
    (tmp_path / "logging.yaml").write_text(yaml_config)
    code = "import logging.config, yaml\nlogging.config.dictConfig(yaml.safe_load(open('logging.yaml')))\n"
    run_python(code + "logging.getLogger('bench').info('both, from yaml')", tmp_path)
    run_python(captured, tmp_path)
    run_python(secrets, tmp_path)

    events = {str(event["message"]): event for event in events_of(node.outbox)}
    asking = events["asking"]
    assert (asking["run_id"], asking["case_id"]) == ("model-a", "6*7")
    assert events["arrives all the same"]["logger"] == "their_harness"
    for text in re.findall(r"`(\"(?:message|headers|degraded)\":.*?)`", HARNESS.replace("\n", " ")):
        for name, value in json.loads(f"{{{text}}}").items():
            assert events["called with Bearer[redacted]"][name] == value
    logs = tmp_path / "runtime/benchmarks/execution_logs"
    assert sorted(path.name for path in logs.iterdir() if not path.name.startswith(".")) == [
        "model-a__first.events.jsonl",
        "model-a__second.events.jsonl",
        "run-7__inst-1.events.jsonl",
    ]
    for name, message in (("first", "in both places"), ("second", "both, from yaml")):
        (line,) = (logs / f"model-a__{name}.events.jsonl").read_bytes().splitlines()
        there = {key: value for key, value in events[message].items() if key != "seq"}
        assert json.loads(line) == there


@pytest.mark.slow
def test_the_commands_of_the_harness_document(tmp_path: Path) -> None:
    """The doctor and pytest, as they are shown."""
    provision(tmp_path, "laptop-01")
    files, files_of_hub, recorded, doctor, tests = (
        line for body in blocks("console", HARNESS) for line in body.splitlines()
    )
    for line in (files, files_of_hub.replace("--from hub --root hub", "")):
        assert "no run attached such a file" in telemetry(*line.split()[1:], cwd=tmp_path).stderr
    words = recorded.partition(" -- ")[0].replace("FOLDER", str(tmp_path)).split()
    done = telemetry(*words[1:], "--", sys.executable, "-c", "import logging; logging.error('told')")
    assert (done.returncode, "recorded 1 of 1 record of 1 process" in done.stderr) == (0, True), done.stderr
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"outbox": {"class": "calyx_logging.handlers.OutboxHandler"}},
        "root": {"level": "INFO", "handlers": ["outbox"]},
    }
    (tmp_path / "logging.json").write_text(json.dumps(config))
    (tmp_path / "their_harness").mkdir()
    (tmp_path / "their_harness" / "__init__.py").write_text("")
    (tmp_path / "their_harness" / "main.py").write_text("import logging\ndef setup(): logging.getLogger('theirs')\n")
    done = telemetry(*doctor.split()[1:], cwd=tmp_path)
    assert (done.returncode, "ok       theirs" in done.stdout) == (0, True), done.stdout + done.stderr
    (tmp_path / "test_it.py").write_text("def test_it(): pass\n")
    run_python(f"import sys, pytest; sys.exit(pytest.main({tests.split()[1:]!r}))", tmp_path)
    assert telemetry("export", cwd=tmp_path).returncode == 0
    assert [line["test_outcome"] for line in lines(tmp_path) if line.get("stage") == "case_ended"] == ["passed"]


PAGES = sorted((REPO / "docs").rglob("*.md"))
DOCUMENTS = ["README.md", "CHANGELOG.md", *(path.relative_to(REPO).as_posix() for path in PAGES)]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    """Relative links name files that are there, and headings that these have."""
    text = (REPO / document).read_text("utf-8")
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        path = (REPO / document).parent.joinpath(target) if target else REPO / document
        assert path.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.M)
            assert heading in [re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in headings], target


def test_the_design_draws_the_import_rule() -> None:
    """The arrows between the wings are those that tests/test_architecture.py holds."""
    arrows = re.findall(r"^  (\w+) --> (\w+)$", (REPO / "docs" / "design.md").read_text("utf-8"), re.M)
    assert sorted(arrows) == sorted((wing, target) for wing, targets in MAY_IMPORT.items() for target in targets)


def test_the_files_that_the_design_names_are_there() -> None:
    """Each function or class that is named with its file exists."""
    design = (REPO / "docs" / "design.md").read_text("utf-8")
    named = re.findall(r"(?:`(\w+)` in )?`((?:calyx_logging|handlers|scripts|tests)/[\w/.]+)`", design)
    assert len(named) > 30
    for symbol, file in named:
        if file == "scripts/telemetry_NAME.py":
            continue
        assert (REPO / file).exists(), file
        if symbol:
            text = (REPO / file).read_text("utf-8")
            assert re.search(rf"^\s*(?:def|class) {symbol}\b", text, re.M), (symbol, file)


def test_the_design_names_every_room() -> None:
    """docs/design.md knows the modules there are."""
    design = (REPO / "docs" / "design.md").read_text("utf-8")
    for path in (REPO / "calyx_logging").glob("[a-z]*.py"):
        assert f"`{path.stem}`" in design


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_the_commands_of_the_hub_document(tmp_path: Path) -> None:
    """The guide's commands run in order for a node and a hub, and so does the stock command that checks a signature."""
    document = (REPO / "docs" / "hub.md").read_text("utf-8")
    commands = [line for body in blocks("console", document) for line in body.splitlines()]
    arrives, keygen, provisions, trusts, hub_key, names_key, trusts_hub, *prunes, since, audits = commands
    (tmp_path / "node").mkdir()
    (tmp_path / "hub").mkdir()
    subprocess.run(shlex.split(keygen), cwd=tmp_path, check=True, capture_output=True)
    subprocess.run([*shlex.split(hub_key), "-q", "-N", ""], cwd=tmp_path, check=True)
    done = telemetry(*names_key.split()[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for line in (provisions, "calyx-telemetry smoke-test --root node", trusts):
        done = telemetry(*line.split()[1:], cwd=tmp_path)
        assert done.returncode == 0, (line, done.stderr)
    (bundle,) = (tmp_path / "node/exports/telemetry_exports/laptop-01").iterdir()
    arrives = arrives.replace("/media/stick", str(bundle)).replace("/srv/hub", "hub")
    done = telemetry(*arrives.split()[1:], cwd=tmp_path)
    assert (done.returncode, "imported" in done.stdout) == (0, True), done.stdout + done.stderr
    for path in (tmp_path / "hub/telemetry/federated/.receipts").glob("*.json*"):
        shutil.copy(path, tmp_path)
    for line in (trusts_hub, *prunes, since, audits):
        done = telemetry(*line.split()[1:], cwd=tmp_path)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    assert not bundle.exists()
    stock = re.search(r"^ssh-keygen -Y verify .*$", (REPO / "docs/format.md").read_text("utf-8"), re.M)
    assert stock is not None
    federated = tmp_path / "hub/telemetry/federated"
    imported = federated / "laptop-01" / bundle.name
    command, _, standard_input = stock[0].replace(".allowed_signers", "../../.allowed_signers").partition(" < ")
    subprocess.run(command.split(), cwd=imported, check=True, input=(imported / standard_input).read_bytes())


@pytest.mark.slow
def test_the_examples_of_the_query_document(root: Path) -> None:
    """The hub's table and Python, on the README's root and hub."""
    pytest.importorskip("ibis")
    document = (REPO / "docs" / "query.md").read_text("utf-8")
    if not (root / "hub").exists():
        (root / "hub").mkdir()
        assert telemetry("import", root / "exports/telemetry_exports", "--root", root / "hub").returncode == 0
    for line in (line for body in blocks("console", document) for line in body.splitlines()):
        done = telemetry(*shlex.split(line)[1:], cwd=root)
        assert done.returncode == 0, (line, done.stderr)
    of_delta, of_outbox, of_hub = blocks("python", document)
    if find_spec("polars"):
        assert "info" in run_python(of_delta, root)
    assert "case done" in run_python(of_outbox, root)
    assert "laptop-01" in run_python(of_hub, root)
