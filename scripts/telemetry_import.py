"""Put bundles into the hub's store; `calyx-telemetry import`."""

from __future__ import annotations

try:
    from collections import Counter
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from functools import partial
    from importlib.util import find_spec
    from pathlib import Path
    from typing import Any

    import click

    from calyx_logging.bundle.object_store import RemoteBundle, bundles_at, is_url
    from calyx_logging.bundle.signing import check_key, named_key
    from calyx_logging.bundle.staging import Source, bundles_in, bytes_of
    from calyx_logging.errors import CalyxError
    from calyx_logging.format.completeness import Verdict, worst
    from calyx_logging.hub.audit import audit_node
    from calyx_logging.hub.importer import ImportResult, Job, Policy, import_one, settle
    from calyx_logging.hub.store import Store, find_hub
    from calyx_logging.query.executors import Engine, Here
    from calyx_logging.scripts import completing
    from calyx_logging.scripts.carrying import leave_receipts
    from calyx_logging.scripts.cli import (
        advancing,
        contents_text,
        count_text,
        hub_option,
        json_option,
        print_json,
        remark,
        run,
        sign_options,
        tell,
        warn_all,
    )
    from calyx_logging.scripts.engines import engine_of, engine_options
    from calyx_logging.scripts.telemetry_receipt import receipt_text, write_receipts
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py import") from None


@click.command("import", short_help="Import bundles into the hub's store.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH…", shell_complete=completing.files)
@hub_option
@click.option("--require-signature", is_flag=True, help="Also refuse unsigned bundles of nodes without a key here.")
@click.option(
    "--accept-bad-lines",
    is_flag=True,
    help="Also accept chunks with lines that are no events of their node. They are noted, and never acknowledged.",
)
@click.option(
    "--accept-rewritten",
    multiple=True,
    metavar="NODE_ID/BUNDLE",
    help="Also accept, after you have looked at it, this bundle's chunks that contradict earlier content: they are the "
    "node's word from then on. The earlier content is kept, and the audit names them.",
)
@click.option("--no-table", is_flag=True, help="Do not bring the table up to date: the next query does.")
@click.option(
    "--strict", is_flag=True, help="Exit with 1 also when a node lost events, or one of its writers was killed."
)
@click.option("--dry-run", is_flag=True, help="Verify (in staging) and say what would happen; import nothing.")
@engine_options
@sign_options
@json_option
def command(
    paths: tuple[str, ...],
    root: str | None,
    require_signature: bool,
    accept_bad_lines: bool,
    accept_rewritten: tuple[str, ...],
    no_table: bool,
    strict: bool,
    dry_run: bool,
    engine_name: str,
    master: str | None,
    jobs: int | None,
    sign: str | None,
    no_sign: bool,
    as_json: bool,
) -> None:
    """Verify bundles and put those that are whole and genuine into the hub's store, each once.

    PATH is a bundle's folder, an archive of one or several (.zip, .tar.gz), or a folder with bundles below it; here, or
    in object storage (s3://BUCKET/FOLDER). A bundle that was imported before is not an error. Afterwards the receipts
    of the nodes are written (--sign is for those), the table is brought up to date, and each node's verdict is given,
    as audit does, from what was noted at import. Exit code 1 when a bundle was refused, 4 on a file system error
    with one; the others are in.
    """
    store = Store(find_hub(root))
    key = None if no_sign else sign or named_key(store.root)
    if key is not None and not dry_run:
        check_key(key)
    engine = engine_of(engine_name, master, jobs)
    if engine_name == "spark" and not dry_run:
        store.catalog.share()
    results, code = [], 0
    policy = Policy(require_signature, accept_bad_lines, frozenset(accept_rewritten))
    for result in _import_all(store, paths, policy, dry_run, engine):
        results.append(result)
        code = max(code, result.exit_code)
        if not as_json:
            _tell(result)
    _warn_of_unknown(accept_rewritten, results)
    if not dry_run:
        _write_index(store)
        nodes = {result.manifest.node_id for result in results if result.manifest and "imported" in result.outcome}
        code = max(code, _write_receipts(store, sorted(nodes), key, quiet=as_json))
        leave_receipts(store, paths, quiet=as_json)
        if not no_table:
            _make_table(store, sorted(nodes), engine)
    verdicts = _verdicts(store, results)
    if strict:
        code = max(code, worst(verdicts.values()).exit_code(strict=True))
    if as_json:
        print_json([_document(result, verdicts) for result in results])
    else:
        for node_id, verdict in verdicts.items():
            tell(f"{node_id}: {verdict}")
    if len(results) > 1 and not as_json:
        counts = Counter(result.outcome for result in results)
        tell(f"{count_text(len(results), 'bundle')}: {', '.join(f'{n} {what}' for what, n in counts.items())}")
    if code:
        raise SystemExit(code)


def _warn_of_unknown(names: Iterable[str], results: Iterable[ImportResult]) -> None:
    there = {f"{one.manifest.node_id}/{one.manifest.timestamp}" for one in results if one.manifest is not None}
    for name in sorted(set(names) - there):
        remark(f"warning: --accept-rewritten {name}: there is no such bundle among these")


