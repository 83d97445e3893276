"""Pack what is not exported yet into a bundle; `calyx-telemetry export`."""

from __future__ import annotations

try:
    from collections.abc import Mapping
    from dataclasses import asdict
    from pathlib import Path
    from typing import Any

    import click

    from calyx_logging.bundle.archive import FORMATS
    from calyx_logging.bundle.audit import audit_bundle
    from calyx_logging.bundle.object_store import Sent, check_url, local_folder, send
    from calyx_logging.bundle.signing import check_key
    from calyx_logging.errors import ConfigError
    from calyx_logging.format.completeness import Verdict, worst
    from calyx_logging.format.manifest import SIGNATURE_NAME
    from calyx_logging.node import Node
    from calyx_logging.outbox.export import ExportOptions, ExportResult, export_all
    from calyx_logging.outbox.export_lock import exclusive
    from calyx_logging.outbox.live import DEFAULT_WAIT
    from calyx_logging.scripts import completing
    from calyx_logging.scripts.carrying import make_place_for_receipts, take_receipts
    from calyx_logging.scripts.cli import (
        contents_text,
        count_text,
        json_option,
        print_json,
        progress_bar,
        remark,
        root_option,
        run,
        sign_options,
        size_text,
    )
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py export") from None


@click.command("export")
@root_option
@click.option("--live", is_flag=True, help="Ask programs that are running to seal what they have logged so far.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help=f"With --live: how long to wait for them. Default: {DEFAULT_WAIT:g}.",
)
@click.option(
    "--require-sealed", is_flag=True, help="Exit with 1 when chunks are still being written (they are never taken)."
)
@click.option(
    "--recover-orphans",
    is_flag=True,
    help="Also seal open chunks of writers on another host or without a lock file, once nothing was written to "
    "them for 10 minutes.",
)
@click.option(
    "--since-receipt",
    is_flag=True,
    help="Also pack again what no receipt of a hub covers (see prune), after a bundle was lost on its way.",
)
@click.option("--archive", type=click.Choice(FORMATS), help="Also pack the bundle into one file beside its folder.")
@click.option(
    "--to",
    metavar="PLACE",
    shell_complete=completing.folders,
    help="Also send bundles that are not there yet to a folder, such as a stick or a share, or to object storage: "
    "s3://BUCKET/FOLDER.",
)
@click.option("--paranoid", is_flag=True, help="With --to: read everything there again and compare hashes.")
@click.option(
    "--direct",
    is_flag=True,
    help="With --to FOLDER: write the new bundle there alone, without a copy in exports, for a full disk.",
)
@click.option(
    "--accept-unsigned",
    is_flag=True,
    help="With --to FOLDER: take an unsigned receipt from there, as long as no hub's key is trusted.",
)
@click.option(
    "--self-verifying",
    is_flag=True,
    help="Also put verify.py into the bundle, which checks it where there is Python and nothing else.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Exit with 1 when events in the bundle were lost, a writer was killed, or a chunk cannot be read.",
)
@sign_options
@json_option
def command(
    root: str | None,
    live: bool,
    wait: float | None,
    require_sealed: bool,
    recover_orphans: bool,
    since_receipt: bool,
    archive: str | None,
    to: str | None,
    paranoid: bool,
    direct: bool,
    accept_unsigned: bool,
    self_verifying: bool,
    strict: bool,
    sign: str | None,
    no_sign: bool,
    as_json: bool,
) -> None:
    """Pack the sealed chunks that are not exported yet into a bundle.

    Chunks of dead writers are sealed first; chunks that are being written stay, and are named. With --live, programs
    that are running seal theirs, and go on in new ones.

    A folder of --to also brings receipts back: a hub that imports from it leaves them there, and the next export to it
    takes them.
    """
    node = Node.find(root)
    if sign is not None and not no_sign:
        check_key(sign)
    carrier = _carrier(node, to, paranoid=paranoid, direct=direct, accept_unsigned=accept_unsigned)
    if wait is not None and not live:
        raise click.UsageError("--wait is for --live")
    if direct and archive is not None:
        raise click.UsageError("--archive makes files in exports, and --direct none")
    ask = (DEFAULT_WAIT if wait is None else wait) if live else None
    options = ExportOptions(
        recover_orphans, since_receipt, sign, no_sign, archive, ask, carrier, direct, self_verifying
    )
    if carrier is not None:
        take_receipts(node, carrier, accept_unsigned=accept_unsigned)
    with progress_bar("exporting") as progress:
        results = export_all(node, options, progress=progress)
    verdicts: dict[Path | None, Verdict]
    verdicts = {result.bundle: _verdict(result) for result in results if result.bundle is not None}
    if not as_json:
        for result in results:
            _tell(result, verdicts.get(result.bundle), alone=len(results) == 1)
    for result in results:
        _remark(result)
    sent = {} if to is None else _send(node, to, paranoid=paranoid)
    if carrier is not None:
        make_place_for_receipts(carrier)
    if as_json:
        document = {"root": node.root, "nodes": [_document(result, verdicts.get(result.bundle)) for result in results]}
        print_json(document if to is None else {**document, "sent": [asdict(one) for one in sent.values()]})
    else:
        _tell_sent(sent)
    code = worst(verdicts.values()).exit_code(strict=True) if strict else 0
    code = code or (strict and any(result.left for result in results))
    if code or (require_sealed and any(_is_unsealed(result, live=live) for result in results)):
        raise SystemExit(1)


