"""Gather what a process is and what it runs on, for its `start` line and its `environment` line.

The latter is gathered by a thread of its own, because it takes some tenths of a second, or seconds where git or a GPU
is slow; it is written when it is there, and a program that ends before does not wait for it. No program is run for it
where this process may wait for any child (`os.wait`): it has forked, or handles SIGCHLD. Nothing secret is in
either: the command line goes through the redaction, and of the environment's variables only those of a list are taken.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import signal
import socket
import sys
import time
from _thread import get_native_id
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from calyx_logging.core import files
from calyx_logging.core.git_commit import commit_of
from calyx_logging.core.machine import fingerprint
from calyx_logging.core.threads import for_children, start_thread
from calyx_logging.errors import say
from calyx_logging.events.event import control_event

__all__ = ["has_thread", "start_fields", "stop_gathering", "tell_environment"]

_TOLD = "CALYX_LOGGING_ENVIRONMENT"
"""Set for child processes, whose environment is their parent's."""

_VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "CONDA_DEFAULT_ENV", "HF_HUB_OFFLINE", "KUBERNETES_SERVICE_HOST", "LANG", "LC_ALL"),
    *("MKL_NUM_THREADS", "OMP_NUM_THREADS", "PYTHONHASHSEED", "PYTHONUTF8", "SLURM_ARRAY_JOB_ID"),
    *("SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID", "SLURM_JOB_PARTITION", "TOKENIZERS_PARALLELISM", "TZ", "VIRTUAL_ENV"),
)
_GIT_SECONDS, _GPU_SECONDS = 5.0, 10.0
_LONGEST = 500

_gathered: deque[dict[str, Any]] = deque()
_state = "new"
"""`new`, `gathering`, `gathered`."""

_environment: dict[str, Any] = {}
_is_busy = _is_starting = _is_to_stop = _has_forked = False
_thread, _BEGINS = 0, -1
"""The native id of the thread that gathers."""

_running: list[Callable[[], None]] = []
"""Ends the program that is being run."""


