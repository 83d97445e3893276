"""The commit is read from a repository's files, as git tells it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from calyx_logging.core.git_commit import commit_of

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: str) -> str:
    """Run git; its output."""
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_everywhere(tmp_path: Path) -> None:
    """The commit is read on a branch, below the root, packed, detached and in a work tree."""
    place = tmp_path / "repository"
    (place / "below").mkdir(parents=True)
    assert commit_of(place) is None
    git(place, "init", "--quiet")
    assert commit_of(place) is None
    git(place, "commit", "--quiet", "--allow-empty", "--message", "one")
    commit = git(place, "rev-parse", "HEAD")
    assert commit_of(place / "below") == commit
    git(place, "pack-refs", "--all")
    assert commit_of(place) == commit
    git(place, "worktree", "add", "--quiet", "-b", "other", str(tmp_path / "tree"))
    assert commit_of(tmp_path / "tree") == commit
    git(place, "checkout", "--quiet", "--detach")
    assert commit_of(place) == commit


@pytest.mark.parametrize("head", [b"", b"ref: refs/heads/none", b"ref: ../../secret", b"\xff", b"no commit"])
def test_no_repository(tmp_path: Path, head: bytes) -> None:
    """Nothing but a commit is ever told."""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_bytes(head)
    (tmp_path / "secret").write_text("a secret")
    assert commit_of(tmp_path) is None
