"""`banyan files`: the files that a task wrote in its work directory, listed, printed or saved."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from banyan.cli import late_typer as typer
from banyan.cli import output
from banyan.cli.act import AsJson
from banyan.cli.connection import connect
from banyan.cli.ids import Id
from banyan.errors import SetupError


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(files)


def files(
    task_id: Id,
    path: Annotated[str | None, typer.Argument(metavar="[PATH]", help="One file; all of them if not given.")] = None,
    directory: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Save there instead of listing or printing.")
    ] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="Of this attempt, not of the last.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the files in a task's work directory, print one of them, or save them, also while it runs."""
    client = connect()
    if path is not None and directory is None:
        if as_json:
            raise typer.BadParameter("a file is printed as it is; leave --json out", param_hint="--json")
        for chunk in client.file_chunks(task_id, path, attempt):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return
    listed = [] if path is not None else client.files(task_id, attempt)
    if directory is not None:
        saved = [path] if path is not None else [exact_path(file) for file in listed]
        for name in saved:
            _save(directory, name, client.file_chunks(task_id, name, attempt))
    if as_json:
        output.print_json(listed)
    elif directory is None:
        rows = [(output.size(f["size"]), output.moment(f["modified"]), printable(exact_path(f))) for f in listed]
        output.screen().print(output.table((">SIZE", "MODIFIED", "~PATH"), rows))


def exact_path(file: dict[str, Any]) -> str:
    """The path of a listed file; bytes that are not UTF-8 are lone surrogates."""
    quoted = str(file["url"]).partition("/files/")[2].partition("?")[0]
    return os.fsdecode(unquote_to_bytes(quoted))


def printable(path: str) -> str:
    """A path in one line that no terminal misunderstands."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1].replace("\\udc", "\\x") for c in path)


def _save(directory: Path, path: str, contents: Iterator[bytes]) -> None:
    """Write a file below the directory; SetupError where it cannot be, or would be elsewhere."""
    if any(step in ("", ".", "..") for step in path.split("/")):
        raise SetupError(f"{printable(path)} is not the path of a file in a work directory")
    try:
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            file.writelines(contents)
    except OSError as error:
        raise SetupError(f"cannot save {printable(path)}: {error.strerror}") from error