def _carrier(node: Node, to: str | None, *, paranoid: bool, direct: bool, accept_unsigned: bool) -> Path | None:
    """Check the place of `--to` and the options for it; return it if it is a folder."""
    if to is not None:
        check_url(to)
    elif paranoid:
        raise click.UsageError("--paranoid is for --to")
    carrier = None if to is None else local_folder(to)
    if carrier is None and (direct or accept_unsigned):
        option = "--direct" if direct else "--accept-unsigned"
        raise click.UsageError(f"{option} is for --to FOLDER")
    if carrier is not None and carrier.resolve().is_relative_to((node.root / "telemetry").resolve()):
        raise ConfigError("is in the node's own outbox", path=carrier, hint="name a folder outside of it")
    return carrier


def _is_unsealed(result: ExportResult, *, live: bool) -> bool:
    """Whether chunks were left open; with --live, those that programs have begun since do not count."""
    return bool(result.recovery.orphaned or (result.unanswered if live else result.recovery.live))


def _verdict(result: ExportResult) -> Verdict:
    """Judge the bundle that was made."""
    if result.bundle is None or result.manifest is None:
        return Verdict("complete")
    names = [chunk.filename for chunk in result.manifest.chunks]
    return audit_bundle(result.bundle, names, result.node_id, result.manifest).verdict


def _send(node: Node, url: str, *, paranoid: bool) -> dict[str, Sent]:
    """Upload what is not there yet, for each node id of the root; a failure does not undo the export."""
    sent = {}
    with progress_bar("sending") as progress:
        for node_id in node.all_ids():
            one = node.with_id(node_id)
            with exclusive(one):
                sent[node_id] = send(one.exports, node_id, url, paranoid=paranoid, progress=progress)
    return sent


def _tell(result: ExportResult, verdict: Verdict | None, *, alone: bool) -> None:
    prefix = "" if alone else f"{result.node_id}: "
    if verdict is not None and verdict.is_bad:
        click.echo(f"{prefix}{verdict}")
    if result.bundle is None or result.manifest is None:
        click.echo(f"{prefix}nothing new to export")
        if result.archive is not None:
            click.echo(str(result.archive))
        return
    manifest = result.manifest
    click.echo(f"{prefix}exported {contents_text(manifest, result.events)}")
    click.echo(str(result.bundle))
    if result.archive is not None:
        click.echo(str(result.archive))


def _tell_sent(sent: Mapping[str, Sent]) -> None:
    for node_id, one in sent.items():
        there = count_text(len(one.bundles), "bundle")
        if one.new:
            sent_text = f"sent {count_text(len(one.new), 'bundle')}, {size_text(one.bytes)}"
            click.echo(f"{node_id}: {sent_text}; {there} from exports at {one.url}")
        elif one.bundles:
            click.echo(f"{node_id}: nothing to send; {there} from exports at {one.url} already")


def _remark(result: ExportResult) -> None:
    for chunk in result.recovery.recovered:
        lost = f"; not kept: {chunk.torn_bytes} torn bytes, {chunk.bad_lines} bad lines"
        not_kept = lost if chunk.torn_bytes or chunk.bad_lines else ""
        remark(f"recovered {chunk.name.sealed} of a writer that died: {count_text(chunk.events, 'event')}{not_kept}")
    for open_chunk in result.unanswered:
        remark(f"did not answer in time (is it stopped?): {open_chunk}")
    for open_chunk in result.recovery.live:
        if open_chunk.name in {one.name for one in result.unanswered}:
            continue
        wait = result.recovery.wait.get(open_chunk.name.open)
        later = (
            "" if wait is None else f"; its lock is free: it is sealed when nothing is written to it for {wait} s more"
        )
        remark(f"still being written, not exported: {open_chunk}{later}")
    for open_chunk in result.recovery.orphaned:
        wait = result.recovery.wait.get(open_chunk.name.open)
        when = "" if wait is None else f" in {wait} s, if nothing is written to it until then"
        why = "its writer's lock file is gone" if open_chunk.holder is None else "may still be written by it"
        remark(f"open, {why}: {open_chunk}; if no harness runs: --recover-orphans{when}")
    for filename in result.quiet_soon:
        remark(f"changed in the last 10 minutes, not exported yet: {filename}")
    for warning in result.warnings:
        remark(f"warning: {warning}")


def _document(result: ExportResult, verdict: Verdict | None) -> dict[str, Any]:
    manifest, recovery = result.manifest, result.recovery
    return {
        "node_id": result.node_id,
        "bundle": result.bundle,
        "archive": result.archive,
        "signed": result.bundle is not None and (result.bundle / SIGNATURE_NAME).exists(),
        **({} if verdict is None else verdict.document()),
        "manifest_sha256": result.manifest_sha256,
        "chunks": 0 if manifest is None else len(manifest.chunks),
        "events": result.events,
        "lines": 0 if manifest is None else manifest.events,
        "bytes": 0 if manifest is None else manifest.total_bytes,
        "recovered": [
            {
                "chunk": chunk.name.sealed,
                "events": chunk.events,
                "torn_bytes": chunk.torn_bytes,
                "bad_lines": chunk.bad_lines,
            }
            for chunk in recovery.recovered
        ],
        "open": [
            {**chunk.document(), "orphaned": chunk in recovery.orphaned} for chunk in recovery.live + recovery.orphaned
        ],
        "unanswered": [chunk.document() for chunk in result.unanswered],
        "quiet_soon": result.quiet_soon,
        "warnings": result.warnings,
        "not_exported": result.left,
    }


if __name__ == "__main__":
    run(command)
