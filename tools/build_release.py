"""Build sdist and wheel so that the same commit gives the same bytes, check them, and list what they contain.

    python3 tools/build_release.py [FOLDER]        (default: dist)

Builds from what git has committed, with the commit's time as every file's time. Needs git, `build`, `twine` and
`cyclonedx-bom` (the extra `release`). Writes the sdist, this platform's wheel, `SHA256SUMS`, and `sbom.cdx.json`, the
packages that a plain installation brings (CycloneDX).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


def main(args: list[str]) -> int:
    """Build into a folder; return 1 if something is there already that differs."""
    target = Path(args[0] if args else HERE / "dist").resolve()
    target.mkdir(parents=True, exist_ok=True)
    epoch = git("log", "-1", "--format=%ct").decode().strip()
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "source")
        with tarfile.open(fileobj=io.BytesIO(git("archive", "--format=tar", "HEAD"))) as archive:
            archive.extractall(source, filter="data")
        made = build(source, Path(scratch, "made"), epoch)
        for path in made:
            (target / path.name).write_bytes(path.read_bytes())
    packages = sorted(target / path.name for path in made)
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, packages)], check=True)
    bill = bill_of_materials(next(path for path in packages if path.suffix == ".whl"))
    (target / "sbom.cdx.json").write_bytes(bill)
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in packages)
    (target / "SHA256SUMS").write_text(sums, "utf-8", newline="\n")
    print(sums, end="")
    return 0


def git(*args: str) -> bytes:
    """Run git in the checkout, and return what it prints."""
    return subprocess.run(["git", *args], cwd=HERE, check=True, capture_output=True).stdout


def build(source: Path, target: Path, epoch: str) -> list[Path]:
    """Build sdist and wheel from a folder."""
    environ = {
        **os.environ,
        "SOURCE_DATE_EPOCH": epoch,
        "PYTHONHASHSEED": "0",
        "CFLAGS": f"{os.environ.get('CFLAGS', '')} -g0 -ffile-prefix-map={source}=.".strip(),
    }
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(source)]
    subprocess.run(command, check=True, env=environ, stdout=subprocess.DEVNULL)
    for path in target.glob("*.tar.gz"):
        normalise(path, int(epoch))
    return sorted(target.iterdir())


def normalise(sdist: Path, epoch: int) -> None:
    """Write an sdist anew: names in order, one time, no owner, no name or time in gzip's header."""
    packed = io.BytesIO()
    with (
        tarfile.open(sdist) as old,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda one: one.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    with sdist.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=epoch) as stream:
        stream.write(packed.getvalue())


def bill_of_materials(wheel: Path) -> bytes:
    """Install a wheel into an environment of its own, and return the list of what came with it."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder, "Scripts", "python.exe") if os.name == "nt" else Path(folder, "bin", "python")
        install = ["-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([str(python), *install, str(wheel)], check=True)
        subprocess.run([str(python), "-m", "pip", "uninstall", "-q", "-y", "pip", "setuptools"], check=True)
        options = ["environment", "--output-reproducible", "--of", "JSON", str(python)]
        command = [sys.executable, "-m", "cyclonedx_py", *options]
        found = subprocess.run(command, check=True, capture_output=True).stdout
        return found.replace(f"{wheel.parent.as_uri()}/".encode(), b"")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
