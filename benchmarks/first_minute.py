"""Time the first minute as README and tutorial describe it, in a fresh clone and a fresh environment.

    python3 benchmarks/first_minute.py

Each command stands in README.md or docs/tutorial.md, and runs as it stands there, in bash. Downloads are part of the
times; a second run finds pip's cache warm. Standard library only.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


def blocks(language: str, text: str) -> list[str]:
    """Return the bodies of the listings in a language."""
    return [body for name, body in re.findall(r"^```(\w+)\n(.*?)^```", text, re.M | re.S) if name == language]


def main() -> int:
    """Run every command, print the seconds of each, and sums up to the first event and to the hub's page."""
    readme = (HERE / "README.md").read_text("utf-8")
    tutorial = (HERE / "docs" / "tutorial.md").read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "-q", str(HERE), f"{folder}/calyx-logging"], check=True)
        first = blocks("console", readme)[0].splitlines()[0]
        took = [(first, timed(first, Path(folder, "calyx-logging")))]
        bench = Path(folder, "bench")
        bench.mkdir()
        (bench / "bench.py").write_text(blocks("python", tutorial)[0], "utf-8")
        activated = ""
        for line in "".join(blocks("console", tutorial)).splitlines():
            if line.startswith(". "):
                activated = f"{line} && "
            else:
                took.append((line, timed(activated + line, bench)))
        page = (bench / "fleet.html").stat().st_size
        size = sum(path.lstat().st_size for path in Path(folder, "calyx-logging", ".venv").rglob("*"))
        shutil.rmtree(bench)
    for line, seconds in took:
        print(f"{seconds:7.1f} s  {line}")
    seen = next(n for n, (line, _) in enumerate(took) if " tail " in line)
    shown = next(n for n, (line, _) in enumerate(took) if " report " in line)
    print(f"to the first event seen (smoke-test, with its environment of {size / 1e6:.0f} MB): {took[0][1]:.1f} s")
    print(f"tutorial, to the first event of the harness: {sum(s for _, s in took[1 : seen + 1]):.1f} s")
    to_page = sum(seconds for _, seconds in took[1 : shown + 1])
    print(f"tutorial, to the hub's page of two nodes ({page / 1e6:.1f} MB): {to_page:.1f} s")
    return 0


def timed(line: str, folder: Path) -> float:
    """Run a line in bash; return its seconds, or end with what it said if it fails."""
    began = time.perf_counter()
    done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{line}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
