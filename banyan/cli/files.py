"""`banyan files`: the files that a task wrote in its work directory, listed, printed or saved."""

import os
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote_to_bytes

from banyan.cli import late_typer as typer
from banyan.cli import output
from banyan.cli.act import AsJson
from banyan.cli.connection import connect
from banyan.cli.ids import Id
from banyan.errors import NotFound, SetupError

if TYPE_CHECKING:
    from banyan.client import Client


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(files)


def files(
    task_id: Id,
    path: Annotated[
        str | None, typer.Argument(metavar="[PATH]", help="One file, or a directory; all of them if not given.")
    ] = None,
    directory: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Save there instead of listing or printing.")
    ] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="Of this attempt, not of the last.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the files in a task's work directory, print one of them, or save them, also while it runs.

    With --json they are listed, and with -o saved before.
    """
    client = connect()
    chosen = None if path is None else _wanted(path)
    if chosen is not None and not as_json and (contents := _contents(client, task_id, chosen, attempt)) is not None:
        if directory is None:
            _print(contents)
        else:
            _save(directory, chosen, contents)
        return
    listed = client.files(task_id, attempt)
    found = listed if chosen is None else [each for each in listed if _is_in(exact_path(each), chosen)]
    if chosen is not None and not found:
        text = f"task {task_id} has no file or directory {printable(chosen)}"
        raise NotFound(f"{text}; `banyan files {task_id}` lists what it has")
    for each in found if directory is not None else ():
        _save(directory or Path(), exact_path(each), client.file_chunks(task_id, exact_path(each), attempt))
    if as_json:
        output.print_json(found)
    elif directory is None:
        rows = [(output.size(f["size"]), output.moment(f["modified"]), printable(exact_path(f))) for f in found]
        output.screen().print(output.table((">SIZE", "MODIFIED", "~PATH"), rows))


def _wanted(path: str) -> str:
    """Return the path of a file or directory as the server has it; SetupError if it leads out of the work directory."""
    steps = [step for step in path.split("/") if step not in ("", ".")]
    if path.startswith("/") or ".." in steps or not steps:
        raise SetupError(f"{printable(path)} is not the path of a file in a work directory")
    return "/".join(steps)


def _is_in(path: str, chosen: str) -> bool:
    return path == chosen or path.startswith(f"{chosen}/")


def _contents(client: "Client", task: str, path: str, attempt: int | None) -> Iterator[bytes] | None:
    """Return the contents of the file; None if there is no such file."""
    chunks = client.file_chunks(task, path, attempt)
    try:
        return chain([next(chunks, b"")], chunks)
    except NotFound:
        return None


def _print(contents: Iterator[bytes]) -> None:
    for chunk in contents:
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def exact_path(file: dict[str, Any]) -> str:
    """Return the path of a listed file; bytes that are not UTF-8 are lone surrogates."""
    quoted = str(file["url"]).partition("/files/")[2].partition("?")[0]
    return os.fsdecode(unquote_to_bytes(quoted))


def printable(path: str) -> str:
    """Return a path in one line without control sequences."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1].replace("\\udc", "\\x") for c in path)


def _save(directory: Path, path: str, contents: Iterator[bytes]) -> None:
    """Write a file below the directory; SetupError where that fails, or would be elsewhere."""
    if any(step in ("", ".", "..") for step in path.split("/")):
        raise SetupError(f"{printable(path)} is not the path of a file in a work directory")
    first = next(contents, b"")  # a file that no longer exists is not created
    try:
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            file.writelines(chain([first], contents))
    except OSError as error:
        raise SetupError(f"cannot save {printable(path)}: {error.strerror}") from error
