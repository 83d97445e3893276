"""Send one event the whole way and check it at every step; `calyx-telemetry smoke-test`."""

from __future__ import annotations

try:
    import logging
    import logging.config
    import tempfile
    import uuid
    from collections.abc import Iterator
    from contextlib import contextmanager
    from pathlib import Path
    from typing import Any

    import click

    from calyx_logging.bundle.folder import verify
    from calyx_logging.core import json_bytes
    from calyx_logging.core.temporary import temporary_folder
    from calyx_logging.errors import CalyxError, NodeNotProvisioned, StorageError
    from calyx_logging.events.event import decode
    from calyx_logging.format.chunk import open_chunk, read_lines
    from calyx_logging.format.manifest import MANIFEST_NAME, SUMS_NAME
    from calyx_logging.node import Node, provision
    from calyx_logging.outbox import contents
    from calyx_logging.outbox.export import ExportResult, export
    from calyx_logging.scripts.cli import contents_text, json_option, print_json, remark, root_option, run
except ImportError as error:
    raise SystemExit(
        f"calyx-logging is not installed for this Python ({error}): run  python3 run.py smoke-test"
    ) from None

LOGGER = "calyx_logging.smoke_test"
SOURCE = "smoke_test"


@click.command("smoke-test", short_help="Send one event the whole way.")
@root_option
@click.option("--keep", is_flag=True, help="Keep the temporary root (when there is no node id yet).")
@json_option
def command(root: str | None, keep: bool, as_json: bool) -> None:
    """Log one event labelled _smoke_test, find it on disk, export it, verify the bundle, show what is in it.

    In a provisioned root the event stays in the outbox, and the export is a real one: it takes everything pending.
    In a root without node id it works in a temporary one, which is deleted afterwards. Exit code 1 when a step fails.
    """
    steps = Steps(quiet=as_json)
    with _root_to_test(root, keep, steps) as node:
        try:
            result = _whole_way(node, steps)
        except (CalyxError, OSError) as error:
            steps.failed(str(error if isinstance(error, CalyxError) else StorageError.of(error, "go on", node.root)))
            result = None
        if as_json:
            print_json({"passed": steps.passed, "root": node.root, "node_id": node.id, "steps": steps.done})
        elif result is not None:
            _show(result)
    if not as_json:
        click.echo("PASSED" if steps.passed else f"FAILED: {steps.done[-1]['step']}")
    if not steps.passed:
        raise SystemExit(1)


class Steps:
    """Steps that were checked, in order; if one failed, it is the last."""

    def __init__(self, *, quiet: bool) -> None:
        self.done: list[dict[str, Any]] = []
        self._quiet = quiet

    @property
    def passed(self) -> bool:
        """Tell whether every step passed."""
        return all(step["ok"] for step in self.done)

    def ok(self, text: str) -> None:
        """Record a step that passed."""
        self._add(text, True)

    def failed(self, text: str) -> None:
        """Record a step that failed; it is the last, and shown at the end."""
        self._add(text, False)

    def check(self, condition: bool, text: str, otherwise: str) -> None:
        """Record a step, or raise the error that ends the test."""
        if not condition:
            raise CalyxError(otherwise)
        self.ok(text)

    def show(self, text: str) -> None:
        """Print something for the user to look at."""
        if not self._quiet:
            click.echo(f"        {text}")

    def _add(self, text: str, ok: bool) -> None:
        self.done.append({"step": text, "ok": ok})
        if ok and not self._quiet:
            click.echo(f"ok      {text}")


@contextmanager
def _root_to_test(root: str | None, keep: bool, steps: Steps) -> Iterator[Node]:
    try:
        yield Node.find(root)
        return
    except NodeNotProvisioned as error:
        remark(
            f"no node id here ({error.message}): testing in a temporary root instead"
            + ("" if keep else ", deleted afterwards (--keep keeps it)")
        )
    if keep:
        folder = tempfile.mkdtemp(prefix="calyx-smoke-test-kept-")
        yield provision(folder, "smoke-test-node").node
        remark(f"kept: {folder}")
        return
    with temporary_folder("calyx-smoke-test-") as temporary:
        yield provision(temporary, "smoke-test-node").node


def _whole_way(node: Node, steps: Steps) -> ExportResult:
    steps.ok(f"node {node.id} at {node.root}")
    nonce = str(uuid.uuid4())
    _log_one_event(node, nonce)
    chunk = _find(node, nonce)
    steps.check(chunk is not None, "one event logged through dictConfig and logging", "the event is not in the outbox")
    assert chunk is not None
    event = _event_in(node.outbox / chunk, nonce)
    for name in ("node_id", "ts_utc", "event_id", "source"):
        steps.check(bool(event.get(name)), f"it has {name} {event.get(name)}", f"the event has no {name}")
    steps.check(event["node_id"] == node.id, "the node id is this node's", f"its node_id is {event['node_id']}")
    result = export(node)
    steps.check(result.bundle is not None, f"exported to {result.bundle}", "the export made no bundle")
    assert result.bundle is not None
    steps.show(f"the event: {json_bytes.dumps(event).decode()}")
    verified = verify(result.bundle)
    steps.ok(f"verified: {contents_text(verified.manifest, verified.events)}")
    same = _event_in(result.bundle / chunk, nonce) == event
    steps.check(same, "the event is in the bundle, unchanged", "the event is not in the bundle as it was logged")
    return result


def _log_one_event(node: Node, nonce: str) -> None:
    try:
        logging.config.dictConfig(_logging_config(node))
    except ValueError as error:  # dictConfig's own, with the handler's error as its cause
        if isinstance(error.__cause__, (CalyxError, OSError)):
            raise error.__cause__ from None
        raise
    logger = logging.getLogger(LOGGER)
    logger.info("smoke test", extra={"_smoke_test": True, "nonce": nonce})
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def _logging_config(node: Node) -> dict[str, Any]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"event": {"()": "calyx_logging.EventFormatter"}},
        "handlers": {
            "outbox": {
                "class": "calyx_logging.handlers.OutboxHandler",
                "formatter": "event",
                "root": str(node.root),
                "component": "smoke-test",
                "source": SOURCE,
            }
        },
        "loggers": {LOGGER: {"level": "INFO", "handlers": ["outbox"], "propagate": False}},
    }


def _find(node: Node, nonce: str) -> str | None:
    newest_first = sorted(contents.look(node.outbox).sealed, reverse=True)
    mine = [name.sealed for name in newest_first if name.component == "smoke-test"]
    return next((name for name in mine if _event_in(node.outbox / name, nonce)), None)


def _event_in(chunk: Path, nonce: str) -> dict[str, Any]:
    """Return the event with that nonce; empty if it is not there."""
    with open_chunk(chunk) as stream:
        for line, _ in read_lines(stream):
            event = decode(line)
            if event.get("nonce") == nonce:
                return event
    return {}


def _show(result: ExportResult) -> None:
    bundle = result.bundle
    if bundle is None:
        return
    click.echo(f"\n{bundle}:")
    for path in sorted(bundle.iterdir()):
        click.echo(f"  {path.name}")
    for name in (MANIFEST_NAME, SUMS_NAME):
        click.echo(f"\n{name}:\n{(bundle / name).read_text('utf-8').rstrip()}")
    click.echo()


if __name__ == "__main__":
    run(command)
