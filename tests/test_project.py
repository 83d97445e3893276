"""The first things a contributor meets: documents, hooks, the workflow and the form for bugs."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_architecture import MAY_IMPORT

from calyx_logging.scripts.cli import COMMANDS
from conftest import REPO

DOCUMENTS = ("CONTRIBUTING.md", "SECURITY.md", "README.md")
PAGES = tuple(sorted(path.relative_to(REPO).as_posix() for path in (REPO / "docs").rglob("*.md")))
WORKFLOW = ".github/workflows/tests.yml"
HOOKS = ".pre-commit-config.yaml"
BUG = ".github/ISSUE_TEMPLATE/bug.yml"
RUN_PY = {"smoke-test", "test", "ruff", "docs"}


def read(name: str) -> Any:
    return yaml.safe_load((REPO / name).read_text("utf-8"))


@pytest.mark.parametrize("name", [*DOCUMENTS, WORKFLOW, HOOKS, BUG, ".ci/run"])
def test_commands_that_are_named_exist(name: str) -> None:
    """The commands of run.py and of calyx-telemetry."""
    text = (REPO / name).read_text("utf-8")
    for words in re.findall(r"(?:python3?|py) run\.py ((?:--extra \w+ )*[\w-]+)", text):
        assert words.split()[-1] in RUN_PY | {"COMMAND", *COMMANDS}, words
    for command in re.findall(r"calyx-telemetry ([a-z][\w-]*)", text):
        assert command in COMMANDS


@pytest.mark.parametrize("document", [*DOCUMENTS, *PAGES])
def test_what_the_documents_name_is_there(document: str) -> None:
    """Links, from the document's own folder; files in code spans, from the repository, and of tests from theirs."""
    text = (REPO / document).read_text("utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert [name for name in links if not (REPO / document).parent.joinpath(name).exists()] == []
    spans = re.findall(r"`((?:calyx_logging|handlers|tests|scripts|docs|benchmarks|\.ci)/[\w./-]+)`", text)
    tests = re.findall(r"`((?:\w+/)*test_\w+\.py)`", text) if document == "docs/security.md" else []
    named = [*(span for span in spans if "NAME" not in span), *(f"tests/{name}" for name in tests)]
    assert [name for name in named if not (REPO / name).exists()] == []


def test_the_design_draws_the_rule_of_imports() -> None:
    """Each arrow of its second picture is in MAY_IMPORT, and each of those is drawn."""
    pictures = re.findall(r"^```mermaid\n(.*?)^```", (REPO / "docs" / "design.md").read_text("utf-8"), re.M | re.S)
    drawn = set(re.findall(r"^  (\w+) --> (\w+)$", pictures[1], re.M))
    assert drawn == {(wing, other) for wing, others in MAY_IMPORT.items() for other in others}


def test_every_decision_is_in_the_index() -> None:
    """The index lists each decision with its number, and each has the same four parts."""
    folder = REPO / "docs" / "decisions"
    names = sorted(path.name for path in folder.glob("0*.md"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert re.findall(r"\| \[(\d{4})\]\(\1(-[\w-]+\.md)\)", (folder / "README.md").read_text("utf-8")) == [
        (name[:4], name[4:]) for name in names
    ]
    for name in names:
        text = (folder / name).read_text("utf-8")
        parts = re.findall(r"^\*\*(\w+)\.\*\*", text, re.M)
        assert parts == ["Context", "Decision", "Alternatives", "Consequences"], name


def test_the_workflow_tests_every_python_on_every_system() -> None:
    """`.ci/run` on Linux with the oldest Python, the test command for all others; the package says the same Pythons."""
    jobs = read(WORKFLOW)["jobs"]
    matrix = jobs["tests"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert matrix["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert matrix["exclude"] == [{"os": "ubuntu-latest", "python": "3.11"}]
    ran = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert ran == [".ci/run", "python run.py smoke-test", "python run.py test", "python run.py test --lowest"]
    setup = next(step["with"] for step in jobs["ci"]["steps"] if "setup-python" in step.get("uses", ""))
    assert setup["python-version"] == "3.11"
    config = configparser.ConfigParser()
    config.read(REPO / "setup.cfg", "utf-8")
    classifiers = config["metadata"]["classifiers"].split("\n")
    assert [one.split(" :: ")[-1] for one in classifiers if ":: Python :: 3." in one] == matrix["python"]


def test_the_hooks_run_here() -> None:
    """Ruff's check and format, by run.py: nothing is fetched by the hooks themselves."""
    (repo,) = read(HOOKS)["repos"]
    assert repo["repo"] == "local"
    assert [hook["id"] for hook in repo["hooks"]] == ["ruff-check", "ruff-format"]
    for hook in repo["hooks"]:
        python, script, *words = shlex.split(hook["entry"])
        assert (python, script, hook["language"]) == ("python3", "run.py", "system")
        assert words[:2] == hook["id"].split("-")


def test_the_form_for_bugs_asks_for_the_doctor() -> None:
    """The issue forms are as GitHub reads them: each field has an id of its own and a label."""
    form = read(BUG)
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)
    doctor = next(field for field in fields if field["id"] == "doctor")
    assert "calyx-telemetry doctor --json" in doctor["attributes"]["label"]
    assert doctor["validations"]["required"] is True


def test_ci_runs_what_it_is_to_run() -> None:
    """The two commands of the README, and all steps after them."""
    text = Path(REPO / ".ci" / "run").read_text("utf-8")
    for command in ("python3 run.py smoke-test\n", "python3 run.py test\n", "-m integration", "ruff check", "mypy"):
        assert command in text


def test_the_least_versions_are_those_that_are_tested() -> None:
    """`run.py test --lowest` installs what setup.cfg allows at least."""
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(REPO / "setup.cfg", "utf-8")
    extras = setup["options.extras_require"]
    texts = [
        setup["options"]["install_requires"],
        *(extras[name] for name in ("query", "delta", "report", "view", "s3")),
    ]
    least = set()
    for line in "\n".join(texts).splitlines():
        if (found := re.match(r"([\w.-]+)(?:\[[^\]]*\])?>=([\d.]+)", line)) is not None:
            least.add(f"{found[1]}=={found[2]}")
    pinned = (REPO / "tests" / "lowest.txt").read_text("utf-8").splitlines()
    assert sorted(line for line in pinned if not line.startswith("#")) == sorted(least)
