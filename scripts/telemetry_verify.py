"""Check a bundle against its manifest; `calyx-telemetry verify`."""

from __future__ import annotations

try:
    from collections.abc import Collection, Iterator, Sequence
    from contextlib import closing, suppress
    from dataclasses import asdict, dataclass
    from pathlib import Path
    from typing import Any

    import click

    from calyx_logging.bundle.archive import is_archive
    from calyx_logging.bundle.folder import check
    from calyx_logging.bundle.object_store import RemoteBundle, bundles_at, is_url
    from calyx_logging.bundle.signed import Signed, Trust, who_signed
    from calyx_logging.bundle.staging import bring, bundles_in, bytes_of, verdict
    from calyx_logging.bundle.verification import Read, Report, judge
    from calyx_logging.core.reading import blocks_of, names_in
    from calyx_logging.core.temporary import temporary_folder
    from calyx_logging.errors import CalyxError, ManifestError, StorageError
    from calyx_logging.format.chunk import open_chunk
    from calyx_logging.format.manifest import MANIFEST_NAME, SIGNATURE_NAME
    from calyx_logging.hub.store import Store, find_hub
    from calyx_logging.scripts import completing
    from calyx_logging.scripts.cli import (
        advancing,
        contents_text,
        count_text,
        json_option,
        named_root,
        print_json,
        remark,
        run,
        tell,
    )
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py verify") from None


_SIGNATURE_HINT = "verify --root HUB looks it up; see calyx-telemetry trust"


@dataclass(frozen=True)
class Checked:
    """A bundle by name, the faults of its files, and its signature; None where there is no manifest."""

    name: str
    report: Report
    signature: Signed | None = None

    @property
    def is_good(self) -> bool:
        """True if neither the files nor the signature have a fault."""
        return not self.report.faults and (self.signature is None or not self.signature.fault)


@click.command("verify", short_help="Check bundles: every fault is named.")
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE...", shell_complete=completing.files)
@named_root("Also check signatures by the keys that the hub with this root trusts.")
@json_option
def command(bundles: tuple[str, ...], root: str | None, as_json: bool) -> None:
    """Check bundles, folders or archives: every missing, extra, changed or malformed file is named.

    Of an archive or a folder of several bundles, each is checked; of a URL in object storage, all bundles below it. The
    key that signed is named, and with --root whether it is trusted for the node. Exit code 1 when a bundle has a fault,
    when its signature is wrong, and with --root also when the signature cannot be checked.
    """
    reports: list[Checked] = []
    trust, code = None, 0
    if root is not None:
        store = Store(find_hub(root))
        trust = Trust(store.signers, store.revoked)
    for bundle in bundles:
        try:
            for place in _places(bundle):
                reports += checked(place, trust)
        except CalyxError as error:
            if len(bundles) == 1:
                raise
            remark(f"error: {error}")
            code = error.exit_code
    if as_json:
        print_json([document(one) for one in reports])
    else:
        for one in reports:
            tell_report(one)
    if code or not all(one.is_good for one in reports):
        raise SystemExit(code or 1)


def _places(bundle: str) -> Sequence[Path | RemoteBundle]:
    if not is_url(bundle):
        folder = Path(bundle)
        if folder.is_dir() and not (folder / MANIFEST_NAME).exists():
            with suppress(ManifestError):
                return bundles_in(folder).bundles
        return [folder]
    found = bundles_at(bundle)
    for unfinished in found.unfinished:
        remark(f"{unfinished} has no manifest (yet)")
    if not found.bundles:
        raise ManifestError("there is no whole bundle at this URL", hint="at the node, export --to goes on sending")
    return found.bundles


def checked(bundle: Path | RemoteBundle, trust: Trust | None = None) -> list[Checked]:
    """Check a bundle, or each in an archive of several, with a progress bar on a terminal."""
    with advancing(f"verifying {bundle.name}", lambda: bytes_of(bundle)) as advance:
        if isinstance(bundle, RemoteBundle):
            if not bundle.is_archive:
                names = bundle.names()
                report = judge(names, bundle.blocks, progress=advance)
                return [_with_signature(str(bundle), report, names, bundle.blocks, trust)]
        elif not is_archive(bundle):
            return [_of_folder(str(bundle), bundle, check(bundle, progress=advance), trust)]
        with temporary_folder("calyx-verify-") as room:
            try:
                with closing(bring(bundle, room, advance)) as copies:
                    return [
                        _of_folder("/".join(filter(None, (str(bundle), one.inside))), one.folder, verdict(one), trust)
                        for one in copies
                    ]
            except OSError as error:
                raise StorageError.of(error, "unpack the archive", room, "free some space") from error


def _of_folder(name: str, folder: Path, report: Report, trust: Trust | None) -> Checked:
    def read(file: str) -> Iterator[bytes]:
        with open_chunk(folder / file) as stream:
            yield from blocks_of(stream)

    return _with_signature(name, report, names_in(folder), read, trust)


def _with_signature(name: str, report: Report, names: Collection[str], read: Read, trust: Trust | None) -> Checked:
    """Find who signed a bundle whose manifest can be read."""
    if report.manifest is None:
        return Checked(name, report)
    try:
        try:
            signature = b"".join(read(SIGNATURE_NAME)) if SIGNATURE_NAME in names else None
        except CalyxError as error:
            return Checked(name, report, Signed(None, None, f"the signature cannot be read: {error}"))
        signed = who_signed(b"".join(read(MANIFEST_NAME)), signature, report.manifest.node_id, trust)
        return Checked(name, report, signed)
    except CalyxError as error:
        return Checked(name, report, Signed(None, None, str(error) if trust is not None else "", str(error)))


def tell_report(checked: Checked) -> None:
    """Print the verdict: results on standard output, warnings on standard error."""
    bundle, report = checked.name, checked.report
    for warning in report.warnings:
        remark(f"warning: {warning}")
    if report.faults or report.manifest is None:
        tell(f"{bundle}: {count_text(len(report.faults), 'fault')}")
        for fault in report.faults:
            tell(f"  {fault}")
        return
    manifest = report.manifest
    verified = "verified" if checked.is_good else "its files are whole, but its signature is not good"
    tell(f"{bundle}: {verified}, node {manifest.node_id}, {contents_text(manifest, report.events)}")
    if checked.signature is not None:
        tell(f"  {_signature_text(checked.signature, manifest.node_id)}")


def _signature_text(signature: Signed, node_id: str) -> str:
    if signature.unchecked:
        return f"signature not checked: {signature.unchecked}"
    if signature.fault:
        return signature.fault
    if signature.key is None:
        return "not signed"
    if signature.is_trusted:
        return f"signed with {signature.key}, trusted for node {node_id}"
    return f"signed with {signature.key}; whether that is a key of node {node_id} is not known ({_SIGNATURE_HINT})"


def document(checked: Checked) -> dict[str, Any]:
    """Return the verdict for `--json`."""
    report, signature = checked.report, checked.signature
    manifest = report.manifest
    return {
        "bundle": checked.name,
        "verified": checked.is_good,
        "signed_by": None if signature is None else signature.key,
        "trusted": None if signature is None else signature.is_trusted,
        "signature_fault": None if signature is None else signature.fault or signature.unchecked or None,
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
