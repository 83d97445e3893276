"""Check a bundle against its manifest; `calyx-telemetry verify`."""

from __future__ import annotations

try:
    from collections.abc import Sequence
    from contextlib import closing
    from dataclasses import asdict
    from pathlib import Path
    from typing import Any

    import click

    from calyx_logging.bundle.archive import is_archive
    from calyx_logging.bundle.folder import check
    from calyx_logging.bundle.object_store import RemoteBundle, bundles_at, is_url
    from calyx_logging.bundle.staging import bring, bytes_of, verdict
    from calyx_logging.bundle.verification import Report, judge
    from calyx_logging.core.temporary import temporary_folder
    from calyx_logging.errors import CalyxError, ManifestError, StorageError
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
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py verify") from None


@click.command("verify", short_help="Check bundles: every fault is named.")
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE...")
@json_option
def command(bundles: tuple[str, ...], as_json: bool) -> None:
    """Check bundles, folders or archives: every missing, extra, changed or malformed file is named.

    Of an archive of several bundles, each is checked; of a URL in object storage, all bundles below it. Exit code 1
    when one has a fault.
    """
    reports: list[tuple[str, Report]] = []
    code = 0
    for bundle in bundles:
        try:
            for place in _places(bundle):
                reports += checked(place)
        except CalyxError as error:
            if len(bundles) == 1:
                raise
            remark(f"error: {error}")
            code = error.exit_code
    if as_json:
        print_json([document(name, report) for name, report in reports])
    else:
        for name, report in reports:
            tell_report(name, report)
    if code or any(report.faults for _, report in reports):
        raise SystemExit(code or 1)


def _places(bundle: str) -> Sequence[Path | RemoteBundle]:
    if not is_url(bundle):
        return [Path(bundle)]
    found = bundles_at(bundle)
    for folder in found.unfinished:
        remark(f"{folder} has no manifest (yet)")
    if not found.bundles:
        raise ManifestError("there is no whole bundle at this URL", hint="at the node, export --to goes on sending")
    return found.bundles


def checked(bundle: Path | RemoteBundle) -> list[tuple[str, Report]]:
    """Check a bundle, or each in an archive of several, with a progress bar on a terminal."""
    with advancing(f"verifying {bundle.name}", lambda: bytes_of(bundle)) as advance:
        if isinstance(bundle, RemoteBundle):
            if not bundle.is_archive:
                return [(str(bundle), judge(bundle.names(), bundle.blocks, progress=advance))]
        elif not is_archive(bundle):
            return [(str(bundle), check(bundle, progress=advance))]
        with temporary_folder("calyx-verify-") as room:
            try:
                with closing(bring(bundle, room, advance)) as copies:
                    return [("/".join(filter(None, (str(bundle), one.inside))), verdict(one)) for one in copies]
            except OSError as error:
                raise StorageError.of(error, "unpack the archive", room, "free some space") from error


def tell_report(bundle: str, report: Report) -> None:
    """Print the verdict: results on standard output, warnings on standard error."""
    for warning in report.warnings:
        remark(f"warning: {warning}")
    if report.faults or report.manifest is None:
        tell(f"{bundle}: {count_text(len(report.faults), 'fault')}")
        for fault in report.faults:
            tell(f"  {fault}")
        return
    manifest = report.manifest
    tell(f"{bundle}: verified, node {manifest.node_id}, {contents_text(manifest, report.events)}")


def document(bundle: str, report: Report) -> dict[str, Any]:
    """Return the verdict for `--json`."""
    manifest = report.manifest
    return {
        "bundle": bundle,
        "verified": not report.faults,
        "node_id": None if manifest is None else manifest.node_id,
        "manifest_sha256": report.manifest_sha256,
        "chunks": None if manifest is None else len(manifest.chunks),
        "events": None if manifest is None else report.events,
        "lines": None if manifest is None else manifest.events,
        "faults": [asdict(fault) for fault in report.faults],
        "warnings": report.warnings,
    }


if __name__ == "__main__":
    run(command)
