"""Have programs that are running seal what they have logged so far; `calyx-telemetry seal`."""

from __future__ import annotations

try:
    import click

    from calyx_logging.node import Node
    from calyx_logging.outbox.contents import OpenChunk
    from calyx_logging.outbox.export_lock import exclusive
    from calyx_logging.outbox.live import DEFAULT_WAIT, ask_to_seal
    from calyx_logging.scripts.cli import count_text, json_option, print_json, remark, root_option, run, tell
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py seal") from None


@click.command("seal")
@root_option
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=DEFAULT_WAIT,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for them.",
)
@json_option
def command(root: str | None, wait: float, as_json: bool) -> None:
    """Have programs that are running seal what they have logged so far, and go on in new chunks.

    Exit code 1 when a program did not answer in time; it is named. `export --live` does this first.
    """
    node = Node.find(root)
    sealed: list[OpenChunk] = []
    left: list[OpenChunk] = []
    for node_id in node.all_ids():
        one = node.with_id(node_id)
        with exclusive(one):
            done, unanswered = ask_to_seal(one.outbox, wait)
        sealed += done
        left += unanswered
    if as_json:
        print_json(
            {"root": node.root, "sealed": [c.document() for c in sealed], "unanswered": [c.document() for c in left]}
        )
    else:
        tell(f"sealed {count_text(len(sealed), 'chunk')}" if sealed or left else "nothing is open")
        for chunk in left:
            remark(f"did not answer within {wait:g} s (is it stopped?): {chunk}")
    if left:
        raise SystemExit(1)


if __name__ == "__main__":
    run(command)
