"""Check a bundle against its manifest; `calyx-telemetry verify`."""

from __future__ import annotations

try:
    import tempfile
    from dataclasses import asdict
    from pathlib import Path
    from typing import Any

    import click

    from calyx_logging.archive import is_archive
    from calyx_logging.arrival import bring, bytes_of, verdict
    from calyx_logging.bundle import check
    from calyx_logging.errors import CalyxError, StorageError
    from calyx_logging.scripts.cli import (
        advancing,
        contents_text,
        count_text,
        json_option,
        print_json,
        remark,
        run,
        tell,
    )
    from calyx_logging.verification import Report
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py verify") from None


@click.command("verify", short_help="Check bundles: every fault is named.")
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="BUNDLE...")
@json_option
def command(bundles: tuple[Path, ...], as_json: bool) -> None:
    """Check bundles, folders or archives: every missing, extra, changed or malformed file is named.

    Exit code 1 when there is one.
    """
    reports, code = [], 0
    for bundle in bundles:
        try:
            reports.append((bundle, checked(bundle)))
        except CalyxError as error:
            if len(bundles) == 1:
                raise
            remark(f"error: {error}")
            code = error.exit_code
    if as_json:
        print_json([document(bundle, report) for bundle, report in reports])
    else:
        for bundle, report in reports:
            tell_report(bundle, report)
    if code or any(report.faults for _, report in reports):
        raise SystemExit(code or 1)


def checked(bundle: Path) -> Report:
    """`check`, with a progress bar on a terminal."""
    with advancing(f"verifying {bundle.name}", lambda: _size(bundle)) as advance:
        if not is_archive(bundle):
            return check(bundle, progress=advance)
        with tempfile.TemporaryDirectory(prefix="calyx-verify-") as room:
            try:
                return verdict(*bring(bundle, Path(room), advance))
            except OSError as error:
                raise StorageError.of(error, "unpack the archive", bundle, "free some space") from error


def _size(bundle: Path) -> int:
    if bundle.is_file():
        return bytes_of(bundle)
    return sum(path.stat().st_size for path in bundle.glob("*.jsonl") if path.is_file())


def tell_report(bundle: Path, report: Report) -> None:
    """The verdict in lines: results on standard output, warnings on standard error."""
    for warning in report.warnings:
        remark(f"warning: {warning}")
    if report.faults or report.manifest is None:
        tell(f"{bundle}: {count_text(len(report.faults), 'fault')}")
        for fault in report.faults:
            tell(f"  {fault}")
        return
    manifest = report.manifest
    tell(f"{bundle}: verified, node {manifest.node_id}, {contents_text(manifest)}")


def document(bundle: Path, report: Report) -> dict[str, Any]:
    """The verdict for `--json`."""
    manifest = report.manifest
    return {
        "bundle": bundle,
        "verified": not report.faults,
        "node_id": None if manifest is None else manifest.node_id,
        "manifest_sha256": report.manifest_sha256,
        "chunks": None if manifest is None else len(manifest.chunks),
        "events": None if manifest is None else manifest.events,
        "faults": [asdict(fault) for fault in report.faults],
        "warnings": report.warnings,
    }


if __name__ == "__main__":
    run(command)