def _write_index(store: Store) -> None:
    try:
        store.catalog.write_index()
    except (OSError, CalyxError) as error:  # nothing here needs it
        remark(f"warning: the import index cannot be written: {error}; the next import does it")


def _write_receipts(store: Store, node_ids: list[str], key: str | None, *, quiet: bool) -> int:
    """Write the nodes' receipts and return the exit code; what was imported is in, whether they are written or not."""
    try:
        for written in write_receipts(store, node_ids, key, anew=False):
            if not quiet:
                tell(f"receipt: {receipt_text(written)}")
    except CalyxError as error:  # the next import writes them
        remark(f"error: the receipts were not all written: {error}")
        return error.exit_code
    return 0


def _verdicts(store: Store, results: Iterable[ImportResult]) -> dict[str, Verdict]:
    """Judge the nodes of these bundles that the store has."""
    named = {result.manifest.node_id for result in results if result.manifest is not None}
    found = {}
    for node_id in sorted(named & set(store.nodes())):
        try:
            found[node_id] = audit_node(store, node_id).verdict
        except (CalyxError, OSError) as error:
            remark(f"warning: whether {node_id} is complete is not known: {error}; audit looks again")
    return found


def _import_all(
    store: Store, paths: Iterable[str], policy: Policy, dry_run: bool, engine: Engine
) -> Iterator[ImportResult]:
    """Import all bundles and return the results; a file system error with one does not stop the others."""
    sources: list[Path | Source] = []
    for path in paths:
        try:
            sources += _sources_at(path, store)
        except CalyxError as error:
            yield ImportResult(
                RemoteBundle(path) if is_url(path) else Path(path),
                "failed",
                warnings=[str(error)],
                exit_code=error.exit_code,
            )
    if not dry_run:
        for warning in settle(store):
            remark(f"warning: {warning}")
    jobs = [Job(store.root, source, policy, dry_run) for source in sources]
    if len(jobs) < 2 or isinstance(engine, Here):
        for number, job in enumerate(jobs, 1):
            with advancing(f"importing {number} of {len(jobs)}", partial(bytes_of, job.source)) as advance:
                done = import_one(job, advance)
            yield from done
        return
    sizes = [bytes_of(source) for source in sources]
    with advancing(f"importing {len(jobs)} bundles", lambda: sum(sizes)) as advance:
        for done, size in zip(engine.map(import_one, jobs, sum(sizes)), sizes, strict=True):
            advance(size)
            yield from done


def _sources_at(path: str, store: Store) -> Sequence[Path | Source]:
    """Find the bundles that a path or URL names."""
    if is_url(path):
        there = bundles_at(path)
        for folder in there.unfinished:
            remark(f"{folder} is left: its manifest, which is sent last, is not there yet")
        return there.bundles
    found = bundles_in(Path(path), store.folder)
    for other in found.passed_over:
        remark(f"warning: {other} is not read: folders, .zip and .tar.gz are")
    warn_all(found.leftovers)
    return found.bundles


def _make_table(store: Store, nodes: list[str], engine: Engine) -> None:
    """Bring the table up to date; it only speeds up queries, which otherwise make it themselves."""
    if not nodes or find_spec("pyarrow") is None:
        return
    from calyx_logging.query.delta import is_published, publish
    from calyx_logging.query.table import refresh

    try:
        warn_all(refresh(store, nodes, engine).warnings)
        if is_published(store):
            publish(store)
    except CalyxError as error:
        remark(f"warning: the table was not brought up to date: {error}; queries do that")


def _tell(result: ImportResult) -> None:
    about = (
        ""
        if result.manifest is None
        else f" (node {result.manifest.node_id}, {contents_text(result.manifest, result.events)})"
    )
    tell(f"{result.outcome}: {result.place}{about}")
    if result.folder is not None:
        tell(f"  {'kept in quarantine: ' if result.outcome == 'refused' else ''}{result.folder}")
    for fault in result.faults:
        tell(f"  {fault}")
    if result.next_step is not None:
        tell(f"  next: {result.next_step}")
    for warning in result.warnings:
        where = "" if warning.startswith(str(result.source)) else f"{result.place}: "
        remark(f"{'error' if result.outcome == 'failed' else 'warning'}: {where}{warning}")


def _document(result: ImportResult, verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    manifest = result.manifest
    verdict = None if manifest is None else verdicts.get(manifest.node_id)
    return {
        "source": result.place,
        "outcome": result.outcome,
        "signed_by": result.signed_by,
        "bad_lines": result.bad_lines,
        "folder": result.folder,
        "node_id": None if manifest is None else manifest.node_id,
        "chunks": None if manifest is None else len(manifest.chunks),
        "events": None if manifest is None else result.events,
        "lines": None if manifest is None else manifest.events,
        "bytes": None if manifest is None else manifest.total_bytes,
        "faults": [
            {"kind": fault.kind, "path": fault.path, "expected": fault.expected, "found": fault.found}
            for fault in result.faults
        ],
        "next_step": result.next_step,
        "warnings": result.warnings,
        "node": None if verdict is None else verdict.document(),
    }


if __name__ == "__main__":
    run(command)
