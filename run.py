#!/usr/bin/env python3
"""Set up a private .venv beside this file and run a command in it. Needs nothing but Python (3.11 or newer) and pip.

    python3 run.py smoke-test        one event the whole way: logged, exported, verified
    python3 run.py test              every test, in as many processes as there are cores
    python3 run.py test --fast       without the slow ones: campaigns, loads, large inputs
    python3 run.py test --lowest     with the least versions of what is required, in an environment of their own
    python3 run.py test ARGS...      what pytest's arguments select, in one process: -k NAME, a path, -x --pdb, -n 2
    python3 run.py ruff ARGS...      the linter and formatter, of the version that CI uses
    python3 run.py docs              the documentation site, into build/site
    python3 run.py COMMAND [ARGS...] any command of calyx-telemetry; --help lists them

On Windows:  py run.py smoke-test

Standard library only, and in a syntax that old Pythons can read far enough to say what they lack.
"""

import hashlib
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
LEAST = (3, 11)
NEWER = ["python3.%d" % minor for minor in (13, 12, 11, 14, 15)]
STAMP = "calyx-installed.txt"
TOOL_EXTRAS = {"test": "test", "ruff": "lint", "docs": "docs"}
PARALLEL = ["-n", "auto", "--maxprocesses", "8", "--dist", "worksteal"]
SAYS_MORE_OR_LESS = ("-q", "-qq", "-v", "-vv")


def main(args):
    extras = []
    while args[:1] == ["--extra"]:
        extras.append(args[1] if len(args) > 1 else "")
        args = args[2:]
    if not args or args[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if args else 2
    if sys.version_info < LEAST:
        return run_with_newer_python()
    if args[0] in TOOL_EXTRAS:
        extras.append(TOOL_EXTRAS[args[0]])
    lowest = args[0] == "test" and "--lowest" in args
    if lowest:
        args.remove("--lowest")
    python = set_up(os.path.join(HERE, ".venv-lowest" if lowest else ".venv"), extras, lowest)
    command = [python, "-m", "calyx_logging.scripts"] + args
    if args[0] == "test":
        command = [python, "-m", "pytest"] + pytest_arguments(args[1:])
        os.chdir(HERE)
    elif args[0] == "ruff":
        command = [python, "-m", "ruff"] + args[1:]
    elif args[0] == "docs":
        command = [python, "-m", "sphinx", "-W", "--keep-going", "-b", "html"] + args[1:]
        command += [os.path.join(HERE, "docs"), os.path.join(HERE, "build", "site")]
    return subprocess.call(command)


def pytest_arguments(args):
    """Return pytest's arguments: `--fast` and verbosity keep all tests in parallel; others are passed on alone."""
    others = [arg for arg in args if arg != "--fast"]
    fast = ["-m", "not slow"] if len(others) < len(args) else []
    if all(arg in SAYS_MORE_OR_LESS or arg.startswith("--durations") for arg in others):
        return PARALLEL + fast + others
    return fast + others


def run_with_newer_python():
    """Run again with a newer Python, if there is one, since this one is too old."""
    for name in NEWER:
        for folder in os.environ.get("PATH", "").split(os.pathsep):
            found = os.path.join(folder, name)
            if os.path.isfile(found) and answers(found):
                return subprocess.call([found, os.path.abspath(__file__)] + sys.argv[1:])
    sys.exit(
        "calyx-logging needs Python %d.%d or newer; this is %s. Install one and run this again with it."
        % (LEAST + (sys.version.split()[0],))
    )


def answers(python):
    """Tell whether a Python on the PATH really runs: it may be a shim with nothing behind it."""
    try:
        with open(os.devnull, "w") as nowhere:
            return subprocess.call([python, "-c", ""], stdout=nowhere, stderr=nowhere) == 0
    except OSError:
        return False


def set_up(venv, extras, lowest=False):
    """Return the environment's Python, after creating or updating the environment if needed.

    With `lowest` it has the versions that tests/lowest.txt names.
    """
    python = os.path.join(venv, "Scripts", "python.exe") if os.name == "nt" else os.path.join(venv, "bin", "python")
    stamp = os.path.join(venv, STAMP)
    have, wanted = read_stamp(stamp), fingerprint()
    if have[:1] == [wanted] and set(extras) <= set(have[1:]) and os.path.exists(python):
        return python
    if have[:1] != [wanted] or not os.path.exists(python):
        have = [wanted]
        say("setting up %s (once; it takes a minute)" % venv)
        make_venv(venv, python)
    extras = sorted(set(extras) | set(have[1:]))
    target = HERE + ("[%s]" % ",".join(extras) if extras else "")
    options = ["--constraint", os.path.join(HERE, "tests", "lowest.txt")] if lowest else []
    pip(venv, python, ["install", "--quiet", "--disable-pip-version-check", "--editable", target] + options)
    with open(stamp, "w", encoding="utf-8") as stream:
        stream.write("\n".join([wanted] + extras))
    return python


def fingerprint():
    """Return a text that changes with the requirements, the Python or the location."""
    digest = hashlib.sha256()
    for part in (sys.version, HERE):
        digest.update(part.encode("utf-8", "backslashreplace"))
    compiled = os.path.join("calyx_logging", "compiled")
    sources = [os.path.join(compiled, name) for name in sorted(os.listdir(os.path.join(HERE, compiled)))]
    for name in ["setup.cfg", "setup.py", "pyproject.toml"] + [name for name in sources if name.endswith((".c", ".h"))]:
        with open(os.path.join(HERE, name), "rb") as stream:
            digest.update(stream.read())
    return digest.hexdigest()


def read_stamp(path):
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read().split("\n")
    except OSError:
        return []


def make_venv(venv, python):
    if os.path.isdir(venv):
        shutil.rmtree(venv)
    with_pip = has_module("ensurepip")
    if not with_pip and not has_module("pip"):
        sys.exit(
            "This Python has neither ensurepip nor pip, so nothing can be installed into a private environment.\n"
            "Install one of them and run this again. Debian and Ubuntu:  sudo apt install python3-venv\n"
            "Fedora:  sudo dnf install python3-pip"
        )
    command = [sys.executable, "-m", "venv"] + ([] if with_pip else ["--without-pip"]) + [venv]
    if subprocess.call(command) != 0 or not os.path.exists(python):
        sys.exit("could not make the environment in %s (see above); is the folder writable?" % venv)


def pip(venv, python, args):
    """Run pip for the environment: its own, or else this Python's (pip 22.3 or newer), which system rules allow."""
    own = subprocess.call([python, "-c", "import pip"], stderr=subprocess.DEVNULL) == 0
    command = [python, "-m", "pip"] if own else [sys.executable, "-m", "pip", "--python", python]
    if subprocess.call(command + args) != 0:
        sys.exit("could not install what %s needs (see above); is the network there?" % HERE)


def has_module(name):
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec(%r) is None)" % name
    return subprocess.call([sys.executable, "-c", code]) == 0


def say(text):
    sys.stderr.write("run.py: %s\n" % text)
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