def start_fields() -> dict[str, object]:
    """Return what is known of this process at once."""
    fields: dict[str, object] = {
        "host": socket.gethostname(),
        "machine": (fingerprint() or "")[:16] or None,
        "platform": f"{sys.platform} {os.uname().release}" if hasattr(os, "uname") else sys.platform,
        "python": f"{sys.implementation.name} {'.'.join(map(str, sys.version_info[:3]))}",
        "executable": sys.executable,
        "program": os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else None,  # noqa: PTH119
        "cwd": _cwd(),
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "user": _user(),
        "utc_offset_s": time.localtime().tm_gmtoff,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _cwd() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:  # it was deleted
        return None


def _user() -> str | None:
    try:
        import getpass

        return getpass.getuser()
    except Exception:  # a user without name or account
        return None


def tell_environment(pools: Iterable[Any]) -> None:
    """Begin to gather, or write what was gathered, for pools that want it; called by housekeeping now and then."""
    global _state, _environment, _thread
    wanting = [pool for pool in pools if getattr(pool, "wants_environment", False)]
    if not wanting:
        return
    if _state == "new":
        _state = "gathering"
        here = f"{sys.executable} {_cwd()}"  # other programs below this one, in other places, tell of theirs
        if os.environ.get(_TOLD) != here:
            os.environ[_TOLD] = here
            _thread = _BEGINS
            try:
                start_thread(_gather, _gathered)
            except RuntimeError:  # the interpreter is ending
                _thread = 0
    elif _gathered:
        _environment, _state = _gathered.popleft(), "gathered"
    if _state == "gathered":
        for pool in wanting:
            pool.wants_environment = False
            _tell(pool, _environment)


def _tell(pool: Any, environment: dict[str, Any]) -> None:
    """Write the line, with the packages where this node has not told of them yet."""
    marker = pool.outbox / ".environments" / str(environment.get("packages_sha256"))
    fields = dict(environment)
    if "packages" in fields and marker.exists():
        del fields["packages"]
    text = "what this process runs on"
    if pool.keep(control_event(pool.outbox.name, "environment", time.time(), text, **fields)) and "packages" in fields:
        try:
            files.make_dirs(marker.parent)
            files.replace_file(marker, b"")
        except OSError as error:
            say(f"cannot note {marker}: {error}; the packages' names are written again the next time")


def stop_gathering(wait: float = 1.0) -> None:
    """At the end of the process: have the thread run no more of Python's code than it has begun, and wait for that."""
    global _is_to_stop
    _is_to_stop = True
    deadline = time.monotonic() + wait
    while _is_busy and time.monotonic() < deadline:
        time.sleep(0.001)


def has_thread() -> bool:
    """Check whether the thread that gathers is there, as far as the system tells."""
    global _thread
    if _thread > 0 and not Path(f"/proc/self/task/{_thread}").exists():
        _thread = 0  # so that another thread of that number, later, is not taken for it
    return _thread != 0


def _gather(into: deque[dict[str, Any]]) -> None:
    global _is_busy, _thread
    _thread = get_native_id()
    fields: dict[str, Any] = {}
    parts: tuple[Callable[[], dict[str, Any]], ...] = (_command, _git, _packages, _hardware, _gpus, _variables)
    for part in parts:
        _is_busy = not _is_to_stop
        if _is_to_stop:
            return
        with contextlib.suppress(Exception):  # what cannot be known is left out
            fields.update(part())
    _is_busy = False
    into.append(fields)


def _command() -> dict[str, Any]:
    from calyx_logging.redact import redacted_argv

    return {"argv": [text[:_LONGEST] for text in redacted_argv(sys.orig_argv[:100])]}


def _git() -> dict[str, Any]:
    """Find the commit of the folder's repository, and whether tracked files differ from it."""
    commit = commit_of(Path.cwd()) or _output("git", "rev-parse", "HEAD", seconds=_GIT_SECONDS).strip()
    if not re.fullmatch("[0-9a-f]{40,64}", commit):
        return {}
    fields: dict[str, Any] = {"git_commit": commit}
    with contextlib.suppress(_NotRun):
        changes = _output("git", "status", "--porcelain", "--untracked-files=no", seconds=_GIT_SECONDS)
        fields["git_dirty"] = bool(changes.strip())
    return fields


class _NotRun(Exception):
    """A program was not run, or did not answer."""


def _output(program: str, *arguments: str, seconds: float) -> str:
    global _is_busy, _is_starting
    import shutil
    import subprocess

    path = shutil.which(program)
    if path is None or _waits_for_any_child():
        raise _NotRun
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    environment.pop("CALYX_LOGGING_RUN", None)
    _is_starting = not _is_to_stop
    if _is_to_stop:
        raise _NotRun
    nowhere, to_here = subprocess.DEVNULL, subprocess.PIPE
    command = [path, *arguments]
    with for_children():
        started = subprocess.Popen(command, stdin=nowhere, stdout=to_here, stderr=nowhere, env=environment)
    with started as process:
        _running.append(process.kill)
        _is_starting = False
        _is_busy = False  # while the other program runs
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise _NotRun from None
        finally:
            _running.clear()
    if process.returncode:
        raise _NotRun
    return output.decode("utf-8", "replace")


def _waits_for_any_child() -> bool:
    """Check whether the program might be told that a child ended which it did not start."""
    if os.name != "posix":
        return False
    return _has_forked or signal.getsignal(signal.SIGCHLD) not in (signal.SIG_DFL, signal.SIG_IGN)


def _note_fork() -> None:
    global _has_forked
    name = str(sys._getframe(1).f_globals.get("__name__"))
    if not name.startswith("multiprocessing."):  # which waits for its own children, by their numbers
        _has_forked = True


def _kill() -> None:
    """At the end of the process: leave no program behind."""
    global _is_to_stop
    _is_to_stop = True
    deadline = time.monotonic() + 0.5
    while _is_starting and time.monotonic() < deadline:
        time.sleep(0.001)
    for kill in list(_running):
        kill()


def _forget_programs() -> None:
    """In a forked child: they are the parent's."""
    global _is_starting, _is_busy, _thread
    _is_starting = _is_busy = False
    _thread = 0
    _running.clear()


def _packages() -> dict[str, Any]:
    import hashlib
    from importlib import metadata

    found = {str(one.metadata["Name"]).lower(): one.version for one in metadata.distributions()}
    listed = dict(sorted(found.items()))
    text = "\n".join(f"{name}=={version}" for name, version in listed.items())
    return {"packages_sha256": hashlib.sha256(text.encode()).hexdigest(), "packages": listed}


def _hardware() -> dict[str, Any]:
    fields: dict[str, Any] = {"cpus": os.cpu_count()}
    with contextlib.suppress(OSError):
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
        fields.update({"cpu": names[0]} if names else {})
    if hasattr(os, "sysconf"):
        with contextlib.suppress(OSError, ValueError):
            fields["memory_bytes"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return fields


def _gpus() -> dict[str, Any]:
    query = ("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    lines = _output("nvidia-smi", *query, seconds=_GPU_SECONDS).splitlines()
    return {"gpus": [line.strip() for line in lines if line.strip()]} if lines else {}


def _variables() -> dict[str, Any]:
    found = {name: os.environ[name][:_LONGEST] for name in _VARIABLES if name in os.environ}
    return {"variables": found} if found else {}


atexit.register(_kill)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_note_fork, after_in_child=_forget_programs)
