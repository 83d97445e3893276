"""List the files that runs attached, and give them back; `calyx-telemetry files`."""

from __future__ import annotations

try:
    import re
    from collections import Counter
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import Any

    import click

    from calyx_logging.core import files
    from calyx_logging.core.reading import blocks_of, sha256_of, sha256_of_blocks
    from calyx_logging.errors import CalyxError, ConfigError, StorageError
    from calyx_logging.format.chunk import open_chunk
    from calyx_logging.format.file_lines import Attachment
    from calyx_logging.format.manifest import is_safe_filename
    from calyx_logging.format.run_paths import is_run_name
    from calyx_logging.node import is_node_id
    from calyx_logging.query.attachments import attachments_at, blocks_of_attachment
    from calyx_logging.scripts import completing
    from calyx_logging.scripts.cli import count_text, json_option, print_json, remark, run, size_text, tell
    from calyx_logging.scripts.sources import from_option
except ImportError as error:
    raise SystemExit(f"calyx-logging is not installed for this Python ({error}): run  python3 run.py files") from None


@click.command("files", short_help="List the files that runs attached, or write them to a folder.")
@click.argument("names", nargs=-1, metavar="[NAME]…")
@from_option
@click.option(
    "--run",
    "run_id",
    metavar="RUN",
    shell_complete=completing.run_ids,
    help="Only those of this run, or of this instance of one.",
)
@click.option("--to", "target", metavar="FOLDER", help="Write them below this folder: NODE/RUN__INSTANCE/[CASE/]NAME.")
@json_option
def command(
    names: tuple[str, ...], place: str, root: str | None, run_id: str | None, target: str | None, as_json: bool
) -> None:
    """List the files that runs attached (all, or those of these names), with their size and where they belong.

    With --to they are written, each checked against its hash. A file that is there already is never replaced; of
    several with the same name and place, the second gets a 2 in its name, and so on. Characters that cannot be in a
    folder's name are replaced. Exit code 1 when there is none, or one is not whole.
    """
    found = [
        one
        for one in attachments_at(place, root)
        if one.name in (names or [one.name]) and run_id in (None, one.run_id, one.run_instance_id)
    ]
    written = {} if target is None else dict(_write_all(found, Path(target)))
    if as_json:
        print_json([_document(one, written.get(number)) for number, one in enumerate(found)])
    for one in () if as_json else found:
        tell(_text(one))
    if target is not None and not as_json:
        count = sum(isinstance(result, Path) for result in written.values())
        tell(f"{count_text(count, 'file')} in {target}")
    for result in written.values():
        if isinstance(result, str):
            remark(f"warning: {result}")
    if not found:
        remark("no run attached such a file")
    if not found or not all(one.is_whole for one in found) or any(isinstance(one, str) for one in written.values()):
        raise SystemExit(1)


def _text(one: Attachment) -> str:
    where = ", ".join(text for text in (one.run_id, one.case_id, one.run_instance_id) if text)
    state = f"not attached: {one.left_out}" if one.left_out else "" if one.is_whole else "parts of it are missing"
    size = "" if one.size is None else size_text(one.size)
    return "  ".join(text for text in (one.node_id, where, one.name, size, state) if text)


def _document(one: Attachment, written: Path | str | None) -> dict[str, Any]:
    document = {name: value for name, value in vars(one).items() if name not in ("here", "size")}
    document |= {"bytes": one.size, "is_whole": one.is_whole}
    path, error = (str(written) if isinstance(written, kind) else None for kind in (Path, str))
    return {**document, "path": path, "error": error}


def _write_all(found: Iterable[Attachment], target: Path) -> Iterator[tuple[int, Path | str]]:
    """Write files, and yield the number of each with its path, or with what was wrong."""
    taken: Counter[Path] = Counter()
    for number, one in enumerate(found):
        if one.left_out:
            continue
        try:
            path = _place(one, target)
            taken[path] += 1
            if taken[path] > 1:
                path = path.with_name(f"{path.stem}.{taken[path]}{path.suffix}")
            yield number, _write(one, path)
        except (CalyxError, OSError) as error:
            yield number, f"{one.name} of {one.node_id}: {error}"


def _place(one: Attachment, target: Path) -> Path:
    """Return the path of a file; the names come from a node, so no part of them is to be trusted."""
    if not is_node_id(one.node_id) or not is_safe_filename(one.name):
        raise ConfigError(f"it is not written: {one.name!r:.200} is no name for a file")
    run_name = "__".join(text for text in (one.run_id, one.run_instance_id) if text) or "no run"
    folders = (one.node_id, run_name, *([one.case_id] if one.case_id else []))
    return files.reachable(target.joinpath(*map(_folder_name, folders), one.name))


def _folder_name(text: str) -> str:
    """Return a text as the name of a folder: itself where it can be one, else what can be, and a hash."""
    if is_run_name(text) and is_safe_filename(text):
        return text
    return f"{re.sub(r'[^A-Za-z0-9_+=,@-]+', '_', text)[:60]}-{sha256_of(text.encode('utf-8', 'surrogatepass'))[:8]}"


def _write(one: Attachment, path: Path) -> Path:
    """Write one file, unless it is there."""
    if path.exists():
        with open_chunk(path) as stream:
            if sha256_of_blocks(blocks_of(stream)) == (one.sha256, one.size):
                return path
        raise StorageError("another file of that name is there", path=path, hint="name another folder with --to")
    files.make_dirs(path.parent)
    files.write_new(path, blocks_of_attachment(one))
    return path


if __name__ == "__main__":
    run(command)
